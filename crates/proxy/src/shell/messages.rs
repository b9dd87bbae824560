//! The messages of a shell's WebSocket (SPEC §6). Pure.

use serde::Deserialize;
use uuid::Uuid;

use super::ShellInput;
use crate::limits;

/// The one command that a client has.
#[derive(Deserialize)]
struct Command {
    #[serde(rename = "type")]
    _kind: Kind,
    cols: u16,
    rows: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Resize,
}

/// The first message of a session.
pub(super) fn session_init(id: Uuid) -> String {
    format!(r#"{{"type":"session_init","session_id":"{id}"}}"#)
}

/// What a text message is: a command, or else keystrokes, also where it looks like a command that there is not.
#[must_use]
pub fn client_input(text: &str) -> ShellInput {
    match command(text) {
        Some(Command { cols, rows, .. }) => ShellInput::Resize { cols, rows },
        None => ShellInput::Keys(text.to_owned().into()),
    }
}

fn command(text: &str) -> Option<Command> {
    let may_be = text.len() <= limits::MAX_SHELL_COMMAND && text.trim_start().starts_with('{');
    may_be.then(|| serde_json::from_str(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(text: &str) -> ShellInput {
        ShellInput::Keys(text.to_owned().into())
    }

    #[test]
    fn a_session_begins_with_its_id() {
        let id = Uuid::nil();
        let expected = r#"{"type":"session_init","session_id":"00000000-0000-0000-0000-000000000000"}"#;
        assert_eq!(session_init(id), expected);
    }

    #[test]
    fn a_resize_is_a_command_however_it_is_written() {
        for text in [
            r#"{"type":"resize","cols":120,"rows":40}"#,
            " {\"rows\": 40, \"type\": \"resize\", \"cols\": 120, \"more\": null}\n",
        ] {
            assert_eq!(client_input(text), ShellInput::Resize { cols: 120, rows: 40 }, "{text}");
        }
    }

    #[test]
    fn whatever_else_is_typed() {
        let long = format!(r#"{{"type":"resize","cols":1,"rows":1,"x":"{}"}}"#, "x".repeat(300));
        for text in [
            "",
            "whoami\n",
            "5",
            "{",
            r#"{"type":"paste","cols":1,"rows":1}"#,
            r#"{"type":"resize","cols":1}"#,
            r#"{"type":"resize","cols":-1,"rows":1}"#,
            r#"{"type":"resize","cols":65536,"rows":1}"#,
            r#"{"type":"resize","cols":"1","rows":1}"#,
            r#"{"type":"resize","cols":1,"rows":1} x"#,
            &long,
        ] {
            assert_eq!(client_input(text), keys(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_lost(text in "\\PC*") {
            let resize = matches!(client_input(&text), ShellInput::Resize { .. });
            prop_assert!(resize || client_input(&text) == keys(&text));
        }

        #[test]
        fn every_size_is_read(cols: u16, rows: u16) {
            let text = format!(r#"{{"type":"resize","cols":{cols},"rows":{rows}}}"#);
            prop_assert_eq!(client_input(&text), ShellInput::Resize { cols, rows });
        }
    }
}
