//! One object in one file: the body, then its metadata as JSON, then a fixed trailer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Ends every object's file.
const MAGIC: &[u8; 8] = b"rkobj\0\0\x01";
/// Length of the JSON (u32, little-endian) and the magic.
const TRAILER: u64 = 12;
/// S3 allows 2 KiB of user metadata; this leaves room for the key and the rest.
const MAX_META: u64 = 64 * 1024;

/// What a client says of an object, kept for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `x-amz-meta-*`.
    pub user: BTreeMap<String, String>,
    /// Checksums of the whole body in base64, by their names in lower case.
    pub checksums: BTreeMap<String, String>,
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Its key.
    pub key: String,
    /// Bytes of its body.
    pub size: u64,
    /// When it was made, in milliseconds of Unix time.
    pub modified_ms: u64,
    /// Hex MD5; with `-<parts>` for one uploaded in parts.
    pub etag: String,
    /// What the client said.
    pub attributes: Attributes,
}

/// Puts `meta` behind the body that `file` holds, and makes both durable.
pub(crate) fn seal(file: &mut File, meta: &Meta) -> io::Result<()> {
    let json = serde_json::to_vec(meta).map_err(io::Error::other)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    file.seek(SeekFrom::Start(meta.size))?;
    file.write_all(&json)?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(MAGIC)?;
    file.sync_all()
}

/// Opens an object, positioned at the start of its body.
pub(crate) fn open(path: &Path) -> io::Result<(File, Meta)> {
    let mut file = File::open(path)?;
    let meta = read_meta(&mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok((file, meta))
}

fn read_meta(file: &mut File) -> io::Result<Meta> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the object's file is damaged");
    let end = file.metadata()?.len().checked_sub(TRAILER).ok_or_else(damaged)?;
    file.seek(SeekFrom::Start(end))?;
    let mut trailer = [0; TRAILER as usize];
    file.read_exact(&mut trailer)?;
    let [a, b, c, d, magic @ ..] = trailer;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if &magic != MAGIC || length > MAX_META {
        return Err(damaged());
    }
    let size = end.checked_sub(length).ok_or_else(damaged)?;
    file.seek(SeekFrom::Start(size))?;
    let mut json = Vec::new();
    file.take(length).read_to_end(&mut json)?;
    let meta: Meta = serde_json::from_slice(&json).map_err(|_| damaged())?;
    if meta.size == size { Ok(meta) } else { Err(damaged()) }
}
