//! The host, where it comes over a socket device of the machine: it connects, as often as it likes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::error::{Error, trying};

/// The host's address.
const HOST: u32 = libc::VMADDR_CID_HOST;
/// Hosts that have connected and wait; there is one.
const BACKLOG: libc::c_int = 4;

/// Where hosts connect to.
pub(crate) struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Listens on `port`, and says so to the host.
    pub(crate) fn open(port: u32) -> Result<Self, Error> {
        let listener = listen(port).map_err(trying(format!("listening on port {port} for the host")))?;
        // That it comes is all that it tells. A host that does not listen connects when it likes.
        let _ = connect(port);
        Ok(Self(listener))
    }

    /// The next connection of the host's.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        loop {
            let mut guard = self.0.readable().await?;
            match guard.try_io(|listener| accept(listener.get_ref())) {
                // Programs of the guest's have no way to the host's place.
                Ok(Ok((stream, HOST))) => return Stream::new(stream),
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: `sockaddr_vm` is a C structure for which all zeroes is a valid value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    // The family is 40: it fits the field.
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

/// Twelve bytes: it fits.
const ADDRESS_BYTES: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

fn socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers alone.
    let made = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, 0) };
    owned(made)
}

fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn listen(port: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let listener = socket(libc::SOCK_NONBLOCK)?;
    let address = address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the descriptor is open, and the address is as long as is said.
    done(unsafe { libc::bind(listener.as_raw_fd(), (&raw const address).cast(), ADDRESS_BYTES) })?;
    // SAFETY: the descriptor is open.
    done(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
    // SAFETY: the listener is an open descriptor that `AsyncFd` owns from here on and that nothing else closes.
    Ok(unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) }?)
}

fn connect(port: u32) -> io::Result<()> {
    let caller = socket(0)?;
    let address = address(HOST, port);
    // SAFETY: the descriptor is open, and the address is as long as is said.
    done(unsafe { libc::connect(caller.as_raw_fd(), (&raw const address).cast(), ADDRESS_BYTES) })
}

/// A connection, and whose it is.
fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, u32)> {
    let (mut from, mut length) = (address(0, 0), ADDRESS_BYTES);
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the descriptor is open, and the kernel writes an address of at most the length that is said.
    let accepted =
        unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut from).cast(), &raw mut length, flags) };
    Ok((owned(accepted)?, from.svm_cid))
}

/// A connection of the host's.
pub(crate) struct Stream(AsyncFd<File>);

impl Stream {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the socket is an open descriptor that `AsyncFd` owns from here on and that nothing else closes.
        Ok(Self(unsafe { AsyncFd::register_with_interest(File::from(socket), interest) }?))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(read) = guard.try_io(|file| file.get_ref().read(buffer.initialize_unfilled())) {
                buffer.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|file| file.get_ref().write(bytes)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(self.0.get_ref(), rustix::net::Shutdown::Write).map_err(Into::into))
    }
}
