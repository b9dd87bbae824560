//! What is known of the processor's architecture, for this one: another is a module like this, and one like it in each VMM's
//! module (`qemu::x86_64`, `firecracker::x86_64`).

mod processor;
pub(crate) mod trial;
pub(crate) mod tsc;

pub(crate) use processor::{has, has_virtualization, vendor};

/// Bytes of a page of memory, a guest's and a host's.
pub(crate) const PAGE: u64 = 4096;
