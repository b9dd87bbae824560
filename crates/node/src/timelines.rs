//! Where the timelines of a MicroVM go: into its directory, and to a collector of traces where there is one.

use std::path::PathBuf;

use otlp::{Exporter, Part, Subject, Trace};
use timeline::Record;
use tokio::task::spawn_blocking;

/// Of one MicroVM. Nothing here waits, and what fails is only logged.
#[derive(Debug, Clone)]
pub(crate) struct Timelines {
    pub(crate) dir: PathBuf,
    pub(crate) subject: Subject,
    pub(crate) exporter: Option<Exporter>,
}

impl Timelines {
    /// A launch, wake, suspension or termination is over. Of a termination nothing is kept: the directory is gone.
    pub(crate) fn done(&self, record: Record) {
        tracing::debug!(microvm = %self.subject.microvm, "{record}");
        self.export(&record, Part::Work);
        self.keep(record);
    }

    /// The life that a launch or a wake began has given its first answer.
    pub(crate) fn answered(&self, record: Record) {
        self.export(&record, Part::FirstAnswer);
        self.keep(record);
    }

    fn export(&self, record: &Record, part: Part) {
        if let Some(exporter) = &self.exporter {
            exporter.export(Trace { subject: self.subject.clone(), record: record.clone(), part });
        }
    }

    fn keep(&self, record: Record) {
        let dir = self.dir.clone();
        spawn_blocking(move || {
            if let Err(error) = timeline::file::keep(&dir, record) {
                tracing::warn!(%error, "cannot keep where the time went");
            }
        });
    }
}
