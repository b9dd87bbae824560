//! ARNs of accounts, users, roles and policies.

use ids::AccountId;
use store::{PolicyRecord, RoleRecord, UserRecord};

/// Prefix of the policies that every account has.
pub(crate) const AWS_POLICY: &str = "arn:aws:iam::aws:policy/";

/// `arn:aws:iam::<account>:<kind><path><name>`; a path begins and ends with a slash.
pub(crate) fn arn(account: &AccountId, kind: &str, path: &str, name: &str) -> String {
    format!("arn:aws:iam::{account}:{kind}{path}{name}")
}

pub(crate) fn user_arn(user: &UserRecord) -> String {
    arn(&user.account, "user", &user.path, &user.name)
}

pub(crate) fn role_arn(role: &RoleRecord) -> String {
    arn(&role.account, "role", &role.path, &role.name)
}

pub(crate) fn policy_arn(policy: &PolicyRecord) -> String {
    arn(&policy.account, "policy", &policy.path, &policy.name)
}

/// Account and name in an ARN of this kind.
pub(crate) fn parse<'a>(arn: &'a str, kind: &str) -> Option<(AccountId, &'a str)> {
    let (account, rest) = arn.strip_prefix("arn:aws:iam::")?.split_once(':')?;
    let path_and_name = rest.strip_prefix(kind).filter(|rest| rest.starts_with('/'))?;
    let (_, name) = path_and_name.rsplit_once('/')?;
    Some((account.parse().ok()?, name)).filter(|(_, name)| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_taken_apart_as_it_was_put_together() {
        let account: AccountId = "123456789012".parse().unwrap();
        for path in ["/", "/a/b/"] {
            let arn = arn(&account, "role", path, "R");
            assert_eq!(parse(&arn, "role"), Some((account.clone(), "R")));
            assert_eq!(parse(&arn, "user"), None);
        }
        for bad in
            ["", "arn:aws:iam::1:role/R", "arn:aws:iam::123456789012:role", "arn:aws:iam::123456789012:role/"]
        {
            assert_eq!(parse(bad, "role"), None, "{bad}");
        }
    }
}
