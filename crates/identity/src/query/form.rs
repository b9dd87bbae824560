//! The body of a call: `application/x-www-form-urlencoded`.

/// More pairs than any call has; 50 tags are 100 of them.
const MAX_PAIRS: usize = 1000;

/// Why a body is no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// More parameters than any call has.
    #[error("reading the form: it has more than {MAX_PAIRS} parameters")]
    TooManyPairs,
}

/// Names and values of a body, or of a query string. Bytes that are no UTF-8 become U+FFFD.
///
/// # Errors
/// [`FormError`].
pub fn parse(body: &[u8]) -> Result<Vec<(String, String)>, FormError> {
    let pairs: Vec<_> = form_urlencoded::parse(body).into_owned().take(MAX_PAIRS + 1).collect();
    if pairs.len() > MAX_PAIRS { Err(FormError::TooManyPairs) } else { Ok(pairs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_values_are_decoded() {
        let form = parse(b"Action=Get+User&Tags.member.1.Key=%C3%A9&x&&=y").unwrap();
        let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(form, [("Action", "Get User"), ("Tags.member.1.Key", "é"), ("x", ""), ("", "y")]);
        assert_eq!(parse("a&".repeat(MAX_PAIRS + 1).as_bytes()), Err(FormError::TooManyPairs));
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>) {
            let _ = parse(&body);
        }
    }
}
