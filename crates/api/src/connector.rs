//! Network connectors by their ARNs (SPEC §1.1, §7).

use std::fmt;

use ids::AccountId;

use crate::Error;

/// What a list of connectors may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connector {
    /// One that every account has.
    Managed(ManagedConnector),
    /// An account's own, which is for what goes out.
    Custom(ConnectorArn),
}

/// A connector that AWS provides, so that every account has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManagedConnector {
    /// HTTP and shell.
    AllIngress,
    /// HTTP only; the default.
    HttpIngress,
    /// Shell.
    ShellIngress,
    /// Nothing but hooks.
    NoIngress,
    /// The internet; the default.
    InternetEgress,
}

/// `arn:aws:lambda:<region>:<account>:network-connector:<id or name>[:<version>]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorArn {
    /// Region.
    pub region: String,
    /// Owner.
    pub account: AccountId,
    /// `nc-<uuid>`, or the name.
    pub id: String,
    /// One version of it.
    pub version: Option<i64>,
}

const PREFIX: &str = ":aws:network-connector:aws-network-connector:";

impl Connector {
    /// The connector that an ARN names.
    ///
    /// # Errors
    /// The one that RunMicrovm answers.
    pub fn from_arn(arn: &str) -> Result<Self, Error> {
        if let Some(custom) = ConnectorArn::parse(arn) {
            return Ok(Self::Custom(custom));
        }
        ManagedConnector::from_arn(arn).map(Self::Managed)
    }

    /// Whether it is about what comes in, rather than what goes out.
    #[must_use]
    pub fn is_ingress(&self) -> bool {
        matches!(self, Self::Managed(managed) if managed.is_ingress())
    }
}

impl ManagedConnector {
    const ALL: [Self; 5] =
        [Self::AllIngress, Self::HttpIngress, Self::ShellIngress, Self::NoIngress, Self::InternetEgress];

    /// The last part of its ARN.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllIngress => "ALL_INGRESS",
            Self::HttpIngress => "HTTP_INGRESS",
            Self::ShellIngress => "SHELL_INGRESS",
            Self::NoIngress => "NO_INGRESS",
            Self::InternetEgress => "INTERNET_EGRESS",
        }
    }

    /// Its ARN in a region.
    #[must_use]
    pub fn arn(self, region: &str) -> String {
        format!("arn:aws:lambda:{region}{PREFIX}{}", self.name())
    }

    /// The connector that an ARN names; the error is the one RunMicrovm answers.
    pub fn from_arn(arn: &str) -> Result<Self, Error> {
        if !arn.starts_with("arn:") {
            return Err(Error::validation("Malformed network connector ARN"));
        }
        arn.split_once(PREFIX)
            .and_then(|(_, name)| Self::ALL.into_iter().find(|connector| connector.name() == name))
            .ok_or_else(|| Error::validation(format!("Unrecognized managed network connector ARN: {arn}")))
    }

    /// Whether it is about what comes in, rather than what goes out.
    #[must_use]
    pub fn is_ingress(self) -> bool {
        self != Self::InternetEgress
    }

    /// Whether it lets requests to the application in.
    #[must_use]
    pub fn admits_http(self) -> bool {
        matches!(self, Self::AllIngress | Self::HttpIngress)
    }
}

impl ConnectorArn {
    /// The connector that an ARN names; none where it is not of an account.
    #[must_use]
    pub fn parse(arn: &str) -> Option<Self> {
        let parts: Vec<&str> = arn.split(':').collect();
        let ["arn", "aws", "lambda", region, account, "network-connector", id, version @ ..] = &parts[..]
        else {
            return None;
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let version = match version {
            [] => None,
            [number] => Some(number.parse().ok().filter(|number| *number > 0)?),
            _ => return None,
        };
        (ids::is_region(region) && !id.is_empty() && id.chars().all(legal)).then_some(())?;
        Some(Self {
            region: (*region).to_owned(),
            account: account.parse().ok()?,
            id: (*id).to_owned(),
            version,
        })
    }
}

impl fmt::Display for ConnectorArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:lambda:{}:{}:network-connector:{}", self.region, self.account, self.id)?;
        self.version.map_or(Ok(()), |version| write!(f, ":{version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_name_connectors() {
        for connector in ManagedConnector::ALL {
            let arn = connector.arn("us-east-1");
            assert_eq!(ManagedConnector::from_arn(&arn), Ok(connector));
            assert_eq!(Connector::from_arn(&arn), Ok(Connector::Managed(connector)));
        }
        assert_eq!(ManagedConnector::from_arn("x").unwrap_err().message, "Malformed network connector ARN");
        let arn = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:NO_EGRESS";
        let message = ManagedConnector::from_arn(arn).unwrap_err().message;
        assert_eq!(message, format!("Unrecognized managed network connector ARN: {arn}"));
    }

    #[test]
    fn an_accounts_own_have_ids_and_versions() {
        for text in ["nc-1b4c", "nc-1b4c:3"] {
            let arn = format!("arn:aws:lambda:us-east-1:123456789012:network-connector:{text}");
            let Ok(Connector::Custom(custom)) = Connector::from_arn(&arn) else { panic!("{arn}") };
            assert_eq!((custom.id.as_str(), custom.to_string()), ("nc-1b4c", arn));
        }
        for bad in ["", "a/b", "a:0", "a:x", "a:1:2"] {
            let arn = format!("arn:aws:lambda:us-east-1:123456789012:network-connector:{bad}");
            assert!(Connector::from_arn(&arn).is_err(), "{arn}");
        }
    }
}
