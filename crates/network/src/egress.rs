//! What the guest of one slot may reach, where that is not the managed network's public addresses.
//!
//! An [`Egress`] is the union of its [`Way`]s. A way leads to certain destinations, and may let only certain traffic
//! through to them. It has the last word: what none of the ways lets through is dropped.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::domain::Domain;
use crate::pins::MAX_PINS;

/// The sets of addresses that are not public, which each ruleset has.
pub(crate) const FORBIDDEN: &str = "forbidden";

/// Where a route may never lead, whoever asks for it: the host itself and what only it may talk to. Of IPv6 that is all but
/// the internet's addresses and private ones, and of the internet's those that stand for IPv4 ones or are for protocols.
const NEVER: [Destination; 15] = [
    Destination::v4([0, 0, 0, 0], 8),
    Destination::v4([127, 0, 0, 0], 8),
    Destination::v4([169, 254, 0, 0], 16),
    Destination::v4([224, 0, 0, 0], 4),
    Destination::v4([240, 0, 0, 0], 4),
    // With ::1, ::ffff:0:0/96 and NAT64's 64:ff9b::/96.
    Destination::v6([0, 0], 3),
    // With Teredo's.
    Destination::v6([0x2001, 0], 23),
    // 6to4.
    Destination::v6([0x2002, 0], 16),
    Destination::v6([0x4000, 0], 2),
    Destination::v6([0x8000, 0], 2),
    Destination::v6([0xc000, 0], 3),
    Destination::v6([0xe000, 0], 4),
    Destination::v6([0xf000, 0], 5),
    Destination::v6([0xf800, 0], 6),
    // Link-local and multicast.
    Destination::v6([0xfe00, 0], 7),
];
/// Ranges that are reached only where a route lies inside.
const PRIVATE: [Destination; 7] = [
    Destination::v4([10, 0, 0, 0], 8),
    Destination::v4([100, 64, 0, 0], 10),
    Destination::v4([172, 16, 0, 0], 12),
    Destination::v4([192, 168, 0, 0], 16),
    Destination::v6([0xfc00, 0], 7),
    // For documentation.
    Destination::v6([0x2001, 0x0db8], 32),
    Destination::v6([0x3fff, 0], 20),
];

/// Why a text does not say what may be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// Not addresses.
    #[error(
        "{0:?} is not a range of addresses: give one such as 10.1.0.0/16 or fd12:3456::/32, whose address is the first of \
         the range"
    )]
    Destination(String),
    /// Nobody's to route to.
    #[error(
        "{0} cannot be routed to: it holds addresses of the host itself, link-local, multicast or reserved ones, or such as \
         stand for IPv4 ones"
    )]
    Never(Destination),
    /// Would open private addresses without naming them.
    #[error(
        "{0} is neither inside one private range nor public: give the private ranges one by one, and 0.0.0.0/0 or ::/0 for \
         every public address"
    )]
    Straddles(Destination),
    /// Not names.
    #[error(
        "{0:?} is not a domain: give a name such as pypi.org, or *.example.com for every name below one, with letters, \
         digits, - and _ alone (others as xn--)"
    )]
    Domain(String),
    /// Not ports.
    #[error("{0:?} are not ports: give one such as 443, or a range such as 1000-2000")]
    Ports(String),
}

/// The two kinds of addresses, which rules and sets are about one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The header that rules look at.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    /// The type of its addresses in sets.
    pub(crate) fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    /// This family's set of those that have a name in common.
    pub(crate) fn set(self, name: &str) -> String {
        match self {
            Self::V4 => name.to_owned(),
            Self::V6 => format!("{name}_v6"),
        }
    }
}

/// Addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    base: IpAddr,
    prefix: u8,
}

impl Destination {
    /// Every IPv4 address.
    pub const IPV4: Self = Self::v4([0; 4], 0);
    /// Every IPv6 address.
    pub const IPV6: Self = Self::v6([0; 2], 0);

    const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Self {
        Self { base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    /// By the first 32 bits of its addresses.
    const fn v6([a, b]: [u16; 2], prefix: u8) -> Self {
        Self { base: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), prefix }
    }

    fn holds(self, other: Self) -> bool {
        self.family() == other.family()
            && self.prefix <= other.prefix
            && mask(self.prefix) & bits(other.base) == bits(self.base)
    }

    /// Whether the address lies inside.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        self.holds(Self { base: address, prefix: width(address) })
    }

    fn meets(self, other: Self) -> bool {
        self.holds(other) || other.holds(self)
    }

    fn family(self) -> Family {
        Family::of(self.base)
    }
}

/// An address's bits from the highest down.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Destination {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let parse = || {
            let (base, prefix) = text.split_once('/')?;
            let (base, prefix): (IpAddr, u8) = (base.parse().ok()?, prefix.parse().ok()?);
            (prefix <= width(base) && bits(base) & !mask(prefix) == 0).then_some(Self { base, prefix })
        };
        parse().ok_or_else(|| EgressError::Destination(text.to_owned()))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// Whether an address is anybody's on the internet, rather than of this host or of a private network.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    !NEVER.iter().chain(&PRIVATE).any(|range| range.contains(address))
}

/// All that [`is_public`] is false for.
pub(crate) fn not_public(family: Family) -> impl Iterator<Item = Destination> {
    NEVER.into_iter().chain(PRIVATE).filter(move |range| range.family() == family)
}

/// Where the host's own routing may take a guest's packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// Every public address, by IPv4 and by IPv6.
    internet: [bool; 2],
    listed: Vec<Destination>,
}

impl Routes {
    /// Every public address, as the managed network has it.
    #[must_use]
    pub fn internet() -> Self {
        Self { internet: [true; 2], listed: Vec::new() }
    }

    /// Adds a destination. 0.0.0.0/0 and ::/0 stand for every public address: a private one is reached only where a route
    /// lies inside its range.
    ///
    /// # Errors
    /// [`EgressError`] for what cannot be routed to.
    pub fn add(&mut self, route: Destination) -> Result<(), EgressError> {
        if route.prefix == 0 {
            self.internet[route.family() as usize] = true;
            return Ok(());
        }
        if NEVER.iter().any(|never| never.meets(route)) {
            return Err(EgressError::Never(route));
        }
        if PRIVATE.iter().any(|private| private.meets(route) && !private.holds(route)) {
            return Err(EgressError::Straddles(route));
        }
        self.listed.push(route);
        Ok(())
    }

    /// Those of IPv4.
    #[must_use]
    pub fn ipv4(&self) -> Self {
        Self { internet: [self.internet[0], false], listed: self.listed(Family::V4).collect() }
    }

    /// Whether any of them is one of IPv6.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        *self != self.ipv4()
    }

    /// Whether they lead to the address.
    #[must_use]
    pub fn leads_to(&self, address: IpAddr) -> bool {
        (self.has_internet(Family::of(address)) && is_public(address))
            || self.listed.iter().any(|range| range.contains(address))
    }

    /// Adds all of another's.
    pub fn extend(&mut self, other: &Self) {
        for family in Family::BOTH {
            self.internet[family as usize] |= other.has_internet(family);
        }
        self.listed.extend_from_slice(&other.listed);
    }

    fn has_internet(&self, family: Family) -> bool {
        self.internet[family as usize]
    }

    fn listed(&self, family: Family) -> impl Iterator<Item = Destination> {
        self.listed.iter().copied().filter(move |route| route.family() == family)
    }
}

/// Port numbers from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

impl Ports {
    /// All of them.
    pub const ALL: Self = Self(0..=u16::MAX);
}

impl FromStr for Ports {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let number =
            |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(EgressError::Ports(text.to_owned())),
        }
    }
}

/// A kind of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Traffic {
    /// Every protocol.
    Any,
    /// TCP to these ports.
    Tcp(Ports),
    /// UDP to these ports.
    Udp(Ports),
}

/// Whom something is let through to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Whoever has these addresses.
    Addresses(Destination),
    /// The public addresses that these names had when the guest last asked for them (see [`crate::names`]).
    Domain(Domain),
}

impl From<Destination> for Target {
    fn from(addresses: Destination) -> Self {
        Self::Addresses(addresses)
    }
}

/// What is let through, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The destinations.
    pub to: Target,
    /// The packets.
    pub traffic: Traffic,
}

/// One way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where it leads.
    pub routes: Routes,
    /// What is let through of that. None: everything; empty: nothing.
    pub allowed: Option<Vec<Allowed>>,
}

/// What a guest may reach: whatever one of its ways lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// The ways. None at all: the guest reaches nothing.
    pub ways: Vec<Way>,
}

impl Egress {
    /// Whether anything at all is let out.
    #[must_use]
    pub fn leads_somewhere(&self) -> bool {
        self.ways.iter().any(Way::leads_somewhere)
    }

    /// The sets of addresses that [`Egress::rules`] refers to: those that routes list, and those that hold what is pinned
    /// for each kind of packets in [`Egress::pinned_traffic`].
    pub(crate) fn sets(&self, prefix: &str) -> Vec<Set> {
        let listed = self.ways.iter().enumerate().flat_map(|(index, way)| {
            Family::BOTH.into_iter().filter_map(move |family| {
                let elements: Vec<String> =
                    way.routes.listed(family).map(|route| route.to_string()).collect();
                let kind = format!("type {}; flags interval; auto-merge;", family.address_type());
                let elements = elements.join(", ");
                (!elements.is_empty()).then(|| Set { name: way_set(prefix, index, family), kind, elements })
            })
        });
        let pins = (0..self.pinned_traffic().len()).flat_map(|set| {
            Family::BOTH.map(|family| Set {
                name: pin_set(prefix, set, family),
                // Twice over: an element that is put in again counts twice for a moment, and expired ones stay for a while.
                kind: format!("type {}; flags timeout; size {};", family.address_type(), 2 * MAX_PINS),
                elements: String::new(),
            })
        });
        listed.chain(pins).collect()
    }

    /// The kinds of packets that rules by domain let through, each once.
    pub(crate) fn pinned_traffic(&self) -> Vec<&Traffic> {
        let mut kinds = Vec::new();
        for (_, _, traffic) in self.rules_by_domain() {
            if !kinds.contains(&traffic) {
                kinds.push(traffic);
            }
        }
        kinds
    }

    /// Each with the index of its way.
    pub(crate) fn rules_by_domain(&self) -> impl Iterator<Item = (usize, &Domain, &Traffic)> {
        let of_way = |(index, way)| {
            let allowed: &[Allowed] = Way::allowed(way);
            allowed.iter().filter_map(move |Allowed { to, traffic }| match to {
                Target::Domain(domain) => Some((index, domain, traffic)),
                Target::Addresses(_) => None,
            })
        };
        self.ways.iter().enumerate().flat_map(of_way)
    }

    /// The rules that end in `verdict` for what is let through. They need the sets of what is [`FORBIDDEN`].
    pub(crate) fn rules(&self, prefix: &str, verdict: &str) -> Vec<String> {
        let mut rules = Vec::new();
        for (index, way) in self.ways.iter().enumerate() {
            for family in Family::BOTH {
                rules
                    .extend(way.matches(prefix, index, family).map(|matches| format!("{matches} {verdict}")));
            }
        }
        for (set, traffic) in self.pinned_traffic().into_iter().enumerate() {
            let matches = traffic.matches();
            for family in Family::BOTH {
                let (header, pins) = (family.header(), pin_set(prefix, set, family));
                rules.push(format!("{header} daddr @{pins}{matches} {verdict}"));
            }
            // What has been let through goes on when the name may have got other addresses.
            rules.push(format!("ct state established{matches} {verdict}"));
        }
        rules
    }
}

/// A set of a ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: String,
    /// What it is made of.
    pub(crate) kind: String,
    /// What it holds from the beginning.
    pub(crate) elements: String,
}

impl Way {
    fn allowed(&self) -> &[Allowed] {
        self.allowed.as_deref().unwrap_or_default()
    }

    /// Of either family: there is a way for what a name could tell then.
    pub(crate) fn is_the_internet(&self) -> bool {
        self.routes.internet != [false; 2] && self.allowed.is_none()
    }

    fn leads_somewhere(&self) -> bool {
        let routed = self.routes != Routes::default();
        routed && self.allowed.as_ref().is_none_or(|allowed| !allowed.is_empty())
    }

    /// What tells the packets of a family that this way lets through.
    fn matches(&self, prefix: &str, index: usize, family: Family) -> impl Iterator<Item = String> {
        let header = family.header();
        let listed = self.routes.listed(family).next();
        let listed = listed.map(|_| format!("{header} daddr @{}", way_set(prefix, index, family)));
        let internet = self.routes.has_internet(family);
        let internet = internet.then(|| format!("{header} daddr != @{}", family.set(FORBIDDEN)));
        let allowed: Vec<String> = match &self.allowed {
            None => vec![String::new()],
            Some(allowed) => allowed.iter().filter_map(|allowed| allowed.matches(family)).collect(),
        };
        listed.into_iter().chain(internet).flat_map(move |destination| {
            allowed.clone().into_iter().map(move |matches| format!("{destination}{matches}"))
        })
    }
}

impl Allowed {
    /// None: it is about the other family, or about names, which have sets for their addresses.
    fn matches(&self, family: Family) -> Option<String> {
        let Target::Addresses(addresses) = &self.to else { return None };
        let to = match addresses {
            addresses if addresses.family() != family => return None,
            Destination { prefix: 0, .. } => String::new(),
            addresses => format!(" {} daddr {addresses}", family.header()),
        };
        Some(to + &self.traffic.matches())
    }
}

impl Traffic {
    fn matches(&self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Tcp(ports) => format!(" {}", ports.matches("tcp")),
            Self::Udp(ports) => format!(" {}", ports.matches("udp")),
        }
    }
}

impl Ports {
    fn matches(&self, protocol: &str) -> String {
        if *self == Self::ALL {
            return format!("meta l4proto {protocol}");
        }
        format!("{protocol} dport {}-{}", self.0.start(), self.0.end())
    }
}

fn way_set(prefix: &str, index: usize, family: Family) -> String {
    family.set(&format!("{prefix}_way{index}"))
}

/// The set with the addresses of a family that are pinned for one of the kinds of packets.
pub(crate) fn pin_set(prefix: &str, set: usize, family: Family) -> String {
    family.set(&format!("{prefix}_pins{set}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Destination {
        text.parse().unwrap()
    }

    #[test]
    fn a_destination_is_written_with_its_first_address() {
        for text in [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.2.3/32",
            "192.168.7.0/24",
            "::/0",
            "fd12:3456::/32",
            "2a00::1/128",
        ] {
            assert_eq!(destination(text).to_string(), text);
        }
        for bad in [
            "10.0.0.1/8",
            "10.0.0.0",
            "10.0.0.0/33",
            "x/8",
            "10.0.0.0/8 drop",
            "128.0.0.0/0",
            "fd00::1/64",
            "fd00::/129",
            "fe80::%1/64",
        ] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }

    #[test]
    fn private_addresses_are_reached_only_by_being_listed() {
        let mut routes = Routes::default();
        for route in ["10.1.0.0/16", "100.64.0.0/10", "192.168.7.2/32", "203.0.113.0/24"] {
            routes.add(destination(route)).unwrap();
        }
        assert_eq!((routes.internet, routes.listed.len()), ([false, false], 4));
        routes.add(Destination::IPV4).unwrap();
        assert_eq!((routes.internet, routes.listed.len(), routes.has_ipv6()), ([true, false], 4, false));
        let ipv4 = routes.clone();
        for route in ["::/0", "fd12:3456::/32", "2a00:1::/32", "2001:db8::/32"] {
            routes.add(destination(route)).unwrap();
        }
        assert_eq!((routes.internet, routes.listed.len(), routes.has_ipv6()), ([true; 2], 7, true));
        assert_eq!(routes.ipv4(), ipv4);
        for route in ["8.0.0.0/6", "192.0.0.0/8", "100.0.0.0/8", "172.0.0.0/8", "2001:800::/21", "3000::/4"] {
            assert_eq!(
                routes.add(destination(route)),
                Err(EgressError::Straddles(destination(route))),
                "{route}"
            );
        }
        for route in [
            "127.0.0.1/32",
            "169.254.169.254/32",
            "0.0.0.0/1",
            "224.0.0.0/3",
            "255.255.255.255/32",
            "::1/128",
            "::ffff:10.0.0.0/104",
            "64:ff9b::/96",
            "2002:a00::/24",
            "2001::/16",
            "fe80::/64",
            "fec0::/10",
            "ff02::1/128",
            "2000::/3",
            "f000::/4",
        ] {
            assert_eq!(
                routes.add(destination(route)),
                Err(EgressError::Never(destination(route))),
                "{route}"
            );
        }
    }

    #[test]
    fn public_addresses_are_those_of_the_internet() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for address in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.72.0.1",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "0.0.0.0",
            "::",
            "::1",
            "::10.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "100::1",
            "2001::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "3fff:fff::1",
            "4000::1",
            "9000::1",
            "c000::1",
            "e000::1",
            "f000::1",
            "f800::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(!public(address), "{address}");
        }
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "2000::1",
            "2001:200::1",
            "2001:db7::1",
            "2001:db9::1",
            "2003::1",
            "2a00::1",
            "3fff:1000::1",
        ] {
            assert!(public(address), "{address}");
        }
    }

    #[test]
    fn ports_are_one_or_a_range() {
        assert_eq!("443".parse(), Ok(Ports(443..=443)));
        assert_eq!("1000-2000".parse(), Ok(Ports(1000..=2000)));
        for bad in ["", "-", "2000-1000", "+1", "65536", "1-2-3", "http"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rules_by_domain_have_a_set_for_each_kind_of_packets() {
        let rule = |domain: &str, traffic: &Traffic| Allowed {
            to: Target::Domain(domain.parse().unwrap()),
            traffic: traffic.clone(),
        };
        let (web, any) = (Traffic::Tcp("443".parse().unwrap()), Traffic::Any);
        let group = vec![rule("a.com", &web), rule("*.a.com", &web), rule("b.com", &any)];
        let egress = Egress { ways: vec![Way { routes: Routes::internet(), allowed: Some(group) }] };
        let sets = egress.sets("s");
        let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["s_pins0", "s_pins0_v6", "s_pins1", "s_pins1_v6"]);
        assert_eq!(sets[1].kind, "type ipv6_addr; flags timeout; size 4096;");
        assert_eq!(
            egress.rules("s", "accept"),
            [
                "ip daddr @s_pins0 tcp dport 443-443 accept",
                "ip6 daddr @s_pins0_v6 tcp dport 443-443 accept",
                "ct state established tcp dport 443-443 accept",
                "ip daddr @s_pins1 accept",
                "ip6 daddr @s_pins1_v6 accept",
                "ct state established accept",
            ]
        );
    }

    #[test]
    fn the_rules_say_what_is_let_through() {
        let mut routes = Routes::default();
        for route in ["0.0.0.0/0", "10.1.0.0/16", "fd12::/32", "fd13::/32"] {
            routes.add(destination(route)).unwrap();
        }
        let group = vec![
            Allowed { to: destination("10.1.2.0/24").into(), traffic: Traffic::Tcp("443".parse().unwrap()) },
            Allowed { to: Destination::IPV4.into(), traffic: Traffic::Udp(Ports::ALL) },
            Allowed { to: Destination::IPV6.into(), traffic: Traffic::Any },
        ];
        let egress = Egress {
            ways: vec![
                Way { routes: Routes::internet(), allowed: None },
                Way { routes, allowed: Some(group) },
                Way { routes: Routes::internet(), allowed: Some(vec![]) },
            ],
        };
        let set = |name: &str, kind: &str, elements: &str| Set {
            name: name.to_owned(),
            kind: format!("type {kind}; flags interval; auto-merge;"),
            elements: elements.to_owned(),
        };
        assert_eq!(
            egress.sets("s"),
            [
                set("s_way1", "ipv4_addr", "10.1.0.0/16"),
                set("s_way1_v6", "ipv6_addr", "fd12::/32, fd13::/32")
            ]
        );
        assert_eq!(
            egress.rules("s", "accept"),
            [
                "ip daddr != @forbidden accept",
                "ip6 daddr != @forbidden_v6 accept",
                "ip daddr @s_way1 ip daddr 10.1.2.0/24 tcp dport 443-443 accept",
                "ip daddr @s_way1 meta l4proto udp accept",
                "ip daddr != @forbidden ip daddr 10.1.2.0/24 tcp dport 443-443 accept",
                "ip daddr != @forbidden meta l4proto udp accept",
                "ip6 daddr @s_way1_v6 accept",
            ]
        );
        assert!(Egress::default().sets("s").is_empty());
        assert!(Egress::default().rules("s", "accept").is_empty());
        assert!(egress.leads_somewhere());
        let closed = [
            Way { routes: Routes::internet(), allowed: Some(vec![]) },
            Way { routes: Routes::default(), allowed: None },
        ];
        assert!(!Egress { ways: closed.to_vec() }.leads_somewhere());
    }
}
