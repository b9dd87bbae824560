//! Log streams: made, listed, removed.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use iam::Context;
use logs::StreamInfo;
use serde::{Deserialize, Serialize};

use crate::call::{Call, Reply, done, reply};
use crate::checks::Checks;
use crate::{Refusal, groups};

const PAGE: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    log_group_name: Option<String>,
    log_stream_name: Option<String>,
}

impl Named {
    fn checked(self) -> Result<(String, String), Refusal> {
        let mut checks = Checks::default();
        let group = checks.required("logGroupName", self.log_group_name);
        let stream = checks.required("logStreamName", self.log_stream_name);
        checks.finish()?;
        let mut checks = Checks::default();
        checks.group("logGroupName", &group);
        checks.stream("logStreamName", &stream);
        checks.finish().map(|()| (group, stream))
    }
}

pub(crate) fn create(call: &mut Call, request: Named) -> Result<Reply, Refusal> {
    let (group, stream) = request.checked()?;
    call.may_touch_stream(&group, &stream)?;
    call.group(&group)?.create_stream(&stream, logs::now_ms()).map_err(groups::stream_error)?;
    done()
}

pub(crate) fn delete(call: &mut Call, request: Named) -> Result<Reply, Refusal> {
    let (group, stream) = request.checked()?;
    call.may_touch_stream(&group, &stream)?;
    if call.group(&group)?.delete_stream(&stream)? { done() } else { Err(Refusal::no_stream()) }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Describe {
    log_group_name: Option<String>,
    log_group_identifier: Option<String>,
    log_stream_name_prefix: Option<String>,
    #[serde(default)]
    order_by: Order,
    #[serde(default)]
    descending: bool,
    next_token: Option<String>,
    limit: Option<i64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Order {
    #[default]
    LogStreamName,
    LastEventTime,
}

impl Order {
    /// What streams are sorted by; those without events come before the others.
    fn key(self, info: &StreamInfo) -> (u64, String) {
        match self {
            Self::LogStreamName => (0, info.name.clone()),
            Self::LastEventTime => (info.newest.unwrap_or(0), info.name.clone()),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    log_streams: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    log_stream_name: String,
    creation_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_event_timestamp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_event_timestamp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ingestion_time: Option<u64>,
    upload_sequence_token: String,
    arn: String,
    stored_bytes: u64,
}

pub(crate) fn describe(call: &mut Call, request: Describe) -> Result<Reply, Refusal> {
    let mut checks = Checks::default();
    let prefix = request.log_stream_name_prefix;
    prefix.iter().for_each(|prefix| checks.stream("logStreamNamePrefix", prefix));
    checks.limit("limit", request.limit, 50);
    let group = call.named(checks, request.log_group_name, request.log_group_identifier)?;
    call.may_touch_group(&group, Context::new())?;
    let (order, descending) = (request.order_by, request.descending);
    if order == Order::LastEventTime && prefix.is_some() {
        return Err(Refusal::invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
    }
    let after = request.next_token.as_deref().map(read_token).transpose()?;
    let ahead = |key: &(u64, String)| {
        after.as_ref().is_none_or(|after| if descending { key < after } else { key > after })
    };
    let streams = call.group(&group)?.streams();
    let infos = streams.iter().map(|stream| stream.info());
    let infos = infos.filter(|info| prefix.as_ref().is_none_or(|prefix| info.name.starts_with(prefix)));
    let mut infos: Vec<_> =
        infos.map(|info| (order.key(&info), info)).filter(|(key, _)| ahead(key)).collect();
    infos.sort_by(|(one, _), (two, _)| if descending { two.cmp(one) } else { one.cmp(two) });
    let limit = request.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE);
    let more = infos.len() > limit;
    infos.truncate(limit);
    let next_token = infos.last().filter(|_| more).map(|(key, _)| token(key));
    let log_streams = infos.into_iter().map(|(_, info)| Shown {
        arn: call.names.stream(&group, &info.name),
        log_stream_name: info.name,
        creation_time: info.created,
        first_event_timestamp: info.oldest,
        last_event_timestamp: info.newest,
        last_ingestion_time: info.ingested,
        upload_sequence_token: sequence_token(info.ingested.unwrap_or(info.created)),
        stored_bytes: info.bytes,
    });
    reply(&Described { log_streams: log_streams.collect(), next_token })
}

/// Asked for and ignored by clients of long ago.
pub(crate) fn sequence_token(number: u64) -> String {
    format!("{number:056}")
}

fn token(key: &(u64, String)) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(key).unwrap_or_default())
}

fn read_token(token: &str) -> Result<(u64, String), Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| Refusal::invalid_token())?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::invalid_token())
}
