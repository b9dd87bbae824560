//! Pages of a bucket's keys: prefix, delimiter and continuation. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// Only keys that start with it.
    pub(crate) prefix: String,
    /// Keys that hold it after the prefix are grouped up to it.
    pub(crate) delimiter: Option<String>,
    /// Only what sorts after it: a key, or a group that the previous page ended with.
    pub(crate) after: Option<String>,
    /// At most so many keys and groups.
    pub(crate) max: usize,
}

/// One page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) objects: Vec<(String, T)>,
    pub(crate) groups: Vec<String>,
    /// Where the next page starts, if there is one.
    pub(crate) next: Option<String>,
}

/// The page of `keys` that `query` asks for.
pub(crate) fn page<T: Clone>(keys: &BTreeMap<String, T>, query: &Query) -> Page<T> {
    let mut page = Page { objects: Vec::new(), groups: Vec::new(), next: None };
    let mut last: Option<String> = None;
    let start = match &query.after {
        Some(after) if *after >= query.prefix => Bound::Excluded(after.as_str()),
        _ => Bound::Included(query.prefix.as_str()),
    };
    for (key, value) in keys.range::<str, _>((start, Bound::Unbounded)) {
        let Some(rest) = key.strip_prefix(&query.prefix) else { break };
        let group = group_of(key, rest, query.delimiter.as_deref());
        if group.is_some() && (group == last.as_deref() || group == query.after.as_deref()) {
            continue;
        }
        if page.objects.len() + page.groups.len() == query.max {
            page.next = last;
            break;
        }
        last = Some(group.unwrap_or(key).to_owned());
        match group {
            Some(group) => page.groups.push(group.to_owned()),
            None => page.objects.push((key.clone(), value.clone())),
        }
    }
    page
}

/// `key` up to and with the first delimiter after the prefix.
fn group_of<'k>(key: &'k str, rest: &str, delimiter: Option<&str>) -> Option<&'k str> {
    let delimiter = delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let at = rest.find(delimiter)?;
    key.get(..key.len() - rest.len() + at + delimiter.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> BTreeMap<String, ()> {
        names.iter().map(|name| ((*name).to_owned(), ())).collect()
    }

    #[test]
    fn groups_by_delimiter() {
        let keys = keys(&["a/1", "a/2", "b", "c/1", "d"]);
        let query = Query { delimiter: Some("/".into()), max: 1000, ..Query::default() };
        let page = page(&keys, &query);
        assert_eq!(page.groups, ["a/", "c/"]);
        assert_eq!(page.objects.iter().map(|(key, ())| key.as_str()).collect::<Vec<_>>(), ["b", "d"]);
        assert_eq!(page.next, None);
    }

    #[test]
    fn pages_together_give_everything_once() {
        let keys = keys(&["a/1", "a/2", "b", "c/1", "c/2/3", "d", "é/ü"]);
        for delimiter in [None, Some("/".to_owned())] {
            let whole = Query { delimiter: delimiter.clone(), max: 1000, ..Query::default() };
            let whole = page(&keys, &whole);
            let (mut objects, mut groups, mut after) = (Vec::new(), Vec::new(), None);
            loop {
                let query = Query { delimiter: delimiter.clone(), after, max: 1, ..Query::default() };
                let part = page(&keys, &query);
                objects.extend(part.objects);
                groups.extend(part.groups);
                let Some(next) = part.next else { break };
                after = Some(next);
            }
            assert_eq!((objects, groups), (whole.objects, whole.groups));
        }
    }

    #[test]
    fn nothing_is_asked_for() {
        let query = Query::default();
        assert_eq!(page(&keys(&["a"]), &query), Page { objects: vec![], groups: vec![], next: None });
    }
}
