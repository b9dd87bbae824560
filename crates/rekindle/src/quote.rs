//! Values in a form that every POSIX shell reads back as they are.

/// `text` as one word of a shell command.
pub(crate) fn quote(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:,@%+=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(quote("http://127.0.0.1:4580"), "http://127.0.0.1:4580");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn a_shell_reads_every_value_back() {
        for text in ["", "a b", "it's", "$HOME `id` $(id)", "a\nb", "\\", "~", "*", "a;b", "!!", "'", "é\"#&"]
        {
            let script = format!("printf %s {}", quote(text));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
