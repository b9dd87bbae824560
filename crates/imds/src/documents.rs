//! The tree of documents.

use agent_proto::{Credentials, Metadata};

/// The name of the one profile, whatever the role's.
const PROFILE: &str = "/latest/meta-data/iam/security-credentials/execution_role";
const ZONE: &str = "/latest/meta-data/placement/availability-zone-id";
const REGION: &str = "/latest/meta-data/placement/region";
const GROUP_KEY: &str = "/latest/meta-data/tags/instance/aws_instance-group-symmetric-key";
/// All of them, sorted.
const PATHS: [&str; 4] = [PROFILE, ZONE, REGION, GROUP_KEY];

/// The document at `path`, or what lies below it, a line each and folders with a slash.
pub(crate) fn find(path: &str, metadata: &Metadata) -> Option<String> {
    match path {
        PROFILE => metadata.credentials.as_ref().map(render),
        ZONE => Some(metadata.availability_zone_id.clone()),
        REGION => Some(metadata.region.clone()),
        GROUP_KEY => Some(metadata.group_key.clone()),
        folder => list(folder, metadata.credentials.is_some()),
    }
}

fn list(folder: &str, has_profile: bool) -> Option<String> {
    let prefix = format!("{}/", folder.trim_end_matches('/'));
    let mut names: Vec<String> = PATHS
        .iter()
        .filter(|path| has_profile || **path != PROFILE)
        .filter_map(|path| path.strip_prefix(&prefix))
        .map(|rest| rest.split_inclusive('/').next().unwrap_or(rest).to_owned())
        .collect();
    names.dedup();
    (!names.is_empty()).then(|| names.join("\n"))
}

/// As EC2 writes it; SDKs insist on `Code`.
fn render(credentials: &Credentials) -> String {
    serde_json::json!({
        "Code": "Success",
        "LastUpdated": credentials.last_updated,
        "Type": "AWS-HMAC",
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "Token": credentials.session_token,
        "Expiration": credentials.expiration,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        Metadata {
            region: "r".into(),
            availability_zone_id: "z".into(),
            group_key: "k".into(),
            credentials: Some(Credentials { session_token: "a\"b".into(), ..Credentials::default() }),
        }
    }

    #[test]
    fn every_folder_lists_what_is_in_it_and_nothing_else() {
        let list = |path: &str| find(path, &metadata());
        assert_eq!(list("/").unwrap(), "latest/");
        assert_eq!(list("/latest").unwrap(), "meta-data/");
        assert_eq!(list("/latest/meta-data/iam").unwrap(), "security-credentials/");
        assert_eq!(list("/latest/meta-data/placement").unwrap(), "availability-zone-id\nregion");
        assert_eq!(list("/latest/meta-data/tags/instance").unwrap(), "aws_instance-group-symmetric-key");
        for missing in ["/latest/meta", "/latest/meta-data/placement/region/x", "/latest/dynamic", "/lat"] {
            assert_eq!(list(missing), None, "{missing}");
        }
    }

    #[test]
    fn credentials_are_json_whatever_is_in_them() {
        let text = find(PROFILE, &metadata()).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&document["Code"], &document["Token"]), (&"Success".into(), &"a\"b".into()));
    }
}
