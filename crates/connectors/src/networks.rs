//! The subnets and security groups that the operator offers.

use std::collections::BTreeMap;

use ids::AccountId;
use lifecycle::connector::{Fault, FaultCode};
use network::egress::{Allowed, Routes, Way};
use store::{ConnectorSettings, ElasticIp, NetworkProtocol};

/// Where guests of it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Whose connectors may name it. None: everybody's.
    pub account: Option<AccountId>,
    /// Through the host's own routing.
    pub routes: Routes,
}

/// What is let out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Whose connectors may name it. None: everybody's.
    pub account: Option<AccountId>,
    /// To where.
    pub egress: Vec<Allowed>,
}

/// All of them, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// `subnet-…`
    pub subnets: BTreeMap<String, Subnet>,
    /// `sg-…`
    pub security_groups: BTreeMap<String, SecurityGroup>,
}

impl Networks {
    /// The way out that these settings of a connector of `account` describe.
    ///
    /// # Errors
    /// What is wrong with them, on this host and now.
    pub fn way(&self, account: &AccountId, settings: &ConnectorSettings) -> Result<Way, Fault> {
        let is_dual = settings.protocol == Some(NetworkProtocol::DualStack);
        if settings.elastic_ip == Some(ElasticIp::ServiceManaged) {
            let reason =
                "this host has no public addresses to assign: leave the Elastic IP configuration out";
            return Err(fault(FaultCode::InternetGatewayNotAttached, reason));
        }
        let mut routes = Routes::default();
        for id in &settings.subnets {
            let subnet = self.subnets.get(id).filter(|subnet| is_for(subnet.account.as_ref(), account));
            let unknown = || fault(FaultCode::InvalidSubnet, &format!("the subnet ID '{id}' does not exist"));
            let subnet = &subnet.ok_or_else(unknown)?.routes;
            if is_dual && !subnet.has_ipv6() {
                let reason = format!("the subnet '{id}' has no IPv6 routes: use the network protocol IPv4");
                return Err(fault(FaultCode::InvalidSubnet, &reason));
            }
            routes.extend(&if is_dual { subnet.clone() } else { subnet.ipv4() });
        }
        if settings.security_groups.is_empty() {
            return Ok(Way { routes, allowed: None });
        }
        let mut allowed = Vec::new();
        for id in &settings.security_groups {
            let group = self.security_groups.get(id).filter(|group| is_for(group.account.as_ref(), account));
            let reason = || format!("the security group '{id}' does not exist");
            let group = group.ok_or_else(|| fault(FaultCode::InvalidSecurityGroup, &reason()))?;
            allowed.extend_from_slice(&group.egress);
        }
        Ok(Way { routes, allowed: Some(allowed) })
    }
}

fn is_for(owner: Option<&AccountId>, account: &AccountId) -> bool {
    owner.is_none_or(|owner| owner == account)
}

fn fault(code: FaultCode, reason: &str) -> Fault {
    Fault { code, reason: reason.to_owned() }
}

#[cfg(test)]
pub(crate) mod tests {
    use network::egress::{Destination, Traffic};
    use store::ConnectorUser;

    use super::*;

    pub(crate) const OWNER: &str = "123456789012";

    pub(crate) fn account(id: &str) -> AccountId {
        id.parse().unwrap()
    }

    pub(crate) fn networks() -> Networks {
        let subnet = |owner: Option<&str>, route: &str| {
            let mut routes = Routes::default();
            route.split(' ').for_each(|route| routes.add(route.parse().unwrap()).unwrap());
            Subnet { account: owner.map(account), routes }
        };
        let to: Destination = "10.1.2.0/24".parse().unwrap();
        let allowed = Allowed { to: to.into(), traffic: Traffic::Tcp("443".parse().unwrap()) };
        Networks {
            subnets: [
                ("subnet-a".to_owned(), subnet(None, "10.1.0.0/16")),
                ("subnet-b".to_owned(), subnet(Some(OWNER), "10.2.0.0/16")),
                ("subnet-dual".to_owned(), subnet(Some(OWNER), "10.3.0.0/16 fd12::/32 ::/0")),
            ]
            .into(),
            security_groups: [
                ("sg-none".to_owned(), SecurityGroup { account: None, egress: vec![] }),
                ("sg-web".to_owned(), SecurityGroup { account: Some(account(OWNER)), egress: vec![allowed] }),
            ]
            .into(),
        }
    }

    pub(crate) fn settings(subnets: &[&str], groups: &[&str]) -> ConnectorSettings {
        let texts = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        ConnectorSettings {
            subnets: texts(subnets),
            security_groups: texts(groups),
            protocol: Some(NetworkProtocol::Ipv4),
            user: Some(ConnectorUser::MicroVm),
            elastic_ip: None,
            operator_role: None,
        }
    }

    #[test]
    fn a_way_is_the_union_of_its_subnets_and_of_its_groups() {
        let networks = networks();
        let way =
            |groups| networks.way(&account(OWNER), &settings(&["subnet-a", "subnet-b"], groups)).unwrap();
        let mut routes = networks.subnets["subnet-a"].routes.clone();
        routes.extend(&networks.subnets["subnet-b"].routes);
        assert_eq!(way(&[]), Way { routes, allowed: None });
        assert_eq!(way(&["sg-none"]).allowed, Some(vec![]));
        let web = networks.security_groups["sg-web"].egress.clone();
        assert_eq!(way(&["sg-none", "sg-web"]).allowed, Some(web));
    }

    #[test]
    fn ipv6_is_routed_where_both_are_asked_for() {
        let networks = networks();
        let routes = |protocol| {
            let settings = ConnectorSettings { protocol, ..settings(&["subnet-dual"], &[]) };
            networks.way(&account(OWNER), &settings).unwrap().routes
        };
        let all = &networks.subnets["subnet-dual"].routes;
        assert_eq!(routes(Some(NetworkProtocol::DualStack)), *all);
        for protocol in [Some(NetworkProtocol::Ipv4), None] {
            assert!(!routes(protocol).has_ipv6() && routes(protocol) == all.ipv4());
        }
    }

    #[test]
    fn what_there_is_not_or_is_anothers_is_a_fault() {
        let networks = networks();
        let code = |who: &str, settings| networks.way(&account(who), &settings).unwrap_err().code;
        let other = "210987654321";
        assert_eq!(code(OWNER, settings(&["subnet-x"], &[])), FaultCode::InvalidSubnet);
        assert_eq!(code(other, settings(&["subnet-a", "subnet-b"], &[])), FaultCode::InvalidSubnet);
        assert_eq!(code(OWNER, settings(&["subnet-a"], &["sg-x"])), FaultCode::InvalidSecurityGroup);
        assert_eq!(code(other, settings(&["subnet-a"], &["sg-web"])), FaultCode::InvalidSecurityGroup);
        let dual = ConnectorSettings {
            protocol: Some(NetworkProtocol::DualStack),
            ..settings(&["subnet-dual", "subnet-a"], &[])
        };
        assert_eq!(code(OWNER, dual), FaultCode::InvalidSubnet);
        let elastic =
            ConnectorSettings { elastic_ip: Some(ElasticIp::ServiceManaged), ..settings(&["subnet-a"], &[]) };
        assert_eq!(code(OWNER, elastic), FaultCode::InternetGatewayNotAttached);
    }
}
