//! From an artifact to a published snapshot (SPEC §3).

pub mod artifact;
