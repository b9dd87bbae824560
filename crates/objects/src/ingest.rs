//! Bodies on their way in: to a temporary file, hashed and checked while they stream.

use std::collections::BTreeMap;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use hyper::HeaderMap;
use md5::{Digest, Md5};
use s3s::checksum::ChecksumHasher;
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Error, S3Result, TrailingHeaders, s3_error};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

use crate::store::ObjectStore;

/// S3's limit on one upload.
const MAX_BODY: u64 = 5 << 30;

/// A body that came in whole and unharmed.
#[derive(Debug)]
pub(crate) struct Ingested {
    pub(crate) file: NamedTempFile,
    pub(crate) size: u64,
    pub(crate) md5: [u8; 16],
    /// Base64 checksums by algorithm: those that the client asked for.
    pub(crate) checksums: BTreeMap<String, String>,
}

/// What the client said of the body that it sends.
pub(crate) struct Expectation {
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: Option<TrailingHeaders>,
}

impl Expectation {
    fn checksum_header(algorithm: &str) -> String {
        format!("x-amz-checksum-{algorithm}")
    }

    fn wants(&self, algorithm: &str) -> bool {
        let name = Self::checksum_header(algorithm);
        let says = |header: &str, value: &str| {
            let mut values = self.headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
            values.any(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(value)))
        };
        self.headers.contains_key(&name)
            || says("x-amz-trailer", &name)
            || says("x-amz-sdk-checksum-algorithm", algorithm)
    }

    fn hasher(&self) -> ChecksumHasher {
        ChecksumHasher {
            crc32: self.wants("crc32").then(Default::default),
            crc32c: self.wants("crc32c").then(Default::default),
            crc64nvme: self.wants("crc64nvme").then(Default::default),
            sha1: self.wants("sha1").then(Default::default),
            sha256: self.wants("sha256").then(Default::default),
        }
    }

    /// Compares after the body, for trailers come behind it.
    fn check(&self, md5: [u8; 16], checksums: &BTreeMap<String, String>) -> S3Result<()> {
        let trailers = self.trailers.as_ref().and_then(TrailingHeaders::take).unwrap_or_default();
        for (algorithm, computed) in checksums {
            let name = Self::checksum_header(algorithm);
            let stated = self.headers.get(&name).or_else(|| trailers.get(&name));
            if stated.is_some_and(|stated| stated.as_bytes() != computed.as_bytes()) {
                return Err(s3_error!(BadDigest, "the body's {algorithm} is {computed}; send it again"));
            }
        }
        match self.headers.get("content-md5") {
            Some(stated) if stated.as_bytes() != STANDARD.encode(md5).as_bytes() => {
                Err(s3_error!(BadDigest, "the body's MD5 is not Content-MD5; send it again"))
            }
            _ => Ok(()),
        }
    }
}

/// Writes `body` to a temporary file of `store`.
pub(crate) async fn ingest(
    store: &ObjectStore,
    body: Option<StreamingBlob>,
    expectation: &Expectation,
) -> S3Result<Ingested> {
    let mut body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
    let temporary = store.temporary().map_err(S3Error::internal_error)?;
    let clone = temporary.as_file().try_clone().map_err(S3Error::internal_error)?;
    let mut file = tokio::io::BufWriter::with_capacity(1 << 18, tokio::fs::File::from_std(clone));
    let (mut size, mut md5, mut hasher) = (0_u64, Md5::new(), expectation.hasher());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| S3Error::with_source(s3s::S3ErrorCode::IncompleteBody, error))?;
        size = size.saturating_add(chunk.len() as u64);
        if size > MAX_BODY {
            return Err(s3_error!(EntityTooLarge));
        }
        md5.update(&chunk);
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(S3Error::internal_error)?;
    }
    file.flush().await.map_err(S3Error::internal_error)?;
    let (md5, checksums) = (md5.finalize().into(), by_name(hasher.finalize()));
    expectation.check(md5, &checksums)?;
    Ok(Ingested { file: temporary, size, md5, checksums })
}

fn by_name(sums: Checksum) -> BTreeMap<String, String> {
    let all = [
        ("crc32", sums.checksum_crc32),
        ("crc32c", sums.checksum_crc32c),
        ("crc64nvme", sums.checksum_crc64nvme),
        ("sha1", sums.checksum_sha1),
        ("sha256", sums.checksum_sha256),
    ];
    all.into_iter().filter_map(|(name, sum)| Some((name.to_owned(), sum?))).collect()
}

/// Runs file work away from the threads that serve connections.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> S3Result<T>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || work().map_err(Into::into)).await;
    done.map_err(S3Error::internal_error)?.map_err(|Failure(error)| error)
}

/// An error of ours as S3 tells it.
pub(crate) struct Failure(pub(crate) S3Error);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(S3Error::internal_error(error))
    }
}
