//! Where guests find the server's own API, where the operator has it so: at their gateway, in each slot's namespace.
//!
//! The listener is a socket of the server's that was made inside the namespace. Packets to it end there, so that the
//! guest is let to nothing of the host's network for it, and whatever its slot is bound to makes no difference.

use std::net::{SocketAddrV4, TcpListener};

use tokio::sync::{mpsc, oneshot};

use crate::command::{CommandError, nft};
use crate::slot::{GATEWAY, Slot};
use crate::{netns, rules};

/// Where it is, the same for every guest and in every life.
pub const ADDRESS: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 80);
/// The connections that a guest may have to it at once, with those that are not accepted yet.
pub const MAX_CONNECTIONS: u32 = 128;

/// The listener of one slot.
#[derive(Debug)]
pub struct Endpoint {
    /// Accepts the guest's connections. Does not block.
    pub listener: TcpListener,
    /// Ready, with an error, once the slot was given back. The listener and what it accepted keep the slot's namespace:
    /// they should not be kept for long.
    pub closed: oneshot::Receiver<()>,
}

/// Whom listeners are handed to as slots are made and adopted. There are never more than slots.
pub type Endpoints = mpsc::UnboundedSender<Endpoint>;

/// Makes the listener of the namespace that the calling thread is in.
pub(crate) fn listen() -> Result<TcpListener, CommandError> {
    let listener = TcpListener::bind(ADDRESS).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| CommandError::kernel(format!("listen on {ADDRESS} in a network slot"), source))
}

/// Makes the listener of a slot that an earlier server made, which may have had none.
pub(crate) fn listen_in(slot: &Slot) -> Result<TcpListener, CommandError> {
    netns::inside(&slot.netns, || nft(&rules::admit_endpoint()).and_then(|()| listen()))
        .map_err(|source| CommandError::kernel(format!("enter the namespace {}", slot.name), source))?
}
