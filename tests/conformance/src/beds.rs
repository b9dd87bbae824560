//! The servers that the tests ask, each of its own manners, on loopback.

use std::path::Path;
use std::sync::Arc;

use control::{Control, Keys, Operations, Quotas, Settings};
use ids::AccountId;
use node::Node;
use proxy::EndpointHosts;
use serde_json::{Value, json};
use store::Store;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::doubles::{Imagined, Named};

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "123456789012";

/// Every server, served as long as this lives.
#[derive(Debug)]
pub struct Beds {
    _dir: TempDir,
    _runtime: Runtime,
    /// What the tests must know of them.
    pub settings: Value,
}

impl Beds {
    /// Starts them.
    #[must_use]
    pub fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let many = Quotas { images: 10_000, versions_per_image: 1000, concurrent_builds: 10_000, microvms: 10_000 };
        let few = Quotas { images: 2, ..many };
        let beds: serde_json::Map<String, Value> = [
            ("default", many),
            ("tiny", few),
            ("versions", Quotas { versions_per_image: 2, ..many }),
            ("microvms", Quotas { microvms: 2, ..many }),
            ("builds", Quotas { concurrent_builds: 2, ..many }),
            ("broken", many),
            ("throttled", many),
        ]
        .into_iter()
        .map(|(name, quotas)| {
            let path = dir.path().join(name);
            let bed = runtime.block_on(bed(&path, quotas));
            if name == "broken" {
                lose_tables(&path);
            }
            (name.to_owned(), bed)
        })
        .collect();
        Self { _dir: dir, _runtime: runtime, settings: json!({"region": REGION, "beds": beds}) }
    }
}

struct Accounts;

impl Keys for Accounts {
    fn secret(&self, id: &str) -> Option<(AccountId, String)> {
        Some((id.parse().ok()?, "secret".to_owned()))
    }
}

/// Serves one; how to reach it.
async fn bed(path: &Path, quotas: Quotas) -> Value {
    let store = Store::open(path).unwrap();
    let settings = Settings {
        region: REGION.into(),
        hosts: EndpointHosts::new(REGION, "localhost"),
        endpoint_port: 443,
        tokens: auth::token::TokenKey::from_secret([3; 32]),
        page_secret: [5; 32],
        base_image_created_at: 1_700_000_000_000,
        quotas,
    };
    let node = Node::start(store.clone(), Arc::new(Imagined)).unwrap();
    let operations = Operations::new(settings, store.clone(), node, Arc::new(Named(store)));
    let control = Control::new(Arc::new(operations), Arc::new(Accounts));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(control::server::serve(listener, control, std::future::pending()));
    let root = json!({"id": ACCOUNT, "secret": "secret"});
    json!({"url": url, "account": ACCOUNT, "keys": {"root": root, "nobody": {"id": "210987654321", "secret": "secret"}}})
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
