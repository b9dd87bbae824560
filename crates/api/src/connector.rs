//! Network connectors by their ARNs (SPEC §1.1, §7).

use ids::ConnectorArn;

use crate::Error;

/// What a list of connectors may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connector {
    /// One that every account has.
    Managed(ManagedConnector),
    /// An account's own, which is for what goes out.
    Custom(ConnectorArn),
}

/// A connector that every account has: AWS provides them all, but for [`ManagedConnector::NoEgress`].
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
    /// Nothing, not even names. AWS has none of this kind.
    NoEgress,
}

const PREFIX: &str = ":aws:network-connector:aws-network-connector:";

impl Connector {
    /// The connector that an ARN names.
    ///
    /// # Errors
    /// The one that RunMicrovm answers.
    pub fn from_arn(arn: &str) -> Result<Self, Error> {
        arn.parse().map(Self::Custom).or_else(|_| ManagedConnector::from_arn(arn).map(Self::Managed))
    }

    /// Whether it is about what comes in, rather than what goes out.
    #[must_use]
    pub fn is_ingress(&self) -> bool {
        matches!(self, Self::Managed(managed) if managed.is_ingress())
    }
}

impl ManagedConnector {
    const ALL: [Self; 6] = [
        Self::AllIngress,
        Self::HttpIngress,
        Self::ShellIngress,
        Self::NoIngress,
        Self::InternetEgress,
        Self::NoEgress,
    ];

    /// The last part of its ARN.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllIngress => "ALL_INGRESS",
            Self::HttpIngress => "HTTP_INGRESS",
            Self::ShellIngress => "SHELL_INGRESS",
            Self::NoIngress => "NO_INGRESS",
            Self::InternetEgress => "INTERNET_EGRESS",
            Self::NoEgress => "NO_EGRESS",
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
        !matches!(self, Self::InternetEgress | Self::NoEgress)
    }

    /// Whether it lets requests to the application in.
    #[must_use]
    pub fn admits_http(self) -> bool {
        matches!(self, Self::AllIngress | Self::HttpIngress)
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
        let arn = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:VPC_EGRESS";
        let message = ManagedConnector::from_arn(arn).unwrap_err().message;
        assert_eq!(message, format!("Unrecognized managed network connector ARN: {arn}"));
    }

    #[test]
    fn an_accounts_own_have_ids_and_versions() {
        let id = "nc-a991cd0b-3321-4e2c-a982-d5c4db52b17a";
        for text in [id.to_owned(), format!("{id}:3")] {
            let arn = format!("arn:aws:lambda:us-east-1:123456789012:network-connector:{text}");
            let Ok(custom @ Connector::Custom(_)) = Connector::from_arn(&arn) else { panic!("{arn}") };
            assert!(!custom.is_ingress());
        }
        for bad in ["", "a", "nc-1"] {
            let arn = format!("arn:aws:lambda:us-east-1:123456789012:network-connector:{bad}");
            assert!(Connector::from_arn(&arn).is_err(), "{arn}");
        }
    }
}
