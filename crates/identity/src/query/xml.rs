//! XML, written. Tags come from this crate; texts from anywhere.

/// Elements one after another.
#[derive(Debug, Default)]
pub(crate) struct Xml(String);

impl Xml {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }

    pub(crate) fn open_in(&mut self, tag: &str, namespace: &str) {
        self.0.push_str(&format!("<{tag} xmlns=\"{namespace}\">"));
    }

    pub(crate) fn close(&mut self, tag: &str) {
        self.0.push_str(&format!("</{tag}>"));
    }

    /// An element around what `content` writes.
    pub(crate) fn within(&mut self, tag: &str, content: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{tag}>"));
        content(self);
        self.close(tag);
    }

    pub(crate) fn text(&mut self, tag: &str, text: &str) {
        self.within(tag, |xml| xml.content(text));
    }

    /// Text within the element that is open.
    pub(crate) fn content(&mut self, text: &str) {
        escape(text, &mut self.0);
    }

    pub(crate) fn optional(&mut self, tag: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(tag, text);
        }
    }

    /// A list, each item of which is a `member`.
    pub(crate) fn list<T>(
        &mut self,
        tag: &str,
        items: impl IntoIterator<Item = T>,
        mut member: impl FnMut(&mut Self, T),
    ) {
        self.within(tag, |xml| {
            for item in items {
                xml.within("member", |xml| member(xml, item));
            }
        });
    }

    pub(crate) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Readers make a line feed of a bare one.
            '\r' => out.push_str("&#xD;"),
            '\t' | '\n' => out.push(c),
            // XML has no way to write these.
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use quick_xml::Reader;
    use quick_xml::events::Event;

    fn read(xml: &str) -> String {
        let mut reader = Reader::from_str(xml);
        let mut text = String::new();
        loop {
            match reader.read_event().unwrap() {
                Event::Text(part) => text.push_str(&part.decode().unwrap()),
                Event::GeneralRef(part) => match part.resolve_char_ref().unwrap() {
                    Some(c) => text.push(c),
                    None => text.push_str(
                        quick_xml::escape::resolve_predefined_entity(&part.decode().unwrap()).unwrap(),
                    ),
                },
                Event::Eof => return text,
                _ => {}
            }
        }
    }

    #[test]
    fn lists_are_members_and_absent_texts_are_absent() {
        let mut xml = Xml::default();
        xml.list("Names", ["a", "b"], |xml, name| xml.text("Name", name));
        xml.optional("No", None);
        assert_eq!(
            xml.into_string(),
            "<Names><member><Name>a</Name></member><member><Name>b</Name></member></Names>"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in "(\\PC|[\\t\\n\\r<>&\"'\\]]){0,60}") {
            let mut xml = Xml::default();
            xml.text("T", &text);
            prop_assert_eq!(read(&xml.into_string()), text);
        }

        #[test]
        fn no_text_leaves_its_element(text: String) {
            let mut xml = Xml::default();
            xml.text("T", &text);
            let read = read(&xml.into_string());
            prop_assert_eq!(read.chars().count(), text.chars().count());
        }
    }
}
