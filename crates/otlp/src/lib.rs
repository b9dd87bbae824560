//! Timelines as OpenTelemetry traces, sent to a collector over OTLP/HTTP. Whoever exports one does not wait for it, and
//! nothing fails because a collector does.

mod exporter;
mod settings;
mod spans;

pub use exporter::{Exporter, StartError};
pub use settings::{Settings, SettingsError, Target};
pub use spans::{Part, Subject, Trace};
