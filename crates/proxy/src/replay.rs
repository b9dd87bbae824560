//! Request bodies that can be sent a second time, as long as little of them has been sent.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client's request body on its way to the application.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// It is sent once.
    Once(Incoming),
    /// What has been sent of it is kept, to be sent again.
    Kept(Sending),
}

/// One of the times that a kept body is sent.
#[derive(Debug)]
pub(crate) struct Sending {
    record: Arc<Mutex<Record>>,
    attempt: usize,
    /// Pieces sent of those that are kept.
    sent: usize,
    size: SizeHint,
    was_empty: bool,
}

#[derive(Debug)]
struct Record {
    body: Incoming,
    attempt: usize,
    /// What came of the body; `None` once it was too much.
    kept: Option<Vec<Bytes>>,
    room: usize,
}

/// Keeps what is sent of a body.
#[derive(Debug)]
pub(crate) struct Recording {
    record: Arc<Mutex<Record>>,
    size: SizeHint,
    was_empty: bool,
}

impl Recording {
    /// Of a body of which nothing has been sent, and that body, to be sent; at most `room` bytes are kept.
    pub(crate) fn begin(body: Incoming, room: usize) -> (Self, RequestBody) {
        let (size, was_empty) = (body.size_hint(), body.is_end_stream());
        let record = Record { body, attempt: 0, kept: Some(Vec::new()), room };
        let recording = Self { record: Arc::new(Mutex::new(record)), size, was_empty };
        let first = recording.sending(0);
        (recording, first)
    }

    /// The body from its beginning; `None` where that is not kept any more. What was sent before gets no more of it.
    pub(crate) fn again(&self) -> Option<RequestBody> {
        let mut record = lock(&self.record);
        record.kept.as_ref()?;
        record.attempt += 1;
        Some(self.sending(record.attempt))
    }

    fn sending(&self, attempt: usize) -> RequestBody {
        let (record, size, was_empty) = (Arc::clone(&self.record), self.size, self.was_empty);
        RequestBody::Kept(Sending { record, attempt, sent: 0, size, was_empty })
    }

    /// Nothing needs to be kept from now on.
    pub(crate) fn forget(self) {
        lock(&self.record).kept = None;
    }
}

/// A panic while the lock was held leaves a body that is not sent again, or is cut short by its connection's end.
fn lock(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else { return };
        match frame.data_ref() {
            Some(data) if data.len() <= self.room => {
                self.room -= data.len();
                kept.push(data.clone());
            }
            // Trailers come when all has been taken, and are not worth keeping.
            _ => self.kept = None,
        }
    }
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut record = lock(&self.record);
        if record.attempt != self.attempt {
            return Poll::Ready(Some(Err("the request is being sent on another connection".into())));
        }
        if let Some(piece) = record.kept.as_ref().and_then(|kept| kept.get(self.sent)) {
            self.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let frame = ready!(Pin::new(&mut record.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            record.keep(frame);
            self.sent += 1;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Once(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Kept(sending) => sending.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Once(body) => body.is_end_stream(),
            Self::Kept(sending) => sending.was_empty,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Once(body) => body.size_hint(),
            Self::Kept(sending) => sending.size,
        }
    }
}
