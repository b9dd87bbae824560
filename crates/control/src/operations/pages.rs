//! Pages of listings, and their opaque tokens: where the next page starts, signed for the listing it belongs
//! to.

use api::Error;
use api::rules::MAX_RESULTS;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const SIGNATURE_BYTES: usize = 32;
/// Longest token that is looked at; ours hold one ARN or id.
const MAX_TOKEN_CHARS: usize = 1024;

/// One listing with its filters, at one page.
pub(crate) struct Listing {
    mac: Hmac<Sha256>,
    limit: usize,
    after: Option<String>,
}

impl Listing {
    /// The page that `token` asks for of the listing that `scope` describes: operation, account, filters. A
    /// token is good for its own listing only.
    pub(crate) fn open(
        secret: &[u8; 32],
        scope: &[&str],
        max_results: Option<i64>,
        token: Option<&str>,
    ) -> Result<Self, Error> {
        let limit = usize::try_from(max_results.unwrap_or(MAX_RESULTS)).unwrap_or(1);
        let mut listing = Self { mac: scoped(secret, scope), limit, after: None };
        listing.after = token.map(|token| listing.verify(token)).transpose()?;
        Ok(listing)
    }

    /// The key of the last record before this page.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// How many records to look for: one more than are shown tells whether another page follows.
    pub(crate) fn wanted(&self) -> usize {
        self.limit + 1
    }

    /// The records to show, and the token of the next page.
    pub(crate) fn page<R>(&self, mut found: Vec<R>, key: impl Fn(&R) -> String) -> (Vec<R>, Option<String>) {
        if found.len() <= self.limit {
            return (found, None);
        }
        found.truncate(self.limit);
        let next = found.last().map(|last| self.sign(&key(last)));
        (found, next)
    }

    fn sign(&self, after: &str) -> String {
        let mut token = self.mac.clone().chain_update(after).finalize().into_bytes().to_vec();
        token.extend_from_slice(after.as_bytes());
        URL_SAFE_NO_PAD.encode(token)
    }

    fn verify(&self, token: &str) -> Result<String, Error> {
        let foreign = || {
            Error::validation("The nextToken is not one that this listing gave; list again from the start")
        };
        if token.len() > MAX_TOKEN_CHARS {
            return Err(foreign());
        }
        // Clients may have added the padding that base64 has elsewhere.
        let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| foreign())?;
        let (signature, after) = bytes.split_at_checked(SIGNATURE_BYTES).ok_or_else(foreign)?;
        self.mac.clone().chain_update(after).verify_slice(signature).map_err(|_| foreign())?;
        String::from_utf8(after.to_vec()).map_err(|_| foreign())
    }
}

fn scoped(secret: &[u8; 32], scope: &[&str]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes a key of any length");
    for part in scope {
        // With their lengths, so that no two scopes are the same bytes.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(scope: &[&str], token: Option<&str>) -> Result<Listing, Error> {
        Listing::open(&[7; 32], scope, Some(2), token)
    }

    fn next_of(scope: &[&str]) -> String {
        let listing = open(scope, None).unwrap();
        assert_eq!((listing.wanted(), listing.after()), (3, None));
        let (shown, next) = listing.page(vec!["a", "b", "c"], ToString::to_string);
        assert_eq!(shown, ["a", "b"]);
        next.unwrap()
    }

    #[test]
    fn a_page_leads_to_the_next() {
        let scope = ["List", "123456789012"];
        let listing = open(&scope, Some(&next_of(&scope))).unwrap();
        assert_eq!(listing.after(), Some("b"));
        assert_eq!(listing.page(vec!["c", "d"], ToString::to_string), (vec!["c", "d"], None));
        assert!(open(&scope, Some(&format!("{}=", next_of(&scope)))).is_ok());
    }

    #[test]
    fn a_token_is_good_for_nothing_else() {
        let token = next_of(&["List", "123456789012"]);
        assert!(open(&["List", "123456789013"], Some(&token)).is_err());
        assert!(open(&["List1", "23456789012"], Some(&token)).is_err());
        assert!(Listing::open(&[8; 32], &["List", "123456789012"], None, Some(&token)).is_err());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(open(&["List", "123456789012"], Some(&changed)).is_err(), "{changed}");
        }
        for text in ["", "x", "=", "\u{e9}", &"A".repeat(5000)] {
            assert!(open(&["List"], Some(text)).is_err());
        }
    }
}
