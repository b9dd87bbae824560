//! Lists in pages: `Marker`, `MaxItems`, `IsTruncated`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::query::error::Refusal;
use crate::query::fields::{Fields, MARKER};
use crate::query::xml::Xml;

const MOST: u32 = 1000;
const DEFAULT: u32 = 100;

/// Which page is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    marker: Option<String>,
    most: usize,
}

/// A page, and the key after which the next one begins.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    next: Option<String>,
}

impl Asked {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Self {
        let most = fields.number("MaxItems", 1..=MOST).unwrap_or(DEFAULT);
        Self { marker: fields.optional(&MARKER), most: usize::try_from(most).unwrap_or(usize::MAX) }
    }

    /// The asked-for page of `items`, in the order of their keys.
    pub(crate) fn of<T>(&self, items: impl IntoIterator<Item = (String, T)>) -> Result<Page<T>, Refusal> {
        let items: BTreeMap<String, T> = items.into_iter().collect();
        let after = self.after()?;
        let mut rest = items.into_iter().filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
        let (mut page, mut last) = (Vec::new(), None);
        for (key, item) in rest.by_ref().take(self.most) {
            page.push(item);
            last = Some(key);
        }
        let next = rest.next().and(last);
        Ok(Page { items: page, next })
    }

    fn after(&self) -> Result<Option<String>, Refusal> {
        let Some(marker) = &self.marker else { return Ok(None) };
        let key = URL_SAFE_NO_PAD.decode(marker).ok().and_then(|key| String::from_utf8(key).ok());
        key.map(Some).ok_or_else(|| {
            Refusal::validation("Invalid Marker: give the one that the last page of this list came with")
        })
    }
}

impl<T> Page<T> {
    /// The list, and what goes behind it.
    pub(crate) fn write(self, xml: &mut Xml, tag: &str, member: impl FnMut(&mut Xml, T)) {
        xml.list(tag, self.items, member);
        end(self.next.as_deref(), xml);
    }

    /// What goes behind the lists, where a page is more than one.
    pub(crate) fn end(&self, xml: &mut Xml) {
        end(self.next.as_deref(), xml);
    }
}

fn end(next: Option<&str>, xml: &mut Xml) {
    xml.text("IsTruncated", if next.is_some() { "true" } else { "false" });
    xml.optional("Marker", next.map(|key| URL_SAFE_NO_PAD.encode(key)).as_deref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(form: &[(String, String)]) -> Result<Asked, Refusal> {
        let mut fields = Fields::new(form, false);
        let asked = Asked::read(&mut fields);
        fields.done().map(|()| asked)
    }

    fn form(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_marker_that_is_none_is_refused() {
        let asked = ask(&form(&[("Marker", "%%")])).unwrap();
        assert_eq!(asked.of([("a".to_owned(), 1)]).unwrap_err().code, "ValidationError");
        assert!(ask(&form(&[("MaxItems", "0")])).is_err() && ask(&form(&[("MaxItems", "1001")])).is_err());
    }

    proptest! {
        #[test]
        fn pages_one_after_another_are_the_list(keys in proptest::collection::btree_set("[a-z]{1,4}", 0..30), most in 1u32..9) {
            let (mut seen, mut marker) = (Vec::new(), None::<String>);
            loop {
                let mut pairs = vec![("MaxItems".to_owned(), most.to_string())];
                pairs.extend(marker.take().map(|marker| ("Marker".to_owned(), marker)));
                let page = ask(&pairs).unwrap().of(keys.iter().map(|key| (key.clone(), key.clone()))).unwrap();
                prop_assert!(page.items.len() <= most as usize);
                seen.extend(page.items);
                match page.next {
                    Some(next) => marker = Some(URL_SAFE_NO_PAD.encode(next)),
                    None => break,
                }
            }
            prop_assert_eq!(seen, keys.into_iter().collect::<Vec<_>>());
        }
    }
}
