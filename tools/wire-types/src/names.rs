//! From the model's names to Rust's.

/// Words that a change of case does not cut.
const WHOLE: [(&str, &str); 3] = [("MiB", "Mib"), ("IPv4", "Ipv4"), ("X86_64", "X86_64")];
const KEYWORDS: [&str; 3] = ["type", "ref", "self"];

/// A field: `minimumMemoryInMiB` is `minimum_memory_in_mib`.
pub(crate) fn field(name: &str) -> String {
    let name = WHOLE.iter().fold(name.to_owned(), |name, (word, whole)| name.replace(word, whole));
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    if KEYWORDS.contains(&snake.as_str()) { format!("r#{snake}") } else { snake }
}

/// A variant: `IN_PROGRESS` is `InProgress`, `uri` is `Uri`; what is in camel case already stays.
pub(crate) fn variant(value: &str) -> String {
    if value == "X86_64" {
        return value.to_owned();
    }
    let shouted = !value.chars().any(char::is_lowercase);
    let word = |word: &str| {
        let (first, rest) = word.split_at(1.min(word.len()));
        let rest = if shouted { rest.to_lowercase() } else { rest.to_owned() };
        first.to_uppercase() + &rest
    };
    value.split(['_', '-', '.']).map(word).collect()
}

/// A static: `RunMicrovmRequest` is `RUN_MICROVM_REQUEST`.
pub(crate) fn constant(name: &str) -> String {
    field(name).trim_start_matches("r#").to_uppercase()
}

/// What serde makes of a field under `rename_all`, to see whether it has to be told the name.
pub(crate) fn serde_case(field: &str, pascal: bool) -> String {
    let mut words = field.trim_start_matches("r#").split('_');
    let title = |word: &str| {
        let (first, rest) = word.split_at(1.min(word.len()));
        first.to_uppercase() + rest
    };
    let first = words.next().unwrap_or_default();
    let first = if pascal { title(first) } else { first.to_owned() };
    first + &words.map(title).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rusts() {
        assert_eq!(field("minimumMemoryInMiB"), "minimum_memory_in_mib");
        assert_eq!(field("Type"), "r#type");
        assert_eq!(variant("IN_PROGRESS"), "InProgress");
        assert_eq!(variant("IPv4"), "IPv4");
        assert_eq!(variant("ServiceManaged"), "ServiceManaged");
        assert_eq!(variant("ARM_64"), "Arm64");
        assert_eq!(constant("RunMicrovmRequest"), "RUN_MICROVM_REQUEST");
        assert_eq!(serde_case("image_arn", false), "imageArn");
        assert_eq!(serde_case("image_arn", true), "ImageArn");
    }
}
