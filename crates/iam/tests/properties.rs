//! What holds of every policy.

#![allow(clippy::unwrap_used, reason = "in a test it is a failure")]

use iam::{Access, Context, Decision, Policy, TrustPolicy, evaluate};
use proptest::prelude::*;
use rekindle_iam as iam;

const ACTIONS: [&str; 4] = ["s3:GetObject", "s3:PutObject", "lambda:RunMicrovm", "iam:PassRole"];
const RESOURCES: [&str; 3] = ["arn:aws:s3:::b/k", "arn:aws:lambda:us-east-1:1:microvm-image:web", "*"];

prop_compose! {
    fn statement(effect: &'static str)(
        negated_action in any::<bool>(),
        action in prop::sample::select(vec!["*", "s3:*", "s3:Get*", "lambda:Run?icrovm", "iam:PassRole"]),
        negated_resource in any::<bool>(),
        resource in prop::sample::select(vec!["*", "arn:aws:s3:::b/*", "arn:aws:*:*:*:*", "arn:aws:s3:::${aws:username}/*"]),
        operator in prop::sample::select(vec!["StringEquals", "StringNotEquals", "StringLikeIfExists", "ForAllValues:StringLike"]),
        value in prop::sample::select(vec!["x", "*", "${aws:username}"]),
    ) -> String {
        let not = |negated| if negated { "Not" } else { "" };
        format!(
            r#"{{"Effect":"{effect}","{}Action":"{action}","{}Resource":"{resource}",
                "Condition":{{"{operator}":{{"a:b":"{value}"}}}}}}"#,
            not(negated_action), not(negated_resource)
        )
    }
}

prop_compose! {
    fn context()(values in prop::collection::vec("[xy*]", 0..3), user in prop::option::of("[bx*]")) -> Context {
        let mut context = Context::new();
        context.set_all("a:b", values);
        if let Some(user) = user {
            context.set("aws:username", user);
        }
        context
    }
}

fn policy(statements: &[String]) -> Policy {
    Policy::parse(&format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","))).unwrap()
}

fn any_statement() -> impl Strategy<Value = String> {
    prop_oneof![statement("Allow"), statement("Deny")]
}

proptest! {
    #[test]
    fn whatever_is_added_to_a_denial_it_stays_one(
        denying in statement("Deny"),
        others in prop::collection::vec(any_statement(), 0..5),
        at in any::<prop::sample::Index>(),
        action in prop::sample::select(ACTIONS.to_vec()),
        resource in prop::sample::select(RESOURCES.to_vec()),
        context in context(),
    ) {
        let access = Access { action, resource, context: &context };
        let alone = evaluate([&policy(std::slice::from_ref(&denying))], &access);
        let mut statements = others;
        statements.insert(at.index(statements.len() + 1), denying);
        if alone == Decision::ExplicitDeny {
            prop_assert_eq!(evaluate([&policy(&statements)], &access), Decision::ExplicitDeny);
        }
    }

    #[test]
    fn another_allowance_takes_nothing_away(
        statements in prop::collection::vec(any_statement(), 1..5),
        more in statement("Allow"),
        action in prop::sample::select(ACTIONS.to_vec()),
        resource in prop::sample::select(RESOURCES.to_vec()),
        context in context(),
    ) {
        let access = Access { action, resource, context: &context };
        let (before, more) = (policy(&statements), policy(&[more]));
        match evaluate([&before], &access) {
            Decision::ImplicitDeny => prop_assert_ne!(evaluate([&before, &more], &access), Decision::ExplicitDeny),
            decided => prop_assert_eq!(evaluate([&before, &more], &access), decided),
        }
    }

    #[test]
    fn statements_count_whatever_their_order_and_document(
        statements in prop::collection::vec(any_statement(), 1..5),
        action in prop::sample::select(ACTIONS.to_vec()),
        resource in prop::sample::select(RESOURCES.to_vec()),
        context in context(),
    ) {
        let access = Access { action, resource, context: &context };
        let apart: Vec<Policy> = statements.iter().rev().map(|one| policy(std::slice::from_ref(one))).collect();
        prop_assert_eq!(evaluate([&policy(&statements)], &access), evaluate(&apart, &access));
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = (Policy::parse(&text), TrustPolicy::parse(&text));
    }

    #[test]
    fn no_text_in_a_policy_is_a_panic(
        action in ".{0,20}", resource in "(arn:)?[${}:,'*a]{0,20}", operator in "(Date|Numeric|String|Arn|NotIp)[A-Za-z:]{0,12}",
        key in ".{0,9}", value in "[-0-9T:Z.+/eE${}*]{0,20}", asked in ".{0,20}",
    ) {
        for (operator, key) in [(operator.as_str(), key.as_str()), ("DateLessThan", "a:b"), ("NumericEquals", "a:b"),
            ("StringLike", "a:b"), ("ArnLike", "a:b"), ("IpAddress", "a:b")] {
            let json = serde_json::json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow",
                "Action": ["s3:*", action], "Resource": resource, "Condition": {operator: {key: value}}}});
            let _ = (Policy::parse(&json.to_string()), TrustPolicy::parse(&json.to_string()));
            let json = serde_json::json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow",
                "Action": "s3:*", "Resource": "*", "Condition": {operator: {key: value}}}});
            if let Ok(policy) = Policy::parse(&json.to_string()) {
                let context = Context::new().with(key, asked.as_str());
                evaluate([&policy], &Access { action: &asked, resource: &asked, context: &context });
                let context = Context::new().with(key, value.as_str());
                evaluate([&policy], &Access { action: &asked, resource: &asked, context: &context });
            }
        }
    }
}
