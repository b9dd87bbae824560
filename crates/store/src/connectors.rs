//! Network connectors and their versions.
