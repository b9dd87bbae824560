//! Who printed a line, by the records.

use forward::Printers;
use ids::{BuildId, MicrovmId};
use otlp::{Printer, PrinterKind};
use store::{Store, StoreError};

/// Finds MicroVMs and builds for as long as they are listed.
pub(crate) struct Recorded(pub(crate) Store);

impl Recorded {
    fn look(&self, source: u128) -> Result<Option<Printer>, StoreError> {
        if let Some(microvm) = self.0.microvm(MicrovmId::from_u128(source))? {
            let (image, version) = (microvm.image.clone(), microvm.version);
            return Ok(Some(Printer { image, version, kind: PrinterKind::Microvm(microvm.id) }));
        }
        let build = self.0.read(|tx| tx.build(BuildId::from_u128(source)))?;
        Ok(build.map(|build| Printer {
            image: build.image,
            version: build.version,
            kind: PrinterKind::Build(build.id),
        }))
    }
}

impl Printers for Recorded {
    fn find(&self, source: u128) -> Option<Printer> {
        self.look(source).unwrap_or_else(|error| {
            tracing::warn!(%error, "lines are forwarded without who printed them");
            None
        })
    }
}
