//! Times as rest-json sends them: a JSON number of seconds since the epoch, milliseconds as its fraction; or, where
//! the model asks for it, ISO 8601.

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

/// Milliseconds since the epoch; on the wire `2026-11-24T18:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IsoTimestamp(i64);

impl IsoTimestamp {
    /// The time that many milliseconds after the epoch; what no calendar of four digits has is its end.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(0, LAST_MILLIS))
    }
}

/// 9999-12-31T23:59:59.999Z.
const LAST_MILLIS: i64 = 253_402_300_799_999;
const ISO: &[time::format_description::BorrowedFormatItem<'_>] =
    time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

impl Serialize for IsoTimestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000);
        let text =
            moment.map_err(serde::ser::Error::custom)?.format(ISO).map_err(serde::ser::Error::custom)?;
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for IsoTimestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let moment = time::PrimitiveDateTime::parse(&text, ISO).map_err(serde::de::Error::custom)?;
        let millis = moment.assume_utc().unix_timestamp_nanos() / 1_000_000;
        Ok(Self(i64::try_from(millis).unwrap_or(LAST_MILLIS)))
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

    #[test]
    fn or_iso_8601() {
        let json = serde_json::to_string(&IsoTimestamp::from_millis(1_727_000_000_123)).unwrap();
        assert_eq!(json, "\"2024-09-22T10:13:20.123Z\"");
    }

    proptest! {
        #[test]
        fn survives_the_wire(millis in 0i64..=253_402_300_799_999) {
            let json = serde_json::to_string(&Timestamp::from_millis(millis)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap().millis(), millis);
            let json = serde_json::to_string(&IsoTimestamp::from_millis(millis)).unwrap();
            prop_assert_eq!(serde_json::from_str::<IsoTimestamp>(&json).unwrap().0, millis);
        }
    }
}
