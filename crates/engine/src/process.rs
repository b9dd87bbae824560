//! The VMM's process, known for sure: by pidfd, found again by pid and start time.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;

/// The pid file of the VMM in a machine's directory.
pub(crate) const PID: &str = "pid";

/// Clock ticks after boot at which the process started: with the pid, a name never used twice.
pub(crate) fn start_time(pid: Pid) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    parse_start_time(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat has an unknown form"))
}

/// Field 22; counted from the last ')' because the name before it may hold anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The process that a pid file names. It may have ended, and another may have its id.
pub(crate) fn noted_pid(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.split_once(' ')?.0.parse().ok()
}

/// A process that is watched and can be killed without ever hitting another.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    /// Present when this program started it, and so must reap it; the runtime does where this is dropped before.
    child: Mutex<Option<Child>>,
}

impl Process {
    pub(crate) fn started(child: Child) -> io::Result<Self> {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self::watch(pid.ok_or_else(|| io::Error::other("a process without an id"))?, Some(child))
    }

    /// The process that a pid file names, if it still runs.
    pub(crate) fn from_pid_file(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let named = text
            .trim()
            .split_once(' ')
            .and_then(|(pid, start)| Some((Pid::from_raw(pid.parse().ok()?)?, start.parse::<u64>().ok()?)));
        let (pid, start) = named.ok_or_else(|| io::Error::other("the pid file is damaged"))?;
        // The descriptor first: after that the id cannot be taken over by another process.
        let Ok(process) = Self::watch(pid, None) else { return Ok(None) };
        Ok(start_time(pid).is_ok_and(|now| now == start).then_some(process))
    }

    fn watch(pid: Pid, child: Option<Child>) -> io::Result<Self> {
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` is open and the same until it is dropped, which only dropping the `AsyncFd` does.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self { pid, pidfd, child: Mutex::new(child) })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub(crate) fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            result => Ok(result?),
        }
    }

    pub(crate) async fn wait_exit(&self) -> io::Result<()> {
        // The guard is dropped without clearing: a process that has ended stays so.
        let _ended = self.pidfd.readable().await?;
        if let Some(child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            child.try_wait()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_start_time(&format!("7 (a) b (c)) {tail}")), Some(4242));
        assert_eq!(parse_start_time("7 (x) S"), None);
        assert!(start_time(rustix::process::getpid()).is_ok());
    }

    #[tokio::test]
    async fn a_killed_process_is_seen_to_end() {
        let process = sleeper();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        assert!(Process::from_pid_file(&file).unwrap().is_none());
        let start = start_time(process.pid).unwrap();
        fs::write(&file, format!("{} {start}\n", process.pid())).unwrap();
        assert!(Process::from_pid_file(&file).unwrap().is_some());
        fs::write(&file, format!("{} {}\n", process.pid(), start + 1)).unwrap();
        assert!(Process::from_pid_file(&file).unwrap().is_none());
        process.kill().unwrap();
        process.wait_exit().await.unwrap();
        assert!(start_time(process.pid).is_err(), "it is reaped");
    }

    #[tokio::test]
    async fn one_that_nobody_watches_any_more_leaves_no_zombie() {
        let process = sleeper();
        let pid = process.pid;
        drop(process);
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let gone = async {
            while start_time(pid).is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
    }

    fn sleeper() -> Process {
        Process::started(tokio::process::Command::new("sleep").arg("1000").spawn().unwrap()).unwrap()
    }
}
