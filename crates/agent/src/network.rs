//! The addresses that every guest has: the same in each, so that a snapshot fits every clone.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};

use crate::error::{Error, trying};
use crate::ipv6;

const NIC: &str = "eth0";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
/// Where programs find their resolver, an address of the loopback interface.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);

/// Where programs find the metadata service, and the near end of the link to it.
pub(crate) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub(crate) const METADATA_LINK: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);

const METADATA_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 252);
const LINK_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 252);
const HOST_MASK: Ipv4Addr = Ipv4Addr::BROADCAST;
const LOOPBACK_MASK: Ipv4Addr = Ipv4Addr::new(255, 0, 0, 0);

/// Brings up `lo` and, where there is one, `eth0`.
pub(crate) fn configure() -> Result<(), Error> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(trying("opening a socket"))?;
    bring_up(&socket, "lo", Ipv4Addr::LOCALHOST, LOOPBACK_MASK)?;
    bring_up(&socket, "lo:dns", RESOLVER, HOST_MASK)?;
    if std::path::Path::new("/sys/class/net").join(NIC).exists() {
        ipv6::quieten(NIC)?;
        bring_up(&socket, NIC, ADDRESS, LINK_MASK)?;
        add_default_route(&socket)?;
        ipv6::configure(NIC)?;
    }
    Ok(())
}

/// Brings up one end of the metadata service's link, in the namespace that this thread is in.
pub(crate) fn bring_up_link(name: &str, address: Ipv4Addr) -> Result<(), Error> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(trying("opening a socket"))?;
    bring_up(&socket, name, address, METADATA_MASK)
}

fn bring_up(socket: &OwnedFd, name: &str, address: Ipv4Addr, mask: Ipv4Addr) -> Result<(), Error> {
    let attempt = || format!("configuring {name}");
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_addr = socket_address(address);
    ioctl(socket, libc::SIOCSIFADDR, &raw const request).map_err(trying(attempt()))?;
    request.ifr_ifru.ifru_netmask = socket_address(mask);
    ioctl(socket, libc::SIOCSIFNETMASK, &raw const request).map_err(trying(attempt()))?;
    // IFF_UP and IFF_RUNNING are 0x41: they fit the field.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ioctl(socket, libc::SIOCSIFFLAGS, &raw const request).map_err(trying(attempt()))
}

fn add_default_route(socket: &OwnedFd) -> Result<(), Error> {
    // SAFETY: `rtentry` is a C structure for which all zeroes is a valid value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(GATEWAY);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    ioctl(socket, libc::SIOCADDRT, &raw const route).map_err(trying("adding the default route"))
}

fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is a C structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn ioctl<T>(socket: &OwnedFd, request: libc::c_ulong, argument: *const T) -> io::Result<()> {
    // SAFETY: the descriptor is open, and every caller passes the structure that its request reads.
    match unsafe { libc::ioctl(socket.as_raw_fd(), request as _, argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
