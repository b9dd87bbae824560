//! Buckets and objects on disk, and the index over them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ids::AccountId;
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempPath};

use crate::listing::{self, Page, Query};
use crate::object_file::{self, Meta};
use crate::owner::Owners;

/// S3's limit.
pub(crate) const MAX_KEY_BYTES: usize = 1024;

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
#[error("opening the object store at {path}: {source}; check that the directory is there and writable")]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// Why an object was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such bucket.
    #[error("reading an object: the bucket does not exist; create it first")]
    NoSuchBucket,
    /// It belongs to another account.
    #[error("reading an object: the bucket belongs to another account; use one of your own")]
    NotYours,
    /// No such object in it.
    #[error("reading an object: the key does not exist in the bucket; upload the object first")]
    NoSuchKey,
    /// The disk.
    #[error("reading an object: {0}")]
    Io(#[from] io::Error),
}

/// Why something in the store was not done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name is not one that S3 allows.
    #[error("the bucket's name must be 3 to 63 lower-case letters, digits, dots and hyphens")]
    InvalidBucketName,
    /// The bucket is there already.
    #[error("the bucket exists already")]
    BucketExists,
    /// Another account has a bucket of this name.
    #[error("the bucket's name is taken by another account; choose another one")]
    BucketTaken,
    /// Only an empty bucket can be deleted.
    #[error("the bucket is not empty; delete its objects first")]
    BucketNotEmpty,
    /// No such bucket.
    #[error("the bucket does not exist; create it first")]
    NoSuchBucket,
    /// It belongs to another account.
    #[error("the bucket belongs to another account; use one of your own")]
    NotYours,
    /// The key is empty or above 1024 bytes.
    #[error("the key must have 1 to 1024 bytes")]
    InvalidKey,
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("the object is not as the request's condition demands")]
    Precondition,
    /// The disk.
    #[error("storing: {0}")]
    Io(#[from] io::Error),
}

/// The body of an object: the first `size` bytes of `file`, which stands at its start.
#[derive(Debug)]
pub struct Reader {
    /// Open for reading. The file is longer than the body: read no more than `size`.
    pub file: File,
    /// Bytes of the body.
    pub size: u64,
    /// What else is known.
    pub meta: Meta,
}

/// What must hold of the object that a write replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Condition {
    #[default]
    Always,
    Absent,
    Present,
    Etag(String),
}

/// What listings show of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    pub(crate) modified_ms: u64,
    pub(crate) etag: String,
}

impl From<&Meta> for Entry {
    fn from(meta: &Meta) -> Self {
        Self { size: meta.size, modified_ms: meta.modified_ms, etag: meta.etag.clone() }
    }
}

#[derive(Debug)]
struct Bucket {
    owner: AccountId,
    created_ms: u64,
    objects: BTreeMap<String, Entry>,
}

/// The store. Clones share it. Whatever is done is done for an account, and to that account's buckets alone.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    root: Arc<Path>,
    /// Held over every change of a bucket's directory, so that index and disk agree.
    buckets: Arc<Mutex<BTreeMap<String, Bucket>>>,
}

impl ObjectStore {
    /// Opens the store in `dir`, making it if it is not there. Blocks while it reads what is there. Buckets from
    /// before there were accounts are `heir`'s from now on.
    ///
    /// # Errors
    /// If the directory cannot be read or written, or an object in it is damaged.
    pub fn open(dir: &Path, heir: &AccountId) -> Result<Self, OpenError> {
        Self::open_io(dir, heir).map_err(|source| OpenError { path: dir.to_owned(), source })
    }

    fn open_io(dir: &Path, heir: &AccountId) -> io::Result<Self> {
        let store = Self { root: dir.into(), buckets: Arc::default() };
        // Nothing in it was ever acknowledged.
        match fs::remove_dir_all(store.tmp_dir()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for dir in [store.tmp_dir(), store.buckets_dir(), store.uploads_dir()] {
            fs::create_dir_all(dir)?;
        }
        let owners = store.owners();
        owners.prepare()?;
        sync_dir(dir)?;
        let mut buckets = store.buckets();
        for entry in fs::read_dir(store.buckets_dir())? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let owner = owners.find_or_set(&name, heir)?;
                buckets.insert(name, load_bucket(&entry.path(), owner)?);
            }
        }
        owners.keep_only(|bucket| buckets.contains_key(bucket))?;
        drop(buckets);
        Ok(store)
    }

    /// Opens an object of a bucket of `account`. Blocks for as long as opening a file takes.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, account: &AccountId, bucket: &str, key: &str) -> Result<Reader, ReadError> {
        match self.buckets().get(bucket) {
            None => return Err(ReadError::NoSuchBucket),
            Some(bucket) if bucket.owner != *account => return Err(ReadError::NotYours),
            Some(_) => {}
        }
        match object_file::open(&self.object_path(bucket, key)) {
            Ok((file, meta)) => Ok(Reader { file, size: meta.size, meta }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::NoSuchKey),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a bucket that belongs to `account`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn create_bucket(&self, account: &AccountId, name: &str) -> Result<(), StoreError> {
        if !is_bucket_name(name) {
            return Err(StoreError::InvalidBucketName);
        }
        let mut buckets = self.buckets();
        match buckets.get(name) {
            None => {}
            Some(bucket) if bucket.owner == *account => return Err(StoreError::BucketExists),
            Some(_) => return Err(StoreError::BucketTaken),
        }
        // The owner first: an owner without a bucket is forgotten, a bucket without one would be the heir's.
        self.owners().set(name, account)?;
        fs::create_dir(self.bucket_dir(name))?;
        sync_dir(&self.buckets_dir())?;
        let bucket = Bucket { owner: account.clone(), created_ms: now_ms(), objects: BTreeMap::new() };
        buckets.insert(name.to_owned(), bucket);
        Ok(())
    }

    /// Deletes a bucket that is empty.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn delete_bucket(&self, account: &AccountId, name: &str) -> Result<(), StoreError> {
        let mut buckets = self.buckets();
        let bucket = of(&mut buckets, account, name)?;
        if !bucket.objects.is_empty() {
            return Err(StoreError::BucketNotEmpty);
        }
        fs::remove_dir(self.bucket_dir(name))?;
        sync_dir(&self.buckets_dir())?;
        buckets.remove(name);
        Ok(self.owners().remove(name)?)
    }

    /// Deletes an object; it need not be there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn delete(&self, account: &AccountId, bucket: &str, key: &str) -> Result<(), StoreError> {
        let mut buckets = self.buckets();
        let objects = &mut of(&mut buckets, account, bucket)?.objects;
        if objects.contains_key(key) {
            fs::remove_file(self.object_path(bucket, key))?;
            sync_dir(&self.bucket_dir(bucket))?;
            objects.remove(key);
        }
        Ok(())
    }

    /// Whether the bucket is there and the account's.
    ///
    /// # Errors
    /// If it is not.
    pub fn require(&self, account: &AccountId, bucket: &str) -> Result<(), StoreError> {
        of(&mut self.buckets(), account, bucket).map(drop)
    }

    /// Names of the account's buckets, and when each was made.
    pub(crate) fn list_buckets(&self, account: &AccountId) -> Vec<(String, u64)> {
        let buckets = self.buckets();
        let own = buckets.iter().filter(|(_, bucket)| bucket.owner == *account);
        own.map(|(name, bucket)| (name.clone(), bucket.created_ms)).collect()
    }

    pub(crate) fn list(
        &self,
        account: &AccountId,
        bucket: &str,
        query: &Query,
    ) -> Result<Page<Entry>, StoreError> {
        Ok(listing::page(&of(&mut self.buckets(), account, bucket)?.objects, query))
    }

    /// A file to write a body to.
    pub(crate) fn temporary(&self) -> io::Result<NamedTempFile> {
        NamedTempFile::new_in(self.tmp_dir())
    }

    /// Makes the body in `file` the object `meta.key`, durably, replacing what was there.
    pub(crate) fn commit(
        &self,
        account: &AccountId,
        bucket: &str,
        file: NamedTempFile,
        meta: &Meta,
        condition: &Condition,
    ) -> Result<(), StoreError> {
        check_key(&meta.key)?;
        let path = sealed(file, meta)?;
        let mut buckets = self.buckets();
        let objects = &mut of(&mut buckets, account, bucket)?.objects;
        if !condition.holds(objects.get(&meta.key)) {
            return Err(StoreError::Precondition);
        }
        path.persist(self.object_path(bucket, &meta.key)).map_err(|error| error.error)?;
        objects.insert(meta.key.clone(), meta.into());
        sync_dir(&self.bucket_dir(bucket))?;
        Ok(())
    }

    pub(crate) fn uploads_dir(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn owners(&self) -> Owners {
        Owners { dir: self.root.join("owners"), tmp: self.tmp_dir() }
    }

    fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn buckets_dir(&self) -> PathBuf {
        self.root.join("buckets")
    }

    fn bucket_dir(&self, bucket: &str) -> PathBuf {
        self.buckets_dir().join(bucket)
    }

    /// Only for a bucket that the index has: its name was checked when it was made.
    fn object_path(&self, bucket: &str, key: &str) -> PathBuf {
        let name: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
        self.bucket_dir(bucket).join(name)
    }

    fn buckets(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        // Every change of the map is a single insert or remove: a panic elsewhere leaves it whole.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    fn holds(&self, entry: Option<&Entry>) -> bool {
        match self {
            Self::Always => true,
            Self::Absent => entry.is_none(),
            Self::Present => entry.is_some(),
            Self::Etag(etag) => entry.is_some_and(|entry| entry.etag == *etag),
        }
    }
}

/// A bucket of the account.
fn of<'b>(
    buckets: &'b mut BTreeMap<String, Bucket>,
    account: &AccountId,
    name: &str,
) -> Result<&'b mut Bucket, StoreError> {
    match buckets.get_mut(name) {
        None => Err(StoreError::NoSuchBucket),
        Some(bucket) if bucket.owner != *account => Err(StoreError::NotYours),
        Some(bucket) => Ok(bucket),
    }
}

/// Puts `meta` behind the body, durably; the file is still to be named.
pub(crate) fn sealed(file: NamedTempFile, meta: &Meta) -> io::Result<TempPath> {
    let (mut file, path) = file.into_parts();
    object_file::seal(&mut file, meta)?;
    Ok(path)
}

/// Milliseconds of Unix time.
pub(crate) fn now_ms() -> u64 {
    millis(SystemTime::now())
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) { Ok(()) } else { Err(StoreError::InvalidKey) }
}

fn load_bucket(dir: &Path, owner: AccountId) -> io::Result<Bucket> {
    let about = fs::metadata(dir)?;
    let created_ms = millis(about.created().or(about.modified())?);
    let mut bucket = Bucket { owner, created_ms, objects: BTreeMap::new() };
    for entry in fs::read_dir(dir)? {
        let (_, meta) = object_file::open(&entry?.path())?;
        bucket.objects.insert(meta.key.clone(), (&meta).into());
    }
    Ok(bucket)
}

/// S3's rules, which also make the name safe as a directory's.
fn is_bucket_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|&byte| plain(byte) || byte == b'-' || byte == b'.')
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn me() -> AccountId {
        "111122223333".parse().unwrap()
    }

    fn other() -> AccountId {
        "444455556666".parse().unwrap()
    }

    fn put(store: &ObjectStore, key: &str, body: &[u8], condition: &Condition) -> Result<(), StoreError> {
        let mut file = store.temporary()?;
        file.write_all(body)?;
        let meta = Meta {
            key: key.to_owned(),
            size: body.len() as u64,
            modified_ms: now_ms(),
            etag: "e".to_owned(),
            attributes: crate::Attributes::default(),
        };
        store.commit(&me(), "bucket", file, &meta, condition)
    }

    fn text(store: &ObjectStore, key: &str) -> String {
        let reader = store.read(&me(), "bucket", key).unwrap();
        let mut text = String::new();
        reader.file.take(reader.size).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn objects_outlive_the_process_and_keys_are_no_paths() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ["../../etc/passwd", "a/b", "a", "/", "..", &"k".repeat(1024)];
        let store = ObjectStore::open(dir.path(), &me()).unwrap();
        store.create_bucket(&me(), "bucket").unwrap();
        for key in keys {
            put(&store, key, key.as_bytes(), &Condition::Always).unwrap();
        }
        drop(store);
        let store = ObjectStore::open(dir.path(), &me()).unwrap();
        for key in keys {
            assert_eq!(text(&store, key), key);
        }
        let query = Query { max: 1000, ..Query::default() };
        assert_eq!(store.list(&me(), "bucket", &query).unwrap().objects.len(), keys.len());
        assert!(matches!(store.delete_bucket(&me(), "bucket"), Err(StoreError::BucketNotEmpty)));
        for key in keys {
            store.delete(&me(), "bucket", key).unwrap();
        }
        store.delete_bucket(&me(), "bucket").unwrap();
        assert!(matches!(store.read(&me(), "bucket", "a"), Err(ReadError::NoSuchBucket)));
    }

    #[test]
    fn conditions_are_checked_at_the_moment_of_change() {
        let dir = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(dir.path(), &me()).unwrap();
        store.create_bucket(&me(), "bucket").unwrap();
        assert!(matches!(put(&store, "k", b"1", &Condition::Present), Err(StoreError::Precondition)));
        put(&store, "k", b"1", &Condition::Absent).unwrap();
        assert!(matches!(put(&store, "k", b"2", &Condition::Absent), Err(StoreError::Precondition)));
        put(&store, "k", b"3", &Condition::Etag("e".into())).unwrap();
        assert_eq!(text(&store, "k"), "3");
        assert!(matches!(put(&store, "", b"", &Condition::Always), Err(StoreError::InvalidKey)));
        assert!(matches!(store.read(&me(), "bucket", "other"), Err(ReadError::NoSuchKey)));
    }

    #[test]
    fn a_bucket_is_closed_to_other_accounts() {
        let dir = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(dir.path(), &me()).unwrap();
        store.create_bucket(&me(), "bucket").unwrap();
        put(&store, "k", b"1", &Condition::Always).unwrap();
        drop(store);
        // Whoever the heir is now, the bucket has its owner.
        let store = ObjectStore::open(dir.path(), &other()).unwrap();
        assert_eq!(text(&store, "k"), "1");
        let query = Query { max: 1000, ..Query::default() };
        assert!(matches!(store.read(&other(), "bucket", "k"), Err(ReadError::NotYours)));
        assert!(matches!(store.list(&other(), "bucket", &query), Err(StoreError::NotYours)));
        assert!(matches!(store.delete(&other(), "bucket", "k"), Err(StoreError::NotYours)));
        assert!(matches!(store.delete_bucket(&other(), "bucket"), Err(StoreError::NotYours)));
        assert!(matches!(store.require(&other(), "bucket"), Err(StoreError::NotYours)));
        assert!(matches!(store.create_bucket(&other(), "bucket"), Err(StoreError::BucketTaken)));
        assert!(matches!(store.create_bucket(&me(), "bucket"), Err(StoreError::BucketExists)));
        assert_eq!(store.list_buckets(&other()), []);
        assert_eq!(store.list_buckets(&me()).len(), 1);

        store.delete(&me(), "bucket", "k").unwrap();
        store.delete_bucket(&me(), "bucket").unwrap();
        store.create_bucket(&other(), "bucket").unwrap();
        assert!(matches!(put(&store, "k", b"1", &Condition::Always), Err(StoreError::NotYours)));
    }

    #[test]
    fn buckets_from_before_there_were_accounts_are_the_first_ones() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("buckets/bucket")).unwrap();
        for heir in [me(), other()] {
            let store = ObjectStore::open(dir.path(), &heir).unwrap();
            store.require(&me(), "bucket").unwrap();
        }
    }

    #[test]
    fn an_owner_without_a_bucket_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        drop(ObjectStore::open(dir.path(), &me()).unwrap());
        fs::write(dir.path().join("owners/bucket"), other().to_string()).unwrap();
        drop(ObjectStore::open(dir.path(), &me()).unwrap());
        fs::create_dir(dir.path().join("buckets/bucket")).unwrap();
        let store = ObjectStore::open(dir.path(), &me()).unwrap();
        store.require(&me(), "bucket").unwrap();
    }

    #[test]
    fn bucket_names_are_safe() {
        for bad in ["", "ab", "..", "../x", "a/b", "Abc", ".abc", "abc-", "a..b", &"a".repeat(64)] {
            assert!(!is_bucket_name(bad), "{bad}");
        }
        assert!(is_bucket_name("my-bucket.1"));
    }
}
