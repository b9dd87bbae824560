//! The APIs of lambda-microvms and of lambda-core's network connectors as clients see them: wire types, errors,
//! validation rules and messages (SPEC §2). No I/O.
//!
//! What the service models say is generated (`generated`, by `make wire-types`); what they do not say stands in
//! [`rules`]. A request is read with [`decode::decode`], which fails with the [`Error`] that AWS would answer.

pub mod common;
pub mod connector;
pub mod decode;
pub mod error;
mod generated;
pub mod identifiers;
pub mod operation;
pub mod route;
pub mod rules;
pub mod shape;
pub mod size;
pub mod timestamp;

pub use common::{Empty, Sensitive, Tags};
pub use connector::{Connector, ManagedConnector};
pub use error::{Error, ErrorKind};
pub use generated::microvms::*;
pub use generated::operations::{OPERATIONS, Operation};
pub use operation::Family;
pub use rules::Rules;
pub use size::SizeClass;
pub use timestamp::{IsoTimestamp, Timestamp};

/// The wire types of lambda-core's network connectors.
pub mod connectors {
    pub use crate::generated::connectors::*;
}

/// The wire types of Rekindle's own operations on endpoints.
pub mod endpoints {
    pub use crate::generated::endpoints::*;
}

/// What every operation's input offers: its place in the API and its own rules.
pub trait Request: Rules + serde::Serialize + serde::de::DeserializeOwned {
    /// What a success answers; `()` where that is no body at all.
    type Response: serde::Serialize;

    /// Which operation it asks for.
    const OPERATION: Operation;
}
