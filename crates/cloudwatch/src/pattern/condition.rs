//! Conditions of JSON and of space-delimited patterns: `&&`, `||`, brackets, and what is compared with what.

use regex::bytes::Regex;

use super::PatternError;
use super::reader::Reader;

/// Brackets within brackets at most.
const MAX_DEPTH: usize = 16;

/// What must hold; `T` is one comparison.
#[derive(Debug, Clone)]
pub(super) enum Condition<T> {
    All(Vec<Condition<T>>),
    Any(Vec<Condition<T>>),
    One(T),
}

impl<T> Condition<T> {
    /// Reads one as far as it goes, each comparison with `one`.
    pub(super) fn read<'a>(
        reader: &mut Reader<'a>,
        one: &mut impl FnMut(&mut Reader<'a>) -> Result<T, PatternError>,
    ) -> Result<Self, PatternError> {
        Self::any(reader, one, 0)
    }

    fn any<'a>(
        reader: &mut Reader<'a>,
        one: &mut impl FnMut(&mut Reader<'a>) -> Result<T, PatternError>,
        depth: usize,
    ) -> Result<Self, PatternError> {
        let mut any = vec![Self::all(reader, one, depth)?];
        while reader.take("||") {
            any.push(Self::all(reader, one, depth)?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Self::Any(any) })
    }

    fn all<'a>(
        reader: &mut Reader<'a>,
        one: &mut impl FnMut(&mut Reader<'a>) -> Result<T, PatternError>,
        depth: usize,
    ) -> Result<Self, PatternError> {
        let mut all = vec![Self::single(reader, one, depth)?];
        while reader.take("&&") {
            all.push(Self::single(reader, one, depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Self::All(all) })
    }

    fn single<'a>(
        reader: &mut Reader<'a>,
        one: &mut impl FnMut(&mut Reader<'a>) -> Result<T, PatternError>,
        depth: usize,
    ) -> Result<Self, PatternError> {
        if !reader.take("(") {
            return one(reader).map(Self::One);
        }
        if depth >= MAX_DEPTH {
            return Err(PatternError::Depth);
        }
        let inner = Self::any(reader, one, depth + 1)?;
        reader.expect(")").map(|()| inner)
    }

    /// Whether it holds, where `one` says so of each comparison.
    pub(super) fn holds(&self, one: &impl Fn(&T) -> bool) -> bool {
        match self {
            Self::All(all) => all.iter().all(|each| each.holds(one)),
            Self::Any(any) => any.iter().any(|each| each.holds(one)),
            Self::One(single) => one(single),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    /// Each with its sign, none before one that begins with it.
    pub(super) const SIGNS: [(&'static str, Self); 6] = [
        ("!=", Self::Unequal),
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("=", Self::Equal),
        ("<", Self::Less),
        (">", Self::Greater),
    ];

    // Numbers of logs are compared as they are written.
    #[allow(clippy::float_cmp)]
    pub(super) fn holds(self, number: f64, wanted: f64) -> bool {
        match self {
            Self::Equal => number == wanted,
            Self::Unequal => number != wanted,
            Self::Less => number < wanted,
            Self::AtMost => number <= wanted,
            Self::Greater => number > wanted,
            Self::AtLeast => number >= wanted,
        }
    }
}

/// What a field is compared with.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Number(Comparison, f64),
    /// Text with wildcards, or an expression. What stands without quotes may mean a number's digits too.
    Text {
        equal: bool,
        text: Regex,
        quoted: bool,
    },
}
