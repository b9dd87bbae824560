//! Reading a call's parameters: every one is checked, and all that is wrong is told at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::query::error::Refusal;

/// Tags of one thing.
pub(crate) const MAX_TAGS: usize = 50;
/// Of a value that is repeated in an error.
const SHOWN_CHARS: usize = 256;

const DUPLICATE_TAG: &str = "Duplicate tag keys found. Please note that Tag keys are case insensitive.";
const SYSTEM_TAG: &str = "Tag keys cannot begin with aws:, which is for tags that AWS itself gives.";

/// What a text may be.
pub(crate) struct Text {
    pub(crate) name: &'static str,
    min: usize,
    max: usize,
    legal: fn(&str) -> bool,
    /// `legal` as AWS words it.
    pattern: &'static str,
}

macro_rules! texts {
    ($($constant:ident = $name:literal $min:literal..=$max:literal $legal:ident $pattern:literal;)+) => {
        $(pub(crate) const $constant: Text =
            Text { name: $name, min: $min, max: $max, legal: $legal, pattern: $pattern };)+
    };
}

texts! {
    USER_NAME = "UserName" 1..=64 name r"[\w+=,.@-]+";
    EXISTING_USER_NAME = "UserName" 1..=128 name r"[\w+=,.@-]+";
    ROLE_NAME = "RoleName" 1..=64 name r"[\w+=,.@-]+";
    POLICY_NAME = "PolicyName" 1..=128 name r"[\w+=,.@-]+";
    PATH = "Path" 1..=512 path r"(\u002F)|(\u002F[\u0021-\u007E]+\u002F)";
    POLICY_PATH = "Path" 1..=512 policy_path r"((/[A-Za-z0-9\.,\+@=_-]+)*)/";
    PATH_PREFIX = "PathPrefix" 1..=512 path_prefix r"\u002F[\u0021-\u007F]*";
    POLICY_PATH_PREFIX = "PathPrefix" 1..=512 policy_path r"((/[A-Za-z0-9\.,\+@=_-]+)*)/";
    TRUST_DOCUMENT = "AssumeRolePolicyDocument" 1..=131_072 document r"[\u0009\u000A\u000D\u0020-\u00FF]+";
    POLICY_DOCUMENT = "PolicyDocument" 1..=131_072 document r"[\u0009\u000A\u000D\u0020-\u00FF]+";
    SESSION_POLICY = "Policy" 1..=131_072 document r"[\u0009\u000A\u000D\u0020-\u00FF]+";
    POLICY_ARN = "PolicyArn" 20..=2048 any r"";
    ROLE_ARN = "RoleArn" 20..=2048 any r"";
    SESSION_POLICY_ARN = "arn" 20..=2048 any r"";
    ROLE_DESCRIPTION = "Description" 0..=1000 role_description r"[\u0009\u000A\u000D\u0020-\u007E\u00A1-\u00FF]*";
    POLICY_DESCRIPTION = "Description" 0..=1000 any r"";
    MARKER = "Marker" 1..=320 printable r"[\u0020-\u00FF]+";
    VERSION_ID = "VersionId" 1..=64 version_id r"v[1-9][0-9]*(\.[A-Za-z0-9-]*)?";
    ACCESS_KEY_ID = "AccessKeyId" 16..=128 word r"[\w]+";
    SESSION_NAME = "RoleSessionName" 2..=64 name r"[\w+=,.@-]*";
    EXTERNAL_ID = "ExternalId" 2..=1224 external_id r"[\w+=,.@:\/-]*";
    TAG_KEY = "Key" 1..=128 tag r"[\p{L}\p{Z}\p{N}_.:/=+\-@]+";
    TAG_VALUE = "Value" 0..=256 tag r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*";
}

fn any(_: &str) -> bool {
    true
}

fn word(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c))
}

fn external_id(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c))
}

fn path(text: &str) -> bool {
    let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    text == "/"
        || inner.is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|b| (0x21..=0x7e).contains(&b)))
}

fn policy_path(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || ".,+@=_-".contains(c);
    let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    text == "/"
        || inner.is_some_and(|inner| inner.split('/').all(|part| !part.is_empty() && part.chars().all(legal)))
}

fn path_prefix(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|b| (0x21..=0x7f).contains(&b))
}

fn printable(text: &str) -> bool {
    text.chars().all(|c| (' '..='\u{ff}').contains(&c))
}

fn document(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}'))
}

fn role_description(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{a1}'..='\u{ff}'))
}

fn version_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('v') else { return false };
    let (number, suffix) = rest.split_once('.').unwrap_or((rest, ""));
    !number.starts_with('0')
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
        && suffix.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn tag(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c))
}

/// The parameters of one call.
pub(crate) struct Fields<'a> {
    form: &'a [(String, String)],
    /// Whether errors repeat the value, as those of STS do.
    shows_values: bool,
    violations: Vec<String>,
    bad_tag: Option<&'static str>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(form: &'a [(String, String)], shows_values: bool) -> Self {
        Self { form, shows_values, violations: Vec::new(), bad_tag: None }
    }

    /// All that is wrong with what has been read. Until it returns `Ok`, what was read may be made up.
    pub(crate) fn done(&self) -> Result<(), Refusal> {
        match (self.violations.as_slice(), self.bad_tag) {
            ([], Some(what)) => Err(Refusal::invalid_input(what)),
            ([], None) => Ok(()),
            (violations, _) => {
                let (count, all) = (violations.len(), violations.join("; "));
                let errors = if count == 1 { "error" } else { "errors" };
                Err(Refusal::validation(format!("{count} validation {errors} detected: {all}")))
            }
        }
    }

    pub(crate) fn required(&mut self, text: &Text) -> String {
        match self.value(text.name) {
            Some(value) => self.checked(text, text.name, value),
            None => {
                self.missing(text.name);
                String::new()
            }
        }
    }

    pub(crate) fn optional(&mut self, text: &Text) -> Option<String> {
        self.value(text.name).map(|value| self.checked(text, text.name, value))
    }

    /// Refuses what would bound somebody's rights, and is not done here: to ignore it would be to grant them.
    pub(crate) fn refuse_unsupported(&self, names: &[&str]) -> Result<(), Refusal> {
        let is_given = |name: &&&str| {
            self.form.iter().any(|(key, _)| {
                key.strip_prefix(**name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        match names.iter().find(is_given) {
            Some(name) => Err(Refusal::validation(format!("{name} is not supported here; leave it out"))),
            None => Ok(()),
        }
    }

    pub(crate) fn number(&mut self, name: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.value(name)?;
        match value.parse::<i64>() {
            Ok(number) if number < i64::from(*range.start()) => {
                let least = range.start();
                self.violate(
                    name,
                    value,
                    &format!("Member must have value greater than or equal to {least}"),
                );
            }
            Ok(number) if number > i64::from(*range.end()) => {
                let most = range.end();
                self.violate(name, value, &format!("Member must have value less than or equal to {most}"));
            }
            Ok(number) => return u32::try_from(number).ok(),
            Err(_) => self.violate(name, value, "Member must be an integer"),
        }
        None
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> bool {
        self.choice(name, &["true", "false"]) == Some("true")
    }

    pub(crate) fn required_choice(
        &mut self,
        name: &'static str,
        choices: &[&'static str],
    ) -> Option<&'static str> {
        if self.value(name).is_none() {
            self.missing(name);
        }
        self.choice(name, choices)
    }

    pub(crate) fn choice(&mut self, name: &'static str, choices: &[&'static str]) -> Option<&'static str> {
        let value = self.value(name)?;
        let found = choices.iter().find(|choice| **choice == value).copied();
        if found.is_none() {
            let all = choices.join(", ");
            self.violate(name, value, &format!("Member must satisfy enum value set: [{all}]"));
        }
        found
    }

    /// `Tags.member.N.Key` and `.Value`.
    pub(crate) fn tags(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::new();
        let mut seen = Vec::new();
        for at in 1..=MAX_TAGS + 1 {
            let (key_at, value_at) = (format!("{name}.member.{at}.Key"), format!("{name}.member.{at}.Value"));
            let (key, value) = (self.value(&key_at), self.value(&value_at));
            if key.is_none() && value.is_none() {
                break;
            }
            if at > MAX_TAGS {
                self.too_many(name, MAX_TAGS);
            }
            let key = self.checked(&TAG_KEY, &key_at, key.unwrap_or_default());
            let value = self.checked(&TAG_VALUE, &value_at, value.unwrap_or_default());
            let lower = key.to_lowercase();
            if seen.contains(&lower) {
                self.bad_tag = Some(DUPLICATE_TAG);
            }
            if lower.starts_with("aws:") {
                self.bad_tag = Some(SYSTEM_TAG);
            }
            seen.push(lower);
            tags.insert(key, value);
        }
        tags
    }

    /// `Name.member.N`, or `Name.member.N.suffix`.
    pub(crate) fn list(&mut self, name: &'static str, suffix: &str, text: &Text, most: usize) -> Vec<String> {
        let mut items = Vec::new();
        for at in 1..=most + 1 {
            let place = format!("{name}.member.{at}{suffix}");
            let Some(value) = self.value(&place) else { break };
            if at > most {
                self.too_many(name, most);
            }
            items.push(self.checked(text, &place, value));
        }
        items
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn checked(&mut self, text: &Text, at: &str, value: &str) -> String {
        let chars = value.chars().count();
        if chars < text.min {
            let what = format!("Member must have length greater than or equal to {}", text.min);
            self.violate(at, value, &what);
        }
        if chars > text.max {
            let what = format!("Member must have length less than or equal to {}", text.max);
            self.violate(at, value, &what);
        }
        if !(text.legal)(value) {
            let what = format!("Member must satisfy regular expression pattern: {}", text.pattern);
            self.violate(at, value, &what);
        }
        value.to_owned()
    }

    fn missing(&mut self, name: &str) {
        let at = lower_first(name);
        self.violations
            .push(format!("Value null at '{at}' failed to satisfy constraint: Member must not be null"));
    }

    fn too_many(&mut self, name: &str, most: usize) {
        let at = lower_first(name);
        self.violations.push(format!(
            "Value at '{at}' failed to satisfy constraint: Member must have length less than or equal to {most}"
        ));
    }

    fn violate(&mut self, at: &str, value: &str, what: &str) {
        let at = lower_first(at);
        let shown = match self.shows_values {
            true => format!(" '{}'", value.chars().take(SHOWN_CHARS).collect::<String>()),
            false => String::new(),
        };
        self.violations.push(format!("Value{shown} at '{at}' failed to satisfy constraint: {what}"));
    }
}

/// AWS names a parameter in errors as its Java model does.
fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn all_that_is_wrong_is_told_in_the_words_of_aws() {
        let form = form(&[("UserName", &"a b".repeat(40)), ("MaxItems", "0")]);
        let mut fields = Fields::new(&form, false);
        fields.required(&USER_NAME);
        fields.number("MaxItems", 1..=1000);
        fields.required(&POLICY_NAME);
        let refusal = fields.done().unwrap_err();
        assert_eq!((refusal.status, refusal.code), (400, "ValidationError"));
        assert_eq!(
            refusal.message,
            "4 validation errors detected: \
             Value at 'userName' failed to satisfy constraint: Member must have length less than or equal to 64; \
             Value at 'userName' failed to satisfy constraint: \
             Member must satisfy regular expression pattern: [\\w+=,.@-]+; \
             Value at 'maxItems' failed to satisfy constraint: Member must have value greater than or equal to 1; \
             Value null at 'policyName' failed to satisfy constraint: Member must not be null"
        );
    }

    #[test]
    fn sts_repeats_the_value() {
        let form = form(&[("RoleSessionName", "a")]);
        let mut fields = Fields::new(&form, true);
        fields.required(&SESSION_NAME);
        assert!(fields.done().unwrap_err().message.contains("Value 'a' at 'roleSessionName' failed"));
    }

    #[test]
    fn paths_and_versions_have_their_shapes() {
        assert!(
            path("/")
                && path("/a/b/")
                && path("/!/")
                && !path("a/")
                && !path("/a")
                && !path("/ /")
                && !path("")
        );
        assert!(policy_path("/") && policy_path("/a/b/") && !policy_path("//") && !policy_path("/a//b/"));
        assert!(
            version_id("v1")
                && version_id("v10.a-b")
                && !version_id("v0")
                && !version_id("1")
                && !version_id("v")
        );
    }

    #[test]
    fn tags_end_with_the_first_gap_and_are_told_apart_by_case() {
        let pairs = form(&[
            ("Tags.member.1.Key", "a"),
            ("Tags.member.1.Value", "x"),
            ("Tags.member.2.Key", "b"),
            ("Tags.member.4.Key", "c"),
        ]);
        let mut fields = Fields::new(&pairs, false);
        let tags = fields.tags("Tags");
        assert!(fields.done().is_ok());
        assert_eq!(tags, BTreeMap::from([("a".into(), "x".into()), ("b".into(), String::new())]));

        let twice = form(&[("Tags.member.1.Key", "a"), ("Tags.member.2.Key", "A")]);
        let mut fields = Fields::new(&twice, false);
        fields.tags("Tags");
        assert_eq!(fields.done().unwrap_err().code, "InvalidInput");
    }

    proptest! {
        #[test]
        fn no_form_makes_it_panic(pairs in proptest::collection::vec(
            ("(UserName|MaxItems|Marker|SetAsDefault|Path|VersionId|Tags|TagKeys)(\\.member\\.[0-9]{1,2}(\\.Key|\\.Value)?)?", "\\PC{0,20}|-?[0-9]{1,20}"), 0..20)) {
            let mut fields = Fields::new(&pairs, true);
            for text in [&USER_NAME, &PATH, &VERSION_ID, &MARKER] {
                fields.optional(text);
                fields.required(text);
            }
            fields.number("MaxItems", 1..=1000);
            fields.flag("SetAsDefault");
            fields.tags("Tags");
            fields.list("TagKeys", "", &TAG_KEY, 50);
            let _ = fields.done();
        }

        #[test]
        fn a_legal_name_is_read_as_it_is(value in "[A-Za-z0-9_+=,.@-]{1,64}") {
            let pairs = form(&[("UserName", &value)]);
            let mut fields = Fields::new(&pairs, false);
            prop_assert_eq!(fields.required(&USER_NAME), value);
            prop_assert!(fields.done().is_ok());
        }
    }
}
