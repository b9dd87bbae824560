//! The pure state machines: what each event does in each state. No I/O, and no clock: time is an input.
//!
//! Times are milliseconds since the Unix epoch, durations seconds, as the service counts them.

pub mod connector;
pub mod image;
pub mod microvm;
