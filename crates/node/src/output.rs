//! Where what an application prints is kept, if at all.

use iam::ServiceRoles;
use logs::{Destination, Logs, Output};
use store::{LogSettings, MicrovmRecord};

/// Takes what the application prints to where its execution role lets it be written, or nowhere. Without a role there is
/// nobody in whose name it could be.
pub(crate) fn of(logs: &Logs, roles: &dyn ServiceRoles, microvm: &MicrovmRecord) -> Output {
    match (&microvm.execution_role_arn, destination(microvm)) {
        (Some(role), Some(to)) => match is_permitted(roles, role, microvm, &to) {
            Ok(true) => logs.output(to),
            Ok(false) => Output::nowhere(),
            Err(error) => {
                tracing::warn!(microvm = %microvm.id, error, "its output is not kept");
                Output::nowhere()
            }
        },
        _ => Output::nowhere(),
    }
}

/// Where the application's output goes, if it may be kept (SPEC §8); none where logging is disabled.
#[must_use]
pub fn destination(microvm: &MicrovmRecord) -> Option<Destination> {
    let (group, stream) = match &microvm.logging {
        Some(LogSettings::Disabled) => return None,
        Some(LogSettings::CloudWatch { group, stream }) => (group.clone(), stream.clone()),
        None => (None, None),
    };
    let default = || logs::stream_name(microvm.life.started_at, microvm.version, microvm.id);
    Some(Destination {
        account: microvm.account.clone(),
        group: group.unwrap_or_else(|| logs::default_group(&microvm.image)),
        stream: stream.unwrap_or_else(default),
        source: microvm.id.as_u128(),
    })
}

fn is_permitted(
    roles: &dyn ServiceRoles,
    role: &str,
    microvm: &MicrovmRecord,
    to: &Destination,
) -> Result<bool, String> {
    let image = &microvm.image;
    let session = roles.assume(role, &image.account.to_string(), &image.to_string())?;
    let may = |action: &str, arn: &str| session.may(action, arn).is_ok();
    Ok(logs::permitted(image, to, may))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iam::RoleSession;
    use ids::ImageArn;

    use super::*;
    use crate::node::tests::microvm;

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

    fn logging(group: &str, stream: Option<&str>) -> Option<LogSettings> {
        Some(LogSettings::CloudWatch { group: Some(group.into()), stream: stream.map(str::to_owned) })
    }

    #[test]
    fn output_goes_where_the_role_may_write_or_nowhere() {
        let kept = |role, logging: Option<LogSettings>| {
            let microvm = MicrovmRecord { logging, ..microvm() };
            is_permitted(&Writer, role, &microvm, &destination(&microvm).unwrap())
        };
        assert_eq!(kept("writer", None), Ok(true));
        assert_eq!(kept("writer", logging("/aws/lambda-microvms/a", Some("mine"))), Ok(true));
        assert_eq!(kept("writer", logging("/other", None)), Ok(false));
        assert_eq!(kept("stranger", None), Err("no stranger".to_owned()));
    }

    #[test]
    fn what_is_configured_is_used_exactly_and_the_rest_is_the_default() {
        let record = microvm();
        let to = |logging| destination(&MicrovmRecord { logging, ..record.clone() });
        let id = record.id;
        let default = to(None).unwrap();
        assert_eq!(default.group, "/aws/lambda-microvms/a");
        assert_eq!(default.stream, format!("1970/01/01[1.0]{id}"));
        let own = to(logging("/mine", Some("exactly [this]"))).unwrap();
        assert_eq!((own.group.as_str(), own.stream.as_str()), ("/mine", "exactly [this]"));
        assert_eq!(to(logging("/mine", None)).unwrap().stream, default.stream);
        assert_eq!(to(Some(LogSettings::Disabled)), None);
    }
}
