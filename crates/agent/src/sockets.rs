//! Aborting the TCP connections that a snapshot brought along: their peers belong to another life.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Error, trying};

const NETLINK_SOCK_DIAG: libc::c_int = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Every TCP state but LISTEN (10).
const CONNECTED: u32 = !(1 << 10);
const HEADER: usize = 16;
/// `inet_diag_msg`: family, state, timer, retrans, then the 48-byte socket id.
const ID_AT: usize = HEADER + 4;
const ID_BYTES: usize = 48;
const REMOTE_AT: usize = 20;

/// Aborts every TCP connection whose other end is not this machine.
pub(crate) fn abort_remote() -> Result<(), Error> {
    let attempt = "resetting the connections of the previous life";
    let socket = open().map_err(trying(attempt))?;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        for id in list(&socket, family).map_err(trying(attempt))? {
            if !is_loopback(family, &id) {
                let request = request(SOCK_DESTROY, libc::NLM_F_REQUEST as u16, family, &id);
                send(&socket, &request).map_err(trying(attempt))?;
            }
        }
    }
    Ok(())
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let socket =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn list(socket: &OwnedFd, family: u8) -> io::Result<Vec<[u8; ID_BYTES]>> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    send(socket, &request(SOCK_DIAG_BY_FAMILY, flags, family, &[0; ID_BYTES]))?;
    let mut ids = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = rustix::net::recv(socket, &mut buffer[..], rustix::net::RecvFlags::empty())?.0;
        if !collect(&buffer[..count], &mut ids)? {
            return Ok(ids);
        }
    }
}

/// Takes the socket ids out of one datagram; whether more datagrams follow.
fn collect(mut rest: &[u8], ids: &mut Vec<[u8; ID_BYTES]>) -> io::Result<bool> {
    while let Some((length, kind)) = message_header(rest) {
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => return Err(io::Error::other("the kernel does not list its sockets")),
            _ => {}
        }
        if let Some(Ok(id)) = rest.get(ID_AT..ID_AT + ID_BYTES).map(TryInto::try_into) {
            ids.push(id);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn message_header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (length >= HEADER && length <= bytes.len()).then_some((length, kind))
}

/// `nlmsghdr` and `inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, id: &[u8; ID_BYTES]) -> Vec<u8> {
    let length = (HEADER + 8 + ID_BYTES) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[family, libc::IPPROTO_TCP as u8, 0, 0]);
    message.extend_from_slice(&CONNECTED.to_ne_bytes());
    message.extend_from_slice(id);
    message
}

fn is_loopback(family: u8, id: &[u8; ID_BYTES]) -> bool {
    let mut remote = [0; 16];
    remote.copy_from_slice(&id[REMOTE_AT..REMOTE_AT + 16]);
    let address = if i32::from(family) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::new(remote[0], remote[1], remote[2], remote[3]))
    } else {
        Ipv6Addr::from(remote).to_canonical()
    };
    address.is_loopback()
}

fn send(socket: &OwnedFd, message: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and length are those of `message`; an unconnected netlink socket sends to the kernel.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_rest() {
        let mut id = [0; ID_BYTES];
        id[REMOTE_AT..REMOTE_AT + 4].copy_from_slice(&[127, 0, 0, 9]);
        assert!(is_loopback(libc::AF_INET as u8, &id));
        id[REMOTE_AT] = 10;
        assert!(!is_loopback(libc::AF_INET as u8, &id));
        id[REMOTE_AT..REMOTE_AT + 16].copy_from_slice(&Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets());
        assert!(is_loopback(libc::AF_INET6 as u8, &id));
    }

    #[test]
    fn a_cut_message_is_no_panic() {
        let mut ids = Vec::new();
        assert!(collect(&[200, 0, 0, 0, 20, 0], &mut ids).unwrap());
        assert!(ids.is_empty());
    }
}
