//! The virtio port to the host, as an asynchronous stream.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::event::epoll;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::error::{Error, trying};

const NAME: &str = "rekindle.agent";

/// The port; clones share it, and one at a time reads or writes.
///
/// A port whose host side is closed reports a hang-up for as long as that lasts, which the runtime would take for
/// final. So the runtime watches an edge-triggered epoll set with the port in it, which is readable only when
/// something about the port has changed.
#[derive(Clone)]
pub(crate) struct Port {
    file: Arc<File>,
    changes: Arc<AsyncFd<OwnedFd>>,
}

impl Port {
    pub(crate) fn open() -> Result<Self, Error> {
        let path = find()?;
        let attempt = || format!("opening {}", path.display());
        let file = rustix::fs::open(
            &path,
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(trying(attempt()))?;
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(trying(attempt()))?;
        let edges =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::HUP | epoll::EventFlags::ET;
        epoll::add(&set, &file, epoll::EventData::new_u64(0), edges).map_err(trying(attempt()))?;
        // SAFETY: the set is an open descriptor that `AsyncFd` owns from here on and that nothing else closes.
        let changes = unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) };
        let changes = changes.map_err(trying(attempt()))?;
        Ok(Self { file: Arc::new(File::from(file)), changes: Arc::new(changes) })
    }

    /// Waits until something about the port has changed: bytes, room, or a host that came or went.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let mut guard = self.changes.readable().await?;
        self.drain_changes()?;
        guard.clear_ready();
        Ok(())
    }

    fn drain_changes(&self) -> io::Result<()> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 1];
        epoll::wait(self.changes.get_ref(), &mut events, Some(&rustix::event::Timespec::default()))?;
        Ok(())
    }

    /// Tries `operation` until it does not block, waiting for changes in between.
    fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        mut operation: impl FnMut(&File) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match operation(&self.file) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => return Poll::Ready(done),
            }
            // Drained before the next try: what changes after that try is a new edge.
            let mut guard = ready!(self.changes.poll_read_ready(cx))?;
            self.drain_changes()?;
            guard.clear_ready();
        }
    }
}

fn find() -> Result<PathBuf, Error> {
    let attempt = "looking for the port to the host";
    for entry in fs::read_dir("/sys/class/virtio-ports").map_err(trying(attempt))? {
        let entry = entry.map_err(trying(attempt))?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == NAME {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(Error::new(attempt, format!("no virtio port is named {NAME}")))
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(self.poll_io(cx, |mut file| file.read(buffer.initialize_unfilled())))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(cx, |mut file| file.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The port outlives its sessions.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
