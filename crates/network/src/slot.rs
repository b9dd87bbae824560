//! One slot: its names, its addresses, making it and removing it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use crate::command::{CommandError, ip_batch, ip_query, nft};
use crate::config::{ADDRESSES_PER_SLOT, InstanceTag, NetworkConfig};
use crate::egress::Egress;
use crate::ipv6::{self, Extent};
use crate::{endpoint, netns, rules};

/// The tap in every slot; the same name everywhere, so that VMMs are interchangeable.
pub const TAP_NAME: &str = "tap0";
/// The namespace's end of its link to the host.
pub(crate) const UPLINK: &str = "uplink";
/// The guest's gateway, the same in every slot.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);
/// The gateway's hardware address, the same in every slot: a guest that wakes in another slot goes on sending to the one
/// that it knew, for as long as that was fresh when it fell asleep.
pub(crate) const GATEWAY_MAC: &str = "02:00:a9:fe:4d:01";
/// The guest's address, the same in every slot.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);

/// The guest's hardware address, whichever VMM it has: so the slot need not ask for it.
pub const GUEST_MAC: &str = "52:54:00:12:34:56";

/// A network of one MicroVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name, under which a later server adopts it.
    pub name: String,
    /// The namespace for the VMM to join.
    pub netns: PathBuf,
    /// The tap for the VMM to use there. Owned by root: one without an owner could be opened by anybody there.
    pub tap: String,
    /// Its number among this instance's.
    pub index: u32,
    /// The user for the VMM to become: no other slot's.
    pub uid: u32,
}

impl Slot {
    pub(crate) fn new(config: &NetworkConfig, index: u32) -> Self {
        let name = name_of(&config.instance, index);
        let uid = config.first_uid + index;
        Self { netns: netns::path_of(&name), tap: TAP_NAME.to_owned(), name, index, uid }
    }
}

fn name_of(instance: &InstanceTag, index: u32) -> String {
    format!("{}{index}", prefix(instance))
}

/// How the names of an instance's slots, and of their interfaces on the host, begin.
pub(crate) fn prefix(instance: &InstanceTag) -> String {
    format!("rk{instance}-")
}

/// The index in a slot's name, if it is one of the instance's.
pub(crate) fn index_of(instance: &InstanceTag, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(&prefix(instance))?;
    let index = digits.parse().ok()?;
    // "07" and "+7" parse too, yet name nothing we made.
    (name_of(instance, index) == name).then_some(index)
}

/// Makes the slot, and the listener of its endpoint where slots have one; on failure nothing of it remains.
pub(crate) fn make(config: &NetworkConfig, slot: &Slot) -> Result<Option<TcpListener>, CommandError> {
    let extent = Extent::here();
    let made = ip_batch(&host_side(config, slot, extent)).and_then(|()| {
        netns::inside(&slot.netns, || furnish(config, slot, extent))
            .map_err(|source| CommandError::kernel(format!("enter the namespace {}", slot.name), source))?
    });
    if made.is_err()
        && let Err(error) = remove(&slot.name)
    {
        tracing::warn!(slot = slot.name, %error, "cannot remove a half-made slot");
    }
    made
}

/// Removes what exists of the slot.
pub(crate) fn remove(name: &str) -> Result<(), CommandError> {
    let mut script = String::new();
    if has_link(name)? {
        // First: a namespace takes its end of the link with it only some time after it is deleted.
        script += &format!("link delete {name}\n");
    }
    if netns::path_of(name).exists() {
        script += &format!("netns delete {name}\n");
    }
    if script.is_empty() { Ok(()) } else { ip_batch(&script) }
}

/// Has the slot reach what `egress` says, and nothing else: first by its own rules, then by the host's.
pub(crate) fn bind(config: &NetworkConfig, slot: &Slot, egress: &Egress) -> Result<(), CommandError> {
    netns::inside(&slot.netns, || nft(&rules::bound_slot(egress, config.has_endpoints())))
        .map_err(|source| CommandError::kernel(format!("enter the namespace {}", slot.name), source))??;
    nft(&rules::bind(&config.instance, &slot.name, slot.index, egress))
}

/// Takes the host's part of [`bind`] back; the slot's own goes with the slot.
pub(crate) fn unbind(config: &NetworkConfig, slot: &Slot, egress: &Egress) -> Result<(), CommandError> {
    nft(&rules::unbind(&config.instance, &slot.name, slot.index, egress))
}

/// The names of all slots of the instance of which anything exists.
pub(crate) fn list(instance: &InstanceTag) -> Result<Vec<String>, CommandError> {
    let prefix = prefix(instance);
    let mut names =
        netns::list(&prefix).map_err(|source| CommandError::kernel("list the network namespaces", source))?;
    names.extend(links()?.into_iter().filter(|name| name.starts_with(&prefix)));
    names.retain(|name| index_of(instance, name).is_some());
    names.sort();
    names.dedup();
    Ok(names)
}

fn has_link(name: &str) -> Result<bool, CommandError> {
    Ok(links()?.iter().any(|link| link == name))
}

fn links() -> Result<Vec<String>, CommandError> {
    Ok(parse_links(&ip_query(&["-o", "link", "show"])?))
}

/// Lines such as `3: rkab-0@if2: <BROADCAST,...`.
fn parse_links(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let field = line.split_whitespace().nth(1)?.trim_end_matches(':');
        field.split('@').next().map(str::to_owned)
    };
    text.lines().filter_map(name).collect()
}

/// The addresses of a slot's link: the host's end and the slot's own.
fn link_addresses(config: &NetworkConfig, slot: &Slot) -> (Ipv4Addr, Ipv4Addr) {
    let first = slot.index * ADDRESSES_PER_SLOT;
    (config.slot_cidr.address(first + 1), config.slot_cidr.address(first + 2))
}

/// The batch for the host's namespace.
fn host_side(config: &NetworkConfig, slot: &Slot, extent: Extent) -> String {
    let (name, (host, uplink)) = (&slot.name, link_addresses(config, slot));
    let (own, peer) = (ipv6::HOST_MAC, ipv6::UPLINK_MAC);
    let (quiet, by_ipv6) = (ipv6::quiet(name, extent), ipv6::host_side(name, host, uplink, extent));
    format!(
        "netns add {name}\n\
         link add {name} address {own} type veth peer name {UPLINK} address {peer} netns {name}\n\
         address add {host}/30 dev {name}\n\
         {quiet}\
         link set {name} up\n\
         {by_ipv6}"
    )
}

/// The batch for the slot's namespace.
fn slot_side(config: &NetworkConfig, slot: &Slot, extent: Extent) -> String {
    let (host, uplink) = link_addresses(config, slot);
    let quiet = [UPLINK, TAP_NAME].map(|link| ipv6::quiet(link, extent)).concat();
    let by_ipv6 = ipv6::slot_side(host, uplink, extent);
    format!(
        "tuntap add dev {TAP_NAME} mode tap user 0\n\
         link set {TAP_NAME} address {GATEWAY_MAC}\n\
         address add {uplink}/30 dev {UPLINK}\n\
         address add {GATEWAY}/30 dev {TAP_NAME}\n\
         {quiet}\
         link set {UPLINK} up\n\
         link set {TAP_NAME} up\n\
         route add default via {host}\n\
         {by_ipv6}"
    )
}

/// Rules go in before the links come up: there is no moment without them.
fn furnish(config: &NetworkConfig, slot: &Slot, extent: Extent) -> Result<Option<TcpListener>, CommandError> {
    nft(&rules::slot(config.has_endpoints()))?;
    write_setting("net/ipv4/ip_forward", "1")?;
    if extent != Extent::None {
        ipv6::forward_in_slot()?;
    }
    ip_batch(&slot_side(config, slot, extent))?;
    config.has_endpoints().then(endpoint::listen).transpose()
}

/// Writes a kernel setting of the calling thread's network namespace.
pub(crate) fn write_setting(name: &str, value: &str) -> Result<(), CommandError> {
    std::fs::write(format!("/proc/sys/{name}"), value)
        .map_err(|source| CommandError::kernel(format!("set {} to {value}", name.replace('/', ".")), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetworkConfig {
        NetworkConfig::new("ab12".parse().unwrap(), 4242)
    }

    #[test]
    fn a_slot_has_its_own_addresses() {
        let slot = Slot::new(&config(), 70);
        assert_eq!(slot.name, "rkab12-70");
        let outer = |extent| host_side(&config(), &slot, extent);
        for extent in [Extent::None, Extent::Slots, Extent::Host] {
            assert!(outer(extent).contains("address add 100.72.1.25/30 dev rkab12-70"));
            let by_ipv6 = "address add fd72:656b:696e::6448:119 dev rkab12-70 nodad";
            assert_eq!(outer(extent).contains(by_ipv6), extent == Extent::Host);
        }
        let inner = slot_side(&config(), &slot, Extent::Host);
        assert!(inner.contains("address add 100.72.1.26/30 dev uplink"));
        assert!(inner.contains("tuntap add dev tap0 mode tap user 0"));
        assert!(inner.contains("route add default via 100.72.1.25\n"));
        assert!(inner.contains("route add ::/0 via fd72:656b:696e::6448:119\n"));
        assert!(!slot_side(&config(), &slot, Extent::Slots).contains("route add ::/0"));
    }

    #[test]
    fn only_own_names_are_recognised() {
        let tag = config().instance;
        assert_eq!(index_of(&tag, "rkab12-7"), Some(7));
        for other in ["rkab12-07", "rkab12-+7", "rkab12-", "rkab123-7", "rkab1-7", "rkab12-7x", "eth0"] {
            assert_eq!(index_of(&tag, other), None, "{other}");
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        let longest = name_of(&"ffffffff".parse().unwrap(), 9999);
        assert!(longest.len() <= 15);
    }

    #[test]
    fn links_are_read_without_their_peers() {
        let text = "1: lo: <LOOPBACK> mtu 65536\n7: rkab12-0@if2: <BROADCAST> mtu 1500\n";
        assert_eq!(parse_links(text), ["lo", "rkab12-0"]);
    }
}
