//! The rules of IAM, as the answers to calls show them.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{World, document, element, refusal, trust};

const LAMBDA: &str = r#"{"Service":"lambda.amazonaws.com"}"#;

fn allow(action: &str) -> String {
    document("Allow", action, "*")
}

#[tokio::test]
async fn names_are_taken_once_whatever_their_case_and_found_so() {
    let world = World::new().await;
    world.done("CreateUser UserName=Ada").await;
    let (status, code, message) = world.refused("CreateUser UserName=ADA").await;
    assert_eq!((status, code.as_str()), (409, "EntityAlreadyExists"));
    assert_eq!(message, "User with name ADA already exists.");
    assert_eq!(element(&world.done("GetUser UserName=ada").await, "UserName"), "Ada");
    let role = format!("CreateRole RoleName=microvmbuildrole AssumeRolePolicyDocument={}", trust(LAMBDA));
    assert_eq!(world.refused(&role).await.1, "EntityAlreadyExists");
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_words_of_aws() {
    let world = World::new().await;
    for (call, words) in [
        ("GetUser UserName=x", "The user with name x cannot be found."),
        ("GetRole RoleName=x", "The role with name x cannot be found."),
        (
            "DeleteRolePolicy RoleName=MicroVMBuildRole PolicyName=x",
            "The role policy with name x cannot be found.",
        ),
        (
            "DeleteAccessKey AccessKeyId=AKIAAAAAAAAAAAAAAAAA",
            "The Access Key with id AKIAAAAAAAAAAAAAAAAA cannot be found.",
        ),
        (
            "AttachRolePolicy RoleName=MicroVMBuildRole PolicyArn=arn:aws:iam::aws:policy/Nothing",
            "Policy arn:aws:iam::aws:policy/Nothing does not exist or is not attachable.",
        ),
        (
            "GetPolicyVersion PolicyArn=arn:aws:iam::aws:policy/IAMFullAccess VersionId=v2",
            "Policy arn:aws:iam::aws:policy/IAMFullAccess version v2 does not exist or is not attachable.",
        ),
    ] {
        assert_eq!(world.refused(call).await, (404, "NoSuchEntity".into(), words.into()), "{call}");
    }
    assert_eq!(world.refused("CreateGroup GroupName=x").await.1, "InvalidAction");
    assert_eq!(world.refused("").await.1, "MissingAction");
}

#[tokio::test]
async fn nothing_is_deleted_that_something_hangs_on() {
    let world = World::new().await;
    let key = world.user("ada", &allow("lambda:*")).await;
    let conflict = async |call: &str| {
        let (status, code, message) = world.refused(call).await;
        assert_eq!((status, code.as_str()), (409, "DeleteConflict"), "{call}");
        message
    };
    assert_eq!(
        conflict("DeleteUser UserName=ada").await,
        "Cannot delete entity, must delete access keys first."
    );
    world.done(&format!("DeleteAccessKey UserName=ada AccessKeyId={}", key.id)).await;
    assert_eq!(
        conflict("DeleteUser UserName=ada").await,
        "Cannot delete entity, must delete policies first."
    );
    world.done("DeleteUserPolicy UserName=ada PolicyName=p").await;
    let admin = "PolicyArn=arn:aws:iam::aws:policy/AdministratorAccess";
    world.done(&format!("AttachUserPolicy UserName=ada {admin}")).await;
    assert_eq!(
        conflict("DeleteUser UserName=ada").await,
        "Cannot delete entity, must detach all policies first."
    );
    world.done(&format!("DetachUserPolicy UserName=ada {admin}")).await;
    world.done("DeleteUser UserName=ada").await;
    assert_eq!(world.refused("GetUser UserName=ada").await.0, 404);
}

#[tokio::test]
async fn policies_that_cannot_be_read_are_malformed_and_change_nothing() {
    let world = World::new().await;
    world.done("CreateUser UserName=ada").await;
    let bad = document("Maybe", "lambda:*", "*");
    for call in [
        format!("PutUserPolicy UserName=ada PolicyName=p PolicyDocument={bad}"),
        format!("CreatePolicy PolicyName=p PolicyDocument={bad}"),
        format!("CreateRole RoleName=r AssumeRolePolicyDocument={}", allow("sts:AssumeRole")),
        format!("UpdateAssumeRolePolicy RoleName=MicroVMBuildRole PolicyDocument={bad}"),
    ] {
        let (status, code, _) = world.refused(&call).await;
        assert_eq!((status, code.as_str()), (400, "MalformedPolicyDocument"), "{call}");
    }
    assert!(!world.done("ListUserPolicies UserName=ada").await.contains("<member>"));
    assert_eq!(world.refused("GetRole RoleName=r").await.0, 404);
}

#[tokio::test]
async fn limits_are_those_of_aws() {
    let world = World::new().await;
    world.user("ada", "").await;
    world.done("CreateAccessKey UserName=ada").await;
    let (status, code, message) = world.refused("CreateAccessKey UserName=ada").await;
    assert_eq!((status, code.as_str()), (409, "LimitExceeded"));
    assert_eq!(message, "Cannot exceed quota for AccessKeysPerUser: 2");

    let long = document("Allow", &format!("lambda:{}", "x".repeat(800)), "*");
    for name in ["a", "b"] {
        world.done(&format!("PutUserPolicy UserName=ada PolicyName={name} PolicyDocument={long}")).await;
    }
    let third =
        world.refused(&format!("PutUserPolicy UserName=ada PolicyName=c PolicyDocument={long}")).await;
    assert_eq!(third.2, "Maximum policy size of 2048 bytes exceeded for user ada");

    let arn = element(
        &world.done(&format!("CreatePolicy PolicyName=p PolicyDocument={}", allow("s3:*"))).await,
        "Arn",
    );
    for version in 2..=5 {
        let call = format!("CreatePolicyVersion PolicyArn={arn} PolicyDocument={}", allow("s3:Get*"));
        assert_eq!(element(&world.done(&call).await, "VersionId"), format!("v{version}"));
    }
    let sixth = format!("CreatePolicyVersion PolicyArn={arn} PolicyDocument={}", allow("s3:*"));
    assert_eq!(world.refused(&sixth).await.1, "LimitExceeded");
    assert_eq!(world.refused(&format!("DeletePolicy PolicyArn={arn}")).await.1, "DeleteConflict");
    assert_eq!(
        world.refused(&format!("DeletePolicyVersion PolicyArn={arn} VersionId=v1")).await.1,
        "DeleteConflict"
    );
    world.done(&format!("SetDefaultPolicyVersion PolicyArn={arn} VersionId=v5")).await;
    for version in 1..=4 {
        world.done(&format!("DeletePolicyVersion PolicyArn={arn} VersionId=v{version}")).await;
    }
    assert_eq!(element(&world.done(&format!("GetPolicy PolicyArn={arn}")).await, "DefaultVersionId"), "v5");
    world.done(&format!("DeletePolicy PolicyArn={arn}")).await;
}

#[tokio::test]
async fn calls_to_iam_need_permission_themselves_and_tell_nobody_else_what_there_is() {
    let world = World::new().await;
    let ada = world
        .user("ada", &document("Allow", "iam:GetUser", &format!("arn:aws:iam::{}:user/ada", world.id())))
        .await;
    let caller = world.caller(&ada);
    // Without a name it is the caller itself.
    assert_eq!(element(&world.iam(&caller, "GetUser").await.body, "UserName"), "ada");
    world.done("CreateUser UserName=bob").await;
    for name in ["bob", "nobody"] {
        let (status, code, message) = refusal(world.iam(&caller, &format!("GetUser UserName={name}")).await);
        assert_eq!((status, code.as_str()), (403, "AccessDenied"));
        let (id, action) = (world.id(), "iam:GetUser");
        assert_eq!(
            message,
            format!(
                "User: arn:aws:iam::{id}:user/ada is not authorized to perform: {action} on resource: \
                 arn:aws:iam::{id}:user/{name} because no identity-based policy allows the {action} action"
            )
        );
    }
    assert_eq!(refusal(world.iam(&caller, "ListUsers").await).0, 403);
    assert_eq!(refusal(world.iam(&caller, "CreateUser UserName=cyd").await).0, 403);
    assert_eq!(world.refused("GetUser UserName=cyd").await.0, 404);
}

#[tokio::test]
async fn a_policy_works_from_the_next_request_on_and_a_denial_is_final() {
    let world = World::new().await;
    let ada = world.caller(&world.user("ada", "").await);
    let may = async || world.iam(&ada, "ListRoles").await.error.map(|(_, message)| message);
    assert!(
        may().await.unwrap().contains("because no identity-based policy allows the iam:ListRoles action")
    );
    world.done("AttachUserPolicy UserName=ada PolicyArn=arn:aws:iam::aws:policy/IAMFullAccess").await;
    assert_eq!(may().await, None);
    let deny = document("Deny", "iam:List*", "*");
    world.done(&format!("PutUserPolicy UserName=ada PolicyName=d PolicyDocument={deny}")).await;
    assert!(may().await.unwrap().ends_with("with an explicit deny in an identity-based policy"));
}

#[tokio::test]
async fn tags_of_the_caller_and_of_the_resource_decide() {
    let world = World::new().await;
    let own_team = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:ListUserTags","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/team":"${aws:PrincipalTag/team}"}}}}"#;
    let ada = world.caller(&world.user("ada", own_team).await);
    world.done("CreateUser UserName=bob Tags.member.1.Key=team Tags.member.1.Value=red").await;
    assert_eq!(refusal(world.iam(&ada, "ListUserTags UserName=bob").await).0, 403);
    world.done("TagUser UserName=ada Tags.member.1.Key=team Tags.member.1.Value=red").await;
    assert_eq!(element(&world.iam(&ada, "ListUserTags UserName=bob").await.body, "Value"), "red");
    world.done("TagUser UserName=ada Tags.member.1.Key=TEAM Tags.member.1.Value=blue").await;
    assert_eq!(refusal(world.iam(&ada, "ListUserTags UserName=bob").await).0, 403);
    world.done("UntagUser UserName=ada TagKeys.member.1=team").await;
    assert!(!world.done("ListUserTags UserName=ada").await.contains("<member>"));
    let system = world.refused("TagUser UserName=ada Tags.member.1.Key=aws:x Tags.member.1.Value=y").await;
    assert_eq!((system.0, system.1.as_str()), (400, "InvalidInput"));
}

#[tokio::test]
async fn documents_come_back_encoded_as_they_were_put() {
    let world = World::new().await;
    world.done("CreateUser UserName=ada").await;
    let role = world.done("GetRolePolicy RoleName=MicroVMBuildRole PolicyName=Build").await;
    assert!(
        element(&role, "PolicyDocument").starts_with("%7B%0A%20%20%20%20%22Version%22%3A%20%222012-10-17%22")
    );
    assert!(role.starts_with(
        r#"<GetRolePolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><GetRolePolicyResult>"#
    ));
    assert!(role.contains("</GetRolePolicyResult><ResponseMetadata><RequestId>"));
    let none = world.done("TagUser UserName=ada Tags.member.1.Key=k").await;
    assert!(!none.contains("Result"));
}

#[tokio::test]
async fn the_policies_of_aws_are_read_and_attached_but_nobodys_to_change() {
    let world = World::new().await;
    let arn = "arn:aws:iam::aws:policy/AmazonS3FullAccess";
    world.done(&format!("AttachRolePolicy RoleName=MicroVMBuildRole PolicyArn={arn}")).await;
    assert_eq!(element(&world.done(&format!("GetPolicy PolicyArn={arn}")).await, "AttachmentCount"), "1");
    for call in [
        format!("DeletePolicy PolicyArn={arn}"),
        format!("CreatePolicyVersion PolicyArn={arn} PolicyDocument={}", allow("s3:*")),
        format!("TagPolicy PolicyArn={arn} Tags.member.1.Key=k"),
    ] {
        assert_eq!(world.refused(&call).await.1, "AccessDenied", "{call}");
    }
    let created = format!("CreatePolicy PolicyName=p PolicyDocument={}", allow("s3:*"));
    let own = element(&world.done(&created).await, "Arn");
    world.done(&format!("TagPolicy PolicyArn={own} Tags.member.1.Key=k Tags.member.1.Value=v")).await;
    assert_eq!(element(&world.done(&format!("ListPolicyTags PolicyArn={own}")).await, "Value"), "v");
    world.done(&format!("UntagPolicy PolicyArn={own} TagKeys.member.1=K")).await;
    assert!(!world.done(&format!("ListPolicyTags PolicyArn={own}")).await.contains("<member>"));
}

#[tokio::test]
async fn a_boundary_is_refused_and_not_ignored() {
    let world = World::new().await;
    let call = "CreateUser UserName=x PermissionsBoundary=arn:aws:iam::aws:policy/IAMFullAccess";
    assert!(world.refused(call).await.2.contains("PermissionsBoundary is not supported here"));
}

#[tokio::test]
async fn changes_at_once_all_happen_and_outlive_a_restart() {
    let world = World::new().await;
    let root = world.root();
    let names: Vec<String> = (0..20).map(|n| format!("user{n}")).collect();
    let calls = names.iter().map(|name| format!("CreateUser UserName={name}"));
    let tasks: Vec<_> = calls
        .map(|call| {
            let (identity, root) = (world.identity.clone(), root.clone());
            tokio::spawn(async move { common::iam(&identity, &root, &call).await.status })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 200);
    }
    let again = rekindle_identity::Identity::open(world.store.clone(), common::SECRET).unwrap();
    for identity in [&world.identity, &again] {
        let list = common::iam(identity, &root, "ListUsers").await.body;
        assert!(names.iter().all(|name| list.contains(&format!("<UserName>{name}</UserName>"))));
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_leaves_memory_and_store_agreed() {
    let world = World::new().await;
    let root = world.root();
    for round in 0..20 {
        let call = format!("CreateUser UserName=user{round}");
        let mut call = Box::pin(common::iam(&world.identity, &root, &call));
        // Polled a few times, and forgotten.
        for _ in 0..round % 4 {
            let _ = futures_poll(&mut call).await;
        }
        drop(call);
    }
    // What is in order after them comes after them.
    world.done("CreateUser UserName=last").await;
    let again = rekindle_identity::Identity::open(world.store.clone(), common::SECRET).unwrap();
    let [before, after] = [&world.identity, &again].map(|identity| common::iam(identity, &root, "ListUsers"));
    let users = |body: String| body.split_once("<ResponseMetadata>").unwrap().0.to_owned();
    assert_eq!(users(before.await.body), users(after.await.body));
}

/// Polls once, and lets others run.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    let ready = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())
    });
    let ready = ready.await;
    tokio::task::yield_now().await;
    ready
}
