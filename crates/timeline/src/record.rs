//! What is kept of a timeline, and how it is shown. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Characters of the longest bar.
const WIDTH: u64 = 48;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// RunMicrovm.
    Launch,
    /// A resume, by a call or a request.
    Wake,
    /// A suspension, by a call or for idleness.
    Suspend,
    /// A termination, by a call or for what the MicroVM's policy says.
    Terminate,
}

impl Kind {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Wake => "wake",
            Self::Suspend => "suspend",
            Self::Terminate => "terminate",
        }
    }
}

/// What is done when it is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The call was read, and its caller is known.
    Api,
    /// It keeps the rules, and its caller may make it.
    Validation,
    /// The decision is durable.
    Store,
    /// The image's layer, or the saved state, is found to be good.
    Layer,
    /// A spare clone took the MicroVM's name: in place of all from `Slot` to `Agent`.
    Spare,
    /// There is a network, a user and a cgroup.
    Slot,
    /// The VMM answers.
    Vmm,
    /// The pages that a suspension kept are in its memory.
    Memory,
    /// The devices' state is loaded.
    Load,
    /// The vCPUs run.
    Resume,
    /// The agent was greeted.
    Agent,
    /// The saved state cannot be used again.
    Used,
    /// The application was thawed, if it had been frozen, and its hook has answered.
    Hook,
    /// The application was frozen.
    Freeze,
    /// The state is saved, durably.
    Save,
    /// The application was asked to end, and what it has printed is written down.
    Stop,
    /// The VMM is gone.
    End,
    /// Its files are gone.
    Files,
    /// The new state is durable, and shown.
    Shown,
    /// The first request came: the time before it is its client's.
    Request,
    /// The application's first answer began.
    Answer,
}

impl Step {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::Validation => "validation",
            Self::Store => "store",
            Self::Layer => "layer",
            Self::Spare => "spare clone",
            Self::Slot => "slot",
            Self::Vmm => "VMM",
            Self::Memory => "memory",
            Self::Load => "load",
            Self::Resume => "resume",
            Self::Agent => "agent",
            Self::Used => "used up",
            Self::Hook => "hook",
            Self::Freeze => "freeze",
            Self::Save => "save",
            Self::Stop => "stop",
            Self::End => "VMM's end",
            Self::Files => "files",
            Self::Shown => "shown",
            Self::Request => "(client)",
            Self::Answer => "first byte",
        }
    }
}

/// A step and its end, in microseconds from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Which.
    pub step: Step,
    /// When it was done.
    pub micros: u64,
}

/// One launch, wake, suspension or termination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was done.
    pub kind: Kind,
    /// When, in microseconds since the Unix epoch.
    pub began_micros: u64,
    /// The [`TRACE_PARENT`](crate::TRACE_PARENT) of the request that it was done for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Why it came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Its steps in their order: each begins where the one before it ends.
    pub steps: Vec<Reached>,
}

impl Record {
    fn total(&self) -> u64 {
        self.steps.last().map_or(0, |last| last.micros)
    }
}

/// A line of totals, and why it failed if it did, then one for each step: its name, its milliseconds, and a bar where it lies.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let began = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.began_micros) * 1000).ok();
        let began = began.and_then(|began| began.format(&Rfc3339).ok()).unwrap_or_default();
        write!(f, "{} {began}, {} ms", self.kind.name(), millis(self.total()))?;
        match &self.failed {
            Some(why) => writeln!(f, ", failed: {why}")?,
            None => writeln!(f)?,
        }
        let mut from = 0;
        for Reached { step, micros } in &self.steps {
            let (start, end) = (column(from, self.total()), column(*micros, self.total()));
            let bar = "█".repeat(usize::try_from((end - start).max(1)).unwrap_or(1));
            let gap = " ".repeat(usize::try_from(start).unwrap_or(0));
            writeln!(f, "  {:<12}{:>9}  {gap}{bar}", step.name(), millis(micros - from))?;
            from = *micros;
        }
        Ok(())
    }
}

fn column(micros: u64, total: u64) -> u64 {
    (micros.saturating_mul(WIDTH)).checked_div(total).unwrap_or(0)
}

fn millis(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(kind: Kind, began_micros: u64) -> Record {
        Record { kind, began_micros, parent: None, failed: None, steps: vec![] }
    }

    #[test]
    fn steps_follow_each_other_and_add_up() {
        let steps = [(Step::Api, 500), (Step::Spare, 1500), (Step::Hook, 3500), (Step::Answer, 4800)];
        let steps = steps.map(|(step, micros)| Reached { step, micros }).to_vec();
        let record = Record { steps, ..empty(Kind::Launch, 1_000_000) };
        let text = record.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "launch 1970-01-01T00:00:01Z, 4.80 ms");
        assert_eq!(lines[1], format!("  API              0.50  {}", "█".repeat(5)));
        assert_eq!(lines[3], format!("  hook             2.00  {}{}", " ".repeat(15), "█".repeat(20)));
        assert_eq!(lines.len(), 5);
        let failed = Record { failed: Some("no disk".into()), ..record }.to_string();
        assert_eq!(failed.lines().next(), Some("launch 1970-01-01T00:00:01Z, 4.80 ms, failed: no disk"));
    }

    #[test]
    fn what_an_earlier_build_kept_is_read() {
        let kept = r#"{"kind":"wake","began_micros":7,"steps":[{"step":"used","micros":3}]}"#;
        let read: Record = serde_json::from_str(kept).unwrap();
        assert_eq!(
            read,
            Record { steps: vec![Reached { step: Step::Used, micros: 3 }], ..empty(Kind::Wake, 7) }
        );
    }

    #[test]
    fn nothing_and_no_time_are_shown_too() {
        let empty = empty(Kind::Wake, u64::MAX);
        assert!(empty.to_string().starts_with("wake"));
        let at_once = Record { steps: vec![Reached { step: Step::Hook, micros: 0 }], ..empty };
        assert_eq!(at_once.to_string().lines().count(), 2);
    }
}
