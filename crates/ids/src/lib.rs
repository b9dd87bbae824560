//! Typed identifiers, ARNs and version numbers (SPEC §1.1, §1.2). No I/O.
//!
//! Every type parses from and prints as the text that clients see, and serialises as that text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

/// Why a text is not the identifier it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' is not {expected}")]
pub struct ParseIdError {
    value: String,
    expected: &'static str,
}

impl ParseIdError {
    fn new(value: &str, expected: &'static str) -> Self {
        Self { value: value.to_owned(), expected }
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ParseIdError;
            fn try_from(text: String) -> Result<Self, ParseIdError> {
                text.parse()
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $new:ident, $prefix:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// The one that sorts before all others, and is nobody's.
            pub const MIN: Self = Self(Uuid::nil());

            /// A new identifier, which nothing has had before.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::$new())
            }

            /// The identifier with this number.
            #[must_use]
            pub fn from_u128(number: u128) -> Self {
                Self(Uuid::from_u128(number))
            }

            /// The number that its digits write.
            #[must_use]
            pub fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                self.0.hyphenated().fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    // `Uuid` also reads braces and bare hex; only the form that we print is ours.
                    .filter(|rest| rest.len() == 36)
                    .and_then(|rest| Uuid::try_parse(rest).ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError::new(text, $expected))
            }
        }
        text_serde!($name);
    };
}

uuid_id!(/// `microvm-<uuid>`; later ones sort after earlier ones, so that a new record is added at the end of its indices.
    MicrovmId, now_v7, "microvm-", "a MicroVM id (microvm-<uuid>)");
uuid_id!(/// The first label of a MicroVM's endpoint host name; not the uuid of its id.
    EndpointId, new_v4, "", "an endpoint id (a uuid)");
uuid_id!(/// One build of one image version.
    BuildId, new_v4, "", "a build id (a uuid)");
uuid_id!(/// `nc-<uuid>`.
    ConnectorId, new_v4, "nc-", "a network connector id (nc-<uuid>)");

/// A 12-digit account number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AccountId(String);

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AccountId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError::new(text, "an account id (12 digits)"))
        }
    }
}
text_serde!(AccountId);

/// An image's name: `[a-zA-Z0-9-_]{1,64}`, unique in its account and region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageName(String);

impl ImageName {
    /// The name as text; safe as a file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageName {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError::new(text, "an image name ([a-zA-Z0-9-_], 1 to 64 characters)"))
        }
    }
}
text_serde!(ImageName);

/// A version of a customer's image: `1.0`, `2.0`, … `1` is read as `1.0` (SPEC §1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageVersion(u32);

impl ImageVersion {
    /// What CreateMicrovmImage makes.
    pub const FIRST: Self = Self(1);

    /// The version that the next update makes.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The version with this number before the point.
    #[must_use]
    pub fn from_major(major: u32) -> Self {
        Self(major)
    }

    /// The number before the point.
    #[must_use]
    pub fn major(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ImageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.0", self.0)
    }
}

impl FromStr for ImageVersion {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let major = text.strip_suffix(".0").unwrap_or(text);
        let canonical = major == "0" || !major.starts_with('0');
        if canonical && !major.is_empty() && major.bytes().all(|b| b.is_ascii_digit()) {
            return major.parse().map(Self).map_err(|_| ParseIdError::new(text, "an image version (N.0)"));
        }
        Err(ParseIdError::new(text, "an image version (N.0)"))
    }
}
text_serde!(ImageVersion);

/// A customer's image: `arn:aws:lambda:<region>:<account>:microvm-image:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ImageArn {
    /// Region, for example `us-east-1`.
    pub region: String,
    /// Owner.
    pub account: AccountId,
    /// Name in that account and region.
    pub name: ImageName,
}

impl fmt::Display for ImageArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:lambda:{}:{}:microvm-image:{}", self.region, self.account, self.name)
    }
}

impl FromStr for ImageArn {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(text, "an image ARN");
        let parts: Vec<&str> = text.split(':').collect();
        let ["arn", "aws", "lambda", region, account, "microvm-image", name] = parts[..] else {
            return Err(wrong());
        };
        if !is_region(region) {
            return Err(wrong());
        }
        Ok(Self {
            region: region.to_owned(),
            account: account.parse().map_err(|_| wrong())?,
            name: name.parse().map_err(|_| wrong())?,
        })
    }
}
text_serde!(ImageArn);

/// A MicroVM, or an image with all MicroVMs that are cloned from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum MicrovmOrImage {
    /// The MicroVM with this id.
    Microvm(MicrovmId),
    /// The image with this ARN.
    Image(ImageArn),
}

impl fmt::Display for MicrovmOrImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Microvm(id) => id.fmt(f),
            Self::Image(arn) => arn.fmt(f),
        }
    }
}

impl FromStr for MicrovmOrImage {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let image = || text.parse().map(Self::Image).ok();
        let found = text.parse().map(Self::Microvm).ok().or_else(image);
        found.ok_or_else(|| ParseIdError::new(text, "a MicroVM id or an image ARN"))
    }
}
text_serde!(MicrovmOrImage);

/// A version of a customer's network connector: 1, 2, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ConnectorVersion(u32);

impl ConnectorVersion {
    /// What CreateNetworkConnector makes.
    pub const FIRST: Self = Self(1);

    /// The version that the next update makes.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ConnectorVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ConnectorVersion {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(text, "a version of a network connector (1 or more)");
        if text.starts_with(['0', '+']) {
            return Err(wrong());
        }
        text.parse().map(Self).map_err(|_| wrong())
    }
}

impl TryFrom<u32> for ConnectorVersion {
    type Error = ParseIdError;
    fn try_from(number: u32) -> Result<Self, ParseIdError> {
        number.to_string().parse()
    }
}

impl From<ConnectorVersion> for u32 {
    fn from(version: ConnectorVersion) -> Self {
        version.0
    }
}

/// A customer's network connector, or one version of it:
/// `arn:aws:lambda:<region>:<account>:network-connector:<id>[:<version>]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ConnectorArn {
    /// Region, for example `us-east-1`.
    pub region: String,
    /// Owner.
    pub account: AccountId,
    /// Which of the owner's.
    pub id: ConnectorId,
    /// None: the connector, whatever its versions.
    pub version: Option<ConnectorVersion>,
}

impl ConnectorArn {
    /// The same connector's, of one version.
    #[must_use]
    pub fn of_version(&self, version: ConnectorVersion) -> Self {
        Self { version: Some(version), ..self.clone() }
    }
}

impl fmt::Display for ConnectorArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:lambda:{}:{}:network-connector:{}", self.region, self.account, self.id)?;
        self.version.map_or(Ok(()), |version| write!(f, ":{version}"))
    }
}

impl FromStr for ConnectorArn {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(text, "a network connector ARN");
        let parts: Vec<&str> = text.split(':').collect();
        let (region, account, id, version) = match parts[..] {
            ["arn", "aws", "lambda", region, account, "network-connector", id] => (region, account, id, None),
            ["arn", "aws", "lambda", region, account, "network-connector", id, version] => {
                (region, account, id, Some(version))
            }
            _ => return Err(wrong()),
        };
        if !is_region(region) {
            return Err(wrong());
        }
        Ok(Self {
            region: region.to_owned(),
            account: account.parse().map_err(|_| wrong())?,
            id: id.parse().map_err(|_| wrong())?,
            version: version.map(str::parse).transpose().map_err(|_| wrong())?,
        })
    }
}
text_serde!(ConnectorArn);

/// Whether `text` has the shape of a region's name: lower-case labels and digits joined by hyphens.
#[must_use]
pub fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_what_they_parse() {
        let id = MicrovmId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("mvm-a991cd0b-3321-3e2c-a982-d5c4db52b17a".parse::<MicrovmId>().is_err());
        assert!("microvm-a991cd0b33213e2ca982d5c4db52b17a".parse::<MicrovmId>().is_err());
        assert!("123".parse::<AccountId>().is_err());
    }

    #[test]
    fn image_arn_has_a_colon_before_the_name() {
        let text = "arn:aws:lambda:us-east-1:123456789012:microvm-image:my-app";
        let arn: ImageArn = text.parse().unwrap();
        assert_eq!((arn.name.as_str(), arn.to_string().as_str()), ("my-app", text));
        for bad in [
            "",
            "my-app",
            "arn:aws:lambda:us-east-1:123456789012:microvm-image/my-app",
            "arn:aws:lambda:us-east-1:1:microvm-image:x",
            "arn:aws:lambda::123456789012:microvm-image:x",
        ] {
            assert!(bad.parse::<ImageArn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_normalise() {
        for (text, shown) in [("1", "1.0"), ("1.0", "1.0"), ("25.0", "25.0")] {
            assert_eq!(text.parse::<ImageVersion>().unwrap().to_string(), shown);
        }
        for bad in ["", ".0", "1.1", "01", "-1", "+1", "1.0.0", "99999999999"] {
            assert!(bad.parse::<ImageVersion>().is_err(), "{bad}");
        }
        assert_eq!(ImageVersion::FIRST.next().to_string(), "2.0");
    }

    #[test]
    fn connector_arns_may_name_a_version() {
        let id = ConnectorId::random();
        let text = format!("arn:aws:lambda:us-east-1:123456789012:network-connector:{id}");
        let arn: ConnectorArn = text.parse().unwrap();
        assert_eq!((arn.id, arn.version, arn.to_string()), (id, None, text.clone()));
        let version = arn.of_version(ConnectorVersion::FIRST.next());
        assert_eq!(version.to_string(), format!("{text}:2"));
        assert_eq!(version.to_string().parse(), Ok(version));
        for bad in [":0", ":01", ":+1", ":", ":x", ":1:2", ":4294967296"] {
            assert!(format!("{text}{bad}").parse::<ConnectorArn>().is_err(), "{bad}");
        }
        let managed = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:INTERNET_EGRESS";
        assert!(managed.parse::<ConnectorArn>().is_err());
    }
}
