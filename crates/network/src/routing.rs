//! What the host's own routing says of an address. The calling thread is in the host's namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::egress::is_public;

/// Nothing is sent there.
const PORT: u16 = 9;

/// Whether one of this host's interfaces has the address: then it is where packets to it would come from.
pub(crate) fn is_this_hosts(address: IpAddr) -> bool {
    source_towards(address).is_ok_and(|source| source == address)
}

/// Whether the host would speak IPv6 with the address if it had the choice: it has a route there, and an address of its own
/// that is as public. One that has private addresses alone is behind somebody's translation, or on no more than a network
/// of its own, and prefers IPv4 itself then (RFC 6724).
pub(crate) fn speaks_ipv6_with(address: IpAddr) -> bool {
    source_towards(address).is_ok_and(|source| is_public(source) == is_public(address))
}

/// The address that packets to another would come from.
fn source_towards(address: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Sends nothing.
    socket.connect((address, PORT))?;
    Ok(socket.local_addr()?.ip())
}
