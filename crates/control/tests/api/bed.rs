//! The operations as they are served, over a machine that does nothing but count and builds that are only
//! noted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::keys::AccessKey;
use bytes::Bytes;
use capacity::{Capacity, Limits, Measured};
use connectors::{Connectors, Networks, Subnet};
use doubles::Imagined;
use http_body_util::{BodyExt, Full};
use iam::{RoleSession, ServiceRoles};
use identity::Identity;
use ids::{BuildId, ImageArn, ImageVersion};
use node::{Node, now_ms};
use percent_encoding::NON_ALPHANUMERIC;
use proxy::EndpointHosts;
use rekindle_control::{
    Audit, Builds, Control, DomainNames, Front, Operations, OtherArchitectures, Quotas, Rates, RunsOn,
    Settings, Throttle,
};
use serde_json::{Value, json};
use store::{SnapshotSizes, Store};
use time::OffsetDateTime;

use crate::signing::{signed, signed_for};

pub(crate) const IMAGES: &str = "/2025-09-09/microvm-images";
pub(crate) const MICROVMS: &str = "/2025-09-09/microvms";
pub(crate) const BASE: &str = "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1";
/// The caller of [`Bed::call`], and another.
pub(crate) const OWNER: &str = "123456789012";
pub(crate) const OTHER: &str = "210987654321";
pub(crate) const SECRET: &str = "secret";
pub(crate) const REGION: &str = "us-east-1";
const DEADLINE: Duration = Duration::from_secs(10);
const TOKEN_SECRET: [u8; 32] = [3; 32];

#[derive(Default)]
struct Noted {
    started: Mutex<Vec<BuildId>>,
    removed: Mutex<Vec<String>>,
}

impl Builds for Noted {
    fn start(&self, build: BuildId) {
        self.started.lock().unwrap().push(build);
    }
    fn remove(&self, image: ImageArn) {
        self.removed.lock().unwrap().push(image.to_string());
    }
    fn remove_version(&self, image: ImageArn, version: ImageVersion) {
        self.removed.lock().unwrap().push(format!("{image} {version}"));
    }
}

/// Roles that trust everybody.
#[derive(Debug)]
struct Willing;

impl ServiceRoles for Willing {
    fn assume(&self, _: &str, _: &str, _: &str) -> Result<Arc<dyn RoleSession>, String> {
        Ok(Arc::new(Willing))
    }
}

impl RoleSession for Willing {
    fn may(&self, _: &str, _: &str) -> Result<(), String> {
        Ok(())
    }
}

/// Two subnets, one of them the owner's alone.
fn networks() -> Networks {
    let subnet = |account: Option<&str>| Subnet {
        account: account.map(|account| account.parse().unwrap()),
        routes: network::egress::Routes::internet(),
    };
    let subnets = [("subnet-a".to_owned(), subnet(None)), ("subnet-own".to_owned(), subnet(Some(OWNER)))];
    Networks { subnets: subnets.into(), ..Networks::default() }
}

/// An answer: status, `x-amzn-errortype`, body.
pub(crate) type Answer = (u16, String, Value);

pub(crate) struct Bed {
    dir: tempfile::TempDir,
    pub(crate) store: Store,
    machines: Imagined,
    builds: Arc<Noted>,
    pub(crate) room: Capacity,
    control: Control,
}

pub(crate) async fn bed() -> Bed {
    bed_with(Quotas::default(), Rates::unlimited(), 443).await
}

pub(crate) async fn bed_with(quotas: Quotas, rates: Rates, endpoint_port: u16) -> Bed {
    bed_for(quotas, rates, endpoint_port, OtherArchitectures::Refuse).await
}

/// One that builds for its own architecture what is to be for another.
pub(crate) async fn bed_for_all() -> Bed {
    bed_for(Quotas::default(), Rates::unlimited(), 443, OtherArchitectures::Host).await
}

async fn bed_for(
    quotas: Quotas,
    rates: Rates,
    endpoint_port: u16,
    other_architectures: OtherArchitectures,
) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    let machines = Imagined::default();
    let builds = Arc::new(Noted::default());
    let settings = Settings {
        region: REGION.into(),
        hosts: EndpointHosts::new(REGION, "localhost"),
        endpoint_port,
        tokens: tokens(),
        page_secret: [5; 32],
        base_image_created_at: 1,
        quotas,
        domains: DomainNames::new(vec!["*.example.com".into()]),
        other_architectures,
        runs_on: RunsOn {
            engine: "none".into(),
            accelerator: api::endpoints::Accelerator::Emulation,
            because: "nothing runs".into(),
            processor: "none".into(),
        },
    };
    let room = Capacity::new(Limits { build_memory: 1, ..Limits::default() });
    let node = Node::start(store.clone(), Arc::new(machines.clone()), room.clone()).unwrap();
    let identity = identity(&store).await;
    let connectors = Connectors::new(store.clone(), networks(), Arc::new(Willing));
    let operations = Operations::new(
        settings,
        store.clone(),
        identity.clone(),
        node,
        builds.clone(),
        room.clone(),
        connectors,
    );
    let audit = Audit::to_dir(&dir.path().join("audit"), REGION).unwrap();
    let front = Front { region: REGION.into(), identity, throttle: Throttle::new(rates), audit };
    let control = Control::new(Arc::new(operations), front);
    Bed { dir, store, machines, builds, room, control }
}

/// Both accounts, whose access keys are their numbers, with the roles that the requests of these tests name.
pub(crate) async fn identity(store: &Store) -> Identity {
    for account in [OWNER, OTHER] {
        let key = AccessKey { id: account.into(), secret: SECRET.into() };
        identity::accounts::ensure(store, &account.parse().unwrap(), &key).await.unwrap();
    }
    Identity::open(store.clone(), [9; 32]).unwrap()
}

pub(crate) fn tokens() -> auth::keyring::TokenKeyring {
    auth::token::TokenKey::from_secret(TOKEN_SECRET).into()
}

pub(crate) fn arn(name: &str) -> String {
    format!("arn:aws:lambda:us-east-1:{OWNER}:microvm-image:{name}")
}

pub(crate) fn image_path(name: &str) -> String {
    format!("{IMAGES}/{}", arn(name).replace(':', "%3A"))
}

/// What CreateMicrovmImage needs at the least.
pub(crate) fn image(name: &str) -> Value {
    json!({
        "name": name,
        "baseImageArn": BASE,
        "buildRoleArn": format!("arn:aws:iam::{OWNER}:role/MicroVMBuildRole"),
        "codeArtifact": {"uri": "s3://artifacts/app.zip"},
    })
}

/// `body` with these members instead.
pub(crate) fn with(mut body: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("members are an object") };
    body.as_object_mut().unwrap().extend(members);
    body
}

impl Bed {
    /// Leaves the host so many bytes of memory; `None`: enough.
    pub(crate) fn leave(&self, memory: Option<u64>) {
        self.room.observe(Measured { memory, disk: None }, &BTreeMap::new());
    }

    pub(crate) async fn call(&self, method: &str, uri: &str, body: &Value) -> Answer {
        self.call_as(OWNER, method, uri, body).await
    }

    pub(crate) async fn call_as(&self, account: &str, method: &str, uri: &str, body: &Value) -> Answer {
        self.call_with(&(account.into(), SECRET.into()), method, uri, body).await
    }

    /// A call signed with this access key and secret.
    pub(crate) async fn call_with(
        &self,
        (key, secret): &(String, String),
        method: &str,
        uri: &str,
        body: &Value,
    ) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = signed(method, uri, &body, key, secret, OffsetDateTime::now_utc());
        let response = self.control.lambda(request.map(|body| Full::new(Bytes::from(body)))).await;
        let kind = response.headers().get("x-amzn-errortype");
        let kind = kind.map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        // An answer without a body is null.
        (status, kind, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
    }

    /// What a call of IAM, which must succeed, answers to the owner.
    pub(crate) async fn iam(&self, form: &[(&str, &str)]) -> String {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let fields = form.iter().chain(&[("Version", "2010-05-08")]);
        let body: Vec<String> = fields.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let body = body.join("&");
        let request = signed_for("iam", "POST", "/", &body, OWNER, SECRET, OffsetDateTime::now_utc());
        let response = self.control.query(request.map(|body| Full::new(Bytes::from(body)))).await;
        let status = response.status();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        assert!(status.is_success(), "{body}: {answer}");
        answer
    }

    pub(crate) fn audit_dir(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    /// The lines of the audit log, once they are `complete`.
    pub(crate) async fn audited(&self, complete: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let reached = async {
            loop {
                let files = std::fs::read_dir(self.audit_dir()).unwrap().map(|file| file.unwrap().path());
                let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
                let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                let lines: Vec<Value> = whole.map(|line| serde_json::from_str(line).unwrap()).collect();
                if complete(&lines) {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.expect("the calls are in the audit log")
    }

    /// The body of an answer that must be a success.
    pub(crate) async fn done(&self, method: &str, uri: &str, body: &Value) -> Value {
        let (status, kind, answer) = self.call(method, uri, body).await;
        assert!(status < 300, "{method} {uri}: {status} {kind} {answer}");
        answer
    }

    /// Status, kind and message of an answer that must be a refusal.
    pub(crate) async fn refused(&self, method: &str, uri: &str, body: &Value) -> (u16, String, String) {
        let (status, kind, answer) = self.call(method, uri, body).await;
        (status, kind, answer["message"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) async fn get(&self, uri: &str) -> Value {
        self.done("GET", uri, &Value::Null).await
    }

    pub(crate) fn started(&self) -> Vec<BuildId> {
        self.builds.started.lock().unwrap().clone()
    }

    pub(crate) fn removed(&self) -> Vec<String> {
        self.builds.removed.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.machines.calls()
    }

    /// Ends the build that was started last, as the pipeline would.
    pub(crate) async fn build(&self, outcome: Result<(), &str>) {
        let id = *self.started().last().unwrap();
        let sizes = SnapshotSizes { memory: Some(10), code_install: Some(20), disk: Some(30) };
        let outcome = outcome.map(|()| sizes).map_err(str::to_owned);
        self.store.write(move |tx| store::builds::begin(tx, id, now_ms())).await.unwrap().unwrap();
        self.store.write(move |tx| store::builds::finish(tx, id, outcome, None, now_ms())).await.unwrap();
    }

    /// An image with one version to run.
    pub(crate) async fn built(&self, body: &Value) {
        self.done("POST", IMAGES, body).await;
        self.build(Ok(())).await;
    }

    /// Asks until the MicroVM has this state.
    pub(crate) async fn reach(&self, id: &str, state: &str) -> Value {
        let reached = async {
            loop {
                let microvm = self.get(&format!("{MICROVMS}/{id}")).await;
                if microvm["state"] == state {
                    return microvm;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("{id} never became {state}"))
    }

    /// A MicroVM of image `name`, running.
    pub(crate) async fn running(&self, name: &str) -> String {
        let made = self.done("POST", MICROVMS, &json!({"imageIdentifier": arn(name)})).await;
        let id = made["microvmId"].as_str().unwrap().to_owned();
        self.reach(&id, "RUNNING").await;
        id
    }
}
