//! The build role: whatever a build does for its customer, this role must be allowed to do.

use std::sync::Arc;

use iam::RoleSession;
use logs::{Logs, Output};
use objects::ReadError;
use store::{BuildRecord, VersionRecord};

use crate::builder::Workshop;
use crate::container::Source;
use crate::error::BuildError;
use crate::output::{self, Step};

/// The role of one build, taken on.
#[derive(Debug, Clone)]
pub(crate) struct BuildRole(Arc<dyn RoleSession>);

impl BuildRole {
    /// Takes on the role that the version names.
    pub(crate) fn assume(workshop: &Workshop, version: &VersionRecord) -> Result<Self, BuildError> {
        let (account, arn) = (version.image.account.to_string(), version.image.to_string());
        let session = workshop.roles.assume(&version.build_role_arn, &account, &arn);
        session.map(Self).map_err(BuildError::Role)
    }

    /// Takes what a VM of the build prints to where it is kept, or nowhere.
    pub(crate) fn output(
        &self,
        logs: &Logs,
        build: &BuildRecord,
        version: &VersionRecord,
        step: Step,
    ) -> Output {
        let may = |action: &str, arn: &str| self.0.may(action, arn).is_ok();
        let to = output::destination(build, version, step);
        let to = to.filter(|to| logs::permitted(&build.image, to, may));
        to.map_or_else(Output::nowhere, |to| logs.output(to))
    }

    /// Fails where the role may not read the artifact.
    pub(crate) fn may_read(&self, source: &Source<'_>) -> Result<(), BuildError> {
        let Source { bucket, key } = source;
        let may = self.0.may("s3:GetObject", &format!("arn:aws:s3:::{bucket}/{key}"));
        may.map_err(|why| BuildError::access_denied(bucket, key, why))
    }

    /// Why the artifact cannot be read. Which keys a bucket lacks is told to none but who may list it.
    pub(crate) fn unreadable(&self, error: ReadError, bucket: &str, key: &str) -> BuildError {
        match error {
            ReadError::NoSuchKey => match self.0.may("s3:ListBucket", &format!("arn:aws:s3:::{bucket}")) {
                Ok(()) => BuildError::s3(error, bucket, key),
                Err(why) => BuildError::access_denied(bucket, key, why),
            },
            error => BuildError::s3(error, bucket, key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// May do what starts with one of these to what starts with the other.
    #[derive(Debug)]
    struct Only(&'static [(&'static str, &'static str)]);

    impl RoleSession for Only {
        fn may(&self, action: &str, resource: &str) -> Result<(), String> {
            let allowed = |(a, r): &(&str, &str)| action.starts_with(a) && resource.starts_with(r);
            if self.0.iter().any(allowed) { Ok(()) } else { Err(format!("not {action} on {resource}")) }
        }
    }

    const SOURCE: Source<'static> = Source { bucket: "b", key: "app.zip" };

    fn role(grants: &'static [(&'static str, &'static str)]) -> BuildRole {
        BuildRole(Arc::new(Only(grants)))
    }

    #[test]
    fn the_artifact_must_be_readable_by_the_role() {
        role(&[("s3:GetObject", "arn:aws:s3:::b/")]).may_read(&SOURCE).unwrap();
        let denied = role(&[("s3:GetObject", "arn:aws:s3:::other/")]).may_read(&SOURCE).unwrap_err();
        let words =
            "S3_ACCESS_DENIED: cannot read s3://b/app.zip: not s3:GetObject on arn:aws:s3:::b/app.zip";
        assert_eq!(denied.reason(), words);
    }

    #[test]
    fn a_missing_key_is_a_secret_of_the_bucket() {
        let reason = |role: BuildRole, error| role.unreadable(error, "b", "app.zip").reason();
        let lister = || role(&[("s3:ListBucket", "arn:aws:s3:::b")]);
        assert!(reason(lister(), ReadError::NoSuchKey).starts_with("S3_NO_SUCH_KEY: "));
        assert!(reason(role(&[]), ReadError::NoSuchKey).starts_with("S3_ACCESS_DENIED: "));
        assert!(reason(role(&[]), ReadError::NoSuchBucket).starts_with("S3_NO_SUCH_BUCKET: "));
        assert!(reason(lister(), ReadError::NotYours).starts_with("S3_ACCESS_DENIED: "));
    }
}
