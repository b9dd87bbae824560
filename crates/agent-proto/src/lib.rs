//! What the host and the guest agent say to each other, and how (one virtio stream per MicroVM).
//!
//! A life of the channel starts with a handshake that survives stale bytes ([`handshake`]); then both sides
//! multiplex it with yamux. The host opens one stream per [`Request`], which may go on to carry a relay's
//! bytes or a shell's frames; the guest opens one for its [`Event`]s, and one per DNS query or question about itself.
//! Everything from the guest is hostile input: bounded, and never a panic.

mod codec;
pub mod guest;
mod handshake;
pub mod host;
mod messages;
mod relay;
mod session;
pub mod shell;
mod stream;

pub use codec::{FrameError, MAX_FRAME, read_frame, write_frame};
pub use handshake::{HandshakeError, RESEND_AFTER};
pub use messages::*;
pub use relay::Relay;
pub use session::SessionEnded;
