//! What the server is at when a fault befalls it.

use std::thread;

use e2e::{Artifact, ImageRequest};

use crate::bed::{Bed, Planned};
use crate::chance::Chance;
use crate::guests::{Known, Told};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
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
    /// An image is built.
    Build,
}

/// How many MicroVMs live under load, and how much each is asked.
const LOAD: usize = 3;
const LOAD_STEPS: usize = 6;

impl Scenario {
    /// Those whose every step is attacked. A build takes too long for that.
    pub(crate) const STEPPED: [Self; 6] =
        [Self::Run, Self::Suspend, Self::Resume, Self::Terminate, Self::TerminateAsleep, Self::Start];

    /// The MicroVMs that it needs; nothing fails meanwhile.
    pub(crate) fn prepare(self, bed: &Bed, token: &str) -> Result<Vec<Known>, String> {
        let name = |part: &str| format!("{token}-{part}");
        Ok(match self {
            Self::Run | Self::Build => Vec::new(),
            Self::Suspend | Self::Terminate => vec![Known::run(bed, &name("a"))?],
            Self::Resume | Self::TerminateAsleep => vec![Known::suspended(bed, &name("a"))?],
            Self::Start => {
                let asleep = Known::suspended(bed, &name("a"))?;
                let mut falling = Known::run(bed, &name("b"))?;
                falling.suspend(&bed.server);
                vec![asleep, falling]
            }
            Self::Load => {
                (0..LOAD).map(|at| Known::run(bed, &name(&at.to_string()))).collect::<Result<_, _>>()?
            }
        })
    }

    /// Does it with the fault under way, as a client that takes what comes.
    pub(crate) fn perform(
        self,
        bed: &mut Bed,
        planned: Planned,
        guests: &mut Vec<Known>,
        token: &str,
    ) -> Result<(), String> {
        if self == Self::Start {
            bed.server.kill();
            bed.arm(planned);
            // Where it gives up it says why, and the next start is without faults.
            let _ = bed.server.try_restart();
            return Ok(());
        }
        bed.arm(planned);
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
            (Self::Build, _) => build(bed, token),
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

fn build(bed: &Bed, token: &str) {
    let request = std::panic::AssertUnwindSafe(|| {
        let image = ImageRequest::of(&bed.server, token, &Artifact::of("examples/hello")).create(&bed.server);
        drop(image.settled(&bed.server));
    });
    // The helpers panic where the server dies, which it is to.
    let _ = std::panic::catch_unwind(request);
}
