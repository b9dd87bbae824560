//! Access keys and the ids of their owners: made at random, in the shape that AWS's tools expect.

use std::fmt;

use ids::AccountId;

/// Characters of an access key id, its prefix included.
pub const ID_CHARS: usize = 20;
/// Characters of a secret access key.
pub const SECRET_CHARS: usize = 40;
/// How the id of a long-lived access key begins.
pub const LONG_LIVED: &str = "AKIA";
/// How the id of a temporary access key begins.
pub const TEMPORARY: &str = "ASIA";
/// Characters of the unique id of a user, a role or a policy, its prefix included.
const UNIQUE_ID_CHARS: usize = 21;
/// Account ids have 12 digits and do not begin with 0, which some tools drop.
const ACCOUNT_IDS: std::ops::Range<u64> = 100_000_000_000..1_000_000_000_000;
/// 32 letters, so that 5 random bits choose one without bias.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// 64 letters, for 6 bits.
const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// An access key: a public id and the secret that signs.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// `AKIA…`, 20 characters.
    pub id: String,
    /// 40 characters, 240 bits.
    pub secret: String,
}

/// The random source of the system gave nothing.
#[derive(Debug, thiserror::Error)]
#[error(
    "making keys and ids: the system's random source failed ({0}); check that getrandom(2) is allowed here"
)]
pub struct GenerateError(getrandom::Error);

impl AccessKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system has no source of random numbers.
    pub fn generate() -> Result<Self, GenerateError> {
        Ok(Self { id: id(LONG_LIVED, ID_CHARS)?, secret: pick(SECRET_ALPHABET, SECRET_CHARS)? })
    }
}

/// The id of a new temporary access key.
///
/// # Errors
/// If the system has no source of random numbers.
pub fn temporary_id() -> Result<String, GenerateError> {
    id(TEMPORARY, ID_CHARS)
}

/// A new unique id; its prefix tells of what: `AIDA` a user, `AROA` a role, `ANPA` a policy.
///
/// # Errors
/// If the system has no source of random numbers.
pub fn unique_id(prefix: &str) -> Result<String, GenerateError> {
    id(prefix, UNIQUE_ID_CHARS)
}

/// The id of a new account.
///
/// # Errors
/// If the system has no source of random numbers.
///
/// # Panics
/// Never: 12 digits are an account id.
pub fn account_id() -> Result<AccountId, GenerateError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(GenerateError)?;
    let span = ACCOUNT_IDS.end - ACCOUNT_IDS.start;
    let id = ACCOUNT_IDS.start + u64::from_le_bytes(random) % span;
    Ok(id.to_string().parse().expect("a number of 12 digits is an account id"))
}

/// Whether `text` has the shape of an access key id that begins with `prefix`.
#[must_use]
pub fn is_id(text: &str, prefix: &str) -> bool {
    text.len() == ID_CHARS
        && text.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|byte| ID_ALPHABET.contains(&byte)))
}

fn id(prefix: &str, chars: usize) -> Result<String, GenerateError> {
    Ok(prefix.to_owned() + &pick(ID_ALPHABET, chars.saturating_sub(prefix.len()))?)
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// `count` letters of `alphabet`, whose length divides 256.
fn pick(alphabet: &[u8], count: usize) -> Result<String, GenerateError> {
    let mut random = vec![0; count];
    getrandom::fill(&mut random).map_err(GenerateError)?;
    Ok(random.into_iter().map(|byte| char::from(alphabet[usize::from(byte) % alphabet.len()])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_shape_of_aws_and_hide_their_secret() {
        let key = AccessKey::generate().unwrap();
        assert_eq!((key.id.len(), key.secret.len(), &key.id[..4]), (20, 40, "AKIA"));
        assert_ne!(key, AccessKey::generate().unwrap());
        assert!(!format!("{key:?}").contains(&key.secret));
    }

    #[test]
    fn ids_begin_with_what_they_are_of() {
        let key = AccessKey::generate().unwrap();
        let temporary = temporary_id().unwrap();
        assert!(is_id(&key.id, LONG_LIVED) && is_id(&temporary, TEMPORARY));
        for bad in [&temporary, "", "AKIA", "AKIA\u{e9}AAAAAAAAAAAAAA", "AKIAAAAAAAAAAAAAAAA0"] {
            assert!(!is_id(bad, LONG_LIVED), "{bad}");
        }
        let role = unique_id("AROA").unwrap();
        assert_eq!((role.len(), &role[..4]), (21, "AROA"));
        assert!(!account_id().unwrap().to_string().starts_with('0'));
    }
}
