//! Who may become a role.

#![allow(clippy::unwrap_used, reason = "in a test it is a failure")]

use iam::{Context, Decision, TrustPolicy, TrustedPrincipal};
use rekindle_iam as iam;

const LAMBDA: TrustedPrincipal<'static> = TrustedPrincipal::Service("lambda.amazonaws.com");
const ACCOUNT: &str = "111122223333";
const EVE: TrustedPrincipal<'static> =
    TrustedPrincipal::Aws { account: ACCOUNT, arn: "arn:aws:iam::111122223333:user/ops/eve", role: None };
const SESSION: TrustedPrincipal<'static> = TrustedPrincipal::Aws {
    account: ACCOUNT,
    arn: "arn:aws:sts::111122223333:assumed-role/deploy/ci",
    role: Some("arn:aws:iam::111122223333:role/ci/deploy"),
};

fn policy(principal: &str, condition: &str) -> TrustPolicy {
    let json = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{principal},
            "Action":["sts:AssumeRole","sts:TagSession"]{condition}}}]}}"#
    );
    TrustPolicy::parse(&json).unwrap()
}

fn trusts(principal: &str, who: TrustedPrincipal<'_>) -> bool {
    policy(principal, "").decide(&who, "sts:AssumeRole", &Context::new()) == Decision::Allowed
}

#[test]
fn principals_of_every_form() {
    assert!(trusts(r#"{"Service":"lambda.amazonaws.com"}"#, LAMBDA));
    assert!(trusts(r#"{"Service":["ec2.amazonaws.com","lambda.amazonaws.com"]}"#, LAMBDA));
    assert!(!trusts(r#"{"Service":"ec2.amazonaws.com"}"#, LAMBDA));
    for everybody in [r#""*""#, r#"{"AWS":"*"}"#] {
        assert!(trusts(everybody, EVE));
        assert!(!trusts(everybody, LAMBDA), "a service is never part of everybody");
    }
    for account in [r#"{"AWS":"111122223333"}"#, r#"{"AWS":["arn:aws:iam::111122223333:root"]}"#] {
        assert!(trusts(account, EVE) && trusts(account, SESSION));
    }
    assert!(!trusts(r#"{"AWS":"999999999999"}"#, EVE));
    assert!(trusts(r#"{"AWS":"arn:aws:iam::111122223333:user/ops/eve"}"#, EVE));
    assert!(!trusts(r#"{"AWS":"arn:aws:iam::111122223333:user/ops/bob"}"#, EVE));
    assert!(trusts(r#"{"AWS":"arn:aws:iam::111122223333:role/ci/deploy"}"#, SESSION));
    assert!(trusts(r#"{"AWS":"arn:aws:sts::111122223333:assumed-role/deploy/ci"}"#, SESSION));
    assert!(!trusts(r#"{"AWS":"arn:aws:sts::111122223333:assumed-role/deploy/me"}"#, SESSION));
}

#[test]
fn who_is_let_in_by_name_is_told_apart_from_who_is_let_in_with_the_account() {
    let names = |principal: &str| policy(principal, "").names(&EVE, "sts:AssumeRole", &Context::new());
    assert!(names(r#"{"AWS":"arn:aws:iam::111122223333:user/ops/eve"}"#));
    assert!(!names(r#"{"AWS":"111122223333"}"#));
    assert!(!names(r#""*""#));
}

#[test]
fn actions_and_conditions_count() {
    let image = "arn:aws:lambda:us-east-1:111122223333:microvm-image:web";
    let context = Context::new().with("aws:SourceAccount", ACCOUNT).with("aws:SourceArn", image);
    let condition = r#","Condition":{"StringEquals":{"aws:SourceAccount":"111122223333"},
        "ArnLike":{"aws:SourceArn":"arn:aws:lambda:*:111122223333:microvm-image:*"}}"#;
    let trust = policy(r#"{"Service":"lambda.amazonaws.com"}"#, condition);
    assert_eq!(trust.decide(&LAMBDA, "sts:AssumeRole", &context), Decision::Allowed);
    assert_eq!(trust.decide(&LAMBDA, "sts:SetSourceIdentity", &context), Decision::ImplicitDeny);
    assert_eq!(trust.decide(&LAMBDA, "sts:AssumeRole", &Context::new()), Decision::ImplicitDeny);
    let deny = r#"{"Statement":[
        {"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"},
        {"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::111122223333:user/ops/eve"},"Action":"sts:*"}]}"#;
    let deny = TrustPolicy::parse(deny).unwrap();
    assert_eq!(deny.decide(&EVE, "sts:AssumeRole", &context), Decision::ExplicitDeny);
    assert_eq!(deny.decide(&SESSION, "sts:AssumeRole", &context), Decision::Allowed);
}

#[test]
fn what_is_no_trust_policy_says_where_and_why() {
    for (statement, words) in [
        (r#""Action":"sts:AssumeRole""#, "Missing required field Principal"),
        (r#""Principal":"*","Action":"sts:AssumeRole","Resource":"*""#, "Has prohibited field Resource"),
        (r#""Principal":"*","NotAction":"sts:AssumeRole""#, "Has prohibited field NotAction"),
        (r#""Principal":"*","Action":"s3:GetObject""#, "may only specify STS AssumeRole actions"),
        (r#""Principal":"*","Action":"*""#, "may only specify STS AssumeRole actions"),
        (r#""Principal":"me","Action":"sts:AssumeRole""#, "Invalid principal"),
        (r#""Principal":{},"Action":"sts:AssumeRole""#, "nobody is named"),
        (
            r#""Principal":{"AWS":"1234"},"Action":"sts:AssumeRole""#,
            r#"Invalid principal in policy: "AWS":"1234""#,
        ),
        (
            r#""Principal":{"AWS":"arn:aws:iam::111122223333:user/*"},"Action":"sts:AssumeRole""#,
            "Invalid principal",
        ),
        (r#""Principal":{"AWS":"arn:aws:s3:::b"},"Action":"sts:AssumeRole""#, "Invalid principal"),
        (r#""Principal":{"Service":"lambda"},"Action":"sts:AssumeRole""#, r#""Service":"lambda""#),
        (r#""Principal":{"Federated":"x"},"Action":"sts:AssumeRole""#, "Federated"),
    ] {
        let refusal = TrustPolicy::parse(&format!(r#"{{"Statement":{{"Effect":"Allow",{statement}}}}}"#));
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains(words) && refusal.contains("Statement[0]"), "{statement}\n{refusal}");
    }
}
