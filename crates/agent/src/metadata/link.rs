//! The metadata service's address, at the far end of a link of its own: in another network namespace, so that it takes no
//! port away from the application, which may well listen on port 80 of every address.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Error, trying};
use crate::netlink::{Routing, attribute};
use crate::network;

/// Both ends' name, each in its namespace.
const NAME: &str = "imds0";
const PORT: u16 = 80;
const ATTEMPT: &str = "making the metadata service's link";

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
/// `ifinfomsg`, of which nothing need be said.
const INTERFACE: [u8; 16] = [0; 16];

/// Makes the link and listens at its far end, whose namespace lives as long as the listener. Only before there are other
/// threads.
pub(crate) fn listen() -> Result<TcpListener, Error> {
    let home = File::open("/proc/self/ns/net").map_err(trying(ATTEMPT))?;
    // SAFETY: the flag asks for a new namespace only, and shares no memory or descriptors differently.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
        return Err(trying(ATTEMPT)(io::Error::last_os_error()));
    }
    let far = far_end(&home);
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network)).map_err(trying(ATTEMPT))?;
    let listener = far?;
    bring_up(network::METADATA_LINK)?;
    Ok(listener)
}

fn far_end(home: &File) -> Result<TcpListener, Error> {
    create_link(home.as_raw_fd()).map_err(trying(ATTEMPT))?;
    bring_up(network::METADATA)?;
    let listener = TcpListener::bind((network::METADATA, PORT)).map_err(trying("listening for metadata"))?;
    listener.set_nonblocking(true).map_err(trying("listening for metadata"))?;
    Ok(listener)
}

/// It needs no IPv6, whose announcements would be work in every clone.
fn bring_up(address: Ipv4Addr) -> Result<(), Error> {
    let switch = format!("/proc/sys/net/ipv6/conf/{NAME}/disable_ipv6");
    fs::write(switch, "1").map_err(trying("keeping the metadata service to IPv4"))?;
    network::bring_up_link(NAME, address)
}

/// A pair of interfaces: one here, one in the namespace `home`.
fn create_link(home: RawFd) -> io::Result<()> {
    Routing::open()?.create(libc::RTM_NEWLINK, &pair(home))
}

/// A `veth`.
fn pair(home: RawFd) -> Vec<u8> {
    let name = attribute(IFLA_IFNAME, format!("{NAME}\0").as_bytes());
    let there = attribute(IFLA_NET_NS_FD, &home.to_ne_bytes());
    let peer = attribute(VETH_INFO_PEER, &[&INTERFACE[..], &name, &there].concat());
    let kind = attribute(IFLA_INFO_KIND, b"veth");
    let info = attribute(IFLA_LINKINFO, &[kind, attribute(IFLA_INFO_DATA, &peer)].concat());
    [&INTERFACE[..], &name, &info].concat()
}
