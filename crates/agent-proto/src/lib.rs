//! agent-proto
