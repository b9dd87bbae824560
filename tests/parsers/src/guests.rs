//! Bytes of a tenant: the index of its artifact and the messages of its guest.

use std::fmt::Debug;
use std::io::Cursor;

use agent_proto::{Event, MAX_FRAME, Request, Response, ShellInput, ShellOutput, read_frame, write_frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn artifact(bytes: &[u8]) {
    // Accepted or refused, with a reason in words.
    if let Err(error) = build::artifact::check(Cursor::new(bytes)) {
        assert!(error.to_string().starts_with("ARCHIVE_"));
    }
}

pub(crate) fn frame(bytes: &[u8]) {
    message::<Response>(bytes);
    message::<Event>(bytes);
    message::<Request>(bytes);
    message::<ShellOutput>(bytes);
    message::<ShellInput>(bytes);
}

/// A message that is read can be written, and is then read as itself.
fn message<M: DeserializeOwned + Serialize + Debug>(bytes: &[u8]) {
    let Ok(Some(read)) = now(read_frame::<_, M>(&mut &*bytes)) else { return };
    let mut written = Vec::new();
    // What came in one frame may be longer where its numbers were written shorter than we write them.
    if now(write_frame(&mut written, &read)).is_err() {
        assert!(bytes.len() > MAX_FRAME / 2, "a short message that cannot be written: {read:?}");
        return;
    }
    let again = now(read_frame::<_, M>(&mut &*written)).ok().flatten();
    assert_eq!(format!("{again:?}"), format!("{:?}", Some(read)));
}

/// The result of a future that waits for nothing, as reading from memory does.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("memory is always ready"),
    }
}
