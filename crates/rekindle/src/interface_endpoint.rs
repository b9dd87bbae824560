//! The API inside MicroVMs, where the settings have it there: what answers at the server's listener answers at the one of
//! each network slot too.

use control::Control;
use network::endpoint::{ADDRESS, Endpoint};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What programs of a guest's are to be told.
pub(crate) fn url() -> String {
    format!("http://{}", ADDRESS.ip())
}

/// Answers whoever comes to the `endpoints`, until `stop`.
pub(crate) async fn serve(
    mut endpoints: UnboundedReceiver<Endpoint>,
    control: &Control,
    stop: CancellationToken,
) {
    let mut guests = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = guests.join_next() => {}
            Some(endpoint) = endpoints.recv() => {
                guests.spawn(guest(endpoint, control.clone(), stop.clone()));
            }
        }
    }
    while guests.join_next().await.is_some() {}
}

async fn guest(endpoint: Endpoint, control: Control, stop: CancellationToken) {
    let listener = match TcpListener::from_std(endpoint.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "a guest does not find the API until it has slept");
            return;
        }
    };
    let ended = async {
        tokio::select! {
            () = stop.cancelled() => {}
            // An error says that the slot is gone, as it should.
            _ = endpoint.closed => {}
        }
    };
    control::guests::serve(listener, |peer| control.for_peer(peer), ended).await;
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_url_needs_no_port() {
        assert_eq!(super::ADDRESS.port(), 80);
        assert_eq!(super::url(), "http://169.254.77.1");
    }
}
