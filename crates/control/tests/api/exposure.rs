//! Public ports and domains, which are Rekindle's own.

use serde_json::{Value, json};

use crate::bed::{Bed, IMAGES, MICROVMS, OTHER, OWNER, arn, bed, image, with};
use crate::gate::user;

const ACCESS: &str = "/2026-11-29/endpoint-access";
const DOMAINS: &str = "/2026-11-29/domains";

fn access(resource: &str) -> String {
    format!("{ACCESS}/{}", resource.replace(':', "%3A"))
}

fn ports(ports: &[u16]) -> Value {
    json!({"publicPorts": ports})
}

async fn launched(bed: &Bed, name: &str) -> String {
    let made = bed.done("POST", MICROVMS, &json!({"imageIdentifier": arn(name)})).await;
    let id = made["microvmId"].as_str().unwrap().to_owned();
    bed.reach(&id, "RUNNING").await;
    id
}

#[tokio::test]
async fn ports_are_public_until_they_are_closed_or_their_microvm_ends() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = launched(&bed, "a").await;
    let closed = json!({"resource": id, "publicPorts": []});
    assert_eq!(bed.get(&access(&id)).await, closed);
    let open = json!({"resource": id, "publicPorts": [80, 8080]});
    assert_eq!(bed.done("PUT", &access(&id), &ports(&[8080, 80, 8080])).await, open);
    assert_eq!(bed.get(&access(&id)).await, open);
    assert_eq!(bed.done("PUT", &access(&id), &ports(&[])).await, closed);
    assert_eq!(bed.done("PUT", &access(&arn("a")), &ports(&[1])).await["publicPorts"], json!([1]));
    assert_eq!(bed.get(&access(&id)).await, closed, "its own");

    for (body, message) in [
        (json!({}), "publicPorts"),
        (ports(&[0]), "publicPorts"),
        (ports(&(1..18).collect::<Vec<_>>()), "publicPorts"),
    ] {
        let refused = bed.refused("PUT", &access(&id), &body).await;
        assert_eq!((refused.0, refused.1.as_str()), (400, "ValidationException"), "{body}");
        assert!(refused.2.contains(message), "{}", refused.2);
    }
    let unknown = bed.refused("PUT", &access(&ids::MicrovmId::random().to_string()), &ports(&[1])).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (404, "ResourceNotFoundException"));
    let unknown = bed.refused("PUT", &access(&arn("none")), &ports(&[1])).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (404, "ResourceNotFoundException"));
    let nonsense = bed.refused("PUT", &access("nonsense"), &ports(&[1])).await;
    assert_eq!((nonsense.0, nonsense.1.as_str()), (400, "ValidationException"));

    bed.done("DELETE", &format!("{MICROVMS}/{id}"), &Value::Null).await;
    bed.reach(&id, "TERMINATED").await;
    let ended = bed.refused("PUT", &access(&id), &ports(&[1])).await;
    assert_eq!((ended.0, ended.1.as_str()), (409, "ConflictException"));
}

#[tokio::test]
async fn nobody_opens_what_is_anothers() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = launched(&bed, "a").await;
    let (status, kind, _) = bed.call_as(OTHER, "PUT", &access(&id), &ports(&[1])).await;
    assert_eq!((status, kind.as_str()), (404, "ResourceNotFoundException"));
    let (status, kind, _) = bed.call_as(OTHER, "PUT", &access(&arn("a")), &ports(&[1])).await;
    assert_eq!((status, kind.as_str()), (403, "AccessDeniedException"));
    // A user of the account may by a policy only.
    let nobody =
        user(&bed, "nobody", json!([{"Effect": "Allow", "Action": "lambda:*", "Resource": "*"}])).await;
    let (status, _, answer) = bed.call_with(&nobody, "PUT", &access(&id), &ports(&[1])).await;
    assert_eq!(status, 403);
    assert!(answer["message"].as_str().unwrap().contains("rekindle:PutEndpointAccess"), "{answer}");
    let allowed = json!([{"Effect": "Allow", "Action": "rekindle:Put*", "Resource": arn("a")}]);
    let opener = user(&bed, "opener", allowed).await;
    assert_eq!(bed.call_with(&opener, "PUT", &access(&id), &ports(&[1])).await.0, 200);
    assert_eq!(bed.call_with(&opener, "GET", &access(&id), &Value::Null).await.0, 403);
}

#[tokio::test]
async fn a_domain_leads_to_what_its_account_says_and_is_of_one_account() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = launched(&bed, "a").await;
    let put = |name: &str| format!("{DOMAINS}/{name}");
    let to = |resource: &str| json!({"resource": resource});
    let made = bed.done("PUT", &put("b.example.com"), &to(&id)).await;
    assert_eq!((made["domainName"].as_str(), made["resource"].as_str()), (Some("b.example.com"), Some(&*id)));
    let moved = bed.done("PUT", &put("b.example.com"), &to(&arn("a"))).await;
    assert_eq!((&moved["resource"], &moved["createdAt"]), (&json!(arn("a")), &made["createdAt"]));
    bed.done("PUT", &put("a.example.com"), &to(&id)).await;

    let listed = bed.get(&format!("{DOMAINS}?maxResults=1")).await;
    assert_eq!(listed["items"][0]["domainName"], "a.example.com");
    let next = listed["nextToken"].as_str().unwrap();
    let rest = bed.get(&format!("{DOMAINS}?maxResults=1&nextToken={next}")).await;
    assert_eq!((&rest["items"], rest.get("nextToken")), (&json!([moved]), None));

    for name in ["x.example.org", "example.com", "a.b.example.com", "us-east-1.localhost"] {
        let refused = bed.refused("PUT", &put(name), &to(&id)).await;
        assert_eq!((refused.0, refused.1.as_str()), (400, "ValidationException"), "{name}");
        assert!(refused.2.contains("`domains`"), "{}", refused.2);
    }
    for name in ["A.example.com", "localhost", "-a.example.com", "a..example.com", "1.2.3.4"] {
        let refused = bed.refused("PUT", &put(name), &to(&id)).await;
        assert!(refused.0 == 400 && refused.2.contains("domainName"), "{name}: {}", refused.2);
    }
    let body =
        with(image("o"), json!({"buildRoleArn": format!("arn:aws:iam::{OTHER}:role/MicroVMBuildRole")}));
    assert_eq!(bed.call_as(OTHER, "POST", IMAGES, &body).await.0, 201);
    let theirs = to(&arn("o").replace(OWNER, OTHER));
    let (status, kind, _) = bed.call_as(OTHER, "PUT", &put("b.example.com"), &theirs).await;
    assert_eq!((status, kind.as_str()), (409, "ConflictException"));
    let (status, kind, _) = bed.call_as(OTHER, "DELETE", &put("b.example.com"), &Value::Null).await;
    assert_eq!((status, kind.as_str()), (404, "ResourceNotFoundException"));

    assert_eq!(bed.done("DELETE", &put("b.example.com"), &Value::Null).await, Value::Null);
    assert_eq!(bed.refused("DELETE", &put("b.example.com"), &Value::Null).await.0, 404);
    bed.done("DELETE", &format!("{MICROVMS}/{id}"), &Value::Null).await;
    bed.reach(&id, "TERMINATED").await;
    assert_eq!(bed.get(DOMAINS).await, json!({"items": []}), "it goes with its MicroVM");
}

#[tokio::test]
async fn it_is_told_what_microvms_run_on() {
    let host = bed().await.get("/2026-11-29/host").await;
    let expected = json!({
        "architecture": std::env::consts::ARCH.to_uppercase().replace("AARCH64", "ARM_64"),
        "engine": "none", "accelerator": "EMULATION", "acceleratorReason": "nothing runs", "processor": "none",
    });
    assert_eq!(host, expected);
}

#[tokio::test]
async fn what_a_microvm_has_used_is_told_to_its_account() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let id = launched(&bed, "a").await;
    let usage = bed.get(&format!("/2026-11-29/microvms/{id}/usage")).await;
    assert_eq!((&usage["microvmId"], &usage["baselineCpuMillis"]), (&json!(id), &json!(1000)));
    assert_eq!((&usage["baselineMemoryMebibytes"], &usage["runningMilliseconds"]), (&json!(2048), &json!(0)));
    let unknown = format!("/2026-11-29/microvms/{}/usage", ids::MicrovmId::random());
    let unknown = bed.refused("GET", &unknown, &Value::Null).await;
    assert_eq!((unknown.0, unknown.1.as_str()), (404, "ResourceNotFoundException"));
}
