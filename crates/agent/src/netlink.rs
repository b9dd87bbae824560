//! Asking the kernel for links, addresses, neighbours and routes.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;
/// Of `nlmsghdr`.
const HEADER: usize = 16;

/// Of the network namespace that it was opened in.
pub(crate) struct Routing(OwnedFd);

impl Routing {
    pub(crate) fn open() -> io::Result<Self> {
        // Its first protocol, routes and links.
        Ok(Self(socket(AddressFamily::NETLINK, SocketType::RAW, None)?))
    }

    /// Has something be there that is not there yet. `body`: a message's own structure and its attributes.
    pub(crate) fn create(&self, kind: u16, body: &[u8]) -> io::Result<()> {
        send(&self.0, &request(kind, body), SendFlags::empty())?;
        let mut answer = [0; 512];
        let count = recv(&self.0, &mut answer[..], RecvFlags::empty())?.0;
        match answer.get(HEADER..HEADER + 4).filter(|_| count >= HEADER + 4) {
            Some([0, 0, 0, 0]) => Ok(()),
            Some(&[a, b, c, d]) => Err(io::Error::from_raw_os_error(-i32::from_ne_bytes([a, b, c, d]))),
            _ => Err(io::Error::other("the kernel's answer is none")),
        }
    }
}

fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16 | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

/// Length, kind, value, and what pads it to four bytes.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend_from_slice(&(length as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_length_is_not() {
        assert_eq!(attribute(3, b"ab"), [6, 0, 3, 0, b'a', b'b', 0, 0]);
        assert_eq!(attribute(3, b"abcd").len(), 8);
    }

    #[test]
    fn a_request_says_its_own_length() {
        let message = request(libc::RTM_NEWLINK, &attribute(3, b"ab"));
        assert_eq!(u32::from_ne_bytes(message[..4].try_into().unwrap()) as usize, message.len());
        assert_eq!(message.len(), 24);
    }
}
