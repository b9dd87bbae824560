//! What network connectors refuse to applications is told once it happens, and then once a minute of each MicroVM.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ids::MicrovmId;
use lifecycle::microvm::State;

use crate::node::Node;

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two lines about one MicroVM; what is refused meanwhile is in the next one.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Of whom something was told lately.
#[derive(Debug, Default)]
struct Told(HashMap<MicrovmId, Instant>);

impl Told {
    /// Those of whom something may be told now.
    fn due(&mut self, running: impl Iterator<Item = MicrovmId>, now: Instant) -> Vec<MicrovmId> {
        self.0.retain(|_, at| now.duration_since(*at) < TELL_EVERY);
        running.filter(|id| !self.0.contains_key(id)).collect()
    }
}

impl Node {
    /// Tells of it for as long as the server runs.
    pub async fn tell_of_refusals(self) {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = Told::default();
        loop {
            clock.tick().await;
            let seen = self.seen().into_iter().filter(|one| one.state == State::Running).map(|one| one.id);
            let (due, node) = (told.due(seen, Instant::now()), self.clone());
            let tell = move || due.into_iter().filter(|id| node.tell_of_refused(*id)).collect::<Vec<_>>();
            match tokio::task::spawn_blocking(tell).await {
                Ok(ids) => told.0.extend(ids.into_iter().map(|id| (id, Instant::now()))),
                Err(error) => tracing::error!(%error, "looking at what network connectors refuse failed"),
            }
        }
    }

    fn tell_of_refused(&self, id: MicrovmId) -> bool {
        match self.store.microvm(id) {
            Ok(microvm) => microvm.is_some_and(|microvm| self.machines.tell_of_refused(&microvm)),
            Err(error) => {
                tracing::warn!(microvm = %id, %error, "cannot tell what its network connectors refused");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_microvm_is_told_of_once_a_minute() {
        let [one, other] = [1, 2].map(MicrovmId::from_u128);
        let (mut told, now) = (Told::default(), Instant::now());
        told.0.insert(one, now);
        let due =
            |told: &mut Told, seconds| told.due([one, other].into_iter(), now + Duration::from_secs(seconds));
        assert_eq!(due(&mut told, 10), [other]);
        assert_eq!(due(&mut told, 60), [one, other]);
        assert!(told.0.is_empty(), "nobody is remembered for ever");
    }
}
