//! What policies decide, and what is no policy.

#![allow(clippy::unwrap_used, reason = "in a test it is a failure")]

use iam::{Access, Context, Decision, Policy, evaluate};
use rekindle_iam as iam;

const BUCKET: &str = "arn:aws:s3:::b";

fn decide(policies: &[&str], action: &str, resource: &str, context: &Context) -> Decision {
    let policies: Vec<Policy> = policies.iter().map(|json| Policy::parse(json).unwrap()).collect();
    evaluate(&policies, &Access { action, resource, context })
}

/// What one statement of the newest version decides.
fn statement(body: &str, action: &str, resource: &str, context: &Context) -> Decision {
    let policy = format!(r#"{{"Version":"2012-10-17","Statement":{{{body}}}}}"#);
    decide(&[&policy], action, resource, context)
}

/// Whether a condition holds.
fn holds(condition: &str, context: &Context) -> bool {
    let body = format!(r#""Effect":"Allow","Action":"*","Resource":"*","Condition":{{{condition}}}"#);
    statement(&body, "s3:GetObject", BUCKET, context) == Decision::Allowed
}

/// Whether a condition holds where a key has one value.
fn passes(condition: &str, value: &str) -> bool {
    holds(condition, &Context::new().with("a:b", value))
}

fn refusal(json: &str) -> String {
    Policy::parse(json).unwrap_err().to_string()
}

#[test]
fn actions_match_whatever_their_case() {
    let none = Context::new();
    for (pattern, action, expected) in [
        ("lambda:RunMicrovm", "lambda:RunMicrovm", true),
        ("LAMBDA:runmicroVM", "lambda:RunMicrovm", true),
        ("lambda:Run*", "lambda:RunMicrovm", true),
        ("lambda:*microvm", "lambda:RunMicrovm", true),
        ("lambda:???Microvm", "lambda:RunMicrovm", true),
        ("lambda:??Microvm", "lambda:RunMicrovm", false),
        ("*", "lambda:RunMicrovm", true),
        ("s3:*", "lambda:RunMicrovm", false),
        ("lambda:Run", "lambda:RunMicrovm", false),
    ] {
        let body = format!(r#""Effect":"Allow","Action":"{pattern}","Resource":"*""#);
        assert_eq!(statement(&body, action, "*", &none) == Decision::Allowed, expected, "{pattern} {action}");
    }
}

#[test]
fn resources_match_part_by_part_and_in_their_case() {
    let none = Context::new();
    for (pattern, resource, expected) in [
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b/k/l", true),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::B/k", false),
        ("arn:aws:s3:::b/?", "arn:aws:s3:::b/k", true),
        ("arn:aws:s3:::b/?", "arn:aws:s3:::b/", false),
        ("arn:aws:s3:::b?k", "arn:aws:s3:::b/k", true),
        ("arn:aws:lambda:*:1:microvm-image:a", "arn:aws:lambda:us-east-1:1:microvm-image:a", true),
        ("arn:aws:lambda:*:microvm-image:a", "arn:aws:lambda:us-east-1:1:microvm-image:a", false),
        ("arn:aws:lambda:*:1:microvm-image:a:*", "arn:aws:lambda:us-east-1:1:microvm-image:a:1.0", true),
        ("arn:aws:lambda:*:*:*", "arn:aws:lambda:us-east-1:1:microvm-image:a:1.0", true),
        ("arn:aws:lambda:*:*:*", "*", false),
        ("*", "*", true),
    ] {
        let body = format!(r#""Effect":"Allow","Action":"*","Resource":["{pattern}"]"#);
        assert_eq!(
            statement(&body, "x:Y", resource, &none) == Decision::Allowed,
            expected,
            "{pattern} {resource}"
        );
    }
}

#[test]
fn the_negated_elements_mean_everything_else() {
    let none = Context::new();
    let body =
        r#""Effect":"Allow","NotAction":["iam:*","sts:Assume*"],"NotResource":"arn:aws:s3:::secret/*""#;
    assert_eq!(statement(body, "s3:GetObject", BUCKET, &none), Decision::Allowed);
    assert_eq!(statement(body, "iam:PassRole", BUCKET, &none), Decision::ImplicitDeny);
    assert_eq!(statement(body, "s3:GetObject", "arn:aws:s3:::secret/k", &none), Decision::ImplicitDeny);
}

#[test]
fn a_denial_in_any_policy_is_final() {
    let allow = r#"{"Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;
    let deny = r#"{"Statement":{"Sid":"No1","Effect":"Deny","Action":"s3:Delete*","Resource":"*"}}"#;
    let none = Context::new();
    for policies in [[allow, deny], [deny, allow]] {
        assert_eq!(decide(&policies, "s3:DeleteObject", BUCKET, &none), Decision::ExplicitDeny);
        assert_eq!(decide(&policies, "s3:GetObject", BUCKET, &none), Decision::Allowed);
        assert_eq!(decide(&policies, "lambda:RunMicrovm", "*", &none), Decision::ImplicitDeny);
    }
    assert_eq!(decide(&[], "s3:GetObject", BUCKET, &none), Decision::ImplicitDeny);
}

#[test]
fn variables_are_text_and_not_patterns() {
    let body = r#""Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:UserName}/*""#;
    let user = |name: &str| Context::new().with("aws:username", name);
    assert_eq!(statement(body, "s3:GetObject", "arn:aws:s3:::b/eve/k", &user("eve")), Decision::Allowed);
    assert_eq!(statement(body, "s3:GetObject", "arn:aws:s3:::b/bob/k", &user("eve")), Decision::ImplicitDeny);
    assert_eq!(statement(body, "s3:GetObject", "arn:aws:s3:::b/bob/k", &user("*")), Decision::ImplicitDeny);
    assert_eq!(statement(body, "s3:GetObject", "arn:aws:s3:::b//k", &Context::new()), Decision::ImplicitDeny);

    let stars = r#""Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${*}${?}${$}""#;
    assert_eq!(statement(stars, "s3:GetObject", "arn:aws:s3:::b/*?$", &Context::new()), Decision::Allowed);
    assert_eq!(
        statement(stars, "s3:GetObject", "arn:aws:s3:::b/abc", &Context::new()),
        Decision::ImplicitDeny
    );

    let default = r#""Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:username, 'all'}""#;
    assert_eq!(statement(default, "s3:GetObject", "arn:aws:s3:::b/all", &Context::new()), Decision::Allowed);
}

#[test]
fn the_old_version_has_no_variables() {
    for version in ["", r#""Version":"2008-10-17","#] {
        let policy = format!(
            r#"{{{version}"Statement":{{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${{aws:username}}"}}}}"#
        );
        let eve = Context::new().with("aws:username", "eve");
        assert_eq!(decide(&[&policy], "x:Y", "arn:aws:s3:::b/eve", &eve), Decision::ImplicitDeny);
        assert_eq!(decide(&[&policy], "x:Y", "arn:aws:s3:::b/${aws:username}", &eve), Decision::Allowed);
    }
}

#[test]
fn an_unknown_variable_lets_nobody_in_even_where_it_is_negated() {
    let none = Context::new();
    for (effect, expected) in [("Allow", Decision::ImplicitDeny), ("Deny", Decision::ExplicitDeny)] {
        let body =
            format!(r#""Effect":"{effect}","Action":"*","NotResource":"arn:aws:s3:::b/${{aws:username}}""#);
        assert_eq!(statement(&body, "x:Y", "arn:aws:s3:::b/k", &none), expected);
        let body = format!(
            r#""Effect":"{effect}","Action":"*","Resource":"*","Condition":{{"StringNotEquals":{{"a:b":"${{aws:username}}"}}}}"#
        );
        assert_eq!(statement(&body, "x:Y", BUCKET, &Context::new().with("a:b", "x")), expected);
    }
}

#[test]
fn operators_on_text() {
    assert!(passes(r#""StringEquals":{"A:B":["x","y"]}"#, "y"));
    assert!(!passes(r#""StringEquals":{"a:b":"x*"}"#, "xy"));
    assert!(passes(r#""StringEquals":{"a:b":"x*"}"#, "x*"));
    assert!(!passes(r#""StringEquals":{"a:b":"X"}"#, "x"));
    assert!(passes(r#""StringEqualsIgnoreCase":{"a:b":"ÄX"}"#, "äx"));
    assert!(!passes(r#""StringNotEqualsIgnoreCase":{"a:b":"X"}"#, "x"));
    assert!(!passes(r#""StringNotEquals":{"a:b":["x","y"]}"#, "y"));
    assert!(passes(r#""StringNotEquals":{"a:b":["x","y"]}"#, "z"));
    assert!(passes(r#""StringLike":{"a:b":"home/*"}"#, "home/a:b/c"));
    assert!(!passes(r#""StringLike":{"a:b":"home/?"}"#, "home/"));
    assert!(!passes(r#""StringNotLike":{"a:b":"home/*"}"#, "home/x"));
    let both = Context::new().with("a:b", "eve").with("aws:username", "eve");
    assert!(holds(r#""StringEquals":{"a:b":"${aws:username}"}"#, &both));
    assert!(holds(r#""StringLike":{"a:b":"e*"},"Bool":{"c:d":true}"#, &both.clone().with("c:d", "true")));
    assert!(!holds(r#""StringLike":{"a:b":"e*"},"Bool":{"c:d":true}"#, &both.with("c:d", "false")));
}

#[test]
fn operators_on_arns() {
    let image = "arn:aws:lambda:us-east-1:1:microvm-image:web:1.0";
    for operator in ["ArnLike", "ArnEquals"] {
        assert!(passes(&format!(r#""{operator}":{{"a:b":"arn:aws:lambda:*:1:microvm-image:*"}}"#), image));
        // Observed on AWS: an ArnLike on microvm-image/* is of no use.
        assert!(!passes(&format!(r#""{operator}":{{"a:b":"arn:aws:lambda:*:1:microvm-image/*"}}"#), image));
        assert!(!passes(&format!(r#""{operator}":{{"a:b":"arn:aws:*:*:microvm-image:web:1.0"}}"#), image));
    }
    assert!(passes(r#""ArnNotLike":{"a:b":"arn:aws:lambda:*:2:*"}"#, image));
    assert!(!passes(r#""ArnNotEquals":{"a:b":"arn:aws:lambda:*:1:*"}"#, image));
    assert!(!passes(r#""ArnLike":{"a:b":"arn:aws:lambda:*:1:*"}"#, "no arn"));
}

#[test]
fn operators_on_numbers_dates_truth_and_addresses() {
    for (condition, value, expected) in [
        (r#""NumericEquals":{"a:b":5}"#, "5.0", true),
        (r#""NumericNotEquals":{"a:b":"5"}"#, "5", false),
        (r#""NumericLessThan":{"a:b":"5"}"#, "4.5", true),
        (r#""NumericLessThan":{"a:b":"5"}"#, "5", false),
        (r#""NumericLessThanEquals":{"a:b":"5"}"#, "5", true),
        (r#""NumericGreaterThan":{"a:b":[9,3]}"#, "4", true),
        (r#""NumericGreaterThanEquals":{"a:b":"5"}"#, "4", false),
        (r#""NumericLessThan":{"a:b":"5"}"#, "many", false),
        (r#""DateLessThan":{"a:b":"2026-01-01T00:00:00Z"}"#, "2025-12-31T23:59:59Z", true),
        (r#""DateLessThan":{"a:b":"2026-01-01"}"#, "2026-01-01T00:00:00Z", false),
        (r#""DateGreaterThanEquals":{"a:b":"2026-01-01T00:00Z"}"#, "2026-01-01T00:00:00.001Z", true),
        (r#""DateGreaterThan":{"a:b":"2026-01-01T01:00:00+01:00"}"#, "2026-01-01T00:00:01Z", true),
        (r#""DateEquals":{"a:b":1767225600}"#, "2026-01-01T00:00:00Z", true),
        (r#""DateNotEquals":{"a:b":"2026-01-01"}"#, "1767225600", false),
        (r#""DateLessThanEquals":{"a:b":"2026-01-01"}"#, "yesterday", false),
        (r#""Bool":{"a:b":"TRUE"}"#, "true", true),
        (r#""Bool":{"a:b":false}"#, "true", false),
        (r#""IpAddress":{"a:b":"203.0.113.0/24"}"#, "203.0.113.77", true),
        (r#""IpAddress":{"a:b":"203.0.113.7"}"#, "203.0.113.77", false),
        (r#""IpAddress":{"a:b":"203.0.113.0/24"}"#, "::ffff:203.0.113.77", true),
        (r#""IpAddress":{"a:b":"2001:db8::/32"}"#, "2001:db8:1::1", true),
        (r#""NotIpAddress":{"a:b":["10.0.0.0/8","203.0.113.0/24"]}"#, "203.0.113.77", false),
        (r#""NotIpAddress":{"a:b":"10.0.0.0/8"}"#, "203.0.113.77", true),
        (r#""IpAddress":{"a:b":"0.0.0.0/0"}"#, "nowhere", false),
    ] {
        assert_eq!(passes(condition, value), expected, "{condition} {value}");
    }
}

#[test]
fn a_key_that_is_not_there() {
    let none = Context::new();
    for (condition, expected) in [
        (r#""StringEquals":{"a:b":"x"}"#, false),
        (r#""StringEqualsIfExists":{"a:b":"x"}"#, true),
        (r#""StringNotEquals":{"a:b":"x"}"#, true),
        (r#""NumericLessThanIfExists":{"a:b":1}"#, true),
        (r#""NotIpAddress":{"a:b":"10.0.0.0/8"}"#, true),
        (r#""Bool":{"a:b":"false"}"#, false),
        (r#""Null":{"a:b":"true"}"#, true),
        (r#""Null":{"a:b":"false"}"#, false),
        (r#""ForAllValues:StringEquals":{"a:b":"x"}"#, true),
        (r#""ForAnyValue:StringEquals":{"a:b":"x"}"#, false),
        (r#""ForAnyValue:StringNotEquals":{"a:b":"x"}"#, false),
        (r#""ForAnyValue:StringLikeIfExists":{"a:b":"x"}"#, true),
    ] {
        assert_eq!(holds(condition, &none), expected, "{condition}");
    }
    assert!(!passes(r#""StringEqualsIfExists":{"a:b":"x"}"#, "y"));
    assert!(passes(r#""Null":{"a:b":"false"}"#, "y"));
    assert!(!passes(r#""Null":{"a:b":["true"]}"#, "y"));
}

#[test]
fn a_key_with_several_values() {
    let of = |values: &[&str]| {
        let mut context = Context::new();
        context.set_all("aws:TagKeys", values.iter().copied());
        context
    };
    let all = r#""ForAllValues:StringLike":{"aws:TagKeys":["env","team-*"]}"#;
    assert!(holds(all, &of(&["env", "team-a"])));
    assert!(!holds(all, &of(&["env", "owner"])));
    let any = r#""ForAnyValue:StringEquals":{"aws:TagKeys":["env","team"]}"#;
    assert!(holds(any, &of(&["owner", "team"])));
    assert!(!holds(any, &of(&["owner"])));
    let none_of = r#""ForAllValues:StringNotEquals":{"aws:TagKeys":["env"]}"#;
    assert!(holds(none_of, &of(&["owner", "team"])));
    assert!(!holds(none_of, &of(&["owner", "env"])));
    let some_other = r#""ForAnyValue:StringNotEquals":{"aws:TagKeys":["env"]}"#;
    assert!(holds(some_other, &of(&["owner", "env"])));
    assert!(!holds(some_other, &of(&["env"])));
    assert!(!holds(r#""StringNotEquals":{"aws:TagKeys":"env"}"#, &of(&["owner", "env"])));
}

#[test]
fn what_is_no_policy_says_where_and_why() {
    let policy = |statement: &str| format!(r#"{{"Version":"2012-10-17","Statement":[{statement}]}}"#);
    for (json, words) in [
        ("", vec!["invalid Json"]),
        ("[]", vec!["JSON object", "the policy"]),
        (r#"{"Version":"2012-10-17"}"#, vec!["at least one statement"]),
        (r#"{"Version":"2012-10-17","Statement":[]}"#, vec!["at least one statement"]),
        (r#"{"Version":"2020-01-01","Statement":{}}"#, vec!["2020-01-01", "Version"]),
        (r#"{"Statement":{},"Statement":{}}"#, vec!["Statement", "twice"]),
        (r#"{"Statement":{},"Statment":{}}"#, vec!["Statment"]),
        (&policy(r#""Allow""#), vec!["Statement[0]"]),
        (
            &policy(r#"{"Action":"s3:*","Resource":"*"}"#),
            vec!["Missing required field Effect", "Statement[0]"],
        ),
        (
            &policy(r#"{"Effect":"allow","Action":"s3:*","Resource":"*"}"#),
            vec!["Invalid effect", "Statement[0].Effect"],
        ),
        (&policy(r#"{"Effect":"Allow","Resource":"*"}"#), vec!["must contain actions"]),
        (&policy(r#"{"Effect":"Allow","Action":[],"Resource":"*"}"#), vec!["must contain actions"]),
        (&policy(r#"{"Effect":"Allow","Action":"s3:*"}"#), vec!["must contain resources"]),
        (
            &policy(r#"{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}"#),
            vec!["NotAction", "not both"],
        ),
        (
            &policy(r#"{"Effect":"Allow","Action":"GetObject","Resource":"*"}"#),
            vec!["prefaced by a vendor", "Action"],
        ),
        (&policy(r#"{"Effect":"Allow","Action":"*:*","Resource":"*"}"#), vec!["Vendor * is not valid"]),
        (
            &policy(r#"{"Effect":"Allow","Action":["s3:Get Object"],"Resource":"*"}"#),
            vec!["s3:Get Object", "Action[0]"],
        ),
        (&policy(r#"{"Effect":"Allow","Action":[1],"Resource":"*"}"#), vec!["string", "Action[0]"]),
        (
            &policy(r#"{"Effect":"Allow","Action":"*","Resource":["*","bucket"]}"#),
            vec!["Resource bucket must be in ARN format or \"*\".", "Statement[0].Resource[1]"],
        ),
        (
            &policy(r#"{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username"}"#),
            vec!["no \"}\""],
        ),
        (&policy(r#"{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${me}"}"#), vec!["${me}"]),
        (
            &policy(r#"{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}"#),
            vec!["not specify a principal"],
        ),
        (&policy(r#"{"Effect":"Allow","Action":"*","Resource":"*","Conditon":{}}"#), vec!["Conditon"]),
        (
            &policy(r#"{"Sid":"a b","Effect":"Allow","Action":"*","Resource":"*"}"#),
            vec!["alpha-numeric", "Sid"],
        ),
    ] {
        let refusal = refusal(json);
        assert!(words.iter().all(|word| refusal.contains(word)), "{json}\n{refusal}");
    }
    let twice = r#"{"Sid":"A","Effect":"Allow","Action":"*","Resource":"*"}"#;
    assert!(refusal(&policy(&format!("{twice},{twice}"))).contains("must be unique"));
    assert!(refusal(&" ".repeat(iam::limits::DOCUMENT + 1)).contains("at most 131072"));
}

#[test]
fn what_is_no_condition_says_where_and_why() {
    for (condition, words) in [
        (r#""StringEqual":{"a:b":"x"}"#, vec!["StringEqual", "Condition.StringEqual.a:b"]),
        (r#""ForSomeValues:StringEquals":{"a:b":"x"}"#, vec!["ForSomeValues"]),
        (r#""NullIfExists":{"a:b":"true"}"#, vec!["Null"]),
        (r#""StringEquals":{"b":"x"}"#, vec!["prefaced by a vendor"]),
        (r#""StringEquals":"x""#, vec!["condition keys"]),
        (r#""StringEquals":{"a:b":[]}"#, vec!["no value"]),
        (r#""StringEquals":{"a:b":{}}"#, vec!["strings"]),
        (r#""StringEquals":{"a:b":null}"#, vec!["strings"]),
        (r#""Bool":{"a:b":"yes"}"#, vec!["\"yes\" is not true or false"]),
        (r#""NumericEquals":{"a:b":"NaN"}"#, vec!["not a number"]),
        (r#""DateEquals":{"a:b":"2026-13-01"}"#, vec!["not a date"]),
        (r#""IpAddress":{"a:b":"10.0.0.0/33"}"#, vec!["not an address"]),
        (r#""ArnLike":{"a:b":"image"}"#, vec!["image must be in ARN format"]),
    ] {
        let refusal = refusal(&format!(
            r#"{{"Statement":{{"Effect":"Allow","Action":"*","Resource":"*","Condition":{{{condition}}}}}}}"#
        ));
        assert!(words.iter().all(|word| refusal.contains(word)), "{condition}\n{refusal}");
    }
}
