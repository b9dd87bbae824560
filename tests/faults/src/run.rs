//! One run: a scenario, a fault, a step; and what must be true afterwards.

use std::thread;
use std::time::{Duration, Instant};

use e2e::census;

use crate::bed::{Bed, Planned};
use crate::guests::{Harm, Known, Told};
use crate::scenario::Scenario;
use rekindle_faults::plan::Fault;

/// For a fault that is still to come once the client has done its part: what the server does on its own.
const LATE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) number: u64,
    pub(crate) scenario: Scenario,
    pub(crate) planned: Planned,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Report {
    /// Number, call and path of the step that had the fault; none where the scenario was over before.
    pub(crate) hit: Option<String>,
    pub(crate) steps: Vec<String>,
    pub(crate) result: Result<(), String>,
}

pub(crate) fn run(bed: &mut Bed, standing: &mut Standing, case: Case) -> Report {
    let mut hit = None;
    let mut steps = Vec::new();
    let result = attempt(bed, standing, case, &mut |bed| (steps, hit) = bed.steps());
    Report { hit, steps, result }
}

fn attempt(
    bed: &mut Bed,
    standing: &mut Standing,
    case: Case,
    look: &mut dyn FnMut(&Bed),
) -> Result<(), String> {
    let token = format!("run-{}-{}", case.number, nonce());
    standing.ensure(bed)?;
    let mut guests = case.scenario.prepare(bed, &token)?;
    let fault = case.planned.fault;
    attack(bed, case, &mut guests, &token)?;
    let began = Instant::now();
    while !bed.fired() && fault != Fault::Record && began.elapsed() < LATE {
        thread::sleep(Duration::from_millis(20));
    }
    let fired = bed.fired();
    look(bed);
    let kills =
        !matches!(fault, Fault::NoSpace | Fault::InputOutput | Fault::Short | Fault::Hold | Fault::Record);
    bed.disarm();
    if fired && kills {
        bed.recover(fault);
    } else if bed.server.has_ended() {
        bed.restart();
    }
    let harm = if fired { Harm::of(fault) } else { Harm::Failed };
    if guests.is_empty() && case.scenario == Scenario::Run {
        // It was refused, or not answered: asked for again, it is there once.
        let known = Known::ask(bed, &token).ok_or("RunMicrovm is refused after the fault")?;
        guests.push(known);
    }
    for guest in &mut guests {
        guest.check(&bed.server, harm)?;
    }
    standing.check(bed, harm)?;
    for guest in &mut guests {
        guest.end(&bed.server)?;
    }
    bed.leftovers(&standing.living())
}

/// Performs the scenario; beside it, where a step is held, something kills VMMs.
fn attack(bed: &mut Bed, case: Case, guests: &mut Vec<Known>, token: &str) -> Result<(), String> {
    if case.planned.fault != Fault::Hold {
        return case.scenario.perform(bed, case.planned, guests, token);
    }
    let data = bed.server.data_dir().to_owned();
    let words = bed.watcher();
    let over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                if words.fired() {
                    census::vmms_of(&data).into_iter().for_each(kill);
                    words.release();
                    return;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let done = case.scenario.perform(bed, case.planned, guests, token);
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        done
    })
}

fn kill(pid: i32) {
    let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
}

fn nonce() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros())
}

/// MicroVMs that live beside what is attacked, from run to run: one is awake, one asleep.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    awake: Option<Known>,
    asleep: Option<Known>,
}

impl Standing {
    fn ensure(&mut self, bed: &Bed) -> Result<(), String> {
        if self.awake.is_none() {
            self.awake = Some(Known::run(bed, &format!("awake-{}", nonce()))?);
        }
        if self.asleep.is_none() {
            self.asleep = Some(Known::suspended(bed, &format!("asleep-{}", nonce()))?);
        }
        Ok(())
    }

    fn check(&mut self, bed: &Bed, harm: Harm) -> Result<(), String> {
        let beside = |error| format!("a MicroVM beside: {error}");
        if let Some(mut awake) = self.awake.take() {
            awake.check(&bed.server, harm).map_err(beside)?;
            self.awake = Some(awake).filter(|awake| awake.told == Told::Running);
        }
        if let Some(asleep) = &self.asleep {
            asleep.settle(&bed.server, &["SUSPENDED"]).map_err(beside)?;
        }
        Ok(())
    }

    fn living(&self) -> Vec<&str> {
        self.awake.iter().chain(&self.asleep).map(|known| known.id.as_str()).collect()
    }

    /// At the end: the one that slept through it all answers with its memory.
    pub(crate) fn end(&mut self, bed: &Bed) -> Result<(), String> {
        if let Some(mut asleep) = self.asleep.take() {
            asleep.check(&bed.server, Harm::Failed)?;
            asleep.end(&bed.server)?;
        }
        match self.awake.take() {
            Some(mut awake) => awake.end(&bed.server),
            None => Ok(()),
        }
    }

    /// After a failure: others are made.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}
