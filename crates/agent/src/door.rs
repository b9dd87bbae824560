//! The way by which hosts come: a virtio port, or a socket device where the VMM has no ports.

use agent_proto::guest::{Calls, Host, accept};

use crate::command_line;
use crate::error::{Error, trying};
use crate::port::Port;
use crate::vsock::Listener;

/// Where hosts are waited for.
pub(crate) enum Door {
    /// One stream, on which one host after another is heard.
    Port(Port),
    /// A stream for each.
    Sockets(Listener),
}

impl Door {
    pub(crate) fn open() -> Result<Self, Error> {
        let Some(port) = command_line::value(command_line::VSOCK)? else {
            return Ok(Self::Port(Port::open()?));
        };
        let number = port.parse().map_err(trying(format!("reading {}={port}", command_line::VSOCK)))?;
        Ok(Self::Sockets(Listener::open(number)?))
    }

    /// The next session with a host.
    pub(crate) async fn session(&self) -> Result<(Host, Calls), Error> {
        const WAITING: &str = "waiting for a host";
        loop {
            let session = match self {
                Self::Port(port) => accept(port.clone()).await,
                Self::Sockets(listener) => accept(listener.accept().await.map_err(trying(WAITING))?).await,
            };
            match (session, self) {
                (Ok(session), _) => return Ok(session),
                // The host is away: nothing to read until the port changes.
                (Err(_), Self::Port(port)) => port.changed().await.map_err(trying(WAITING))?,
                // It left before it had greeted.
                (Err(_), Self::Sockets(_)) => {}
            }
        }
    }
}
