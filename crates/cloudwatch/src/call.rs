//! One call: who asks, for what, and what comes of it.

use std::sync::Arc;

use bytes::Bytes;
use iam::Context;
use identity::{Caller, Identity, Reason};
use logs::{Group, Logs, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};

use crate::access::{self, Names};
use crate::checks::Checks;
use crate::{Operation, Refusal, events, groups, streams, tags, tail};

/// Live tails at once; each is a task that reads what is added.
const MAX_TAILS: usize = 64;

/// The service. Clones share it.
#[derive(Debug, Clone)]
pub struct CloudWatch {
    pub(crate) logs: Logs,
    identity: Identity,
    region: String,
    pub(crate) tails: Arc<Semaphore>,
}

/// What came of a call.
#[derive(Debug)]
pub struct Answer {
    /// ARNs of what it was about, as far as that was understood.
    pub resources: Vec<String>,
    /// The answer, or why there is none.
    pub outcome: Result<Reply, Refusal>,
}

/// An answer.
#[derive(Debug)]
pub enum Reply {
    /// JSON, or nothing.
    Json(Vec<u8>),
    /// Messages of an event stream, until its end or the client's.
    Events(mpsc::Receiver<Bytes>),
}

impl CloudWatch {
    /// The service of a region over these logs.
    #[must_use]
    pub fn new(logs: Logs, identity: Identity, region: &str) -> Self {
        Self { logs, identity, region: region.to_owned(), tails: Arc::new(Semaphore::new(MAX_TAILS)) }
    }

    /// Reads, checks and carries out a call. Every failure is an answer too.
    pub async fn answer(&self, caller: Arc<Caller>, operation: &str, body: Bytes) -> Answer {
        let Some(operation) = Operation::parse(operation) else {
            return Answer { resources: vec![], outcome: Err(Refusal::unknown_operation(operation)) };
        };
        let service = self.clone();
        // Files are read and written.
        let answer = tokio::task::spawn_blocking(move || {
            let names = Names::new(&service.region, &caller);
            let mut call = Call { service, caller, operation, names, resources: vec![] };
            let outcome = call.carry_out(&body);
            Answer { resources: call.resources, outcome }
        });
        answer.await.unwrap_or_else(|error| Answer { resources: vec![], outcome: Err(error.into()) })
    }
}

pub(crate) struct Call {
    pub(crate) service: CloudWatch,
    pub(crate) caller: Arc<Caller>,
    pub(crate) operation: Operation,
    pub(crate) names: Names,
    resources: Vec<String>,
}

impl Call {
    fn carry_out(&mut self, body: &[u8]) -> Result<Reply, Refusal> {
        match self.operation {
            Operation::CreateLogGroup => groups::create(self, read(body)?),
            Operation::CreateLogStream => streams::create(self, read(body)?),
            Operation::DeleteLogGroup => groups::delete(self, read(body)?),
            Operation::DeleteLogStream => streams::delete(self, read(body)?),
            Operation::DeleteRetentionPolicy => groups::delete_retention(self, read(body)?),
            Operation::DescribeLogGroups => groups::describe(self, read(body)?),
            Operation::DescribeLogStreams => streams::describe(self, read(body)?),
            Operation::FilterLogEvents => events::filter(self, read(body)?),
            Operation::GetLogEvents => events::get(self, read(body)?),
            Operation::ListTagsForResource => tags::list(self, read(body)?),
            Operation::PutLogEvents => events::put(self, read(body)?),
            Operation::PutRetentionPolicy => groups::put_retention(self, read(body)?),
            Operation::StartLiveTail => tail::start(self, read(body)?),
            Operation::TagResource => tags::add(self, read(body)?),
            Operation::UntagResource => tags::remove(self, read(body)?),
        }
    }

    /// The group that the caller names and may do this to; `context` is what the request adds to conditions.
    pub(crate) fn may_touch_group(&mut self, name: &str, context: Context) -> Result<(), Refusal> {
        self.resources.push(self.names.group(name));
        let context = self.with_tags(name, context);
        let Self { service, caller, operation, names, .. } = self;
        Ok(access::to_group(&service.identity, caller, *operation, (names, name), &context)?)
    }

    pub(crate) fn may_touch_stream(&mut self, group: &str, stream: &str) -> Result<(), Refusal> {
        self.resources.push(self.names.group(group));
        let context = self.with_tags(group, Context::new());
        let Self { service, caller, operation, names, .. } = self;
        let arn = names.stream(group, stream);
        Ok(access::check(&service.identity, caller, *operation, &arn, &context)?)
    }

    /// The condition keys of a group, if it is there.
    fn with_tags(&self, name: &str, mut context: Context) -> Context {
        let tags = self.service.logs.group(&self.caller.account, name).map(|group| group.info().tags);
        for (key, value) in tags.iter().flatten() {
            context.set(&format!("aws:ResourceTag/{key}"), value);
        }
        context
    }

    /// A group of the caller's account.
    pub(crate) fn group(&self, name: &str) -> Result<Arc<Group>, Refusal> {
        self.service.logs.group(&self.caller.account, name).ok_or_else(Refusal::no_group)
    }

    pub(crate) fn stream(&self, group: &str, stream: &str) -> Result<Arc<Stream>, Refusal> {
        self.group(group)?.stream(stream).ok_or_else(Refusal::no_stream)
    }

    /// The group that a request names by either of two members.
    pub(crate) fn named(
        &self,
        mut checks: Checks,
        name: Option<String>,
        identifier: Option<String>,
    ) -> Result<String, Refusal> {
        match (name, identifier) {
            (Some(name), None) => {
                checks.group("logGroupName", &name);
                checks.finish().map(|()| name)
            }
            (None, Some(identifier)) => {
                checks.identifier("logGroupIdentifier", &identifier);
                checks.finish()?;
                self.identified(&identifier)
            }
            (None, None) => {
                checks.required::<String>("logGroupName", None);
                checks.finish().map(|()| String::new())
            }
            (Some(_), Some(_)) => Err(Refusal::invalid(
                "LogGroupName and LogGroupIdentifier are mutually exclusive; give one of them",
            )),
        }
    }

    /// The group of a name or an ARN. No account lets another in.
    pub(crate) fn identified(&self, identifier: &str) -> Result<String, Refusal> {
        if !identifier.starts_with("arn:") {
            return Ok(identifier.to_owned());
        }
        self.names.parse(identifier).ok_or_else(|| {
            let action = format!("logs:{}", self.operation.name());
            let (caller, reason) = (self.caller.arn(), Reason::Foreign(action.clone()));
            identity::AccessDenied { caller, action, resource: identifier.to_owned(), reason }.into()
        })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::serialization(&error))
}

/// An answer of JSON.
pub(crate) fn reply(answer: &impl Serialize) -> Result<Reply, Refusal> {
    // Texts and numbers: nothing there fails to serialise.
    Ok(Reply::Json(serde_json::to_vec(answer).unwrap_or_default()))
}

/// An answer without content.
pub(crate) fn done() -> Result<Reply, Refusal> {
    Ok(Reply::Json(vec![]))
}
