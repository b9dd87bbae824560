//! Connections to one port of an application that speaks HTTP/1.1 in the clear, kept for further requests.
//!
//! A request drives the connection that it has, in its own task: no other has to be woken to send it, nor to bring the
//! answer. Only where both directions move by themselves, as the request has a body or may end HTTP, a task of its own
//! drives. Nobody drives an idle connection: that the application has closed it shows when it is taken, or swept.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::header::UPGRADE;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::unconstrained;

use crate::limits;
use crate::replay::RequestBody;
use crate::upstream::SendError;
use crate::wire::PortConnector;

/// The connections to one port.
pub(crate) struct Connections {
    connector: PortConnector,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Each since when; the last to become so is the last.
    connections: Vec<(Instant, Connection)>,
    /// Whether a task looks after them.
    swept: bool,
}

/// One connection.
struct Connection {
    requests: SendRequest<RequestBody>,
    /// Nothing once the connection is over.
    driver: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

/// Why there is no answer, and the request where nothing of it was sent.
type Failed = Box<(SendError, Option<Request<RequestBody>>)>;

impl Connections {
    pub(crate) fn by(connector: PortConnector) -> Arc<Self> {
        Arc::new(Self { connector, idle: Mutex::default() })
    }

    /// The application's answer. A request that has not been begun on a kept connection, as the application has closed
    /// it, goes over another.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Body>, SendError> {
        to_origin_form(request.uri_mut());
        let alone = !request.body().is_end_stream() || request.headers().contains_key(UPGRADE);
        loop {
            let kept = self.take();
            let is_kept = kept.is_some();
            let connection = match kept {
                Some(connection) => connection,
                None => self.open().await?,
            };
            let answer = if alone {
                self.answer_alone(connection, request).await
            } else {
                self.answer(connection, request).await
            };
            match answer.map_err(|failed| *failed) {
                Ok(response) => return Ok(response),
                Err((_, Some(unsent))) if is_kept => request = unsent,
                Err((error, _)) => return Err(error),
            }
        }
    }

    async fn open(self: &Arc<Self>) -> Result<Connection, SendError> {
        let io = TokioIo::new(self.connector.connect().await?);
        let (requests, driver) = http1::Builder::new().max_buf_size(limits::APP_BUFFER).handshake(io).await?;
        if !std::mem::replace(&mut self.idle().swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        Ok(Connection { requests, driver: Some(Box::pin(driver.with_upgrades())) })
    }

    async fn answer(
        self: &Arc<Self>,
        mut connection: Connection,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, Failed> {
        let answer = connection.answer(request).await?;
        let carrier = Some(Carrier { connection: Some(connection), kept: Arc::clone(self) });
        Ok(answer.map(|incoming| Body { incoming, carrier }))
    }

    /// The same, by a task of its own.
    async fn answer_alone(
        self: &Arc<Self>,
        mut connection: Connection,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, Failed> {
        let (mut asking, answer) = oneshot::channel();
        let kept = Arc::clone(self);
        tokio::spawn(async move {
            let answer = tokio::select! {
                answer = connection.answer(request) => answer,
                () = asking.closed() => return,
            };
            if asking.send(answer).is_ok() {
                connection.settled().await;
                kept.put(connection);
            }
        });
        let answer = answer.await.map_err(|_| (SendError::Stopped, None))??;
        Ok(answer.map(Body::from))
    }

    fn take(&self) -> Option<Connection> {
        loop {
            let (_, mut connection) = self.idle().connections.pop()?;
            if connection.is_still_idle() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection that can be used again.
    fn put(&self, connection: Connection) {
        let mut idle = self.idle();
        if connection.is_idle() && idle.connections.len() < limits::POOL_MAX_IDLE {
            idle.connections.push((Instant::now(), connection));
        }
    }

    /// A panic while the lock was held cannot leave the list half changed.
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes what nothing uses for long, and what the application has closed, until the life is over.
async fn sweep(connections: Weak<Connections>) {
    loop {
        tokio::time::sleep(limits::POOL_SWEEP).await;
        let Some(connections) = connections.upgrade() else { return };
        let keep = |(since, connection): &mut (Instant, Connection)| {
            since.elapsed() < limits::POOL_IDLE_TIMEOUT && connection.is_still_idle()
        };
        connections.idle().connections.retain_mut(keep);
    }
}

impl Connection {
    /// Moves what can be moved, and has this task woken for more.
    fn drive(&mut self, cx: &mut Context<'_>) {
        let Some(driver) = &mut self.driver else { return };
        if let Poll::Ready(end) = driver.as_mut().poll(cx) {
            self.driver = None;
            if let Err(error) = end {
                tracing::debug!("a connection to an application ended: {error}");
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.driver.is_some() && self.requests.is_ready()
    }

    /// The same, after a look whether the application has closed it.
    fn is_still_idle(&mut self) -> bool {
        self.drive(&mut nobody());
        self.is_idle()
    }

    async fn answer(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, Failed> {
        // Only driving brings it, which is done here: it need not wake anybody, and must not wait for a turn.
        let mut answer = pin!(unconstrained(self.requests.try_send_request(request)));
        let answer = poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(&mut nobody())
        });
        answer.await.map_err(|mut error: TrySendError<_>| {
            let unsent = error.take_message();
            Box::new((error.into_error().into(), unsent))
        })
    }

    /// Drives until it is idle, or over.
    async fn settled(&mut self) {
        poll_fn(|cx| {
            self.drive(cx);
            let settled = self.driver.is_none() || self.requests.is_ready();
            if settled { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Wakes no task.
fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// As HTTP/1.1 has it where it is not a proxy that is asked.
fn to_origin_form(uri: &mut Uri) {
    let path = std::mem::take(uri).into_parts().path_and_query;
    *uri = path.unwrap_or(PathAndQuery::from_static("/")).into();
}

/// The application's body.
pub(crate) struct Body {
    incoming: Incoming,
    /// What brings it, where no task of its own does.
    carrier: Option<Carrier>,
}

/// A connection that is driven by whoever reads an answer.
struct Carrier {
    /// Taken when this is dropped.
    connection: Option<Connection>,
    kept: Arc<Connections>,
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.kept.put(connection);
        }
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self { incoming, carrier: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { incoming, carrier } = self.get_mut();
        let mut incoming = Pin::new(incoming);
        let Some(connection) = carrier.as_mut().and_then(|carrier| carrier.connection.as_mut()) else {
            return incoming.poll_frame(cx);
        };
        // As with the answer, only driving brings anything.
        let there = incoming.as_mut().poll_frame(&mut nobody());
        if there.is_ready() {
            return there;
        }
        connection.drive(cx);
        incoming.poll_frame(&mut nobody())
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
