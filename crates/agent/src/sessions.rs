//! The session with the host, for whoever asks it something.

use agent_proto::guest::Host;
use tokio::sync::watch;

/// It, while there is one.
pub(crate) type Sessions = watch::Receiver<Option<Host>>;
