//! How long what is over is remembered. Forgetting rides on writes that happen anyway, a bounded piece each
//! time.

use store::{StoreError, Tx};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a client token stands for what it made (SPEC §13).
pub(crate) const TOKENS_MS: u64 = DAY_MS;
/// How long a TERMINATED MicroVM is shown (SPEC §1.3). Not shorter than its client token, which leads to it.
pub(crate) const MICROVMS_MS: u64 = DAY_MS;
/// MicroVMs forgotten at once.
const PIECE: usize = 100;

/// Forgets what is older.
pub(crate) fn tidy(tx: &Tx<'_>, now: u64) -> Result<(), StoreError> {
    tx.forget_tokens_before(now.saturating_sub(TOKENS_MS))?;
    tx.forget_microvms_terminated_before(now.saturating_sub(MICROVMS_MS), PIECE)
}
