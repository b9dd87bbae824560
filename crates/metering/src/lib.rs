//! What a MicroVM has used: its baseline while it runs, what it takes beyond that, and what it sleeps with.
//!
//! Pure accounting of what is looked at from time to time, each second where nothing goes wrong. Time is an input, in
//! milliseconds since the epoch. A meter can be kept and taken up again: what a MicroVM used while nobody looked is in the
//! counter that it is looked at by.

use serde::{Deserialize, Serialize};

/// Longest that a MicroVM counts as having gone on unseen, of which the next look finds that it has not.
const MAX_UNSEEN: u64 = 1000;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// What a size includes (SPEC §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// What one look finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It runs.
    Running {
        /// Nanoseconds of CPU that its virtual machine has taken; begins anew with each virtual machine.
        cpu_nanos: u64,
        /// Bytes of memory that are its own.
        memory_bytes: u64,
    },
    /// It sleeps.
    Suspended {
        /// Bytes on the disk that it sleeps with.
        saved_bytes: u64,
    },
    /// Neither, yet or any more.
    Away,
}

/// Sums over a MicroVM's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Milliseconds in which it ran, each worth its baseline.
    pub running_millis: u64,
    /// Milliseconds in which it slept.
    pub suspended_millis: u64,
    /// Nanoseconds of CPU.
    pub cpu_nanos: u64,
    /// Those beyond the baseline of the time in which they were taken.
    pub cpu_above_nanos: u64,
    /// Bytes times milliseconds of memory, while it ran.
    pub memory_byte_millis: u64,
    /// Those beyond the baseline.
    pub memory_above_byte_millis: u64,
    /// Bytes times milliseconds of what it slept with.
    pub saved_byte_millis: u64,
}

/// The account of one MicroVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    baseline: Baseline,
    totals: Totals,
    looked_at: u64,
    found: Phase,
}

impl Meter {
    /// Of a MicroVM that has used nothing yet.
    #[must_use]
    pub fn new(baseline: Baseline) -> Self {
        Self { baseline, totals: Totals::default(), looked_at: 0, found: Phase::Away }
    }

    /// What it has used up to the last look.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// What the last look found.
    #[must_use]
    pub fn found(&self) -> Phase {
        self.found
    }

    /// Accounts for the time since the last look. A clock that was set back makes that nothing.
    pub fn look(&mut self, now: u64, phase: Phase) {
        let passed = now.saturating_sub(self.looked_at);
        match (self.found, phase) {
            (Phase::Running { cpu_nanos: before, memory_bytes }, Phase::Running { cpu_nanos, .. }) => {
                // A counter that went back is another virtual machine's.
                self.ran(passed, cpu_nanos.checked_sub(before).unwrap_or(cpu_nanos), memory_bytes);
            }
            (Phase::Running { memory_bytes, .. }, _) => self.ran(passed.min(MAX_UNSEEN), 0, memory_bytes),
            (Phase::Suspended { saved_bytes }, Phase::Suspended { .. }) => self.slept(passed, saved_bytes),
            (Phase::Suspended { saved_bytes }, _) => self.slept(passed.min(MAX_UNSEEN), saved_bytes),
            (Phase::Away, _) => {}
        }
        self.looked_at = now;
        self.found = phase;
    }

    fn ran(&mut self, millis: u64, cpu_nanos: u64, memory_bytes: u64) {
        let Totals { running_millis, cpu_nanos: cpu, cpu_above_nanos, .. } = &mut self.totals;
        let included = millis.saturating_mul(self.baseline.cpu_millis).saturating_mul(NANOS_PER_MILLI / 1000);
        add(running_millis, millis);
        add(cpu, cpu_nanos);
        add(cpu_above_nanos, cpu_nanos.saturating_sub(included));
        let above = memory_bytes.saturating_sub(self.baseline.memory_bytes);
        add(&mut self.totals.memory_byte_millis, memory_bytes.saturating_mul(millis));
        add(&mut self.totals.memory_above_byte_millis, above.saturating_mul(millis));
    }

    fn slept(&mut self, millis: u64, saved_bytes: u64) {
        add(&mut self.totals.suspended_millis, millis);
        add(&mut self.totals.saved_byte_millis, saved_bytes.saturating_mul(millis));
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASELINE: Baseline = Baseline { cpu_millis: 250, memory_bytes: 512 << 20 };

    fn running(cpu_nanos: u64, memory_bytes: u64) -> Phase {
        Phase::Running { cpu_nanos, memory_bytes }
    }

    #[test]
    fn a_life_is_summed_up() {
        let mut meter = Meter::new(BASELINE);
        meter.look(10_000, Phase::Away);
        // What its virtual machine took before it was this MicroVM's is not its own.
        meter.look(11_000, running(5_000_000_000, 1 << 30));
        // A second at a whole CPU, of which a quarter is included, and with twice the memory.
        meter.look(12_000, running(6_000_000_000, 256 << 20));
        // A second at a tenth: what is left of the baseline is not saved up.
        meter.look(13_000, running(6_100_000_000, 256 << 20));
        meter.look(14_000, Phase::Suspended { saved_bytes: 100 });
        meter.look(74_000, Phase::Suspended { saved_bytes: 100 });
        meter.look(74_500, running(50_000_000, 0));
        meter.look(75_500, Phase::Away);
        assert_eq!(
            meter.totals(),
            Totals {
                running_millis: 4000,
                suspended_millis: 60_500,
                cpu_nanos: 1_100_000_000,
                cpu_above_nanos: 750_000_000,
                memory_byte_millis: (1 << 30) * 1000 + (256 << 20) * 2000,
                memory_above_byte_millis: (512 << 20) * 1000,
                saved_byte_millis: 6_050_000,
            }
        );
    }

    #[test]
    fn what_ended_while_nobody_looked_is_not_charged_until_somebody_does() {
        let mut meter = Meter::new(BASELINE);
        meter.look(0, running(0, 0));
        meter.look(3_600_000, Phase::Away);
        assert_eq!(meter.totals().running_millis, MAX_UNSEEN);
    }

    fn phases() -> impl Strategy<Value = Phase> {
        prop_oneof![
            (any::<u64>(), any::<u64>()).prop_map(|(cpu, memory)| running(cpu, memory)),
            any::<u64>().prop_map(|saved_bytes| Phase::Suspended { saved_bytes }),
            Just(Phase::Away),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_seen_nothing_shrinks_and_the_parts_fit(
            looks in proptest::collection::vec((any::<u64>(), phases()), 0..40),
        ) {
            let mut meter = Meter::new(BASELINE);
            let mut before = Totals::default();
            for (now, phase) in looks {
                meter.look(now, phase);
                let after = meter.totals();
                prop_assert!(after.running_millis >= before.running_millis);
                prop_assert!(after.suspended_millis >= before.suspended_millis);
                prop_assert!(after.cpu_nanos >= before.cpu_nanos);
                prop_assert!(after.cpu_above_nanos >= before.cpu_above_nanos);
                prop_assert!(after.cpu_above_nanos <= after.cpu_nanos);
                prop_assert!(after.memory_above_byte_millis <= after.memory_byte_millis);
                before = after;
            }
        }

        /// Looking more often, or being kept and taken up again in between, makes no difference to what is used evenly.
        #[test]
        fn looks_in_between_change_nothing(
            mut at in proptest::collection::vec(0_u64..100_000, 0..20),
            percent in 0_u64..400,
            memory in 0_u64..(4 << 30),
        ) {
            at.sort_unstable();
            // Nanoseconds for each millisecond.
            let phase = |now: u64| running(now * percent * 10_000, memory);
            let (mut often, mut seldom) = (Meter::new(BASELINE), Meter::new(BASELINE));
            for now in std::iter::once(0).chain(at).chain([100_000]) {
                often = serde_json::from_str(&serde_json::to_string(&often).unwrap()).unwrap();
                often.look(now, phase(now));
            }
            seldom.look(0, phase(0));
            seldom.look(100_000, phase(100_000));
            prop_assert_eq!(often.totals(), seldom.totals());
            prop_assert_eq!(often.totals().cpu_above_nanos, 100_000 * 10_000 * percent.saturating_sub(25));
        }

        #[test]
        fn no_time_is_counted_twice(mut looks in proptest::collection::vec((0_u64..1 << 40, phases()), 2..40)) {
            looks.sort_by_key(|(now, _)| *now);
            let span = looks[looks.len() - 1].0 - looks[0].0;
            let mut meter = Meter::new(BASELINE);
            looks.into_iter().for_each(|(now, phase)| meter.look(now, phase));
            prop_assert!(meter.totals().running_millis + meter.totals().suspended_millis <= span);
        }
    }
}
