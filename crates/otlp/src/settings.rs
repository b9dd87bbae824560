//! Where traces go: the server's settings, then OpenTelemetry's environment variables. Pure.

use std::collections::BTreeMap;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Scheme, Uri};
use serde::Deserialize;

const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// Of all signals; each has a path below it.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PATH: &str = "/v1/traces";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const DEFAULT_SERVICE_NAME: &str = "rekindle";
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// What can be set; what is not comes from the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The URL that traces are posted to.
    pub endpoint: Option<String>,
    /// What the server is called in them.
    pub service_name: Option<String>,
    /// Headers that the collector asks for.
    pub headers: BTreeMap<String, String>,
}

/// Why traces cannot be sent there.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The endpoint is no URL.
    #[error(
        "cannot export traces to {value:?} ({origin}): give the URL of an OTLP/HTTP endpoint, such as \
         http://127.0.0.1:4318/v1/traces"
    )]
    Endpoint {
        /// The setting or variable.
        origin: &'static str,
        /// What it says.
        value: String,
    },
    /// A header cannot be sent. Its value may be a secret and is not told.
    #[error(
        "cannot export traces with the header {0:?} (traces.headers): give a name and a value of printable ASCII"
    )]
    Header(String),
}

/// A collector, and who sends to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) service_name: String,
}

impl Target {
    /// Where traces go, by the settings and else by the environment's `variable`s; `None` where neither says.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn find(
        settings: &Settings,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let below = |base: String| format!("{}{PATH}", base.trim_end_matches('/'));
        let found = settings.endpoint.clone().map(|url| ("traces.endpoint", url));
        let found = found.or_else(|| variable(TRACES_ENDPOINT).map(|url| (TRACES_ENDPOINT, url)));
        let found = found.or_else(|| variable(ENDPOINT).map(|base| (ENDPOINT, below(base))));
        let Some((origin, value)) = found else { return Ok(None) };
        let uri = parse(&value).ok_or(SettingsError::Endpoint { origin, value })?;
        let service_name = settings.service_name.clone().or_else(|| variable(SERVICE_NAME));
        Ok(Some(Self {
            uri,
            headers: headers(&settings.headers)?,
            service_name: service_name.unwrap_or_else(|| DEFAULT_SERVICE_NAME.into()),
        }))
    }
}

fn parse(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
    (known && uri.authority().is_some()).then_some(uri)
}

fn headers(set: &BTreeMap<String, String>) -> Result<HeaderMap, SettingsError> {
    let mut headers = HeaderMap::new();
    for (name, value) in set {
        let bad = || SettingsError::Header(name.clone());
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(name).map_err(|_| bad())?, value);
    }
    headers.insert(CONTENT_TYPE, PROTOBUF);
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(settings: &Settings, variables: &[(&str, &str)]) -> Result<Option<Target>, SettingsError> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        Target::find(settings, |name| variables.get(name).map(|value| (*value).to_owned()))
    }

    fn uri(settings: &Settings, variables: &[(&str, &str)]) -> Option<String> {
        find(settings, variables).unwrap().map(|target| target.uri.to_string())
    }

    #[test]
    fn settings_come_before_variables_and_the_special_one_before_the_general() {
        let set = Settings { endpoint: Some("https://a/x".into()), ..Settings::default() };
        let (general, special) = ((ENDPOINT, "http://b:4318/"), (TRACES_ENDPOINT, "http://c:4318/y"));
        assert_eq!(uri(&set, &[general, special]).as_deref(), Some("https://a/x"));
        let unset = Settings::default();
        assert_eq!(uri(&unset, &[general, special]).as_deref(), Some("http://c:4318/y"));
        assert_eq!(uri(&unset, &[general]).as_deref(), Some("http://b:4318/v1/traces"));
        assert_eq!(uri(&unset, &[(ENDPOINT, "")]), None);
    }

    #[test]
    fn the_service_has_a_name() {
        let mut set = Settings { endpoint: Some("http://a/".into()), ..Settings::default() };
        let name = |set: &Settings, variables: &[_]| find(set, variables).unwrap().unwrap().service_name;
        assert_eq!(name(&set, &[]), "rekindle");
        assert_eq!(name(&set, &[(SERVICE_NAME, "b")]), "b");
        set.service_name = Some("c".into());
        assert_eq!(name(&set, &[(SERVICE_NAME, "b")]), "c");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for url in ["127.0.0.1:4318", "ftp://a/", "/v1/traces", "http://"] {
            let error = find(&Settings::default(), &[(TRACES_ENDPOINT, url)]).unwrap_err().to_string();
            assert!(error.contains(url) && error.contains(TRACES_ENDPOINT), "{error}");
        }
        for (name, value) in [("a b", "c"), ("authorization", "secret\n")] {
            let headers = [(name.to_owned(), value.to_owned())].into();
            let set = Settings { endpoint: Some("http://a/".into()), headers, ..Settings::default() };
            let error = find(&set, &[]).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }
}
