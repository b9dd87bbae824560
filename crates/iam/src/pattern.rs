//! Text with `*`, `?` and `${variables}`, and whether a value is of that form.

use std::borrow::Cow;

use crate::Context;

/// What characters mean something other than themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Syntax {
    /// `*` is any text and `?` any character.
    pub(crate) wildcards: bool,
    /// `${key}` is the value of a condition key; only since 2012-10-17.
    pub(crate) variables: bool,
}

/// Whether `a` and `A` are one character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Kept,
    Ignored,
}

/// A parsed text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Body);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Fixed(Vec<Token>),
    Variable(Vec<Piece>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Token(Token),
    Variable { key: String, default: Option<String> },
}

impl Pattern {
    /// Reads a text; the error says what is wrong with its variables.
    pub(crate) fn parse(text: &str, syntax: Syntax) -> Result<Self, String> {
        Ok(Self::of(pieces(text, syntax)?))
    }

    fn of(pieces: Vec<Piece>) -> Self {
        let fixed = pieces.iter().map(|piece| match piece {
            Piece::Token(token) => Some(*token),
            Piece::Variable { .. } => None,
        });
        Pattern(match fixed.collect() {
            Some(tokens) => Body::Fixed(tokens),
            None => Body::Variable(pieces),
        })
    }

    /// Whether a value has this form. None: that depends on a variable which this request does not have.
    pub(crate) fn matches(&self, value: &str, context: &Context, case: Case) -> Option<bool> {
        Some(matches(&self.resolve(context)?, value, case))
    }

    fn resolve(&self, context: &Context) -> Option<Cow<'_, [Token]>> {
        let pieces = match &self.0 {
            Body::Fixed(tokens) => return Some(Cow::Borrowed(tokens)),
            Body::Variable(pieces) => pieces,
        };
        let mut tokens = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                Piece::Token(token) => tokens.push(*token),
                // The value is text whatever it holds: a user named `*` is not everybody.
                Piece::Variable { key, default } => match (context.get(key), default) {
                    ([value], _) | ([], Some(value)) => tokens.extend(value.chars().map(Token::Char)),
                    _ => return None,
                },
            }
        }
        Some(Cow::Owned(tokens))
    }
}

/// The parts of an ARN: `arn`, partition, service, region, account, and the rest with whatever colons it has.
const ARN_PARTS: usize = 6;

/// An ARN with wildcards. Each part is compared on its own: no `*` reaches over a colon but in the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArnPattern {
    /// The lone `*`.
    Any,
    Parts([Pattern; ARN_PARTS]),
}

impl ArnPattern {
    /// Reads `*` or an ARN; the error says why it is neither.
    pub(crate) fn parse(text: &str, variables: bool) -> Result<Self, String> {
        if text == "*" {
            return Ok(ArnPattern::Any);
        }
        let pieces = pieces(text, Syntax { wildcards: true, variables })?;
        let colon = Piece::Token(Token::Char(':'));
        let parts: Vec<Pattern> = pieces
            .splitn(ARN_PARTS, |piece| *piece == colon)
            .map(|part| Pattern::of(part.to_vec()))
            .collect();
        match parts.try_into() {
            Ok(parts) if text.starts_with("arn:") => Ok(ArnPattern::Parts(parts)),
            _ => Err(format!("{text} must be in ARN format or \"*\".")),
        }
    }

    /// Whether a value is such an ARN. None as with [`Pattern::matches`].
    pub(crate) fn matches(&self, value: &str, context: &Context) -> Option<bool> {
        let ArnPattern::Parts(parts) = self else { return Some(true) };
        let mut values = value.splitn(ARN_PARTS, ':');
        let mut all = true;
        for part in parts {
            let Some(value) = values.next() else { return Some(false) };
            all &= part.matches(value, context, Case::Kept)?;
        }
        Some(all)
    }
}

impl Case {
    fn same(self, one: char, other: char) -> bool {
        one == other || self == Case::Ignored && one.to_lowercase().eq(other.to_lowercase())
    }
}

/// Goes back to the last `*` only, which is enough: at worst pattern times value, never exponential.
fn matches(pattern: &[Token], value: &str, case: Case) -> bool {
    let mut at = 0;
    let mut rest = value.chars();
    let mut retry = None;
    loop {
        let token = pattern.get(at).copied();
        if token == Some(Token::Many) {
            at += 1;
            retry = Some((at, rest.clone()));
            continue;
        }
        let mut after = rest.clone();
        match (token, after.next()) {
            (None, None) => return true,
            // A `*` that took more would leave even less for what is still wanted.
            (Some(_), None) => return false,
            (Some(Token::One), Some(_)) => (at, rest) = (at + 1, after),
            (Some(Token::Char(wanted)), Some(found)) if case.same(wanted, found) => {
                (at, rest) = (at + 1, after);
            }
            _ => match &mut retry {
                Some((resume, from)) => {
                    from.next();
                    (at, rest) = (*resume, from.clone());
                }
                None => return false,
            },
        }
    }
}

fn pieces(text: &str, syntax: Syntax) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if syntax.variables && rest.starts_with("${") {
            let (inner, after) =
                rest[2..].split_once('}').ok_or_else(|| format!("{text}: \"${{\" has no \"}}\"."))?;
            pieces.push(variable(inner)?);
            rest = after;
            continue;
        }
        pieces.push(Piece::Token(match c {
            '*' if syntax.wildcards => Token::Many,
            '?' if syntax.wildcards => Token::One,
            c => Token::Char(c),
        }));
        rest = &rest[c.len_utf8()..];
    }
    Ok(pieces)
}

fn variable(inner: &str) -> Result<Piece, String> {
    if let "*" | "?" | "$" = inner {
        return Ok(Piece::Token(Token::Char(inner.chars().next().unwrap_or_default())));
    }
    let (key, default) = match inner.split_once(',') {
        None => (inner.trim(), None),
        Some((key, default)) => {
            let quoted = default.trim().strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            let quoted =
                quoted.ok_or_else(|| format!("${{{inner}}}: the default must stand in single quotes."))?;
            (key.trim(), Some(quoted.to_owned()))
        }
    };
    if !key.contains(':') {
        return Err(format!("${{{inner}}} names no condition key, such as aws:username."));
    }
    Ok(Piece::Variable { key: key.to_lowercase(), default })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SYNTAX: Syntax = Syntax { wildcards: true, variables: false };

    /// What `*` and `?` mean, as one would write it down.
    fn naive(pattern: &[char], value: &[char]) -> bool {
        match (pattern.split_first(), value.split_first()) {
            (None, None) => true,
            (Some(('*', after)), None) => naive(after, value),
            (Some(('*', after)), Some((_, rest))) => naive(after, value) || naive(pattern, rest),
            (Some(('?', after)), Some((_, rest))) => naive(after, rest),
            (Some((wanted, after)), Some((found, rest))) => wanted == found && naive(after, rest),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[ab?*]{0,10}", value in "[abä]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let found = Pattern::parse(&pattern, SYNTAX).unwrap().matches(&value, &Context::new(), Case::Kept);
            prop_assert_eq!(found, Some(naive(&chars(&pattern), &chars(&value))));
        }

        #[test]
        fn text_without_wildcards_matches_itself_alone(text in "[^*?]{0,20}", other in ".{0,20}") {
            let pattern = Pattern::parse(&text, SYNTAX).unwrap();
            prop_assert_eq!(pattern.matches(&text, &Context::new(), Case::Kept), Some(true));
            prop_assert_eq!(pattern.matches(&other, &Context::new(), Case::Kept), Some(text == other));
        }

        #[test]
        fn the_value_of_a_variable_matches_itself_alone(text in ".{0,20}", other in ".{0,20}") {
            let pattern = Pattern::parse("${a:b}", Syntax { wildcards: true, variables: true }).unwrap();
            let context = Context::new().with("a:b", text.as_str());
            prop_assert_eq!(pattern.matches(&text, &context, Case::Kept), Some(true));
            prop_assert_eq!(pattern.matches(&other, &context, Case::Kept), Some(text == other));
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        // With exponential backtracking this test would outlive the sun.
        let pattern = Pattern::parse(&("*a".repeat(500) + "b"), SYNTAX).unwrap();
        assert_eq!(pattern.matches(&"a".repeat(5_000), &Context::new(), Case::Kept), Some(false));
    }
}
