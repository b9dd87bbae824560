//! `rekindle port-forward`: local TCP ports that lead to ports of a MicroVM, over its suspensions.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ids::MicrovmId;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cli;
use crate::client::{Client, ClientError};
use crate::stop::Stop;
use crate::tunnels::{TunnelError, Tunnels};

/// Connections carried at once for one forward; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 256;
/// Before accepting again after an accept failed (the usual reason is that descriptors ran out).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Why nothing is forwarded, or nothing more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortForwardError {
    /// No server to ask.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No way to the MicroVM, for good.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The local port is not to be had.
    #[error(
        "cannot listen on {address}: {source}; stop what uses it (`ss -ltnp` names it), or give another port"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No signals, or nowhere to print to.
    #[error("cannot forward: {0}")]
    Io(#[from] io::Error),
}

/// From where to which port of the MicroVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forward {
    listen: SocketAddr,
    port: u16,
}

/// Not a forward.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("give PORT, LOCAL:PORT or ADDR:LOCAL:PORT, such as 5432, 15432:5432 or [::1]:15432:5432")]
pub(crate) struct ForwardError;

impl FromStr for Forward {
    type Err = ForwardError;

    /// `PORT`, `LOCAL:PORT` or `ADDR:LOCAL:PORT`; a local port of 0 is a free one.
    fn from_str(text: &str) -> Result<Self, ForwardError> {
        let (rest, port) = text.rsplit_once(':').unwrap_or((text, text));
        let port: u16 = port.parse().map_err(|_| ForwardError)?;
        let local = rest.parse().map(|local| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), local));
        let listen = local.or_else(|_| rest.parse()).map_err(|_| ForwardError)?;
        if port == 0 { Err(ForwardError) } else { Ok(Self { listen, port }) }
    }
}

/// Forwards until a signal comes, or the MicroVM is over.
pub(crate) async fn run(args: &cli::PortForward) -> Result<(), PortForwardError> {
    let mut stop = Stop::listen()?;
    tokio::select! {
        _ = stop.next() => Ok(()),
        result = forward(args) => result,
    }
}

async fn forward(args: &cli::PortForward) -> Result<(), PortForwardError> {
    let client = Client::of(&args.data.data_dir, args.account.as_deref())?;
    let ports = args.forwards.iter().map(|forward| forward.port).collect();
    let tunnels = Arc::new(Tunnels::to(client, args.id, ports).await?);
    let mut forwards = JoinSet::new();
    for forward in &args.forwards {
        let listener = listen(forward.listen).await?;
        announce(&listener, args.id, forward.port)?;
        forwards.spawn(serve(listener, forward.port, Arc::clone(&tunnels)));
    }
    match forwards.join_next().await {
        Some(Ok(over)) => Err(over.into()),
        Some(Err(panicked)) => Err(io::Error::other(panicked).into()),
        None => Ok(()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, PortForwardError> {
    TcpListener::bind(address).await.map_err(|source| PortForwardError::Listen { address, source })
}

/// One line for each forward, for people and for scripts that wait for it.
fn announce(listener: &TcpListener, id: MicrovmId, port: u16) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{} -> {id}:{port}", listener.local_addr()?)?;
    out.flush()
}

/// Carries the connections of one forward until the MicroVM is over, which it returns.
async fn serve(listener: TcpListener, port: u16, tunnels: Arc<Tunnels>) -> TunnelError {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = connections.join_next() => match ended {
                Ok(Err(over @ TunnelError::Over { .. })) => return over,
                Ok(Err(error)) => eprintln!("rekindle: {error}"),
                Ok(Ok(())) => {}
                Err(panicked) => eprintln!("rekindle: a connection is lost: {panicked}"),
            },
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((local, _)) => {
                    let tunnels = Arc::clone(&tunnels);
                    connections.spawn(async move { carry(local, port, &tunnels).await });
                }
                Err(error) => {
                    eprintln!("rekindle: cannot accept a connection: {error}; check the open-files limit");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
}

/// Carries one connection to its end; an end of either direction passes on.
async fn carry(mut local: TcpStream, port: u16, tunnels: &Tunnels) -> Result<(), TunnelError> {
    // Without it small messages only wait.
    let _ = local.set_nodelay(true);
    let opened = tunnels.open(port).await;
    let copied = match opened {
        Ok(mut tunnel) => copy_bidirectional(&mut local, &mut tunnel).await.map(|_| ()),
        Err(error) => {
            reset(&local);
            return Err(error);
        }
    };
    if copied.is_err() {
        // Either side broke off, as when the MicroVM was suspended: what came is not all.
        reset(&local);
    }
    Ok(())
}

/// Lets the client see a reset and not an end. A socket that cannot be told so is closed all the same.
fn reset(local: &TcpStream) {
    let _ = local.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_read() {
        let forward = |listen: &str, port| Ok(Forward { listen: listen.parse().unwrap(), port });
        assert_eq!("5432".parse(), forward("127.0.0.1:5432", 5432));
        assert_eq!("0:5432".parse(), forward("127.0.0.1:0", 5432));
        assert_eq!("15432:5432".parse(), forward("127.0.0.1:15432", 5432));
        assert_eq!("0.0.0.0:1:2".parse(), forward("0.0.0.0:1", 2));
        assert_eq!("[::1]:1:2".parse(), forward("[::1]:1", 2));
        for bad in ["", "0", "x", "1:", ":1", "1:0", "65536", "x:1:2", "::1:1:2", "1:2:3:4", "localhost:1:2"]
        {
            assert_eq!(bad.parse::<Forward>(), Err(ForwardError), "{bad}");
        }
    }
}
