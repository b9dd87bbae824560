//! Temporary credentials: who gets them, what they may do, and when they end.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{World, document, element, refusal, trust};
use iam::{Access, Context};
use rekindle_identity::{AssumeError, Caller, CredentialError};

const SERVICE: &str = "lambda.amazonaws.com";

/// A role with this trust that may do everything.
async fn role(world: &World, name: &str, principal: &str) -> String {
    let call = format!("CreateRole RoleName={name} AssumeRolePolicyDocument={}", trust(principal));
    let arn = element(&world.done(&call).await, "Arn");
    let all = document("Allow", "*", "*");
    world.done(&format!("PutRolePolicy RoleName={name} PolicyName=all PolicyDocument={all}")).await;
    arn
}

fn everybody_of(world: &World) -> String {
    format!(r#"{{"AWS":"{}"}}"#, world.id())
}

fn opened(world: &World, answer: &str) -> Arc<Caller> {
    let (id, token) = (element(answer, "AccessKeyId"), element(answer, "SessionToken"));
    let credential = world.identity.credential(&id, Some(&token)).unwrap();
    assert_eq!(credential.secret, element(answer, "SecretAccessKey"));
    assert_eq!(world.identity.secret(&id), Some(credential.secret));
    credential.caller
}

fn may(world: &World, caller: &Caller, action: &str) -> Result<(), String> {
    let access = Access { action, resource: "arn:aws:s3:::b/k", context: &Context::new() };
    world.identity.authorize(caller, &access).map_err(|denied| denied.to_string())
}

#[tokio::test]
async fn a_session_is_what_its_role_and_its_own_policy_both_allow() {
    let world = World::new().await;
    let arn = role(&world, "r", &everybody_of(&world)).await;
    let get = document("Allow", "s3:Get*", "*");
    let call = format!("AssumeRole RoleArn={arn} RoleSessionName=s1 Policy={get}");
    let answer = world.sts(&world.root(), &call).await.body;
    let session = opened(&world, &answer);
    assert_eq!(session.arn(), format!("arn:aws:sts::{}:assumed-role/r/s1", world.id()));
    assert_eq!(element(&answer, "AssumedRoleId"), session.user_id());
    assert_eq!(may(&world, &session, "s3:GetObject"), Ok(()));
    let denied = may(&world, &session, "s3:PutObject").unwrap_err();
    assert!(denied.ends_with("because no session policy allows the s3:PutObject action"), "{denied}");

    // What the role loses, its sessions lose at once.
    world.done("DeleteRolePolicy RoleName=r PolicyName=all").await;
    let denied = may(&world, &session, "s3:GetObject").unwrap_err();
    assert!(denied.ends_with("because no identity-based policy allows the s3:GetObject action"), "{denied}");

    let managed = "PolicyArns.member.1.arn=arn:aws:iam::aws:policy/Nothing";
    let call = format!("AssumeRole RoleArn={arn} RoleSessionName=s2 {managed}");
    let bounded = opened(&world, &world.sts(&world.root(), &call).await.body);
    world.done("AttachRolePolicy RoleName=r PolicyArn=arn:aws:iam::aws:policy/AdministratorAccess").await;
    assert!(may(&world, &bounded, "s3:GetObject").unwrap_err().contains("no session policy"));
}

#[tokio::test]
async fn a_role_is_taken_on_where_both_sides_agree() {
    let world = World::new().await;
    let nothing = world.caller(&world.user("ada", "").await);
    let allowed = world.caller(&world.user("bob", &document("Allow", "sts:AssumeRole", "*")).await);
    let denied = world.caller(&world.user("cyd", &document("Deny", "sts:AssumeRole", "*")).await);
    let ours = role(&world, "ours", &everybody_of(&world)).await;
    let theirs = role(&world, "theirs", r#"{"AWS":"999999999999"}"#).await;
    let named =
        r#"{"AWS":["arn:aws:iam::ID:user/ada","arn:aws:iam::ID:user/cyd"]}"#.replace("ID", &world.id());
    let named = role(&world, "named", &named).await;
    let missing = format!("arn:aws:iam::{}:role/missing", world.id());
    for (caller, arn, lets_in) in [
        (&nothing, &ours, false),
        (&allowed, &ours, true),
        (&denied, &ours, false),
        (&allowed, &theirs, false),
        (&nothing, &named, true),
        (&denied, &named, false),
        (&allowed, &named, false),
        (&allowed, &missing, false),
        (&world.root(), &ours, true),
        (&world.root(), &theirs, false),
    ] {
        let answer = world.sts(caller, &format!("AssumeRole RoleArn={arn} RoleSessionName=s1")).await;
        assert_eq!(answer.error.is_none(), lets_in, "{} as {arn}: {:?}", caller.arn(), answer.error);
        if !lets_in {
            let (status, code, message) = refusal(answer);
            assert_eq!((status, code.as_str()), (403, "AccessDenied"));
            let words = format!(
                "User: {} is not authorized to perform: sts:AssumeRole on resource: {arn}",
                caller.arn()
            );
            assert!(message.starts_with(&words), "{message}");
        }
    }
}

#[tokio::test]
async fn accounts_trust_each_other_only_where_both_say_so() {
    let world = World::new().await;
    let other = rekindle_identity::accounts::create(&world.store, None).await.unwrap();
    let stranger = world.identity.credential(&other.key.id, None).unwrap().caller;
    let arn = role(&world, "open", &format!(r#"{{"AWS":"{}"}}"#, other.record.id)).await;
    let closed = role(&world, "closed", &everybody_of(&world)).await;
    let assume = |arn: &str| format!("AssumeRole RoleArn={arn} RoleSessionName=s1");
    let session = opened(&world, &world.sts(&stranger, &assume(&arn)).await.body);
    assert_eq!(session.account.to_string(), world.id());
    assert_eq!(refusal(world.sts(&stranger, &assume(&closed)).await).0, 403);

    // Nobody sees another's users, roles or policies.
    world.done("CreateUser UserName=ada").await;
    let policy = element(
        &world
            .done(&format!("CreatePolicy PolicyName=p PolicyDocument={}", document("Allow", "*", "*")))
            .await,
        "Arn",
    );
    assert_eq!(refusal(world.iam(&stranger, "GetUser UserName=ada").await).0, 404);
    assert!(!world.iam(&stranger, "ListUsers").await.body.contains(">ada<"));
    assert!(!world.iam(&stranger, "ListRoles").await.body.contains("closed"));
    assert!(!world.iam(&stranger, "ListPolicies Scope=Local").await.body.contains("<member>"));
    assert_eq!(
        refusal(world.iam(&stranger, &format!("GetPolicy PolicyArn={policy}")).await).1,
        "AccessDenied"
    );
    assert_eq!(
        refusal(world.iam(&stranger, &format!("DeletePolicy PolicyArn={policy}")).await).1,
        "AccessDenied"
    );
    let attach = format!("AttachRolePolicy RoleName=MicroVMBuildRole PolicyArn={policy}");
    assert_eq!(refusal(world.iam(&stranger, &attach).await).1, "NoSuchEntity");
    let key = format!("DeleteAccessKey AccessKeyId={}", world.account.key.id);
    assert_eq!(refusal(world.iam(&stranger, &key).await).1, "NoSuchEntity");
}

#[tokio::test]
async fn durations_external_ids_and_tags_are_held_to() {
    let world = World::new().await;
    let trust = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"ID"},"Action":["sts:AssumeRole","sts:TagSession"],"Condition":{"StringEquals":{"sts:ExternalId":"secret"}}}}"#;
    let trust = trust.replace("ID", &world.id());
    world.done(&format!("CreateRole RoleName=r AssumeRolePolicyDocument={trust}")).await;
    let tagged = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/team":"red"}}}}"#;
    world.done(&format!("PutRolePolicy RoleName=r PolicyName=p PolicyDocument={tagged}")).await;
    let assume = async |rest: &str| {
        let call = format!("AssumeRole RoleArn=arn:aws:iam::{}:role/r RoleSessionName=s1 {rest}", world.id());
        world.sts(&world.root(), &call).await
    };
    assert_eq!(refusal(assume("").await).0, 403);
    assert_eq!(refusal(assume("ExternalId=other").await).0, 403);
    let plain = opened(&world, &assume("ExternalId=secret").await.body);
    assert!(may(&world, &plain, "s3:GetObject").is_err());
    let team = "ExternalId=secret Tags.member.1.Key=team Tags.member.1.Value=red";
    let red = opened(&world, &assume(team).await.body);
    assert_eq!(may(&world, &red, "s3:GetObject"), Ok(()));

    let (_, code, message) = refusal(assume("ExternalId=secret DurationSeconds=3601").await);
    assert_eq!(code, "ValidationError");
    assert_eq!(message, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.");
    assert!(
        refusal(assume("ExternalId=secret DurationSeconds=899").await)
            .2
            .contains("greater than or equal to 900")
    );
    let source = refusal(assume("ExternalId=secret SourceIdentity=me").await).2;
    assert!(source.contains("SourceIdentity is not supported here"));
    let long = document("Allow", &"s3:Get".repeat(400), "*");
    assert_eq!(refusal(assume(&format!("ExternalId=secret Policy={long}")).await).1, "PackedPolicyTooLarge");
}

#[tokio::test]
async fn a_session_ends_with_its_role_even_if_that_comes_back() {
    let world = World::new().await;
    let arn = role(&world, "r", &everybody_of(&world)).await;
    let call = format!("AssumeRole RoleArn={arn} RoleSessionName=s1");
    let answer = world.sts(&world.root(), &call).await.body;
    let session = opened(&world, &answer);
    world.done("DeleteRolePolicy RoleName=r PolicyName=all").await;
    world.done("DeleteRole RoleName=r").await;
    let open = || {
        let token = element(&answer, "SessionToken");
        world.identity.credential(&element(&answer, "AccessKeyId"), Some(&token)).map(|_| ())
    };
    assert_eq!(open(), Err(CredentialError::BadToken));
    role(&world, "r", &everybody_of(&world)).await;
    assert_eq!(open(), Err(CredentialError::BadToken));
    assert!(may(&world, &session, "s3:GetObject").is_err());
}

#[tokio::test]
async fn credentials_are_checked_to_the_letter() {
    let world = World::new().await;
    let root = world.root();
    let issued = world.identity.issue(&root, 900);
    let credential = |id: &str, token| world.identity.credential(id, token).map(|known| known.caller.arn());
    assert_eq!(credential(&issued.access_key_id, Some(&issued.session_token)), Ok(root.arn()));
    assert_eq!(credential(&issued.access_key_id, None), Err(CredentialError::BadToken));
    let other = world.identity.issue(&root, 900);
    assert_eq!(credential(&other.access_key_id, Some(&issued.session_token)), Err(CredentialError::BadToken));
    let over = world.identity.issue(&root, 0);
    assert_eq!(credential(&over.access_key_id, Some(&over.session_token)), Err(CredentialError::Expired));
    // A long-lived key has no token; an empty one is none.
    assert_eq!(credential(&root.access_key_id, Some("x")), Err(CredentialError::BadToken));
    assert_eq!(credential(&root.access_key_id, Some("")), Ok(root.arn()));
    for unknown in ["", "AKIA", "AKIAAAAAAAAAAAAAAAAA", "x".repeat(10_000).as_str()] {
        assert_eq!(credential(unknown, None), Err(CredentialError::Unknown));
        assert_eq!(world.identity.secret(unknown), None);
    }

    let ada = world.user("ada", "").await;
    world.done(&format!("UpdateAccessKey UserName=ada AccessKeyId={} Status=Inactive", ada.id)).await;
    assert_eq!(credential(&ada.id, None), Err(CredentialError::Inactive));
    assert_eq!(world.identity.secret(&ada.id), None);
    world.done(&format!("DeleteAccessKey UserName=ada AccessKeyId={}", ada.id)).await;
    assert_eq!(credential(&ada.id, None), Err(CredentialError::Unknown));
}

#[tokio::test]
async fn session_tokens_are_for_their_user_but_not_for_iam() {
    let world = World::new().await;
    let ada = world.caller(&world.user("ada", &document("Allow", "*", "*")).await);
    let session = opened(&world, &world.sts(&ada, "GetSessionToken").await.body);
    assert_eq!((session.arn(), may(&world, &session, "s3:GetObject")), (ada.arn(), Ok(())));
    assert_eq!(refusal(world.iam(&session, "ListUsers").await).1, "InvalidClientTokenId");
    assert_eq!(refusal(world.sts(&session, "GetSessionToken").await).1, "AccessDenied");
    let info = world.sts(&session, &format!("GetAccessKeyInfo AccessKeyId={}", ada.access_key_id)).await.body;
    assert_eq!(element(&info, "Account"), world.id());
}

#[tokio::test]
async fn a_service_takes_on_a_role_that_trusts_it_in_the_account_it_acts_for() {
    let world = World::new().await;
    let arn = format!("arn:aws:iam::{}:role/MicroVMExecutionRole", world.id());
    let acting_for = |account: &str| Context::new().with("aws:SourceAccount", account);
    let assume = |arn: &str, context| world.identity.assume_for_service(arn, SERVICE, &context);
    let session = assume(&arn, acting_for(&world.id())).unwrap().with_session_name("microvm-1");
    assert_eq!(
        session.arn(),
        format!("arn:aws:sts::{}:assumed-role/MicroVMExecutionRole/microvm-1", world.id())
    );
    assert_eq!(may(&world, &session, "logs:PutLogEvents"), Ok(()));
    assert!(may(&world, &session, "s3:GetObject").is_err());
    let issued = world.identity.issue(&session, 3300);
    let opened = world.identity.credential(&issued.access_key_id, Some(&issued.session_token)).unwrap();
    assert_eq!(opened.caller.arn(), session.arn());

    let missing = |arn: &str| Err(AssumeError::NoSuchRole(arn.to_owned()));
    assert_eq!(assume(&arn, acting_for("999999999999")).map(|_| ()), missing(&arn));
    assert_eq!(assume(&arn, Context::new()).map(|_| ()), missing(&arn));
    let other_case = arn.to_lowercase();
    assert_eq!(assume(&other_case, acting_for(&world.id())).map(|_| ()), missing(&other_case));
    let people = role(&world, "people", &everybody_of(&world)).await;
    assert!(matches!(assume(&people, acting_for(&world.id())), Err(AssumeError::NotTrusted { .. })));
}
