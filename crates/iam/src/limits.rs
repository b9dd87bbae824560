//! How long policies may be. White space is not counted, as AWS does not count it.

/// Characters of one managed policy.
pub const MANAGED_POLICY: usize = 6_144;
/// Characters of all inline policies of one user.
pub const USER_INLINE_POLICIES: usize = 2_048;
/// Characters of all inline policies of one group.
pub const GROUP_INLINE_POLICIES: usize = 5_120;
/// Characters of all inline policies of one role.
pub const ROLE_INLINE_POLICIES: usize = 10_240;
/// Characters of a role's trust policy.
pub const TRUST_POLICY: usize = 2_048;
/// Characters of the policy that is passed along when a role is assumed.
pub const SESSION_POLICY: usize = 2_048;
/// Bytes of any document, white space included; a longer one is not even parsed.
pub const DOCUMENT: usize = 131_072;

/// The length of a document as its limits count it.
pub fn counted(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}
