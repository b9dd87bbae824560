//! Who is who: accounts, users, roles and their credentials; IAM and STS as their clients see them.
//!
//! Everything is held in memory and read there; a change is one transaction of the store first. What another process
//! added to the store (`rekindle account create`) is found when its access key is first used.

pub mod accounts;
mod assume;
mod authorize;
mod bootstrap;
mod caller;
mod clock;
mod credentials;
mod draft;
mod identity;
mod managed;
mod names;
mod query;
mod state;

pub use assume::AssumeError;
pub use authorize::{AccessDenied, Reason};
pub use caller::{Caller, Principal, Session, SessionPolicy};
pub use credentials::{Credential, CredentialError, TemporaryCredentials};
pub use identity::{Identity, OpenError};
pub use query::{FormError, QueryAnswer, Service, parse_form, refuse};
