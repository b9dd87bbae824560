//! What builds and applications print, on its way to AWS's CloudWatch Logs or to an OTLP collector. What waits is on the disk,
//! where logs are kept anyway, and beside each stream is noted how far it was sent: nobody who prints waits for whoever is
//! sent to, and whoever is away, or a server that is restarted, costs nothing but time. Events are sent once more where it is
//! not known whether they were taken. They are lost where the stream's limits or its retention remove them first, which the
//! server's log counts, or where the stream itself is removed.

mod batch;
mod cloudwatch;
mod follow;
mod origin;
mod pump;
mod settings;
mod target;

pub use cloudwatch::{CloudWatch, OpenError};
pub use origin::{Origin, Printers};
pub use pump::Forwarder;
pub use settings::{CloudWatchSettings, SettingsError};
pub use target::Target;
