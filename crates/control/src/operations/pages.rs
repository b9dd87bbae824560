//! Pages of listings, and their opaque tokens: where the next page starts and until when it may be asked for, signed
//! for the listing it belongs to (SPEC §2.6).

use api::Error;
use api::rules::MAX_RESULTS;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// How long a token leads to its page.
pub const TOKEN_LIFE_MS: u64 = 24 * 3600 * 1000;
const SIGNATURE_BYTES: usize = 32;
const EXPIRY_BYTES: usize = 8;
/// Longest token that is looked at; ours hold one ARN or id.
const MAX_TOKEN_CHARS: usize = 1024;

/// One listing with its filters, at one page.
#[derive(Debug)]
pub struct Listing {
    mac: Hmac<Sha256>,
    limit: usize,
    now: u64,
    after: Option<String>,
}

impl Listing {
    /// The page that `token` asks for, at the moment `now` in milliseconds, of the listing that `scope` describes:
    /// operation, account, filters. A token is good for its own listing only.
    ///
    /// # Errors
    /// A ValidationException where the token is another listing's, altered, or older than [`TOKEN_LIFE_MS`].
    pub fn open(
        secret: &[u8; 32],
        scope: &[&str],
        max_results: Option<i64>,
        token: Option<&str>,
        now: u64,
    ) -> Result<Self, Error> {
        let limit = usize::try_from(max_results.unwrap_or(MAX_RESULTS)).unwrap_or(1);
        let mut listing = Self { mac: scoped(secret, scope), limit, now, after: None };
        listing.after = token.map(|token| listing.verify(token)).transpose()?;
        Ok(listing)
    }

    /// The key of the last record before this page.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// How many records to look for: one more than are shown tells whether another page follows.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.limit + 1
    }

    /// The records to show, and the token of the next page.
    #[must_use]
    pub fn page<R>(&self, found: Vec<R>, key: impl Fn(&R) -> String) -> (Vec<R>, Option<String>) {
        let (shown, last) = self.cut(found, key);
        (shown, last.map(|last| self.sign(&last)))
    }

    /// The records to show, and the key of the last, where another page follows.
    pub(crate) fn cut<R>(&self, mut found: Vec<R>, key: impl Fn(&R) -> String) -> (Vec<R>, Option<String>) {
        if found.len() <= self.limit {
            return (found, None);
        }
        found.truncate(self.limit);
        let last = found.last().map(key);
        (found, last)
    }

    /// What tells this page of the listing of `scope` from every other, whenever it is asked for.
    pub(crate) fn key(&self, scope: &[&str]) -> String {
        // With their lengths, as in `scoped`: no two listings have one key, whatever is in their parts.
        let scope: String = scope.iter().map(|part| format!("{} {part}\n", part.len())).collect();
        format!("{scope}{} {}", self.limit, self.after.as_deref().unwrap_or_default())
    }

    /// The token of the page that follows the record with this key.
    pub(crate) fn sign(&self, after: &str) -> String {
        let expiry = (self.now + TOKEN_LIFE_MS).to_be_bytes();
        let mac = self.mac.clone().chain_update(expiry).chain_update(after);
        let mut token = mac.finalize().into_bytes().to_vec();
        token.extend_from_slice(&expiry);
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
        let (signature, signed) = bytes.split_at_checked(SIGNATURE_BYTES).ok_or_else(foreign)?;
        self.mac.clone().chain_update(signed).verify_slice(signature).map_err(|_| foreign())?;
        let (expiry, after) = signed.split_first_chunk::<EXPIRY_BYTES>().ok_or_else(foreign)?;
        if self.now >= u64::from_be_bytes(*expiry) {
            return Err(Error::validation("The nextToken has expired; list again from the start"));
        }
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

    const NOW: u64 = 1_800_000_000_000;

    fn open(scope: &[&str], token: Option<&str>) -> Result<Listing, Error> {
        open_at(NOW, scope, token)
    }

    fn open_at(now: u64, scope: &[&str], token: Option<&str>) -> Result<Listing, Error> {
        Listing::open(&[7; 32], scope, Some(2), token, now)
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
    fn no_two_pages_have_one_key() {
        let key = |scope: &[&str]| open(scope, None).unwrap().key(scope);
        assert_eq!(key(&["List", "a"]), key(&["List", "a"]));
        for other in [&["List", "a", ""][..], &["List\na"], &["Lis", "ta"], &["List", "a\n2 "]] {
            assert_ne!(key(&["List", "a"]), key(other), "{other:?}");
        }
        let scope = ["List", "123456789012"];
        assert_ne!(key(&scope), open(&scope, Some(&next_of(&scope))).unwrap().key(&scope));
    }

    #[test]
    fn a_token_expires_in_words() {
        let scope = ["List", "123456789012"];
        let token = next_of(&scope);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        assert!(open_at(NOW + TOKEN_LIFE_MS - 1, &scope, Some(&token)).is_ok());
        let refused = open_at(NOW + TOKEN_LIFE_MS, &scope, Some(&token)).unwrap_err();
        assert_eq!(refused.kind, api::ErrorKind::Validation);
        assert!(refused.message.contains("expired"), "{refused}");
    }

    #[test]
    fn a_token_is_good_for_nothing_else() {
        let token = next_of(&["List", "123456789012"]);
        assert!(open(&["List", "123456789013"], Some(&token)).is_err());
        assert!(open(&["List1", "23456789012"], Some(&token)).is_err());
        assert!(Listing::open(&[8; 32], &["List", "123456789012"], None, Some(&token), NOW).is_err());
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
