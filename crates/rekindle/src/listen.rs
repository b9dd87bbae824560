//! The server's listeners.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::cli::Addresses;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where the endpoints listen when nothing else is said, best first: their names then need no port.
pub(crate) const ENDPOINT_DEFAULTS: [SocketAddr; 2] =
    [SocketAddr::new(LOCAL, 443), SocketAddr::new(LOCAL, 8443)];

/// Why the server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; stop what uses it (`ss -ltnp` names it), or give another with {option}"
)]
pub(crate) struct ListenError {
    address: SocketAddr,
    option: &'static str,
    source: io::Error,
}

/// Both listeners, bound.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// Of the control API.
    pub(crate) control: Bound,
    /// Of the endpoints.
    pub(crate) endpoints: Bound,
}

/// A listener, and where it really listens.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The listener.
    pub(crate) listener: TcpListener,
    /// Its address, with the port that port 0 became.
    pub(crate) address: SocketAddr,
}

impl Listeners {
    /// Binds them.
    pub(crate) async fn bind(addresses: &Addresses) -> Result<Self, ListenError> {
        let control = bind(&[addresses.listen], "--listen").await?;
        let endpoints = match addresses.endpoint_listen {
            Some(address) => bind(&[address], "--endpoint-listen").await?,
            None => bind(&ENDPOINT_DEFAULTS, "--endpoint-listen").await?,
        };
        Ok(Self { control, endpoints })
    }
}

/// The first of `addresses` that can be had; the error is the last one's.
async fn bind(addresses: &[SocketAddr], option: &'static str) -> Result<Bound, ListenError> {
    let mut result = Err(io::Error::other("no address is given"));
    let mut address = SocketAddr::new(LOCAL, 0);
    for candidate in addresses {
        address = *candidate;
        result = TcpListener::bind(address).await;
        if result.is_ok() {
            break;
        }
    }
    let bound = result.and_then(|listener| Ok(Bound { address: listener.local_addr()?, listener }));
    bound.map_err(|source| ListenError { address, option, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_passed_over_or_told() {
        let free = "127.0.0.1:0".parse().unwrap();
        let taken = bind(&[free], "--listen").await.unwrap();
        assert_ne!(taken.address.port(), 0);
        let error = bind(&[taken.address], "--listen").await.unwrap_err().to_string();
        assert!(error.contains("--listen") && error.contains("in use"), "{error}");
        assert_ne!(bind(&[taken.address, free], "--listen").await.unwrap().address, taken.address);
    }
}
