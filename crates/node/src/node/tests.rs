//! The owners against a machine that does nothing but count: the real ones are tested end to end.

use std::sync::Mutex;

use lifecycle::microvm::{IdlePolicy, Microvm, Policy};
use proxy::{Activity, Backend, BoxedIo, Connector};

use super::*;
use crate::machines::Instance;

#[derive(Default)]
struct Counting {
    calls: Mutex<Vec<&'static str>>,
    refuse_launch: bool,
}

struct Nowhere;

#[async_trait]
impl Connector for Nowhere {
    async fn connect(&self, _port: u16) -> std::io::Result<BoxedIo> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}

struct Still(Arc<Life>);

#[async_trait]
impl Instance for Still {
    fn life(&self) -> Arc<Life> {
        Arc::clone(&self.0)
    }
    async fn ended(&mut self) -> Event {
        std::future::pending().await
    }
}

impl Counting {
    fn note(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
    }

    fn instance(microvm: &MicrovmRecord) -> Box<dyn Instance> {
        let activity = Arc::new(Activity::new());
        Box::new(Still(Arc::new(Life::new(microvm.life.life, Arc::new(Nowhere), activity))))
    }
}

#[async_trait]
impl Machines for Counting {
    async fn launch(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        self.note("launch");
        if self.refuse_launch { Err("no".into()) } else { Ok(Self::instance(microvm)) }
    }
    async fn adopt(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        self.note("adopt");
        Ok(Self::instance(microvm))
    }
    async fn suspend(&self, _: &MicrovmRecord, _: Option<Box<dyn Instance>>) -> Result<(), String> {
        self.note("suspend");
        Ok(())
    }
    async fn resume(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        self.note("resume");
        Ok(Self::instance(microvm))
    }
    async fn terminate(&self, _: &MicrovmRecord, _: Option<Box<dyn Instance>>, call_hook: bool) {
        self.note(if call_hook { "terminate with hook" } else { "terminate" });
    }
}

struct Bed {
    _dir: tempfile::TempDir,
    store: Store,
    machines: Arc<Counting>,
    node: Node,
}

fn bed(machines: Counting) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    let machines = Arc::new(machines);
    let node = Node::start(store.clone(), machines.clone()).unwrap();
    Bed { _dir: dir, store, machines, node }
}

impl Bed {
    async fn launch(&self) -> MicrovmRecord {
        let image: ids::ImageArn = "arn:aws:lambda:us-east-1:123456789012:microvm-image:a".parse().unwrap();
        let idle = IdlePolicy {
            max_idle_duration_seconds: 60,
            suspended_duration_seconds: 60,
            auto_resume_enabled: true,
        };
        let policy = Policy { maximum_duration_seconds: 600, idle: Some(idle) };
        let record = MicrovmRecord {
            id: MicrovmId::random(),
            endpoint: EndpointId::random(),
            account: image.account.clone(),
            image,
            version: ids::ImageVersion::FIRST,
            execution_role_arn: None,
            run_hook_payload: None,
            ingress_network_connectors: vec![],
            egress_network_connectors: vec![],
            life: Microvm::new(policy, crate::now_ms()),
        };
        let written = record.clone();
        self.store.write::<_, StoreError>(move |tx| tx.put_microvm(&written)).await.unwrap();
        self.node.launch(record.clone());
        record
    }

    /// Waits until the owner shows `state`, or is gone.
    async fn reach(&self, id: MicrovmId, state: State) {
        if let Some(mut view) = self.node.entry(id, |entry| entry.view.clone()) {
            let _ = view.wait_for(|view| view.state == state).await;
        }
        assert_eq!(self.stored(id), state);
    }

    fn stored(&self, id: MicrovmId) -> State {
        self.store.read(|tx| tx.microvm(id)).unwrap().unwrap().life.state
    }

    fn calls(&self) -> Vec<&'static str> {
        self.machines.calls.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_request_waits_for_the_launch_and_wakes_the_sleeping() {
    let bed = bed(Counting::default());
    let vm = bed.launch().await;
    assert_eq!(bed.node.resolve(vm.endpoint), Some(vm.id));
    assert_eq!(bed.node.wake(vm.id).await.unwrap().generation, 1);
    bed.node.ask(vm.id, Event::SuspendRequested).await.unwrap();
    let (one, two) = tokio::join!(bed.node.wake(vm.id), bed.node.wake(vm.id));
    assert_eq!((one.unwrap().generation, two.unwrap().generation), (2, 2));
    assert_eq!(bed.calls(), ["launch", "suspend", "resume"]);
}

#[tokio::test]
async fn the_end_is_durable_and_the_endpoint_gone() {
    let bed = bed(Counting::default());
    let vm = bed.launch().await;
    bed.node.wake(vm.id).await.unwrap();
    bed.node.ask(vm.id, Event::TerminateRequested).await.unwrap();
    bed.reach(vm.id, State::Terminated).await;
    assert!(matches!(bed.node.wake(vm.id).await, Err(WakeError::Gone)));
    assert_eq!(bed.calls(), ["launch", "terminate with hook"]);
}

#[tokio::test]
async fn a_failed_launch_ends_with_its_reason() {
    let bed = bed(Counting { refuse_launch: true, ..Counting::default() });
    let vm = bed.launch().await;
    assert!(matches!(bed.node.wake(vm.id).await, Err(WakeError::Gone)));
    bed.reach(vm.id, State::Terminated).await;
    let record = bed.store.read(|tx| tx.microvm(vm.id)).unwrap().unwrap();
    assert_eq!(record.life.reason.as_deref(), Some("no"));
}

#[tokio::test]
async fn a_restart_adopts_what_runs_and_finishes_what_was_begun() {
    let bed = bed(Counting::default());
    let running = bed.launch().await;
    bed.node.wake(running.id).await.unwrap();
    let mut pending = running.clone();
    pending.id = MicrovmId::random();
    pending.endpoint = EndpointId::random();
    pending.life = Microvm::new(running.life.policy, crate::now_ms());
    let written = pending.clone();
    bed.store.write::<_, StoreError>(move |tx| tx.put_microvm(&written)).await.unwrap();

    let machines = Arc::new(Counting::default());
    let node = Node::start(bed.store.clone(), machines.clone()).unwrap();
    node.wake(running.id).await.unwrap();
    node.wake(pending.id).await.unwrap();
    let mut calls = machines.calls.lock().unwrap().clone();
    calls.sort_unstable();
    assert_eq!(calls, ["adopt", "launch"]);
}
