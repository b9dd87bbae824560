//! Timelines as OpenTelemetry traces, and lines of logs as log records, sent to a collector over OTLP/HTTP. Whoever exports a
//! timeline does not wait for it, and nothing fails because a collector does.

mod attributes;
mod client;
mod exporter;
mod records;
mod settings;
mod sink;
mod spans;

pub use client::{HttpClient, SendError, StartError};
pub use exporter::Exporter;
pub use records::{Line, Lines, Printer, PrinterKind};
pub use settings::{Settings, SettingsError, Target};
pub use sink::{LogSink, PostError, SinkError};
pub use spans::{Part, Subject, Trace};
