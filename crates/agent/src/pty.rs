//! The master side of a pseudoterminal of the container's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;

use crate::error::{Error, trying};

/// Where the container has its terminals, below its root.
const PTMX: &str = "dev/pts/ptmx";

/// The master side. Dropped, whoever uses the terminal is hung up.
pub(crate) struct Pty(AsyncFd<File>);

impl Pty {
    /// A new terminal of the container that this process lives in, with its other side. Its window is 0 by 0.
    pub(crate) fn open(process: u32) -> Result<(Self, OwnedFd), Error> {
        let attempt = "opening a terminal in the container";
        let root = format!("/proc/{process}/root");
        let root =
            rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(trying(attempt))?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        // Links in the container's files lead nowhere else.
        let master = rustix::fs::openat2(&root, PTMX, flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .map_err(trying(attempt))?;
        rustix::pty::unlockpt(&master).map_err(trying(attempt))?;
        let slave = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, slave).map_err(trying(attempt))?;
        // SAFETY: the file is open, and `AsyncFd` owns it from here on; nothing else closes it.
        let master = unsafe { AsyncFd::register(File::from(master)) }.map_err(trying(attempt))?;
        Ok((Self(master), slave))
    }

    pub(crate) fn resize(&self, cols: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_col: cols, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }

    /// Waits for something to show. An error, or 0, where nobody has the other side any more.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|file| file.get_ref().read(buffer)) {
                return read;
            }
        }
    }

    /// What there is to show; `WouldBlock` where that is nothing.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_ref().read(buffer)
    }

    /// Types, and waits while the terminal takes no more.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|file| file.get_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => bytes = &bytes[written?..],
                Err(_) => {}
            }
        }
        Ok(())
    }
}
