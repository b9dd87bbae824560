//! Who may do what: endpoint tokens, SigV4 verification, access keys and temporary sessions. No I/O but the system's
//! random source.

pub mod keyring;
pub mod keys;
pub mod session;
pub mod sigv4;
pub mod token;
