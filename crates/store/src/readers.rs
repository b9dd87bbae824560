//! Connections that only read, as many as read at the same time.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};

use crate::{StoreError, connect};

/// Connections that are kept while nobody reads; each has a cache of pages and statements of its own.
const MAX_IDLE: usize = 8;

#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let readers = Self { path: path.to_owned(), idle: Mutex::default() };
        readers.give_back(readers.connect()?);
        Ok(readers)
    }

    /// Runs `look` on a connection that nobody else has.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Connection) -> T) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| self.connect(), Ok)?;
        let seen = look(&connection);
        self.give_back(connection);
        Ok(seen)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        // Not opened for reading only, as a reader of a write-ahead log takes part in its index.
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }
}
