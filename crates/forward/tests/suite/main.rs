//! Logs that are forwarded to a collector on a port of this host, and to this project's own CloudWatch Logs over HTTP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cloudwatch_peer;
mod collector;
mod denial;

use std::path::Path;

use ids::{AccountId, MicrovmId};
use logs::{Destination, Logs, Quota};
use otlp::{Printer, PrinterKind};
use rekindle_forward::Printers;

pub(crate) const REGION: &str = "us-east-1";
pub(crate) const ACCOUNT: &str = "123456789012";
/// The number of the only MicroVM that is known.
pub(crate) const KNOWN: u128 = 7;

pub(crate) fn open(dir: &Path) -> Logs {
    Logs::open(dir, Quota { stream: 256 << 20, account: 4 << 30 }).unwrap()
}

pub(crate) fn account() -> AccountId {
    ACCOUNT.parse().unwrap()
}

pub(crate) fn print(logs: &Logs, stream: &str, lines: &[&str]) {
    let destination =
        Destination { account: account(), group: "/g".into(), stream: stream.into(), source: KNOWN };
    logs.output(destination).write(lines.iter().map(|line| line.as_bytes().to_vec()).collect()).unwrap();
}

/// Knows one MicroVM.
pub(crate) struct One;

impl Printers for One {
    fn find(&self, source: u128) -> Option<Printer> {
        (source == KNOWN).then(|| Printer {
            image: "arn:aws:lambda:us-east-1:123456789012:microvm-image:hello".parse().unwrap(),
            version: "2.0".parse().unwrap(),
            kind: PrinterKind::Microvm(MicrovmId::from_u128(source)),
        })
    }
}
