//! USER of an image: `user[:group]`, by name or number, looked up in the image's own files.

/// Who a container runs as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves `user` with the text of `/etc/passwd` and `/etc/group`; `None` names what was not found.
pub(crate) fn resolve(user: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (name, group_name) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "0" } else { name };
    let entry = rows(passwd).find(|row| row.first() == Some(&name) || row.get(2) == Some(&name));
    let field = |at: usize| entry.as_ref().and_then(|row| row.get(at).copied());
    let uid = field(2).unwrap_or(name).parse().map_err(|_| format!("user '{name}'"))?;
    let gid = match group_name {
        Some(wanted) => find_group(wanted, group)?,
        None => field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
    };
    let groups = match (group_name, field(0)) {
        (None, Some(login)) => memberships(login, group),
        _ => Vec::new(),
    };
    let home = field(5).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Ok(Identity { uid, gid, groups, home })
}

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn find_group(wanted: &str, group: &str) -> Result<u32, String> {
    let entry = rows(group).find(|row| row.first() == Some(&wanted));
    let gid = entry.as_ref().and_then(|row| row.get(2).copied()).unwrap_or(wanted);
    gid.parse().map_err(|_| format!("group '{wanted}'"))
}

fn memberships(login: &str, group: &str) -> Vec<u32> {
    rows(group)
        .filter(|row| row.get(3).is_some_and(|members| members.split(',').any(|member| member == login)))
        .filter_map(|row| row.get(2)?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nlog:x:50:web,other\nstaff:x:60:\n";

    #[test]
    fn names_and_numbers_find_the_same_entry() {
        let web = Identity { uid: 33, gid: 34, groups: vec![50], home: "/srv".into() };
        assert_eq!(resolve("web", PASSWD, GROUP).as_ref(), Ok(&web));
        assert_eq!(resolve("33", PASSWD, GROUP).as_ref(), Ok(&web));
    }

    #[test]
    fn a_group_overrides_and_numbers_need_no_entry() {
        let got = resolve("1000:staff", PASSWD, GROUP).unwrap();
        assert_eq!((got.uid, got.gid, got.home.as_str()), (1000, 60, "/"));
        assert_eq!(resolve("", PASSWD, GROUP).unwrap().home, "/root");
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(resolve("nobody", PASSWD, GROUP).unwrap_err(), "user 'nobody'");
        assert_eq!(resolve("web:nope", PASSWD, GROUP).unwrap_err(), "group 'nope'");
    }
}
