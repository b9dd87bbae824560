//! What a process has used.

use std::fs;
use std::time::Duration;

use e2e::proc::kibibytes;

use crate::Failure;

/// Of one process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stats {
    /// Processor time of the threads that it has now.
    pub(crate) cpu: Duration,
    /// Resident memory of its own.
    pub(crate) anonymous_bytes: u64,
}

impl Stats {
    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let mut cpu = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanos = text.split_whitespace().next().ok_or("an empty schedstat")?;
            cpu += Duration::from_nanos(nanos.parse()?);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self { cpu, anonymous_bytes: kibibytes(&status, "RssAnon").ok_or("no RssAnon in /proc")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_the_processor_and_memory() {
        let of_this = || Stats::of(std::process::id()).unwrap();
        let before = of_this();
        while of_this().cpu == before.cpu {}
        assert!(before.cpu > Duration::ZERO && before.anonymous_bytes > 0);
    }
}
