//! Writes `crates/api/src/generated` from the service models in the PyPI package `botocore`, and from our own: types, constraints,
//! operations and errors. The models' prose is left out.

mod constraints;
mod generate;
mod installed;
mod model;
mod names;
mod operations;
mod rust;
mod services;
mod types;

pub use generate::{GenerateError, generate};
pub use installed::{generated, installed_models};
