//! The tokens of listings' pages.

use api::ErrorKind;
use control::operations::pages::{Listing, TOKEN_LIFE_MS};

/// What the corpus's authentic tokens were signed with, when, and for which listing.
const SECRET: [u8; 32] = [5; 32];
const NOW: u64 = 1_800_000_000_000;
const SCOPE: [&str; 2] = ["ListMicrovms", "123456789012"];

pub(crate) fn page(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let open = |scope: &[&str], token, now| Listing::open(&SECRET, scope, Some(1), token, now);
    match open(&SCOPE, Some(text), NOW) {
        Ok(listing) => {
            let after = listing.after().unwrap_or_default();
            assert!(open(&SCOPE, Some(text), NOW + TOKEN_LIFE_MS).is_err(), "a token that does not expire");
            assert!(open(&SCOPE[..1], Some(text), NOW).is_err(), "a token of two listings");
            let (_, next) = listing.page(vec![after, ""], ToString::to_string);
            assert_eq!(open(&SCOPE, next.as_deref(), NOW).unwrap().after(), Some(after));
        }
        Err(refused) => assert_eq!(refused.kind, ErrorKind::Validation),
    }
}
