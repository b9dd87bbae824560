//! Every parser of bytes that a client or a guest sends, each behind a function that takes any bytes, calls it and
//! asserts what must hold of whatever it made of them.
//!
//! `fuzz/` searches for bytes that break one of them; the bytes that it kept are a test of this crate.

#![expect(clippy::unwrap_used, reason = "a panic is how an entry tells what it found")]

#[cfg(feature = "dns")]
mod dns;
#[cfg(feature = "endpoints")]
mod endpoints;
#[cfg(feature = "guests")]
mod guests;
#[cfg(feature = "listings")]
mod listings;
#[cfg(feature = "logs")]
mod logs;
#[cfg(feature = "names")]
mod names;
#[cfg(feature = "policies")]
mod policies;
#[cfg(feature = "request")]
mod request;
#[cfg(feature = "signatures")]
mod signatures;

/// What is fed to a parser.
pub type Entry = fn(&[u8]);

/// Every entry, as far as its module is a feature of the build, by the name of its fuzz target, which is the folder of its
/// corpus too.
pub const ENTRIES: &[(&str, Entry)] = &[
    #[cfg(feature = "guests")]
    ("artifact", guests::artifact),
    #[cfg(feature = "endpoints")]
    ("authority", endpoints::authority),
    #[cfg(feature = "request")]
    ("call", request::call),
    #[cfg(feature = "endpoints")]
    ("cookie", endpoints::cookie),
    #[cfg(feature = "dns")]
    ("dns", dns::dns),
    #[cfg(feature = "guests")]
    ("frame", guests::frame),
    #[cfg(feature = "names")]
    ("ids", names::ids),
    #[cfg(feature = "logs")]
    ("lines", logs::lines),
    #[cfg(feature = "logs")]
    ("logs_page", logs::page),
    #[cfg(feature = "logs")]
    ("logs_pattern", logs::pattern),
    #[cfg(feature = "guests")]
    ("metadata", guests::metadata),
    #[cfg(feature = "listings")]
    ("page", listings::page),
    #[cfg(feature = "policies")]
    ("policy", policies::policy),
    #[cfg(feature = "request")]
    ("route", request::route),
    #[cfg(feature = "endpoints")]
    ("shell", endpoints::shell),
    #[cfg(feature = "signatures")]
    ("sigv4", signatures::sigv4),
    #[cfg(feature = "endpoints")]
    ("token", endpoints::token),
];

/// The entry of this name, for a fuzz target.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn entry(name: &str) -> Entry {
    let found = ENTRIES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no parser is called {name}")).1
}
