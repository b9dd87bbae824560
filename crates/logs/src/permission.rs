//! Whether a role may write a log: as on AWS, output goes where the customer's role lets it go, or nowhere.

use ids::ImageArn;

/// What a role needs to have output written in its name.
const ACTIONS: [&str; 2] = ["logs:CreateLogStream", "logs:PutLogEvents"];
/// Names of the default group before the image's. Documentation has both, so a role for either is right (SPEC §3).
const DEFAULT_GROUPS: [&str; 2] = ["/aws/lambda-microvms/", "/aws/lambda/microvms/"];

/// Whether what belongs to `image` may be written to a stream of `group`; none is the default one. `may` says what
/// the role may do, an action and an ARN.
pub fn permitted(
    image: &ImageArn,
    group: Option<&str>,
    stream: &str,
    may: impl Fn(&str, &str) -> bool,
) -> bool {
    let may_write = |group: &str| {
        let ImageArn { region, account, .. } = image;
        let arn = format!("arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:{stream}");
        ACTIONS.iter().all(|action| may(action, &arn))
    };
    match group {
        Some(group) => may_write(group),
        None => DEFAULT_GROUPS.iter().any(|prefix| may_write(&format!("{prefix}{}", image.name.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageArn {
        "arn:aws:lambda:us-east-1:123456789012:microvm-image:web".parse().unwrap()
    }

    #[test]
    fn a_role_for_either_default_group_is_right() {
        for group in ["/aws/lambda-microvms/web", "/aws/lambda/microvms/web"] {
            let arn = format!("arn:aws:logs:us-east-1:123456789012:log-group:{group}:");
            assert!(permitted(&image(), None, "s", |_, resource| resource.starts_with(&arn)));
            assert!(permitted(&image(), Some(group), "s", |_, resource| resource.starts_with(&arn)));
            assert!(!permitted(&image(), Some("/mine"), "s", |_, resource| resource.starts_with(&arn)));
        }
    }

    #[test]
    fn both_actions_are_needed() {
        for action in ACTIONS {
            assert!(!permitted(&image(), None, "s", |asked, _| asked != action));
        }
        assert!(permitted(&image(), None, "s", |_, _| true));
    }
}
