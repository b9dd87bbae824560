//! A guest as its host has it: a VMM in a network slot, a cgroup and a user of its own, and the session with the
//! agent inside. Both image builds and MicroVMs are made of this.
//!
//! [`Host`] starts, adopts and discards guests; [`Guest`] is one of them. [`ImageLayer`] is a published image version
//! that guests are cloned from, [`Suspension`] what a sleeping MicroVM consists of.

mod dirs;
mod error;
mod guest;
pub mod hooks;
mod host;
mod layer;
mod metadata;
mod output;
mod spares;
mod suspension;

pub use dirs::{Dirs, DirsError};
pub use error::GuestError;
pub use guest::Guest;
pub use host::{Host, Shape};
pub use layer::{CODE, ImageLayer, LayerError, Layout};
pub use metadata::{MetadataService, Persona};
pub use spares::Purpose;
pub use suspension::{Saved, Suspension, SuspensionError};
