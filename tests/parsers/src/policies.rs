//! IAM policies, as users write them, held against a request.

use iam::{Access, Context, Policy, TrustPolicy, TrustedPrincipal, evaluate};

pub(crate) fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let context = Context::new()
        .with("aws:username", "alice")
        .with("aws:SourceAccount", "123456789012")
        .with("aws:SourceArn", "arn:aws:lambda:us-east-1:123456789012:microvm-image:my-app")
        .with("aws:CurrentTime", "2026-11-24T19:00:00Z")
        .with("aws:SecureTransport", "true")
        .with("aws:ResourceTag/team", "blue");
    let access = Access {
        action: "lambda:RunMicrovm",
        resource: "arn:aws:lambda:us-east-1:123456789012:microvm-image:my-app",
        context: &context,
    };
    if let Ok(policy) = Policy::parse(text) {
        let once = evaluate([&policy], &access);
        assert_eq!(
            evaluate([&policy, &policy], &access),
            once,
            "a policy that says another thing the second time"
        );
    }
    if let Ok(trust) = TrustPolicy::parse(text) {
        let root = "arn:aws:iam::123456789012:root";
        for principal in [
            TrustedPrincipal::Service("lambda.amazonaws.com"),
            TrustedPrincipal::Aws { account: "123456789012", arn: root, role: None },
        ] {
            let once = trust.decide(&principal, "sts:AssumeRole", &context);
            assert_eq!(trust.decide(&principal, "sts:AssumeRole", &context), once);
        }
    }
}
