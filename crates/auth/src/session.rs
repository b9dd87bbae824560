//! Temporary credentials that need no storage: the secret follows from the access key id, and the session token
//! holds everything else, sealed. Only this installation can make or read them.

use std::fmt;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The longest session token that is looked at.
pub const MAX_SESSION_TOKEN_CHARS: usize = 16 * 1024;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// 40 characters of base64, as a long-lived key has.
const SECRET_BYTES: usize = 30;

/// The key behind all temporary credentials.
#[derive(Clone)]
pub struct SessionKey {
    cipher: Aes256Gcm,
    secrets: [u8; 32],
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey").finish_non_exhaustive()
    }
}

impl SessionKey {
    /// Derives the key from a secret of the installation.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let cipher = Aes256Gcm::new(&derive(&secret, b"rekindle session: token").into());
        Self { cipher, secrets: derive(&secret, b"rekindle session: secret access keys") }
    }

    /// The secret access key that goes with a temporary access key id.
    #[must_use]
    pub fn secret(&self, access_key_id: &str) -> String {
        STANDARD.encode(&derive(&self.secrets, access_key_id.as_bytes())[..SECRET_BYTES])
    }

    /// A secret that follows from `group` and the installation: 44 characters of base64.
    #[must_use]
    pub fn group_key(&self, group: &str) -> String {
        STANDARD.encode(derive(&self.secrets, format!("instance group: {group}").as_bytes()))
    }

    /// A session token with these claims, good for this access key id alone.
    ///
    /// # Panics
    /// If the system has no source of random numbers, without which no token would be safe.
    #[must_use]
    pub fn seal(&self, access_key_id: &str, claims: &[u8]) -> String {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the system's random source works");
        let mut text = claims.to_vec();
        let tag = self
            .cipher
            .encrypt_in_place_detached(Nonce::from_slice(&nonce), access_key_id.as_bytes(), &mut text)
            .expect("claims are far below the cipher's limit of 64 GiB");
        STANDARD.encode([&nonce, text.as_slice(), &tag].concat())
    }

    /// The claims of a token that was sealed here for this access key id.
    #[must_use]
    pub fn open(&self, access_key_id: &str, token: &str) -> Option<Vec<u8>> {
        if token.len() > MAX_SESSION_TOKEN_CHARS {
            return None;
        }
        let sealed = STANDARD.decode(token).ok()?;
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut text = text.to_vec();
        self.cipher
            .decrypt_in_place_detached(
                Nonce::from_slice(nonce),
                access_key_id.as_bytes(),
                &mut text,
                Tag::from_slice(tag),
            )
            .ok()?;
        Some(text)
    }
}

fn derive(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(purpose);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SessionKey {
        SessionKey::from_secret([7; 32])
    }

    #[test]
    fn a_token_opens_with_its_own_key_and_id_alone() {
        let token = key().seal("ASIA1", b"claims");
        assert_eq!(key().open("ASIA1", &token).as_deref(), Some(&b"claims"[..]));
        assert_eq!(key().open("ASIA2", &token), None);
        assert_eq!(SessionKey::from_secret([8; 32]).open("ASIA1", &token), None);
        assert_ne!(key().seal("ASIA1", b"claims"), token);
        assert_eq!(key().open("ASIA1", &"A".repeat(MAX_SESSION_TOKEN_CHARS + 4)), None);
    }

    #[test]
    fn a_secret_follows_from_its_id_and_the_installation() {
        let secret = key().secret("ASIA1");
        assert_eq!((secret.len(), &key().secret("ASIA1")), (40, &secret));
        assert_ne!(key().secret("ASIA2"), secret);
        assert_ne!(SessionKey::from_secret([8; 32]).secret("ASIA1"), secret);
        assert_eq!(key().group_key("web").len(), 44);
        assert_ne!(key().group_key("web"), key().group_key("other"));
        assert!(!format!("{:?}", key()).contains('7'));
    }

    proptest! {
        #[test]
        fn no_text_and_no_changed_token_opens(text in "\\PC{0,200}|[A-Za-z0-9+/]{0,80}", at in 0usize..40, to in "[A-Za-z0-9+/]") {
            prop_assert_eq!(key().open("ASIA1", &text), None);
            let before = key().seal("ASIA1", b"claims");
            let mut token = before.clone();
            token.replace_range(at..=at, &to);
            if token != before {
                prop_assert_eq!(key().open("ASIA1", &token), None);
            }
        }
    }
}
