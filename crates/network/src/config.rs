//! What a pool is told: whose it is, which addresses it may use, and how many slots it may make.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::endpoint::Endpoints;

/// Addresses each slot takes from the slot range: a /30.
pub(crate) const ADDRESSES_PER_SLOT: u32 = 4;
/// `rk` + tag + `-` + index must fit the kernel's 15 characters of an interface name.
const MAX_TAG_CHARS: usize = 8;
const MAX_SLOTS: u32 = 10_000;
const DEFAULT_MAX_SLOTS: u32 = 1024;
const DEFAULT_READY: usize = 4;
/// Programs keep what they resolved for a while whatever its time to live, which is a few seconds for much of the internet.
const DEFAULT_MIN_PIN: Duration = Duration::from_secs(60);
const DEFAULT_SLOT_CIDR: Cidr = Cidr { base: Ipv4Addr::new(100, 72, 0, 0), prefix: 16 };

/// What is wrong with a setting.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a tag.
    #[error("instance tag {0:?} cannot name interfaces: give 1 to 8 lower-case hexadecimal digits")]
    Tag(String),
    /// Not a range.
    #[error("{0:?} is not a usable IPv4 range: give one such as 100.72.0.0/16, with a prefix from 8 to 28")]
    Cidr(String),
}

/// Tells the slots of one server from those of others on the same host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceTag(String);

impl InstanceTag {
    /// The tag of the server which keeps its data there: the same path always gives the same tag.
    pub fn of_data_dir(dir: &Path) -> Self {
        let path = dir.as_os_str().as_encoded_bytes();
        // FNV-1a: it need only be stable and well spread.
        let hash = path
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        Self(format!("{hash:08x}"))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceTag {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if (1..=MAX_TAG_CHARS).contains(&text.len()) && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ConfigError::Tag(text.to_owned()))
        }
    }
}

impl fmt::Display for InstanceTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An IPv4 range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// How many slots fit.
    pub(crate) fn slots(self) -> u32 {
        (1 << (32 - self.prefix)) / ADDRESSES_PER_SLOT
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// The address so many steps into the range.
    pub(crate) fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + offset)
    }

    /// Whether the address lies inside.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - self.prefix);
        u32::from(address) & mask == u32::from(self.base)
    }
}

impl FromStr for Cidr {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let parse = || {
            let (base, prefix) = text.split_once('/')?;
            let cidr = Self { base: base.parse().ok()?, prefix: prefix.parse().ok()? };
            ((8..=28).contains(&cidr.prefix) && cidr.contains(cidr.base)).then_some(cidr)
        };
        parse().ok_or_else(|| ConfigError::Cidr(text.to_owned()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// Settings of a [`Pool`](crate::Pool).
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Whose slots these are.
    pub instance: InstanceTag,
    /// Where the slots' uplink addresses come from; no other interface of the host may use it.
    pub slot_cidr: Cidr,
    /// The most slots to have at once, those kept ready included.
    pub max_slots: u32,
    /// Slots kept ready for the next acquisitions.
    pub ready: usize,
    /// The user of the first slot's VMM; every further slot has the next one, so that no VMM can touch another.
    pub first_uid: u32,
    /// For how long at least an address stays let through after an answer of its name had it.
    pub min_pin: Duration,
    /// Who answers guests at [`endpoint::ADDRESS`](crate::endpoint::ADDRESS). Default: nobody, and it is shut.
    pub endpoints: Option<Endpoints>,
}

impl NetworkConfig {
    /// The defaults: 100.72.0.0/16, at most 1024 slots, four of them ready.
    pub fn new(instance: InstanceTag, first_uid: u32) -> Self {
        Self {
            instance,
            slot_cidr: DEFAULT_SLOT_CIDR,
            max_slots: DEFAULT_MAX_SLOTS,
            ready: DEFAULT_READY,
            first_uid,
            min_pin: DEFAULT_MIN_PIN,
            endpoints: None,
        }
    }

    pub(crate) fn has_endpoints(&self) -> bool {
        self.endpoints.is_some()
    }

    /// Slots which both the setting and the names and addresses allow.
    pub(crate) fn capacity(&self) -> u32 {
        self.max_slots.min(self.slot_cidr.slots()).min(MAX_SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_stable_and_short() {
        let tag = InstanceTag::of_data_dir(Path::new("/var/lib/rekindle"));
        assert_eq!(tag, InstanceTag::of_data_dir(Path::new("/var/lib/rekindle")));
        assert_ne!(tag, InstanceTag::of_data_dir(Path::new("/var/lib/rekindle2")));
        assert_eq!(tag.as_str().parse::<InstanceTag>().unwrap(), tag);
        assert!("".parse::<InstanceTag>().is_err());
        assert!("123456789".parse::<InstanceTag>().is_err());
        assert!("a;b".parse::<InstanceTag>().is_err());
    }

    #[test]
    fn a_range_is_checked_and_counted() {
        let cidr: Cidr = "100.72.0.0/16".parse().unwrap();
        assert_eq!(cidr, DEFAULT_SLOT_CIDR);
        assert_eq!(cidr.slots(), 16384);
        assert!(cidr.contains(Ipv4Addr::new(100, 72, 255, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(100, 73, 0, 0)));
        for bad in ["100.72.0.1/16", "100.72.0.0", "100.72.0.0/31", "0.0.0.0/0", "x/16", "100.72.0.0/16 drop"]
        {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn capacity_is_the_smallest_limit() {
        let mut config = NetworkConfig::new("ab".parse().unwrap(), 1000);
        assert_eq!(config.capacity(), 1024);
        config.slot_cidr = "100.72.0.0/28".parse().unwrap();
        assert_eq!(config.capacity(), 4);
    }
}
