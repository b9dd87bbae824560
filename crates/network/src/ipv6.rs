//! IPv6 of the slots, which is made like their IPv4: every address there has a counterpart in one range of unique local
//! ones, which nobody beyond the host hears of, because packets leave under the host's own.
//!
//! Neighbours are not discovered but known, at either end of each link, so that nothing of neighbour discovery need be let
//! in: not to the host, nor to the slot. Interfaces have no link-local addresses, and no router's announcement is
//! listened to. That too makes a clone quiet: it has nobody to ask for and nothing to announce.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::command::CommandError;
use crate::config::Cidr;
use crate::slot::{GATEWAY, GUEST, GUEST_MAC, TAP_NAME, UPLINK, write_setting};

/// The first 96 bits of all of them. Behind them is the IPv4 address.
const RANGE: Ipv6Addr = Ipv6Addr::new(0xfd72, 0x656b, 0x696e, 0, 0, 0, 0, 0);
/// The hardware addresses of the two ends of each slot's link to the host.
pub(crate) const HOST_MAC: &str = "02:00:64:48:00:01";
pub(crate) const UPLINK_MAC: &str = "02:00:64:48:00:02";

const SETTINGS: &str = "/proc/sys/net/ipv6/conf";

/// The counterpart of an IPv4 address.
pub(crate) fn of(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(RANGE.to_bits() | u128::from(address.to_bits()))
}

/// What an address is the counterpart of.
pub(crate) fn counterpart(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let rest = address.to_bits() ^ RANGE.to_bits();
    u32::try_from(rest).ok().map(Ipv4Addr::from_bits)
}

/// The counterpart of a range.
pub(crate) fn range(range: Cidr) -> String {
    format!("{}/{}", of(range.address(0)), 96 + u32::from(range.prefix()))
}

/// How much of IPv6 there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// The kernel has none.
    None,
    /// The host has it switched off: slots have it, so that their guests are told at once that it leads nowhere.
    Slots,
    /// Slots are linked to the host by it.
    Host,
}

impl Extent {
    /// Of the host whose namespace the calling thread is in.
    pub(crate) fn here() -> Self {
        let is_off = |name: &str| {
            let path = format!("{SETTINGS}/{name}/disable_ipv6");
            std::fs::read_to_string(path).map(|value| value.trim() != "0")
        };
        match (is_off("all"), is_off("default")) {
            (Ok(false), Ok(false)) => Self::Host,
            (Ok(_), Ok(_)) => Self::Slots,
            _ => Self::None,
        }
    }
}

/// The batch that keeps a link from having an address of its own making, before it comes up.
pub(crate) fn quiet(link: &str, extent: Extent) -> String {
    if extent == Extent::None { String::new() } else { format!("link set {link} addrgenmode none\n") }
}

/// The batch for the host's end of a slot's link, whose addresses are `host` and `uplink`, once it is up.
pub(crate) fn host_side(name: &str, host: Ipv4Addr, uplink: Ipv4Addr, extent: Extent) -> String {
    if extent == Extent::Host { known_neighbour(name, host, uplink, UPLINK_MAC) } else { String::new() }
}

/// The batch for the slot's ends of both links, once they are up.
pub(crate) fn slot_side(host: Ipv4Addr, uplink: Ipv4Addr, extent: Extent) -> String {
    let tap = known_neighbour(TAP_NAME, GATEWAY, GUEST, GUEST_MAC);
    match extent {
        Extent::None => String::new(),
        Extent::Slots => tap,
        Extent::Host => {
            let link = known_neighbour(UPLINK, uplink, host, HOST_MAC);
            format!("{tap}{link}route add ::/0 via {}\n", of(host))
        }
    }
}

fn known_neighbour(link: &str, own: Ipv4Addr, peer: Ipv4Addr, mac: &str) -> String {
    let (own, peer) = (of(own), of(peer));
    format!(
        "address add {own} dev {link} nodad\n\
         neighbour add {peer} lladdr {mac} dev {link} nud permanent\n\
         route add {peer} dev {link}\n"
    )
}

/// Has the namespace of the calling thread, which is a slot's, pass IPv6 on and listen to no router.
pub(crate) fn forward_in_slot() -> Result<(), CommandError> {
    for (name, value) in [
        ("all/disable_ipv6", "0"),
        ("default/disable_ipv6", "0"),
        ("all/forwarding", "1"),
        ("default/accept_ra", "0"),
        ("uplink/accept_ra", "0"),
    ] {
        write_setting(&format!("net/ipv6/conf/{name}"), value)?;
    }
    Ok(())
}

/// Has the host pass IPv6 on. Interfaces that are configured by what routers announce would no longer be, and lose what
/// they have: they are told to go on first.
pub(crate) fn enable_forwarding() -> Result<(), CommandError> {
    const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
    let read = |path: &Path| Ok(std::fs::read_to_string(path)?.trim().to_owned());
    let failed = |source| CommandError::kernel("read net.ipv6.conf", source);
    if read(&Path::new("/proc/sys").join(FORWARDING)).map_err(failed)? == "1" {
        return Ok(());
    }
    for name in interfaces().map_err(failed)? {
        let setting = format!("{SETTINGS}/{name}/accept_ra");
        // One that has gone meanwhile needs nothing any more.
        if read(Path::new(&setting)).is_ok_and(|value: String| value == "1") {
            write_setting(&format!("net/ipv6/conf/{name}/accept_ra"), "2")?;
        }
    }
    tracing::info!("setting net.ipv6.conf.all.forwarding to 1; it stays so when the server ends");
    write_setting(FORWARDING, "1")
}

/// Those that there are; what later ones begin with stays as it is.
fn interfaces() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(SETTINGS)? {
        names.extend(entry?.file_name().into_string().ok().filter(|name| name != "all" && name != "default"));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_a_counterpart() {
        let uplink = Ipv4Addr::new(100, 72, 1, 26);
        assert_eq!(of(uplink).to_string(), "fd72:656b:696e::6448:11a");
        assert_eq!(counterpart(of(uplink)), Some(uplink));
        for other in ["fd72:656b:696e:1::6448:11a", "fd72:656b:696f::1", "::6448:11a", "2a00::1"] {
            assert_eq!(counterpart(other.parse().unwrap()), None, "{other}");
        }
        assert_eq!(range("100.72.0.0/16".parse().unwrap()), "fd72:656b:696e::6448:0/112");
    }

    #[test]
    fn a_slot_has_as_much_of_it_as_its_host() {
        let (host, uplink) = (Ipv4Addr::new(100, 72, 1, 25), Ipv4Addr::new(100, 72, 1, 26));
        let tap = "address add fd72:656b:696e::a9fe:4d01 dev tap0 nodad\n";
        let link = "address add fd72:656b:696e::6448:11a dev uplink nodad\n";
        let batch = |extent| slot_side(host, uplink, extent);
        assert_eq!(batch(Extent::None), "");
        assert!(batch(Extent::Slots).contains(tap) && !batch(Extent::Slots).contains(link));
        assert!(batch(Extent::Host).contains(tap) && batch(Extent::Host).contains(link));
    }
}
