//! From method, path and query to an operation and what its path and query say.

use percent_encoding::percent_decode_str;

use crate::{Error, ErrorKind, Family, Operation};

/// Path prefixes of the Lambda APIs, and of our own beside them; everything else is somebody else's.
pub const PREFIXES: [&str; 4] = ["/2025-09-09/", "/2026-04-04/", "/2017-03-31/", "/2026-11-29/"];

/// The label of the operations on tags.
const TAGGED: &str = "Resource";

/// An operation with the parameters of its path and query, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which.
    pub operation: Operation,
    /// What stands at the path's labels.
    pub path: Vec<(&'static str, String)>,
    /// Names and values of the query.
    pub query: Vec<(String, String)>,
}

impl Route {
    /// In whose manners it is answered: operations on tags in those of what has the tags.
    #[must_use]
    pub fn family(&self) -> Family {
        let tagged = self.path.iter().find(|(label, _)| *label == TAGGED);
        tagged.map_or(self.operation.model().family, |(_, arn)| family_of(arn))
    }
}

/// Whose resource this is.
#[must_use]
pub fn family_of(arn: &str) -> Family {
    if arn.contains(":network-connector:") { Family::Lambda } else { Family::Microvms }
}

/// Whether a path belongs to a Lambda API.
#[must_use]
pub fn is_lambda(path: &str) -> bool {
    PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

/// Whose manners the answer has where no operation is known.
#[must_use]
pub fn family(path: &str) -> Family {
    if path.starts_with(PREFIXES[1]) { Family::Core } else { Family::Microvms }
}

/// The operation that a request names.
///
/// # Errors
/// An UnknownOperationException, or a SerializationException where an escape is none.
pub fn route(method: &str, path: &str, query: Option<&str>) -> Result<Route, Error> {
    let found = Operation::find(method, path);
    let (operation, labels) = found.ok_or_else(|| {
        Error::new(ErrorKind::UnknownOperation, format!("No operation answers {method} {path}"))
    })?;
    let labels = labels.into_iter().map(|(name, raw)| Ok((name, decode(raw)?)));
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    });
    Ok(Route {
        operation,
        path: labels.collect::<Result<_, Error>>()?,
        query: pairs.collect::<Result<_, Error>>()?,
    })
}

fn decode(raw: &str) -> Result<String, Error> {
    let broken = || {
        let message = format!("'{raw}' is not percent-encoded UTF-8; encode the identifier whole");
        Error::new(ErrorKind::Serialization, message)
    };
    if !escapes_are_whole(raw) {
        return Err(broken());
    }
    percent_decode_str(raw).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| broken())
}

/// The decoder takes a `%` without two digits for itself, which would let one identifier have two spellings.
fn escapes_are_whole(raw: &str) -> bool {
    raw.split('%').skip(1).all(|rest| {
        let mut digits = rest.bytes();
        (0..2).all(|_| digits.next().is_some_and(|digit| digit.is_ascii_hexdigit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_decoded_after_the_path_is_split() {
        let path = "/2025-09-09/microvm-images/arn%3Aaws%3Alambda%2Fx";
        let route = route("GET", path, Some("nextToken=a%3D&maxResults=2")).unwrap();
        assert_eq!(route.operation, Operation::GetMicrovmImage);
        assert_eq!(route.path, [("imageIdentifier", "arn:aws:lambda/x".to_owned())]);
        assert_eq!(route.query, [("nextToken".into(), "a=".into()), ("maxResults".into(), "2".into())]);
    }

    #[test]
    fn other_paths_are_no_operation() {
        for path in ["/2025-09-09/", "/2025-09-09/microvms/m/x", "/bucket/key"] {
            assert_eq!(route("GET", path, None).unwrap_err().kind, ErrorKind::UnknownOperation, "{path}");
        }
        assert!(!is_lambda("/bucket/key") && is_lambda("/2025-09-09/microvms"));
    }

    #[test]
    fn broken_escapes_are_the_clients_fault() {
        for (path, query) in
            [("m%ff", ""), ("m%", ""), ("m%4", ""), ("m%zz", ""), ("m", "a=%e9"), ("m", "%x=1")]
        {
            let refused = route("GET", &format!("/2025-09-09/microvms/{path}"), Some(query)).unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Serialization, "{path}?{query}");
        }
    }
}
