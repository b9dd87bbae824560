//! Which runs there are: every step of every scenario with every fault, in an order that the seed gives, and load.

use crate::bed::Planned;
use crate::chance::Chance;
use crate::run::Case;
use crate::scenario::Scenario;
use rekindle_faults::plan::{Fault, Kind};

/// Of every so many runs one is under load.
const LOAD_SHARE: u64 = 5;
/// Of every so many runs under load one is a build instead, which takes as long as ten others.
const BUILD_SHARE: u64 = 10;
/// Steps of load among which one is picked.
const LOAD_STEPS: u64 = 250;
/// The same of a build.
const BUILD_STEPS: u64 = 170;
/// The most steps that fail in a row.
const MOST_FAILING: u64 = 5;
/// How many do in each of a few runs.
const FEW_FAILING: u64 = 3;

/// A few whose fault is sure to come to be, for those who change something: each scenario but the build, and each kind of
/// fault.
pub(crate) fn few() -> Vec<Case> {
    let few = [
        (Scenario::Run, Fault::KillAfter, 20),
        // As a spare clone's disk is made.
        (Scenario::Run, Fault::NoSpace, 26),
        (Scenario::Suspend, Fault::PowerCut, 40),
        (Scenario::Resume, Fault::InputOutput, 20),
        (Scenario::Terminate, Fault::KillBefore, 5),
        (Scenario::TerminateAsleep, Fault::Hold, 10),
        (Scenario::Start, Fault::PowerCutTorn, 10),
        (Scenario::Suspend, Fault::Full, 20),
        (Scenario::Merge, Fault::KillWithin, 1),
        (Scenario::Load, Fault::NoSpace, 40),
    ];
    let case = |(number, (scenario, fault, after))| Case {
        number,
        scenario,
        planned: Planned { fault, after, length: FEW_FAILING, seed: number },
    };
    (0..).zip(few).map(case).collect()
}

/// `recorded`: the steps of each scenario.
pub(crate) fn cases(recorded: &[(Scenario, Vec<String>)], seed: u64, count: u64) -> Vec<Case> {
    let mut chance = Chance::new(seed);
    let every = every(recorded, "", &mut chance);
    let mut next = every.iter().cycle();
    (0..count)
        .map(|number| {
            let load = number % LOAD_SHARE == LOAD_SHARE - 1 || every.is_empty();
            let build = number % (LOAD_SHARE * BUILD_SHARE) == LOAD_SHARE - 1;
            let (scenario, steps) =
                if build { (Scenario::Build, BUILD_STEPS) } else { (Scenario::Load, LOAD_STEPS) };
            let random = (scenario, chance.one_of(&Fault::ALL), chance.below(steps));
            let (scenario, fault, after) = if load { random } else { next.next().copied().unwrap_or(random) };
            let length = 1 + chance.below(MOST_FAILING);
            Case { number, scenario, planned: Planned { fault, after, length, seed: chance.next() } }
        })
        .collect()
}

/// The same of those steps alone that have `named` in them, such as `fsync` or a part of a path, each with each fault once.
pub(crate) fn named(recorded: &[(Scenario, Vec<String>)], named: &str, seed: u64, count: u64) -> Vec<Case> {
    let mut chance = Chance::new(seed);
    let every = every(recorded, named, &mut chance);
    (0..count)
        .zip(every)
        .map(|(number, (scenario, fault, after))| {
            let length = 1 + chance.below(MOST_FAILING);
            Case { number, scenario, planned: Planned { fault, after, length, seed: chance.next() } }
        })
        .collect()
}

/// Each of the steps that have `named` in them with each fault, in an order that is left to chance.
fn every(
    recorded: &[(Scenario, Vec<String>)],
    named: &str,
    chance: &mut Chance,
) -> Vec<(Scenario, Fault, u64)> {
    let mut every = Vec::new();
    for (scenario, steps) in recorded {
        for fault in Fault::ALL {
            let places = representatives(steps, fault, named).into_iter();
            every.extend(places.map(|at| (*scenario, fault, at)));
        }
    }
    shuffle(&mut every, chance);
    every
}

/// Of the steps that the fault can befall, counted without the others, those with `named` in them: where several follow each
/// other that are the same but for their place in a file, the first and the last.
fn representatives(steps: &[String], fault: Fault, named: &str) -> Vec<u64> {
    let step = |step: &String| {
        let (_, step) = step.split_once(' ')?;
        let (call, _) = step.split_once(' ')?;
        fault.befalls(Kind::of(call)).then(|| step.to_owned())
    };
    let befallen: Vec<String> = steps.iter().filter_map(step).collect();
    let differs = |a: Option<&String>, b: &String| a != Some(b);
    (0..befallen.len())
        .filter(|at| befallen[*at].contains(named))
        .filter(|at| {
            let before = at.checked_sub(1).and_then(|before| befallen.get(before));
            differs(before, &befallen[*at]) || differs(befallen.get(at + 1), &befallen[*at])
        })
        .map(|at| at as u64)
        .collect()
}

fn shuffle<T>(all: &mut [T], chance: &mut Chance) {
    for at in (1..all.len()).rev() {
        all.swap(at, chance.below(at as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_every_fault_that_can_befall_it_once() {
        let steps: Vec<String> =
            ["1 open a", "2 write a", "3 write a", "4 write a", "5 fsync a", "6 unlink a"]
                .map(str::to_owned)
                .to_vec();
        assert_eq!(representatives(&steps, Fault::KillBefore, ""), [0, 1, 3, 4, 5]);
        assert_eq!(representatives(&steps, Fault::NoSpace, ""), [0, 1, 3, 4]);
        assert_eq!(representatives(&steps, Fault::Short, ""), [0, 2]);
        assert_eq!(representatives(&steps, Fault::KillBefore, "fsync"), [4]);
        let synced = named(&[(Scenario::Run, steps.clone())], "fsync", 3, 60);
        assert!(synced.len() == 9 && synced.iter().all(|case| case.planned.after >= 3), "{synced:?}");
        let all = cases(&[(Scenario::Run, steps)], 3, 60);
        let stepped: Vec<_> = all
            .iter()
            .filter(|case| case.scenario == Scenario::Run)
            .map(|case| (case.planned.fault, case.planned.after))
            .collect();
        let different: std::collections::BTreeSet<_> = stepped.iter().collect();
        // Five steps for eight of the faults, four without the removal, and two of a file's data for two more.
        assert_eq!((stepped.len(), different.len()), (48, 48));
    }
}
