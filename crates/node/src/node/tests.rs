//! The owners against a machine that does nothing but count: the real ones are tested end to end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use capacity::{Limits, Want};
use lifecycle::microvm::{IdlePolicy, Microvm, Policy};
use metering::Phase;
use proxy::{Activity, Backend, BoxedIo, Connector};
use store::{DomainRecord, PublicPortsRecord};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::machines::{Instance, NotResumed, Suspended};

#[derive(Default)]
struct Counting {
    calls: Calls,
    refuse_launch: bool,
    /// Suspensions never end unless they are given up.
    slow_disk: bool,
    /// Resumes fail, but not for good.
    full_host: bool,
    /// Suspensions fail.
    full_disk: bool,
    saved_bytes: u64,
    /// What a MicroVM that runs has taken.
    cpu_nanos: AtomicU64,
    /// Whose time was told.
    kept: Mutex<Vec<timeline::Kind>>,
}

struct Nowhere;

#[async_trait]
impl Connector for Nowhere {
    async fn connect(&self, _port: u16) -> std::io::Result<BoxedIo> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }
}

type Calls = Arc<Mutex<Vec<&'static str>>>;

struct Still {
    life: Arc<Life>,
    calls: Calls,
    slow_disk: bool,
    full_disk: bool,
}

#[async_trait]
impl Instance for Still {
    fn life(&self) -> Arc<Life> {
        Arc::clone(&self.life)
    }
    async fn ended(&mut self) -> Event {
        std::future::pending().await
    }
    async fn suspend(
        self: Box<Self>,
        _: &MicrovmRecord,
        wanted: CancellationToken,
    ) -> Result<Suspended, String> {
        self.calls.lock().unwrap().push("suspend");
        if self.full_disk {
            return Ok(Suspended::Failed(self));
        }
        if !self.slow_disk {
            return Ok(Suspended::Saved);
        }
        wanted.cancelled().await;
        Ok(Suspended::GivenUp(self))
    }
    async fn resume(self: Box<Self>, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        self.calls.lock().unwrap().push("go on");
        let life = Life::new(microvm.life.life, Arc::new(Nowhere), Arc::new(Activity::new()));
        Ok(Box::new(Still { life: Arc::new(life), ..*self }))
    }
    async fn terminate(self: Box<Self>, _: &MicrovmRecord, call_hook: bool) {
        self.calls.lock().unwrap().push(if call_hook { "terminate with hook" } else { "terminate" });
    }
}

impl Counting {
    fn started(&self, call: &'static str, microvm: &MicrovmRecord) -> Box<dyn Instance> {
        self.calls.lock().unwrap().push(call);
        let life = Life::new(microvm.life.life, Arc::new(Nowhere), Arc::new(Activity::new()));
        let calls = Arc::clone(&self.calls);
        let Self { slow_disk, full_disk, .. } = *self;
        Box::new(Still { life: Arc::new(life), calls, slow_disk, full_disk })
    }
}

#[async_trait]
impl Machines for Counting {
    async fn launch(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        let instance = self.started("launch", microvm);
        if self.refuse_launch { Err("no".into()) } else { Ok(instance) }
    }
    async fn adopt(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
        Ok(self.started("adopt", microvm))
    }
    async fn resume(&self, microvm: &MicrovmRecord) -> Result<Box<dyn Instance>, NotResumed> {
        if self.full_host {
            self.calls.lock().unwrap().push("no resume");
            return Err(NotResumed::ThisTime);
        }
        Ok(self.started("resume", microvm))
    }
    fn saved_bytes(&self, _: &MicrovmRecord) -> u64 {
        self.saved_bytes
    }
    fn phase(&self, _: MicrovmId, state: State) -> Phase {
        let cpu_nanos = self.cpu_nanos.load(Ordering::SeqCst);
        if state == State::Running { Phase::Running { cpu_nanos, memory_bytes: 0 } } else { Phase::Away }
    }
    async fn finish_suspend(&self, _: &MicrovmRecord, _: CancellationToken) -> Result<Suspended, String> {
        self.calls.lock().unwrap().push("finish suspend");
        Ok(Suspended::Saved)
    }
    async fn discard(&self, _: &MicrovmRecord) {
        self.calls.lock().unwrap().push("discard");
    }
    fn keep(&self, _: &MicrovmRecord, timeline: timeline::Record) {
        self.kept.lock().unwrap().push(timeline.kind);
    }
}

struct Bed {
    _dir: tempfile::TempDir,
    store: Store,
    machines: Arc<Counting>,
    node: Node,
    capacity: Capacity,
}

fn bed(machines: Counting) -> Bed {
    bed_with(machines, Limits::default())
}

fn bed_with(machines: Counting, limits: Limits) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    let machines = Arc::new(machines);
    let capacity = Capacity::new(limits);
    let node = Node::start(store.clone(), machines.clone(), capacity.clone()).unwrap();
    Bed { _dir: dir, store, machines, node, capacity }
}

/// A record that nothing has been done with, of the beginning of Unix time.
pub(crate) fn microvm() -> MicrovmRecord {
    let image: ids::ImageArn = "arn:aws:lambda:us-east-1:123456789012:microvm-image:a".parse().unwrap();
    let idle = IdlePolicy {
        max_idle_duration_seconds: 60,
        suspended_duration_seconds: 60,
        auto_resume_enabled: true,
    };
    let policy = Policy { maximum_duration_seconds: 600, idle: Some(idle) };
    MicrovmRecord {
        id: MicrovmId::random(),
        endpoint: EndpointId::random(),
        account: image.account.clone(),
        image,
        version: ids::ImageVersion::FIRST,
        execution_role_arn: None,
        memory_mib: 512,
        run_hook_payload: None,
        ingress_network_connectors: vec![],
        egress_network_connectors: vec![],
        http_ingress: true,
        egress_binding: None,
        logging: None,
        life: Microvm::new(policy, 0),
    }
}

impl Bed {
    async fn launch(&self) -> MicrovmRecord {
        self.launch_with(true, 60).await
    }

    async fn launch_with(&self, http_ingress: bool, max_idle_duration_seconds: u32) -> MicrovmRecord {
        let mut policy = microvm().life.policy;
        policy.idle = policy.idle.map(|idle| IdlePolicy { max_idle_duration_seconds, ..idle });
        let life = Microvm::new(policy, crate::now_ms());
        let record = MicrovmRecord { http_ingress, life, ..microvm() };
        let written = record.clone();
        self.store.write::<_, StoreError>(move |tx| tx.put_microvm(&written)).await.unwrap();
        let place = self.capacity.reserve(want(&record, 0)).unwrap();
        self.node.launch(record.clone(), place);
        record
    }

    /// Waits until the owner shows `state`, or is gone.
    async fn reach(&self, id: MicrovmId, state: State) {
        if let Some(mut view) = self.node.entry(id, |entry| entry.view.clone()) {
            let _ = view.wait_for(|view| view.state == state).await;
        }
        assert_eq!(self.stored(id), state);
    }

    /// Where its endpoint leads, and whether to its application.
    fn resolve(&self, vm: &MicrovmRecord) -> Option<(MicrovmId, bool)> {
        let target = self.node.resolve(&Site::Endpoint(vm.endpoint))?;
        Some((target.microvm, target.http_ingress))
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
    assert_eq!(bed.resolve(&vm), Some((vm.id, true)));
    assert_eq!(bed.node.wake(vm.id, None).await.unwrap().generation, 1);
    bed.node.ask(vm.id, Event::SuspendRequested).await.unwrap();
    let (one, two) = tokio::join!(bed.node.wake(vm.id, None), bed.node.wake(vm.id, None));
    assert_eq!((one.unwrap().generation, two.unwrap().generation), (2, 2));
    assert_eq!(bed.calls(), ["launch", "suspend", "resume"]);
}

/// SPEC §4.2: bytes count, a stream that is open and silent does not.
#[tokio::test]
async fn a_microvm_sleeps_within_a_second_of_being_idle_for_long_enough() {
    const MAX_IDLE: u32 = 2;
    let bed = bed(Counting::default());
    let vm = bed.launch_with(true, MAX_IDLE).await;
    let life = bed.node.wake(vm.id, None).await.unwrap();
    let _silent = life.activity.begin().unwrap();
    // Longer than it may be idle, were these bytes not counted.
    let until = Instant::now() + Duration::from_secs(u64::from(MAX_IDLE)) + Duration::from_millis(500);
    let mut last_byte = 0..0;
    while Instant::now() < until {
        last_byte.start = crate::now_ms();
        life.activity.touch();
        last_byte.end = crate::now_ms();
        tokio::task::yield_now().await;
    }
    assert_eq!(bed.stored(vm.id), State::Running);
    bed.reach(vm.id, State::Suspended).await;
    let slept = bed.store.read(|tx| tx.microvm(vm.id)).unwrap().unwrap().life.suspended_at.unwrap();
    assert!(
        slept - last_byte.start >= 2000 && slept - last_byte.end < 3000,
        "asleep at {slept} ms, the last byte at {last_byte:?}"
    );
}

/// Nobody looks each second here.
#[tokio::test]
async fn a_life_is_accounted_from_its_first_moment_to_its_last() {
    let bed = bed(Counting { cpu_nanos: 100.into(), ..Counting::default() });
    let vm = bed.launch().await;
    for (runs_up_to, ends, taken) in
        [(130, Event::SuspendRequested, 30), (150, Event::TerminateRequested, 50)]
    {
        bed.node.wake(vm.id, None).await.unwrap();
        // Whatever comes of it, what came before is accounted by then.
        let _ = bed.node.ask(vm.id, Event::RequestArrived).await;
        bed.machines.cpu_nanos.store(runs_up_to, Ordering::SeqCst);
        bed.node.ask(vm.id, ends).await.unwrap();
        assert_eq!(bed.node.usage(vm.id).unwrap().cpu_nanos, taken);
    }
}

#[tokio::test]
async fn neither_a_request_nor_the_end_waits_for_the_disk_of_a_suspension() {
    let bed = bed(Counting { slow_disk: true, ..Counting::default() });
    let vm = bed.launch().await;
    bed.node.wake(vm.id, None).await.unwrap();
    bed.node.ask(vm.id, Event::SuspendRequested).await.unwrap();
    let refused = bed.node.ask(vm.id, Event::ResumeRequested).await;
    assert!(matches!(refused, Err(NodeError::Refused(Refused { state: State::Suspending }))));
    let (one, two) = tokio::join!(bed.node.wake(vm.id, None), bed.node.wake(vm.id, None));
    assert_eq!((one.unwrap().generation, two.unwrap().generation), (2, 2));
    assert_eq!(bed.stored(vm.id), State::Running);
    bed.node.ask(vm.id, Event::SuspendRequested).await.unwrap();
    bed.node.ask(vm.id, Event::TerminateRequested).await.unwrap();
    bed.reach(vm.id, State::Terminated).await;
    assert_eq!(bed.calls(), ["launch", "suspend", "go on", "suspend", "terminate"]);
}

#[tokio::test]
async fn a_microvm_that_cannot_be_saved_goes_on() {
    let bed = bed(Counting { full_disk: true, ..Counting::default() });
    let vm = bed.launch().await;
    bed.node.wake(vm.id, None).await.unwrap();
    bed.node.ask(vm.id, Event::SuspendRequested).await.unwrap();
    let life = bed.node.wake(vm.id, None).await.unwrap();
    assert_eq!((life.generation, bed.stored(vm.id)), (2, State::Running));
    assert_eq!(bed.calls(), ["launch", "suspend", "go on"]);
}

#[tokio::test]
async fn a_microvm_that_cannot_be_resumed_now_sleeps_on() {
    let bed = bed(Counting { full_host: true, ..Counting::default() });
    let vm = bed.launch().await;
    bed.node.wake(vm.id, None).await.unwrap();
    bed.node.ask(vm.id, Event::SuspendRequested).await.unwrap();
    bed.reach(vm.id, State::Suspended).await;
    for _ in 0..2 {
        assert!(matches!(bed.node.wake(vm.id, None).await, Err(WakeError::Failed)));
        assert_eq!(bed.stored(vm.id), State::Suspended);
    }
    assert_eq!(bed.calls(), ["launch", "suspend", "no resume", "no resume"]);
}

#[tokio::test]
async fn the_end_is_durable_and_the_endpoint_gone() {
    let bed = bed(Counting::default());
    let vm = bed.launch().await;
    bed.node.wake(vm.id, None).await.unwrap();
    bed.node.ask(vm.id, Event::TerminateRequested).await.unwrap();
    bed.reach(vm.id, State::Terminated).await;
    assert!(matches!(bed.node.wake(vm.id, None).await, Err(WakeError::Gone)));
    assert_eq!(bed.resolve(&vm), Some((vm.id, true)), "so that a bearer of its token learns that it is gone");
    assert_eq!(bed.calls(), ["launch", "terminate with hook"]);
    assert_eq!(*bed.machines.kept.lock().unwrap(), [timeline::Kind::Launch, timeline::Kind::Terminate]);
}

#[tokio::test]
async fn without_ingress_no_endpoint_leads_to_its_application() {
    let bed = bed(Counting::default());
    let vm = bed.launch_with(false, 60).await;
    assert_eq!(bed.resolve(&vm), Some((vm.id, false)));
}

#[tokio::test]
async fn a_name_leads_to_the_newest_of_its_image_that_has_come_up() {
    let bed = bed(Counting::default());
    let first = bed.launch().await;
    let name = Site::Domain("app.test".into());
    assert_eq!((bed.node.is_domain("app.test"), bed.node.resolve(&name)), (false, None));
    let domain = DomainRecord {
        name: "app.test".into(),
        account: first.account.clone(),
        subject: MicrovmOrImage::Image(first.image.clone()),
        created_at: 1,
    };
    let ports = PublicPortsRecord { subject: domain.subject.clone(), ports: vec![8080] };
    let write = move |tx: &store::Tx<'_>| tx.put_domain(&domain).and_then(|()| tx.put_public_ports(&ports));
    bed.store.write(write).await.unwrap();
    let led = || bed.node.resolve(&name).map(|target| (target.microvm, target.public_ports.to_vec()));
    bed.node.wake(first.id, None).await.unwrap();
    assert_eq!(led(), Some((first.id, vec![8080])));

    let second = bed.launch().await;
    bed.node.wake(second.id, None).await.unwrap();
    assert_eq!(led(), Some((second.id, vec![8080])));
    bed.node.ask(second.id, Event::TerminateRequested).await.unwrap();
    bed.reach(second.id, State::Terminated).await;
    assert_eq!(led(), Some((first.id, vec![8080])));
    let ended = bed.node.resolve(&Site::Endpoint(second.endpoint)).unwrap();
    assert!(ended.public_ports.is_empty());
    bed.node.ask(first.id, Event::TerminateRequested).await.unwrap();
    bed.reach(first.id, State::Terminated).await;
    assert_eq!((led(), bed.node.is_domain("app.test")), (None, true));
}

#[tokio::test]
async fn a_failed_launch_ends_with_its_reason() {
    let bed = bed(Counting { refuse_launch: true, ..Counting::default() });
    let vm = bed.launch().await;
    assert!(matches!(bed.node.wake(vm.id, None).await, Err(WakeError::Gone)));
    bed.reach(vm.id, State::Terminated).await;
    let record = bed.store.read(|tx| tx.microvm(vm.id)).unwrap().unwrap();
    assert_eq!(record.life.reason.as_deref(), Some("no"));
}

#[tokio::test]
async fn a_restart_adopts_what_runs_and_finishes_what_was_begun() {
    let bed = bed(Counting::default());
    let running = bed.launch().await;
    bed.node.wake(running.id, None).await.unwrap();
    let mut pending = running.clone();
    pending.id = MicrovmId::random();
    pending.endpoint = EndpointId::random();
    pending.life = Microvm::new(running.life.policy, crate::now_ms());
    let written = pending.clone();
    bed.store.write::<_, StoreError>(move |tx| tx.put_microvm(&written)).await.unwrap();

    let machines = Arc::new(Counting::default());
    let capacity = Capacity::new(Limits { slots: 1, ..Limits::default() });
    let node = Node::start(bed.store.clone(), machines.clone(), capacity.clone()).unwrap();
    node.wake(running.id, None).await.unwrap();
    node.wake(pending.id, None).await.unwrap();
    assert_eq!(capacity.guests().len(), 2, "what was there before is counted, and not questioned");
    let mut calls = machines.calls.lock().unwrap().clone();
    calls.sort_unstable();
    assert_eq!(calls, ["adopt", "launch"]);
}

#[tokio::test]
async fn a_sleeper_has_no_place_and_stays_asleep_where_there_is_none() {
    let bed = bed_with(Counting::default(), Limits { slots: 1, ..Limits::default() });
    let vm = bed.launch().await;
    bed.node.wake(vm.id, None).await.unwrap();
    assert!(bed.capacity.reserve(other()).is_err());
    bed.node.ask(vm.id, Event::SuspendRequested).await.unwrap();
    bed.reach(vm.id, State::Suspended).await;
    let taken = bed.capacity.reserve(other()).unwrap();
    assert!(matches!(bed.node.wake(vm.id, None).await, Err(WakeError::NoRoom)));
    let resumed = bed.node.ask(vm.id, Event::ResumeRequested).await;
    assert!(matches!(resumed, Err(NodeError::Full(Shortage::Slots { .. }))));
    assert_eq!(bed.stored(vm.id), State::Suspended);
    drop(taken);
    assert_eq!(bed.node.wake(vm.id, None).await.unwrap().generation, 2, "the refused wake was none");
    bed.node.ask(vm.id, Event::TerminateRequested).await.unwrap();
    bed.reach(vm.id, State::Terminated).await;
    assert!(bed.capacity.reserve(other()).is_ok());
}

#[tokio::test]
async fn a_sleeper_needs_the_memory_that_it_slept_with() {
    const MIB: u64 = 1 << 20;
    let limits = Limits { memory: Some(100 * MIB), ..Limits::default() };
    let bed = bed_with(Counting { saved_bytes: 200 * MIB, ..Counting::default() }, limits);
    let vm = bed.launch().await;
    bed.node.wake(vm.id, None).await.unwrap();
    bed.node.ask(vm.id, Event::SuspendRequested).await.unwrap();
    bed.reach(vm.id, State::Suspended).await;
    assert!(matches!(bed.node.wake(vm.id, None).await, Err(WakeError::NoRoom)));
}

#[tokio::test]
async fn a_failed_launch_gives_its_place_back() {
    let limits = Limits { slots: 1, ..Limits::default() };
    let bed = bed_with(Counting { refuse_launch: true, ..Counting::default() }, limits);
    let vm = bed.launch().await;
    bed.reach(vm.id, State::Terminated).await;
    assert!(bed.capacity.reserve(other()).is_ok());
}

fn other() -> Want {
    Want {
        guest: "other".into(),
        kind: capacity::Kind::Clone,
        image: "other".into(),
        at_least: 0,
        cpu_millis: 0,
    }
}
