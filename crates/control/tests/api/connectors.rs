//! Network connectors, from their making to their end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{BASE, Bed, IMAGES, MICROVMS, OTHER, OWNER, arn, bed, bed_with, image, with};
use rekindle_control::{Quotas, Rates};

const CONNECTORS: &str = "/2026-04-04/network-connectors";
const DEADLINE: Duration = Duration::from_secs(10);

fn vpc(subnet: &str) -> Value {
    json!({"VpcEgressConfiguration": {
        "SubnetIds": [subnet],
        "SecurityGroupIds": [],
        "NetworkProtocol": "IPv4",
        "AssociatedComputeResourceTypes": ["MicroVm"],
    }})
}

fn asked(name: &str, subnet: &str) -> Value {
    json!({"Name": name, "Configuration": vpc(subnet)})
}

fn path(identifier: &Value) -> String {
    format!("{CONNECTORS}/{}", identifier.as_str().unwrap().replace(':', "%3A"))
}

/// Asks until something is so.
async fn until(bed: &Bed, identifier: &Value, member: &str, value: &str) -> Value {
    let reached = async {
        loop {
            let shown = bed.get(&path(identifier)).await;
            if shown[member] == value {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("{member} never became {value}"))
}

async fn active(bed: &Bed, name: &str) -> Value {
    let made = bed.done("POST", CONNECTORS, &asked(name, "subnet-a")).await;
    until(bed, &made["Id"], "State", "ACTIVE").await
}

async fn gone(bed: &Bed, identifier: &Value) {
    let gone = async {
        while bed.call("GET", &path(identifier), &Value::Null).await.0 != 404 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.unwrap();
}

#[tokio::test]
async fn a_connector_is_accepted_then_checked() {
    let bed = bed().await;
    let (status, _, made) = bed.call("POST", CONNECTORS, &asked("vpc", "subnet-own")).await;
    assert_eq!(status, 202);
    let (id, whole) = (made["Id"].as_str().unwrap(), made["Arn"].as_str().unwrap());
    assert!(id.starts_with("nc-"));
    assert_eq!(whole, format!("arn:aws:lambda:us-east-1:{OWNER}:network-connector:{id}"));
    assert_eq!((&made["State"], &made["Version"]), (&json!("PENDING"), &json!(1)));
    assert_eq!(made["VersionArn"], format!("{whole}:1"));
    assert_eq!(made["Configuration"], vpc("subnet-own"));

    let shown = until(&bed, &made["Id"], "State", "ACTIVE").await;
    assert_eq!((&shown["LatestVersion"], &shown["LatestVersionArn"]), (&json!(1), &made["VersionArn"]));
    assert!(shown["LastModified"].as_str().unwrap().ends_with('Z') && shown["VersionArn"].is_null());
    // By name and ARN it is the same; by the ARN of its version, that version.
    assert_eq!(bed.get(&path(&json!("vpc"))).await, shown);
    assert_eq!(bed.get(&path(&made["Arn"])).await, shown);
    let version = bed.get(&path(&made["VersionArn"])).await;
    assert_eq!((&version["VersionArn"], &version["LatestVersion"]), (&made["VersionArn"], &Value::Null));
}

#[tokio::test]
async fn what_the_host_does_not_offer_fails_in_words() {
    let bed = bed().await;
    let made = bed.done("POST", CONNECTORS, &asked("vpc", "subnet-x")).await;
    let failed = until(&bed, &made["Id"], "State", "FAILED").await;
    assert_eq!(failed["StateReasonCode"], "InvalidSubnet");
    assert!(failed["StateReason"].as_str().unwrap().contains("subnet-x"), "{failed}");
    // Another's subnet is none.
    let (_, _, made) = bed.call_as(OTHER, "POST", CONNECTORS, &asked("vpc", "subnet-own")).await;
    let reached = async {
        loop {
            let (_, _, shown) = bed.call_as(OTHER, "GET", &path(&made["Id"]), &Value::Null).await;
            if shown["State"] != "PENDING" {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let shown = tokio::time::timeout(DEADLINE, reached).await.unwrap();
    assert_eq!((&shown["State"], &shown["StateReasonCode"]), (&json!("FAILED"), &json!("InvalidSubnet")));
}

#[tokio::test]
async fn a_token_stands_for_what_it_made() {
    let bed = bed().await;
    let request = with(asked("vpc", "subnet-a"), json!({"ClientToken": "t"}));
    let made = bed.done("POST", CONNECTORS, &request).await;
    assert_eq!(bed.done("POST", CONNECTORS, &request).await["Id"], made["Id"]);
    let other = with(asked("other", "subnet-a"), json!({"ClientToken": "t"}));
    let (status, kind, _) = bed.call("POST", CONNECTORS, &other).await;
    assert_eq!((status, kind.as_str()), (409, "ResourceConflictException"));
    let (status, kind, body) = bed.call("POST", CONNECTORS, &asked("vpc", "subnet-a")).await;
    assert_eq!((status, kind.as_str(), &body["Type"]), (409, "ResourceConflictException", &json!("User")));

    until(&bed, &made["Id"], "State", "ACTIVE").await;
    let update = json!({"Configuration": vpc("subnet-own"), "ClientToken": "u"});
    let updated = bed.done("PUT", &path(&made["Id"]), &update).await;
    assert_eq!((&updated["Version"], &updated["LastUpdateStatus"]), (&json!(2), &json!("InProgress")));
    until(&bed, &made["Id"], "LastUpdateStatus", "Successful").await;
    let again = bed.done("PUT", &path(&made["Id"]), &update).await;
    assert_eq!((&again["Version"], &again["LastUpdateStatus"]), (&json!(2), &json!("Successful")));

    // What is gone frees its token.
    bed.done("DELETE", &path(&made["Id"]), &Value::Null).await;
    gone(&bed, &made["Id"]).await;
    assert_ne!(bed.done("POST", CONNECTORS, &request).await["Id"], made["Id"]);
}

#[tokio::test]
async fn an_update_that_fails_leaves_the_version_before_in_force() {
    let bed = bed().await;
    let id = active(&bed, "vpc").await["Id"].clone();
    let same = bed.done("PUT", &path(&id), &json!({"Configuration": vpc("subnet-a")})).await;
    assert_eq!((&same["Version"], &same["LastUpdateStatus"]), (&json!(1), &json!("Successful")));
    let updated = bed.done("PUT", &path(&id), &json!({"Configuration": vpc("subnet-x")})).await;
    assert_eq!(updated["Version"], 2);
    let shown = until(&bed, &id, "LastUpdateStatus", "Failed").await;
    assert_eq!(shown["LastUpdateStatusReasonCode"], "InvalidSubnet");
    assert_eq!((&shown["State"], &shown["Version"]), (&json!("ACTIVE"), &json!(1)));
    assert_eq!(shown["Configuration"], vpc("subnet-a"));

    let versions = bed.get(&format!("{}/versions", path(&id))).await;
    let states: Vec<_> = versions["NetworkConnectorVersions"].as_array().unwrap().iter().collect();
    assert_eq!((&states[0]["Version"], &states[0]["State"]), (&json!(2), &json!("FAILED")));
    assert_eq!((&states[1]["Version"], &states[1]["State"]), (&json!(1), &json!("ACTIVE")));
    let failed = bed.get(&format!("{}/versions?State=FAILED", path(&id))).await;
    assert_eq!(failed["NetworkConnectorVersions"].as_array().unwrap().len(), 1);

    // One version goes, but not the one in force.
    let (status, kind, message) =
        bed.refused("DELETE", &path(&shown["LatestVersionArn"]), &Value::Null).await;
    assert_eq!((status, kind.as_str()), (409, "ResourceConflictException"));
    assert!(message.contains("delete the connector instead"), "{message}");
    let deleted = bed.done("DELETE", &path(&updated["VersionArn"]), &Value::Null).await;
    assert_eq!((&deleted["State"], &deleted["Version"]), (&json!("DELETING"), &json!(2)));
    gone(&bed, &updated["VersionArn"]).await;
    assert_eq!(bed.get(&path(&id)).await["State"], "ACTIVE");
}

#[tokio::test]
async fn listings_are_filtered_and_continue() {
    let bed = bed().await;
    for name in ["a", "b", "c"] {
        active(&bed, name).await;
    }
    let failed = bed.done("POST", CONNECTORS, &asked("d", "subnet-x")).await;
    until(&bed, &failed["Id"], "State", "FAILED").await;
    let (mut found, mut marker) = (vec![], String::new());
    loop {
        let page = bed.get(&format!("{CONNECTORS}?{marker}MaxItems=2&State=ACTIVE")).await;
        found.extend(page["NetworkConnectors"].as_array().unwrap().iter().map(|one| one["Name"].clone()));
        let Some(next) = page["NextMarker"].as_str() else { break };
        marker = format!("Marker={next}&");
    }
    found.sort_by_key(ToString::to_string);
    assert_eq!(found, ["a", "b", "c"]);
    assert_eq!(bed.get(CONNECTORS).await["NetworkConnectors"].as_array().unwrap().len(), 4);
    let (status, kind, message) = bed.refused("GET", &format!("{CONNECTORS}?Marker=x"), &Value::Null).await;
    assert_eq!((status, kind.as_str()), (400, "InvalidParameterValueException"));
    assert!(message.contains("Marker"), "{message}");
    let (_, _, others) = bed.call_as(OTHER, "GET", CONNECTORS, &Value::Null).await;
    assert_eq!(others["NetworkConnectors"], json!([]));
}

#[tokio::test]
async fn a_microvm_holds_the_version_that_it_was_run_with() {
    let bed = bed().await;
    bed.built(&image("app")).await;
    let connector = active(&bed, "vpc").await;
    let (id, whole) = (&connector["Id"], &connector["Arn"]);
    let run = json!({"imageIdentifier": arn("app"), "egressNetworkConnectors": [whole]});
    let made = bed.done("POST", MICROVMS, &run).await;
    assert_eq!(made["egressNetworkConnectors"], json!([whole]));
    let microvm = made["microvmId"].as_str().unwrap();
    let record = bed.store.read::<_, store::StoreError>(|tx| tx.microvm(microvm.parse().unwrap()));
    let binding = record.unwrap().unwrap().egress_binding.unwrap();
    assert_eq!(binding.connectors[0].to_string(), format!("{}:1", whole.as_str().unwrap()));

    let (status, kind, message) = bed.refused("DELETE", &path(id), &Value::Null).await;
    assert_eq!((status, kind.as_str()), (409, "ResourceConflictException"));
    assert!(message.contains("1 MicroVMs use"), "{message}");
    bed.reach(microvm, "RUNNING").await;
    bed.done("DELETE", &format!("{MICROVMS}/{microvm}"), &Value::Null).await;
    bed.reach(microvm, "TERMINATED").await;
    bed.done("DELETE", &path(id), &Value::Null).await;
    gone(&bed, id).await;
    let (status, kind, _) = bed.refused("POST", MICROVMS, &run).await;
    assert_eq!((status, kind.as_str()), (404, "ResourceNotFoundException"));
}

#[tokio::test]
async fn only_what_is_active_can_be_used() {
    let bed = bed().await;
    bed.built(&image("app")).await;
    let made = bed.done("POST", CONNECTORS, &asked("vpc", "subnet-x")).await;
    until(&bed, &made["Id"], "State", "FAILED").await;
    let egress = json!({"egressNetworkConnectors": [made["Arn"]]});
    let run = with(json!({"imageIdentifier": arn("app")}), egress.clone());
    let (status, kind, message) = bed.refused("POST", MICROVMS, &run).await;
    assert_eq!((status, kind.as_str()), (409, "ConflictException"));
    assert!(message.contains("FAILED"), "{message}");
    let (status, _, _) = bed.refused("POST", IMAGES, &with(image("other"), egress)).await;
    assert_eq!(status, 409);

    // An image that is built with one hands it on to its MicroVMs.
    let connector = active(&bed, "good").await;
    let egress = json!({"egressNetworkConnectors": [connector["Arn"]], "baseImageArn": BASE});
    bed.built(&with(image("bound"), egress)).await;
    let made = bed.done("POST", MICROVMS, &json!({"imageIdentifier": arn("bound")})).await;
    assert_eq!(made["egressNetworkConnectors"], json!([connector["Arn"]]));
    assert_eq!(bed.call("DELETE", &path(&connector["Id"]), &Value::Null).await.0, 409);
}

#[tokio::test]
async fn what_is_wrong_or_too_much_is_said() {
    let quotas = Quotas { network_connectors: 1, ..Quotas::default() };
    let bed = bed_with(quotas, Rates::unlimited(), 443).await;
    let name = format!("arn:aws:lambda:us-east-1:{OWNER}:network-connector:x");
    for request in [
        json!({"Name": "a", "Configuration": {"VpcEgressConfiguration": {}}}),
        asked(&name, "subnet-a"),
        json!({"Name": "a", "Configuration": {"VpcEgressConfiguration": {"SubnetIds": []}}}),
    ] {
        let (status, kind, body) = bed.call("POST", CONNECTORS, &request).await;
        assert_eq!((status, kind.as_str()), (400, "InvalidParameterValueException"), "{body}");
    }
    let connector = active(&bed, "a").await;
    let (status, kind, _) = bed.refused("POST", CONNECTORS, &asked("b", "subnet-a")).await;
    assert_eq!((status, kind.as_str()), (400, "NetworkConnectorLimitExceededException"));
    let versioned = connector["LatestVersionArn"].clone();
    let (status, kind, _) = bed.refused("PUT", &path(&versioned), &json!({})).await;
    assert_eq!((status, kind.as_str()), (400, "InvalidParameterValueException"));
    let (status, kind, body) = bed.call("GET", &path(&json!("nothing")), &Value::Null).await;
    assert_eq!((status, kind.as_str()), (404, "ResourceNotFoundException"));
    assert!(body["Message"].as_str().unwrap().contains("nothing"), "{body}");
    for identifier in [&connector["Id"], &connector["Name"], &connector["Arn"]] {
        for method in ["GET", "DELETE"] {
            let status = bed.call_as(OTHER, method, &path(identifier), &Value::Null).await.0;
            assert!(matches!(status, 403 | 404), "{method} {identifier}: {status}");
        }
    }
    assert_eq!(bed.get(&path(&connector["Id"])).await["State"], "ACTIVE");
}

#[tokio::test]
async fn no_egress_stands_alone() {
    let bed = bed().await;
    let managed =
        |name: &str| format!("arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:{name}");
    let (none, internet) = (managed("NO_EGRESS"), managed("INTERNET_EGRESS"));
    let own = active(&bed, "vpc").await["Arn"].as_str().unwrap().to_owned();
    let egress = |arns: &[&String]| json!({"egressNetworkConnectors": arns});
    bed.built(&with(image("closed"), egress(&[&none]))).await;
    let run = json!({"imageIdentifier": arn("closed")});
    for other in [&internet, &own] {
        let (status, kind, message) =
            bed.refused("POST", MICROVMS, &with(run.clone(), egress(&[&none, other]))).await;
        assert_eq!((status, kind.as_str()), (400, "ValidationException"));
        assert_eq!(message, "NO_EGRESS cannot be combined with other egress network connectors");
    }
    let ingress = json!({"ingressNetworkConnectors": [none]});
    assert_eq!(
        bed.refused("POST", MICROVMS, &with(run.clone(), ingress)).await.0,
        400,
        "the other direction"
    );

    // An image hands it on; a MicroVM may be run with another in its place.
    let bound = async |asked: &Value| {
        let made = bed.done("POST", MICROVMS, asked).await;
        let id = made["microvmId"].as_str().unwrap().parse().unwrap();
        let record = bed.store.read::<_, store::StoreError>(|tx| tx.microvm(id)).unwrap().unwrap();
        (made["egressNetworkConnectors"].clone(), record.egress_binding)
    };
    let nothing = store::EgressBinding { internet: false, connectors: vec![] };
    assert_eq!(bound(&run).await, (json!([none]), Some(nothing)));
    assert_eq!(bound(&with(run, egress(&[&internet]))).await, (json!([internet]), None));
}
