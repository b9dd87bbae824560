//! Access keys.
