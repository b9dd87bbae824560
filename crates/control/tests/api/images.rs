//! Images, versions and builds over HTTP and real records.

use crate::bed::{BASE, IMAGES, MICROVMS, OTHER, arn, bed, bed_for_all, bed_with, image, image_path, with};
use rekindle_control::{Quotas, Rates};
use serde_json::{Value, json};

/// What this host runs.
const HOST: &str = if cfg!(target_arch = "aarch64") { "ARM_64" } else { "X86_64" };

fn refusal(status: u16, kind: &str, message: impl Into<String>) -> (u16, String, String) {
    (status, kind.to_owned(), message.into())
}

#[tokio::test]
async fn an_image_is_created_built_and_shown() {
    let bed = bed().await;
    let (status, _, made) = bed.call("POST", IMAGES, &with(image("a"), json!({"tags": {"k": "v"}}))).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!((made["state"].as_str(), made["imageVersion"].as_str()), (Some("CREATING"), Some("1.0")));
    assert_eq!((made["baseImageVersion"].as_str(), &made["tags"]["k"]), (Some("1.0"), &json!("v")));
    assert_eq!(made["resources"], json!([{"minimumMemoryInMiB": 2048}]));
    let egress = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:INTERNET_EGRESS";
    assert_eq!(made["egressNetworkConnectors"], json!([egress]));
    assert_eq!(made.get("latestActiveImageVersion"), None);
    let build = bed.started()[0].to_string();
    let builds = format!("{}/versions/1/builds", image_path("a"));
    assert_eq!(bed.get(&builds).await["items"][0]["buildState"], "PENDING");

    bed.build(Ok(())).await;
    let image = bed.get(&image_path("a")).await;
    assert_eq!(
        (image["state"].as_str(), image["latestActiveImageVersion"].as_str()),
        (Some("CREATED"), Some("1.0"))
    );
    let version = bed.get(&format!("{}/versions/1.0", image_path("a"))).await;
    assert_eq!((version["state"].as_str(), version["status"].as_str()), (Some("SUCCESSFUL"), Some("ACTIVE")));
    let shown = bed.get(&format!("{builds}/{build}")).await;
    assert_eq!(shown["snapshotBuild"]["memorySnapshotSizeInBytes"], 10);
}

#[tokio::test]
async fn a_failed_build_says_why_on_the_build_alone() {
    let bed = bed().await;
    bed.done("POST", IMAGES, &image("a")).await;
    bed.build(Err("The container image build failed.")).await;
    let image = bed.get(&image_path("a")).await;
    assert_eq!(
        (image["state"].as_str(), image["latestFailedImageVersion"].as_str()),
        (Some("CREATE_FAILED"), Some("1.0"))
    );
    let versions = bed.get(&format!("{}/versions", image_path("a"))).await;
    assert_eq!(versions["items"][0].get("stateReason"), None);
    let builds = bed.get(&format!("{}/versions/1.0/builds", image_path("a"))).await;
    assert_eq!(builds["items"][0]["stateReason"], "The container image build failed.");
}

#[tokio::test]
async fn an_update_replaces_everything_and_waits_for_the_one_before() {
    let bed = bed().await;
    let body = with(
        image("a"),
        json!({
            "logging": {"disabled": {}},
            "cpuConfigurations": [{"architecture": HOST}],
            "environmentVariables": {"A": "b"},
            "hooks": {"port": 9000, "microvmImageHooks": {"ready": "ENABLED"}},
        }),
    );
    bed.done("POST", IMAGES, &body).await;
    let busy = refusal(409, "ConflictException", "MicroVM Image is already in state: CREATING");
    assert_eq!(bed.refused("PUT", &image_path("a"), &image("a")).await, busy);
    bed.build(Ok(())).await;

    let made = bed.done("PUT", &image_path("a"), &image("a")).await;
    assert_eq!((made["state"].as_str(), made["imageVersion"].as_str()), (Some("UPDATING"), Some("2.0")));
    assert_eq!((made.get("environmentVariables"), made.get("logging")), (None, None));
    let first = bed.get(&format!("{}/versions/1.0", image_path("a"))).await;
    assert_eq!(first["logging"], json!({"disabled": {}}));
    assert_eq!(first["cpuConfigurations"], json!([{"architecture": HOST}]));
    assert_eq!(first["environmentVariables"], json!({"A": "b"}));
    assert_eq!(first["hooks"]["microvmImageHooks"]["readyTimeoutInSeconds"], 30);

    bed.build(Err("no")).await;
    let failed = bed.get(&image_path("a")).await;
    assert_eq!(failed["state"], "UPDATE_FAILED");
    assert_eq!(
        (&failed["latestActiveImageVersion"], &failed["latestFailedImageVersion"]),
        (&json!("1.0"), &json!("2.0"))
    );
    let unknown = refusal(
        404,
        "ResourceNotFoundException",
        format!("MicroVMImage not found for MicroVMImageID: {}", arn("b")),
    );
    assert_eq!(bed.refused("PUT", &image_path("b"), &image("b")).await, unknown);
}

#[tokio::test]
async fn another_architecture_is_refused_unless_the_operator_maps_it() {
    let (host, other) = (HOST, if HOST == "ARM_64" { "X86_64" } else { "ARM_64" });
    let body = with(image("a"), json!({ "cpuConfigurations": [{ "architecture": other }] }));
    let message = format!(
        "cpuConfigurations asks for {other}, and this host runs {host} only. Leave it out, or have the operator set \
         other_architectures = \"host\", with which such images are built for {host}."
    );
    let strict = bed().await;
    let refused = refusal(400, "ValidationException", message);
    assert_eq!(strict.refused("POST", IMAGES, &body).await, refused);
    assert!(strict.started().is_empty());
    strict.done("POST", IMAGES, &image("a")).await;
    strict.build(Ok(())).await;
    assert_eq!(strict.refused("PUT", &image_path("a"), &body).await, refused);

    let mapping = bed_for_all().await;
    let made = mapping.done("POST", IMAGES, &body).await;
    assert_eq!(made["cpuConfigurations"], json!([{ "architecture": host }]), "it says what it will run on");
    mapping.build(Ok(())).await;
    let builds = mapping.get(&format!("{}/versions/1.0/builds", image_path("a"))).await;
    assert_eq!(builds["items"][0]["architecture"], host);
}

#[tokio::test]
async fn a_client_token_makes_one_image_only() {
    let bed = bed().await;
    let body = with(image("a"), json!({"clientToken": "t"}));
    bed.done("POST", IMAGES, &body).await;
    bed.build(Ok(())).await;
    let again = bed.done("POST", IMAGES, &body).await;
    assert_eq!((again["state"].as_str(), bed.started().len()), (Some("CREATED"), 1), "as it is now");
    let other = with(image("b"), json!({"clientToken": "t"}));
    assert_eq!(bed.refused("POST", IMAGES, &other).await.0, 409);
    let taken = "A MicroVM image with the name 'a' already exists in this account";
    let taken = refusal(400, "ValidationException", taken);
    assert_eq!(bed.refused("POST", IMAGES, &with(image("a"), json!({"clientToken": "u"}))).await, taken);

    let update = with(image("a"), json!({"clientToken": "t", "description": "new"}));
    let made = bed.done("PUT", &image_path("a"), &update).await;
    assert_eq!(made["imageVersion"], "2.0", "a token of another operation is another token");
    assert_eq!(bed.done("PUT", &image_path("a"), &update).await["imageVersion"], "2.0");
    assert_eq!(bed.started().len(), 2);
    let others = format!("arn:aws:iam::{OTHER}:role/MicroVMBuildRole");
    assert_eq!(
        bed.call_as(OTHER, "POST", IMAGES, &with(body, json!({"buildRoleArn": others}))).await.0,
        201,
        "accounts do not share tokens or names"
    );
}

#[tokio::test]
async fn simultaneous_creates_of_one_name_make_one_image() {
    let bed = bed().await;
    let (one, two) = (image("a"), image("a"));
    let (one, two) = tokio::join!(bed.call("POST", IMAGES, &one), bed.call("POST", IMAGES, &two));
    let mut statuses = [one.0, two.0];
    statuses.sort_unstable();
    assert_eq!((statuses, bed.started().len()), ([201, 400], 1));
}

#[tokio::test]
async fn an_image_goes_only_when_nothing_needs_it() {
    let bed = bed().await;
    bed.done("POST", IMAGES, &with(image("a"), json!({"clientToken": "t"}))).await;
    let busy = refusal(409, "ConflictException", "MicroVM Image is already in state: CREATING");
    assert_eq!(bed.refused("DELETE", &image_path("a"), &Value::Null).await, busy);
    bed.build(Ok(())).await;
    let id = bed.running("a").await;
    let used = refusal(409, "ConflictException", "Cannot delete MicroVM image with running MicroVMs");
    assert_eq!(bed.refused("DELETE", &image_path("a"), &Value::Null).await, used);
    bed.done("DELETE", &format!("{MICROVMS}/{id}"), &Value::Null).await;
    bed.reach(&id, "TERMINATED").await;

    let deleted = bed.done("DELETE", &image_path("a"), &Value::Null).await;
    assert_eq!(deleted, json!({"imageIdentifier": arn("a"), "state": "DELETING"}));
    bed.done("DELETE", &image_path("a"), &Value::Null).await;
    assert_eq!(bed.removed(), [arn("a")], "its removal begins once");
    let name = "A MicroVM image with the name 'a' already exists in this account";
    assert_eq!(bed.refused("POST", IMAGES, &image("a")).await.2, name, "until it is gone");
    assert_eq!(bed.refused("POST", MICROVMS, &json!({"imageIdentifier": arn("a")})).await.0, 404);

    let gone = arn("a").parse().unwrap();
    bed.store.write(move |tx| tx.delete_image(&gone)).await.unwrap();
    assert_eq!(bed.refused("GET", &image_path("a"), &Value::Null).await.0, 404);
    let again = bed.done("POST", IMAGES, &with(image("a"), json!({"clientToken": "t"}))).await;
    assert_eq!(
        (again["state"].as_str(), bed.started().len()),
        (Some("CREATING"), 2),
        "its token is free too"
    );
}

#[tokio::test]
async fn other_accounts_and_regions_see_nothing() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let (status, kind, answer) = bed.call_as(OTHER, "GET", &image_path("a"), &Value::Null).await;
    assert_eq!((status, kind.as_str()), (403, "AccessDeniedException"));
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains(&format!(
            "is not authorized to perform: lambda:GetMicrovmImage on resource: {}",
            arn("a")
        )),
        "{message}"
    );
    let list = bed.call_as(OTHER, "GET", IMAGES, &Value::Null).await;
    assert_eq!(list.2, json!({"items": []}));
    let run = json!({"imageIdentifier": arn("a")});
    assert_eq!(bed.call_as(OTHER, "POST", MICROVMS, &run).await.1, "AccessDeniedException");
    let elsewhere = image_path("a").replace("us-east-1", "eu-west-1");
    assert_eq!(bed.refused("GET", &elsewhere, &Value::Null).await.0, 404);
    assert_eq!(
        bed.refused("GET", &format!("{IMAGES}/a"), &Value::Null).await,
        refusal(400, "ValidationException", "Invalid ARN format: a")
    );
}

#[tokio::test]
async fn unknown_versions_builds_and_bases_are_refused() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    bed.built(&image("b")).await;
    for path in ["versions/2.0", "versions/x", "versions/2.0/builds", "versions/1.0/builds/x"] {
        let refused = bed.refused("GET", &format!("{}/{path}", image_path("a")), &Value::Null).await;
        assert_eq!(
            (refused.0, refused.1.as_str()),
            (404, "ResourceNotFoundException"),
            "{path}: {}",
            refused.2
        );
    }
    let of_b = format!("{}/versions/1.0/builds/{}", image_path("a"), bed.started()[1]);
    assert_eq!(bed.refused("GET", &of_b, &Value::Null).await.0, 404, "a build of another image");
    let bogus = format!("No managed MicroVM Image with arn {BASE} and version 999 is available");
    assert_eq!(
        bed.refused("POST", IMAGES, &with(image("c"), json!({"baseImageVersion": "999"}))).await,
        refusal(400, "ValidationException", bogus)
    );
    assert_eq!(bed.refused("GET", &image_path("c"), &Value::Null).await.0, 404, "nothing was made");
    let bases = bed.get("/2025-09-09/managed-microvm-images").await;
    assert_eq!(bases["items"], json!([{"imageArn": BASE, "createdAt": 0.001}]));
}

#[tokio::test]
async fn builds_are_filtered_by_processor() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    let builds = format!("{}/versions/1.0/builds", image_path("a"));
    let build = &bed.get(&builds).await["items"][0];
    let same =
        format!("architecture={}&chipset={}", build["architecture"], build["chipset"]).replace('"', "");
    assert_eq!(bed.get(&format!("{builds}?{same}")).await["items"].as_array().unwrap().len(), 1);
    assert_eq!(bed.get(&format!("{builds}?chipsetGeneration=99")).await, json!({"items": []}));
}

#[tokio::test]
async fn pages_lead_through_all_images_and_are_filtered_after_they_are_cut() {
    let bed = bed().await;
    for name in ["a1", "b1", "a2"] {
        bed.done("POST", IMAGES, &image(name)).await;
    }
    let mut names = Vec::new();
    let mut query = "maxResults=1&nameFilter=a".to_owned();
    let mut pages = 0;
    loop {
        let page = bed.get(&format!("{IMAGES}?{query}")).await;
        pages += 1;
        names.extend(page["items"].as_array().unwrap().iter().map(|image| image["name"].clone()));
        let Some(token) = page["nextToken"].as_str() else { break };
        query = format!("maxResults=1&nameFilter=a&nextToken={token}");
    }
    assert_eq!((names, pages), (vec![json!("a1"), json!("a2")], 3));

    let token = bed.get(&format!("{IMAGES}?maxResults=1")).await["nextToken"].as_str().unwrap().to_owned();
    let changed = format!("{}A", &token[..token.len() - 1]);
    for (query, case) in [
        (format!("nextToken={changed}x"), "changed"),
        (format!("nameFilter=a&nextToken={token}"), "of a listing with another filter"),
    ] {
        let (status, kind, _) = bed.refused("GET", &format!("{IMAGES}?{query}"), &Value::Null).await;
        assert_eq!((status, kind.as_str()), (400, "ValidationException"), "{case}");
    }
    assert_eq!(bed.call_as(OTHER, "GET", &format!("{IMAGES}?nextToken={token}"), &Value::Null).await.0, 400);
}

#[tokio::test]
async fn versions_are_listed_newest_first() {
    let bed = bed().await;
    bed.built(&image("a")).await;
    for _ in 0..2 {
        bed.done("PUT", &image_path("a"), &image("a")).await;
        bed.build(Ok(())).await;
    }
    let path = format!("{}/versions?maxResults=2", image_path("a"));
    let first = bed.get(&path).await;
    let rest = bed.get(&format!("{path}&nextToken={}", first["nextToken"].as_str().unwrap())).await;
    let pages = first["items"].as_array().unwrap().iter().chain(rest["items"].as_array().unwrap());
    let numbers: Vec<_> = pages.map(|version| version["imageVersion"].as_str().unwrap()).collect();
    assert_eq!((numbers, rest.get("nextToken")), (vec!["3.0", "2.0", "1.0"], None));
}

#[tokio::test]
async fn quotas_are_kept() {
    let quotas = Quotas {
        images: 2,
        versions_per_image: 2,
        concurrent_builds: 1,
        memory_mib: 2048,
        ..Quotas::default()
    };
    let bed = bed_with(quotas, Rates::unlimited(), 443).await;
    bed.done("POST", IMAGES, &image("a")).await;
    let builds = bed.refused("POST", IMAGES, &image("b")).await;
    assert_eq!((builds.0, builds.1.as_str()), (402, "ServiceQuotaExceededException"));
    assert!(builds.2.contains("maximum number of concurrent builds"), "{}", builds.2);
    bed.build(Ok(())).await;
    bed.built(&image("b")).await;
    assert!(bed.refused("POST", IMAGES, &image("c")).await.2.contains("MicroVM images, 2"));
    bed.done("PUT", &image_path("a"), &image("a")).await;
    bed.build(Ok(())).await;
    assert!(bed.refused("PUT", &image_path("a"), &image("a")).await.2.contains("number of versions, 2"));
    bed.running("a").await;
    let microvms = bed.call("POST", MICROVMS, &json!({"imageIdentifier": arn("a")})).await;
    assert_eq!((microvms.0, &microvms.2["serviceCode"]), (402, &json!("lambda")));
}
