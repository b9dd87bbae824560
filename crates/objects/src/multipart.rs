//! Uploads in parts: `<dir>/uploads/<id>/upload.json`, and one sealed file for each part.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;

use ids::AccountId;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::object_file::{self, Attributes, Meta};
use crate::store::{Condition, ObjectStore, StoreError, check_key, now_ms, sealed, sync_dir};

/// S3's limit.
pub(crate) const MAX_PARTS: i32 = 10_000;
/// S3's limit for every part but the last.
const MIN_PART: u64 = 5 << 20;
/// Read from disk at a time.
const COPY_CHUNK: usize = 1 << 17;
const ABOUT: &str = "upload.json";

/// Why an upload in parts does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the upload does not exist; it may be completed or aborted: begin a new one")]
    NoSuchUpload,
    #[error("a part is missing, or its ETag is not the one that was given for it; upload it again")]
    InvalidPart,
    #[error("the parts must be listed by ascending number")]
    PartOrder,
    #[error("every part but the last must have at least 5 MiB")]
    PartTooSmall,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        Self::Store(error.into())
    }
}

/// An upload that is under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Upload {
    /// None: from before there were accounts. The bucket may be another account's by now.
    #[serde(default)]
    pub(crate) owner: Option<AccountId>,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) started_ms: u64,
    pub(crate) attributes: Attributes,
}

impl Upload {
    fn is_of(&self, account: &AccountId, bucket: &str) -> bool {
        self.bucket == bucket && self.owner.as_ref().is_none_or(|owner| owner == account)
    }
}

impl ObjectStore {
    pub(crate) fn begin_upload(
        &self,
        account: &AccountId,
        bucket: &str,
        key: &str,
        attributes: Attributes,
    ) -> Result<Uuid, UploadError> {
        check_key(key)?;
        self.require(account, bucket)?;
        let id = Uuid::new_v4();
        let dir = self.upload_dir(id);
        fs::create_dir(&dir)?;
        let (owner, bucket, key) = (Some(account.clone()), bucket.to_owned(), key.to_owned());
        let upload = Upload { owner, bucket, key, started_ms: now_ms(), attributes };
        let mut file = File::create_new(dir.join(ABOUT))?;
        file.write_all(&serde_json::to_vec(&upload).map_err(io::Error::other)?)?;
        file.sync_all()?;
        sync_dir(&dir)?;
        sync_dir(&self.uploads_dir())?;
        Ok(id)
    }

    /// The upload `id`, if it is the account's, and of that bucket and key.
    pub(crate) fn upload(
        &self,
        account: &AccountId,
        id: &str,
        bucket: &str,
        key: &str,
    ) -> Result<(Uuid, Upload), UploadError> {
        self.require(account, bucket)?;
        let id = Uuid::try_parse(id).map_err(|_| UploadError::NoSuchUpload)?;
        let upload = self.read_upload(id)?;
        if upload.is_of(account, bucket) && upload.key == key {
            Ok((id, upload))
        } else {
            Err(UploadError::NoSuchUpload)
        }
    }

    fn read_upload(&self, id: Uuid) -> Result<Upload, UploadError> {
        match fs::read(self.upload_dir(id).join(ABOUT)) {
            Ok(json) => Ok(serde_json::from_slice(&json).map_err(io::Error::other)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UploadError::NoSuchUpload),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn put_part(
        &self,
        id: Uuid,
        number: i32,
        file: tempfile::NamedTempFile,
        meta: &Meta,
    ) -> Result<(), UploadError> {
        let path = sealed(file, meta)?;
        match path.persist(self.part_path(id, number)) {
            Ok(()) => Ok(sync_dir(&self.upload_dir(id))?),
            // Aborted or completed meanwhile.
            Err(error) if error.error.kind() == io::ErrorKind::NotFound => Err(UploadError::NoSuchUpload),
            Err(error) => Err(error.error.into()),
        }
    }

    /// Makes `range` of an object's file a part.
    pub(crate) fn copy_part(
        &self,
        id: Uuid,
        number: i32,
        mut from: File,
        range: Range<u64>,
    ) -> Result<Meta, UploadError> {
        from.seek(SeekFrom::Start(range.start))?;
        let size = range.end - range.start;
        let mut from = from.take(size);
        let (mut file, mut hash, mut chunk) = (self.temporary()?, Md5::new(), vec![0; COPY_CHUNK]);
        loop {
            let read = from.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            hash.update(&chunk[..read]);
            file.write_all(&chunk[..read])?;
        }
        let (etag, attributes) = (hex(&hash.finalize()), Attributes::default());
        let meta = Meta { key: String::new(), size, modified_ms: now_ms(), etag, attributes };
        self.put_part(id, number, file, &meta)?;
        Ok(meta)
    }

    /// The parts there are, by number.
    pub(crate) fn parts(&self, id: Uuid) -> Result<BTreeMap<i32, Meta>, UploadError> {
        let mut parts = BTreeMap::new();
        for entry in fs::read_dir(self.upload_dir(id))? {
            let entry = entry?;
            if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                parts.insert(number, object_file::open(&entry.path())?.1);
            }
        }
        Ok(parts)
    }

    /// Joins the parts that `wanted` lists, by number and ETag, to the object.
    pub(crate) fn complete_upload(
        &self,
        account: &AccountId,
        id: Uuid,
        upload: Upload,
        wanted: &[(i32, Option<String>)],
        condition: &Condition,
    ) -> Result<String, UploadError> {
        if wanted.is_empty() {
            return Err(UploadError::InvalidPart);
        }
        if !wanted.is_sorted_by_key(|(number, _)| *number) {
            return Err(UploadError::PartOrder);
        }
        let mut whole = self.temporary()?;
        let (mut size, mut hash) = (0, Md5::new());
        for (at, (number, etag)) in wanted.iter().enumerate() {
            let (file, part) = self.open_part(id, *number, etag.as_deref())?;
            if part.size < MIN_PART && at + 1 < wanted.len() {
                return Err(UploadError::PartTooSmall);
            }
            size += io::copy(&mut file.take(part.size), whole.as_file_mut())?;
            hash.update(unhex(&part.etag));
        }
        let etag = format!("{}-{}", hex(&hash.finalize()), wanted.len());
        let meta = Meta {
            key: upload.key,
            size,
            modified_ms: now_ms(),
            etag: etag.clone(),
            attributes: upload.attributes,
        };
        self.commit(account, &upload.bucket, whole, &meta, condition)?;
        self.end_upload(id)?;
        Ok(etag)
    }

    fn open_part(&self, id: Uuid, number: i32, etag: Option<&str>) -> Result<(File, Meta), UploadError> {
        match object_file::open(&self.part_path(id, number)) {
            Ok((_, meta)) if etag.is_some_and(|etag| etag != meta.etag) => Err(UploadError::InvalidPart),
            Ok(part) => Ok(part),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(UploadError::InvalidPart),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets an upload, completed or not.
    pub(crate) fn end_upload(&self, id: Uuid) -> Result<(), UploadError> {
        fs::remove_dir_all(self.upload_dir(id))?;
        Ok(sync_dir(&self.uploads_dir())?)
    }

    /// The account's uploads under way in a bucket, by id.
    pub(crate) fn uploads(
        &self,
        account: &AccountId,
        bucket: &str,
    ) -> Result<Vec<(Uuid, Upload)>, UploadError> {
        self.require(account, bucket)?;
        let mut uploads = Vec::new();
        for entry in fs::read_dir(self.uploads_dir())? {
            let name = entry?.file_name();
            let Some(id) = name.to_str().and_then(|name| Uuid::try_parse(name).ok()) else { continue };
            match self.read_upload(id) {
                Ok(upload) if upload.is_of(account, bucket) => uploads.push((id, upload)),
                Ok(_) | Err(UploadError::NoSuchUpload) => {}
                Err(error) => return Err(error),
            }
        }
        uploads.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
        Ok(uploads)
    }

    fn upload_dir(&self, id: Uuid) -> PathBuf {
        self.uploads_dir().join(id.hyphenated().to_string())
    }

    fn part_path(&self, id: Uuid, number: i32) -> PathBuf {
        self.upload_dir(id).join(format!("{number:05}"))
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of text that [`hex`] made.
fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks_exact(2);
    let digits = pairs.filter_map(|pair| std::str::from_utf8(pair).ok());
    digits.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}
