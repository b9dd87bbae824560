//! Where output goes (SPEC §3, §8). No I/O.

use std::fmt::Display;

use ids::{AccountId, ImageArn, ImageVersion};
use time::OffsetDateTime;

/// Name of the default group before the image's.
const DEFAULT_GROUP: &str = "/aws/lambda-microvms/";

/// Where the output of one build or MicroVM goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Whose log it is.
    pub account: AccountId,
    /// The group's name.
    pub group: String,
    /// The stream's name.
    pub stream: String,
    /// The number of the id of who prints.
    pub source: u128,
}

/// The group of an image's builds and MicroVMs, where no other is configured.
#[must_use]
pub fn default_group(image: &ImageArn) -> String {
    format!("{DEFAULT_GROUP}{}", image.name)
}

/// The stream of a MicroVM, where no other is configured: `YYYY/MM/DD[<version>]<id>`, by the UTC day on which it
/// started.
#[must_use]
pub fn stream_name(started_ms: u64, version: ImageVersion, id: impl Display) -> String {
    let seconds = i64::try_from(started_ms / 1000).unwrap_or(0);
    let day = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH).date();
    let (year, month, day) = (day.year(), u8::from(day.month()), day.day());
    format!("{year:04}/{month:02}/{day:02}[{version}]{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_aws() {
        let image = "arn:aws:lambda:us-east-1:123456789012:microvm-image:web".parse().unwrap();
        assert_eq!(default_group(&image), "/aws/lambda-microvms/web");
        let name = stream_name(1_790_812_799_999, "2.0".parse().unwrap(), "microvm-x");
        assert_eq!(name, "2026/09/30[2.0]microvm-x");
    }
}
