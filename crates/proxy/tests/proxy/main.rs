//! The data plane over loopback: real TLS clients, and an application behind duplex pipes. One binary, as linking each costs
//! more than running it.

// Clippy's leave to unwrap covers test functions, not the helpers beside them.
#![allow(clippy::unwrap_used)]

mod allowance;
mod app_tls;
mod attacks;
mod browser;
mod endpoint;
mod grpc;
mod public;
mod sessions;
mod shell;
mod tunnels;
mod world;
