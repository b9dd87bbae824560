//! Bytes of a tenant: the index of its artifact and the messages of its guest.

use std::fmt::Debug;
use std::io::Cursor;
use std::time::Instant;

use agent_proto::{
    Event, MAX_FRAME, Metadata, Request, Response, ShellInput, ShellOutput, read_frame, write_frame,
};
use imds::{Read, Status, Tokens, Verdict};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn artifact(bytes: &[u8]) {
    // Accepted or refused, with a reason in words.
    if let Err(error) = build::artifact::check(Cursor::new(bytes)) {
        assert!(error.to_string().starts_with("ARCHIVE_"));
    }
}

/// Requests to the metadata service, one after another as on a connection. Only the token that was given out opens it.
pub(crate) fn metadata(bytes: &[u8]) {
    const SEED: [u8; imds::SEED_BYTES] = [7; imds::SEED_BYTES];
    let (mut tokens, now, mut rest) = (Tokens::default(), Instant::now(), bytes);
    let mut given: Option<String> = None;
    while let Read::Request(request, length) = imds::read(rest) {
        assert!(length > 0 && length <= imds::MAX_HEAD, "a head of {length} bytes");
        let answer = match imds::decide(&request, &mut tokens, now, SEED) {
            Verdict::Answer(answer) => {
                if answer.status == Status::Ok {
                    given = Some(answer.body.clone());
                }
                answer
            }
            Verdict::Document => {
                assert_eq!(request.token, given.as_deref(), "opened by a token that nobody was given");
                imds::document(&request, Some(&described()))
            }
        };
        let written = answer.render(request.keeps_open);
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut head = httparse::Response::new(&mut headers);
        let parsed = head.parse(&written).unwrap();
        assert_eq!(written.len() - parsed.unwrap(), answer.body.len(), "a body beside its length");
        assert_eq!(head.code, Some(answer.status.code()));
        rest = &rest[length..];
    }
}

fn described() -> Metadata {
    let [region, availability_zone_id, group_key] = ["us-east-1", "use1-az1", "key"].map(str::to_owned);
    Metadata { region, availability_zone_id, group_key, credentials: None }
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
