use proptest::prelude::*;

use super::*;

fn want(guest: &str, kind: Kind) -> Want {
    Want { guest: guest.into(), kind, image: "a".into(), at_least: 0, cpu_millis: 0 }
}

fn measured(memory: u64, disk: u64) -> Measured {
    Measured { memory: Some(memory * MIB), disk: Some(disk * MIB) }
}

fn used(guests: &[(&str, u64)]) -> BTreeMap<String, u64> {
    guests.iter().map(|(name, mib)| ((*name).to_owned(), mib * MIB)).collect()
}

#[test]
fn a_clone_is_expected_to_cost_what_others_cost_with_head_room() {
    let mut ledger = Ledger::new(Limits { memory: Some(200 * MIB), ..Limits::default() });
    ledger.admit(want("a", Kind::Clone)).unwrap();
    ledger.observe(measured(1000, 1000), &used(&[("a", 100)]));
    let refused = ledger.admit(want("b", Kind::Clone));
    assert_eq!(refused, Err(Shortage::Memory { left: 100 * MIB, wanted: 125 * MIB }));
    let other = Want { image: "b".into(), ..want("b", Kind::Clone) };
    assert!(ledger.admit(other).is_ok(), "of another image nothing is known");
}

#[test]
fn what_was_promised_and_not_used_is_not_given_twice() {
    let mut ledger = Ledger::new(Limits { memory_reserve: 100 * MIB, ..Limits::default() });
    ledger.observe(measured(100 + 130, 10_000), &BTreeMap::new());
    ledger.admit(want("a", Kind::Clone)).unwrap();
    ledger.admit(want("b", Kind::Clone)).unwrap();
    assert!(matches!(ledger.admit(want("c", Kind::Clone)), Err(Shortage::Memory { .. })));
    // Used by now, which the host's own figure says.
    ledger.observe(measured(100 + 80, 10_000), &used(&[("a", 64), ("b", 64)]));
    assert!(ledger.admit(Want { image: "x".into(), ..want("c", Kind::Clone) }).is_ok());
}

#[test]
fn a_sleeper_needs_what_it_saved() {
    let mut ledger = Ledger::new(Limits { memory: Some(400 * MIB), ..Limits::default() });
    let sleeper = Want { at_least: 500 * MIB, ..want("a", Kind::Clone) };
    assert!(
        matches!(ledger.admit(sleeper), Err(Shortage::Memory { wanted, .. }) if wanted == 500 * MIB + VMM)
    );
}

#[test]
fn disk_is_kept_for_the_suspension_of_everything_that_runs() {
    let mut ledger = Ledger::new(Limits { disk_reserve: 50 * MIB, ..Limits::default() });
    ledger.observe(measured(10_000, 50 + 2 * 64), &BTreeMap::new());
    ledger.admit(want("a", Kind::Clone)).unwrap();
    ledger.admit(want("b", Kind::Clone)).unwrap();
    assert_eq!(ledger.admit(want("c", Kind::Clone)), Err(Shortage::Disk { left: 0, wanted: FIRST_ESTIMATE }));
}

/// Those that sleep, spares and builds are promised none.
#[test]
fn baselines_are_promised_as_far_as_there_are_processors() {
    let mut ledger = Ledger::new(Limits { cpu_millis: Some(1000), ..Limits::default() });
    let wanting = |guest: &str, cpu_millis| Want { cpu_millis, ..want(guest, Kind::Clone) };
    let first = ledger.admit(wanting("a", 500)).unwrap();
    ledger.admit(wanting("b", 250)).unwrap();
    let refused = ledger.admit(wanting("c", 500)).unwrap_err();
    assert_eq!(refused, Shortage::Cpu { left: 250, wanted: 500 });
    assert!(
        refused.to_string().starts_with("The host has 0.250 CPUs to promise MicroVMs and this needs 0.500;")
    );
    ledger.admit(want("s", Kind::Spare)).unwrap();
    ledger.admit(want("build", Kind::Build)).unwrap();
    ledger.release(first);
    assert!(ledger.admit(wanting("c", 500)).is_ok());
}

#[test]
fn spares_give_way() {
    let mut ledger = Ledger::new(Limits { slots: 3, ..Limits::default() });
    ledger.admit(want("a", Kind::Clone)).unwrap();
    ledger.admit(want("spare", Kind::Spare)).unwrap();
    assert!(ledger.admit(want("spare-2", Kind::Spare)).is_err(), "it would leave no slot free");
    ledger.admit(want("b", Kind::Clone)).unwrap();
    assert!(!ledger.is_crowded());
    ledger.admit(want("c", Kind::Clone)).unwrap();
    assert!(ledger.is_crowded());
    assert!(ledger.admit(want("d", Kind::Clone)).is_err());
}

#[test]
fn a_build_may_be_asked_for_while_others_are_under_way() {
    let limits = Limits { slots: 2, build_memory: 100, memory: Some(150), ..Limits::default() };
    let mut ledger = Ledger::new(limits);
    ledger.admit(want("build", Kind::Build)).unwrap();
    assert!(ledger.admit(want("build-2", Kind::Build)).is_err());
    assert!(ledger.has_room_for_a_build().is_ok());
}

#[derive(Debug, Clone)]
enum Step {
    Admit {
        kind: Kind,
        image: u8,
        at_least: u64,
        cpu_millis: u64,
    },
    Release(usize),
    /// What each guest uses, in per cent of what it was expected to.
    Observe(Vec<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![3 => Just(Kind::Clone), 1 => Just(Kind::Spare), 1 => Just(Kind::Build)];
    prop_oneof![
        4 => (kind, 0..3u8, 0..200 * MIB, 0..2000u64).prop_map(|(kind, image, at_least, cpu_millis)| {
            let cpu_millis = if kind == Kind::Clone { cpu_millis } else { 0 };
            Step::Admit { kind, image, at_least, cpu_millis }
        }),
        2 => (0..32usize).prop_map(Step::Release),
        2 => prop::collection::vec(0..200u64, 32).prop_map(Step::Observe),
    ]
}

const LIMITS: Limits = Limits {
    slots: 12,
    cpu_millis: Some(4000),
    memory: Some(1500 * MIB),
    memory_reserve: 200 * MIB,
    disk_reserve: 100 * MIB,
    build_memory: 300 * MIB,
    build_disk: 200 * MIB,
};
/// What the imagined host has when nothing runs.
const MEMORY: u64 = 2000 * MIB;
const DISK: u64 = 1400 * MIB;

/// The measurement of a host on which exactly this is used.
fn host(guests: &BTreeMap<String, u64>) -> Measured {
    let used: u64 = guests.values().sum();
    Measured { memory: Some(MEMORY.saturating_sub(used)), disk: Some(DISK) }
}

proptest! {
    #[test]
    fn nothing_is_promised_that_is_not_there(steps in prop::collection::vec(step(), 1..80)) {
        let mut ledger = Ledger::new(LIMITS);
        ledger.observe(host(&BTreeMap::new()), &BTreeMap::new());
        let mut held = vec![];
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Admit { kind, image, at_least, cpu_millis } => {
                    let want = Want { guest: n.to_string(), kind, image: image.to_string(), at_least, cpu_millis };
                    let Ok(id) = ledger.admit(want) else { continue };
                    held.push(id);
                    let kept: Vec<&Claim> =
                        ledger.claims.values().filter(|claim| claim.kind != Kind::Spare).collect();
                    let spared: u64 = ledger.claims.values()
                        .filter(|claim| claim.kind == Kind::Spare).map(|claim| claim.measured).sum();
                    prop_assert!(kept.len() <= LIMITS.slots);
                    prop_assert!(kept.iter().map(|claim| claim.cpu_millis).sum::<u64>() <= 4000);
                    prop_assert!(kept.iter().map(|claim| claim.cost()).sum::<u64>() <= 1500 * MIB);
                    // What is promised can be kept with the spares gone.
                    let outstanding: u64 = kept.iter().map(|claim| claim.outstanding()).sum();
                    let left = ledger.measured.memory.unwrap() + spared;
                    if kind != Kind::Spare {
                        prop_assert!(outstanding + LIMITS.memory_reserve <= left);
                        let suspended: u64 = kept.iter().map(|claim| ledger.disk(claim)).sum();
                        prop_assert!(suspended + LIMITS.disk_reserve <= DISK);
                    }
                }
                Step::Release(at) if !held.is_empty() => ledger.release(held.swap_remove(at % held.len())),
                Step::Release(_) => {}
                Step::Observe(shares) => {
                    let guests: BTreeMap<String, u64> = ledger.claims.values().zip(shares)
                        .map(|(claim, share)| (claim.guest.clone(), claim.expected * share / 100)).collect();
                    ledger.observe(host(&guests), &guests);
                }
            }
        }
        // Whatever happened, all of it comes back.
        held.into_iter().for_each(|id| ledger.release(id));
        ledger.observe(host(&BTreeMap::new()), &BTreeMap::new());
        prop_assert_eq!(ledger.memory_left(|_| true), 1500 * MIB);
        prop_assert_eq!(ledger.disk_left(|_| true), DISK - LIMITS.disk_reserve);
    }
}
