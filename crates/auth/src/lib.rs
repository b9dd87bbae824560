//! Who may do what: endpoint tokens, SigV4 verification and access keys. No I/O but the system's random source.

pub mod keys;
pub mod sigv4;
pub mod token;
