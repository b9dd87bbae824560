//! The guest's IPv6: an address, a neighbour that is known without being asked for, and the way out by it. All the same in
//! every guest, so that a snapshot fits every clone, and nothing that would begin to speak by itself in one.
//!
//! There is always a way out, whether or not the host has one: that may change while the guest sleeps, and a slot says at
//! once that there is none.

use std::fs;
use std::io;
use std::net::Ipv6Addr;

use crate::error::{Error, trying};
use crate::netlink::{Routing, attribute};

/// Unique local ones, whose last 32 bits are those of IPv4.
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd72, 0x656b, 0x696e, 0, 0, 0, 0xa9fe, 0x4d02);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd72, 0x656b, 0x696e, 0, 0, 0, 0xa9fe, 0x4d01);
/// The gateway's hardware address, in every slot.
const GATEWAY_MAC: [u8; 6] = [0x02, 0x00, 0xa9, 0xfe, 0x4d, 0x01];

const WHOLE_ADDRESS: u8 = 128;
// linux/if_addr.h
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;
// linux/neighbour.h
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
// linux/rtnetlink.h
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTNH_F_ONLINK: u32 = 4;

/// Keeps an interface from making itself an address, and from listening to routers, which only a neighbour could play.
/// Before it comes up.
pub(crate) fn quieten(name: &str) -> Result<(), Error> {
    for (setting, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_redirects", "0")] {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/{setting}");
        fs::write(&path, value).map_err(trying(format!("setting {path}")))?;
    }
    Ok(())
}

/// Gives an interface that is up the guest's address and way out.
pub(crate) fn configure(name: &str) -> Result<(), Error> {
    let attempt = || format!("configuring IPv6 on {name}");
    let index = index(name).map_err(trying(attempt()))?;
    let routing = Routing::open().map_err(trying(attempt()))?;
    for (kind, body) in [
        (libc::RTM_NEWADDR, address(index)),
        (libc::RTM_NEWNEIGH, neighbour(index)),
        (libc::RTM_NEWROUTE, default_route(index)),
    ] {
        routing.create(kind, &body).map_err(trying(attempt()))?;
    }
    Ok(())
}

fn index(name: &str) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim().parse().map_err(io::Error::other)
}

/// `ifaddrmsg`. Nobody else has the address: there is no need to ask.
fn address(index: u32) -> Vec<u8> {
    let header = [libc::AF_INET6 as u8, WHOLE_ADDRESS, IFA_F_NODAD, libc::RT_SCOPE_UNIVERSE];
    [&header[..], &index.to_ne_bytes(), &attribute(IFA_LOCAL, &ADDRESS.octets())].concat()
}

/// `ndmsg`.
fn neighbour(index: u32) -> Vec<u8> {
    let family = [libc::AF_INET6 as u8, 0, 0, 0];
    let state = NUD_PERMANENT.to_ne_bytes();
    let (gateway, mac) = (attribute(NDA_DST, &GATEWAY.octets()), attribute(NDA_LLADDR, &GATEWAY_MAC));
    [&family[..], &index.to_ne_bytes(), &state, &[0, 0], &gateway, &mac].concat()
}

/// `rtmsg`.
fn default_route(index: u32) -> Vec<u8> {
    let header = [
        libc::AF_INET6 as u8,
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
    ];
    // The gateway is on the link, though no range of addresses is.
    let flags = RTNH_F_ONLINK.to_ne_bytes();
    let gateway = attribute(RTA_GATEWAY, &GATEWAY.octets());
    [&header[..], &flags, &gateway, &attribute(RTA_OIF, &index.to_ne_bytes())].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_kernels_structures_before_their_attributes() {
        assert_eq!(address(7).len(), 8 + 20);
        assert_eq!(neighbour(7).len(), 12 + 20 + 12);
        assert_eq!(default_route(7).len(), 12 + 20 + 8);
        assert_eq!(address(7)[..8], [10, 128, 2, 0, 7, 0, 0, 0]);
        assert_eq!(neighbour(7)[4..12], [7, 0, 0, 0, 0x80, 0, 0, 0]);
    }
}
