//! Where traces and log records go: the server's settings, for traces OpenTelemetry's environment variables too. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Scheme, Uri};
use http::{Method, Request};
use http_body_util::Full;
use serde::Deserialize;

const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
/// Of all signals; each has a path below it.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PATH: &str = "/v1/traces";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const DEFAULT_SERVICE_NAME: &str = "rekindle";
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// What can be set. What is not comes for traces from the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The URL that is posted to.
    pub endpoint: Option<String>,
    /// What the service is called: in traces it is the server, in logs what prints.
    pub service_name: Option<String>,
    /// Headers that the collector asks for.
    pub headers: BTreeMap<String, String>,
}

/// Why nothing can be sent there.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The endpoint is no URL.
    #[error(
        "cannot export {signal} to {value:?} ({origin}): give the URL of an OTLP/HTTP endpoint, such as \
         http://127.0.0.1:4318/v1/{signal}"
    )]
    Endpoint {
        /// What goes there.
        signal: &'static str,
        /// The setting or variable.
        origin: &'static str,
        /// What it says.
        value: String,
    },
    /// A header cannot be sent. Its value may be a secret and is not told.
    #[error("cannot export with the header {name:?} ({setting}): give a name and a value of printable ASCII")]
    Header {
        /// The setting.
        setting: &'static str,
        /// The header's name.
        name: String,
    },
}

/// Where traces go, and who sends them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) collector: Collector,
    pub(crate) service_name: String,
}

/// A place that takes one signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collector {
    pub(crate) uri: Uri,
    headers: HeaderMap,
}

impl Collector {
    /// Where the settings of `[logs.otlp]` say, if they do.
    pub(crate) fn of_logs(settings: &Settings) -> Result<Option<Self>, SettingsError> {
        let Some(value) = settings.endpoint.clone() else { return Ok(None) };
        Self::find("logs", ("logs.otlp.endpoint", value), "logs.otlp.headers", settings).map(Some)
    }

    fn find(
        signal: &'static str,
        (origin, value): (&'static str, String),
        setting: &'static str,
        settings: &Settings,
    ) -> Result<Self, SettingsError> {
        let uri = parse(&value).ok_or(SettingsError::Endpoint { signal, origin, value })?;
        let headers = headers(&settings.headers);
        let headers = headers.map_err(|name| SettingsError::Header { setting, name })?;
        Ok(Self { uri, headers })
    }

    /// A request with this message.
    pub(crate) fn post(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
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
        let Some(found) = found else { return Ok(None) };
        let service_name = settings.service_name.clone().or_else(|| variable(SERVICE_NAME));
        Ok(Some(Self {
            collector: Collector::find("traces", found, "traces.headers", settings)?,
            service_name: service_name.unwrap_or_else(|| DEFAULT_SERVICE_NAME.into()),
        }))
    }
}

fn parse(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
    (known && uri.authority().is_some()).then_some(uri)
}

/// What is sent with each request; the name of one that cannot be.
fn headers(set: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in set {
        let bad = || name.clone();
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
        find(settings, variables).unwrap().map(|target| target.collector.uri.to_string())
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
    fn logs_go_where_the_settings_say_and_nowhere_else() {
        assert_eq!(Collector::of_logs(&Settings::default()).unwrap(), None);
        let set = |url: &str| Settings { endpoint: Some(url.into()), ..Settings::default() };
        let found = Collector::of_logs(&set("http://a/v1/logs")).unwrap().unwrap();
        assert_eq!(found.uri, "http://a/v1/logs");
        let error = Collector::of_logs(&set("a")).unwrap_err().to_string();
        assert!(error.contains("logs.otlp.endpoint") && error.contains("/v1/logs"), "{error}");
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
