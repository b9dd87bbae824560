//! Addresses and user ids for this server's network slots that no other server on the host uses.
//!
//! Unless they are configured, the data directory's tag chooses one of 256 ranges, and the next ones where that is
//! taken. The choice is kept: the slots of MicroVMs that outlive a server must fit the next one.

use std::net::Ipv4Addr;

use network::endpoint::Endpoints;
use network::{Cidr, InstanceTag, NetworkConfig, OpenError, Pool};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::files::{self, FileError, PUBLIC};

/// 100.64.0.0/10, the shared address space, in pieces of a /18.
const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const PREFIX: u32 = 18;
const RANGES: u32 = 1 << (PREFIX - 10);
/// Slots in a range, of four addresses each, and so user ids.
const SLOTS: u32 = 1 << (32 - PREFIX - 2);
const FIRST_UID: u32 = 200_000;

/// Why there is no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RangeError {
    /// The host cannot be set up, or the configured range is in use.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Other interfaces have addresses in every range.
    #[error(
        "this host's interfaces have addresses in every part of 100.64.0.0/10; set slot_cidr in the settings"
    )]
    AllInUse,
    /// The choice cannot be read or kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Addresses, and the user ids that go with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Range {
    #[serde(serialize_with = "write_cidr", deserialize_with = "read_cidr")]
    slot_cidr: Cidr,
    first_uid: u32,
}

impl Range {
    fn nth(index: u32) -> Self {
        let index = index % RANGES;
        let base = Ipv4Addr::from(u32::from(FIRST) + (index << (32 - PREFIX)));
        let slot_cidr = format!("{base}/{PREFIX}").parse().expect("a multiple of its size begins a range");
        Self { slot_cidr, first_uid: FIRST_UID + index * SLOTS }
    }
}

/// Opens the slot pool in the first range that nobody else uses. `endpoints` takes the listeners of the slots, if they are to
/// have any.
pub(crate) fn open_pool(
    config: &Config,
    data: &DataDir,
    endpoints: Option<&Endpoints>,
) -> Result<Pool, RangeError> {
    let kept: Option<Range> =
        files::read(&data.range_file())?.and_then(|kept| serde_json::from_slice(&kept).ok());
    for range in candidates(config, &data.tag(), kept) {
        let settings = NetworkConfig {
            slot_cidr: range.slot_cidr,
            max_slots: config.max_slots,
            ready: config.ready_slots,
            endpoints: endpoints.cloned(),
            ..NetworkConfig::new(data.tag(), range.first_uid)
        };
        match Pool::open(settings) {
            Err(error @ OpenError::RangeInUse { .. }) if config.slot_cidr.is_none() => {
                tracing::info!("{error}; trying the next");
            }
            opened => {
                let pool = opened?;
                if kept != Some(range) {
                    files::write_json(&data.range_file(), &range, PUBLIC)?;
                }
                return Ok(pool);
            }
        }
    }
    Err(RangeError::AllInUse)
}

/// The ranges to try, best first, with what is configured in place of what is chosen.
fn candidates(config: &Config, tag: &InstanceTag, kept: Option<Range>) -> Vec<Range> {
    // A tag is hexadecimal by its own rules.
    let wish = u32::from_str_radix(tag.as_str(), 16).unwrap_or_default();
    let mut chosen: Vec<Range> =
        kept.into_iter().chain((0..RANGES).map(|step| Range::nth(wish.wrapping_add(step)))).collect();
    if let Some(slot_cidr) = config.slot_cidr {
        chosen.truncate(1);
        chosen[0].slot_cidr = slot_cidr;
    }
    for range in &mut chosen {
        range.first_uid = config.first_uid.unwrap_or(range.first_uid);
    }
    chosen
}

fn write_cidr<S: Serializer>(cidr: &Cidr, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(cidr)
}

fn read_cidr<'de, D: Deserializer<'de>>(from: D) -> Result<Cidr, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> InstanceTag {
        text.parse().unwrap()
    }

    #[test]
    fn every_range_is_tried_once_from_the_tags_own_on() {
        let ranges = candidates(&Config::default(), &tag("ff"), None);
        assert_eq!(ranges.len(), 256);
        assert_eq!(ranges[0].slot_cidr.to_string(), "100.127.192.0/18");
        assert_eq!(ranges[1], Range { slot_cidr: "100.64.0.0/18".parse().unwrap(), first_uid: 200_000 });
        assert_eq!(ranges[2], Range { slot_cidr: "100.64.64.0/18".parse().unwrap(), first_uid: 204_096 });
    }

    #[test]
    fn different_tags_mostly_begin_elsewhere() {
        let first = |text| candidates(&Config::default(), &tag(text), None)[0];
        assert_ne!(first("811c9dc5"), first("0a0b0c0d"));
    }

    #[test]
    fn an_earlier_choice_comes_first() {
        let kept = Range::nth(7);
        assert_eq!(candidates(&Config::default(), &tag("00"), Some(kept))[0], kept);
        let text = serde_json::to_string(&kept).unwrap();
        assert_eq!(serde_json::from_str::<Range>(&text).unwrap(), kept);
    }

    #[test]
    fn what_is_configured_is_the_only_choice() {
        let expected = Range { slot_cidr: "10.9.0.0/16".parse().unwrap(), first_uid: 5000 };
        let config = Config {
            slot_cidr: Some(expected.slot_cidr),
            first_uid: Some(expected.first_uid),
            ..Config::default()
        };
        assert_eq!(candidates(&config, &tag("00"), Some(Range::nth(7))), [expected]);
    }
}
