//! What the guest of one slot may reach, where that is not the managed network's public addresses.
//!
//! An [`Egress`] is the union of its [`Way`]s. A way leads to certain destinations, and may let only certain traffic
//! through to them. It has the last word: what none of the ways lets through is dropped.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::domain::Domain;
use crate::pins::MAX_PINS;

/// Where a route may never lead, whoever asks for it: the host itself and what only it may talk to.
const NEVER: [Destination; 5] = [
    Destination::new(Ipv4Addr::new(0, 0, 0, 0), 8),
    Destination::new(Ipv4Addr::new(127, 0, 0, 0), 8),
    Destination::new(Ipv4Addr::new(169, 254, 0, 0), 16),
    Destination::new(Ipv4Addr::new(224, 0, 0, 0), 4),
    Destination::new(Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// Ranges that are reached only where a route lies inside.
const PRIVATE: [Destination; 4] = [
    Destination::new(Ipv4Addr::new(10, 0, 0, 0), 8),
    Destination::new(Ipv4Addr::new(100, 64, 0, 0), 10),
    Destination::new(Ipv4Addr::new(172, 16, 0, 0), 12),
    Destination::new(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// Why a text does not say what may be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// Not addresses.
    #[error(
        "{0:?} is not an IPv4 range: give one such as 10.1.0.0/16, whose address is the first of the range"
    )]
    Destination(String),
    /// Nobody's to route to.
    #[error(
        "{0} cannot be routed to: it holds addresses of the host itself, link-local, multicast or reserved ones"
    )]
    Never(Destination),
    /// Would open private addresses without naming them.
    #[error(
        "{0} is neither inside one private range nor public: give the private ranges one by one, and 0.0.0.0/0 for \
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

/// IPv4 addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    base: Ipv4Addr,
    prefix: u8,
}

impl Destination {
    /// Every address.
    pub const EVERYWHERE: Self = Self::new(Ipv4Addr::UNSPECIFIED, 0);

    const fn new(base: Ipv4Addr, prefix: u8) -> Self {
        Self { base, prefix }
    }

    fn holds(self, other: Self) -> bool {
        self.prefix <= other.prefix && mask(self.prefix) & u32::from(other.base) == u32::from(self.base)
    }

    /// Whether the address lies inside.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.holds(Self::new(address, 32))
    }

    fn meets(self, other: Self) -> bool {
        self.holds(other) || other.holds(self)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Destination {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let parse = || {
            let (base, prefix) = text.split_once('/')?;
            let (base, prefix): (Ipv4Addr, u8) = (base.parse().ok()?, prefix.parse().ok()?);
            (prefix <= 32 && u32::from(base) & !mask(prefix) == 0).then_some(Self { base, prefix })
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
pub fn is_public(address: Ipv4Addr) -> bool {
    !NEVER.iter().chain(&PRIVATE).any(|range| range.contains(address))
}

/// Where the host's own routing may take a guest's packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    pub(crate) internet: bool,
    pub(crate) listed: Vec<Destination>,
}

impl Routes {
    /// Every public address, as the managed network has it.
    #[must_use]
    pub fn internet() -> Self {
        Self { internet: true, listed: Vec::new() }
    }

    /// Adds a destination. 0.0.0.0/0 stands for every public address: a private one is reached only where a route
    /// lies inside its range.
    ///
    /// # Errors
    /// [`EgressError`] for what cannot be routed to.
    pub fn add(&mut self, route: Destination) -> Result<(), EgressError> {
        if route == Destination::EVERYWHERE {
            self.internet = true;
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

    /// Whether they lead to the address.
    #[must_use]
    pub fn leads_to(&self, address: Ipv4Addr) -> bool {
        (self.internet && is_public(address)) || self.listed.iter().any(|range| range.contains(address))
    }

    /// Adds all of another's.
    pub fn extend(&mut self, other: &Self) {
        self.internet |= other.internet;
        self.listed.extend_from_slice(&other.listed);
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

    /// The sets of addresses that [`Egress::rules`] refers to, by name and content.
    pub(crate) fn sets(&self, prefix: &str) -> Vec<(String, String)> {
        let listed = |(index, way): (usize, &Way)| {
            let destinations: Vec<String> = way.routes.listed.iter().map(ToString::to_string).collect();
            (!destinations.is_empty()).then(|| (set_name(prefix, index), destinations.join(", ")))
        };
        self.ways.iter().enumerate().filter_map(listed).collect()
    }

    /// The sets that hold what is pinned for each kind of packets in [`Egress::pinned_traffic`]: their names, and what
    /// they are.
    pub(crate) fn pin_sets(&self, prefix: &str) -> Vec<(String, String)> {
        // Twice over: an element that is put in again counts twice for a moment, and expired ones stay for a while.
        let kind = format!("type ipv4_addr; flags timeout; size {};", 2 * MAX_PINS);
        (0..self.pinned_traffic().len()).map(|set| (pin_set(prefix, set), kind.clone())).collect()
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

    /// The rules that end in `verdict` for what is let through. They need a set `forbidden`.
    pub(crate) fn rules(&self, prefix: &str, verdict: &str) -> Vec<String> {
        let mut rules = Vec::new();
        for (index, way) in self.ways.iter().enumerate() {
            let listed =
                (!way.routes.listed.is_empty()).then(|| format!("ip daddr @{}", set_name(prefix, index)));
            let internet = way.routes.internet.then(|| "ip daddr != @forbidden".to_owned());
            for destination in listed.into_iter().chain(internet) {
                match &way.allowed {
                    None => rules.push(format!("{destination} {verdict}")),
                    Some(allowed) => rules.extend(
                        allowed
                            .iter()
                            .filter_map(Allowed::matches)
                            .map(|matches| format!("{destination}{matches} {verdict}")),
                    ),
                }
            }
        }
        for (set, traffic) in self.pinned_traffic().into_iter().enumerate() {
            let matches = traffic.matches();
            rules.push(format!("ip daddr @{}{matches} {verdict}", pin_set(prefix, set)));
            // What has been let through goes on when the name may have got other addresses.
            rules.push(format!("ct state established{matches} {verdict}"));
        }
        rules
    }
}

impl Way {
    fn allowed(&self) -> &[Allowed] {
        self.allowed.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_the_internet(&self) -> bool {
        self.routes.internet && self.allowed.is_none()
    }

    fn leads_somewhere(&self) -> bool {
        let routed = self.routes.internet || !self.routes.listed.is_empty();
        routed && self.allowed.as_ref().is_none_or(|allowed| !allowed.is_empty())
    }
}

impl Allowed {
    /// None: it is about names, which have a set for their addresses.
    fn matches(&self) -> Option<String> {
        let to = match &self.to {
            Target::Addresses(Destination::EVERYWHERE) => String::new(),
            Target::Addresses(addresses) => format!(" ip daddr {addresses}"),
            Target::Domain(_) => return None,
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

fn set_name(prefix: &str, index: usize) -> String {
    format!("{prefix}_way{index}")
}

/// The set with the addresses that are pinned for one of the kinds of packets.
pub(crate) fn pin_set(prefix: &str, set: usize) -> String {
    format!("{prefix}_pins{set}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Destination {
        text.parse().unwrap()
    }

    #[test]
    fn a_destination_is_written_with_its_first_address() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "192.168.7.0/24"] {
            assert_eq!(destination(text).to_string(), text);
        }
        for bad in ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/8 drop", "::/0", "128.0.0.0/0"]
        {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }

    #[test]
    fn private_addresses_are_reached_only_by_being_listed() {
        let mut routes = Routes::default();
        for route in ["10.1.0.0/16", "100.64.0.0/10", "192.168.7.2/32", "203.0.113.0/24"] {
            routes.add(destination(route)).unwrap();
        }
        assert!(!routes.internet && routes.listed.len() == 4);
        routes.add(Destination::EVERYWHERE).unwrap();
        assert!(routes.internet && routes.listed.len() == 4);
        for route in ["8.0.0.0/6", "192.0.0.0/8", "100.0.0.0/8", "172.0.0.0/8"] {
            assert_eq!(
                routes.add(destination(route)),
                Err(EgressError::Straddles(destination(route))),
                "{route}"
            );
        }
        for route in ["127.0.0.1/32", "169.254.169.254/32", "0.0.0.0/1", "224.0.0.0/3", "255.255.255.255/32"]
        {
            assert_eq!(
                routes.add(destination(route)),
                Err(EgressError::Never(destination(route))),
                "{route}"
            );
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
        let names: Vec<String> = egress.pin_sets("s").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["s_pins0", "s_pins1"]);
        assert_eq!(
            egress.rules("s", "accept"),
            [
                "ip daddr @s_pins0 tcp dport 443-443 accept",
                "ct state established tcp dport 443-443 accept",
                "ip daddr @s_pins1 accept",
                "ct state established accept",
            ]
        );
    }

    #[test]
    fn the_rules_say_what_is_let_through() {
        let mut routes = Routes::internet();
        routes.add(destination("10.1.0.0/16")).unwrap();
        let group = vec![
            Allowed { to: destination("10.1.2.0/24").into(), traffic: Traffic::Tcp("443".parse().unwrap()) },
            Allowed { to: Destination::EVERYWHERE.into(), traffic: Traffic::Udp(Ports::ALL) },
        ];
        let egress = Egress {
            ways: vec![
                Way { routes: Routes::internet(), allowed: None },
                Way { routes, allowed: Some(group) },
                Way { routes: Routes::internet(), allowed: Some(vec![]) },
            ],
        };
        assert_eq!(egress.sets("s"), [("s_way1".to_owned(), "10.1.0.0/16".to_owned())]);
        assert_eq!(
            egress.rules("s", "accept"),
            [
                "ip daddr != @forbidden accept",
                "ip daddr @s_way1 ip daddr 10.1.2.0/24 tcp dport 443-443 accept",
                "ip daddr @s_way1 meta l4proto udp accept",
                "ip daddr != @forbidden ip daddr 10.1.2.0/24 tcp dport 443-443 accept",
                "ip daddr != @forbidden meta l4proto udp accept",
            ]
        );
        assert!(egress.pin_sets("s").is_empty());
        assert!(Egress::default().rules("s", "accept").is_empty());
        assert!(egress.leads_somewhere());
        let closed = [
            Way { routes: Routes::internet(), allowed: Some(vec![]) },
            Way { routes: Routes::default(), allowed: None },
        ];
        assert!(!Egress { ways: closed.to_vec() }.leads_somewhere());
    }
}
