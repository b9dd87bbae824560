//! Embedded object storage: enough of S3 for the AWS CLI, durable on one directory.
//!
//! `<dir>/buckets/<bucket>/<sha-256 of the key>` is one object, its metadata behind its body in the same file, so
//! that one rename makes both visible. Keys never become paths. An index in memory, read at start, serves listings.
//! `<dir>/owners/<bucket>` names the account that the bucket belongs to: to others it is closed.

mod access;
mod ingest;
mod listing;
mod multipart;
mod object_file;
mod owner;
mod s3;
mod store;

pub use access::{Access, Caller, CredentialError};
pub use object_file::{Attributes, Meta};
pub use store::{ObjectStore, OpenError, ReadError, Reader, StoreError};
