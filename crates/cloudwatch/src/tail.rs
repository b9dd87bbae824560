//! Live tails: what is added to groups, sent as it comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ids::AccountId;
use logs::{Event, Follower, LogError, Logs, Stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::call::{Call, Reply};
use crate::checks::Checks;
use crate::events::{check_streams, text};
use crate::{Pattern, Refusal, event_stream};

const MAX_GROUPS: usize = 10;
/// Between two updates.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest session.
const SESSION: Duration = Duration::from_secs(3 * 60 * 60);
/// Events of one update; of more, these are sent and the update says that it is a sample.
const MAX_EVENTS: usize = 500;
/// Messages that wait for a slow client.
const QUEUE: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Start {
    log_group_identifiers: Option<Vec<String>>,
    #[serde(default)]
    log_stream_names: Vec<String>,
    #[serde(default)]
    log_stream_name_prefixes: Vec<String>,
    log_event_filter_pattern: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    request_id: String,
    session_id: String,
    log_group_identifiers: Vec<String>,
    log_stream_names: Vec<String>,
    log_stream_name_prefixes: Vec<String>,
    log_event_filter_pattern: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    session_metadata: Metadata,
    session_results: Vec<Tailed>,
}

#[derive(Debug, Default, Serialize)]
struct Metadata {
    sampled: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tailed {
    log_stream_name: String,
    log_group_identifier: String,
    message: String,
    timestamp: u64,
    ingestion_time: u64,
}

pub(crate) fn start(call: &mut Call, request: Start) -> Result<Reply, Refusal> {
    let mut checks = Checks::default();
    let identifiers = checks.required("logGroupIdentifiers", request.log_group_identifiers);
    checks.finish()?;
    let (names, prefixes) = (request.log_stream_names, request.log_stream_name_prefixes);
    let filter = request.log_event_filter_pattern.unwrap_or_default();
    let mut checks = Checks::default();
    checks.count("logGroupIdentifiers", identifiers.len(), 1..=MAX_GROUPS);
    check_streams(&mut checks, Some(&names).filter(|names| !names.is_empty()).map(Vec::as_slice), None);
    prefixes.iter().for_each(|prefix| checks.stream("logStreamNamePrefixes", prefix));
    checks.pattern("logEventFilterPattern", &filter);
    checks.finish()?;
    if !names.is_empty() && !prefixes.is_empty() {
        return Err(Refusal::invalid(
            "LogStreamNames and LogStreamNamePrefixes are mutually exclusive; give one of them",
        ));
    }
    if identifiers.len() > 1 && !(names.is_empty() && prefixes.is_empty()) {
        return Err(Refusal::invalid("Log streams can be named for one log group only"));
    }
    let groups = groups(call, &identifiers)?;
    let pattern = Pattern::parse(&filter)?;
    let permit = Arc::clone(&call.service.tails).try_acquire_owned();
    let permit =
        permit.map_err(|_| Refusal::limit("There are as many Live Tail sessions as this server has"))?;
    let started = Started {
        request_id: uuid::Uuid::new_v4().to_string(),
        session_id: uuid::Uuid::new_v4().to_string(),
        log_group_identifiers: identifiers,
        log_stream_names: names.clone(),
        log_stream_name_prefixes: prefixes.clone(),
        log_event_filter_pattern: filter,
    };
    let (logs, account) = (call.service.logs.clone(), call.caller.account.clone());
    let tail = Tail { logs, account, groups, names, prefixes, pattern, places: BTreeMap::new() };
    let (messages, receiver) = mpsc::channel(QUEUE);
    tokio::runtime::Handle::current().spawn(run(tail.at_the_end(), started, messages, permit));
    Ok(Reply::Events(receiver))
}

/// The groups that are tailed, by name and as the client named them.
fn groups(call: &mut Call, identifiers: &[String]) -> Result<Vec<(String, String)>, Refusal> {
    let mut groups = Vec::new();
    for identifier in identifiers {
        if !identifier.starts_with("arn:") || identifier.ends_with('*') {
            let message = "logGroupIdentifiers must be ARNs of log groups, without :* at their end";
            return Err(Refusal::invalid(message));
        }
        let name = call.identified(identifier)?;
        call.may_touch_group(&name, iam::Context::new())?;
        call.group(&name)?;
        groups.push((name, identifier.clone()));
    }
    Ok(groups)
}

/// Sends updates until the session or the client ends.
async fn run(mut tail: Tail, started: Started, to: mpsc::Sender<Bytes>, _permit: OwnedSemaphorePermit) {
    let deadline = Instant::now() + SESSION;
    let first = [
        event_stream::event("initial-response", b"{}"),
        event_stream::event("sessionStart", &json(&started)),
    ];
    let mut next = first.concat();
    while to.send(next.into()).await.is_ok() {
        if Instant::now() >= deadline {
            let message = br#"{"message":"The Live Tail session has lasted three hours; start another one"}"#;
            let _ = to.send(event_stream::exception("SessionTimeoutException", message).into()).await;
            return;
        }
        tokio::time::sleep(PAUSE).await;
        let Ok((again, update)) = tokio::task::spawn_blocking(move || tail.update()).await else { return };
        tail = again;
        next = match update {
            Ok(update) => event_stream::event("sessionUpdate", &json(&update)),
            Err(error) => {
                tracing::error!(%error, "a live tail ends");
                let message = br#"{"message":"The logs cannot be read; the server's log says why"}"#;
                let _ = to.send(event_stream::exception("SessionStreamingException", message).into()).await;
                return;
            }
        };
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Texts and numbers: nothing there fails to serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

/// What one session reads.
struct Tail {
    logs: Logs,
    account: AccountId,
    /// Names, and as the client gave them.
    groups: Vec<(String, String)>,
    names: Vec<String>,
    prefixes: Vec<String>,
    pattern: Pattern,
    /// How far each stream has been read, by the names of group and stream.
    places: BTreeMap<(String, String), Follower>,
}

impl Tail {
    /// The same, from what is added from now on.
    fn at_the_end(mut self) -> Self {
        for (group, _) in self.groups.clone() {
            for stream in self.streams(&group) {
                let follower = Follower::new(stream.dir(), stream.next());
                self.places.insert((group.clone(), stream.name().to_owned()), follower);
            }
        }
        self
    }

    /// What was added since the last one.
    fn update(mut self) -> (Self, Result<Update, LogError>) {
        let mut update = Update::default();
        for (group, identifier) in self.groups.clone() {
            for stream in self.streams(&group) {
                let place = (group.clone(), stream.name().to_owned());
                let new = || Follower::new(stream.dir(), 0);
                let follower = self.places.entry(place).or_insert_with(new);
                // It was deleted and made anew.
                if follower.next() > stream.next() {
                    *follower = new();
                }
                if follower.next() == stream.next() {
                    continue;
                }
                if let Err(error) = take(follower, &self.pattern, &identifier, stream.name(), &mut update) {
                    return (self, Err(error));
                }
            }
        }
        update.session_results.sort_by_key(|found| found.timestamp);
        (self, Ok(update))
    }

    fn streams(&self, group: &str) -> Vec<Arc<Stream>> {
        let group = self.logs.group(&self.account, group);
        let mut streams = group.map(|group| group.streams()).unwrap_or_default();
        streams.retain(|stream| {
            let (name, all) = (stream.name(), self.names.is_empty() && self.prefixes.is_empty());
            all || self.names.iter().any(|one| one == name)
                || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
        });
        streams
    }
}

/// Reads a stream to its end.
fn take(
    follower: &mut Follower,
    pattern: &Pattern,
    group: &str,
    stream: &str,
    update: &mut Update,
) -> Result<(), LogError> {
    loop {
        let events = follower.read()?;
        if events.is_empty() {
            return Ok(());
        }
        for Event { timestamp, ingested, message, .. } in events {
            if !pattern.matches(&message) {
                continue;
            }
            if update.session_results.len() >= MAX_EVENTS {
                update.session_metadata.sampled = true;
                continue;
            }
            update.session_results.push(Tailed {
                log_stream_name: stream.to_owned(),
                log_group_identifier: group.to_owned(),
                message: text(&message),
                timestamp,
                ingestion_time: ingested,
            });
        }
    }
}
