//! Which runs there are: every step of every scenario with every fault, in an order that the seed gives, and load.

use crate::bed::Planned;
use crate::chance::Chance;
use crate::run::Case;
use crate::scenario::Scenario;
use rekindle_faults::plan::Fault;

/// Of every so many runs one is under load.
const LOAD_SHARE: u64 = 5;
/// Steps of load among which one is picked.
const LOAD_STEPS: u64 = 250;
/// The most steps that fail in a row.
const MOST_FAILING: u64 = 12;

/// `recorded`: the steps of each scenario.
pub(crate) fn cases(recorded: &[(Scenario, Vec<String>)], seed: u64, count: u64) -> Vec<Case> {
    let mut chance = Chance::new(seed);
    let mut every: Vec<(Scenario, Fault, u64)> = Vec::new();
    for (scenario, steps) in recorded {
        for at in representatives(steps) {
            every.extend(Fault::ALL.map(|fault| (*scenario, fault, at)));
        }
    }
    shuffle(&mut every, &mut chance);
    let mut next = every.iter().cycle();
    (0..count)
        .map(|number| {
            let load = number % LOAD_SHARE == LOAD_SHARE - 1 || every.is_empty();
            let random = (Scenario::Load, chance.one_of(&Fault::ALL), chance.below(LOAD_STEPS));
            let (scenario, fault, after) = if load { random } else { next.next().copied().unwrap_or(random) };
            let length = 1 + chance.below(MOST_FAILING);
            Case { number, scenario, planned: Planned { fault, after, length, seed: chance.next() } }
        })
        .collect()
}

/// Of steps that follow each other and are the same but for their place in a file, the first and the last.
fn representatives(steps: &[String]) -> Vec<u64> {
    let kind = |step: &String| step.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned());
    let kinds: Vec<String> = steps.iter().map(kind).collect();
    let differs = |a: Option<&String>, b: &String| a != Some(b);
    (0..kinds.len())
        .filter(|at| {
            let before = at.checked_sub(1).and_then(|before| kinds.get(before));
            differs(before, &kinds[*at]) || differs(kinds.get(at + 1), &kinds[*at])
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
    fn every_step_has_every_fault_once() {
        let steps: Vec<String> =
            ["1 open a", "2 write a", "3 write a", "4 write a", "5 fsync a"].map(str::to_owned).to_vec();
        assert_eq!(representatives(&steps), [0, 1, 3, 4]);
        let all = cases(&[(Scenario::Run, steps)], 3, 50);
        let stepped: Vec<_> = all
            .iter()
            .filter(|case| case.scenario == Scenario::Run)
            .map(|case| (case.planned.fault, case.planned.after))
            .collect();
        let different: std::collections::BTreeSet<_> = stepped.iter().collect();
        assert_eq!((stepped.len(), different.len()), (40, 40));
    }
}
