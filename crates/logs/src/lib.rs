//! What builds and applications print, kept as CloudWatch Logs keeps it: accounts have groups, groups have streams,
//! streams have events.
//!
//! ```text
//! <dir>/<account>/<hash of the group's name>/group.json
//!                                           /<hash of the stream's name>/stream.json
//!                                                                       /<first event>….seg, <first event>.open
//!                                                                       /<reader>.json
//! ```
//!
//! An event is written once, with `write(2)` and no wait for the disk: a killed server loses none, a power cut the last
//! few. One server writes; any process may read meanwhile ([`Follower`]). The bytes are the tenant's and are kept as they
//! came; whoever shows them escapes them.

mod cursor;
mod destination;
mod error;
mod follower;
mod group;
mod json_file;
mod lines;
mod output;
mod permission;
mod record;
mod retention;
mod search;
mod segment;
mod store;
mod stream;

pub use cursor::{Ahead, Cursor};
pub use destination::{Destination, default_group, stream_name};
pub use error::{CreateError, LogError};
pub use follower::{Follower, Room};
pub use group::{Group, GroupInfo};
pub use lines::{Lines, MAX_LINE};
pub use output::Output;
pub use permission::permitted;
pub use record::{Event, Line, MAX_MESSAGE, STORE};
pub use retention::{DAYS as RETENTION_DAYS, cutoff};
pub use search::{Found, Key, Page, Search, Toward, search};
pub use store::{Logs, MAX_GROUPS, Quota, now_ms};
pub use stream::{Stream, StreamInfo};
