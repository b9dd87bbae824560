//! What the server is at when a fault befalls it.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use snapshot::chain::MERGE_LAYERS;

use crate::bed::{Bed, Planned};
use crate::chance::Chance;
use crate::guests::{Known, PAUSE, Told};
use crate::images::Built;
use crate::run::Standing;

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize,
)]
pub(crate) enum Scenario {
    /// A MicroVM is launched.
    Run,
    /// One is put to sleep.
    Suspend,
    /// One is woken.
    Resume,
    /// One that runs is ended.
    Terminate,
    /// One that sleeps is ended.
    TerminateAsleep,
    /// The server starts with MicroVMs that run, sleep, and were about to.
    Start,
    /// Several MicroVMs, all at once.
    Load,
    /// The layers of one that was woken often are merged.
    Merge,
    /// An image is built.
    Build,
}

/// How many MicroVMs live under load, and how much each is asked.
const LOAD: usize = 3;
const LOAD_STEPS: usize = 6;
/// For the server to merge layers, once it is quiet.
const MERGE: Duration = Duration::from_secs(10);

/// What is attacked.
#[derive(Debug)]
pub(crate) struct Subjects {
    pub(crate) guests: Vec<Known>,
    pub(crate) image: Option<Built>,
}

impl Scenario {
    /// Those whose every step is attacked. A build takes too long for that.
    pub(crate) const STEPPED: [Self; 7] = [
        Self::Run,
        Self::Suspend,
        Self::Resume,
        Self::Terminate,
        Self::TerminateAsleep,
        Self::Start,
        Self::Merge,
    ];

    /// What it needs; nothing fails meanwhile.
    pub(crate) fn prepare(self, bed: &Bed, standing: &mut Standing, token: &str) -> Result<Subjects, String> {
        let image = (self == Self::Build).then(|| Built::planned(bed, token));
        Ok(Subjects { guests: self.guests(bed, standing, token)?, image })
    }

    fn guests(self, bed: &Bed, standing: &mut Standing, token: &str) -> Result<Vec<Known>, String> {
        let mut take = |part: usize| standing.take(bed, &format!("{token}-{part}"));
        Ok(match self {
            Self::Run | Self::Build => Vec::new(),
            Self::Merge => vec![layered(bed, take(0)?)?],
            Self::Suspend | Self::Terminate => vec![take(0)?],
            Self::Resume | Self::TerminateAsleep => vec![take(0)?.asleep(bed)?],
            Self::Start => {
                let asleep = take(0)?.asleep(bed)?;
                let mut falling = take(1)?;
                falling.suspend(&bed.server);
                vec![asleep, falling]
            }
            Self::Load => (0..LOAD).map(take).collect::<Result<_, _>>()?,
        })
    }

    /// Does it with the fault under way, as a client that takes what comes.
    pub(crate) fn perform(
        self,
        bed: &mut Bed,
        planned: Planned,
        Subjects { guests, image }: &mut Subjects,
        token: &str,
    ) -> Result<(), String> {
        if let (Self::Merge, Some(guest)) = (self, guests.first_mut()) {
            guest.resume(&bed.server);
            guest.settle(&bed.server, &["RUNNING"])?;
            guest.told = Told::Running;
        }
        if self == Self::Start {
            bed.server.kill();
            bed.arm(planned);
            // Where it gives up it says why, and the next start is without faults.
            let _ = bed.server.try_restart();
            return Ok(());
        }
        bed.arm(planned);
        if let Some(image) = image {
            image.ask(&bed.server);
            image.watch(&bed.server);
        }
        match (self, guests.first_mut()) {
            (Self::Run, _) => guests.extend(launch(bed, token)?),
            (Self::Suspend, Some(guest)) => {
                guest.suspend(&bed.server);
                guest.watch(&bed.server, "SUSPENDED", Told::Suspended);
            }
            (Self::Resume, Some(guest)) => {
                guest.resume(&bed.server);
                guest.watch(&bed.server, "RUNNING", Told::Running);
            }
            (Self::Terminate | Self::TerminateAsleep, Some(guest)) => {
                guest.terminate(&bed.server);
                guest.watch(&bed.server, "TERMINATED", Told::Terminating);
            }
            (Self::Load, _) => load(bed, guests, planned.seed),
            (Self::Merge, Some(guest)) => merge(bed, guest),
            _ => {}
        }
        Ok(())
    }
}

/// A launch; one that was not acknowledged is not asked for again before the fault is over.
fn launch(bed: &Bed, token: &str) -> Result<Option<Known>, String> {
    let Some(mut known) = Known::ask(bed, token) else { return Ok(None) };
    known.watch(&bed.server, "RUNNING", Told::Running);
    if known.told == Told::Running {
        known.try_count(&bed.server);
    }
    Ok(Some(known))
}

fn load(bed: &Bed, guests: &mut [Known], seed: u64) {
    thread::scope(|scope| {
        for (at, guest) in guests.iter_mut().enumerate() {
            let mut chance = Chance::new(seed.wrapping_add(at as u64));
            scope.spawn(move || {
                for _ in 0..LOAD_STEPS {
                    act(bed, guest, &mut chance);
                }
            });
        }
    });
}

fn act(bed: &Bed, guest: &mut Known, chance: &mut Chance) {
    let server = &bed.server;
    match (guest.told, chance.below(4)) {
        _ if guest.perhaps.is_some() => {}
        (Told::Running, 0 | 1) => guest.try_count(server),
        (Told::Running, 2) => {
            guest.suspend(server);
            if chance.below(2) == 0 {
                guest.watch(server, "SUSPENDED", Told::Suspended);
            }
        }
        (Told::Running, _) if chance.below(3) == 0 => guest.terminate(server),
        (Told::Suspending, _) => guest.watch(server, "SUSPENDED", Told::Suspended),
        (Told::Suspended, 0 | 1) => {
            guest.resume(server);
            guest.watch(server, "RUNNING", Told::Running);
        }
        (Told::Suspended, 2) => guest.resume(server),
        (Told::Resuming, _) => guest.watch(server, "RUNNING", Told::Running),
        _ => {}
    }
}

/// Has it sleep until it has so many layers of memory that they are merged once it is awake.
fn layered(bed: &Bed, mut guest: Known) -> Result<Known, String> {
    let youngest = bed.server.microvm_dir(&guest.id).join(format!("suspended/memory.{}", MERGE_LAYERS - 1));
    loop {
        guest = guest.asleep(bed)?;
        if youngest.exists() {
            return Ok(guest);
        }
        guest.resume(&bed.server);
        guest.settle(&bed.server, &["RUNNING"])?;
        guest.told = Told::Running;
    }
}

/// Waits for the layers to be merged, which the server does on its own, or for the fault to come in between.
fn merge(bed: &mut Bed, guest: &Known) {
    let merged = |bed: &Bed| {
        let dir = bed.server.microvm_dir(&guest.id);
        dir.join("merged").exists() && !dir.join("resumed/memory.0").exists()
    };
    let began = Instant::now();
    while began.elapsed() < MERGE && !bed.fired() && !merged(bed) {
        thread::sleep(PAUSE);
    }
}
