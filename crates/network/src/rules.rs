//! The two rulesets, as text for `nft -f -`.

use crate::config::{Cidr, InstanceTag};
use crate::egress::{Egress, FORBIDDEN, Family, Set, not_public};
use crate::slot::{GUEST, TAP_NAME, UPLINK, prefix};
use crate::{endpoint, ipv6};

/// The connections a guest may have open at once: the host's connection table is everyone's, and finite.
pub const MAX_CONNECTIONS: u32 = 8192;

/// What speaks of neighbours and routers on a link, and of groups there. Nobody need hear it, and a clone that a slot told of
/// its groups would have to wake up for that.
const ON_LINK: &str = "icmpv6 type { 130-137, 143, 151-153 }";

/// What has no route over IPv6.
const LEADS_NOWHERE: &str = "meta nfproto ipv6 fib daddr type { unreachable, prohibit }";
/// Has it fail at once, so that a client goes on to IPv4. It is refused, rather than told that there is no route: the kernel
/// tells that a few times a second only, and no sender of datagrams hears of it.
const NO_ROUTE: &str = "  chain no_route {
    meta l4proto tcp reject with tcp reset
    reject with icmpv6 port-unreachable
  }
";

/// The table in every slot.
pub(crate) const SLOT_TABLE: &str = "rekindle";
/// How the names of a bound slot's own sets begin.
pub(crate) const SLOT_PREFIX: &str = "slot";

/// The sets of a bound slot that count what its rules refuse: what there is room for by destination, and everything.
pub(crate) const REFUSED_BY_DESTINATION: &str = "refused_by_destination";
pub(crate) const REFUSED: &str = "refused";
/// Destinations that are counted by themselves, each for [`COUNTED_FOR`] from its first packet.
const MAX_COUNTED: u32 = 64;
const COUNTED_FOR: &str = "10m";

/// The host's table for an instance.
pub(crate) fn table_name(instance: &InstanceTag) -> String {
    format!("rekindle_{instance}")
}

/// The ruleset inside a slot: the guest may only go through, under its own address, to public ones.
///
/// Nothing enters from outside but answers, and nothing, host included, talks to the namespace itself, but for the guest
/// to its endpoint where there is one.
pub fn slot(endpoint: bool) -> String {
    slot_with(
        "",
        &Family::BOTH.map(|family| format!("    {} drop\n", is_forbidden(family))).concat(),
        endpoint,
    )
}

/// The ruleset of a slot that is bound, in place of the one that it has.
pub fn bound_slot(egress: &Egress, endpoint: bool) -> String {
    let sets: String = egress.sets(SLOT_PREFIX).iter().map(definition).collect();
    let rules: String =
        egress.rules(SLOT_PREFIX, "return").iter().map(|rule| format!("    {rule}\n")).collect();
    let counting = Family::BOTH.map(|family| {
        let (name, address) = (family.set(REFUSED_BY_DESTINATION), family.address_type());
        format!(
            "  set {name} {{ type {address} . inet_proto . inet_service; flags dynamic,timeout; size {MAX_COUNTED}; \
             timeout {COUNTED_FOR}; counter; }}\n"
        )
    });
    let counting = counting.concat()
        + &format!("  set {REFUSED} {{ type inet_proto; flags dynamic; size 256; counter; }}\n");
    // A rule that finds no room in its set is over, and the next one has its turn.
    let refusing = Family::BOTH.map(|family| {
        let (name, header) = (family.set(REFUSED_BY_DESTINATION), family.header());
        format!(
            "    meta l4proto {{ tcp, udp }} add @{name} {{ {header} daddr . meta l4proto . th dport }}\n"
        )
    });
    let refusing = refusing.concat() + &format!("    add @{REFUSED} {{ meta l4proto }}\n    drop\n");
    let ruleset = slot_with(&format!("{sets}{counting}"), &format!("{rules}{refusing}"), endpoint);
    format!("table inet {SLOT_TABLE}\ndelete table inet {SLOT_TABLE}\n{ruleset}")
}

/// `egress`: the rules of the chain that drops what the guest may not reach.
fn slot_with(sets: &str, egress: &str, endpoint: bool) -> String {
    let (forbidden, guest_v6) = (forbidden(), ipv6::of(GUEST));
    let input: String =
        if endpoint { endpoint_rules().map(|rule| format!("    {rule}\n")).concat() } else { String::new() };
    format!(
        r#"table inet {SLOT_TABLE} {{
{forbidden}{sets}  chain egress {{
{egress}  }}
{NO_ROUTE}  chain early {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{TAP_NAME}" ip saddr != {GUEST} drop
    iifname "{TAP_NAME}" ip6 saddr != {guest_v6} drop
    {ON_LINK} drop
    iifname "{TAP_NAME}" {LEADS_NOWHERE} goto no_route
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
{input}  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    {ON_LINK} drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname "{TAP_NAME}" jump egress
    iifname "{TAP_NAME}" oifname "{UPLINK}" ct state invalid drop
    iifname "{TAP_NAME}" ct state new ct count over {MAX_CONNECTIONS} drop
    iifname "{TAP_NAME}" oifname "{UPLINK}" accept
    iifname "{UPLINK}" oifname "{TAP_NAME}" ct state established,related accept
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{UPLINK}" masquerade
  }}
}}
"#
    )
}

/// A set, in the text of its table.
fn definition(Set { name, kind, elements }: &Set) -> String {
    let elements = if elements.is_empty() { String::new() } else { format!(" elements = {{ {elements} }}") };
    format!("  set {name} {{ {kind}{elements} }}\n")
}

/// Where no guest may go: this network, private ranges, shared address space, loopback, link-local (cloud
/// metadata services live there), multicast, reserved and broadcast.
fn forbidden() -> String {
    let set = |family: Family| {
        let elements: Vec<String> = not_public(family).map(|range| range.to_string()).collect();
        definition(&Set {
            name: family.set(FORBIDDEN),
            kind: format!("type {}; flags interval;", family.address_type()),
            elements: elements.join(", "),
        })
    };
    Family::BOTH.map(set).concat()
}

fn is_forbidden(family: Family) -> String {
    format!("{} daddr @{}", family.header(), family.set(FORBIDDEN))
}

/// What the guest may send to its endpoint.
fn endpoint_rules() -> [String; 2] {
    let to_it = format!(
        "iifname \"{TAP_NAME}\" ip daddr {} tcp dport {}",
        endpoint::ADDRESS.ip(),
        endpoint::ADDRESS.port()
    );
    [
        format!("{to_it} ct state new ct count over {} drop", endpoint::MAX_CONNECTIONS),
        format!("{to_it} ct state new,established accept"),
    ]
}

/// Lets the guest of a slot that may have been made without an endpoint reach it. Applying it again changes nothing.
pub(crate) fn admit_endpoint() -> String {
    let add = |rule: String| format!("add rule inet {SLOT_TABLE} input {rule}\n");
    format!("flush chain inet {SLOT_TABLE} input\n{}", endpoint_rules().map(add).concat())
}

/// The host's ruleset, which does not rely on the slots' own: even a VMM which took over its namespace
/// reaches only public addresses. Slots that are bound have a chain of their own, which has the last word. It has it
/// before connections are tracked too, so that what is dropped costs nothing; not if it has to know what is established.
/// Applying it again replaces it in one transaction, and no slot is bound then.
pub fn host(instance: &InstanceTag, slot_cidr: Cidr) -> String {
    let (table, ours, forbidden) = (table_name(instance), prefix(instance), forbidden());
    let slot_v6 = ipv6::range(slot_cidr);
    let [is_forbidden, is_forbidden_v6] = Family::BOTH.map(is_forbidden);
    format!(
        r#"table inet {table}
delete table inet {table}
table inet {table} {{
{forbidden}  map bound {{
    type ifname : verdict
  }}
  map bound_early {{
    type ifname : verdict
  }}
{NO_ROUTE}  chain early {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{ours}*" ip saddr != {slot_cidr} drop
    iifname "{ours}*" ip6 saddr != {slot_v6} drop
    iifname "{ours}*" {ON_LINK} drop
    iifname "{ours}*" {LEADS_NOWHERE} goto no_route
    iifname "{ours}*" fib daddr type != unicast drop
    iifname vmap @bound_early
    iifname "{ours}*" {is_forbidden} drop
    iifname "{ours}*" {is_forbidden_v6} drop
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{ours}*" drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{ours}*" oifname "{ours}*" drop
    iifname vmap @bound
    iifname "{ours}*" {is_forbidden} drop
    iifname "{ours}*" {is_forbidden_v6} drop
    oifname "{ours}*" ct state established,related accept
    oifname "{ours}*" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {slot_cidr} oifname != "{ours}*" masquerade
    ip6 saddr {slot_v6} oifname != "{ours}*" masquerade
  }}
}}
"#
    )
}

/// Lets a slot reach what `egress` says, in the host's ruleset.
pub(crate) fn bind(instance: &InstanceTag, slot: &str, index: u32, egress: &Egress) -> String {
    let (table, chain) = (table_name(instance), bound_chain(index));
    let mut script = String::new();
    for Set { name, kind, elements } in egress.sets(&chain) {
        script += &format!("add set inet {table} {name} {{ {kind} }}\n");
        if !elements.is_empty() {
            script += &format!("add element inet {table} {name} {{ {elements} }}\n");
        }
    }
    script += &format!("add chain inet {table} {chain}\n");
    let rules = egress.rules(&chain, "accept");
    for rule in rules.iter().map(String::as_str).chain(["drop"]) {
        script += &format!("add rule inet {table} {chain} {rule}\n");
    }
    let early =
        if egress.pinned_traffic().is_empty() { format!("jump {chain}") } else { "accept".to_owned() };
    script += &format!("add element inet {table} bound {{ \"{slot}\" : jump {chain} }}\n");
    script += &format!("add element inet {table} bound_early {{ \"{slot}\" : {early} }}\n");
    script
}

/// Takes back what [`bind`] did.
pub(crate) fn unbind(instance: &InstanceTag, slot: &str, index: u32, egress: &Egress) -> String {
    let (table, chain) = (table_name(instance), bound_chain(index));
    let sets = egress.sets(&chain).into_iter();
    let sets = sets.map(|set| format!("delete set inet {table} {}\n", set.name));
    format!(
        "delete element inet {table} bound {{ \"{slot}\" }}\ndelete element inet {table} bound_early {{ \"{slot}\" }}\n\
         flush chain inet {table} {chain}\n\
         delete chain inet {table} {chain}\n{}",
        sets.collect::<String>()
    )
}

pub(crate) fn bound_chain(index: u32) -> String {
    format!("slot{index}")
}

/// Removes the host's ruleset, whether or not it is there.
pub(crate) fn host_removal(instance: &InstanceTag) -> String {
    let table = table_name(instance);
    format!("table inet {table}\ndelete table inet {table}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_forwards_to_public_addresses_only() {
        let rules = slot(false);
        let egress = "chain egress {\n    ip daddr @forbidden drop\n    ip6 daddr @forbidden_v6 drop\n  }";
        assert!(rules.contains(egress), "{rules}");
        let drop = rules.find(r#"iifname "tap0" jump egress"#).unwrap();
        let accept = rules.find(r#"iifname "tap0" oifname "uplink" accept"#).unwrap();
        let limit = rules.find("ct count over 8192 drop").unwrap();
        assert!(drop < accept && limit < accept);
        assert!(
            rules.contains("hook input priority filter; policy drop;\n  }"),
            "nothing enters the namespace itself"
        );
        assert!(rules.contains("hook forward priority filter; policy drop;"));
        assert!(rules.contains(r#"iifname "tap0" ip saddr != 169.254.77.2 drop"#));
        assert!(rules.contains(r#"iifname "tap0" ip6 saddr != fd72:656b:696e::a9fe:4d02 drop"#));
        assert!(rules.contains(r#"oifname "uplink" masquerade"#));
    }

    #[test]
    fn with_an_endpoint_the_guest_alone_enters_and_only_there() {
        let nothing = Egress::default();
        for rules in [slot(true), bound_slot(&nothing, true)] {
            let input = rules.split("chain input {").nth(1).unwrap().split('}').next().unwrap();
            let accepted: Vec<&str> =
                input.lines().filter(|line| line.ends_with("accept")).map(str::trim).collect();
            assert_eq!(
                accepted,
                [r#"iifname "tap0" ip daddr 169.254.77.1 tcp dport 80 ct state new,established accept"#]
            );
            assert!(input.contains("ct count over 128 drop") && input.contains("policy drop;"));
        }
        assert!(!bound_slot(&nothing, false).contains("dport 80"));
    }

    #[test]
    fn the_host_table_is_the_instances_own() {
        let rules = host(&"ab12".parse().unwrap(), "100.72.0.0/16".parse().unwrap());
        assert!(rules.starts_with(
            "table inet rekindle_ab12\ndelete table inet rekindle_ab12\ntable inet rekindle_ab12 {"
        ));
        assert!(rules.contains(r#"iifname "rkab12-*" oifname "rkab12-*" drop"#));
        assert!(rules.contains(r#"ip saddr 100.72.0.0/16 oifname != "rkab12-*" masquerade"#));
        assert!(rules.contains(r#"ip6 saddr fd72:656b:696e::6448:0/112 oifname != "rkab12-*" masquerade"#));
        // Everyone else's packets must pass as if the table were not there.
        for line in rules.lines().filter(|line| line.trim_end().ends_with("drop") && !line.contains("policy"))
        {
            assert!(line.contains(r#""rkab12-*""#), "{line}");
        }
    }
}
