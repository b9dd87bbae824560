//! The control API over HTTP: parse, authenticate, validate, call, render. It holds no state of its own.
//!
//! [`server::serve`] accepts connections for a [`Control`]; the business is behind [`Service`], which
//! [`Operations`] implements. IAM and STS are answered by `identity`, CloudWatch Logs by `cloudwatch`, and
//! whatever is none of these goes to the fallback (S3).

pub mod audit;
pub mod authenticate;
pub mod body;
pub mod control;
pub mod guests;
pub mod logs;
pub mod operations;
pub mod query;
pub mod respond;
pub mod server;
pub mod service;
pub mod throttle;

pub use audit::Audit;
pub use body::Body;
pub use control::{Control, Front};
pub use operations::{Builds, DomainNames, Operations, OtherArchitectures, Quotas, RunsOn, Settings};
pub use service::{Answer, Call, Service};
pub use throttle::{Rates, Throttle};
