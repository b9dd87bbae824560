//! The servers that the tests ask, each of its own manners, on loopback.

use std::path::Path;
use std::sync::Arc;

use api::OPERATIONS;
use auth::keys::AccessKey;
use cloudwatch::CloudWatch;
use connectors::{Connectors, Networks, SecurityGroup, Subnet};
use control::{
    Audit, Control, DomainNames, Front, Operations, OtherArchitectures, Quotas, Rates, RunsOn, Settings,
    Throttle,
};
use doubles::Imagined;
use identity::{Identity, TemporaryCredentials};
use logs::{Logs, Quota};
use network::egress::Routes;
use node::Node;
use proxy::EndpointHosts;
use serde_json::{Value, json};
use store::Store;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::stand_ins::{Named, Willing, room};

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "123456789012";
const OTHER_ACCOUNT: &str = "210987654321";
const SECRET: &str = "secret";
/// So slow that no test sees a second call let in.
const PER_SECOND: f64 = 0.001;

/// Every server, served as long as this lives.
#[derive(Debug)]
pub struct Beds {
    _dir: TempDir,
    _runtime: Runtime,
    /// What the tests must know of them.
    pub settings: Value,
}

/// How one server differs from others.
struct Manners {
    quotas: Quotas,
    rates: Rates,
    has_room: bool,
    loses_tables: bool,
}

impl Default for Manners {
    fn default() -> Self {
        let quotas = Quotas {
            images: 10_000,
            versions_per_image: 1000,
            concurrent_builds: 10_000,
            memory_mib: usize::MAX / 2,
            network_connectors: 10_000,
        };
        Self { quotas, rates: Rates::unlimited(), has_room: true, loses_tables: false }
    }
}

impl Beds {
    /// Starts them.
    #[must_use]
    pub fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let beds: serde_json::Map<String, Value> = manners()
            .into_iter()
            .map(|(name, manners)| {
                (name.to_owned(), runtime.block_on(serve(&dir.path().join(name), manners)))
            })
            .collect();
        Self { _dir: dir, _runtime: runtime, settings: json!({"region": REGION, "beds": beds}) }
    }
}

fn manners() -> Vec<(&'static str, Manners)> {
    let many = Manners::default().quotas;
    let few = |quotas| Manners { quotas, ..Manners::default() };
    let rates = OPERATIONS
        .iter()
        .fold(Rates::unlimited(), |rates, model| rates.with(model.operation, PER_SECOND, 1.0));
    vec![
        ("default", Manners::default()),
        ("few images", few(Quotas { images: 2, ..many })),
        ("few versions", few(Quotas { versions_per_image: 2, ..many })),
        ("few builds", few(Quotas { concurrent_builds: 2, ..many })),
        ("few connectors", few(Quotas { network_connectors: 2, ..many })),
        ("little memory", few(Quotas { memory_mib: 4096, ..many })),
        ("full", Manners { has_room: false, ..Manners::default() }),
        ("throttled", Manners { rates, ..Manners::default() }),
        ("broken", Manners { loses_tables: true, ..Manners::default() }),
    ]
}

/// What the tests' connectors name.
fn networks() -> Networks {
    let subnet = Subnet { account: None, routes: Routes::internet() };
    let group = SecurityGroup { account: None, egress: vec![] };
    Networks {
        subnets: [("subnet-0a1b2c3d".to_owned(), subnet)].into(),
        security_groups: [("sg-0a1b2c3d".to_owned(), group)].into(),
    }
}

/// Serves one; how to reach it.
async fn serve(dir: &Path, manners: Manners) -> Value {
    std::fs::create_dir(dir).unwrap();
    let store = Store::open(&dir.join("db")).unwrap();
    for account in [ACCOUNT, OTHER_ACCOUNT] {
        let key = AccessKey { id: account.into(), secret: SECRET.into() };
        identity::accounts::ensure(&store, &account.parse().unwrap(), &key).await.unwrap();
    }
    let identity = Identity::open(store.clone(), [9; 32]).unwrap();
    let settings = Settings {
        region: REGION.into(),
        hosts: EndpointHosts::new(REGION, "localhost"),
        endpoint_port: 443,
        tokens: auth::token::TokenKey::from_secret([3; 32]).into(),
        page_secret: [5; 32],
        base_image_created_at: 1_700_000_000_000,
        quotas: manners.quotas,
        domains: DomainNames::default(),
        other_architectures: OtherArchitectures::Refuse,
        runs_on: RunsOn {
            engine: "none".into(),
            accelerator: api::endpoints::Accelerator::Emulation,
            because: "nothing runs".into(),
            processor: "none".into(),
        },
    };
    // Sessions of the root: one that lasts, one that is over.
    let root = identity.credential(ACCOUNT, None).unwrap().caller;
    let [session, expired] = [3600, 0].map(|seconds| session(&identity.issue(&root, seconds)));
    let room = room(manners.has_room);
    let node = Node::start(store.clone(), Arc::new(Imagined::default()), room.clone()).unwrap();
    let builds = Arc::new(Named(store.clone()));
    let connectors = Connectors::new(store.clone(), networks(), Arc::new(Willing));
    let operations = Operations::new(settings, store, identity.clone(), node, builds, room, connectors);
    let audit = Audit::to_dir(&dir.join("audit"), REGION).unwrap();
    let front = Front { region: REGION.into(), identity, throttle: Throttle::new(manners.rates), audit };
    let logs = Logs::open(dir.join("logs"), Quota { stream: 256 << 20, account: 4 << 30 }).unwrap();
    let logs = CloudWatch::new(logs, front.identity.clone(), REGION);
    let control = Control::new(Arc::new(operations), front).with_logs(logs);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = move |peer| control.for_peer(peer);
    tokio::spawn(control::server::serve(listener, service, std::future::pending()));
    if manners.loses_tables {
        lose_tables(&dir.join("db"));
    }
    let key = |account: &str| json!({"id": account, "secret": SECRET});
    json!({
        "url": url,
        "account": ACCOUNT,
        "keys": {"root": key(ACCOUNT), "other": key(OTHER_ACCOUNT), "session": session, "expired": expired},
    })
}

fn session(credentials: &TemporaryCredentials) -> Value {
    json!({
        "id": credentials.access_key_id,
        "secret": credentials.secret_access_key,
        "token": credentials.session_token,
    })
}

/// Takes a server's tables away under its feet.
fn lose_tables(path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    let mut tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let names: Vec<String> =
        tables.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    drop(tables);
    for name in names.iter().filter(|name| !name.starts_with("sqlite_")) {
        database.execute_batch(&format!("DROP TABLE \"{name}\"")).unwrap();
    }
}
