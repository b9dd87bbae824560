//! Host and guest over an in-memory stream.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rekindle_agent_proto::guest::{self, Host};
use rekindle_agent_proto::host::{Answers, CallError, Channel};
use rekindle_agent_proto::{
    Event, HookCall, HookOutcome, LogSource, MAX_SHELL_CHUNK, Metadata, Request, Response, ShellInput,
    ShellOutput,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

/// Turns queries around, and tells a guest that it is in `nowhere-1`.
fn answers() -> Answers {
    Answers {
        resolver: Arc::new(|mut query: Vec<u8>| {
            query.reverse();
            async move { (!query.is_empty()).then_some(query) }.boxed()
        }),
        describer: Arc::new(|| Some(metadata())),
    }
}

fn metadata() -> Metadata {
    let [region, availability_zone_id, group_key] = ["nowhere-1", "n1-az1", "secret"].map(str::to_owned);
    Metadata { region, availability_zone_id, group_key, credentials: None }
}

async fn serve(io: DuplexStream, host: tokio::sync::oneshot::Sender<Host>) {
    let (session, mut calls) = guest::accept(io).await.unwrap();
    host.send(session).unwrap();
    while let Some(incoming) = calls.next().await {
        tokio::spawn(async move {
            let Ok(Some(call)) = incoming.request().await else { return };
            match call.request {
                Request::Relay { port: 80 } => echo(call).await,
                Request::Relay { port: 82 } => drop(call.into_relay().await.unwrap()),
                Request::Shell => upper(call).await,
                Request::Hook(_) => call.answer(&Response::Hook(HookOutcome::Status(200))).await.unwrap(),
                _ => call.answer(&Response::Failed { message: "no".into() }).await.unwrap(),
            }
        });
    }
}

async fn echo(call: guest::Call) {
    let mut stream = call.into_relay().await.unwrap();
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).await.is_err() {
        return;
    }
    stream.write_all(&all).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// A shell that shouts what is typed, says the size of its window, and exits on `.`.
async fn upper(call: guest::Call) {
    let (mut sender, mut receiver) = call.into_shell().await.unwrap();
    while let Ok(Some(input)) = receiver.next().await {
        let shown = match input {
            ShellInput::Keys(keys) if keys == b"." => break,
            ShellInput::Keys(keys) => keys.to_ascii_uppercase(),
            ShellInput::Resize { cols, rows } => format!("{cols}x{rows}").into_bytes(),
        };
        sender.send(&ShellOutput::Bytes(shown)).await.unwrap();
    }
    sender.send(&ShellOutput::Exited).await.unwrap();
    sender.close().await.unwrap();
}

async fn pair() -> (Channel, mpsc::Receiver<Event>, Host) {
    let (ours, theirs) = duplex(4096);
    let (sender, host) = tokio::sync::oneshot::channel();
    tokio::spawn(serve(theirs, sender));
    let (channel, events) = Channel::establish(ours, answers()).await.unwrap();
    (channel, events, host.await.unwrap())
}

#[tokio::test]
async fn a_guest_is_told_what_it_is() {
    let (_channel, _events, host) = pair().await;
    assert_eq!(host.describe().await.unwrap(), Some(metadata()));
}

#[tokio::test]
async fn a_call_is_answered() {
    let (channel, _events, _host) = pair().await;
    let hook = HookCall { hook: "run".into(), port: 9000, timeout_ms: 1000, body: Some(vec![b'{'; 70_000]) };
    let answer = channel.call(&Request::Hook(hook)).await.unwrap();
    assert_eq!(answer, Response::Hook(HookOutcome::Status(200)));
}

#[tokio::test]
async fn a_relay_carries_bytes_and_a_half_close() {
    let (channel, _events, _host) = pair().await;
    let mut stream = channel.relay(80).await.unwrap();
    let sent = vec![7; 300_000];
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, sent);
}

#[tokio::test]
async fn a_shell_has_frames_both_ways_until_it_exits() {
    let (channel, _events, _host) = pair().await;
    let (mut sender, mut receiver) = channel.shell().await.unwrap();
    let full = ShellInput::Keys(vec![b'a'; MAX_SHELL_CHUNK]);
    for (input, shown) in [
        (ShellInput::Resize { cols: 120, rows: 40 }, b"120x40".to_vec()),
        (full, vec![b'A'; MAX_SHELL_CHUNK]),
    ] {
        sender.send(&input).await.unwrap();
        assert_eq!(receiver.next().await.unwrap(), Some(ShellOutput::Bytes(shown)));
    }
    sender.send(&ShellInput::Keys(b".".to_vec())).await.unwrap();
    assert_eq!(receiver.next().await.unwrap(), Some(ShellOutput::Exited));
    assert_eq!(receiver.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_frame_longer_than_a_shells_may_be_is_refused() {
    let (channel, _events, _host) = pair().await;
    let (mut sender, mut receiver) = channel.shell().await.unwrap();
    sender.send(&ShellInput::Keys(vec![b'a'; MAX_SHELL_CHUNK + 8])).await.unwrap();
    // The guest reads no further, and says that the shell has ended.
    assert_eq!(receiver.next().await.unwrap(), Some(ShellOutput::Exited));
}

#[tokio::test]
async fn a_refused_relay_says_why() {
    let (channel, _events, _host) = pair().await;
    assert!(matches!(channel.relay(81).await, Err(CallError::Refused(why)) if why == "no"));
}

#[tokio::test]
async fn events_arrive_in_order() {
    let (_channel, mut events, host) = pair().await;
    let mut sink = host.events().await.unwrap();
    let log = Event::Log { source: LogSource::Stdout, bytes: b"hello".to_vec() };
    sink.send(&log).await.unwrap();
    sink.send(&Event::AppExited { code: 3 }).await.unwrap();
    assert_eq!(events.recv().await, Some(log));
    assert_eq!(events.recv().await, Some(Event::AppExited { code: 3 }));
}

#[tokio::test]
async fn queries_are_resolved_by_the_host() {
    let (_channel, _events, host) = pair().await;
    assert_eq!(host.resolve(vec![1, 2, 3]).await.unwrap(), Some(vec![3, 2, 1]));
    assert_eq!(host.resolve(vec![]).await.unwrap(), None);
}

#[tokio::test]
async fn dropping_the_channel_ends_the_guests_session() {
    let (channel, _events, host) = pair().await;
    drop(channel);
    tokio::time::timeout(Duration::from_secs(5), host.ended()).await.unwrap();
    assert!(host.resolve(vec![1]).await.is_err());
}

#[tokio::test]
async fn a_guest_that_talks_nonsense_only_ends_its_session() {
    let (ours, mut theirs) = duplex(4096);
    let nonsense = tokio::spawn(async move {
        let mut preamble = [0; 32];
        theirs.read_exact(&mut preamble).await.unwrap();
        theirs.write_all(b"\xF6rekindle<guest\n").await.unwrap();
        theirs.write_all(&preamble[16..]).await.unwrap();
        theirs.write_all(&[0xff; 4000]).await.unwrap();
        theirs
    });
    let (channel, mut events) = Channel::establish(ours, answers()).await.unwrap();
    let _theirs = nonsense.await.unwrap();
    channel.ended().await;
    assert!(channel.call(&Request::Freeze).await.is_err());
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn a_closed_session_has_sent_its_last_answer() {
    let (ours, theirs) = duplex(4096);
    tokio::spawn(async move {
        let (host, mut calls) = guest::accept(theirs).await.unwrap();
        let call = calls.next().await.unwrap().request().await.unwrap().unwrap();
        call.answer(&Response::Done).await.unwrap();
        host.close().await;
    });
    let (channel, _events) = Channel::establish(ours, answers()).await.unwrap();
    assert_eq!(channel.call(&Request::Freeze).await.unwrap(), Response::Done);
    channel.ended().await;
}

#[tokio::test]
async fn a_relay_that_breaks_off_has_not_ended() {
    let (channel, _events, _host) = pair().await;
    let mut by_session = channel.relay(80).await.unwrap();
    by_session.write_all(b"half").await.unwrap();
    channel.close().await;
    assert!(by_session.read_to_end(&mut Vec::new()).await.is_err());

    let (channel, _events, _host) = pair().await;
    let mut by_reset = channel.relay(82).await.unwrap();
    assert!(by_reset.read_to_end(&mut Vec::new()).await.is_err());
}

/// On the side that ends the session, too, and without another word from the other.
#[tokio::test]
async fn whoever_waits_for_a_stream_is_told_that_its_session_has_ended() {
    let (ours, theirs) = duplex(4096);
    let (sender, relayed) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (host, mut calls) = guest::accept(theirs).await.unwrap();
        let call = calls.next().await.unwrap().request().await.unwrap().unwrap();
        assert!(sender.send((host, call.into_relay().await.unwrap(), calls)).is_ok());
    });
    let (channel, _events) = Channel::establish(ours, answers()).await.unwrap();
    let mut stream = channel.relay(80).await.unwrap();
    let (host, relay, _calls) = relayed.await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(relay);
    // Tasks of their own, which nothing but the stream wakes.
    let silent = tokio::spawn(async move { reader.read_u8().await.is_err() });
    let endless = tokio::spawn(async move {
        // More than the other side has given credit for.
        while writer.write_all(&[7; 65_536]).await.is_ok() {}
        true
    });
    tokio::task::yield_now().await;
    host.close().await;
    for waiting in [silent, endless] {
        assert!(
            tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("it has heard of it").unwrap()
        );
    }
    let mut received = Vec::new();
    let received = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut received));
    assert!(received.await.expect("the other side has, too").is_err());
}
