//! Events: put, read one after another, searched for.

use std::sync::Arc;

use iam::Context;
use logs::{Found, Group, Key, Line, Search, Stream, Toward, cutoff, search};
use serde::{Deserialize, Serialize};

use crate::batch::{self, MAX_EVENTS, Taken};
use crate::call::{Call, Reply, reply};
use crate::checks::Checks;
use crate::{Pattern, Position, Refusal, streams};

/// Bytes of messages in a page.
const PAGE_BYTES: usize = 1 << 20;
const MAX_STREAMS: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Put {
    log_group_name: Option<String>,
    log_stream_name: Option<String>,
    log_events: Option<Vec<PutEvent>>,
}

#[derive(Debug, Deserialize)]
struct PutEvent {
    timestamp: Option<i64>,
    message: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    next_sequence_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_log_events_info: Option<Rejected>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rejected {
    #[serde(skip_serializing_if = "Option::is_none")]
    too_new_log_event_start_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    too_old_log_event_end_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired_log_event_end_index: Option<usize>,
}

impl Rejected {
    fn of(taken: &Taken, count: usize) -> Option<Self> {
        let some = |number: usize| Some(number).filter(|number| *number > 0);
        let rejected = Self {
            too_new_log_event_start_index: Some(taken.kept.end).filter(|end| *end < count),
            too_old_log_event_end_index: some(taken.too_old),
            expired_log_event_end_index: some(taken.expired),
        };
        (taken.kept.len() < count).then_some(rejected)
    }
}

pub(crate) fn put(call: &mut Call, request: Put) -> Result<Reply, Refusal> {
    let mut checks = Checks::default();
    let group = checks.required("logGroupName", request.log_group_name);
    let stream = checks.required("logStreamName", request.log_stream_name);
    let events = checks.required("logEvents", request.log_events);
    checks.finish()?;
    let events = checked(&group, &stream, events)?;
    call.may_touch_stream(&group, &stream)?;
    let (kept_by, now) = (call.group(&group)?, logs::now_ms());
    let to = kept_by.stream(&stream).ok_or_else(Refusal::no_stream)?;
    let sizes: Vec<(u64, usize)> = events.iter().map(|(timestamp, text)| (*timestamp, text.len())).collect();
    let taken = batch::take(&sizes, now, cutoff(kept_by.info().retention_days, now))?;
    let lines: Vec<Line> = events[taken.kept.clone()]
        .iter()
        .map(|(timestamp, text)| Line {
            timestamp: Some(*timestamp),
            source: 0,
            message: text.as_bytes().to_vec(),
        })
        .collect();
    if !call.service.logs.append(&call.caller.account, &to, &lines)? {
        return Err(Refusal::no_stream());
    }
    let next_sequence_token = streams::sequence_token(now);
    reply(&Accepted { next_sequence_token, rejected_log_events_info: Rejected::of(&taken, events.len()) })
}

fn checked(group: &str, stream: &str, events: Vec<PutEvent>) -> Result<Vec<(u64, String)>, Refusal> {
    let mut checks = Checks::default();
    checks.group("logGroupName", group);
    checks.stream("logStreamName", stream);
    checks.count("logEvents", events.len(), 1..=MAX_EVENTS);
    checks.finish()?;
    let mut checks = Checks::default();
    let mut read = Vec::with_capacity(events.len());
    for (number, PutEvent { timestamp, message }) in (1..).zip(events) {
        let at = |member: &str| format!("logEvents.{number}.member.{member}");
        let timestamp = checks.required(&at("timestamp"), timestamp);
        let is_there = message.is_some();
        let message = checks.required(&at("message"), message);
        if is_there {
            checks.at_least_one(&at("message"), &message);
        }
        read.push((checks.time(&at("timestamp"), Some(timestamp)).unwrap_or_default(), message));
    }
    checks.finish().map(|()| read)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Get {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    log_stream_name: Option<String>,
    start_time: Option<i64>,
    end_time: Option<i64>,
    next_token: Option<String>,
    limit: Option<i64>,
    #[serde(default)]
    start_from_head: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Got {
    events: Vec<GotEvent>,
    next_forward_token: String,
    next_backward_token: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GotEvent {
    timestamp: u64,
    message: String,
    ingestion_time: u64,
}

pub(crate) fn get(call: &mut Call, request: Get) -> Result<Reply, Refusal> {
    let mut checks = Checks::default();
    let is_there = request.log_stream_name.is_some();
    let name = checks.required("logStreamName", request.log_stream_name);
    if is_there {
        checks.stream("logStreamName", &name);
    }
    let from = checks.time("startTime", request.start_time);
    let until = checks.time("endTime", request.end_time);
    checks.limit("limit", request.limit, 10_000);
    let group = call.named(checks, request.log_group_name, request.log_group_identifier)?;
    call.may_touch_stream(&group, &name)?;
    let stream = call.stream(&group, &name)?;
    let position = request.next_token.as_deref().map(position).transpose()?;
    let by_head = if request.start_from_head { Toward::Newer } else { Toward::Older };
    let toward = position.map_or(by_head, |position| position.toward);
    // The end is not part of the range.
    if until == Some(0) {
        return reply(&page(vec![], position));
    }
    let wanted = Search {
        toward,
        after: position.map(|position| position.key),
        oldest: from.unwrap_or(0).max(kept_since(&*call.group(&group)?)),
        newest: until.map_or(u64::MAX, |until| until - 1),
        limit: limit(request.limit),
        bytes: PAGE_BYTES,
        matches: &|_| true,
    };
    let mut events = search(&[stream], &wanted)?.events;
    if toward == Toward::Older {
        events.reverse();
    }
    reply(&page(events, position))
}

/// A page of events in order; where there are none, both tokens stay where the client is.
fn page(events: Vec<Found>, position: Option<Position>) -> Got {
    let begin = Key { timestamp: 0, ingested: 0, stream: 0, number: 0 };
    let here = position.map_or(begin, |position| position.key);
    let token = |toward, beside: Option<&Found>| {
        Position { toward, key: beside.map_or(here, |found| found.key) }.to_token()
    };
    Got {
        next_forward_token: token(Toward::Newer, events.last()),
        next_backward_token: token(Toward::Older, events.first()),
        events: events
            .into_iter()
            .map(|Found { event, .. }| GotEvent {
                timestamp: event.timestamp,
                message: text(&event.message),
                ingestion_time: event.ingested,
            })
            .collect(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Filter {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    log_stream_names: Option<Vec<String>>,
    log_stream_name_prefix: Option<String>,
    start_time: Option<i64>,
    end_time: Option<i64>,
    filter_pattern: Option<String>,
    next_token: Option<String>,
    limit: Option<i64>,
    start_from_head: Option<bool>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Filtered {
    events: Vec<FilteredEvent>,
    searched_log_streams: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FilteredEvent {
    log_stream_name: String,
    timestamp: u64,
    message: String,
    ingestion_time: u64,
    event_id: String,
}

pub(crate) fn filter(call: &mut Call, request: Filter) -> Result<Reply, Refusal> {
    let mut checks = Checks::default();
    let (names, prefix) = (request.log_stream_names, request.log_stream_name_prefix);
    check_streams(&mut checks, names.as_deref(), prefix.as_deref());
    let (from, until) =
        (checks.time("startTime", request.start_time), checks.time("endTime", request.end_time));
    checks.limit("limit", request.limit, 10_000);
    let pattern = request.filter_pattern.unwrap_or_default();
    checks.pattern("filterPattern", &pattern);
    let group = call.named(checks, request.log_group_name, request.log_group_identifier)?;
    call.may_touch_group(&group, Context::new())?;
    if names.is_some() && prefix.is_some() {
        return Err(Refusal::invalid(
            "LogStreamNamePrefix and LogStreamNames are mutually exclusive; give one of them",
        ));
    }
    let pattern = Pattern::parse(&pattern)?;
    let position = request.next_token.as_deref().map(position).transpose()?;
    let by_head = if request.start_from_head == Some(false) { Toward::Older } else { Toward::Newer };
    let group = call.group(&group)?;
    let streams = match &names {
        Some(names) => names
            .iter()
            .map(|name| group.stream(name).ok_or_else(Refusal::no_stream))
            .collect::<Result<Vec<_>, _>>()?,
        None => with_prefix(&group, prefix.as_deref()),
    };
    let wanted = Search {
        toward: position.map_or(by_head, |position| position.toward),
        after: position.map(|position| position.key),
        oldest: from.unwrap_or(0).max(kept_since(&group)),
        newest: until.unwrap_or(u64::MAX),
        limit: limit(request.limit),
        bytes: PAGE_BYTES,
        matches: &|message| pattern.matches(message),
    };
    let page = search(&streams, &wanted)?;
    let last = page.events.last().filter(|_| page.more);
    let next_token = last.map(|last| Position { toward: wanted.toward, key: last.key }.to_token());
    let events = page.events.into_iter().map(|Found { stream, key, event }| FilteredEvent {
        log_stream_name: streams[stream].name().to_owned(),
        timestamp: event.timestamp,
        message: text(&event.message),
        ingestion_time: event.ingested,
        event_id: event_id(key),
    });
    reply(&Filtered { events: events.collect(), searched_log_streams: [], next_token })
}

pub(crate) fn check_streams(checks: &mut Checks, names: Option<&[String]>, prefix: Option<&str>) {
    if let Some(names) = names {
        checks.count("logStreamNames", names.len(), 1..=MAX_STREAMS);
        names.iter().for_each(|name| checks.stream("logStreamNames", name));
    }
    if let Some(prefix) = prefix {
        checks.stream("logStreamNamePrefix", prefix);
    }
}

fn with_prefix(group: &Group, prefix: Option<&str>) -> Vec<Arc<Stream>> {
    let mut streams = group.streams();
    streams.retain(|stream| prefix.is_none_or(|prefix| stream.name().starts_with(prefix)));
    streams
}

/// As many digits as AWS's have, and in the order of the events.
fn event_id(key: Key) -> String {
    let Key { timestamp, stream, number, .. } = key;
    format!("{timestamp:016}{stream:020}{number:020}")
}

fn kept_since(group: &Group) -> u64 {
    cutoff(group.info().retention_days, logs::now_ms())
}

fn position(token: &str) -> Result<Position, Refusal> {
    Position::parse(token).ok_or_else(Refusal::invalid_token)
}

fn limit(limit: Option<i64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MAX_EVENTS)
}

/// JSON has no other bytes.
pub(crate) fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}
