//! Lines of logs as OpenTelemetry's log records. Pure.

use ids::{AccountId, BuildId, ImageArn, ImageVersion, MicrovmId};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::attributes;

/// Whose lines they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printer {
    /// The image that it is a clone of, or that it builds.
    pub image: ImageArn,
    /// Which version.
    pub version: ImageVersion,
    /// What it is.
    pub kind: PrinterKind,
}

/// What prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrinterKind {
    /// The application of a MicroVM.
    Microvm(MicrovmId),
    /// A build, with its application.
    Build(BuildId),
}

/// Lines of one printer, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines<'a> {
    /// Whose log it is.
    pub account: &'a AccountId,
    /// The server's region.
    pub region: &'a str,
    /// The log group.
    pub group: &'a str,
    /// The log stream.
    pub stream: &'a str,
    /// Who printed them, where that is known still.
    pub printer: Option<&'a Printer>,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it happened, in milliseconds of Unix time.
    pub timestamp: u64,
    /// When it was taken, likewise.
    pub ingested: u64,
    /// What it says.
    pub text: String,
}

/// What is posted to a collector. Their service is the image, or the log group where that is not known, unless another
/// name is set.
pub(crate) fn request(service_name: Option<&str>, lines: Vec<Lines<'_>>) -> ExportLogsServiceRequest {
    let of_resource = |lines: Lines<'_>| ResourceLogs {
        resource: Some(resource(service_name, &lines)),
        scope_logs: vec![ScopeLogs {
            scope: Some(attributes::scope()),
            log_records: lines.lines.into_iter().map(record).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    ExportLogsServiceRequest { resource_logs: lines.into_iter().map(of_resource).collect() }
}

fn resource(service_name: Option<&str>, of: &Lines<'_>) -> Resource {
    let image = of.printer.map(|printer| printer.image.name.to_string());
    let service = service_name.map(str::to_owned).or(image).unwrap_or_else(|| of.group.to_owned());
    let mut all = attributes::texts([
        ("service.name", service),
        ("cloud.account.id", of.account.to_string()),
        ("cloud.region", of.region.to_owned()),
    ]);
    all.extend([
        attributes::list_of("aws.log.group.names", of.group),
        attributes::list_of("aws.log.stream.names", of.stream),
    ]);
    if let Some(Printer { image, version, kind }) = of.printer {
        all.extend(attributes::image(image, *version));
        all.extend(attributes::texts([match kind {
            PrinterKind::Microvm(id) => ("faas.instance", id.to_string()),
            PrinterKind::Build(id) => ("rekindle.build.id", id.to_string()),
        }]));
    }
    Resource { attributes: all, ..Default::default() }
}

fn record(line: Line) -> LogRecord {
    let nanos = |millis: u64| millis.saturating_mul(1_000_000);
    LogRecord {
        time_unix_nano: nanos(line.timestamp),
        observed_time_unix_nano: nanos(line.ingested),
        body: Some(AnyValue { value: Some(Value::StringValue(line.text)) }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(resource: &Resource) -> Vec<(&str, String)> {
        let text = |value: &AnyValue| match value.value.clone().unwrap() {
            Value::StringValue(text) => text,
            Value::ArrayValue(list) => format!("{:?}", list.values.len()),
            other => panic!("{other:?}"),
        };
        resource
            .attributes
            .iter()
            .map(|pair| (pair.key.as_str(), text(pair.value.as_ref().unwrap())))
            .collect()
    }

    #[test]
    fn a_resource_says_where_lines_are_kept_and_who_printed_them() {
        let (account, image) = ("123456789012", "arn:aws:lambda:us-east-1:123456789012:microvm-image:hello");
        let microvm = "microvm-00000000-0000-4000-8000-000000000001";
        let printer = Printer {
            image: image.parse().unwrap(),
            version: "2.0".parse().unwrap(),
            kind: PrinterKind::Microvm(microvm.parse().unwrap()),
        };
        let account_id = account.parse().unwrap();
        let line = Line { timestamp: 3, ingested: 4, text: "é".into() };
        let lines = |printer| Lines {
            account: &account_id,
            region: "us-east-1",
            group: "/g",
            stream: "s",
            printer,
            lines: vec![line.clone()],
        };
        let request = request(None, vec![lines(Some(&printer)), lines(None)]);
        let [known, unknown] = &request.resource_logs[..] else { panic!("{request:?}") };
        let known_texts = texts(known.resource.as_ref().unwrap());
        for (name, value) in [
            ("service.name", "hello"),
            ("cloud.account.id", account),
            ("cloud.region", "us-east-1"),
            ("aws.log.group.names", "1"),
            ("aws.log.stream.names", "1"),
            ("faas.name", "hello"),
            ("faas.version", "2.0"),
            ("faas.instance", microvm),
            ("cloud.resource_id", image),
        ] {
            assert!(known_texts.contains(&(name, value.to_owned())), "{name} in {known_texts:?}");
        }
        assert_eq!(known_texts.len(), 9);
        assert!(texts(unknown.resource.as_ref().unwrap()).contains(&("service.name", "/g".to_owned())));
        let record = &known.scope_logs[0].log_records[0];
        assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (3_000_000, 4_000_000));
        assert_eq!(record.body.as_ref().unwrap().value, Some(Value::StringValue("é".into())));
    }

    #[test]
    fn a_set_name_is_the_service_of_all() {
        let account = "123456789012".parse().unwrap();
        let (printer, lines) = (None, vec![]);
        let lines = Lines { account: &account, region: "r", group: "/g", stream: "s", printer, lines };
        let request = request(Some("all"), vec![lines]);
        let resource = request.resource_logs[0].resource.as_ref().unwrap();
        assert!(texts(resource).contains(&("service.name", "all".to_owned())));
    }
}
