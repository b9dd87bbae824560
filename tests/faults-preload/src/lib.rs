//! Preloaded into a server (`LD_PRELOAD`), this stands between it and its files: it counts the calls that change
//! something below the directories it watches, and at the one that the driver named makes them fail, kills the server,
//! or cuts its power, which undoes whatever was not synced.
//!
//! The server is the one that users run. What its children do, the VMMs' writes to their disks above all, is not seen.

// The driver's own; linking to its crate would give the driver these functions in libc's place.
#[path = "../../faults/src/plan.rs"]
#[allow(dead_code, reason = "the driver needs more of it")]
pub mod plan;

pub mod hooks;
mod journal;
mod layer;
mod paths;
