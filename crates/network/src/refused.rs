//! What the rules of a bound slot refused: the kernel counts it in two sets of the slot's table, by destination as far as
//! there is room, and as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::egress::Family;
use crate::rules::{REFUSED, REFUSED_BY_DESTINATION, SLOT_TABLE};
use crate::{netns, nfset};

/// Most destinations that are told at once.
const MAX_TOLD: usize = 8;
/// What stands in a key behind the address: a protocol and a port, each at the beginning of four bytes.
const BEHIND_ADDRESS: usize = 8;
// linux/in.h
const TCP: u8 = 6;

/// Packets that a guest sent and that did not leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    /// Where most of them were to go.
    pub told: Vec<RefusedTo>,
    /// How many of them were to go elsewhere, or were neither TCP nor UDP.
    pub others: u64,
}

/// Packets to one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedTo {
    /// The address.
    pub address: IpAddr,
    /// Whether it was TCP, else UDP.
    pub is_tcp: bool,
    /// The port.
    pub port: u16,
    /// How many.
    pub packets: u64,
}

impl Refused {
    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.told.is_empty() && self.others == 0
    }
}

/// `3 to 10.0.0.7:443 (tcp), 1 to 10.0.0.8:53 (udp), 12 others`.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.told.iter().map(|RefusedTo { address, is_tcp, port, packets }| {
            let protocol = if *is_tcp { "tcp" } else { "udp" };
            format!("{packets} to {} ({protocol})", SocketAddr::new(*address, *port))
        });
        let others = (self.others > 0).then(|| format!("{} others", self.others));
        f.write_str(&told.chain(others).collect::<Vec<_>>().join(", "))
    }
}

/// An address, a protocol and a port.
type To = (IpAddr, u8, u16);

/// What the kernel has counted since the slot was bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    by_destination: BTreeMap<To, u64>,
    all: u64,
}

impl Counts {
    /// Those of the slot with this namespace.
    pub(crate) fn read(netns: &Path) -> io::Result<Self> {
        netns::inside(netns, || {
            let mut by_destination = BTreeMap::new();
            for family in Family::BOTH {
                let counted = nfset::counted(SLOT_TABLE, &family.set(REFUSED_BY_DESTINATION))?;
                by_destination.extend(counted.iter().filter_map(|(key, packets)| Some((to(key)?, *packets))));
            }
            let all = nfset::counted(SLOT_TABLE, REFUSED)?.into_iter().map(|(_, packets)| packets).sum();
            Ok(Self { by_destination, all })
        })?
    }

    /// What was refused after `before`. Counting may have begun anew meanwhile, of a destination or of all.
    pub(crate) fn since(&self, before: &Self) -> Refused {
        let added = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        let of = |(to, now): (&To, &u64)| {
            let packets = added(*now, before.by_destination.get(to).copied().unwrap_or_default());
            let (address, protocol, port) = *to;
            (packets > 0).then_some(RefusedTo { address, is_tcp: protocol == TCP, port, packets })
        };
        let mut told: Vec<RefusedTo> = self.by_destination.iter().filter_map(of).collect();
        told.sort_by_key(|to| std::cmp::Reverse(to.packets));
        told.truncate(MAX_TOLD);
        let sum: u64 = told.iter().map(|to| to.packets).sum();
        Refused { told, others: added(self.all, before.all).saturating_sub(sum) }
    }
}

/// What an element's key says.
fn to(key: &[u8]) -> Option<To> {
    let (address, rest) = key.split_last_chunk::<BEHIND_ADDRESS>()?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    let [protocol, _, _, _, high, low, ..] = *rest;
    Some((address, protocol, u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(destinations: &[(u8, u8, u16, u64)], all: u64) -> Counts {
        let key = |(last, protocol, port, packets): &(u8, u8, u16, u64)| {
            let [high, low] = port.to_be_bytes();
            (to(&[10, 0, 0, *last, *protocol, 0, 0, 0, high, low, 0, 0]).unwrap(), *packets)
        };
        Counts { by_destination: destinations.iter().map(key).collect(), all }
    }

    #[test]
    fn keys_are_of_either_family() {
        let behind = [17, 0, 0, 0, 1, 187, 0, 0];
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0x2a, 0]);
        let found = to(&[&address[..], &behind].concat());
        assert_eq!(found, Some(("2a00::".parse().unwrap(), 17, 443)));
        assert_eq!(to(&behind), None);
        assert_eq!(to(&[&address[1..], &behind].concat()), None);
        let counts = Counts { by_destination: [(found.unwrap(), 2)].into(), all: 2 };
        assert_eq!(counts.since(&Counts::default()).to_string(), "2 to [2a00::]:443 (udp)");
    }

    #[test]
    fn what_came_since_is_told_and_the_rest_counted() {
        let before = counts(&[(7, TCP, 443, 3), (8, 17, 53, 5)], 10);
        let now = counts(&[(7, TCP, 443, 6), (8, 17, 53, 5), (9, 17, 53, 1)], 26);
        assert_eq!(
            now.since(&before).to_string(),
            "3 to 10.0.0.7:443 (tcp), 1 to 10.0.0.9:53 (udp), 12 others"
        );
        assert!(now.since(&now).is_empty());
    }

    #[test]
    fn counting_may_begin_anew() {
        let before = counts(&[(7, TCP, 443, 30)], 90);
        assert_eq!(counts(&[(7, TCP, 443, 2)], 92).since(&before).to_string(), "2 to 10.0.0.7:443 (tcp)");
        assert_eq!(
            counts(&[(7, TCP, 443, 2)], 3).since(&before).to_string(),
            "2 to 10.0.0.7:443 (tcp), 1 others"
        );
    }

    #[test]
    fn no_more_is_told_than_somebody_reads() {
        let many: Vec<_> = (0..60).map(|last| (last, TCP, 80, u64::from(last) + 1)).collect();
        let refused = counts(&many, 5000).since(&Counts::default());
        assert_eq!((refused.told.len(), refused.told[0].packets), (MAX_TOLD, 60));
        assert_eq!(refused.others + refused.told.iter().map(|to| to.packets).sum::<u64>(), 5000);
    }
}
