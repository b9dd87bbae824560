//! Each answer as the JSON that botocore's model of 2025-09-09 describes; the files in `responses` hold them
//! whole.

use std::collections::BTreeMap;

use api::shape::Reader;
use ids::ImageArn;
use lifecycle::microvm::{Event, IdlePolicy as Idle, Microvm as Life, Policy};
use serde::Serialize;
use serde_json::Value;
use store::SnapshotSizes;

use super::*;

const CREATED: u64 = 1_727_000_000_500;
const UPDATED: u64 = 1_727_000_060_000;
const ENDPOINT: &str = "0b0f6c7e-58d4-4a2e-9d3c-3f1f9f1b7a11.lambda-microvm.us-east-1.localhost";

macro_rules! assert_response {
    ($file:literal, $operation:ident, $answer:expr) => {
        let answer = shown(&$answer);
        assert_eq!(answer, expected(include_str!(concat!("responses/", $file, ".json"))), $file);
        let mut reader = Reader::default();
        let read = reader.value(Operation::$operation.model().output.unwrap(), "", answer.clone());
        assert_eq!((read, reader.broken()), (Ok(answer), &[][..]), "the model knows all of {}", $file);
    };
}

fn shown(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).unwrap()
}

/// The processor is the one that this test runs on.
fn expected(text: &str) -> Value {
    let (architecture, chipset, generation) = HOST;
    let text = text.replace("@ARCHITECTURE", architecture.as_str());
    let text = text.replace("@CHIPSET", chipset.as_str()).replace("@GENERATION", generation);
    serde_json::from_str(&text).unwrap()
}

fn arn() -> ImageArn {
    "arn:aws:lambda:us-east-1:123456789012:microvm-image:my-app".parse().unwrap()
}

fn number() -> ImageVersion {
    "3.0".parse().unwrap()
}

fn image_record() -> ImageRecord {
    ImageRecord {
        arn: arn(),
        state: built::ImageState::Updated,
        created_at: CREATED,
        updated_at: UPDATED,
        last_version: number(),
        tags: BTreeMap::from([("team".into(), "blue".into())]),
    }
}

fn latest() -> Latest {
    Latest { active: Some(number()), failed: Some("2.0".parse().unwrap()) }
}

fn version_record() -> VersionRecord {
    VersionRecord {
        image: arn(),
        version: number(),
        state: built::BuildState::Successful,
        status: built::VersionStatus::Active,
        created_at: CREATED,
        updated_at: UPDATED,
        description: Some("demo".into()),
        base_image_arn: "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1".into(),
        base_image_version: "1.0".into(),
        build_role_arn: "arn:aws:iam::123456789012:role/build".into(),
        code_artifact: store::CodeArtifact { uri: "s3://artifacts/my-app.zip".into() },
        hooks: HookSettings {
            port: Some(9000),
            ready: Some(30),
            run: Some(5),
            terminate: Some(1),
            ..HookSettings::default()
        },
        environment_variables: BTreeMap::from([("MODE".into(), "fast".into())]),
        minimum_memory_mib: 1024,
        all_capabilities: true,
        egress_network_connectors: vec![ManagedConnector::InternetEgress.arn("us-east-1")],
        logging: Some(LogSettings::CloudWatch { group: Some("/my/group".into()), stream: None }),
        unusable: None,
    }
}

fn build_record() -> BuildRecord {
    BuildRecord {
        id: "2033b7d8-1aa2-44a4-b174-3fc4bffebcea".parse().unwrap(),
        image: arn(),
        version: number(),
        state: built::BuildState::Failed,
        state_reason: Some("The container image build failed.".into()),
        created_at: CREATED,
        snapshot: None,
    }
}

fn summary(record: &MicrovmRecord) -> MicrovmSummary {
    MicrovmSummary {
        id: record.id,
        image: record.image.clone(),
        version: record.version,
        state: record.life.state,
        started_at: record.life.started_at,
    }
}

fn microvm_record() -> MicrovmRecord {
    let idle =
        Idle { max_idle_duration_seconds: 60, suspended_duration_seconds: 300, auto_resume_enabled: true };
    let mut life = Life::new(Policy { maximum_duration_seconds: 28_800, idle: Some(idle) }, CREATED);
    life.apply(&Event::Launched, CREATED + 1).unwrap();
    MicrovmRecord {
        id: "microvm-a991cd0b-3321-3e2c-a982-d5c4db52b17a".parse().unwrap(),
        endpoint: "0b0f6c7e-58d4-4a2e-9d3c-3f1f9f1b7a11".parse().unwrap(),
        account: arn().account,
        image: arn(),
        version: number(),
        execution_role_arn: Some("arn:aws:iam::123456789012:role/app".into()),
        memory_mib: 1024,
        run_hook_payload: Some("never shown".into()),
        ingress_network_connectors: vec![ManagedConnector::HttpIngress.arn("us-east-1")],
        http_ingress: true,
        egress_network_connectors: vec![ManagedConnector::InternetEgress.arn("us-east-1")],
        egress_binding: None,
        logging: Some(LogSettings::Disabled),
        life,
    }
}

#[test]
fn images_are_shown_as_aws_shows_them() {
    let made = Made { image: image(&image_record(), latest()), version: version_record() };
    let made = CreateMicrovmImageResponse::from(made);
    assert_response!("CreateMicrovmImage", CreateMicrovmImage, made);
    assert_response!("GetMicrovmImage", GetMicrovmImage, image(&image_record(), latest()));
    assert_response!(
        "ListMicrovmImages",
        ListMicrovmImages,
        ListMicrovmImagesResponse {
            items: vec![image_summary(&image_record(), latest())],
            next_token: Some("next".into())
        }
    );
    let deleted =
        DeleteMicrovmImageOutput { image_identifier: arn().to_string(), state: MicrovmImageState::Deleting };
    assert_response!("DeleteMicrovmImage", DeleteMicrovmImage, deleted);
}

#[test]
fn versions_and_builds_are_shown_as_aws_shows_them() {
    assert_response!("GetMicrovmImageVersion", GetMicrovmImageVersion, version(version_record()));
    assert_response!(
        "ListMicrovmImageBuilds",
        ListMicrovmImageBuilds,
        ListMicrovmImageBuildsOutput { items: vec![build_summary(build_record())], next_token: None }
    );
    let sizes =
        SnapshotSizes { memory: Some(574_869_504), code_install: Some(214_093_824), disk: Some(23_474_176) };
    let successful = BuildRecord {
        state: built::BuildState::Successful,
        state_reason: None,
        snapshot: Some(sizes),
        ..build_record()
    };
    assert_response!("GetMicrovmImageBuild", GetMicrovmImageBuild, build(successful));
}

#[test]
fn what_a_failed_build_did_not_make_is_not_shown() {
    let sizes = SnapshotSizes { code_install: Some(1), ..SnapshotSizes::default() };
    let failed = shown(&build(BuildRecord { snapshot: Some(sizes), ..build_record() }));
    assert_eq!(failed["snapshotBuild"], serde_json::json!({"codeInstallSizeInBytes": 1}));
    assert_eq!(shown(&build(build_record())).get("snapshotBuild"), None);
}

#[test]
fn microvms_are_shown_as_aws_shows_them() {
    assert_response!("GetMicrovm", GetMicrovm, microvm(&microvm_record(), ENDPOINT.into()));
    assert_response!(
        "ListMicrovms",
        ListMicrovms,
        ListMicrovmsResponse { items: vec![microvm_item(&summary(&microvm_record()))], next_token: None }
    );
    let mut ended = microvm_record();
    ended.life.apply(&Event::TerminateRequested, UPDATED).unwrap();
    ended.life.apply(&Event::Released, UPDATED + 10_000).unwrap();
    assert_response!("GetMicrovm-terminated", GetMicrovm, microvm(&ended, ENDPOINT.into()));
}

#[test]
fn the_rest_is_shown_as_aws_shows_it() {
    assert_response!(
        "CreateMicrovmAuthToken",
        CreateMicrovmAuthToken,
        crate::operations::tokens::answer("token".into())
    );
    assert_response!("SuspendMicrovm", SuspendMicrovm, Empty {});
    let base = ManagedMicrovmImageSummary {
        image_arn: "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1".into(),
        created_at: time(CREATED),
        updated_at: None,
    };
    assert_response!(
        "ListManagedMicrovmImages",
        ListManagedMicrovmImages,
        ListManagedMicrovmImagesOutput { items: vec![base], next_token: None }
    );
}

#[test]
fn what_was_not_asked_for_is_shown_with_its_default() {
    let record = VersionRecord {
        hooks: HookSettings::default(),
        environment_variables: BTreeMap::new(),
        all_capabilities: false,
        logging: None,
        unusable: None,
        ..version_record()
    };
    let version = shown(&version(record));
    assert_eq!(version["cpuConfigurations"], serde_json::json!([{"architecture": HOST.0.as_str()}]));
    assert_eq!(version["hooks"]["microvmHooks"]["run"], "DISABLED");
    for absent in ["environmentVariables", "additionalOsCapabilities", "logging", "stateReason"] {
        assert_eq!(version.get(absent), None, "{absent}");
    }
}
