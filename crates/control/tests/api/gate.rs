//! What stands before the operations: permissions, rates, room, and the audit log.

use std::fs;
use std::future::Future;
use std::task::{Context, Waker};

use api::Operation;
use rekindle_control::{Quotas, Rates};
use serde_json::{Value, json};

use crate::bed::{BASE, Bed, IMAGES, MICROVMS, OTHER, OWNER, arn, bed, bed_with, image, image_path, with};

/// A user of OWNER with this policy; its access key and secret.
pub(crate) async fn user(bed: &Bed, name: &str, statements: Value) -> (String, String) {
    bed.iam(&[("Action", "CreateUser"), ("UserName", name)]).await;
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let put =
        [("Action", "PutUserPolicy"), ("UserName", name), ("PolicyName", "p"), ("PolicyDocument", &policy)];
    bed.iam(&put).await;
    let made = bed.iam(&[("Action", "CreateAccessKey"), ("UserName", name)]).await;
    let of = |element: &str| {
        let (_, rest) = made.split_once(&format!("<{element}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    (of("AccessKeyId"), of("SecretAccessKey"))
}

#[tokio::test]
async fn a_user_may_do_what_its_policies_allow_and_nothing_else() {
    let bed = bed().await;
    bed.built(&with(image("a"), json!({"tags": {"team": "blue"}}))).await;
    bed.built(&image("b")).await;
    let ada = user(
        &bed,
        "ada",
        json!([
            {"Effect": "Allow", "Action": "lambda:Get*", "Resource": arn("*")},
            {"Effect": "Allow", "Action": ["lambda:RunMicrovm", "lambda:TerminateMicrovm"], "Resource": "*",
             "Condition": {"StringEquals": {"aws:ResourceTag/team": "blue"}}},
            {"Effect": "Allow", "Action": "lambda:PassNetworkConnector", "Resource": "*"},
        ]),
    )
    .await;
    let call = async |method: &str, path: &str, body: Value| bed.call_with(&ada, method, path, &body).await;
    assert_eq!(call("GET", &image_path("a"), Value::Null).await.0, 200);
    let (status, kind, answer) = call("GET", IMAGES, Value::Null).await;
    assert_eq!((status, kind.as_str()), (403, "AccessDeniedException"));
    assert_eq!(
        answer["message"],
        format!(
            "User: arn:aws:iam::{OWNER}:user/ada is not authorized to perform: lambda:ListMicrovmImages on \
             resource: * because no identity-based policy allows the lambda:ListMicrovmImages action"
        )
    );
    let (status, _, made) = call("POST", MICROVMS, json!({"imageIdentifier": arn("a")})).await;
    assert_eq!(status, 200, "{made}");
    let id = made["microvmId"].as_str().unwrap();
    assert_eq!(call("POST", MICROVMS, json!({"imageIdentifier": arn("b")})).await.0, 403, "another tag");
    assert_eq!(call("POST", &format!("{MICROVMS}/{id}/suspend"), Value::Null).await.0, 403);
    bed.reach(id, "RUNNING").await;
    assert_eq!(call("DELETE", &format!("{MICROVMS}/{id}"), Value::Null).await.0, 200);
}

#[test]
fn forms_are_for_iam_and_sts_wherever_they_stand() {
    let is_query = |method: &str, uri: &str, kind: &str| {
        let request = ::http::Request::builder().method(method).uri(uri).header("content-type", kind);
        rekindle_control::query::is_query(&request.body(()).unwrap())
    };
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    assert!(is_query("POST", "/", form) && is_query("GET", "/?Version=1&Action=GetCallerIdentity", ""));
    assert!(
        !is_query("POST", "/bucket", form)
            && !is_query("GET", "/?list-type=2", "")
            && !is_query("PUT", "/", form)
    );
}

#[tokio::test]
async fn roles_and_connectors_are_handed_on_only_by_who_may() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let everything = json!({"Effect": "Allow", "Action": "lambda:*", "Resource": "*"});
    let ada = user(&bed, "ada", json!([everything])).await;
    let role = format!("arn:aws:iam::{OWNER}:role/MicroVMExecutionRole");
    let run = with(json!({"imageIdentifier": arn("a")}), json!({"executionRoleArn": role}));
    let (status, _, answer) = bed.call_with(&ada, "POST", MICROVMS, &run).await;
    let message = answer["message"].as_str().unwrap();
    assert!(status == 403 && message.contains(&format!("iam:PassRole on resource: {role}")), "{message}");

    let bob = user(
        &bed,
        "bob",
        json!([everything, {"Effect": "Deny", "Action": "lambda:PassNetworkConnector", "Resource": "*"}]),
    )
    .await;
    let (status, _, answer) =
        bed.call_with(&bob, "POST", MICROVMS, &json!({"imageIdentifier": arn("a")})).await;
    let message = answer["message"].as_str().unwrap();
    assert!(
        status == 403 && message.ends_with("HTTP_INGRESS with an explicit deny in an identity-based policy"),
        "also the default is passed: {message}"
    );

    // Who may do without the internet may not for that reason have it.
    let none = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:NO_EGRESS";
    let closed = [none.replace("NO_EGRESS", "HTTP_INGRESS"), none.to_owned()];
    let pass = json!({"Effect": "Allow", "Action": "lambda:PassNetworkConnector", "Resource": closed});
    let others = json!({"Effect": "Allow", "NotAction": "lambda:PassNetworkConnector", "Resource": "*"});
    let eve = user(&bed, "eve", json!([pass, others])).await;
    let run = async |asked: Value| {
        let asked = with(json!({"imageIdentifier": arn("a")}), asked);
        bed.call_with(&eve, "POST", MICROVMS, &asked).await.0
    };
    assert_eq!(run(json!({"egressNetworkConnectors": [none]})).await, 200);
    assert_eq!(run(json!({})).await, 403, "the image's is the internet");

    let unknown = json!({"buildRoleArn": format!("arn:aws:iam::{OWNER}:role/nobody")});
    let (status, kind, message) = bed.refused("POST", IMAGES, &with(image("c"), unknown)).await;
    assert_eq!((status, kind.as_str()), (400, "ValidationException"));
    assert!(message.starts_with("We were unable to assume the role provided"), "{message}");
    let others = json!({"buildRoleArn": format!("arn:aws:iam::{OTHER}:role/MicroVMBuildRole")});
    assert_eq!(bed.refused("POST", IMAGES, &with(image("c"), others)).await.0, 400);
}

#[tokio::test]
async fn other_accounts_see_nothing() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = bed.running("a").await;
    for (method, path, body) in [
        ("GET", image_path("a"), Value::Null),
        ("DELETE", image_path("a"), Value::Null),
        ("DELETE", format!("{}/versions/1.0", image_path("a")), Value::Null),
        ("PATCH", format!("{}/versions/1.0", image_path("a")), json!({"status": "INACTIVE"})),
        ("GET", format!("{}/versions/1.0/builds", image_path("a")), Value::Null),
        ("POST", MICROVMS.into(), json!({"imageIdentifier": arn("a")})),
        ("GET", format!("{MICROVMS}?imageIdentifier={}", arn("a").replace(':', "%3A")), Value::Null),
        // What there is not is refused alike.
        ("GET", image_path("none"), Value::Null),
    ] {
        let (status, kind, answer) = bed.call_as(OTHER, method, &path, &body).await;
        assert_eq!((status, kind.as_str()), (403, "AccessDeniedException"), "{method} {path}: {answer}");
    }
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/suspend"), ("POST", "/resume")] {
        let (status, kind, _) =
            bed.call_as(OTHER, method, &format!("{MICROVMS}/{id}{path}"), &Value::Null).await;
        assert_eq!((status, kind.as_str()), (404, "ResourceNotFoundException"), "{method} {path}");
    }
    let (_, _, listed) = bed.call_as(OTHER, "GET", MICROVMS, &Value::Null).await;
    assert_eq!(listed["items"], json!([]));
}

#[tokio::test]
async fn too_many_calls_are_told_when_to_come_again() {
    let rates = Rates::unlimited().with(Operation::GetMicrovmImage, 0.5, 2.0);
    let bed = bed_with(Quotas::default(), rates, 443).await;
    bed.built(&image("a")).await;
    bed.get(&image_path("a")).await;
    bed.get(&image_path("a")).await;
    let (status, kind, answer) = bed.call("GET", &image_path("a"), &Value::Null).await;
    assert_eq!((status, kind.as_str()), (429, "ThrottlingException"), "{answer}");
    assert_eq!(answer["serviceCode"], "lambda");
    assert_eq!(
        bed.call_as(OTHER, "GET", &image_path("a"), &Value::Null).await.0,
        403,
        "others are not slowed"
    );
}

#[tokio::test]
async fn a_full_host_starts_nothing() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    bed.leave(Some(0));
    let run = json!({"imageIdentifier": arn("a"), "clientToken": "t"});
    let (status, kind, message) = bed.refused("POST", MICROVMS, &run).await;
    assert_eq!((status, kind.as_str()), (500, "InsufficientCapacityException"), "{message}");
    assert!(bed.calls().is_empty() && bed.get(MICROVMS).await["items"] == json!([]));
    let (status, kind, message) = bed.refused("POST", IMAGES, &image("b")).await;
    assert_eq!((status, kind.as_str()), (402, "ServiceQuotaExceededException"), "{message}");
    bed.leave(None);
    bed.done("POST", MICROVMS, &run).await;
}

#[tokio::test]
async fn every_call_leaves_a_line() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = bed.running("a").await;
    bed.refused("GET", &image_path("none"), &Value::Null).await;
    bed.iam(&[("Action", "ListUsers")]).await;
    let lines = bed.audited(|lines| lines.iter().any(|line| line["eventName"] == "ListUsers")).await;
    let of = |name: &str| lines.iter().find(|line| line["eventName"] == name).unwrap();
    let run = of("RunMicrovm");
    assert_eq!((&run["resources"][0]["ARN"], &run["eventCategory"]), (&json!(arn("a")), &json!("Data")));
    assert_eq!((&run["userIdentity"]["type"], &run["errorCode"]), (&json!("Root"), &Value::Null));
    assert_eq!(of("ListUsers")["eventSource"], "iam.amazonaws.com");
    let refused = lines.iter().find(|line| line["errorCode"] == "ResourceNotFoundException").unwrap();
    assert_eq!((&refused["eventName"], &refused["readOnly"]), (&json!("GetMicrovmImage"), &json!(true)));
    let text =
        fs::read_dir(bed.audit_dir()).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    assert!(text.collect::<String>().contains("requestID") && !id.is_empty());
}

/// What was read before is kept for the next who asks, but not who may ask.
#[tokio::test]
async fn what_is_revoked_is_refused_however_often_it_was_answered() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let may =
        json!([{"Effect": "Allow", "Action": ["lambda:GetMicrovm", "lambda:ListMicrovms"], "Resource": "*"}]);
    let ada = user(&bed, "ada", may.clone()).await;
    let id = bed.running("a").await;
    let one = format!("{MICROVMS}/{id}");
    let status = async |expected: u16| {
        for uri in [one.as_str(), MICROVMS, one.as_str(), MICROVMS] {
            let (status, _, answer) = bed.call_with(&ada, "GET", uri, &Value::Null).await;
            assert_eq!(status, expected, "{uri}: {answer}");
        }
    };
    status(200).await;
    let policy = [("UserName", "ada"), ("PolicyName", "p")];
    bed.iam(&[&[("Action", "DeleteUserPolicy")], &policy[..]].concat()).await;
    status(403).await;
    let document = json!({"Version": "2012-10-17", "Statement": may}).to_string();
    let put = [("Action", "PutUserPolicy"), ("PolicyDocument", document.as_str())];
    bed.iam(&[&put[..], &policy[..]].concat()).await;
    status(200).await;
    assert_eq!(bed.call_as(OTHER, "GET", &one, &Value::Null).await.0, 404, "another account's");
    bed.iam(&[("Action", "DeleteAccessKey"), ("UserName", "ada"), ("AccessKeyId", &ada.0)]).await;
    status(403).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_is_noted_too() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let body = json!({"imageIdentifier": arn("a")});
    let mut call = Box::pin(bed.call("POST", MICROVMS, &body));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(call);
    let lines = bed.audited(|lines| lines.iter().any(|line| line["eventName"] == "RunMicrovm")).await;
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn versions_are_switched_off_and_deleted() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let version = |number: &str| format!("{}/versions/{number}", image_path("a"));
    let only = bed.refused("DELETE", &version("1.0"), &Value::Null).await;
    assert_eq!((only.0, only.1.as_str()), (409, "ConflictException"));
    bed.done("PUT", &image_path("a"), &image("a")).await;
    bed.build(Ok(())).await;
    let off = bed.done("PATCH", &version("2.0"), &json!({"status": "INACTIVE"})).await;
    assert_eq!((&off["status"], &off["state"]), (&json!("INACTIVE"), &json!("SUCCESSFUL")));
    assert_eq!(bed.get(&image_path("a")).await["latestActiveImageVersion"], "1.0");
    bed.running("a").await;
    let in_use = bed.refused("DELETE", &version("1.0"), &Value::Null).await;
    assert_eq!((in_use.0, in_use.1.as_str()), (409, "ConflictException"), "{}", in_use.2);
    let gone = bed.done("DELETE", &version("2"), &Value::Null).await;
    assert_eq!((&gone["imageVersion"], &gone["state"]), (&json!("2.0"), &json!("DELETING")));
    assert_eq!(bed.removed(), [format!("{} 2.0", arn("a"))]);
    assert_eq!(bed.get(&image_path("a")).await["state"], "UPDATING");
}

#[tokio::test]
async fn base_images_and_shells_are_told_as_they_are() {
    let bed = bed().await;
    let versions = format!("/2025-09-09/managed-microvm-images/{}/versions", BASE.replace(':', "%3A"));
    let listed = bed.get(&versions).await;
    assert_eq!(
        (&listed["items"][0]["imageVersion"], &listed["items"][0]["status"]),
        (&json!("1"), &json!("AVAILABLE"))
    );
    let unknown = bed.refused("GET", &versions.replace("al2023-1", "none"), &Value::Null).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (404, "ResourceNotFoundException"));

    bed.built(&image("a")).await;
    let shell = json!({"expirationInMinutes": 5});
    let token = async |ingress: Value| {
        let run = json!({"imageIdentifier": arn("a"), "ingressNetworkConnectors": ingress});
        let made = bed.done("POST", MICROVMS, &run).await;
        let id = made["microvmId"].as_str().unwrap().to_owned();
        bed.call("POST", &format!("{MICROVMS}/{id}/shell-auth-token"), &shell).await
    };
    let connector = |name: &str| {
        format!("{}:{name}", "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector")
    };
    let (status, _, answer) = token(json!([connector("HTTP_INGRESS"), connector("SHELL_INGRESS")])).await;
    assert!(status == 200 && answer["authToken"]["X-aws-proxy-auth"].is_string(), "{answer}");
    let (status, _, answer) = token(json!([connector("HTTP_INGRESS")])).await;
    let message = "Shell access requires SHELL_INGRESS network connector to be configured on the MicroVM.";
    assert_eq!((status, answer["message"].as_str()), (400, Some(message)));
    let (status, _, answer) = token(json!([connector("ALL_INGRESS"), connector("SHELL_INGRESS")])).await;
    assert!(
        status == 400 && answer["message"].as_str().unwrap().starts_with("ALL_INGRESS cannot be combined")
    );
}
