//! Every parser of bytes that a client or a guest sends, each behind a function that takes any bytes, calls it and
//! asserts what must hold of whatever it made of them.
//!
//! `fuzz/` searches for bytes that break one of them; the bytes that it kept are a test of this crate.

#![expect(clippy::unwrap_used, reason = "a panic is how an entry tells what it found")]

mod dns;
mod endpoints;
mod guests;
mod listings;
mod logs;
mod names;
mod policies;
mod request;
mod signatures;

/// What is fed to a parser.
pub type Entry = fn(&[u8]);

/// Every entry by the name of its fuzz target, which is the folder of its corpus too.
pub const ENTRIES: [(&str, Entry); 17] = [
    ("artifact", guests::artifact),
    ("authority", endpoints::authority),
    ("call", request::call),
    ("cookie", endpoints::cookie),
    ("dns", dns::dns),
    ("frame", guests::frame),
    ("ids", names::ids),
    ("lines", logs::lines),
    ("logs_page", logs::page),
    ("logs_pattern", logs::pattern),
    ("metadata", guests::metadata),
    ("page", listings::page),
    ("policy", policies::policy),
    ("route", request::route),
    ("shell", endpoints::shell),
    ("sigv4", signatures::sigv4),
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
