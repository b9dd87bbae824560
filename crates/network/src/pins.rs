//! How many addresses are pinned for a guest, and until when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::names::Pin;

/// The most addresses that are pinned for a guest at once. More are let in once some have expired.
pub(crate) const MAX_PINS: usize = 2048;

/// All of a guest's. The kernel forgets them by itself at the same times.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    until: BTreeMap<Pin, Instant>,
}

impl Pins {
    /// Notes pins that are to last so long from now; none is shortened by it. Returns for how long each is good then; `None`
    /// where they would be too many, and nothing is noted.
    pub(crate) fn note(
        &mut self,
        pins: &[Pin],
        now: Instant,
        life: Duration,
    ) -> Option<Vec<(Pin, Duration)>> {
        self.until.retain(|_, until| *until > now);
        let new = pins.iter().filter(|pin| !self.until.contains_key(pin)).count();
        if self.until.len() + new > MAX_PINS {
            return None;
        }
        let note = |pin: &Pin| {
            let until = self.until.entry(*pin).or_insert(now);
            *until = (*until).max(now + life);
            (*pin, *until - now)
        };
        Some(pins.iter().map(note).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn pins(count: usize) -> Vec<Pin> {
        let address = |n: u32| match n % 3 {
            0 => Ipv6Addr::from(u128::from(n)).into(),
            _ => Ipv4Addr::from(n).into(),
        };
        (0..count).map(|n| (n % 2, address(u32::try_from(n).unwrap()))).collect()
    }

    #[test]
    fn a_later_answer_makes_a_pin_last_longer_and_never_shorter() {
        let (mut noted, now, pin) = (Pins::default(), Instant::now(), pins(1));
        let seconds = Duration::from_secs;
        let mut note = |at, life| noted.note(&pin, now + seconds(at), seconds(life)).unwrap()[0].1.as_secs();
        assert_eq!(note(0, 60), 60);
        assert_eq!(note(10, 10), 50);
        assert_eq!(note(20, 60), 60);
        assert_eq!(note(200, 10), 10, "begins anew");
    }

    #[test]
    fn pins_are_bounded_and_expired_ones_make_room() {
        let (mut noted, now, life) = (Pins::default(), Instant::now(), Duration::from_secs(60));
        let all = pins(MAX_PINS);
        assert!(noted.note(&all, now, life).is_some());
        assert!(noted.note(&all, now, life).is_some(), "again");
        assert!(noted.note(&pins(MAX_PINS + 1), now, life).is_none());
        assert!(noted.note(&pins(MAX_PINS + 1)[1..], now + life, life).is_some());
    }
}
