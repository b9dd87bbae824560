//! Which CloudWatch Logs is sent to: the server's settings, then AWS's environment variables. Pure.

use std::fmt;

use auth::keys::AccessKey;
use http::uri::{Scheme, Uri};
use serde::Deserialize;

const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
/// Stands for the id of the account in the prefix of groups.
const ACCOUNT: &str = "{account}";

/// What can be set; keys that are not come from the environment.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudWatchSettings {
    /// URL of the service; AWS's in the region where it is left out.
    pub endpoint: Option<String>,
    /// Region; the server's where it is left out.
    pub region: Option<String>,
    /// What groups' names get before them; `{account}` stands for the id of the account.
    pub group_prefix: String,
    /// Id of an access key that may create groups and streams and put events.
    pub access_key_id: Option<String>,
    /// Its secret.
    pub secret_access_key: Option<String>,
    /// The token that belongs to temporary keys.
    pub session_token: Option<String>,
}

impl fmt::Debug for CloudWatchSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, region, group_prefix, access_key_id, .. } = self;
        f.debug_struct("CloudWatchSettings")
            .field("endpoint", endpoint)
            .field("region", region)
            .field("group_prefix", group_prefix)
            .field("access_key_id", access_key_id)
            .finish_non_exhaustive()
    }
}

/// Why logs cannot be sent there.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Nobody to sign for.
    #[error(
        "cannot forward logs to CloudWatch without an access key: set access_key_id and secret_access_key of [logs.cloudwatch], \
         or {ACCESS_KEY} and {SECRET_KEY} in the server's environment"
    )]
    Keys,
    /// The endpoint is no URL.
    #[error(
        "cannot forward logs to {0:?} (logs.cloudwatch.endpoint): give the URL of the service without a path, such as \
         https://logs.us-east-1.amazonaws.com"
    )]
    Endpoint(String),
}

/// Where, and in whose name.
pub(crate) struct Place {
    pub(crate) uri: Uri,
    pub(crate) region: String,
    pub(crate) prefix: String,
    pub(crate) key: AccessKey,
    pub(crate) session_token: Option<String>,
}

impl Place {
    /// By the settings of a server in `region`, and else by the environment's `variable`s.
    pub(crate) fn find(
        settings: &CloudWatchSettings,
        region: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let (key, session_token) = match (&settings.access_key_id, &settings.secret_access_key) {
            (Some(id), Some(secret)) => ((id.clone(), secret.clone()), settings.session_token.clone()),
            // Never one's id with the other's secret.
            (None, None) => {
                let key = variable(ACCESS_KEY).zip(variable(SECRET_KEY)).ok_or(SettingsError::Keys)?;
                (key, variable(SESSION_TOKEN))
            }
            _ => return Err(SettingsError::Keys),
        };
        let region = settings.region.clone().unwrap_or_else(|| region.to_owned());
        let url = settings.endpoint.clone().unwrap_or_else(|| of_aws(&region));
        let uri = parse(&url).ok_or(SettingsError::Endpoint(url))?;
        let (prefix, (id, secret)) = (settings.group_prefix.clone(), key);
        Ok(Self { uri, region, prefix, key: AccessKey { id, secret }, session_token })
    }

    /// What a group of an account is called there.
    pub(crate) fn group(&self, account: &str, group: &str) -> String {
        format!("{}{group}", self.prefix.replace(ACCOUNT, account))
    }
}

fn of_aws(region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://logs.{region}.{domain}")
}

fn parse(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
    (known && uri.authority().is_some() && uri.path() == "/" && uri.query().is_none()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(settings: &CloudWatchSettings, variables: &[(&str, &str)]) -> Result<Place, SettingsError> {
        let variable = |wanted: &str| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).into())
        };
        Place::find(settings, "us-east-1", variable)
    }

    fn keys() -> CloudWatchSettings {
        let (id, secret) = (Some("AKIA".into()), Some("s".into()));
        CloudWatchSettings { access_key_id: id, secret_access_key: secret, ..CloudWatchSettings::default() }
    }

    #[test]
    fn keys_are_those_of_the_settings_or_those_of_the_environment() {
        let variables = [(ACCESS_KEY, "ASIA"), (SECRET_KEY, "t"), (SESSION_TOKEN, "token")];
        let set = find(&keys(), &variables).unwrap();
        assert_eq!((set.key.id.as_str(), set.key.secret.as_str(), set.session_token), ("AKIA", "s", None));
        let found = find(&CloudWatchSettings::default(), &variables).unwrap();
        assert_eq!((found.key.id.as_str(), found.session_token.as_deref()), ("ASIA", Some("token")));
        let half = CloudWatchSettings { secret_access_key: None, ..keys() };
        for (settings, variables) in
            [(half, &variables[..]), (CloudWatchSettings::default(), &variables[..1])]
        {
            assert!(matches!(find(&settings, variables), Err(SettingsError::Keys)));
        }
    }

    #[test]
    fn the_endpoint_is_the_regions_or_the_one_that_is_set() {
        let uri = |settings: CloudWatchSettings| find(&settings, &[]).map(|place| place.uri.to_string());
        assert_eq!(uri(keys()).unwrap(), "https://logs.us-east-1.amazonaws.com/");
        let region = |region: &str| CloudWatchSettings { region: Some(region.into()), ..keys() };
        assert_eq!(uri(region("cn-north-1")).unwrap(), "https://logs.cn-north-1.amazonaws.com.cn/");
        let endpoint = |url: &str| CloudWatchSettings { endpoint: Some(url.into()), ..keys() };
        assert_eq!(uri(endpoint("http://127.0.0.1:9000")).unwrap(), "http://127.0.0.1:9000/");
        for url in ["127.0.0.1:9000", "ftp://a", "http://a/path", ""] {
            assert!(matches!(uri(endpoint(url)), Err(SettingsError::Endpoint(named)) if named == url));
        }
    }

    #[test]
    fn groups_are_called_as_the_prefix_says() {
        let place =
            find(&CloudWatchSettings { group_prefix: "/lab/{account}".into(), ..keys() }, &[]).unwrap();
        assert_eq!(place.group("123456789012", "/aws/x"), "/lab/123456789012/aws/x");
    }

    #[test]
    fn no_secret_is_printed() {
        let settings = CloudWatchSettings { session_token: Some("hidden".into()), ..keys() };
        let settings = CloudWatchSettings { secret_access_key: Some("hidden".into()), ..settings };
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
