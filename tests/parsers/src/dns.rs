//! A guest's query for a name, and a name server's answer to it, which may be in league.

use network::Egress;
use network::dns::{self, Question};
use network::egress::{Allowed, Destination, Routes, Target, Traffic, Way, is_public};
use network::names::{Asked, MAX_ADDRESSES, MAX_TTL};

/// Two bytes of length, as many of a query, and the rest of an answer.
pub(crate) fn dns(bytes: &[u8]) {
    let Some((&[high, low], rest)) = bytes.split_first_chunk() else { return };
    let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
    let (query, answer) = rest.split_at(length);
    let question = Question::of_query(query);
    for own in [dns::no_such_name(query), dns::no_data(query), dns::server_failure(query)] {
        assert_eq!(own.is_some(), question.is_some());
    }
    let Some(question) = question else { return };
    let own = dns::only_the_question(query).unwrap();
    assert_eq!(Question::of_query(&own), Some(question), "what resolvers hear");
    assert!(question.labels().count() < query.len());

    let egress = egress();
    let asked = egress.asked(query);
    assert_ne!(asked, Asked::Anything, "names are ruled");
    let Asked::Addresses(matched) = asked else { return };
    let Ok(admitted) = egress.admitted(query, answer, &matched, |_| false) else { return };
    assert!(admitted.addresses.len() <= MAX_ADDRESSES && admitted.ttl <= MAX_TTL);
    for (_, address) in &admitted.pins {
        assert!(is_public(*address) && admitted.addresses.contains(address));
    }
    for address in &admitted.addresses {
        let is_listed = private().contains(*address);
        assert!(is_public(*address) || is_listed, "{address} is kept from the guest");
    }
    let shown = dns::addresses(query, admitted.ttl, &admitted.addresses).unwrap();
    assert!(shown.len() <= query.len().max(512));
}

fn egress() -> Egress {
    let domain = |domain: &str| Target::Domain(domain.parse().unwrap());
    let targets = [domain("a.com"), domain("*.b.com"), private().into()];
    let allowed = targets.map(|to| Allowed { to, traffic: Traffic::Any }).to_vec();
    let mut routes = Routes::internet();
    routes.add(private()).unwrap();
    Egress { ways: vec![Way { routes, allowed: Some(allowed) }] }
}

fn private() -> Destination {
    "10.0.0.0/8".parse().unwrap()
}
