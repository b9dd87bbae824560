//! Endpoint host names: `<uuid>.lambda-microvm.<region>.<domain>`.

use ids::EndpointId;

/// The host names that this proxy answers for.
#[derive(Debug, Clone)]
pub struct EndpointHosts {
    /// `.lambda-microvm.<region>.<domain>`, in lower case.
    suffix: String,
}

impl EndpointHosts {
    /// Hosts in `region` under `domain`.
    #[must_use]
    pub fn new(region: &str, domain: &str) -> Self {
        let domain = domain.trim_matches('.');
        Self { suffix: format!(".lambda-microvm.{region}.{domain}").to_ascii_lowercase() }
    }

    /// The host name of an endpoint.
    #[must_use]
    pub fn host(&self, endpoint: EndpointId) -> String {
        format!("{endpoint}{}", self.suffix)
    }

    /// The name that a certificate for every endpoint carries.
    #[must_use]
    pub fn wildcard(&self) -> String {
        format!("*{}", self.suffix)
    }

    /// Whether a host name, in lower case, is one of those that endpoints have, or above them.
    #[must_use]
    pub fn reserves(&self, name: &str) -> bool {
        let suffix = self.suffix.trim_start_matches('.');
        name == suffix || name.ends_with(&self.suffix) || self.suffix.ends_with(&format!(".{name}"))
    }

    /// The endpoint that `authority` (a host, perhaps with `:port`) names, if it is one of ours.
    #[must_use]
    pub fn endpoint(&self, authority: &str) -> Option<EndpointId> {
        let host = host(authority)?;
        let split = host.len().checked_sub(self.suffix.len())?;
        let (label, suffix) = (host.get(..split)?, host.get(split..)?);
        suffix.eq_ignore_ascii_case(&self.suffix).then(|| label.parse().ok())?
    }
}

/// Its host, without a port and without the dot of the DNS root.
pub(crate) fn host(authority: &str) -> Option<&str> {
    let host = strip_port(authority)?;
    Some(host.strip_suffix('.').unwrap_or(host))
}

fn strip_port(authority: &str) -> Option<&str> {
    match authority.split_once(':') {
        None => Some(authority),
        Some((host, port)) => port.bytes().all(|b| b.is_ascii_digit()).then_some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_hosts_it_prints() {
        let hosts = EndpointHosts::new("us-east-1", "example.test");
        let id = EndpointId::random();
        let host = hosts.host(id);
        assert_eq!(hosts.endpoint(&host), Some(id));
        assert_eq!(hosts.endpoint(&format!("{host}:8443")), Some(id));
        assert_eq!(hosts.endpoint(&format!("{host}.")), Some(id));
        assert_eq!(hosts.endpoint(&host.to_ascii_uppercase()), Some(id));
        assert_eq!(hosts.wildcard(), "*.lambda-microvm.us-east-1.example.test");
    }

    #[test]
    fn its_names_and_those_above_are_nobody_elses() {
        let hosts = EndpointHosts::new("us-east-1", "example.test");
        for name in
            ["x.lambda-microvm.us-east-1.example.test", "us-east-1.example.test", "example.test", "test"]
        {
            assert!(hosts.reserves(name), "{name}");
        }
        for name in ["app.example.test", "x-lambda-microvm.us-east-1.example.test", "ample.test"] {
            assert!(!hosts.reserves(name), "{name}");
        }
    }

    #[test]
    fn refuses_other_hosts() {
        let hosts = EndpointHosts::new("us-east-1", "example.test");
        let id = EndpointId::random();
        for bad in [
            String::new(),
            ".lambda-microvm.us-east-1.example.test".into(),
            format!("{id}.lambda-microvm.eu-west-1.example.test"),
            format!("a.{id}.lambda-microvm.us-east-1.example.test"),
            format!("{id}.lambda-microvm.us-east-1.example.test:80x"),
            format!("{id}.lambda-microvm.us-east-1.example.test.evil"),
        ] {
            assert_eq!(hosts.endpoint(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = EndpointHosts::new("us-east-1", "example.test").endpoint(&text);
        }
    }
}
