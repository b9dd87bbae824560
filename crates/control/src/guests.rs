//! The API as one guest has it where it has a listener of its own: within limits that are its own too, so that one which
//! asks without an end harms nobody else. What comes too early or is too much waits; nothing is refused for it.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use tokio::net::TcpListener;

use crate::body::BodyError;
use crate::server;

/// Most connections of a guest at once: an SDK for JavaScript alone keeps up to 50.
pub const MAX_CONNECTIONS: usize = 64;
/// Between two requests of a guest, on all of its connections together: 200 in a second.
pub const REQUEST_EVERY: Duration = Duration::from_millis(5);
/// What a guest may be ahead of that after a rest: 200 requests at once.
pub const REQUEST_BURST: Duration = Duration::from_secs(1);

/// Serves one guest until `stop` is ready, as [`server::serve`] does.
pub async fn serve<S, B>(listener: TcpListener, service: impl Fn(IpAddr) -> S, stop: impl Future<Output = ()>)
where
    S: HyperService<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let pace = Arc::new(Pace::default());
    let paced = |peer| Paced { service: service(peer), pace: Arc::clone(&pace) };
    server::serve_within(MAX_CONNECTIONS, listener, paced, stop).await;
}

/// When the next request has its turn.
#[derive(Debug, Default)]
struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// Takes the next turn, and says how long it is until then.
    fn turn(&self, now: Instant) -> Duration {
        let rested = now.checked_sub(REQUEST_BURST).unwrap_or(now);
        // Whoever panicked left a moment.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(rested, |next| next.max(rested));
        *next = Some(turn + REQUEST_EVERY);
        turn.saturating_duration_since(now)
    }
}

/// A service whose requests wait for their turn.
struct Paced<S> {
    service: S,
    pace: Arc<Pace>,
}

impl<S> HyperService<Request<Incoming>> for Paced<S>
where
    S: HyperService<Request<Incoming>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (service, wait) = (self.service.clone(), self.pace.turn(Instant::now()));
        Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            service.call(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::service::service_fn;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    proptest! {
        #[test]
        fn no_more_have_their_turn_than_burst_and_rate(pauses in prop::collection::vec(0u64..30, 1..600)) {
            let (pace, start) = (Pace::default(), Instant::now() + REQUEST_BURST);
            let mut at = Duration::ZERO;
            let mut turns = Vec::new();
            for pause in pauses {
                at += Duration::from_millis(pause);
                turns.push(at + pace.turn(start + at));
            }
            prop_assert!(turns.is_sorted(), "first come, first served");
            for (count, turn) in (1u32..).zip(&turns) {
                prop_assert!(REQUEST_EVERY * count <= REQUEST_BURST + *turn + REQUEST_EVERY);
            }
        }
    }

    #[test]
    fn after_a_rest_a_burst_has_its_turn_at_once() {
        let (pace, start) = (Pace::default(), Instant::now() + REQUEST_BURST);
        assert!((0..=200).all(|_| pace.turn(start).is_zero()));
        assert_eq!(pace.turn(start), REQUEST_EVERY);
    }

    async fn ask(client: &mut TcpStream) -> String {
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let length = client.read(&mut answer).await.unwrap();
        String::from_utf8(answer[..length].to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_for_another_to_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let answer =
            service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("it")))) });
        let server = tokio::spawn(serve(listener, move |_| answer, async {
            let _ = stopped.await;
        }));
        let mut clients = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            let mut client = TcpStream::connect(address).await.unwrap();
            assert!(ask(&mut client).await.starts_with("HTTP/1.1 200"));
            clients.push(client);
        }
        let mut late = TcpStream::connect(address).await.unwrap();
        let answered = ask(&mut late);
        tokio::pin!(answered);
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut answered).await.is_err());
        clients.pop();
        assert!(answered.await.starts_with("HTTP/1.1 200"));

        // Whoever keeps a connection open is cut off.
        stop.send(()).unwrap();
        server.await.unwrap();
        assert_eq!(clients[0].read(&mut [0]).await.unwrap(), 0);
    }
}
