//! The streams that have something to send.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use logs::{Cursor, LogError, Logs, Stream};
use tokio::time::Instant;

use crate::origin::Origin;

/// A stream, and how far it was sent.
#[derive(Debug)]
pub(crate) struct Followed {
    stream: Arc<Stream>,
    pub(crate) origin: Origin,
    pub(crate) cursor: Cursor,
    /// Until when it is left alone.
    pub(crate) barred_until: Option<Instant>,
}

impl Followed {
    /// Whether there is something to send.
    pub(crate) fn is_behind(&self) -> bool {
        self.cursor.next() < self.end()
    }

    /// The number of the event that is added next.
    pub(crate) fn end(&self) -> u64 {
        self.stream.next()
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.is_behind() && self.barred_until.is_none_or(|until| until <= now)
    }
}

/// Streams, by their directories.
#[derive(Debug, Default)]
pub(crate) struct Streams(BTreeMap<PathBuf, Followed>);

impl Streams {
    /// Those that there are now, which were followed before where they were. Reads files.
    pub(crate) fn refreshed(mut self, logs: &Logs, reader: &str) -> Result<Self, LogError> {
        let mut now = BTreeMap::new();
        for account in logs.accounts() {
            for group in logs.groups(&account) {
                let name = group.info().name;
                for stream in group.streams() {
                    let dir = stream.dir().to_owned();
                    // One of the same name may have been deleted and made anew.
                    let known = self.0.remove(&dir).filter(|known| Arc::ptr_eq(&known.stream, &stream));
                    let followed = match known {
                        Some(known) => known,
                        None => Followed {
                            cursor: Cursor::open(&stream, reader)?,
                            origin: Origin {
                                account: account.clone(),
                                group: name.clone(),
                                stream: stream.name().to_owned(),
                            },
                            stream,
                            barred_until: None,
                        },
                    };
                    now.insert(dir, followed);
                }
            }
        }
        Ok(Self(now))
    }

    /// Those that are to be sent from now.
    pub(crate) fn due(&mut self) -> impl Iterator<Item = &mut Followed> {
        let now = Instant::now();
        self.0.values_mut().filter(move |followed| followed.is_due(now))
    }

    /// Whether something waits in any.
    pub(crate) fn are_behind(&self) -> bool {
        self.0.values().any(Followed::is_behind)
    }
}
