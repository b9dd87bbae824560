//! The bare engine: the same snapshot restored by hand, to its application's first answer. What remains above it is
//! what the server adds: records, hooks, TLS, tokens, forwarding.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_proto::host::{Answers, Channel};
use agent_proto::{ENTROPY_BYTES, NewLife, Request, Response};
use e2e::Server;
use engine::{Engine, Jail, Machine, MachineSpec, Restore};
use guest::{Dirs, ImageLayer};
use network::{InstanceTag, NetworkConfig, Pool, Slot, remove_instance};

use crate::Failure;
use crate::client::Connection;
use crate::microvms::rest;
use crate::stats::Samples;
use crate::vmm;

const PORT: u16 = 8080;
/// Set apart for benchmarks (RFC 2544), so that no server's slots have it.
const SLOTS: &str = "198.19.0.0/24";
const FIRST_UID: u32 = 190_000;
/// For an agent to answer; one that does not would hold the benchmark up for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// The engine's own share of what a client waits for.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) launch: Samples,
    pub(crate) suspend: Samples,
    pub(crate) wake: Samples,
    pub(crate) terminate: Samples,
}

/// Measures with the published version 1.0 of an image of the server, which may stay up.
pub(crate) async fn measure(server: &Server, image: &str, samples: usize) -> Result<Figures, Failure> {
    by_hand(server, image, 1, async |bare, pool| {
        let mut figures = Figures::default();
        // As in the figures that these are held against, the first does not count.
        for number in 0..=samples {
            let slot = pool.acquire().await?;
            let mut throw_away = Figures::default();
            let into = if number == 0 { &mut throw_away } else { &mut figures };
            let cycled = bare.cycle(number, &slot, into).await;
            pool.release(slot);
            cycled?;
        }
        Ok(figures)
    })
    .await
}

/// Does something with clones of the published version 1.0 of an image of the server that are started by hand, in slots of
/// their own, of which `ready` are made ahead; nothing of them remains.
pub(crate) async fn by_hand<T>(
    server: &Server,
    image: &str,
    ready: usize,
    work: impl AsyncFnOnce(&Bare, &Pool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let dir = tempfile::tempdir()?;
    let tag = InstanceTag::of_data_dir(dir.path());
    let pool = Pool::open(NetworkConfig {
        slot_cidr: SLOTS.parse()?,
        ready,
        ..NetworkConfig::new(tag.clone(), FIRST_UID)
    })?;
    let worked = async { work(&Bare::new(server, image, dir.path()).await?, &pool).await };
    let worked = worked.await;
    pool.close().await;
    remove_instance(&tag)?;
    worked
}

/// What starts clones of an image by hand.
pub(crate) struct Bare {
    engine: Arc<dyn Engine>,
    layer: ImageLayer,
    dir: PathBuf,
}

impl Bare {
    async fn new(server: &Server, image: &str, dir: &Path) -> Result<Self, Failure> {
        let dirs = Dirs::new(server.data_dir(), &InstanceTag::of_data_dir(server.data_dir()));
        let engine = vmm::engine(dirs.overlays()).await?;
        let version = dirs.version(&image.parse()?, "1.0".parse()?);
        let layer = ImageLayer::open(&version, &dirs, engine.compatibility())?;
        Ok(Self { engine, layer, dir: dir.to_owned() })
    }

    /// A clone whose application has answered.
    pub(crate) async fn launch(&self, name: &str, slot: &Slot) -> Result<Life, Failure> {
        let disk = self.dir.join(format!("{name}.disk"));
        self.layer.make_disk(self.engine.disks(), &disk)?;
        Life::begin(&*self.engine, self.spec(name, slot, disk)?, self.layer.restore()).await
    }

    /// One clone's launch, suspension, waking and end.
    async fn cycle(&self, number: usize, slot: &Slot, figures: &mut Figures) -> Result<(), Failure> {
        let name = format!("bare-{number}");
        let file = |what: &str| self.dir.join(format!("{name}.{what}"));
        self.layer.make_disk(self.engine.disks(), &file("disk"))?;
        let suspended =
            Restore { device_state: file("device"), layers: vec![file("diff")], ..self.layer.restore() };
        let spec = self.spec(&name, slot, file("disk"))?;
        let began = Instant::now();
        let life = Life::begin(&*self.engine, spec.clone(), self.layer.restore()).await?;
        figures.launch.push(began.elapsed());
        rest().await;
        let began = Instant::now();
        life.suspend(&suspended).await?;
        figures.suspend.push(began.elapsed());
        rest().await;
        // As the server has it, each life in a directory of its own.
        let spec = MachineSpec { run_dir: self.dir.join(format!("{name}-awake")), ..spec };
        let began = Instant::now();
        let life = Life::begin(&*self.engine, spec, suspended).await?;
        figures.wake.push(began.elapsed());
        rest().await;
        let began = Instant::now();
        life.end().await?;
        figures.terminate.push(began.elapsed());
        rest().await;
        Ok(())
    }

    fn spec(&self, name: &str, slot: &Slot, disk: PathBuf) -> Result<MachineSpec, Failure> {
        let shape = self.layer.clone_with(disk)?;
        Ok(MachineSpec {
            name: name.to_owned(),
            run_dir: self.dir.join(name),
            memory_mib: shape.memory_mib,
            vcpus: shape.vcpus,
            kernel: shape.kernel,
            initramfs: shape.initramfs,
            cmdline: String::new(),
            disks: shape.disks,
            tap: Some(slot.tap.clone()),
            jail: Jail { netns: Some(slot.netns.clone()), cgroups: vec![], uid: slot.uid, gid: slot.uid },
        })
    }
}

/// A machine whose application has answered.
pub(crate) struct Life {
    machine: Box<dyn Machine>,
    channel: Channel,
}

impl Life {
    async fn begin(engine: &dyn Engine, spec: MachineSpec, from: Restore) -> Result<Self, Failure> {
        let machine = engine.restore(spec, from).await?;
        match tokio::time::timeout(PATIENCE, first_answer(&*machine)).await {
            Ok(Ok(channel)) => Ok(Self { machine, channel }),
            failed => {
                let console = machine.console().await.unwrap_or_default();
                end(&*machine).await?;
                Err(format!(
                    "the bare engine's guest does not answer: {:?}\n{console}",
                    failed.map(|r| r.err())
                )
                .into())
            }
        }
    }

    async fn suspend(self, to: &Restore) -> Result<(), Failure> {
        done(&self.channel.call(&Request::Freeze).await?)?;
        // Saved before its agent waits for the next session, a guest misses that one's first greeting.
        tokio::time::timeout(PATIENCE, self.channel.ended()).await?;
        self.machine.pause().await?;
        let diff = to.layers.first().ok_or("a suspension needs a file for its diff")?;
        let write = self.machine.save_diff().await?;
        let below = write.below(&[])?;
        write.run(&to.device_state, &below, diff, &|| false)?;
        end(&*self.machine).await
    }

    /// Asks its application for something.
    pub(crate) async fn get(&self, path: &str) -> Result<(), Failure> {
        let stream = self.channel.relay(PORT).await?;
        Connection::over(stream, "localhost").await?.get(path, None).await.map(drop)
    }

    pub(crate) async fn end(self) -> Result<(), Failure> {
        end(&*self.machine).await
    }
}

async fn end(machine: &dyn Machine) -> Result<(), Failure> {
    machine.kill()?;
    Ok(machine.wait_exit().await?)
}

async fn first_answer(machine: &dyn Machine) -> Result<Channel, Failure> {
    let (channel, _) = Channel::establish(machine.channel().await?, Answers::none()).await?;
    let wall_clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    // The bytes need not be random where nothing depends on them.
    let life = NewLife {
        wall_clock: u64::try_from(wall_clock)?,
        entropy: vec![1; ENTROPY_BYTES],
        machine_id: None,
        hook: None,
    };
    done(&channel.call(&Request::Live(life)).await?)?;
    let stream = channel.relay(PORT).await?;
    Connection::over(stream, "localhost").await?.get("/", None).await?;
    Ok(channel)
}

fn done(answer: &Response) -> Result<(), Failure> {
    if *answer == Response::Done { Ok(()) } else { Err(format!("the guest answered {answer:?}").into()) }
}
