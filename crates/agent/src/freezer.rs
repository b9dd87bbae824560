//! The application's cgroup, and stopping everything in it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::cgroup::Events;
use crate::error::{Error, trying};

/// The application's cgroup.
pub(crate) const CGROUP: &str = "/sys/fs/cgroup/app";
/// How long every process of the application may take to stop.
const FREEZE_WITHIN: Duration = Duration::from_secs(5);

/// Stops the application, and lets it run again. Its files are kept open, and no other thread is asked to wait: what a
/// clone need not do before its application runs, it has not to run for the first time.
pub(crate) struct Freezer {
    switch: File,
    events: Events,
}

impl Freezer {
    /// Makes the cgroup.
    pub(crate) fn make() -> Result<Self, Error> {
        let attempt = "making the application's cgroup";
        fs::create_dir_all(CGROUP).map_err(trying(attempt))?;
        let cgroup = Path::new(CGROUP);
        let switch =
            File::options().write(true).open(cgroup.join("cgroup.freeze")).map_err(trying(attempt))?;
        let events = Events::of(cgroup).map_err(trying(attempt))?;
        Ok(Self { switch, events })
    }

    /// Returns once no process of the application runs any more; or gives up and leaves it running.
    pub(crate) async fn freeze(&self) -> Result<(), Error> {
        let attempt = "freezing the application";
        self.turn("1").map_err(trying(attempt))?;
        let frozen = tokio::time::timeout(FREEZE_WITHIN, self.events.wait_for("frozen 1"))
            .await
            .unwrap_or_else(|_| {
                let why = format!("a process did not stop within {} s", FREEZE_WITHIN.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            });
        frozen.map_err(|error| {
            // Where even this fails, the first failure says more.
            let _ = self.turn("0");
            Error::new(attempt, error)
        })
    }

    /// Lets the application run again.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        self.turn("0").map_err(trying("thawing the application"))
    }

    fn turn(&self, to: &str) -> io::Result<()> {
        (&self.switch).write_all(to.as_bytes())
    }
}
