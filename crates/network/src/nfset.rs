//! nftables' sets of a network namespace over netlink: putting addresses into them, which a guest waits for, and reading
//! what they count, of many slots. So no program is run.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

// linux/netlink.h
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
// linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
// linux/netfilter/nf_tables.h
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_PACKETS: u16 = 2;

const HEADER: usize = 16;
/// What stands before the attributes of a message of nf_tables.
const FAMILY: usize = 4;
/// Of the kernel's answer to one message, which repeats that message's header.
const MAX_REPLY: usize = 4096;
/// The most that the kernel puts into one datagram of a list.
const MAX_LISTED: usize = 64 << 10;

/// An address, and for how long it is one of a set's.
pub(crate) type Element = (IpAddr, Duration);

/// Adds to the sets of a table of family `inet` in the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct SetWriter {
    socket: OwnedFd,
    table: String,
    sequence: u32,
}

impl SetWriter {
    /// For the namespace of the calling thread.
    pub(crate) fn open(table: String) -> io::Result<Self> {
        Ok(Self { socket: open()?, table, sequence: 0 })
    }

    /// Has addresses be elements of these sets for so long from now, whether or not they are; all of it or nothing. No
    /// set is given an address twice, or one of the other family.
    pub(crate) fn put(&mut self, sets: &BTreeMap<String, Vec<Element>>) -> io::Result<()> {
        if sets.is_empty() {
            return Ok(());
        }
        let mut batch = Batch { bytes: Vec::new(), sequence: self.sequence };
        batch.message(NFNL_MSG_BATCH_BEGIN, 0, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES, &[]);
        for (set, elements) in sets {
            let body = elements_of(&self.table, set, elements);
            // An element that is there would keep its old timeout; one that is not there could not be deleted.
            for kind in [NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM] {
                let flags = if kind == NFT_MSG_NEWSETELEM { NLM_F_CREATE } else { 0 };
                batch.message((NFNL_SUBSYS_NFTABLES << 8) | kind, flags | NLM_F_ACK, NFPROTO_INET, 0, &body);
            }
        }
        let last = batch.sequence;
        batch.message(NFNL_MSG_BATCH_END, 0, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES, &[]);
        let first = std::mem::replace(&mut self.sequence, batch.sequence) + 1;
        send(&self.socket, &batch.bytes, SendFlags::empty())?;
        self.replies(first, last)
    }

    /// Reads what the kernel said to a batch's messages, which it has done by the time that they are sent.
    fn replies(&self, first: u32, last: u32) -> io::Result<()> {
        let mut buffer = [0; MAX_REPLY];
        loop {
            let (length, _) = recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT)?;
            for (sequence, error) in errors(&buffer[..length]) {
                // What remained of a batch that failed is of no interest any more.
                match error {
                    _ if !(first..=last).contains(&sequence) => {}
                    0 if sequence == last => return Ok(()),
                    0 => {}
                    error => return Err(io::Error::from_raw_os_error(-error)),
                }
            }
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?)
}

/// The elements of a set in the namespace of the calling thread, each with the packets that its counter has seen.
pub(crate) fn counted(table: &str, set: &str) -> io::Result<Vec<(Vec<u8>, u64)>> {
    let socket = open()?;
    let mut request = Batch { bytes: Vec::new(), sequence: 0 };
    let kind = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETSETELEM;
    request.message(kind, NLM_F_DUMP, NFPROTO_INET, 0, &names(table, set));
    send(&socket, &request.bytes, SendFlags::empty())?;
    let (mut buffer, mut found) = (vec![0; MAX_LISTED], Vec::new());
    loop {
        // What is next is there once what was before it is read.
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        for reply in messages(&buffer[..length]) {
            match reply.kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => {
                    return Err(io::Error::from_raw_os_error(-reply.error().unwrap_or_default()));
                }
                _ => found.extend(counters(reply.body.get(FAMILY..).unwrap_or_default())),
            }
        }
    }
}

/// The keys and counters in a message's attributes.
fn counters(message: &[u8]) -> Vec<(Vec<u8>, u64)> {
    let elements = attributes(message).filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS);
    let elements =
        elements.flat_map(|(_, list)| attributes(list)).filter(|(kind, _)| *kind == NFTA_LIST_ELEM);
    let counter = |(_, element)| {
        let key = find(find(element, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?;
        let counter = find(find(element, NFTA_SET_ELEM_EXPR)?, NFTA_EXPR_DATA)?;
        let packets = find(counter, NFTA_COUNTER_PACKETS)?.first_chunk()?;
        Some((key.to_vec(), u64::from_be_bytes(*packets)))
    };
    elements.filter_map(counter).collect()
}

/// Messages that the kernel takes as one transaction.
struct Batch {
    bytes: Vec<u8>,
    /// Of the last message.
    sequence: u32,
}

impl Batch {
    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        self.sequence += 1;
        // A body is two names of ours and a few elements.
        let length = (HEADER + 4 + body.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
    }
}

fn elements_of(table: &str, set: &str, elements: &[Element]) -> Vec<u8> {
    let elements: Vec<u8> = elements.iter().flat_map(element).collect();
    [names(table, set), attribute(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, &elements)].concat()
}

/// Which set.
fn names(table: &str, set: &str) -> Vec<u8> {
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), b"\0"].concat());
    [text(NFTA_SET_ELEM_LIST_TABLE, table), text(NFTA_SET_ELEM_LIST_SET, set)].concat()
}

fn element((address, timeout): &Element) -> Vec<u8> {
    let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
    let value = match address {
        IpAddr::V4(v4) => attribute(NFTA_DATA_VALUE, &v4.octets()),
        IpAddr::V6(v6) => attribute(NFTA_DATA_VALUE, &v6.octets()),
    };
    let key = attribute(NFTA_SET_ELEM_KEY | NLA_F_NESTED, &value);
    let timeout = attribute(NFTA_SET_ELEM_TIMEOUT, &milliseconds.to_be_bytes());
    attribute(NFTA_LIST_ELEM | NLA_F_NESTED, &[key, timeout].concat())
}

fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = 4 + content.len();
    let mut bytes = (length as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(content);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// The attributes of a message, or within one.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let ([l1, l2, k1, k2], _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([*l1, *l2]));
        let content = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([*k1, *k2]) & !NLA_F_NESTED, content))
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, content)| content)
}

/// The sequence numbers that a datagram of the kernel's is about, each with its error or 0.
fn errors(datagram: &[u8]) -> Vec<(u32, i32)> {
    let replies = messages(datagram).filter(|message| message.kind == NLMSG_ERROR);
    replies.filter_map(|reply| Some((reply.sequence, reply.error()?))).collect()
}

/// A message of the kernel's.
struct Reply<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Reply<'_> {
    /// Of one of the kind that tells of errors, or of 0.
    fn error(&self) -> Option<i32> {
        self.body.first_chunk().map(|error| i32::from_ne_bytes(*error))
    }
}

/// The messages of a datagram.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER>()?;
        let field =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (length, sequence) = (field(0) as usize, field(8));
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = rest.get(HEADER..length.clamp(HEADER, rest.len()))?;
        rest = rest.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
        Some(Reply { kind, sequence, body })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_laid_out_as_the_kernel_reads_it() {
        let element = (IpAddr::from([203, 0, 113, 7]), Duration::from_secs(1));
        let body = elements_of("t", "set", &[element]);
        let expected = [
            &[6, 0, 1, 0][..],
            b"t\0\0\0",
            &[8, 0, 2, 0],
            b"set\0",
            &[32, 0, 3, 0x80],
            &[28, 0, 1, 0x80],
            &[12, 0, 1, 0x80],
            &[8, 0, 1, 0],
            &[203, 0, 113, 7],
            &[12, 0, 4, 0],
            &[0, 0, 0, 0, 0, 0, 0x03, 0xe8],
        ];
        assert_eq!(body, expected.concat());
    }

    #[test]
    fn counters_are_read_where_the_kernel_puts_them() {
        let nested = |kind, parts: &[Vec<u8>]| attribute(kind | NLA_F_NESTED, &parts.concat());
        let counter =
            [attribute(1, &60_u64.to_be_bytes()), attribute(NFTA_COUNTER_PACKETS, &7_u64.to_be_bytes())];
        let expression = [attribute(1, b"counter\0"), nested(NFTA_EXPR_DATA, &counter)];
        let key = nested(NFTA_SET_ELEM_KEY, &[attribute(NFTA_DATA_VALUE, &[1, 2, 3])]);
        let element = nested(NFTA_LIST_ELEM, &[key.clone(), nested(NFTA_SET_ELEM_EXPR, &expression)]);
        let uncounted = nested(NFTA_LIST_ELEM, &[key]);
        let list = nested(NFTA_SET_ELEM_LIST_ELEMENTS, &[uncounted, element]);
        let message = [names("t", "set"), list].concat();
        assert_eq!(counters(&message), [(vec![1, 2, 3], 7)]);
        for end in 0..message.len() {
            assert!(counters(&message[..end]).is_empty(), "{end}");
        }
    }

    #[test]
    fn messages_end_with_their_datagram() {
        let message = |length: u32, kind: u16| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(20, 9);
            bytes
        };
        let datagram = [message(20, 1), message(20, NLMSG_DONE)].concat();
        let found: Vec<_> = messages(&datagram).map(|reply| (reply.kind, reply.body)).collect();
        assert_eq!(found, [(1, &[9; 4][..]), (NLMSG_DONE, &[9; 4])]);
        for length in [0, 15, u32::MAX] {
            assert_eq!(messages(&message(length, 1)).count(), 1, "{length}");
        }
    }

    #[test]
    fn errors_are_read_by_their_sequence_numbers() {
        let reply = |length: u32, kind: u16, sequence: u32, error: i32| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 2]);
            bytes.extend(sequence.to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(error.to_ne_bytes());
            bytes.resize(36, 0);
            bytes
        };
        let datagram =
            [reply(36, NLMSG_ERROR, 7, 0), reply(36, 3, 8, -1), reply(36, NLMSG_ERROR, 9, -2)].concat();
        assert_eq!(errors(&datagram), [(7, 0), (9, -2)]);
        assert_eq!(errors(&reply(u32::MAX, NLMSG_ERROR, 7, -2)), [(7, -2)]);
        assert!(errors(&reply(0, NLMSG_ERROR, 7, -2)).is_empty());
        assert!(errors(&datagram[..19]).is_empty());
    }
}
