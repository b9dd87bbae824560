//! What the driver of the faults and the layer in the server agree on.

pub mod plan;
