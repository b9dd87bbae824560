//! What the rules by domain name make of a guest's query, and of the answer that a resolver gave to it.
//!
//! An address is as good as its name only while the answer is fresh, and only if whoever serves the name may not lead the
//! guest where no rule does: into this host and its networks. The guest gets an answer of ours, with such addresses
//! alone, and nothing in it that another had the say of but these.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, RCODE};

use crate::dns::{self, CLASS_IN, Question, TYPE_A, TYPE_AAAA};
use crate::domain::HostName;
use crate::egress::{Egress, Target, Way, is_public};

/// The longest answer about addresses that is looked at: what is in it takes many times its length in memory.
pub const MAX_ANSWER: usize = 4096;
/// The most IPv4 addresses of one answer: with them it still has the length that every client takes over UDP.
pub const MAX_ADDRESSES: usize = 15;
/// The most IPv6 addresses, which are longer.
pub const MAX_IPV6_ADDRESSES: usize = 8;
/// The most names that may stand between a name and its addresses.
const MAX_ALIASES: usize = 16;
/// The longest that a guest is told to keep an answer for, in seconds, so that pins come free again.
pub const MAX_TTL: u32 = 3600;

/// Types whose answers hold addresses that would not be pinned: SVCB, HTTPS, ANY.
const TYPES_WITH_ADDRESSES: [u16; 3] = [64, 65, 255];

/// What is to be done with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It is passed on as it is.
    Anything,
    /// To this guest there is no such name.
    NoSuchName,
    /// The name exists, but nothing of this type.
    NoData,
    /// The question is passed on, and the answer is the guest's.
    Record,
    /// The question is passed on, and the answer is good for [`Egress::admitted`], with these rules.
    Addresses(Vec<Matched>),
}

/// A rule that stands for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched {
    way: usize,
    set: usize,
}

/// An address that is to be let through, and the set that lets the rule's packets through to it.
pub type Pin = (usize, IpAddr);

/// What a guest may have of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admitted {
    /// For how many seconds it is good.
    pub ttl: u32,
    /// What the guest is shown.
    pub addresses: Vec<IpAddr>,
    /// What must have been let through by then.
    pub pins: Vec<Pin>,
    /// How many addresses are kept from it.
    pub withheld: usize,
}

/// Why an answer is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is no such name.
    #[error("the name does not exist")]
    NoSuchName,
    /// The resolver failed.
    #[error("the resolver answered with code {0}")]
    Failed(u8),
    /// It is not to be read, or no answer to this.
    #[error("the answer cannot be read: {0}")]
    Unreadable(&'static str),
}

impl Egress {
    /// What is to be done with a guest's query.
    ///
    /// Names are free where no rule has a domain, or where a way leads to the whole internet; nothing would be gained by
    /// keeping them then. Otherwise only names that a rule stands for exist.
    #[must_use]
    pub fn asked(&self, query: &[u8]) -> Asked {
        let ruled = self.rules_by_domain().next().is_some();
        if self.leads_somewhere() && (!ruled || self.ways.iter().any(Way::is_the_internet)) {
            return Asked::Anything;
        }
        let Some(question) = Question::of_query(query).filter(|question| question.class == CLASS_IN) else {
            return Asked::NoSuchName;
        };
        let matched = self.matched(&question);
        match question.kind {
            _ if matched.is_empty() => Asked::NoSuchName,
            TYPE_A | TYPE_AAAA => Asked::Addresses(matched),
            kind if TYPES_WITH_ADDRESSES.contains(&kind) => Asked::NoData,
            _ => Asked::Record,
        }
    }

    fn matched(&self, question: &Question<'_>) -> Vec<Matched> {
        let Some(name) = HostName::from_labels(question.labels()) else { return Vec::new() };
        let sets = self.pinned_traffic();
        let rules = self.rules_by_domain().filter(|(_, domain, _)| domain.matches(&name));
        let matched = rules.filter_map(|(way, _, traffic)| {
            let set = sets.iter().position(|pinned| *pinned == traffic)?;
            Some(Matched { way, set })
        });
        matched.collect()
    }

    /// What a guest may have of a resolver's answer to its query, which these rules stand for. `hidden`: addresses that
    /// are this host's or a neighbour's though they are public.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn admitted(
        &self,
        query: &[u8],
        answer: &[u8],
        matched: &[Matched],
        hidden: impl Fn(IpAddr) -> bool,
    ) -> Result<Admitted, AnswerError> {
        let (ttl, found) = addresses(query, answer)?;
        let mut admitted = Admitted { ttl, ..Admitted::default() };
        let most = if found.iter().any(IpAddr::is_ipv6) { MAX_IPV6_ADDRESSES } else { MAX_ADDRESSES };
        for address in found.into_iter().take(most) {
            let pins = matched
                .iter()
                .filter(|rule| is_public(address) && self.ways[rule.way].routes.leads_to(address))
                .map(|rule| (rule.set, address));
            let before = admitted.pins.len();
            if !hidden(address) {
                admitted.pins.extend(pins);
            }
            if admitted.pins.len() > before || (!hidden(address) && self.lets_out_to(address)) {
                admitted.addresses.push(address);
            } else {
                admitted.withheld += 1;
            }
        }
        admitted.pins.sort_unstable();
        admitted.pins.dedup();
        Ok(admitted)
    }

    /// Whether something is let out to the address without regard to names.
    #[must_use]
    pub fn lets_out_to(&self, address: IpAddr) -> bool {
        let listed = |target: &Target| matches!(target, Target::Addresses(to) if to.contains(address));
        let lets_out = |way: &Way| {
            let allowed = way.allowed.as_ref();
            way.routes.leads_to(address)
                && allowed.is_none_or(|allowed| allowed.iter().any(|allowed| listed(&allowed.to)))
        };
        self.ways.iter().any(lets_out)
    }
}

/// Whether an answer to a guest's query has IPv6 addresses, none of which is any good to it. A program that heard of them
/// might try them before it tries IPv4, or instead.
#[must_use]
pub fn misleads(query: &[u8], answer: &[u8], is_good: impl Fn(IpAddr) -> bool) -> bool {
    let asks =
        Question::of_query(query).is_some_and(|asked| (asked.kind, asked.class) == (TYPE_AAAA, CLASS_IN));
    let found = if asks { addresses(query, answer).map(|(_, found)| found) } else { Ok(Vec::new()) };
    found.is_ok_and(|found| !found.is_empty() && !found.into_iter().any(is_good))
}

/// The addresses in an answer that are the asked name's, through other names if need be, each once; and for how long. They
/// are of the family that was asked for.
fn addresses(query: &[u8], answer: &[u8]) -> Result<(u32, Vec<IpAddr>), AnswerError> {
    let asked = Question::of_query(query).ok_or(AnswerError::Unreadable("no question"))?;
    if answer.len() > MAX_ANSWER {
        return Err(AnswerError::Unreadable("too long"));
    }
    if !dns::repeats(&asked, answer) {
        return Err(AnswerError::Unreadable("another question"));
    }
    let packet = Packet::parse(answer).map_err(|_| AnswerError::Unreadable("malformed"))?;
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Err(AnswerError::NoSuchName),
        _ => return Err(AnswerError::Failed(answer[3] & 0x0f)),
    }
    let question = packet.questions.first().ok_or(AnswerError::Unreadable("no question"))?;
    let (name, mut ttl) = end_of_aliases(&packet, &question.qname)?;
    let mut found = Vec::new();
    for record in &packet.answers {
        let address = match &record.rdata {
            RData::A(a) if asked.kind == TYPE_A => IpAddr::from(Ipv4Addr::from(a.address)),
            RData::AAAA(aaaa) if asked.kind == TYPE_AAAA => IpAddr::from(Ipv6Addr::from(aaaa.address)),
            _ => continue,
        };
        if record.class == CLASS::IN && record.name == *name {
            ttl = ttl.min(record.ttl);
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    Ok((ttl, found))
}

/// The last of the names that the asked one is an alias of, and for how long it is.
fn end_of_aliases<'a>(
    packet: &'a Packet<'a>,
    asked: &'a Name<'a>,
) -> Result<(&'a Name<'a>, u32), AnswerError> {
    let (mut name, mut ttl) = (asked, MAX_TTL);
    for _ in 0..=MAX_ALIASES {
        let alias = packet.answers.iter().find_map(|record| match &record.rdata {
            RData::CNAME(target) if record.name == *name => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, seconds)) = alias else { return Ok((name, ttl)) };
        (name, ttl) = (target, ttl.min(seconds));
    }
    Err(AnswerError::Unreadable("too many aliases"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME};

    use super::*;
    use crate::dns::tests::{query, query_for};
    use crate::egress::{Allowed, Destination, Routes, Traffic};

    fn rule(domain: &str, port: &str) -> Allowed {
        Allowed { to: Target::Domain(domain.parse().unwrap()), traffic: Traffic::Tcp(port.parse().unwrap()) }
    }

    fn to(range: &str) -> Allowed {
        let range: Destination = range.parse().unwrap();
        Allowed { to: range.into(), traffic: Traffic::Any }
    }

    fn egress(allowed: Vec<Allowed>) -> Egress {
        let mut routes = Routes::internet();
        routes.add("10.1.0.0/16".parse().unwrap()).unwrap();
        Egress { ways: vec![Way { routes, allowed: Some(allowed) }] }
    }

    enum R<'a> {
        Is(&'a str, &'a str),
        Alias(&'a str, &'a str),
    }

    fn answer(query: &[u8], records: &[R<'_>]) -> Vec<u8> {
        let mut packet = Packet::parse(query).unwrap().into_reply();
        for (record, ttl) in records.iter().zip(60..) {
            let (name, data) = match record {
                R::Is(name, address) => match address.parse().unwrap() {
                    IpAddr::V4(v4) => (name, RData::A(A { address: v4.into() })),
                    IpAddr::V6(v6) => (name, RData::AAAA(AAAA { address: v6.into() })),
                },
                R::Alias(name, target) => (name, RData::CNAME(CNAME(Name::new(target).unwrap()))),
            };
            packet.answers.push(ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, data));
        }
        packet.build_bytes_vec_compressed().unwrap()
    }

    fn admitted(egress: &Egress, name: &str, records: &[R<'_>]) -> Admitted {
        admitted_for(egress, &query(name), records)
    }

    fn admitted_for(egress: &Egress, query: &[u8], records: &[R<'_>]) -> Admitted {
        let Asked::Addresses(matched) = egress.asked(query) else { panic!("it does not exist") };
        egress.admitted(query, &answer(query, records), &matched, |_| false).unwrap()
    }

    fn texts(admitted: &Admitted) -> Vec<String> {
        admitted.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_names_that_a_rule_has_exist() {
        let egress = egress(vec![rule("pypi.org", "443"), rule("*.example.com", "80"), to("203.0.113.0/24")]);
        for name in ["pypi.org", "PYPI.org", "a.example.com", "a.b.example.com"] {
            assert!(matches!(egress.asked(&query(name)), Asked::Addresses(_)), "{name}");
        }
        for name in ["example.com", "x.pypi.org", "secret.attacker.net", "pypi.org.attacker.net"] {
            assert_eq!(egress.asked(&query(name)), Asked::NoSuchName, "{name}");
        }
        for (kind, asked) in
            [(64, Asked::NoData), (65, Asked::NoData), (255, Asked::NoData), (16, Asked::Record)]
        {
            assert_eq!(egress.asked(&query_for("pypi.org", kind)), asked);
            assert_eq!(egress.asked(&query_for("attacker.net", kind)), Asked::NoSuchName);
        }
        let mut chaos = query("pypi.org");
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(egress.asked(&chaos), Asked::NoSuchName);
        // A dot inside a label is no border between two.
        let mut forged = query("xx.pypi.org");
        forged[12] = 7;
        forged[13..20].copy_from_slice(b"xx.pypi");
        let forged = [&forged[..12], b"\x0ba.pypi.org.\0\0\x01\0\x01"].concat();
        assert_eq!(egress.asked(&forged), Asked::NoSuchName);
    }

    #[test]
    fn names_are_free_where_rules_have_none_or_the_internet_is_open() {
        let open = Way { routes: Routes::internet(), allowed: None };
        let mut ruled = egress(vec![rule("pypi.org", "443")]);
        assert_eq!(ruled.asked(&query("a.com")), Asked::NoSuchName);
        ruled.ways.push(open);
        assert_eq!(ruled.asked(&query("a.com")), Asked::Anything);
        assert_eq!(egress(vec![to("203.0.113.0/24")]).asked(&query("a.com")), Asked::Anything);
        assert_eq!(egress(vec![]).asked(&query("a.com")), Asked::NoSuchName);
        assert_eq!(Egress::default().asked(&query("a.com")), Asked::NoSuchName);
    }

    #[test]
    fn addresses_are_pinned_for_the_rules_that_have_the_name() {
        let egress = egress(vec![rule("a.com", "443"), rule("*.a.com", "443"), rule("www.a.com", "80")]);
        let found = admitted(&egress, "www.a.com", &[R::Is("WWW.a.com", "203.0.113.7")]);
        assert_eq!(texts(&found), ["203.0.113.7"]);
        let address = IpAddr::from([203, 0, 113, 7]);
        assert_eq!(found.pins, [(0, address), (1, address)]);
        assert_eq!(admitted(&egress, "a.com", &[R::Is("a.com", "203.0.113.7")]).pins, [(0, address)]);
        // Not those of other names that an answer brings along.
        let others = admitted(&egress, "a.com", &[R::Is("b.com", "203.0.113.9")]);
        assert_eq!((others.addresses, others.pins, others.withheld), (vec![], vec![], 0));
    }

    #[test]
    fn aliases_are_followed_within_the_answer() {
        let egress = egress(vec![rule("a.com", "443")]);
        let chain = [
            R::Is("cdn.net", "203.0.113.7"),
            R::Alias("b.net", "cdn.net"),
            R::Alias("a.com", "b.net"),
            R::Is("other.net", "203.0.113.8"),
        ];
        let found = admitted(&egress, "a.com", &chain);
        assert_eq!((texts(&found), found.ttl), (vec!["203.0.113.7".to_owned()], 60));
        let asked = query("a.com");
        let looped = answer(&asked, &[R::Alias("a.com", "b.com"), R::Alias("b.com", "a.com")]);
        assert!(egress.admitted(&asked, &looped, &[], |_| false).is_err());
    }

    #[test]
    fn no_answer_leads_into_private_networks_unless_a_rule_does() {
        let private = [
            "10.1.2.3",
            "10.2.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "224.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
        ];
        let records: Vec<R<'_>> = private.iter().map(|address| R::Is("a.com", address)).collect();
        let closed = egress(vec![rule("a.com", "443"), to("203.0.113.0/24")]);
        let found = admitted(&closed, "a.com", &records);
        assert_eq!((texts(&found).len(), found.pins.len(), found.withheld), (0, 0, private.len()));
        // The route and the rule have the say of what is let out to it then, not the name.
        let found = admitted(&egress(vec![rule("a.com", "443"), to("10.0.0.0/8")]), "a.com", &records);
        assert_eq!((texts(&found), found.pins), (vec!["10.1.2.3".to_owned()], vec![]));

        let asked = query("a.com");
        let (Asked::Addresses(matched), public) = (closed.asked(&asked), "203.0.113.7") else { panic!() };
        let answer = answer(&asked, &[R::Is("a.com", public)]);
        let found = closed.admitted(&asked, &answer, &matched, |address| address.to_string() == public);
        assert_eq!(texts(&found.unwrap()), [""; 0], "this host's own");
    }

    #[test]
    fn ipv6_addresses_are_pinned_and_withheld_alike() {
        let aaaa = |name: &str| query_for(name, TYPE_AAAA);
        let mut routes = Routes::internet();
        routes.add("fd12::/32".parse().unwrap()).unwrap();
        let allowed = vec![rule("a.com", "443"), to("fd12::/32")];
        let mut egress = Egress { ways: vec![Way { routes, allowed: Some(allowed) }] };
        let records = [
            "2a00::7",
            "203.0.113.7",
            "fd12::1",
            "fd13::1",
            "fe80::1",
            "::1",
            "::ffff:203.0.113.7",
            "64:ff9b::a00:1",
        ]
        .map(|address| R::Is("a.com", address));
        let found = admitted_for(&egress, &aaaa("a.com"), &records);
        assert_eq!((texts(&found), found.withheld), (vec!["2a00::7".to_owned(), "fd12::1".to_owned()], 5));
        assert_eq!(found.pins, [(0, "2a00::7".parse().unwrap())]);
        assert_eq!(texts(&admitted(&egress, "a.com", &records)), ["203.0.113.7"], "what was asked for");
        let many: Vec<String> = (1..=20).map(|n| format!("2a00::{n}")).collect();
        let many: Vec<R<'_>> = many.iter().map(|address| R::Is("a.com", address)).collect();
        assert_eq!(admitted_for(&egress, &aaaa("a.com"), &many).addresses.len(), MAX_IPV6_ADDRESSES);

        egress.ways[0].routes = egress.ways[0].routes.ipv4();
        let found = admitted_for(&egress, &aaaa("a.com"), &records);
        assert_eq!((texts(&found), found.pins), (vec![], vec![]), "no way leads there");
    }

    #[test]
    fn an_answer_misleads_that_has_nothing_good() {
        let aaaa = query_for("a.com", TYPE_AAAA);
        let good = |address: IpAddr| address.to_string() == "2a00::1";
        let with = |addresses: &[&str]| {
            let records: Vec<R<'_>> = addresses.iter().map(|address| R::Is("a.com", address)).collect();
            misleads(&aaaa, &answer(&aaaa, &records), good)
        };
        assert!(with(&["2a00::2"]) && with(&["2a00::2", "fd00::1"]));
        assert!(!with(&["2a00::2", "2a00::1"]) && !with(&[]) && !with(&["203.0.113.7"]));
        let a = query("a.com");
        assert!(!misleads(&a, &answer(&a, &[R::Is("a.com", "203.0.113.7")]), good), "of another type");
        assert!(!misleads(&aaaa, b"", good), "what cannot be read is not ours to judge");
    }

    #[test]
    fn what_answers_something_else_is_of_no_use() {
        let egress = egress(vec![rule("a.com", "443")]);
        let refused = |answer: &[u8]| egress.admitted(&query("a.com"), answer, &[], |_| false).unwrap_err();
        assert!(matches!(refused(&answer(&query("b.com"), &[])), AnswerError::Unreadable(_)));
        assert!(matches!(refused(&query("a.com")), AnswerError::Unreadable(_)));
        let mut whole = answer(&query("a.com"), &[]);
        whole[3] |= 3;
        assert_eq!(refused(&whole), AnswerError::NoSuchName);
        whole[3] ^= 3 ^ 5;
        assert_eq!(refused(&whole), AnswerError::Failed(5));
        assert!(matches!(refused(&[whole, vec![0; MAX_ANSWER]].concat()), AnswerError::Unreadable(_)));
    }

    proptest! {
        #[test]
        fn what_is_pinned_is_public_and_was_answered(
            addresses in proptest::collection::vec(any::<u32>(), 0..40),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let egress = egress(vec![rule("a.com", "443"), to("10.0.0.0/8")]);
            let asked = query("a.com");
            let Asked::Addresses(matched) = egress.asked(&asked) else { panic!() };
            let addresses: Vec<IpAddr> = addresses.into_iter().map(|a| Ipv4Addr::from(a).into()).collect();
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let records: Vec<R<'_>> = texts.iter().map(|text| R::Is("a.com", text)).collect();
            let mut reply = answer(&asked, &records);
            for (at, byte) in &damage {
                let at = at.index(reply.len());
                reply[at] = *byte;
            }
            if let Ok(found) = egress.admitted(&asked, &reply, &matched, |_| false) {
                prop_assert!(found.addresses.len() <= MAX_ADDRESSES && found.ttl <= MAX_TTL);
                for (set, address) in &found.pins {
                    prop_assert!(*set == 0 && is_public(*address) && found.addresses.contains(address));
                }
                if damage.is_empty() {
                    prop_assert!(found.addresses.iter().all(|a| addresses.contains(a)));
                }
            } else {
                prop_assert!(!damage.is_empty());
            }
        }
    }
}
