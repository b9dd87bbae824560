//! Attacks a server: at each step that it takes on its files it is killed, or the call fails, or the power is cut, or
//! VMMs are killed; then everything that was acknowledged must be there, and nothing else be left.
//!
//! `make faults RUNS=1000 SEED=1` runs it. The server is the one that users run, with a layer preloaded between it and
//! libc (`tests/faults-preload`). Needs root and what `make setup` and `make build` make.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking too")]

mod bed;
mod cases;
mod chance;
mod guests;
mod images;
mod run;
mod scenario;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::bed::{Bed, Planned};
use crate::run::{Case, Report, Standing, run};
use crate::scenario::Scenario;
use rekindle_faults::plan::Fault;

/// Failures after which there is no use in going on.
const TOO_MANY: usize = 40;

/// Attacks a server at every step.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many runs
    #[arg(long, default_value_t = 1000)]
    runs: u64,
    /// What the runs are drawn by
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A few fixed runs instead, one or two of each scenario
    #[arg(long)]
    few: bool,
    /// Only the run of this number
    #[arg(long)]
    only: Option<u64>,
    /// The first run
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this scenario
    #[arg(long)]
    scenario: Option<Scenario>,
    /// Only steps with this in them, such as fsync or a part of a path, each with each fault
    #[arg(long)]
    step: Option<String>,
    /// Takes the image from this data directory, or keeps it there: a build takes as long as thirty runs
    #[arg(long)]
    kept: Option<PathBuf>,
    /// Ends after so many minutes, wherever it is
    #[arg(long, default_value_t = 600)]
    minutes: u64,
}

/// Scenarios with the steps that they take.
type Recorded = Vec<(Scenario, Vec<String>)>;

#[derive(Default)]
struct Summary {
    runs: BTreeMap<(Scenario, Fault), (u64, u64)>,
    /// Scenario, fault, call and path of the steps that had it.
    covered: BTreeSet<(Scenario, Fault, String)>,
    laps: BTreeMap<&'static str, Duration>,
    failures: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let mut bed = Bed::start(arguments.kept.as_deref());
    let mut standing = Standing::default();
    let cases = arguments.cases(&mut bed, &mut standing);
    let mut summary = Summary::default();
    for case in cases {
        if began.elapsed() > Duration::from_secs(arguments.minutes * 60) || summary.failures.len() >= TOO_MANY
        {
            break;
        }
        let mut report = caught(&mut bed, &mut standing, case);
        if arguments.few && report.hit.is_none() && report.result.is_ok() {
            report.result = Err("its step is not reached any more".to_owned());
        }
        summary.note(case, &report);
        if report.result.is_err() {
            eprintln!("the server's log ends:\n{}", bed.server.log());
            standing.forget();
            bed.begin_again();
        }
    }
    if let Err(error) = standing.end(&bed) {
        summary.failures.push(format!("at the end: {error}"));
    }
    bed.stop();
    summary.print(began.elapsed());
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A run; what panics in it has failed.
fn caught(bed: &mut Bed, standing: &mut Standing, case: Case) -> Report {
    let attempt = std::panic::AssertUnwindSafe(|| run(bed, standing, case));
    std::panic::catch_unwind(attempt).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
        Report { result: Err(why), ..Report::default() }
    })
}

impl Arguments {
    fn cases(&self, bed: &mut Bed, standing: &mut Standing) -> Vec<Case> {
        if self.few {
            return cases::few();
        }
        let mut recorded = recorded(self.kept.as_deref(), bed, standing);
        recorded.retain(|(scenario, _)| self.scenario.is_none_or(|wanted| wanted == *scenario));
        let cases = match &self.step {
            Some(step) => cases::named(&recorded, step, self.seed, self.runs),
            None => cases::cases(&recorded, self.seed, self.runs),
        };
        cases.into_iter().filter(|case| self.wants(case)).collect()
    }

    fn wants(&self, case: &Case) -> bool {
        let scenario = self.scenario.is_none_or(|wanted| wanted == case.scenario);
        scenario && case.number >= self.from && self.only.is_none_or(|only| only == case.number)
    }
}

/// The steps of each scenario, as they were kept with the image, or as they are found now.
fn recorded(kept: Option<&Path>, bed: &mut Bed, standing: &mut Standing) -> Recorded {
    let kept = kept.map(|kept| kept.with_extension("steps"));
    let found = kept.as_ref().and_then(|kept| serde_json::from_slice(&std::fs::read(kept).ok()?).ok());
    found.unwrap_or_else(|| {
        let recorded = record(bed, standing);
        if let Some(kept) = kept {
            std::fs::write(kept, serde_json::to_vec(&recorded).unwrap()).unwrap();
        }
        recorded
    })
}

/// In a run without a fault.
fn record(bed: &mut Bed, standing: &mut Standing) -> Recorded {
    let recorded = |scenario| {
        let planned = Planned { fault: Fault::Record, after: 0, length: 0, seed: 0 };
        let report = run(bed, standing, Case { number: 0, scenario, planned });
        if let Err(error) = report.result {
            panic!("{scenario:?} fails without a fault: {error}\n{}", bed.server.log());
        }
        assert!(!report.steps.is_empty(), "{scenario:?} takes no steps: is the layer loaded?");
        println!("{scenario:?}: {} steps", report.steps.len());
        (scenario, report.steps)
    };
    Scenario::STEPPED.into_iter().map(recorded).collect()
}

impl Summary {
    fn note(&mut self, case: Case, report: &Report) {
        let Case { number, scenario, planned } = case;
        let counts = self.runs.entry((scenario, planned.fault)).or_default();
        counts.0 += 1;
        counts.1 += u64::from(report.hit.is_some());
        let hit = report.hit.clone().unwrap_or_else(|| "not reached".to_owned());
        for (what, took) in &report.laps.0 {
            *self.laps.entry(what).or_default() += *took;
        }
        match &report.result {
            Ok(()) => {
                let took = report.laps.total().as_secs_f64();
                println!(
                    "{number} {scenario:?} {:?} after {}: {hit}: ok in {took:.1} s",
                    planned.fault, planned.after
                );
            }
            Err(error) => {
                let failure = format!(
                    "{number} {scenario:?} {:?} after {}: {hit}: FAILED: {error}",
                    planned.fault, planned.after
                );
                println!("{failure}");
                self.failures.push(failure);
            }
        }
        if let Some(step) = report.hit.as_deref().and_then(|hit| hit.split_once(" at ")) {
            self.covered.insert((scenario, planned.fault, step.1.to_owned()));
        }
    }

    fn print(&self, took: Duration) {
        let runs: u64 = self.runs.values().map(|counts| counts.0).sum();
        println!("\n{runs} runs in {} s, {} failures", took.as_secs(), self.failures.len());
        println!("\nscenario and fault: runs, of which the fault came to be");
        for ((scenario, fault), (runs, hit)) in &self.runs {
            println!("  {scenario:?} {fault:?}: {runs}, {hit}");
        }
        println!("\nwhere the time went, in seconds: {:.1?}", self.laps);
        println!("\nsteps × faults that came to be: {}", self.covered.len());
        for failure in &self.failures {
            println!("  {failure}");
        }
    }
}
