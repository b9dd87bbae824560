//! The control API over HTTP: parse, authenticate, validate, call, render. It holds no state of its own.
//!
//! [`server::serve`] accepts connections for a [`Control`]; the business is behind [`Service`], which
//! [`Operations`] implements, the access keys behind [`Keys`], and whatever is not lambda-microvms goes to
//! the fallback (S3).

pub mod authenticate;
pub mod body;
pub mod control;
pub mod operations;
pub mod respond;
pub mod route;
pub mod server;
pub mod service;

pub use body::Body;
pub use control::Control;
pub use operations::{Builds, Operations, Quotas, Settings};
pub use service::{Keys, Service};
