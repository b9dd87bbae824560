//! The managed policies that every account finds under `arn:aws:iam::aws:policy/`.

use std::sync::LazyLock;

use iam::Policy;

use crate::names::AWS_POLICY;

/// When they were made, as far as anybody is told.
pub(crate) const CREATED_AT_MS: u64 = 1_423_216_800_000;

/// One of them.
#[derive(Debug)]
pub(crate) struct AwsPolicy {
    /// `ANPA…`
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) document: &'static str,
    pub(crate) policy: Policy,
}

impl AwsPolicy {
    pub(crate) fn arn(&self) -> String {
        format!("{AWS_POLICY}{}", self.name)
    }
}

macro_rules! policies {
    ($($id:literal $name:literal),+ $(,)?) => {
        [$(AwsPolicy {
            id: $id,
            name: $name,
            document: include_str!(concat!("managed/", $name, ".json")),
            policy: Policy::parse(include_str!(concat!("managed/", $name, ".json")))
                .expect("the tests read every policy of this list"),
        }),+]
    };
}

/// All of them, in the order of their names.
pub(crate) static ALL: LazyLock<[AwsPolicy; 7]> = LazyLock::new(|| {
    policies![
        "ANPAREKINDLE000000001" "AWSLambda_FullAccess",
        "ANPAREKINDLE000000002" "AWSLambda_ReadOnlyAccess",
        "ANPAREKINDLE000000003" "AdministratorAccess",
        "ANPAREKINDLE000000004" "AmazonS3FullAccess",
        "ANPAREKINDLE000000005" "AmazonS3ReadOnlyAccess",
        "ANPAREKINDLE000000006" "CloudWatchLogsFullAccess",
        "ANPAREKINDLE000000007" "IAMFullAccess",
    ]
});

/// The one with this ARN.
pub(crate) fn find(arn: &str) -> Option<&'static AwsPolicy> {
    let name = arn.strip_prefix(AWS_POLICY)?;
    ALL.iter().find(|policy| policy.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iam::{Access, Context, Decision, evaluate};

    fn allows(name: &str, action: &str, resource: &str) -> bool {
        let policy = &find(&format!("{AWS_POLICY}{name}")).unwrap().policy;
        let access = Access { action, resource, context: &Context::new() };
        evaluate([policy], &access) == Decision::Allowed
    }

    #[test]
    fn each_allows_what_its_name_says_and_no_more() {
        let image = "arn:aws:lambda:us-east-1:123456789012:microvm-image:x";
        assert!(allows("AdministratorAccess", "iam:CreateUser", "*"));
        assert!(allows("AWSLambda_FullAccess", "lambda:RunMicrovm", image));
        assert!(!allows("AWSLambda_FullAccess", "iam:CreateUser", "*"));
        assert!(!allows("AWSLambda_FullAccess", "iam:PassRole", "arn:aws:iam::123456789012:role/R"));
        assert!(allows("AWSLambda_ReadOnlyAccess", "lambda:GetMicrovm", image));
        assert!(!allows("AWSLambda_ReadOnlyAccess", "lambda:RunMicrovm", image));
        assert!(allows("AmazonS3ReadOnlyAccess", "s3:GetObject", "arn:aws:s3:::b/k"));
        assert!(!allows("AmazonS3ReadOnlyAccess", "s3:PutObject", "arn:aws:s3:::b/k"));
        assert!(allows("AmazonS3FullAccess", "s3:PutObject", "arn:aws:s3:::b/k"));
        assert!(allows("CloudWatchLogsFullAccess", "logs:PutLogEvents", "arn:aws:logs:us-east-1:1:x"));
        assert!(allows("IAMFullAccess", "iam:CreateUser", "arn:aws:iam::123456789012:user/x"));
        assert!(!allows("IAMFullAccess", "lambda:RunMicrovm", image));
    }

    #[test]
    fn they_are_in_the_order_of_their_names() {
        assert!(ALL.is_sorted_by_key(|policy| policy.name));
        assert!(ALL.iter().all(|policy| policy.id.len() == 21));
    }
}
