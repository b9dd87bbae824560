//! Names of hosts, and the patterns of them that rules have.

use std::fmt;
use std::str::FromStr;

use crate::egress::EgressError;

/// The longest name there is, as text without the dot at its end (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// The names that a rule lets out: one name, or all names below one, however many labels further down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    below: bool,
    name: String,
}

impl Domain {
    /// Whether it stands for this name.
    #[must_use]
    pub fn matches(&self, name: &HostName) -> bool {
        match name.0.strip_suffix(self.name.as_str()) {
            Some(rest) if self.below => rest.ends_with('.'),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }
}

impl FromStr for Domain {
    type Err = EgressError;

    fn from_str(text: &str) -> Result<Self, EgressError> {
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        let labels = name.split('.').map(str::as_bytes);
        let name = HostName::from_labels(labels).ok_or_else(|| EgressError::Domain(text.to_owned()))?;
        Ok(Self { below, name: name.0 })
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.name)
    }
}

/// A name of letters, digits, hyphens and underscores, its letters small: what can be compared without a doubt. DNS lets
/// labels hold any byte, dots among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// The name of these labels, if it is one.
    pub fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let mut name = String::new();
        for label in labels {
            if !(1..=MAX_LABEL).contains(&label.len()) || !label.iter().all(legal) {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
        (1..=MAX_NAME).contains(&name.len()).then_some(Self(name))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> HostName {
        HostName::from_labels(text.split('.').map(str::as_bytes)).unwrap()
    }

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_stands_for_itself_and_a_star_for_what_is_below() {
        assert!(domain("PyPI.org").matches(&name("pypi.ORG")));
        for other in ["www.pypi.org", "xpypi.org", "pypi.org.example.com", "org", "ypi.org"] {
            assert!(!domain("pypi.org").matches(&name(other)), "{other}");
        }
        for below in ["raw.githubusercontent.com", "a.b.githubusercontent.com"] {
            assert!(domain("*.githubusercontent.com").matches(&name(below)), "{below}");
        }
        for other in ["githubusercontent.com", "xgithubusercontent.com", "a.githubusercontent.com.x.com"] {
            assert!(!domain("*.githubusercontent.com").matches(&name(other)), "{other}");
        }
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        let long = vec!["abcdefghij"; 25].join(".");
        for bad in
            ["", "*", "*.", ".", "a.", ".a", "a..b", "*.*.a", "a.*", "b\u{fc}cher.de", "a b", "1.2.3.4/32"]
        {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
        assert!(long.parse::<Domain>().is_err());
        assert_eq!(domain("*.Example.com").to_string(), "*.example.com");
    }

    proptest! {
        #[test]
        fn matching_is_by_whole_labels(
            labels in proptest::collection::vec("[a-z0-9_-]{1,8}", 1..6),
            rule in proptest::collection::vec("[a-z0-9_-]{1,8}", 1..4),
            below in any::<bool>(),
            related in any::<bool>(),
        ) {
            let labels = if related { [labels, rule.clone()].concat() } else { labels };
            let text = format!("{}{}", if below { "*." } else { "" }, rule.join("."));
            let expected = if below {
                labels.len() > rule.len() && labels.ends_with(&rule)
            } else {
                labels == rule
            };
            prop_assert_eq!(domain(&text).matches(&name(&labels.join("."))), expected);
        }

        #[test]
        fn any_bytes_are_a_name_or_none(labels in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            if let Some(name) = HostName::from_labels(labels.iter().map(Vec::as_slice)) {
                prop_assert_eq!(name.to_string().split('.').count(), labels.len());
            }
        }
    }
}
