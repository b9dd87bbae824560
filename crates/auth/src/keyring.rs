//! The keys of endpoint tokens, as they are replaced: new tokens are sealed with the newest, and those under the one
//! before are good until they expire.

use std::fmt;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::token::{Scope, TokenError, TokenKey};

/// Keys that a server seals and opens tokens with. Clones share them, also when they are replaced.
#[derive(Clone)]
pub struct TokenKeyring(Arc<ArcSwap<Keys>>);

struct Keys {
    current: TokenKey,
    previous: Option<TokenKey>,
}

impl Keys {
    fn open(&self, token: &str, now_unix: u64) -> Result<Scope, TokenError> {
        match (self.current.open(token, now_unix), &self.previous) {
            (Err(TokenError::NotIssuedHere), Some(previous)) => previous.open(token, now_unix),
            (opened, _) => opened,
        }
    }
}

/// The token that was opened last, for a connection whose client shows the same one with each request.
#[derive(Default)]
pub struct LastOpened(Mutex<Option<Opened>>);

struct Opened {
    /// Those that it was opened with.
    keys: Arc<Keys>,
    token: Box<str>,
    scope: Scope,
}

impl fmt::Debug for LastOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastOpened").finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.0.load();
        f.debug_struct("TokenKeyring").field("current", &keys.current).finish_non_exhaustive()
    }
}

impl From<TokenKey> for TokenKeyring {
    fn from(key: TokenKey) -> Self {
        Self::new(key, None)
    }
}

impl TokenKeyring {
    /// Of these keys.
    #[must_use]
    pub fn new(current: TokenKey, previous: Option<TokenKey>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Keys { current, previous })))
    }

    /// Uses these from now on. What is sealed under any other key opens nothing any more.
    pub fn replace(&self, current: TokenKey, previous: Option<TokenKey>) {
        self.0.store(Arc::new(Keys { current, previous }));
    }

    /// A token for `scope`, under the newest key.
    ///
    /// # Panics
    /// Like [`TokenKey::seal`].
    #[must_use]
    pub fn seal(&self, scope: &Scope) -> String {
        self.0.load().current.seal(scope)
    }

    /// What `token` grants at `now_unix`, under either key.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn open(&self, token: &str, now_unix: u64) -> Result<Scope, TokenError> {
        self.0.load().open(token, now_unix)
    }

    /// The same, and quicker for the token that `last` has been given, as long as the keys are the same ones.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn open_again(&self, last: &LastOpened, token: &str, now_unix: u64) -> Result<Scope, TokenError> {
        let keys = self.0.load();
        // A panic while the lock was held cannot leave half of one.
        let mut last = last.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref().filter(|last| Arc::ptr_eq(&last.keys, &keys) && same(&last.token, token));
        if let Some(Opened { scope, .. }) = known {
            return if now_unix < scope.expires_at { Ok(scope.clone()) } else { Err(TokenError::Expired) };
        }
        let scope = keys.open(token, now_unix)?;
        *last = Some(Opened { keys: Arc::clone(&keys), token: token.into(), scope: scope.clone() });
        Ok(scope)
    }
}

/// Takes the same time wherever they differ.
fn same(one: &str, other: &str) -> bool {
    let differ = |differ, (one, other): (&u8, &u8)| differ | (one ^ other);
    let differ = one.as_bytes().iter().zip(other.as_bytes()).fold(0, differ);
    one.len() == other.len() && black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use ids::MicrovmId;

    use super::*;
    use crate::token::Ports;

    #[test]
    fn a_token_is_good_under_the_key_before_and_under_none_older() {
        let key = |secret| TokenKey::from_secret([secret; 32]);
        let scope = Scope { microvm: MicrovmId::random(), ports: Ports::All, expires_at: 2_000_000_000 };
        let keys = TokenKeyring::from(key(1));
        let shared = keys.clone();
        let first = keys.seal(&scope);

        shared.replace(key(2), Some(key(1)));
        let second = keys.seal(&scope);
        let kid = |token: &str| token.split('.').next().map(str::to_owned);
        assert_ne!(kid(&first), kid(&second));
        assert_eq!((keys.open(&first, 0), keys.open(&second, 0)), (Ok(scope.clone()), Ok(scope.clone())));
        assert_eq!(keys.open(&first, scope.expires_at), Err(TokenError::Expired));

        shared.replace(key(3), Some(key(2)));
        assert_eq!(keys.open(&first, 0), Err(TokenError::NotIssuedHere));
        assert_eq!(keys.open(&second, 0), Ok(scope));

        shared.replace(key(4), None);
        assert_eq!(keys.open(&second, 0), Err(TokenError::NotIssuedHere));
    }

    #[test]
    fn the_token_that_was_opened_last_is_good_no_longer_than_it_would_be() {
        let key = |secret| TokenKey::from_secret([secret; 32]);
        let scope = Scope { microvm: MicrovmId::random(), ports: Ports::All, expires_at: 2_000_000_000 };
        let (keys, last) = (TokenKeyring::from(key(1)), LastOpened::default());
        let token = keys.seal(&scope);
        let open = |token: &str, now| keys.open_again(&last, token, now);

        assert_eq!((open(&token, 0), open(&token, 0)), (Ok(scope.clone()), Ok(scope.clone())));
        assert_eq!(open(&token, scope.expires_at), Err(TokenError::Expired));
        // What differs is opened anew, and leaves what is known.
        for at in [0, token.len() / 2, token.len() - 1] {
            let mut other = token.clone();
            let to = if other.as_bytes()[at] == b'A' { "B" } else { "A" };
            other.replace_range(at..=at, to);
            assert!(open(&other, 0).is_err());
        }
        assert!(open(&token[..token.len() - 1], 0).is_err() && open("", 0).is_err());
        assert_eq!(open(&token, 0), Ok(scope.clone()));
        let other = Scope { microvm: MicrovmId::random(), ..scope.clone() };
        assert_eq!(open(&keys.seal(&other), 0), Ok(other));

        assert_eq!(open(&token, 0), Ok(scope));
        keys.replace(key(2), None);
        assert_eq!(open(&token, 0), Err(TokenError::NotIssuedHere));
    }
}
