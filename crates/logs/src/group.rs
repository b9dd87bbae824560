//! One log group: its settings and its streams.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use crate::{CreateError, LogError, Stream, json_file, retention};

const META: &str = "group.json";
/// Most streams of a group: each MicroVM has one, and none is ever too many to be made, so that the one that has been
/// quiet for longest goes.
const MAX_STREAMS: usize = 100_000;

/// What a group is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// When it was made, in milliseconds of Unix time.
    pub created: u64,
    /// Days that events are kept; none: for ever.
    pub retention_days: Option<u32>,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A group. Its directory is its own.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
    usage: Arc<AtomicU64>,
    info: RwLock<GroupInfo>,
    /// None once it is deleted.
    streams: RwLock<Option<BTreeMap<String, Arc<Stream>>>>,
}

impl Group {
    pub(crate) fn create(dir: PathBuf, info: GroupInfo, usage: Arc<AtomicU64>) -> Result<Self, LogError> {
        let make = || {
            fs::create_dir_all(&dir)?;
            json_file::write(&dir.join(META), &info, true)
        };
        make().map_err(LogError::new("make", &dir))?;
        Ok(Self { dir, usage, info: RwLock::new(info), streams: RwLock::new(Some(BTreeMap::new())) })
    }

    /// The one in `dir`; what was left of one that was not made, or not removed, to the end is removed.
    pub(crate) fn load(dir: PathBuf, usage: Arc<AtomicU64>) -> io::Result<Option<Self>> {
        let Some(info) = json_file::read(&dir.join(META))? else {
            fs::remove_dir_all(&dir)?;
            return Ok(None);
        };
        let mut streams = BTreeMap::new();
        for path in folders(&dir)? {
            match Stream::load(path.clone(), Arc::clone(&usage))? {
                Some(stream) => drop(streams.insert(stream.name().to_owned(), Arc::new(stream))),
                None => fs::remove_dir_all(&path)?,
            }
        }
        Ok(Some(Self { dir, usage, info: RwLock::new(info), streams: RwLock::new(Some(streams)) }))
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> GroupInfo {
        self.info.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that its streams take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.streams().iter().map(|stream| stream.info().bytes).sum()
    }

    /// Changes its retention or tags; durable once it returns.
    ///
    /// # Errors
    /// [`LogError`]; nothing is changed then.
    pub fn change(&self, change: impl FnOnce(&mut GroupInfo)) -> Result<(), LogError> {
        // Held against a deletion: a file written after it would be what is left of a group.
        let streams = self.read();
        let mut info = self.info.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = info.clone();
        change(&mut changed);
        if streams.is_some() {
            json_file::write(&self.dir.join(META), &changed, true)
                .map_err(LogError::new("change", &self.dir))?;
        }
        *info = changed;
        Ok(())
    }

    /// All its streams, by name.
    #[must_use]
    pub fn streams(&self) -> Vec<Arc<Stream>> {
        self.read().iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// One of its streams.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.read().as_ref()?.get(name).cloned()
    }

    /// Makes an empty stream; of a group that has 100,000, the one goes that nothing was added to for longest.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create_stream(&self, name: &str, now: u64) -> Result<Arc<Stream>, CreateError> {
        self.create_within(MAX_STREAMS, name, now)
    }

    pub(crate) fn create_within(
        &self,
        most: usize,
        name: &str,
        now: u64,
    ) -> Result<Arc<Stream>, CreateError> {
        let mut streams = self.write();
        let streams = streams.as_mut().ok_or(CreateError::NoGroup)?;
        if streams.contains_key(name) {
            return Err(CreateError::Exists);
        }
        if streams.len() >= most
            && let Some(quiet) = streams.values().min_by_key(|stream| stream.last_change()).map(Arc::clone)
        {
            streams.remove(quiet.name());
            quiet.delete()?;
        }
        let dir = self.dir.join(json_file::hashed(name));
        let stream = Stream::create(dir.clone(), name, now, Arc::clone(&self.usage));
        let stream = Arc::new(stream.map_err(LogError::new("make", &dir))?);
        streams.insert(name.to_owned(), Arc::clone(&stream));
        Ok(stream)
    }

    /// Removes a stream with its events. Returns whether there was one.
    ///
    /// # Errors
    /// [`LogError`]; it is not seen any more all the same, until the next start.
    pub fn delete_stream(&self, name: &str) -> Result<bool, LogError> {
        let mut streams = self.write();
        match streams.as_mut().and_then(|streams| streams.remove(name)) {
            Some(stream) => stream.delete().map(|()| true),
            None => Ok(false),
        }
    }

    /// Removes what its retention no longer keeps.
    pub(crate) fn expire(&self, now: u64) -> Result<(), LogError> {
        let cutoff = retention::cutoff(self.info().retention_days, now);
        for stream in self.streams() {
            if stream.expire(cutoff)? {
                self.delete_stream(stream.name())?;
            }
        }
        Ok(())
    }

    /// Removes it with all its streams.
    pub(crate) fn delete(&self) -> Result<(), LogError> {
        let streams = self.write().take().unwrap_or_default();
        // First what makes it one, so that a crash in between leaves none.
        match fs::remove_file(self.dir.join(META)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::new("remove", &self.dir)(error));
            }
            _ => {}
        }
        streams.values().try_for_each(|stream| stream.delete())?;
        fs::remove_dir_all(&self.dir).map_err(LogError::new("remove", &self.dir))
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<BTreeMap<String, Arc<Stream>>>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<BTreeMap<String, Arc<Stream>>>> {
        self.streams.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directories in one.
pub(crate) fn folders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
