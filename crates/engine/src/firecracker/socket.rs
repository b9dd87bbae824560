//! Sockets in the directory that a VMM itself may write to, where nothing can be taken for what it seems.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Longest line by which a connection to the guest is confirmed.
const MAX_LINE: usize = 32;

/// Notices what is made in a directory.
#[derive(Debug)]
pub(crate) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, dir, WatchFlags::CREATE)?;
        // SAFETY: an `OwnedFd` is open and the same until it is dropped, which only dropping the `AsyncFd` does.
        Ok(Self(unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }?))
    }

    /// Waits until somebody listens at `path` in the directory.
    pub(crate) async fn listening(&self, path: &Path) -> io::Result<()> {
        loop {
            match connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.changed().await?,
                // It has its name, and listens in the next moment.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    tokio::task::yield_now().await;
                }
                connected => return connected.map(drop),
            }
        }
    }

    async fn changed(&self) -> io::Result<()> {
        let mut guard = self.0.readable().await?;
        let mut events = [0; 4096];
        match rustix::io::read(self.0.get_ref(), &mut events) {
            Ok(_) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => guard.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Connects to the socket `path`, and never to another that a link in its place may lead to.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = rustix::fs::open(path, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::Socket {
        return Err(io::Error::other("the VMM has put something else in its socket's place"));
    }
    UnixStream::connect(format!("/proc/self/fd/{}", found.as_raw_fd())).await
}

/// A connection to this port of the guest, through the VMM's socket.
pub(crate) async fn connect_to_guest(path: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = connect(path).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut line = Vec::new();
    // Byte by byte: what follows is the guest's.
    while line.last() != Some(&b'\n') {
        if line.len() == MAX_LINE {
            return Err(io::Error::other("the VMM answered something else than a connection"));
        }
        line.push(stream.read_u8().await?);
    }
    if line.starts_with(b"OK ") { Ok(stream) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (watch, socket) = (Watch::new(dir.path()).unwrap(), dir.path().join("socket"));
        let waiting = tokio::spawn({
            let socket = socket.clone();
            async move { watch.listening(&socket).await }
        });
        std::fs::write(dir.path().join("another"), "").unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_only_leads_to_a_socket_is_not_connected_to() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, link, file) =
            (dir.path().join("socket"), dir.path().join("link"), dir.path().join("file"));
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        std::fs::write(&file, "").unwrap();
        connect(&socket).await.unwrap();
        assert!(connect(&link).await.is_err());
        assert!(connect(&file).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_to_the_guest_begins_after_the_line_that_confirms_it() {
        for (answer, good) in
            [("OK 1073741824\nhello", true), ("NO\n", false), ("", false), (&*"x".repeat(99), false)]
        {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("socket");
            let listener = UnixListener::bind(&socket).unwrap();
            let answer = answer.to_owned();
            let served = tokio::spawn(async move {
                let mut stream = listener.accept().await.unwrap().0;
                let mut asked = [0; 12];
                stream.read_exact(&mut asked).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&asked).into_owned()
            });
            let connected = connect_to_guest(&socket, 900).await;
            assert_eq!(served.await.unwrap(), "CONNECT 900\n");
            assert_eq!(connected.is_ok(), good);
            if let Ok(mut stream) = connected {
                let mut rest = String::new();
                stream.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "hello");
            }
        }
    }
}
