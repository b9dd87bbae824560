//! Whether a role may write a log: as on AWS, output goes where the customer's role lets it go, or nowhere.

use ids::ImageArn;

use crate::{Destination, default_group};

/// What a role needs to have output written in its name.
const ACTIONS: [&str; 2] = ["logs:CreateLogStream", "logs:PutLogEvents"];
/// Another name that documentation has for the default group, before the image's: a role for either is right (SPEC §3).
const DOCUMENTED: &str = "/aws/lambda/microvms/";

/// Whether what belongs to `image` may be written to `to`. `may` says what the role may do, an action and an ARN.
pub fn permitted(image: &ImageArn, to: &Destination, may: impl Fn(&str, &str) -> bool) -> bool {
    let may_write = |group: &str| {
        let (ImageArn { region, account, .. }, stream) = (image, &to.stream);
        let arn = format!("arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:{stream}");
        ACTIONS.iter().all(|action| may(action, &arn))
    };
    let documented = || format!("{DOCUMENTED}{}", image.name);
    may_write(&to.group) || (to.group == default_group(image) && may_write(&documented()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageArn {
        "arn:aws:lambda:us-east-1:123456789012:microvm-image:web".parse().unwrap()
    }

    fn to(group: &str) -> Destination {
        Destination { account: image().account, group: group.into(), stream: "s".into(), source: 0 }
    }

    #[test]
    fn a_role_for_either_default_group_is_right() {
        for group in ["/aws/lambda-microvms/web", "/aws/lambda/microvms/web"] {
            let arn = format!("arn:aws:logs:us-east-1:123456789012:log-group:{group}:");
            let default = to(&default_group(&image()));
            assert!(permitted(&image(), &default, |_, resource| resource.starts_with(&arn)));
            assert!(permitted(&image(), &to(group), |_, resource| resource.starts_with(&arn)));
            assert!(!permitted(&image(), &to("/mine"), |_, resource| resource.starts_with(&arn)));
        }
    }

    #[test]
    fn both_actions_are_needed() {
        for action in ACTIONS {
            assert!(!permitted(&image(), &to("/g"), |asked, _| asked != action));
        }
        assert!(permitted(&image(), &to("/g"), |_, _| true));
    }
}
