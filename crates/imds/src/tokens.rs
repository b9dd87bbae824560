//! The session tokens that have been given out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;

/// Random bytes that a token is made of: 48 characters of base64.
pub const SEED_BYTES: usize = 36;
/// The longest that a token lasts: six hours.
pub const MAX_TTL_SECONDS: u32 = 21_600;
/// Tokens known at once; for one more the oldest is forgotten.
pub const MAX_TOKENS: usize = 1024;

/// Those that are good.
#[derive(Debug, Default)]
pub struct Tokens(VecDeque<Token>);

#[derive(Debug)]
struct Token {
    text: String,
    expires_at: Instant,
}

impl Tokens {
    pub(crate) fn issue(&mut self, seed: [u8; SEED_BYTES], seconds: u32, now: Instant) -> String {
        self.0.retain(|token| now < token.expires_at);
        if self.0.len() >= MAX_TOKENS {
            self.0.pop_front();
        }
        let text = URL_SAFE.encode(seed);
        let expires_at = now + Duration::from_secs(seconds.into());
        self.0.push_back(Token { text: text.clone(), expires_at });
        text
    }

    pub(crate) fn knows(&self, text: &str, now: Instant) -> bool {
        self.0.iter().any(|token| token.text == text && now < token.expires_at)
    }

    /// For another MicroVM, which begins with this one's memory.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_for_one_too_many() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let mut issue = |number: usize| {
            let mut seed = [0; SEED_BYTES];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            tokens.issue(seed, 60, now)
        };
        let all: Vec<String> = (0..=MAX_TOKENS).map(&mut issue).collect();
        assert!(!tokens.knows(&all[0], now) && tokens.knows(&all[1], now));
        assert_eq!(tokens.0.len(), MAX_TOKENS);
    }

    #[test]
    fn what_has_expired_makes_room() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        tokens.issue([1; SEED_BYTES], 1, now);
        tokens.issue([2; SEED_BYTES], 60, now + Duration::from_secs(1));
        assert_eq!(tokens.0.len(), 1);
    }
}
