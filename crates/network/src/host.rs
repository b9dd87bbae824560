//! What an instance sets up on its host, once.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::command::{CommandError, ip_query, nft, nft_check};
use crate::config::{Cidr, InstanceTag, NetworkConfig};
use crate::egress::{Allowed, Egress, Ports, Routes, Target, Traffic, Way};
use crate::ipv6::{self, Extent};
use crate::{rules, slot};

/// Why a pool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The host's own network uses the addresses.
    #[error(
        "slot range {range} is in use: interface {interface} has {address}; configure another range for this server"
    )]
    RangeInUse {
        /// The range configured.
        range: Cidr,
        /// Whose address it is.
        interface: String,
        /// The address inside the range.
        address: Ipv4Addr,
    },
    /// The host could not be set up.
    #[error("cannot set up the host's network: {0}")]
    Command(#[from] CommandError),
    /// No thread for the background work.
    #[error("cannot start the thread which makes network slots: {0}; raise the limit on processes")]
    Thread(std::io::Error),
}

const IP_FORWARD: &str = "net/ipv4/ip_forward";

/// Checks the range, enables forwarding and applies the instance's ruleset.
pub(crate) fn set_up(config: &NetworkConfig) -> Result<(), OpenError> {
    let addresses = ip_query(&["-o", "-4", "address", "show"])?;
    if let Some((interface, address)) = conflict(&addresses, &config.instance, config.slot_cidr) {
        return Err(OpenError::RangeInUse { range: config.slot_cidr, interface, address });
    }
    nft(&rules::host(&config.instance, config.slot_cidr))?;
    enable_forwarding()?;
    if Extent::here() == Extent::Host {
        ipv6::enable_forwarding()?;
    }
    Ok(())
}

/// Removes everything an instance has on this host: its slots, used or not, and its table. For taking a server
/// off a host; `net.ipv4.ip_forward` stays as it is.
pub fn remove_instance(instance: &InstanceTag) -> Result<(), CommandError> {
    for name in slot::list(instance)? {
        slot::remove(&name)?;
    }
    remove_table(instance)
}

/// Whether this host's kernel and `nft` take rules such as slots have, with everything that rules by domain name need.
/// Changes nothing; needs root.
///
/// # Errors
/// [`CommandError`] with what they do not take.
pub fn check_rules() -> Result<(), CommandError> {
    let instance = InstanceTag::of_data_dir(Path::new("check"));
    let name = "example.com".parse().expect("it is a domain");
    let named = Allowed { to: Target::Domain(name), traffic: Traffic::Tcp(Ports::ALL) };
    let egress = Egress { ways: vec![Way { routes: Routes::internet(), allowed: Some(vec![named]) }] };
    let slot = rules::bound_slot(&egress, true);
    let host = rules::host(&instance, NetworkConfig::new(instance.clone(), 0).slot_cidr);
    nft_check(&[host, rules::bind(&instance, "slot", 0, &egress), slot].concat())
}

pub(crate) fn remove_table(instance: &InstanceTag) -> Result<(), CommandError> {
    nft(&rules::host_removal(instance))
}

fn enable_forwarding() -> Result<(), CommandError> {
    let current = std::fs::read_to_string(format!("/proc/sys/{IP_FORWARD}"))
        .map_err(|source| CommandError::kernel("read net.ipv4.ip_forward", source))?;
    if current.trim() == "1" {
        return Ok(());
    }
    tracing::info!(
        "setting net.ipv4.ip_forward to 1 (was {}); it stays so when the server ends",
        current.trim()
    );
    slot::write_setting(IP_FORWARD, "1")
}

/// An address of another's interface inside the range, from lines such as `2: eth0    inet 10.0.0.2/24 brd ...`.
fn conflict(text: &str, instance: &InstanceTag, range: Cidr) -> Option<(String, Ipv4Addr)> {
    text.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (interface, address) = (fields.next()?, fields.nth(1)?.split('/').next()?.parse().ok()?);
        (range.contains(address) && slot::index_of(instance, interface).is_none())
            .then(|| (interface.to_owned(), address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_others_addresses_conflict() {
        let (tag, range) = ("ab".parse().unwrap(), "100.72.0.0/16".parse().unwrap());
        let text = "1: lo    inet 127.0.0.1/8 scope host lo\\ valid\n2: rkab-0    inet 100.72.0.1/30 scope global rkab-0\n";
        assert_eq!(conflict(text, &tag, range), None);
        let other = format!("{text}3: rkcd-0    inet 100.72.0.1/30 scope global rkcd-0\n");
        assert_eq!(conflict(&other, &tag, range), Some(("rkcd-0".to_owned(), Ipv4Addr::new(100, 72, 0, 1))));
    }
}
