//! One run: a scenario, a fault, a step; and what must be true afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{census, disk};

use crate::bed::{Bed, Planned};
use crate::guests::{Harm, Known, Told, patiently};
use crate::scenario::{Scenario, Subjects};
use rekindle_faults::plan::Fault;

/// For a fault that is still to come once the client has done its part: what the server does on its own.
const LATE: Duration = Duration::from_secs(2);
/// How long a disk is full, times [`Planned::length`].
const FULL: Duration = Duration::from_millis(150);
/// For files and processes of what has ended to be gone.
const GONE: Duration = Duration::from_secs(20);

/// MicroVMs that live beside what is attacked.
const MOST_AWAKE: usize = 3;
/// How often one is woken before another takes its place: with more layers of memory they would be merged, at a time of
/// the server's choice.
const MOST_WAKES: u32 = 3;

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
    /// Where its time went.
    pub(crate) laps: Laps,
    pub(crate) result: Result<(), String>,
}

/// Where time goes, by what it goes to.
#[derive(Debug, Default, Clone)]
pub(crate) struct Laps(pub(crate) Vec<(&'static str, Duration)>);

impl Default for Report {
    fn default() -> Self {
        Self { hit: None, steps: Vec::new(), laps: Laps::default(), result: Ok(()) }
    }
}

impl Laps {
    pub(crate) fn total(&self) -> Duration {
        self.0.iter().map(|(_, took)| *took).sum()
    }

    fn time<T>(&mut self, what: &'static str, act: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = act();
        self.0.push((what, began.elapsed()));
        done
    }
}

pub(crate) fn run(bed: &mut Bed, standing: &mut Standing, case: Case) -> Report {
    let mut report = Report::default();
    report.result = attempt(bed, standing, case, &mut report);
    report
}

fn attempt(bed: &mut Bed, standing: &mut Standing, case: Case, report: &mut Report) -> Result<(), String> {
    let token = format!("run-{}-{}", case.number, nonce());
    let Report { hit, steps, laps, .. } = report;
    standing.ensure(bed)?;
    let mut subjects = laps.time("prepare", || case.scenario.prepare(bed, standing, &token))?;
    let fault = case.planned.fault;
    laps.time("attack", || attack(bed, case, &mut subjects, &token))?;
    laps.time("late", || wait_for(bed, fault));
    let fired = bed.fired();
    (*steps, *hit) = bed.steps();
    laps.time("recover", || recover(bed, fault, fired));
    let harm = if fired { Harm::of(fault) } else { Harm::Failed };
    laps.time("check", || check(bed, case, &mut subjects, harm, &token))?;
    laps.time("beside", || standing.check(bed, harm))?;
    laps.time("end", || end(bed, standing, subjects))?;
    laps.time("leftovers", || leftovers(bed, standing, harm))
}

/// What was attacked is as it was acknowledged, and what is done with it next succeeds.
fn check(bed: &Bed, case: Case, subjects: &mut Subjects, harm: Harm, token: &str) -> Result<(), String> {
    let Subjects { guests, image } = subjects;
    if guests.is_empty() && case.scenario == Scenario::Run {
        // It was refused, or not answered: asked for again, it is there once.
        let known = patiently(|| Known::ask(bed, token)).ok_or("RunMicrovm is refused after the fault")?;
        guests.push(known);
    }
    for guest in guests {
        guest.check(&bed.server, harm)?;
        if matches!(case.scenario, Scenario::Suspend | Scenario::Merge) {
            guest.sleep_and_wake(&bed.server)?;
        }
    }
    image.as_mut().map_or(Ok(()), |image| image.check(bed, harm))
}

fn end(bed: &Bed, standing: &mut Standing, subjects: Subjects) -> Result<(), String> {
    let Subjects { guests, image } = subjects;
    guests.into_iter().try_for_each(|guest| standing.keep_or_end(bed, guest))?;
    image.map_or(Ok(()), |image| image.end(&bed.server))
}

/// What a disk refused to remove is removed by the next start.
fn leftovers(bed: &mut Bed, standing: &Standing, harm: Harm) -> Result<(), String> {
    if harm == Harm::Failed && bed.leftovers(&standing.living(), Duration::ZERO).is_err() {
        bed.restart();
    }
    bed.leftovers(&standing.living(), GONE)
}

/// For what the server does on its own, once the client has done its part.
fn wait_for(bed: &Bed, fault: Fault) {
    let began = Instant::now();
    while !bed.fired() && fault != Fault::Record && began.elapsed() < LATE {
        thread::sleep(Duration::from_millis(20));
    }
}

fn recover(bed: &mut Bed, fault: Fault, fired: bool) {
    bed.disarm();
    if fired && fault.ends_the_server() {
        bed.recover(fault);
    } else if bed.server.has_ended() {
        bed.restart();
    }
}

/// Performs the scenario; beside it, where a step is held, what it is held for.
fn attack(bed: &mut Bed, case: Case, subjects: &mut Subjects, token: &str) -> Result<(), String> {
    let Planned { fault, length, .. } = case.planned;
    if !matches!(fault, Fault::Hold | Fault::Full) {
        return case.scenario.perform(bed, case.planned, subjects, token);
    }
    let data = bed.server.data_dir().to_owned();
    let words = bed.watcher();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !words.fired() && !over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            match fault {
                _ if !words.fired() => {}
                Fault::Hold => census::vmms_of(&data).into_iter().for_each(kill),
                _ => {
                    disk::fill(&data, 0);
                    words.release();
                    thread::sleep(FULL * u32::try_from(length).unwrap_or(1));
                    disk::make_room(&data);
                }
            }
            words.release();
        });
        let done = case.scenario.perform(bed, case.planned, subjects, token);
        over.store(true, Ordering::SeqCst);
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

/// MicroVMs that live beside what is attacked, from run to run: some are awake, one is asleep.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    awake: Vec<Known>,
    asleep: Option<Known>,
}

impl Standing {
    fn ensure(&mut self, bed: &Bed) -> Result<(), String> {
        if self.awake.is_empty() {
            self.awake.push(Known::run(bed, &format!("awake-{}", nonce()))?);
        }
        if self.asleep.is_none() {
            self.asleep = Some(Known::suspended(bed, &format!("asleep-{}", nonce()))?);
        }
        Ok(())
    }

    /// One that runs, to be attacked: one of those that lived beside, where others remain.
    pub(crate) fn take(&mut self, bed: &Bed, token: &str) -> Result<Known, String> {
        if self.awake.len() > 1 { Ok(self.awake.remove(0)) } else { Known::run(bed, token) }
    }

    /// What came through goes on beside, but for so many and so long.
    fn keep_or_end(&mut self, bed: &Bed, mut guest: Known) -> Result<(), String> {
        let keeps = guest.told == Told::Running && guest.wakes < MOST_WAKES && self.awake.len() < MOST_AWAKE;
        if keeps {
            self.awake.push(guest);
            return Ok(());
        }
        guest.end(&bed.server)
    }

    fn check(&mut self, bed: &Bed, harm: Harm) -> Result<(), String> {
        let beside = |error| format!("a MicroVM beside: {error}");
        for mut awake in std::mem::take(&mut self.awake) {
            awake.check(&bed.server, harm).map_err(beside)?;
            if awake.told == Told::Running {
                self.awake.push(awake);
            }
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
        std::mem::take(&mut self.awake).iter_mut().try_for_each(|awake| awake.end(&bed.server))
    }

    /// After a failure: others are made.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}
