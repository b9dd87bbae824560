//! The tasks that own running MicroVMs, and their return after a restart (invariants 2 and 3).
//!
//! [`Node`] is the table of owners; [`owner`] the task behind each entry; [`Machines`] what the owners drive,
//! made of real VMs by [`GuestMachines`].

mod guests;
mod instance;
mod machines;
mod metering;
mod node;
mod output;
mod owner;
mod refusals;
mod shell;
mod timelines;

pub use guests::GuestMachines;
pub use machines::{Instance, Machines, NotResumed, Suspended};
pub use metering::baseline;
pub use node::{Node, NodeError};
pub use output::destination;
pub use owner::want;
pub use store::now_ms;
