//! From an artifact to a published snapshot (SPEC §3).
//!
//! ```text
//! artifact ──▶ build VM: Dockerfile → code disk ──▶ snapshot VM: application, /ready → memory, device, scratch
//!                                                                │
//!                        published layer ◀── test VM: /validate ◀┘
//! ```
//!
//! [`Builder`] owns the tasks; [`pipeline`] is one build; [`container`], [`capture`] and [`trial`] are its three VMs, the first
//! of which is not needed where [`cache`] has what it would make ([`compile`]).

pub mod artifact;
mod builder;
mod cache;
mod capture;
mod compile;
mod container;
mod error;
mod files;
mod hooks;
mod output;
mod pipeline;
mod removal;
mod role;
mod trial;

pub use builder::{Builder, Settings, Workshop};
pub use output::destinations;
