//! On-disk form of snapshots: layers of memory, manifests, and how a directory of files is published at once.
//!
//! Knows nothing of any VMM. A published layer is immutable and is verified before its first use.

pub mod chain;
pub mod diff;
pub mod files;
pub mod manifest;
pub mod publish;
pub mod sparse;
