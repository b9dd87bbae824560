//! How many shells there are, and whether there may be more: none between a freeze and the next life.

use tokio::sync::watch;

use crate::error::Error;

/// Lets shells in, and has them all end.
pub(crate) struct Admission(watch::Sender<State>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    open: bool,
    inside: usize,
}

/// One shell's; it is inside until this is dropped.
pub(crate) struct Seat<'a>(&'a Admission);

impl Admission {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(State { open: true, inside: 0 }))
    }

    pub(crate) fn enter(&self) -> Result<Seat<'_>, Error> {
        let let_in = self.0.send_if_modified(|state| {
            state.inside += usize::from(state.open);
            state.open
        });
        if let_in {
            Ok(Seat(self))
        } else {
            Err(Error::new(super::ATTEMPT, "the MicroVM is being suspended"))
        }
    }

    /// Lets nobody in any more, and returns once everybody has left.
    pub(crate) async fn close(&self) {
        self.0.send_modify(|state| state.open = false);
        // The sender is `self`, so this ends by what it waits for.
        let _ = self.0.subscribe().wait_for(|state| state.inside == 0).await;
    }

    pub(crate) fn open(&self) {
        self.0.send_modify(|state| state.open = true);
    }
}

impl Seat<'_> {
    /// Returns once everybody is to leave.
    pub(crate) async fn called_up(&self) {
        let _ = self.0.0.subscribe().wait_for(|state| !state.open).await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| state.inside -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_inside_is_called_up_and_waited_for() {
        let admission = Admission::new();
        let seat = admission.enter().unwrap();
        let leave = async {
            seat.called_up().await;
            assert!(admission.enter().is_err(), "nobody comes in meanwhile");
            drop(seat);
        };
        tokio::join!(admission.close(), leave);
        assert!(admission.enter().is_err());
        admission.open();
        assert!(admission.enter().is_ok());
        admission.close().await;
    }
}
