//! To CloudWatch Logs as another server of this project speaks it: signatures, limits and refusals are the service's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use auth::keys::AccessKey;
use cloudwatch::CloudWatch;
use control::{Answer, Audit, Call, Control, Front, Rates, Service, Throttle};
use futures::future::BoxFuture;
use identity::Identity;
use logs::{Line, Logs, Search, search};
use rekindle_forward::{CloudWatchSettings, Forwarder, Target};
use store::Store;
use tokio::net::TcpListener;

use crate::{ACCOUNT, One, REGION, account, open, print};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "secret";
/// For what was printed to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has no operations but those of CloudWatch Logs.
struct NoOperations;

impl Service for NoOperations {
    fn answer(&self, call: Call) -> BoxFuture<'_, Answer> {
        panic!("{call:?}")
    }
}

/// A server that takes logs.
struct Peer {
    url: String,
    logs: Logs,
    identity: Identity,
}

impl Peer {
    async fn start(dir: &Path) -> Self {
        let store = Store::open(&dir.join("db")).unwrap();
        let key = AccessKey { id: KEY.into(), secret: SECRET.into() };
        identity::accounts::ensure(&store, &account(), &key).await.unwrap();
        let identity = Identity::open(store, [9; 32]).unwrap();
        let audit = Audit::to_dir(&dir.join("audit"), REGION).unwrap();
        let throttle = Throttle::new(Rates::unlimited());
        let front = Front { region: REGION.into(), identity: identity.clone(), throttle, audit };
        let logs = open(&dir.join("logs"));
        let service = CloudWatch::new(logs.clone(), identity.clone(), REGION);
        let control = Control::new(Arc::new(NoOperations), front).with_logs(service);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = move |peer| control.for_peer(peer);
        tokio::spawn(control::server::serve(listener, serve, std::future::pending()));
        Self { url, logs, identity }
    }

    fn settings(&self) -> CloudWatchSettings {
        CloudWatchSettings {
            endpoint: Some(self.url.clone()),
            group_prefix: "/from/{account}".into(),
            access_key_id: Some(KEY.into()),
            secret_access_key: Some(SECRET.into()),
            ..CloudWatchSettings::default()
        }
    }

    /// Timestamps and messages of a stream, once there are as many.
    async fn events(&self, stream: &str, count: usize) -> Vec<(u64, String)> {
        let all = async {
            loop {
                let events = events(&self.logs, &format!("/from/{ACCOUNT}/g"), stream);
                if events.len() >= count {
                    return events;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap()
    }
}

fn events(logs: &Logs, group: &str, stream: &str) -> Vec<(u64, String)> {
    let stream = logs.group(&account(), group).and_then(|group| group.stream(stream));
    let page = search(&stream.into_iter().collect::<Vec<_>>(), &Search::all()).unwrap();
    let text = |found: logs::Found| (found.event.timestamp, String::from_utf8(found.event.message).unwrap());
    page.events.into_iter().map(text).collect()
}

fn forwarder(logs: &Logs, settings: &CloudWatchSettings) -> Forwarder {
    let target = rekindle_forward::CloudWatch::open(settings, REGION, |_| None).unwrap();
    Forwarder::start(logs.clone(), Arc::new(One), REGION, Target::CloudWatch(target))
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_streams_are_made_and_events_are_those_of_the_source() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (logs, peer) = (open(here.path()), Peer::start(there.path()).await);
    let forwarder = forwarder(&logs, &peer.settings());
    let lines: Vec<String> = (0..25_000).map(|number| format!("line {number}")).collect();
    for some in lines.chunks(1000) {
        print(&logs, "many", &some.iter().map(String::as_str).collect::<Vec<_>>());
    }
    print(&logs, "few", &["one", "two"]);
    assert_eq!(peer.events("many", lines.len()).await, events(&logs, "/g", "many"));
    assert_eq!(peer.events("few", 2).await, events(&logs, "/g", "few"));
    forwarder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice_and_nothing_left_out_over_a_restart() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let peer = Peer::start(there.path()).await;
    let logs = open(here.path());
    print(&logs, "s", &["one"]);
    let first = forwarder(&logs, &peer.settings());
    peer.events("s", 1).await;
    first.close().await;
    print(&logs, "s", &["two", "three"]);
    let logs = open(here.path());
    let second = forwarder(&logs, &peer.settings());
    assert_eq!(peer.events("s", 3).await, events(&logs, "/g", "s"));
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_keys_sign_too() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (logs, peer) = (open(here.path()), Peer::start(there.path()).await);
    print(&logs, "s", &["signed"]);
    let root = peer.identity.credential(KEY, None).unwrap().caller;
    let keys = peer.identity.issue(&root, 3600);
    let settings = CloudWatchSettings {
        access_key_id: Some(keys.access_key_id),
        secret_access_key: Some(keys.secret_access_key),
        session_token: Some(keys.session_token),
        ..peer.settings()
    };
    let forwarder = forwarder(&logs, &settings);
    assert_eq!(peer.events("s", 1).await, events(&logs, "/g", "s"));
    forwarder.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_out_of_order_and_far_apart_are_put_as_the_service_wants_them() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (logs, peer) = (open(here.path()), Peer::start(there.path()).await);
    print(&logs, "s", &["now"]);
    let (hour, now) = (60 * 60 * 1000, logs::now_ms());
    let line =
        |ago: u64| Line { timestamp: Some(now - ago * hour), source: 0, message: format!("{ago}").into() };
    let stream = logs.group(&account(), "/g").unwrap().stream("s").unwrap();
    logs.append(&account(), &stream, &[line(1), line(60), line(30)]).unwrap();
    let forwarder = forwarder(&logs, &peer.settings());
    assert_eq!(peer.events("s", 4).await, events(&logs, "/g", "s"));
    forwarder.close().await;
}

/// What one stream is refused does not hold up the others: the group's name is longer than the service allows.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_service_does_not_take_holds_up_no_other() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (logs, peer) = (open(here.path()), Peer::start(there.path()).await);
    let (long, source) = ("x".repeat(512), 1);
    let to = logs::Destination { account: account(), group: long, stream: "s".into(), source };
    logs.output(to).write(vec![b"refused".to_vec()]).unwrap();
    print(&logs, "s", &["taken"]);
    let forwarder = forwarder(&logs, &peer.settings());
    assert_eq!(peer.events("s", 1).await, events(&logs, "/g", "s"));
    forwarder.close().await;
}
