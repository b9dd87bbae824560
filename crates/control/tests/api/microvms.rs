//! MicroVMs and their tokens over HTTP, real records and the real node.

use std::collections::BTreeSet;
use std::future::Future;
use std::task::{Context, Waker};

use crate::bed::{IMAGES, MICROVMS, OTHER, OWNER, arn, bed, bed_with, image, image_path, tokens, with};
use auth::token::Ports;
use lifecycle::microvm::{Event, Microvm};
use node::now_ms;
use rekindle_control::{Quotas, Rates};
use serde_json::{Value, json};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn run_of(name: &str) -> Value {
    json!({"imageIdentifier": arn(name)})
}

fn connector(name: &str) -> String {
    format!("arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:{name}")
}

#[tokio::test]
async fn a_microvm_runs_sleeps_wakes_and_ends() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let made = bed.done("POST", MICROVMS, &run_of("a")).await;
    assert_eq!((made["state"].as_str(), made["imageVersion"].as_str()), (Some("PENDING"), Some("1.0")));
    assert_eq!(made["maximumDurationInSeconds"], 28_800);
    assert_eq!(made["ingressNetworkConnectors"], json!([connector("HTTP_INGRESS")]));
    assert_eq!(made["egressNetworkConnectors"], json!([connector("INTERNET_EGRESS")]));
    let endpoint = made["endpoint"].as_str().unwrap();
    assert!(endpoint.ends_with(".lambda-microvm.us-east-1.localhost"), "{endpoint}");
    let id = made["microvmId"].as_str().unwrap();
    assert!(!endpoint.contains(id.strip_prefix("microvm-").unwrap()), "the endpoint has a uuid of its own");
    let path = format!("{MICROVMS}/{id}");

    let running = bed.reach(id, "RUNNING").await;
    let members: BTreeSet<_> = running.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(!members.contains("stateReason") && !members.contains("terminatedAt"));
    for (operation, state) in [("suspend", "SUSPENDED"), ("suspend", "SUSPENDED"), ("resume", "RUNNING")] {
        assert_eq!(bed.done("POST", &format!("{path}/{operation}"), &Value::Null).await, json!({}));
        bed.reach(id, state).await;
    }
    assert_eq!(bed.done("DELETE", &path, &Value::Null).await, json!({}));
    let ended = bed.reach(id, "TERMINATED").await;
    assert_eq!(ended["stateReason"], "Success.");
    assert!(ended["terminatedAt"].as_f64().unwrap() >= ended["startedAt"].as_f64().unwrap());
    assert_eq!(bed.calls(), ["launch", "suspend", "resume", "terminate"]);
}

#[tokio::test]
async fn what_has_ended_can_only_be_ended() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = bed.running("a").await;
    let path = format!("{MICROVMS}/{id}");
    bed.done("DELETE", &path, &Value::Null).await;
    bed.reach(&id, "TERMINATED").await;
    bed.done("DELETE", &path, &Value::Null).await;
    let token = json!({"expirationInMinutes": 5, "allowedPorts": [{"allPorts": {}}]});
    for (operation, body) in [("suspend", &Value::Null), ("resume", &Value::Null), ("auth-token", &token)] {
        let (status, kind, answer) = bed.call("POST", &format!("{path}/{operation}"), body).await;
        assert_eq!((status, kind.as_str()), (409, "ConflictException"), "{operation}");
        assert_eq!((&answer["resourceType"], &answer["resourceId"]), (&json!("Microvm"), &json!(id)));
    }
}

#[tokio::test]
async fn an_unknown_microvm_is_not_found_and_anothers_is_unknown() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = bed.running("a").await;
    let ghost = "microvm-a991cd0b-3321-3e2c-a982-d5c4db52b17a";
    for (account, id) in [(OTHER, id.as_str()), (OWNER, ghost), (OWNER, "x")] {
        for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/suspend"), ("POST", "/resume")] {
            let uri = format!("{MICROVMS}/{id}{path}");
            let (status, kind, answer) = bed.call_as(account, method, &uri, &Value::Null).await;
            assert_eq!((status, kind.as_str()), (404, "ResourceNotFoundException"), "{method} {uri}");
            assert_eq!(answer["message"], format!("Unable to find microvmIdentifier {id}"));
        }
    }
    bed.reach(&id, "RUNNING").await;
}

#[tokio::test]
async fn a_repeated_run_gives_the_first_microvm() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let body = with(run_of("a"), json!({"clientToken": "t", "maximumDurationInSeconds": 600}));
    let (one, two) = tokio::join!(bed.done("POST", MICROVMS, &body), bed.done("POST", MICROVMS, &body));
    assert_eq!(one["microvmId"], two["microvmId"]);
    let id = one["microvmId"].as_str().unwrap();
    bed.reach(id, "RUNNING").await;
    bed.done("POST", &format!("{MICROVMS}/{id}/suspend"), &Value::Null).await;
    bed.reach(id, "SUSPENDED").await;
    let again = bed.done("POST", MICROVMS, &body).await;
    assert_eq!((again["microvmId"].as_str(), again["state"].as_str()), (Some(id), Some("SUSPENDED")));
    assert_eq!(bed.calls(), ["launch", "suspend"]);
    let other = bed.refused("POST", MICROVMS, &with(body, json!({"maximumDurationInSeconds": 601}))).await;
    assert_eq!((other.0, other.1.as_str()), (409, "ConflictException"));
}

#[tokio::test]
async fn a_token_and_an_ended_microvm_are_forgotten_after_a_day() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let body = with(run_of("a"), json!({"clientToken": "t"}));
    let old = bed.done("POST", MICROVMS, &body).await["microvmId"].as_str().unwrap().to_owned();
    bed.reach(&old, "RUNNING").await;
    bed.done("DELETE", &format!("{MICROVMS}/{old}"), &Value::Null).await;
    bed.reach(&old, "TERMINATED").await;

    // The same records as if all of it had been longer ago.
    let id = old.parse().unwrap();
    let long_ago = now_ms() - DAY_MS - 1000;
    let aged = move |tx: &store::Tx<'_>| {
        let mut record = tx.microvm(id)?.unwrap();
        record.life = Microvm::new(record.life.policy, long_ago);
        record.life.apply(&Event::TerminateRequested, long_ago).unwrap();
        record.life.apply(&Event::Released, long_ago).unwrap();
        tx.put_microvm(&record)?;
        let mut token = tx.token(&record.account, "RunMicrovm", "t")?.unwrap();
        token.created_at = long_ago;
        tx.put_token(&record.account, "RunMicrovm", "t", &token)
    };
    bed.store.write(aged).await.unwrap();
    let new = bed.done("POST", MICROVMS, &body).await;
    assert_ne!(new["microvmId"].as_str(), Some(old.as_str()));
    assert_eq!(bed.refused("GET", &format!("{MICROVMS}/{old}"), &Value::Null).await.0, 404);
}

#[tokio::test]
async fn only_what_may_run_runs() {
    let bed = bed().await;
    let none = |suffix: &str| {
        let message = format!("No active version found for MicroVM image {}{suffix}", arn("a"));
        (404, "ResourceNotFoundException".to_owned(), message)
    };
    assert_eq!(bed.refused("POST", MICROVMS, &run_of("a")).await, none(""), "no image");
    bed.done("POST", IMAGES, &image("a")).await;
    assert_eq!(bed.refused("POST", MICROVMS, &run_of("a")).await, none(""), "not built");
    bed.build(Ok(())).await;
    bed.done("PUT", &image_path("a"), &image("a")).await;
    let run = bed.done("POST", MICROVMS, &run_of("a")).await;
    assert_eq!(run["imageVersion"], "1.0", "an update under way does not stop what was before it");
    bed.build(Err("no")).await;
    assert_eq!(bed.done("POST", MICROVMS, &run_of("a")).await["imageVersion"], "1.0");
    let second = with(run_of("a"), json!({"imageVersion": "2"}));
    assert_eq!(bed.refused("POST", MICROVMS, &second).await, none(" and version 2.0"));
    bed.done("PUT", &image_path("a"), &image("a")).await;
    bed.build(Ok(())).await;
    assert_eq!(bed.done("POST", MICROVMS, &run_of("a")).await["imageVersion"], "3.0");
    let first = with(run_of("a"), json!({"imageVersion": "1.0"}));
    assert_eq!(bed.done("POST", MICROVMS, &first).await["imageVersion"], "1.0");
}

#[tokio::test]
async fn a_payload_needs_a_hook_to_go_to() {
    let bed = bed().await;
    bed.built(&image("plain")).await;
    let hooks = json!({"hooks": {"port": 9000, "microvmHooks": {"run": "ENABLED", "runTimeoutInSeconds": 9},
        "microvmImageHooks": {"ready": "ENABLED"}}});
    bed.built(&with(image("hooked"), hooks)).await;
    let payload = json!({"runHookPayload": "{}"});
    let refused = bed.refused("POST", MICROVMS, &with(run_of("plain"), payload.clone())).await;
    let message = "The run hook must be enabled in the MicroVM image to pass the run hook payload";
    assert_eq!(refused, (400, "ValidationException".to_owned(), message.to_owned()));
    let made = bed.done("POST", MICROVMS, &with(run_of("hooked"), payload)).await;
    let id = made["microvmId"].as_str().unwrap().parse().unwrap();
    let record = bed.store.read(|tx| tx.microvm(id)).unwrap().unwrap();
    assert_eq!(record.run_hook_payload.as_deref(), Some("{}"));
}

#[tokio::test]
async fn what_a_launch_asks_for_is_kept() {
    let bed = bed_with(Quotas::default(), Rates::unlimited(), 8443).await;
    bed.built(&image("a")).await;
    let idle =
        json!({"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 0, "autoResumeEnabled": false});
    let asked = json!({
        "idlePolicy": idle,
        "executionRoleArn": "arn:aws:iam::123456789012:role/MicroVMExecutionRole",
        "maximumDurationInSeconds": 60,
        "ingressNetworkConnectors": [connector("SHELL_INGRESS")],
        "egressNetworkConnectors": [],
        "logging": {"cloudWatch": {"logGroup": "/g"}},
    });
    let made = bed.done("POST", MICROVMS, &with(run_of("a"), asked)).await;
    assert!(made["endpoint"].as_str().unwrap().ends_with(":8443"));
    assert_eq!((&made["idlePolicy"], &made["maximumDurationInSeconds"]), (&idle, &json!(60)));
    assert_eq!(made["egressNetworkConnectors"], json!([connector("INTERNET_EGRESS")]));
    assert_eq!(made.get("logging"), None);
    let id = made["microvmId"].as_str().unwrap().parse().unwrap();
    let record = bed.store.read(|tx| tx.microvm(id)).unwrap().unwrap();
    let logs = store::LogSettings::CloudWatch { group: Some("/g".into()), stream: None };
    assert_eq!((record.http_ingress, record.logging), (false, Some(logs)));

    for connectors in [json!([connector("ALL_INGRESS")]), json!([])] {
        let asked = json!({"ingressNetworkConnectors": connectors});
        let made = bed.done("POST", MICROVMS, &with(run_of("a"), asked)).await;
        let id = made["microvmId"].as_str().unwrap().parse().unwrap();
        assert!(bed.store.read(|tx| tx.microvm(id)).unwrap().unwrap().http_ingress, "{connectors}");
    }
    let elsewhere = connector("HTTP_INGRESS").replace("us-east-1", "eu-west-1");
    let asked = with(run_of("a"), json!({"ingressNetworkConnectors": [elsewhere]}));
    let message = format!("Unrecognized managed network connector ARN: {elsewhere}");
    assert_eq!(bed.refused("POST", MICROVMS, &asked).await.2, message);
}

#[tokio::test]
async fn listings_are_filtered_and_lead_through_everything() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    bed.built(&image("b")).await;
    let mut of_a = BTreeSet::new();
    for _ in 0..3 {
        of_a.insert(bed.running("a").await);
    }
    let of_b = bed.running("b").await;
    let list = async |query: &str| {
        let (mut found, mut token) = (BTreeSet::new(), String::new());
        loop {
            let page = bed.get(&format!("{MICROVMS}?{query}{token}")).await;
            for item in page["items"].as_array().unwrap() {
                assert!(found.insert(item["microvmId"].as_str().unwrap().to_owned()), "shown twice: {item}");
            }
            let Some(next) = page["nextToken"].as_str() else { return found };
            token = format!("&nextToken={next}");
        }
    };
    let image = arn("a").replace(':', "%3A");
    assert_eq!(list(&format!("imageIdentifier={image}&maxResults=2")).await, of_a);
    assert_eq!(list(&format!("imageIdentifier={image}&imageVersion=1&maxResults=2")).await, of_a);
    assert!(list(&format!("imageIdentifier={image}&imageVersion=2.0")).await.is_empty());
    let all: BTreeSet<_> = of_a.iter().cloned().chain([of_b]).collect();
    assert_eq!(list("maxResults=1").await, all);
    let unknown = arn("c").replace(':', "%3A");
    for (query, status) in [
        (format!("imageIdentifier={unknown}"), 404),
        ("imageVersion=1".into(), 400),
        ("nextToken=x".into(), 400),
    ] {
        assert_eq!(
            bed.refused("GET", &format!("{MICROVMS}?{query}"), &Value::Null).await.0,
            status,
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_token_opens_what_it_was_asked_for() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = bed.running("a").await;
    let uri = format!("{MICROVMS}/{id}/auth-token");
    let open = async |ports: Value| {
        let body = json!({"expirationInMinutes": 5, "allowedPorts": ports});
        let answer = bed.done("POST", &uri, &body).await;
        let parts = answer["authToken"].as_object().unwrap();
        assert_eq!(parts.keys().collect::<Vec<_>>(), ["X-aws-proxy-auth"]);
        let now = now_ms() / 1000;
        let scope = tokens().open(parts["X-aws-proxy-auth"].as_str().unwrap(), now).unwrap();
        assert_eq!(scope.microvm.to_string(), id);
        assert!((now + 295..=now + 300).contains(&scope.expires_at));
        scope.ports
    };
    assert_eq!(open(json!([{"allPorts": {}}])).await, Ports::All);
    let ports = open(json!([{"port": 80}, {"range": {"startPort": 8000, "endPort": 8001}}])).await;
    assert_eq!(ports, Ports::Ranges(vec![80..=80, 8000..=8001]));

    let many: Vec<Value> = (0..2000).map(|i| json!({"port": 1 + i * 2})).collect();
    let body = json!({"expirationInMinutes": 5, "allowedPorts": many});
    let refused = bed.refused("POST", &uri, &body).await;
    assert_eq!((refused.0, refused.1.as_str()), (400, "ValidationException"));
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_nothing_half_done() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let body = with(run_of("a"), json!({"clientToken": "t"}));
    // Polled once, which sends the request on its way, and dropped.
    let mut call = Box::pin(bed.call("POST", MICROVMS, &body));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(call);
    let made = bed.done("POST", MICROVMS, &body).await;
    bed.reach(made["microvmId"].as_str().unwrap(), "RUNNING").await;
    assert_eq!(bed.calls(), ["launch"]);
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_the_clients_fault() {
    let bed = bed().await;
    for (body, expected) in [
        (json!([]), "SerializationException"),
        (json!("x"), "SerializationException"),
        (json!({"imageIdentifier": 5}), "SerializationException"),
        (json!({}), "ValidationException"),
        (json!({"imageIdentifier": "x"}), "ValidationException"),
    ] {
        let (status, kind, answer) = bed.call("POST", MICROVMS, &body).await;
        assert_eq!((status, kind.as_str()), (400, expected), "{body}: {answer}");
    }
}
