//! How long a saved machine has been away, told to it in its own device state: its time stamp counter and the clock of
//! its timers go on from where they would be had it never stopped.
//!
//! QEMU's migration stream keeps both in the section "timer": the counter's and the clock's offsets. Under KVM the
//! processor keeps the time, and the guest goes on from the moment at which it was saved.

use std::time::Duration;

use crate::tsc;

/// Begins a section with all of a device's state.
const SECTION_FULL: u8 = 4;
const NAME: &[u8] = b"timer";
/// Instance and version of the section that follows its name.
const INSTANCE_AND_VERSION: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 2];
/// Between start and name: the section's number, and the name's length.
const NUMBER: usize = 4;

/// Moves the clocks of a device state on. `None` where they are not found, or not once: then it is not the stream that
/// is known here.
pub(crate) fn advance(state: &mut [u8], by: Duration) -> Option<()> {
    let at = offsets(state)?;
    let nanoseconds = i64::try_from(by.as_nanos()).ok()?;
    let ticks = i64::try_from(by.as_nanos() * u128::from(tsc::host_khz()) / 1_000_000).ok()?;
    // Ticks, then eight bytes without meaning, then nanoseconds; big-endian.
    add(state.get_mut(at..at + 8)?, ticks)?;
    add(state.get_mut(at + 16..at + 24)?, nanoseconds)
}

/// Where the section's data begins.
fn offsets(state: &[u8]) -> Option<usize> {
    let head = [&[NAME.len() as u8], NAME, &INSTANCE_AND_VERSION].concat();
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

    fn section(ticks: i64, nanoseconds: i64) -> Vec<u8> {
        let mut bytes = vec![SECTION_FULL, 0, 0, 0, 7, 5];
        bytes.extend(NAME);
        bytes.extend(INSTANCE_AND_VERSION);
        for value in [ticks, -1, nanoseconds] {
            bytes.extend(value.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn both_clocks_go_on_and_nothing_else_changes() {
        let around = |section: &[u8]| [b"before \x05timer", section, b"after"].concat();
        let mut state = around(&section(-5, 1_000));
        advance(&mut state, Duration::from_secs(2)).unwrap();
        let ticks = i64::try_from(tsc::host_khz() * 2000).unwrap();
        assert_eq!(state, around(&section(ticks - 5, 2_000_001_000)));
    }

    #[test]
    fn a_stream_that_is_not_known_is_left_alone() {
        let twice = [section(1, 2), section(1, 2)].concat();
        for state in [vec![], twice, section(1, 2)[..20].to_vec(), section(i64::MAX, 2)] {
            let mut changed = state.clone();
            assert_eq!(advance(&mut changed, Duration::from_secs(1)), None);
            assert_eq!(changed, state);
        }
    }
}
