//! Telling, with the output, of processes that the kernel killed because the machine or their cgroup had no more memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use agent_proto::{Event, LogSource};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, trying};
use crate::output::Output;

/// The longest record that the kernel writes.
const MAX_RECORD: usize = 8192;

/// Watches the kernel's log from now on.
pub(crate) fn watch(output: Arc<Output>) -> Result<(), Error> {
    let log = open().map_err(trying("opening the kernel's log"))?;
    tokio::spawn(async move {
        while let Ok(record) = next(&log).await {
            if let Some(kill) = kill_of(&record) {
                let bytes = format!("{kill}\n").into_bytes();
                output.tell(Event::Log { source: LogSource::Kernel, bytes }).await;
            }
        }
    });
    Ok(())
}

fn open() -> io::Result<AsyncFd<File>> {
    let mut log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    log.seek(SeekFrom::End(0))?;
    // SAFETY: the file is open, and `AsyncFd` owns it from here on; nothing else closes it.
    unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) }.map_err(Into::into)
}

/// The next record; records that were overwritten before they were read are left out.
async fn next(log: &AsyncFd<File>) -> io::Result<String> {
    let mut buffer = [0; MAX_RECORD];
    loop {
        let mut ready = log.readable().await?;
        match ready.try_io(|log| log.get_ref().read(&mut buffer)) {
            Ok(Ok(count)) => return Ok(String::from_utf8_lossy(&buffer[..count]).into_owned()),
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Ok(Err(error)) => return Err(error),
            Err(_not_ready) => {}
        }
    }
}

/// What a record says of a killed process: `priority,sequence,time,flags;text`, and lines of its own behind.
fn kill_of(record: &str) -> Option<&str> {
    let text = record.split_once(';')?.1.lines().next()?;
    let kill = ["Out of memory: Killed", "Memory cgroup out of memory: Killed"];
    kill.iter().any(|kill| text.starts_with(kill)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_told_and_nothing_else() {
        let killed = "Out of memory: Killed process 93 (python3) total-vm:9kB, anon-rss:8kB, UID:0";
        assert_eq!(kill_of(&format!("3,501,98,-;{killed}\n SUBSYSTEM=x\n")), Some(killed));
        let in_group = "Memory cgroup out of memory: Killed process 93 (a;b) total-vm:9kB";
        assert_eq!(kill_of(&format!("3,501,98,-;{in_group}\n")), Some(in_group));
        for other in
            ["", "3,1,2,-", "6,1,2,-;eth0: Out of memory: Killed", "4,1,2,-;python3 invoked oom-killer"]
        {
            assert_eq!(kill_of(other), None, "{other}");
        }
    }
}
