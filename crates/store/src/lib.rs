//! Durable records: SQLite, one writer (DESIGN "Beyond one machine": another database takes this crate's place).
//!
//! A write returns only once it is on the disk, so whoever shows its result to a client shows nothing that
//! a crash could take back (invariant 2). The rules live with the callers: they run inside the transaction.

pub mod builds;
mod connectors;
mod exposure;
mod identity;
mod readers;
mod recent;
mod records;
mod tx;
pub mod versions;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::mpsc;

use ids::MicrovmId;
use readers::Readers;
use recent::Recent;
use writer::Change;

pub use connectors::{
    ConnectorRecord, ConnectorSettings, ConnectorUser, ConnectorVersionRecord, ElasticIp, NetworkProtocol,
};
pub use exposure::{DomainRecord, Exposure, PublicPortsRecord};
pub use identity::{
    AccessKeyRecord, AccountRecord, GrantedPolicies, PolicyRecord, PolicyVersionRecord, RoleRecord,
    UserRecord,
};
pub use records::{
    BuildRecord, CodeArtifact, EgressBinding, HookSettings, ImageRecord, LogSettings, MicrovmRecord,
    MicrovmSummary, SnapshotSizes, TokenRecord, VersionRecord,
};
pub use tx::Tx;

/// How long a statement waits for another process that holds the database, before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages that each connection keeps, in KiB: a hundred thousand records' indexes are looked through without the disk.
const PAGE_CACHE_KIB: i64 = 32 * 1024;
/// Pages that the log of writes collects before they are put into their places, 32 MiB of them: launches write to
/// places all over the database, and what is written twice meanwhile is put there once.
const LOG_PAGES: i64 = 8192;
/// Statements that each connection keeps prepared: more than there are.
const STATEMENTS: usize = 256;
/// Changes queued for the writer before callers wait.
const WRITE_QUEUE: usize = 1024;
/// The tables as they were added. The database keeps how many of these it has; one that was released is never changed.
const MIGRATIONS: [&str; 9] = [
    include_str!("schema/1-microvms.sql"),
    include_str!("schema/2-identity.sql"),
    include_str!("schema/3-connectors.sql"),
    include_str!("schema/4-version-deletion.sql"),
    include_str!("schema/5-memory-quota.sql"),
    include_str!("schema/6-listing.sql"),
    include_str!("schema/7-exposure.sql"),
    include_str!("schema/8-usage.sql"),
    include_str!("schema/9-microvm-rows.sql"),
];

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the record store failed: {0}; check the data directory's free space and permissions")]
    Database(#[from] rusqlite::Error),
    /// SQLite refused to make a transaction last, and with it every change made in it.
    #[error("the record store failed: {0}; check the data directory's free space and permissions")]
    Commit(#[source] Arc<rusqlite::Error>),
    /// A record does not have the shape that this version writes.
    #[error("a record of kind {kind} cannot be read: {source}; was it written by a newer Rekindle?")]
    Record {
        /// The table.
        kind: &'static str,
        /// What serde found.
        source: serde_json::Error,
    },
    /// The database belongs to another version.
    #[error(
        "the data directory holds records of format {found}, newer than the {} of this Rekindle; \
         start it with the newer one",
        MIGRATIONS.len()
    )]
    Schema {
        /// The format found.
        found: usize,
    },
    /// The writer is gone; the server is stopping.
    #[error("the record store has stopped; restart the server")]
    Stopped,
}

/// A handle to the records; clones share the same store.
#[derive(Clone)]
pub struct Store {
    writer: mpsc::Sender<Change>,
    readers: Arc<Readers>,
    recent: Arc<Recent>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database at `path`, and makes it where there is none. Of what this handle and its clones have read,
    /// some is kept until they write it: whoever else writes to the same database may write accounts and what belongs
    /// to them, and nothing else.
    ///
    /// # Errors
    /// [`StoreError`] where the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection =
            connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        prepare(&mut connection)?;
        let readers = Arc::new(Readers::open(path)?);
        let (writer, queue) = mpsc::channel(WRITE_QUEUE);
        let recent = Arc::<Recent>::default();
        let told = Arc::clone(&recent);
        std::thread::spawn(move || writer::run(connection, queue, &told));
        Ok(Self { writer, readers, recent })
    }

    /// Runs `change`, one at a time in the order of the calls. What it wrote is on the disk when this returns `Ok`;
    /// where it returns an error nothing is written.
    ///
    /// # Errors
    /// `change`'s own, or [`StoreError`] made into it.
    ///
    /// # Panics
    /// If `change` does.
    pub async fn write<T, E>(
        &self,
        change: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (change, outcome) = writer::change(change);
        self.writer.send(change).await.map_err(|_| StoreError::Stopped)?;
        match outcome.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Stopped.into()),
        }
    }

    /// Runs `look` on what is written so far. Meant for reads by key, which take microseconds.
    ///
    /// # Errors
    /// `look`'s own, or [`StoreError`] made into it.
    pub fn read<T, E: From<StoreError>>(&self, look: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<T, E> {
        self.readers.with(|connection| look(&Tx::new(connection)))?
    }

    /// The MicroVM with this id, as it is written so far.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn microvm(&self, id: MicrovmId) -> Result<Option<Arc<MicrovmRecord>>, StoreError> {
        let moment = match self.recent.microvm(id) {
            Ok(kept) => return Ok(Some(kept)),
            Err(moment) => moment,
        };
        let found = self.read::<_, StoreError>(|tx| Ok(tx.microvm(id)?.map(Arc::new)))?;
        if let Some(found) = &found {
            self.recent.keep_microvm(moment, found);
        }
        Ok(found)
    }

    /// How MicroVMs are reached beyond their tokens, as it is written so far.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn exposure(&self) -> Result<Arc<Exposure>, StoreError> {
        let moment = match self.recent.exposure() {
            Ok(kept) => return Ok(kept),
            Err(moment) => moment,
        };
        let found = Arc::new(self.read(|tx| tx.exposure())?);
        self.recent.keep_exposure(moment, &found);
        Ok(found)
    }

    /// What `look` finds in what is written so far, kept under `key` until anything is written. It must depend on
    /// nothing but what the key tells, and not look at accounts or what belongs to them, which others write too.
    ///
    /// # Errors
    /// `look`'s own, or [`StoreError`] made into it; they are not kept.
    pub fn read_again<T, E>(&self, key: &str, look: impl FnOnce(&Tx<'_>) -> Result<T, E>) -> Result<Arc<T>, E>
    where
        T: Send + Sync + 'static,
        E: From<StoreError>,
    {
        let moment = match self.recent.look(key) {
            Ok(kept) => return Ok(kept),
            Err(moment) => moment,
        };
        let found = Arc::new(self.read(look)?);
        self.recent.keep_look(moment, key, Arc::clone(&found) as _);
        Ok(found)
    }
}

/// Milliseconds since the Unix epoch, as records count time. A clock before 1970 reads 0.
#[must_use]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    // One thread at a time has a connection, as the compiler sees to: SQLite need not lock it with every call.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Plans do not depend on what is bound: SQLite would compile a statement with a LIMIT anew each time.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // What a change may have to take back is a copy of each page it writes, which else goes into a file soon.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // SQLite takes what is negative for KiB.
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    Ok(connection)
}

/// Brings the tables up to date, all of it or nothing.
fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    // Immediate: of two processes that begin at once, one waits until the other has made the tables.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: usize = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let missing = MIGRATIONS.get(found..).ok_or(StoreError::Schema { found })?;
    missing.iter().try_for_each(|step| transaction.execute_batch(step))?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len())?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests;
