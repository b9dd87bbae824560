//! The lambda-microvms API as clients see it: wire types, errors, validation rules and messages (SPEC §2). No I/O.
//!
//! A request is read with [`decode::decode`] and checked with [`Request::validate`]; both fail with the [`Error`]
//! that AWS would answer.

pub mod common;
pub mod connector;
pub mod decode;
pub mod error;
pub mod image;
pub mod microvm;
pub mod size;
pub mod timestamp;
pub mod validate;

pub use common::*;
pub use connector::ManagedConnector;
pub use error::{Error, ErrorKind};
pub use image::*;
pub use microvm::*;
pub use size::SizeClass;
pub use timestamp::Timestamp;

/// What every operation's input offers: its place in the API and its own rules.
pub trait Request: serde::de::DeserializeOwned {
    /// What a success answers.
    type Response: serde::Serialize;

    /// The operation's name, for example `RunMicrovm`.
    const OPERATION: &'static str;

    /// The status of a success.
    const STATUS: u16 = 200;

    /// Checks every rule that needs no stored state, in the order in which AWS reports them.
    fn validate(&self) -> Result<(), Error>;
}
