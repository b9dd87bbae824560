//! A timeline as spans. Pure: the same timeline has the same spans, whenever it is asked for them, so that what is
//! learnt of a launch later joins the trace that was sent before.

use std::collections::HashMap;

use ids::{ImageArn, ImageVersion, MicrovmId};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, SpanFlags, Status};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use sha2::{Digest, Sha256};
use timeline::{Reached, Record, Step, TRACE_PARENT};

use crate::attributes::{self, VERSION};

/// Of a span: that it is sampled, as each that is sent (W3C Trace Context).
const SAMPLED: u32 = 1;

/// What was launched, woken or suspended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its id.
    pub microvm: MicrovmId,
    /// What it is a clone of.
    pub image: ImageArn,
    /// Which version of that.
    pub version: ImageVersion,
}

/// What of a timeline is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All up to the MicroVM's new state.
    Work,
    /// The first answer of the life that it began, which may come much later.
    FirstAnswer,
}

/// A timeline to be exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Of what.
    pub subject: Subject,
    /// The timeline.
    pub record: Record,
    /// How much of it.
    pub part: Part,
}

/// What is posted to a collector.
pub(crate) fn request(service_name: &str, traces: &[Trace]) -> ExportTraceServiceRequest {
    let resource = [("service.name", service_name.to_owned()), ("service.version", VERSION.into())];
    let spans = traces.iter().flat_map(Trace::spans).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(attributes::scope()), spans, ..Default::default() }];
    let resource = Resource { attributes: attributes::texts(resource), ..Default::default() };
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }
}

impl Trace {
    /// A span of the whole, and below it one of each step; none where the client's trace is not recorded.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let parent = self.record.parent.as_deref().and_then(parent);
        if parent.as_ref().is_some_and(|parent| !parent.is_sampled()) {
            return vec![];
        }
        let trace_id = match &parent {
            Some(parent) => parent.trace_id().to_bytes(),
            None => self.id("trace"),
        };
        let spans = match self.part {
            Part::Work => self.work(parent.as_ref()),
            Part::FirstAnswer => self.first_answer().into_iter().collect(),
        };
        spans.into_iter().map(|span| Span { trace_id: trace_id.to_vec(), ..span }).collect()
    }

    fn work(&self, parent: Option<&SpanContext>) -> Vec<Span> {
        let steps = self.record.steps.iter().filter(|step| !is_later(step.step));
        let mut from = 0;
        let mut spans = vec![];
        for (number, Reached { step, micros }) in steps.enumerate() {
            spans.push(self.step(number, *step, from, *micros));
            from = *micros;
        }
        spans.insert(0, self.root(parent, from));
        spans
    }

    fn root(&self, parent: Option<&SpanContext>, total: u64) -> Span {
        let Subject { microvm, image, version } = &self.subject;
        let mut attributes = attributes::texts([
            ("rekindle.kind", self.record.kind.name().to_owned()),
            ("faas.instance", microvm.to_string()),
            ("cloud.account.id", image.account.to_string()),
            ("cloud.region", image.region.clone()),
        ]);
        attributes.extend(attributes::image(image, *version));
        let status = match &self.record.failed {
            None => Status { code: StatusCode::Ok.into(), ..Default::default() },
            Some(why) => Status { code: StatusCode::Error.into(), message: why.clone() },
        };
        let (kind, remote) = match parent {
            Some(_) => (SpanKind::Server, SpanFlags::ContextIsRemoteMask as u32),
            None => (SpanKind::Internal, 0),
        };
        let span = self.span(self.record.kind.name(), self.id("whole"), (0, total));
        Span {
            parent_span_id: parent.map(|parent| parent.span_id().to_bytes().to_vec()).unwrap_or_default(),
            flags: span.flags | remote,
            kind: kind.into(),
            attributes,
            status: Some(status),
            ..span
        }
    }

    fn step(&self, number: usize, step: Step, from: u64, to: u64) -> Span {
        let id = self.id(&format!("step {number}"));
        Span { parent_span_id: self.id::<8>("whole").to_vec(), ..self.span(step.name(), id, (from, to)) }
    }

    /// From the request to its answer's first byte: the time before is its client's.
    fn first_answer(&self) -> Option<Span> {
        let at = |step| self.record.steps.iter().find(|reached| reached.step == step);
        let (came, answered) = (at(Step::Request)?, at(Step::Answer)?);
        Some(self.step(usize::MAX, Step::Answer, came.micros, answered.micros))
    }

    fn span(&self, name: &str, id: [u8; 8], (from, to): (u64, u64)) -> Span {
        let nanos = |micros: u64| self.record.began_micros.saturating_add(micros).saturating_mul(1000);
        Span {
            span_id: id.to_vec(),
            flags: SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32,
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: nanos(from),
            end_time_unix_nano: nanos(to),
            ..Default::default()
        }
    }

    /// An id of `N` bytes that no other timeline has.
    fn id<const N: usize>(&self, of: &str) -> [u8; N] {
        let (kind, began) = (self.record.kind.name(), self.record.began_micros);
        let hash = Sha256::digest(format!("{} {kind} {began} {of}", self.subject.microvm));
        std::array::from_fn(|byte| hash[byte])
    }
}

/// Whether the step comes after the work: it is told of by itself.
fn is_later(step: Step) -> bool {
    matches!(step, Step::Request | Step::Answer)
}

/// The client's span; `None` where its header is not as the standard says.
fn parent(header: &str) -> Option<SpanContext> {
    let carrier = HashMap::from([(TRACE_PARENT.to_owned(), header.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use timeline::Kind;

    use super::*;

    const CLIENTS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn trace(parent: Option<&str>) -> Trace {
        let steps = [
            (Step::Api, 500),
            (Step::Spare, 1500),
            (Step::Shown, 3500),
            (Step::Request, 9000),
            (Step::Answer, 9700),
        ];
        let record = Record {
            kind: Kind::Launch,
            began_micros: 1_000_000,
            parent: parent.map(str::to_owned),
            failed: None,
            steps: steps.map(|(step, micros)| Reached { step, micros }).to_vec(),
        };
        let subject = Subject {
            microvm: "microvm-00000000-0000-4000-8000-000000000001".parse().unwrap(),
            image: "arn:aws:lambda:us-east-1:123456789012:microvm-image:hello".parse().unwrap(),
            version: "2.0".parse().unwrap(),
        };
        Trace { subject, record, part: Part::Work }
    }

    fn text(span: &Span, name: &str) -> String {
        let found = span.attributes.iter().find(|pair| pair.key == name).unwrap();
        match found.value.clone().unwrap().value.unwrap() {
            Value::StringValue(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn steps_are_nested_in_the_whole_follow_each_other_and_add_up() {
        let spans = trace(None).spans();
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["launch", "API", "spare clone", "shown"]);
        let (root, steps) = spans.split_first().unwrap();
        assert_eq!((root.start_time_unix_nano, root.end_time_unix_nano), (1_000_000_000, 1_003_500_000));
        assert!(root.parent_span_id.is_empty());
        let mut at = root.start_time_unix_nano;
        for step in steps {
            assert_eq!(step.start_time_unix_nano, at);
            assert_eq!((&step.parent_span_id, &step.trace_id), (&root.span_id, &root.trace_id));
            at = step.end_time_unix_nano;
        }
        assert_eq!(at, root.end_time_unix_nano);
        let mut ids: Vec<_> = spans.iter().map(|span| span.span_id.clone()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), spans.len());
    }

    #[test]
    fn the_whole_says_of_what_it_is_and_how_it_ended() {
        let mut trace = trace(None);
        let root = trace.spans().remove(0);
        assert_eq!(text(&root, "rekindle.kind"), "launch");
        assert_eq!(text(&root, "faas.instance"), trace.subject.microvm.to_string());
        assert_eq!(text(&root, "cloud.resource_id"), trace.subject.image.to_string());
        assert_eq!((text(&root, "faas.name"), text(&root, "faas.version")), ("hello".into(), "2.0".into()));
        assert_eq!(root.status.unwrap().code(), StatusCode::Ok);
        trace.record.failed = Some("no disk".into());
        let status = trace.spans().remove(0).status.unwrap();
        assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "no disk"));
    }

    #[test]
    fn a_clients_trace_is_continued() {
        let root = trace(Some(CLIENTS)).spans().remove(0);
        assert_eq!(root.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
        assert_eq!(root.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert_eq!(root.kind(), SpanKind::Server);
    }

    #[test]
    fn what_is_no_trace_context_begins_a_new_trace() {
        let new = trace(None).spans();
        for bad in ["", "00-1", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ü"] {
            assert_eq!(trace(Some(bad)).spans(), new, "{bad}");
        }
    }

    #[test]
    fn a_clients_trace_that_is_not_recorded_is_not_exported() {
        let unsampled = CLIENTS.replace("-01", "-00");
        assert_eq!(trace(Some(&unsampled)).spans(), []);
    }

    #[test]
    fn the_first_answer_joins_the_trace_later() {
        for parent in [None, Some(CLIENTS)] {
            let work = trace(parent);
            let later = Trace { part: Part::FirstAnswer, ..work.clone() };
            let (root, spans) = (work.spans().remove(0), later.spans());
            assert_eq!(spans.len(), 1);
            assert_eq!((&spans[0].trace_id, &spans[0].parent_span_id), (&root.trace_id, &root.span_id));
            assert_eq!(
                (spans[0].start_time_unix_nano, spans[0].end_time_unix_nano),
                (1_009_000_000, 1_009_700_000)
            );
        }
    }

    #[test]
    fn two_timelines_share_no_id() {
        let one = trace(None);
        let mut other = one.clone();
        other.record.began_micros += 1;
        let (one, other) = (one.spans().remove(0), other.spans().remove(0));
        assert!(one.trace_id != other.trace_id && one.span_id != other.span_id);
    }
}
