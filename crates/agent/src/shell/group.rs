//! The processes of one shell: a cgroup below the application's, so that what freezes and limits that holds them too, and
//! none of them is left when the shell has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use crate::cgroup::Events;
use crate::error::{Error, trying};
use crate::freezer::CGROUP;

/// For processes that were hung up to end by themselves.
const HANG_UP_TIME: Duration = Duration::from_secs(1);
/// For processes that were killed to be gone.
const KILL_TIME: Duration = Duration::from_secs(5);
const EMPTY: &str = "populated 0";

/// A shell's cgroup.
pub(crate) struct Group {
    path: PathBuf,
    events: Events,
}

impl Group {
    pub(crate) fn make() -> Result<Self, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let attempt = "making a shell's cgroup";
        let path = Path::new(CGROUP).join(format!("shell-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&path).map_err(trying(attempt))?;
        let events = Events::of(&path).map_err(trying(attempt))?;
        Ok(Self { path, events })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for those that were hung up, and kills what stays.
    pub(crate) async fn end(&self) {
        if timeout(HANG_UP_TIME, self.events.wait_for(EMPTY)).await.is_err() {
            let killed = fs::write(self.path.join("cgroup.kill"), "1");
            if killed.is_err() || timeout(KILL_TIME, self.events.wait_for(EMPTY)).await.is_err() {
                eprintln!("rekindle-agent: processes of {} do not end", self.path.display());
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that does not end keeps it; the freezer holds that too.
        let _ = fs::remove_dir(&self.path);
    }
}
