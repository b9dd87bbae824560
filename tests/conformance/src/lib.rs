//! The harness of the conformance suite: the real control API over machines that do nothing, served on loopback, and
//! the interpreter that asks it everything that botocore's model of the service holds.
//!
//! Everything here panics where it fails: to a test that is a failure.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking too")]

pub mod beds;
pub mod stand_ins;
pub mod worker;

pub use beds::Beds;
pub use worker::Worker;
