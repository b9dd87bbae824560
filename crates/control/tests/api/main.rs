//! The control API as clients meet it: signed requests in, answers out.

// A helper of a test may panic like the test itself.
#![allow(clippy::unwrap_used)]

mod bed;
mod connectors;
mod exposure;
mod gate;
mod http;
mod images;
mod microvms;
mod signing;
mod tags;
