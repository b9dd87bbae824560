//! Access keys: made at random, in the shape that AWS's tools expect.

use std::fmt;

/// Characters of an access key id, its prefix included.
pub const ID_CHARS: usize = 20;
/// Characters of a secret access key.
pub const SECRET_CHARS: usize = 40;
const PREFIX: &str = "AKIA";
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
    "making an access key: the system's random source failed ({0}); check that getrandom(2) is allowed here"
)]
pub struct GenerateError(getrandom::Error);

impl AccessKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system has no source of random numbers.
    pub fn generate() -> Result<Self, GenerateError> {
        let mut id = PREFIX.to_owned();
        id.push_str(&pick(ID_ALPHABET, ID_CHARS - PREFIX.len())?);
        Ok(Self { id, secret: pick(SECRET_ALPHABET, SECRET_CHARS)? })
    }
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
}
