//! The settings that say which networks there are for network connectors: `[[subnet]]` and `[[security_group]]`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use connectors::{SecurityGroup, Subnet};
use ids::AccountId;
use network::domain::Domain;
use network::egress::{Allowed, Destination, Ports, Routes, Target, Traffic};
use serde::{Deserialize, Deserializer};

/// Destinations of a subnet, and rules of a group: each becomes a rule for every packet of a guest.
const MAX_RULES: usize = 64;

/// `[[subnet]]`: a network of the host's that guests can be let into.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubnetSettings {
    id: String,
    account: Option<AccountId>,
    #[serde(deserialize_with = "texts")]
    routes: Vec<Destination>,
}

/// `[[security_group]]`: what is let out into such a network.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupSettings {
    id: String,
    account: Option<AccountId>,
    egress: Vec<RuleSettings>,
}

/// One rule of a group: about addresses or about names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSettings {
    #[serde(default, deserialize_with = "optional_text")]
    cidr: Option<Destination>,
    #[serde(default, deserialize_with = "optional_text")]
    domain: Option<Domain>,
    protocol: Protocol,
    ports: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
    Any,
}

impl TryFrom<Vec<SubnetSettings>> for Subnets {
    type Error = String;

    fn try_from(settings: Vec<SubnetSettings>) -> Result<Self, String> {
        let mut subnets = BTreeMap::new();
        for SubnetSettings { id, account, routes: listed } in settings {
            let name = format!("subnet {id:?}");
            check_id(&name, &id, "subnet-", |c| c.is_ascii_lowercase() || c.is_ascii_digit())?;
            check_count(&name, "routes", listed.len())?;
            let mut routes = Routes::default();
            for route in listed {
                routes.add(route).map_err(|error| format!("{name}: {error}"))?;
            }
            if subnets.insert(id, Subnet { account, routes }).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self(subnets))
    }
}

impl TryFrom<Vec<GroupSettings>> for Groups {
    type Error = String;

    fn try_from(settings: Vec<GroupSettings>) -> Result<Self, String> {
        let mut groups = BTreeMap::new();
        for GroupSettings { id, account, egress } in settings {
            let name = format!("security_group {id:?}");
            check_id(&name, &id, "sg-", |c| c.is_ascii_alphanumeric())?;
            check_count(&name, "egress rules", egress.len())?;
            let egress = egress.into_iter().map(RuleSettings::allowed).collect::<Result<_, _>>();
            let egress = egress.map_err(|error| format!("{name}: {error}"))?;
            if groups.insert(id, SecurityGroup { account, egress }).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self(groups))
    }
}

impl RuleSettings {
    fn allowed(self) -> Result<Allowed, String> {
        let ports = self.ports.as_deref().map(str::parse::<Ports>).transpose();
        let ports = ports.map_err(|error| error.to_string())?;
        let traffic = match (self.protocol, ports) {
            (Protocol::Tcp, ports) => Traffic::Tcp(ports.unwrap_or(Ports::ALL)),
            (Protocol::Udp, ports) => Traffic::Udp(ports.unwrap_or(Ports::ALL)),
            (Protocol::Any, None) => Traffic::Any,
            (Protocol::Any, Some(_)) => {
                return Err("ports go with the protocol tcp or udp; give one rule for each".to_owned());
            }
        };
        let to = match (self.cidr, self.domain) {
            (Some(addresses), None) => Target::Addresses(addresses),
            (None, Some(domain)) => Target::Domain(domain),
            _ => return Err("a rule has either a cidr or a domain; give one rule for each".to_owned()),
        };
        Ok(Allowed { to, traffic })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<SubnetSettings>")]
struct Subnets(BTreeMap<String, Subnet>);

#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<GroupSettings>")]
struct Groups(BTreeMap<String, SecurityGroup>);

/// A group that refers to no subnet is fine, and the other way round: connectors bring them together.
pub(crate) fn subnets<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Subnet>, D::Error> {
    Subnets::deserialize(from).map(|subnets| subnets.0)
}

/// The same of groups.
pub(crate) fn groups<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, SecurityGroup>, D::Error> {
    Groups::deserialize(from).map(|groups| groups.0)
}

fn check_id(name: &str, id: &str, prefix: &str, legal: impl Fn(char) -> bool) -> Result<(), String> {
    let rest = id.strip_prefix(prefix).unwrap_or_default();
    if (1..=64).contains(&rest.len()) && rest.chars().all(legal) {
        return Ok(());
    }
    Err(format!("{name} is no id: give {prefix} with letters and digits after it, as the API takes them"))
}

fn check_count(name: &str, what: &str, count: usize) -> Result<(), String> {
    if count <= MAX_RULES { Ok(()) } else { Err(format!("{name} has {count} {what}, more than {MAX_RULES}")) }
}

fn optional_text<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(from)?.parse().map(Some).map_err(serde::de::Error::custom)
}

fn texts<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let texts: Vec<String> = Vec::deserialize(from)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        #[serde(default)]
        subnet: Subnets,
        #[serde(default)]
        security_group: Groups,
    }

    fn read(text: &str) -> Result<File, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn networks_are_read_by_their_ids() {
        let text = r#"
            [[subnet]]
            id = "subnet-a"
            routes = ["10.1.0.0/16", "fd12:3456::/32", "0.0.0.0/0", "::/0"]
            [[subnet]]
            id = "subnet-b"
            account = "123456789012"
            routes = []
            [[security_group]]
            id = "sg-Web"
            egress = [
                { cidr = "10.1.0.0/16", protocol = "tcp", ports = "443" },
                { cidr = "0.0.0.0/0", protocol = "any" },
                { cidr = "fd12:3456::/32", protocol = "any" },
                { domain = "*.Example.com", protocol = "tcp", ports = "443" },
            ]
        "#;
        let file = read(text).unwrap();
        let mut routes = Routes::internet();
        for route in ["10.1.0.0/16", "fd12:3456::/32"] {
            routes.add(route.parse().unwrap()).unwrap();
        }
        assert_eq!(file.subnet.0["subnet-a"], Subnet { account: None, routes });
        assert_eq!(file.subnet.0["subnet-b"].account, "123456789012".parse().ok());
        let addresses = |range: &str| Target::Addresses(range.parse().unwrap());
        let web = Traffic::Tcp("443".parse().unwrap());
        let domain = Target::Domain("*.example.com".parse().unwrap());
        let egress = vec![
            Allowed { to: addresses("10.1.0.0/16"), traffic: web.clone() },
            Allowed { to: addresses("0.0.0.0/0"), traffic: Traffic::Any },
            Allowed { to: addresses("fd12:3456::/32"), traffic: Traffic::Any },
            Allowed { to: domain, traffic: web },
        ];
        assert_eq!(file.security_group.0["sg-Web"], SecurityGroup { account: None, egress });
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let subnet = |id: &str, routes: &str| format!("[[subnet]]\nid = \"{id}\"\nroutes = [{routes}]\n");
        let group = |rule: &str| format!("[[security_group]]\nid = \"sg-a\"\negress = [{{ {rule} }}]\n");
        let many = vec!["\"10.1.0.0/16\""; MAX_RULES + 1].join(", ");
        for (text, named) in [
            (subnet("a", ""), "subnet-"),
            (subnet("subnet-A", ""), "subnet-A"),
            (subnet("subnet-a", "\"10.1.0.1/16\""), "10.1.0.1/16"),
            (subnet("subnet-a", "\"169.254.169.254/32\""), "169.254.169.254/32"),
            (subnet("subnet-a", "\"192.0.0.0/8\""), "192.0.0.0/8"),
            (subnet("subnet-a", "\"fe80::/64\""), "fe80::/64"),
            (subnet("subnet-a", &many), "65 routes"),
            ([subnet("subnet-a", ""), subnet("subnet-a", "")].concat(), "twice"),
            (group("cidr = \"10.0.0.0/8\", protocol = \"icmp\""), "icmp"),
            (group("cidr = \"10.0.0.0/8\", protocol = \"any\", ports = \"1\""), "sg-a"),
            (group("cidr = \"10.0.0.0/8\", protocol = \"tcp\", ports = \"2-1\""), "2-1"),
            (group("cidr = \"10.0.0.0/8\", protocol = \"tcp\", port = \"1\""), "port"),
            (group("domain = \"*\", protocol = \"tcp\""), "is not a domain"),
            (group("domain = \"a.com\", cidr = \"10.0.0.0/8\", protocol = \"tcp\""), "either"),
            (group("protocol = \"tcp\""), "either"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
