//! How long a saved machine has been away, told to it in its own device state: its time stamp counter and the clock of
//! its timers go on from where they would be had it never stopped.
//!
//! In QEMU's migration stream an emulated machine has both in the section "timer": the counter's and the clock's offsets. One
//! with KVM has its time, in nanoseconds, in "kvmclock"; its counter it does not tell the time by.

use std::time::Duration;

use crate::accelerator::Accelerator;
use crate::arch::tsc;

/// Begins a section with all of a device's state.
const SECTION_FULL: u8 = 4;
/// Between start and name: the section's number, and the name's length.
const NUMBER: usize = 4;
/// What follows kvmclock's time: whether that is to be used, or what the guest's memory says of it, which has stood still.
const IS_RELIABLE: &[u8] = b"\x05\x1akvmclock/clock_is_reliable\0\0\0\x01";

/// Moves the clocks of a device state on. `None` where they are not found, or not once: then it is not the stream that
/// is known here.
pub(crate) fn advance(state: &mut [u8], by: Duration, accelerator: Accelerator) -> Option<()> {
    let nanoseconds = i64::try_from(by.as_nanos()).ok()?;
    match accelerator {
        Accelerator::Tcg => {
            let at = section(state, b"timer", 2)?;
            let ticks = i64::try_from(by.as_nanos() * u128::from(tsc::host_khz()) / 1_000_000).ok()?;
            // Ticks, then eight bytes without meaning, then nanoseconds; big-endian.
            add(state.get_mut(at..at + 8)?, ticks)?;
            add(state.get_mut(at + 16..at + 24)?, nanoseconds)
        }
        Accelerator::Kvm => {
            let at = section(state, b"kvmclock", 1)?;
            let (time, rest) = state.get_mut(at..)?.split_at_mut_checked(8)?;
            let (known, rest) = rest.split_at_mut_checked(IS_RELIABLE.len())?;
            let is_reliable = rest.first_mut().filter(|_| *known == *IS_RELIABLE)?;
            add(time, nanoseconds)?;
            *is_reliable = 1;
            Some(())
        }
    }
}

/// Where the data of the only section with this name begins.
fn section(state: &[u8], name: &[u8], version: u32) -> Option<usize> {
    let instance = 0_u32.to_be_bytes();
    let head = [&[name.len() as u8], name, &instance, &version.to_be_bytes()].concat();
    let mut found = state.windows(head.len()).enumerate().filter(|(at, window)| {
        let start = at.checked_sub(NUMBER + 1).and_then(|start| state.get(start));
        *window == head && start == Some(&SECTION_FULL)
    });
    let (at, _) = found.next()?;
    found.next().is_none().then_some(at + head.len())
}

fn add(bytes: &mut [u8], more: i64) -> Option<()> {
    let value = i64::from_be_bytes(<[u8; 8]>::try_from(&*bytes).ok()?);
    bytes.copy_from_slice(&value.checked_add(more)?.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &[u8], version: u8) -> Vec<u8> {
        let number = [SECTION_FULL, 0, 0, 0, 7, name.len() as u8];
        [&number, name, &[0, 0, 0, 0, 0, 0, 0, version]].concat()
    }

    fn timer(ticks: i64, nanoseconds: i64) -> Vec<u8> {
        let values = [ticks, -1, nanoseconds].map(i64::to_be_bytes).concat();
        [head(b"timer", 2), values].concat()
    }

    fn kvmclock(nanoseconds: i64, is_reliable: u8) -> Vec<u8> {
        [head(b"kvmclock", 1), nanoseconds.to_be_bytes().to_vec(), IS_RELIABLE.to_vec(), vec![is_reliable]]
            .concat()
    }

    fn around(section: &[u8]) -> Vec<u8> {
        [b"before \x05timer \x08kvmclock", section, b"after"].concat()
    }

    #[test]
    fn both_clocks_of_an_emulated_machine_go_on_and_nothing_else_changes() {
        let mut state = around(&timer(-5, 1_000));
        advance(&mut state, Duration::from_secs(2), Accelerator::Tcg).unwrap();
        let ticks = i64::try_from(tsc::host_khz() * 2000).unwrap();
        assert_eq!(state, around(&timer(ticks - 5, 2_000_001_000)));
    }

    #[test]
    fn kvms_clock_goes_on_and_counts() {
        for is_reliable in [0, 1] {
            let mut state = around(&kvmclock(1_000, is_reliable));
            advance(&mut state, Duration::from_secs(2), Accelerator::Kvm).unwrap();
            assert_eq!(state, around(&kvmclock(2_000_001_000, 1)));
        }
    }

    #[test]
    fn a_stream_that_is_not_known_is_left_alone() {
        let twice = |section: Vec<u8>| [section.clone(), section].concat();
        let emulated = [vec![], twice(timer(1, 2)), timer(1, 2)[..20].to_vec(), timer(i64::MAX, 2)];
        let short = kvmclock(1, 1)[..30].to_vec();
        let kvm = [vec![], twice(kvmclock(1, 1)), short, kvmclock(i64::MAX, 1), timer(1, 2)];
        let of = |accelerator| move |state| (state, accelerator);
        let all =
            emulated.into_iter().map(of(Accelerator::Tcg)).chain(kvm.into_iter().map(of(Accelerator::Kvm)));
        for (state, accelerator) in all {
            let mut changed = state.clone();
            assert_eq!(advance(&mut changed, Duration::from_secs(1), accelerator), None);
            assert_eq!(changed, state);
        }
    }
}
