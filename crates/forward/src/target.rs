//! Who is sent to.

use std::collections::BTreeMap;

use logs::{Event, Room};
use otlp::{Line, Lines, LogSink, Printer};

use crate::batch;
use crate::cloudwatch::CloudWatch;
use crate::origin::Origin;

/// Most lines of one request to a collector, and most bytes of them: below what proxies let through without being told.
const OTLP_ROOM: Room = Room { events: 4096, bytes: 512 << 10 };
const CLOUDWATCH_ROOM: Room = Room { events: batch::MAX_EVENTS, bytes: batch::SURE_BYTES };

/// Who is sent to.
#[derive(Debug)]
pub enum Target {
    /// A collector.
    Otlp(LogSink),
    /// CloudWatch Logs.
    CloudWatch(CloudWatch),
}

/// What becomes of events that were not taken.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing can be sent now.
    Away(String),
    /// Nothing of this stream can be sent now.
    Stream(String),
    /// These cannot be sent, now or later.
    Final(String),
}

impl Target {
    /// What its place in streams is called.
    pub(crate) fn reader(&self) -> &'static str {
        match self {
            Self::Otlp(_) => "forwarded-otlp",
            Self::CloudWatch(_) => "forwarded-cloudwatch",
        }
    }

    /// How much of a stream is sent at once.
    pub(crate) fn room(&self) -> Room {
        match self {
            Self::Otlp(_) => OTLP_ROOM,
            Self::CloudWatch(_) => CLOUDWATCH_ROOM,
        }
    }

    /// Whether it is told who has printed what.
    pub(crate) fn wants_printers(&self) -> bool {
        matches!(self, Self::Otlp(_))
    }

    /// Sends events of a stream, and returns once they are taken; how many of them it did not want.
    pub(crate) async fn send(
        &self,
        origin: &Origin,
        region: &str,
        events: &[Event],
        printers: &BTreeMap<u128, Printer>,
    ) -> Result<u64, Failure> {
        match self {
            Self::Otlp(sink) => sink.send(lines(origin, region, events, printers)).await.map_err(|error| {
                let text = error.to_string();
                if error.is_final() { Failure::Final(text) } else { Failure::Away(text) }
            }),
            Self::CloudWatch(service) => service.put(origin, events).await.map_err(|error| {
                let text = error.to_string();
                match (error.is_final(), error.is_of_stream()) {
                    (true, _) => Failure::Final(text),
                    (_, true) => Failure::Stream(text),
                    _ => Failure::Away(text),
                }
            }),
        }
    }
}

/// Events in their order, those together that one printer printed one after the other.
fn lines<'a>(
    origin: &'a Origin,
    region: &'a str,
    events: &[Event],
    printers: &'a BTreeMap<u128, Printer>,
) -> Vec<Lines<'a>> {
    let line = |event: &Event| Line {
        timestamp: event.timestamp,
        ingested: event.ingested,
        text: String::from_utf8_lossy(&event.message).into_owned(),
    };
    let of_printer = |events: &[Event]| Lines {
        account: &origin.account,
        region,
        group: &origin.group,
        stream: &origin.stream,
        printer: events.first().and_then(|event| printers.get(&event.source)),
        lines: events.iter().map(line).collect(),
    };
    events.chunk_by(|one, next| one.source == next.source).map(of_printer).collect()
}

#[cfg(test)]
mod tests {
    use otlp::PrinterKind;

    use super::*;

    #[test]
    fn lines_of_a_shared_stream_keep_their_order_and_their_printers() {
        let event =
            |source: u128, text: &str| Event { timestamp: 1, ingested: 1, source, message: text.into() };
        let events = [event(1, "a"), event(1, "b"), event(0, "c"), event(1, "d")];
        let printer = Printer {
            image: "arn:aws:lambda:us-east-1:123456789012:microvm-image:hello".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            kind: PrinterKind::Microvm(ids::MicrovmId::from_u128(1)),
        };
        let printers = BTreeMap::from([(1, printer)]);
        let (account, group, stream) = ("123456789012".parse().unwrap(), "/g".into(), "s".into());
        let origin = Origin { account, group, stream };
        let lines = lines(&origin, "us-east-1", &events, &printers);
        let seen: Vec<(bool, String)> = lines
            .iter()
            .map(|lines| {
                (lines.printer.is_some(), lines.lines.iter().map(|line| line.text.as_str()).collect())
            })
            .collect();
        assert_eq!(seen, [(true, "ab".into()), (false, "c".into()), (true, "d".into())]);
    }
}
