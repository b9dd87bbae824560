//! CloudWatch Logs as the AWS CLI and SDKs call it: JSON 1.1 in, JSON or a stream of events out. What is kept is
//! `logs`'s; who asks, and what they may, `identity`'s.

mod access;
mod batch;
mod call;
mod checks;
mod error;
mod event_stream;
mod events;
mod groups;
mod operation;
mod pattern;
mod streams;
mod tags;
mod tail;
mod token;

pub use call::{Answer, CloudWatch, Reply};
pub use error::Refusal;
pub use operation::Operation;
pub use pattern::{Pattern, PatternError};
pub use token::Position;
