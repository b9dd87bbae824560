//! Requests as clients send them, and the answers that AWS gives to broken ones (SPEC §2.4).

// A helper of a test may panic like the test itself.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use rekindle_api::decode::decode;
use rekindle_api::{
    CreateMicrovmAuthTokenRequest, CreateMicrovmImageRequest, Error, ErrorKind, Family, RunMicrovmRequest,
};
use serde_json::{Value, json};

/// Longest `runHookPayload`, in characters.
const MAX_RUN_HOOK_PAYLOAD: usize = 4096;
const IMAGE: &str = "arn:aws:lambda:us-east-1:123456789012:microvm-image:my-app";

fn image(change: impl FnOnce(&mut Value)) -> Result<CreateMicrovmImageRequest, Error> {
    let mut body = json!({
        "name": "my-app",
        "baseImageArn": "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1",
        "buildRoleArn": "arn:aws:iam::123456789012:role/build",
        "codeArtifact": {"uri": "s3://artifacts/my-app.zip"},
        "logging": {"disabled": {}},
    });
    change(&mut body);
    decode(body.to_string().as_bytes(), &[], &[])
}

fn run(change: impl FnOnce(&mut Value)) -> Result<RunMicrovmRequest, Error> {
    let mut body = json!({"imageIdentifier": IMAGE});
    change(&mut body);
    decode(body.to_string().as_bytes(), &[], &[])
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().message
}

#[test]
fn a_whole_request_is_read() {
    let request = image(|body| {
        body["resources"] = json!([{"minimumMemoryInMiB": 512}]);
        body["hooks"] = json!({"port": 9000, "microvmImageHooks": {"ready": "ENABLED"}});
        body["environmentVariables"] = json!({"A": "b"});
        body["description"] = Value::Null;
    })
    .unwrap();
    assert_eq!(request.config.size().unwrap().vcpus, 1);
    assert_eq!(request.config.code_artifact.location().unwrap(), ("artifacts", "my-app.zip"));
    assert!(!format!("{request:?}").contains("\"b\""), "values stay out of logs");
}

#[test]
fn broken_images_get_the_messages_of_aws() {
    assert_eq!(
        message(image(|body| body["resources"] = json!([{"minimumMemoryInMiB": 3000}]))),
        "The requested memory size of 3000 MiB is not supported by base MicroVM image \
         arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1. \
         Supported memory sizes in MiB are: [512, 1024, 2048, 4096, 8192]."
    );
    assert_eq!(
        message(image(|body| body["codeArtifact"] = json!({"uri": "https://x/y"}))),
        "CodeArtifact URI must be a valid S3 URI in the format: s3://<bucket>/<key>"
    );
    assert_eq!(
        message(image(|body| body["environmentVariables"] = json!({"AWS_REGION": ""}))),
        "Environment variable key 'AWS_REGION' is reserved"
    );
    assert!(
        message(image(|body| body["kmsKeyIdentifier"] = json!("alias/mine"))).starts_with("kmsKeyIdentifier")
    );
    let hooks = json!({"microvmHooks": {"run": "ENABLED"}});
    assert!(
        message(image(|body| body["hooks"] = hooks))
            .starts_with("The ready (/ready) MicroVM image hook must be")
    );
    assert_eq!(
        message(image(|body| {
            body.as_object_mut().unwrap().remove("name");
        })),
        "1 validation error detected: Value at 'name' failed to satisfy constraint: Member must not be null"
    );
    assert_eq!(
        message(image(|body| body["additionalOsCapabilities"] = json!(["SOME"]))),
        "1 validation error detected: Value at 'additionalOsCapabilities.1.member' failed to satisfy constraint: \
         Member must satisfy enum value set: [ALL]"
    );
}

#[test]
fn run_reports_in_the_order_of_aws() {
    let long = "x".repeat(MAX_RUN_HOOK_PAYLOAD + 1);
    assert_eq!(
        message(run(|body| {
            body["runHookPayload"] = json!(long);
            body["imageIdentifier"] = json!("my-app");
        })),
        "1 validation error detected: Value at 'runHookPayload' failed to satisfy constraint: \
         Member must have length less than or equal to 4096"
    );
    assert_eq!(
        message(run(|body| body["imageIdentifier"] = json!("my-app"))),
        "Malformed ARN - doesn't start with 'arn:'"
    );
    assert!(run(|body| body["runHookPayload"] = json!("x".repeat(MAX_RUN_HOOK_PAYLOAD))).is_ok());
    assert_eq!(
        message(run(|body| body["ingressNetworkConnectors"] = json!(["x"]))),
        "Malformed network connector ARN"
    );
}

#[test]
fn tokens_have_ports_and_a_life() {
    let token = |minutes: i64, ports: Value| {
        let body = json!({"expirationInMinutes": minutes, "allowedPorts": ports}).to_string();
        let path = [("microvmIdentifier", "microvm-x".to_owned())];
        decode::<CreateMicrovmAuthTokenRequest>(body.as_bytes(), &path, &[])
    };
    let all = json!([{"port": 1}, {"range": {"startPort": 1, "endPort": 2}}, {"allPorts": {}}]);
    assert_eq!(token(60, all.clone()).unwrap().allowed_ports.len(), 3);
    assert_eq!(message(token(61, all)), "ExpirationMinutes 61 exceeded max allowed of 60.");
    assert_eq!(token(1, json!([])).unwrap_err().kind, ErrorKind::Validation);
    assert_eq!(token(1, json!([{"port": 70_000}])).unwrap_err().kind, ErrorKind::Validation);
}

proptest! {
    #[test]
    fn no_bytes_panic_and_every_error_is_a_400(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let error = decode::<RunMicrovmRequest>(&body, &[], &[]).unwrap_err();
        prop_assert_eq!(error.kind.status(Family::Microvms), 400);
    }

    #[test]
    fn no_text_panics(identifier in ".{0,300}", payload in ".{0,300}", version in ".{0,40}", role in ".{0,60}") {
        let _ = run(|body| {
            body["imageIdentifier"] = json!(identifier);
            body["runHookPayload"] = json!(payload);
            body["imageVersion"] = json!(version);
            body["executionRoleArn"] = json!(role);
        });
    }

    #[test]
    fn a_request_survives_the_wire(duration in 1i64..=28_800, idle in 60i64..10_000, payload in ".{0,50}") {
        let request = run(|body| {
            body["maximumDurationInSeconds"] = json!(duration);
            body["idlePolicy"] =
                json!({"maxIdleDurationSeconds": idle, "suspendedDurationSeconds": 0, "autoResumeEnabled": true});
            body["runHookPayload"] = json!(payload);
        })
        .unwrap();
        let again = decode::<RunMicrovmRequest>(&serde_json::to_vec(&request).unwrap(), &[], &[]).unwrap();
        prop_assert_eq!(request, again);
    }
}
