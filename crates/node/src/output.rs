//! Whether what an application prints is kept.

use iam::ServiceRoles;
use ids::ImageArn;
use store::{LogSettings, MicrovmRecord};

/// Whether the execution role lets its output be written. Without a role there is nobody in whose name it could be.
pub(crate) fn is_kept(roles: &dyn ServiceRoles, microvm: &MicrovmRecord) -> bool {
    let Some(role) = &microvm.execution_role_arn else { return false };
    let kept = may_be_written(roles, role, microvm.logging.as_ref(), &microvm.image, &microvm.id.to_string());
    kept.unwrap_or_else(|error| {
        tracing::warn!(microvm = %microvm.id, error, "its output is not kept");
        false
    })
}

fn may_be_written(
    roles: &dyn ServiceRoles,
    role: &str,
    logging: Option<&LogSettings>,
    image: &ImageArn,
    default_stream: &str,
) -> Result<bool, String> {
    let (group, stream) = match logging {
        Some(LogSettings::Disabled) => return Ok(false),
        Some(LogSettings::CloudWatch { group, stream }) => (group.as_deref(), stream.as_deref()),
        None => (None, None),
    };
    let session = roles.assume(role, &image.account.to_string(), &image.to_string())?;
    let may = |action: &str, arn: &str| session.may(action, arn).is_ok();
    Ok(logs::permitted(image, group, stream.unwrap_or(default_stream), may))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iam::RoleSession;

    use super::*;

    /// One role, which may write to one group.
    #[derive(Debug)]
    struct Writer;

    impl ServiceRoles for Writer {
        fn assume(&self, role: &str, account: &str, source: &str) -> Result<Arc<dyn RoleSession>, String> {
            assert_eq!((account, source), ("123456789012", image().to_string().as_str()));
            if role == "writer" { Ok(Arc::new(Writer)) } else { Err(format!("no {role}")) }
        }
    }

    impl RoleSession for Writer {
        fn may(&self, _: &str, resource: &str) -> Result<(), String> {
            let group = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda-microvms/a:log-stream:";
            if resource.starts_with(group) { Ok(()) } else { Err(format!("not to {resource}")) }
        }
    }

    fn image() -> ImageArn {
        "arn:aws:lambda:us-east-1:123456789012:microvm-image:a".parse().unwrap()
    }

    #[test]
    fn output_goes_where_the_role_may_write_or_nowhere() {
        let kept = |role, logging: Option<LogSettings>| {
            may_be_written(&Writer, role, logging.as_ref(), &image(), "stream")
        };
        let group = |name: &str| Some(LogSettings::CloudWatch { group: Some(name.into()), stream: None });
        assert_eq!(kept("writer", None), Ok(true));
        assert_eq!(kept("writer", group("/aws/lambda-microvms/a")), Ok(true));
        assert_eq!(kept("writer", group("/other")), Ok(false));
        assert_eq!(kept("writer", Some(LogSettings::Disabled)), Ok(false));
        assert_eq!(kept("stranger", None), Err("no stranger".to_owned()));
    }
}
