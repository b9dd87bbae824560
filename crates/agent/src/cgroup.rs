//! What is asked of cgroups by more than one: their news, which the kernel tells in `cgroup.events`, and their delegation.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Where every cgroup is found.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// Lets what is in the cgroups below the root divide among itself whatever this machine can divide.
pub(crate) fn delegate() -> io::Result<()> {
    let root = Path::new(ROOT);
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    let all: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(root.join("cgroup.subtree_control"), all.join(" "))
}

/// A cgroup's news, kept open.
pub(crate) struct Events(AsyncFd<File>);

impl Events {
    /// Opens those of a cgroup's directory.
    pub(crate) fn of(cgroup: &Path) -> io::Result<Self> {
        let file = File::open(cgroup.join("cgroup.events"))?;
        // SAFETY: the file is open, and `AsyncFd` owns it from here on; nothing else closes it.
        unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }.map(Self).map_err(Into::into)
    }

    /// Returns once this is one of the lines.
    pub(crate) async fn wait_for(&self, line: &str) -> io::Result<()> {
        loop {
            if self.says(line)? {
                return Ok(());
            }
            // Cleared before the next look: what changes after that is told anew.
            self.0.ready(Interest::PRIORITY).await?.clear_ready();
        }
    }

    fn says(&self, line: &str) -> io::Result<bool> {
        let mut events = self.0.get_ref();
        events.rewind()?;
        let mut text = String::new();
        events.read_to_string(&mut text)?;
        Ok(text.lines().any(|said| said == line))
    }
}
