//! Where events come from.

use ids::AccountId;
use otlp::Printer;

/// The stream that events are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whose it is.
    pub account: AccountId,
    /// The log group.
    pub group: String,
    /// The log stream.
    pub stream: String,
}

/// Knows who prints.
pub trait Printers: Send + Sync + 'static {
    /// Who has this number as its id; `None` where that is not known, or not any more. May read files.
    fn find(&self, source: u128) -> Option<Printer>;
}
