//! The logs of every account of a server.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use ids::AccountId;

use crate::group::{Group, GroupInfo, folders};
use crate::{CreateError, Destination, Line, LogError, Output, Stream, json_file};

/// Most groups of an account.
pub const MAX_GROUPS: usize = 10_000;
/// The part of an account's bytes that is made free at once, so that not every line looks for the oldest segment.
const ROOM: u64 = 32;
/// Where output was kept before there were groups.
const EARLIER: [&str; 2] = ["builds", "microvms"];

/// How many bytes logs may take on the disk; the oldest go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// One stream.
    pub stream: u64,
    /// All of an account.
    pub account: u64,
}

/// The logs of one server. Clones share them.
#[derive(Debug, Clone)]
pub struct Logs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    quota: Quota,
    accounts: RwLock<BTreeMap<AccountId, Arc<Account>>>,
    /// How often something was added.
    additions: AtomicU64,
}

#[derive(Debug, Default)]
struct Account {
    /// Bytes that all streams take.
    usage: Arc<AtomicU64>,
    groups: RwLock<BTreeMap<String, Arc<Group>>>,
    /// Held by whoever makes room.
    making_room: Mutex<()>,
}

impl Logs {
    /// The logs kept in `dir`, which need not exist yet. What a crash left half written is cut off; files of a version
    /// before this one's are removed.
    ///
    /// # Errors
    /// [`LogError`] where they cannot be read.
    pub fn open(dir: impl Into<PathBuf>, quota: Quota) -> Result<Self, LogError> {
        let dir = dir.into();
        let accounts = load(&dir).map_err(LogError::new("open", &dir))?;
        Ok(Self(Arc::new(Inner {
            dir,
            quota,
            accounts: RwLock::new(accounts),
            additions: AtomicU64::default(),
        })))
    }

    /// Where what is written to `destination` goes; the group and the stream are made by the first line.
    #[must_use]
    pub fn output(&self, destination: Destination) -> Output {
        Output::to(self.clone(), destination)
    }

    /// The accounts that have logs, or had.
    #[must_use]
    pub fn accounts(&self) -> Vec<AccountId> {
        self.0.accounts.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// How often something was added since the start: where it is the same, so are all streams, but for what was removed.
    #[must_use]
    pub fn additions(&self) -> u64 {
        self.0.additions.load(Ordering::Acquire)
    }

    /// All groups of an account, by name.
    #[must_use]
    pub fn groups(&self, account: &AccountId) -> Vec<Arc<Group>> {
        let Some(account) = self.find(account) else { return Vec::new() };
        account.read().values().cloned().collect()
    }

    /// A group of an account.
    #[must_use]
    pub fn group(&self, account: &AccountId, name: &str) -> Option<Arc<Group>> {
        self.find(account)?.read().get(name).cloned()
    }

    /// Makes an empty group; durable once it returns.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create_group(&self, account: &AccountId, info: GroupInfo) -> Result<Arc<Group>, CreateError> {
        let owner = self.account(account);
        let mut groups = owner.groups.write().unwrap_or_else(PoisonError::into_inner);
        if groups.contains_key(&info.name) {
            return Err(CreateError::Exists);
        }
        if groups.len() >= MAX_GROUPS {
            return Err(CreateError::TooMany(MAX_GROUPS));
        }
        let dir = self.0.dir.join(account.to_string()).join(json_file::hashed(&info.name));
        let name = info.name.clone();
        let group = Arc::new(Group::create(dir, info, Arc::clone(&owner.usage))?);
        groups.insert(name, Arc::clone(&group));
        Ok(group)
    }

    /// Removes a group with its streams. Returns whether there was one.
    ///
    /// # Errors
    /// [`LogError`]; it is not seen any more all the same, until the next start.
    pub fn delete_group(&self, account: &AccountId, name: &str) -> Result<bool, LogError> {
        let Some(account) = self.find(account) else { return Ok(false) };
        let mut groups = account.groups.write().unwrap_or_else(PoisonError::into_inner);
        match groups.remove(name) {
            Some(group) => group.delete().map(|()| true),
            None => Ok(false),
        }
    }

    /// Adds lines to a stream of an account. Returns whether it is still there.
    ///
    /// # Errors
    /// [`LogError`]; what was written before stays.
    pub fn append(&self, account: &AccountId, stream: &Stream, lines: &[Line]) -> Result<bool, LogError> {
        let now = now_ms();
        let taken = stream.append(lines, now, self.0.quota.stream)?;
        self.0.additions.fetch_add(1, Ordering::Release);
        self.make_room(account, now)?;
        Ok(taken)
    }

    /// Adds lines to where they go, which is made where it is not there.
    pub(crate) fn append_to(&self, to: &Destination, lines: &[Line]) -> Result<(), CreateError> {
        loop {
            let stream = self.stream(to)?;
            // A stream that is deleted in between is made anew.
            if self.append(&to.account, &stream, lines)? {
                return Ok(());
            }
        }
    }

    /// Nothing more goes there for now.
    pub(crate) fn rest(&self, to: &Destination) -> Result<(), LogError> {
        let stream = self.group(&to.account, &to.group).and_then(|group| group.stream(&to.stream));
        stream.map_or(Ok(()), |stream| stream.rest())
    }

    /// Removes what the groups' retention no longer keeps.
    ///
    /// # Errors
    /// [`LogError`]; what was removed before stays so.
    pub fn sweep(&self, now: u64) -> Result<(), LogError> {
        let accounts = self.0.accounts.read().unwrap_or_else(PoisonError::into_inner).clone();
        for account in accounts.values() {
            let groups = account.read().clone();
            groups.values().try_for_each(|group| group.expire(now))?;
        }
        Ok(())
    }

    fn stream(&self, to: &Destination) -> Result<Arc<Stream>, CreateError> {
        let now = now_ms();
        let group = match self.group(&to.account, &to.group) {
            Some(group) => group,
            None => {
                let (name, tags) = (to.group.clone(), BTreeMap::new());
                let info = GroupInfo { name, created: now, retention_days: None, tags };
                match self.create_group(&to.account, info) {
                    Err(CreateError::Exists) => return self.stream(to),
                    group => group?,
                }
            }
        };
        match group.stream(&to.stream) {
            Some(stream) => Ok(stream),
            None => match group.create_stream(&to.stream, now) {
                Err(CreateError::Exists | CreateError::NoGroup) => self.stream(to),
                stream => stream,
            },
        }
    }

    /// Drops the oldest segments of an account that takes more than it may.
    fn make_room(&self, account: &AccountId, now: u64) -> Result<(), LogError> {
        let Some(account) = self.find(account) else { return Ok(()) };
        if account.usage.load(Ordering::Relaxed) <= self.0.quota.account {
            return Ok(());
        }
        // Whoever has it makes room for all.
        let _making = match account.making_room.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Ok(guard) => guard,
        };
        let enough = self.0.quota.account - self.0.quota.account / ROOM;
        while account.usage.load(Ordering::Relaxed) > enough {
            let streams: Vec<Arc<Stream>> =
                account.read().values().flat_map(|group| group.streams()).collect();
            let oldest = streams.iter().filter_map(|stream| Some((stream.oldest_segment()?, stream)));
            let Some((_, stream)) = oldest.min_by_key(|(ingested, _)| *ingested) else { break };
            stream.make_room(now)?;
        }
        Ok(())
    }

    fn find(&self, account: &AccountId) -> Option<Arc<Account>> {
        self.0.accounts.read().unwrap_or_else(PoisonError::into_inner).get(account).cloned()
    }

    fn account(&self, id: &AccountId) -> Arc<Account> {
        let mut accounts = self.0.accounts.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(accounts.entry(id.clone()).or_default())
    }
}

impl Account {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Group>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(dir: &Path) -> io::Result<BTreeMap<AccountId, Arc<Account>>> {
    fs::create_dir_all(dir)?;
    for earlier in EARLIER.map(|name| dir.join(name)).iter().filter(|path| path.is_dir()) {
        fs::remove_dir_all(earlier)?;
    }
    let mut accounts = BTreeMap::new();
    for path in folders(dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(id) = name.parse::<AccountId>() else { continue };
        let (usage, mut groups) = (Arc::default(), BTreeMap::new());
        for path in folders(&path)? {
            if let Some(group) = Group::load(path, Arc::clone(&usage))? {
                groups.insert(group.info().name, Arc::new(group));
            }
        }
        accounts.insert(
            id,
            Arc::new(Account { usage, groups: RwLock::new(groups), making_room: Mutex::default() }),
        );
    }
    Ok(accounts)
}

/// Milliseconds of Unix time.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
