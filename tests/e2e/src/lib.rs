//! The harness of the end-to-end tests and of the benchmark: a server of its own on a throw-away data directory, used
//! as a user would, by the AWS CLI and by curl.
//!
//! Everything here panics where it fails, with what the program it ran had to say: to a test that is a failure.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking too")]

pub mod artifact;
pub mod census;
pub mod command;
pub mod disk;
pub mod http;
pub mod image;
pub mod machines;
pub mod microvm;
pub mod name_server;
pub mod neighbour;
pub mod proc;
pub mod server;
pub mod terminal;
pub mod user;
pub mod wait;

pub use artifact::Artifact;
pub use http::Answer;
pub use image::{Hooks, Image, ImageRequest};
pub use microvm::Microvm;
pub use name_server::NameServer;
pub use neighbour::Neighbour;
pub use serde_json::{Value as Json, json};
pub use server::Server;
pub use user::User;
pub use wait::until;
