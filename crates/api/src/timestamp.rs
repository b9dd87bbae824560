//! Times as rest-json sends them: a JSON number of seconds since the epoch, milliseconds as its fraction.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the epoch; on the wire, seconds with a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time that many milliseconds after the epoch.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0
    }
}

impl Serialize for Timestamp {
    #[allow(clippy::cast_precision_loss)] // Exact up to 2^53 ms: the year 287396.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0 as f64 / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    #[allow(clippy::cast_possible_truncation)] // A float-to-integer `as` saturates.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        f64::deserialize(from).map(|seconds| Self((seconds * 1000.0).round() as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_a_number_of_seconds() {
        let json = serde_json::to_string(&Timestamp::from_millis(1_727_000_000_123)).unwrap();
        assert_eq!(json, "1727000000.123");
        assert_eq!(serde_json::from_str::<Timestamp>("1727000000").unwrap().millis(), 1_727_000_000_000);
    }

    proptest! {
        #[test]
        fn survives_the_wire(millis in 0i64..=253_402_300_799_999) {
            let json = serde_json::to_string(&Timestamp::from_millis(millis)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap().millis(), millis);
        }
    }
}
