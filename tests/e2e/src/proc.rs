//! What the kernel tells in `/proc`: lines of a name, a colon and a value.

/// What follows a name and a colon.
#[must_use]
pub fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// The same where it is a size, in bytes.
#[must_use]
pub fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = value(text, name)?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "MemTotalX: 1 kB\nMemTotal:   2 kB\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(kibibytes(text, "MemTotal"), Some(2048));
        assert_eq!(value(text, "model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!((value(text, "model"), kibibytes(text, "model name")), (None, None));
    }
}
