//! Signed requests over HTTP semantics, against a service that only tells which function was called.

use std::sync::Arc;

use crate::signing::signed;
use ::http::{Request as HttpRequest, Response};
use api::*;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use ids::AccountId;
use rekindle_control::{Control, Keys, Service};
use serde_json::{Value, json};
use time::OffsetDateTime;

const KEY: &str = "AKIAEXAMPLE";
const SECRET: &str = "secret";
const IMAGE: &str = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Amicrovm-image%3Amy-app";
const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:microvm-image:my-app";

struct OneKey;

impl Keys for OneKey {
    fn secret(&self, id: &str) -> Option<(AccountId, String)> {
        (id == KEY).then(|| ("123456789012".parse().unwrap(), SECRET.to_owned()))
    }
}

struct Telltale;

macro_rules! telltale {
    ($($function:ident($request:ty);)+) => {
        #[async_trait]
        impl Service for Telltale {
            $(async fn $function(
                &self,
                account: AccountId,
                _: $request,
            ) -> Result<<$request as Request>::Response, Error> {
                Err(Error::conflict("Test", account.to_string(), <$request>::OPERATION))
            })+

            async fn suspend_microvm(&self, _: AccountId, _: SuspendMicrovmRequest) -> Result<Unit, Error> {
                Ok(Unit {})
            }
        }
    };
}
telltale! {
    create_microvm_image(CreateMicrovmImageRequest);
    update_microvm_image(UpdateMicrovmImageRequest);
    get_microvm_image(GetMicrovmImageRequest);
    list_microvm_images(ListMicrovmImagesRequest);
    delete_microvm_image(DeleteMicrovmImageRequest);
    get_microvm_image_version(GetMicrovmImageVersionRequest);
    list_microvm_image_versions(ListMicrovmImageVersionsRequest);
    get_microvm_image_build(GetMicrovmImageBuildRequest);
    list_microvm_image_builds(ListMicrovmImageBuildsRequest);
    list_managed_microvm_images(ListManagedMicrovmImagesRequest);
    run_microvm(RunMicrovmRequest);
    get_microvm(GetMicrovmRequest);
    list_microvms(ListMicrovmsRequest);
    resume_microvm(ResumeMicrovmRequest);
    terminate_microvm(TerminateMicrovmRequest);
    create_microvm_auth_token(CreateMicrovmAuthTokenRequest);
}

async fn send(request: HttpRequest<String>) -> (u16, String, Value) {
    let control = Control::new(Arc::new(Telltale), Arc::new(OneKey));
    let response: Response<_> = control.lambda(request.map(|body| Full::new(Bytes::from(body)))).await;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, kind) = (response.status().as_u16(), header("x-amzn-errortype").unwrap_or_default());
    assert!(header("x-amzn-requestid").is_some());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, serde_json::from_slice(&body).unwrap())
}

async fn call(method: &str, path: &str, body: &str) -> (u16, String, Value) {
    send(signed(method, path, body, KEY, SECRET, OffsetDateTime::now_utc())).await
}

#[tokio::test]
async fn every_operation_reaches_its_function() {
    let config = json!({
        "name": "my-app", "baseImageArn": ARN, "buildRoleArn": "arn:aws:iam::123456789012:role/build",
        "codeArtifact": {"uri": "s3://a/b"},
    })
    .to_string();
    let run = json!({"imageIdentifier": ARN}).to_string();
    let token = json!({"expirationInMinutes": 5, "allowedPorts": [{"port": 8080}]}).to_string();
    let images = "/2025-09-09/microvm-images";
    let image = format!("{images}/{IMAGE}");
    let vms = "/2025-09-09/microvms";
    for (method, path, body, operation) in [
        ("POST", images.to_owned(), config.as_str(), "CreateMicrovmImage"),
        ("PUT", image.clone(), &config, "UpdateMicrovmImage"),
        ("GET", image.clone(), "", "GetMicrovmImage"),
        ("GET", images.to_owned(), "", "ListMicrovmImages"),
        ("DELETE", image.clone(), "", "DeleteMicrovmImage"),
        ("GET", format!("{image}/versions"), "", "ListMicrovmImageVersions"),
        ("GET", format!("{image}/versions/1.0"), "", "GetMicrovmImageVersion"),
        ("GET", format!("{image}/versions/1.0/builds"), "", "ListMicrovmImageBuilds"),
        ("GET", format!("{image}/versions/1.0/builds/b"), "", "GetMicrovmImageBuild"),
        ("GET", "/2025-09-09/managed-microvm-images".into(), "", "ListManagedMicrovmImages"),
        ("POST", vms.to_owned(), &run, "RunMicrovm"),
        ("GET", vms.to_owned(), "", "ListMicrovms"),
        ("GET", format!("{vms}/m"), "", "GetMicrovm"),
        ("DELETE", format!("{vms}/m"), "", "TerminateMicrovm"),
        ("POST", format!("{vms}/m/resume"), "", "ResumeMicrovm"),
        ("POST", format!("{vms}/m/auth-token"), &token, "CreateMicrovmAuthToken"),
    ] {
        let (status, kind, body) = call(method, &path, body).await;
        assert_eq!((status, kind.as_str()), (409, "ConflictException"), "{operation}: {body}");
        assert_eq!(body, json!({"message": operation, "resourceType": "Test", "resourceId": "123456789012"}));
    }
    assert_eq!(call("POST", &format!("{vms}/m/suspend"), "").await, (200, String::new(), json!({})));
}

#[tokio::test]
async fn requests_that_are_not_authentic_are_refused() {
    let path = "/2025-09-09/microvms";
    let now = OffsetDateTime::now_utc();
    let kind = async |request| {
        let (status, kind, _) = send(request).await;
        (status, kind)
    };
    let refused = |kind: &str| (403, kind.to_owned());
    assert_eq!(kind(signed("GET", path, "", KEY, "wrong", now)).await, refused("InvalidSignatureException"));
    assert_eq!(
        kind(signed("GET", path, "", "AKIAOTHER", SECRET, now)).await,
        refused("UnrecognizedClientException")
    );
    let stale = now - time::Duration::minutes(16);
    assert_eq!(kind(signed("GET", path, "", KEY, SECRET, stale)).await, refused("InvalidSignatureException"));
    let mut altered = signed("POST", path, "{}", KEY, SECRET, now);
    *altered.body_mut() = "{ }".into();
    assert_eq!(kind(altered).await, refused("InvalidSignatureException"));
    let bare = HttpRequest::builder().uri(path).body(String::new()).unwrap();
    assert_eq!(kind(bare).await, refused("MissingAuthenticationTokenException"));
}

#[tokio::test]
async fn broken_requests_are_the_clients_fault() {
    let path = "/2025-09-09/microvms";
    for (body, expected) in [
        ("{", "SerializationException"),
        ("[]", "SerializationException"),
        (r#"{"imageIdentifier": 5}"#, "SerializationException"),
        ("{}", "ValidationException"),
        (r#"{"imageIdentifier": "x"}"#, "ValidationException"),
    ] {
        let (status, kind, answer) = call("POST", path, body).await;
        assert_eq!((status, kind.as_str()), (400, expected), "{body}: {answer}");
    }
    let long = "x".repeat(rekindle_control::body::MAX_REQUEST + 1);
    assert_eq!(call("POST", path, &long).await.0, 413);
    let (status, kind, _) = call("POST", "/2025-09-09/nothing", "").await;
    assert_eq!((status, kind.as_str()), (404, "UnknownOperationException"));
}

#[tokio::test]
async fn a_listener_serves_until_told_to_stop() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let control = Control::new(Arc::new(Telltale), Arc::new(OneKey));
    let server = tokio::spawn(rekindle_control::server::serve(listener, control, async {
        let _ = stopped.await;
    }));

    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client
        .write_all(b"GET /2025-09-09/microvms HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("MissingAuthenticationToken"), "{answer}");

    stop.send(()).unwrap();
    server.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
