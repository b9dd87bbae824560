//! The keys of endpoint tokens, as they are replaced: new tokens are sealed with the newest, and those under the one
//! before are good until they expire.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::token::{Scope, TokenError, TokenKey};

/// Keys that a server seals and opens tokens with. Clones share them, also when they are replaced.
#[derive(Clone)]
pub struct TokenKeyring(Arc<ArcSwap<Keys>>);

struct Keys {
    current: TokenKey,
    previous: Option<TokenKey>,
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
        let keys = self.0.load();
        match (keys.current.open(token, now_unix), &keys.previous) {
            (Err(TokenError::NotIssuedHere), Some(previous)) => previous.open(token, now_unix),
            (opened, _) => opened,
        }
    }
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
}
