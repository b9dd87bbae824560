//! The time, and how it is written.

pub(crate) use store::now_ms;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const MOMENT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// `2026-01-31T23:59:59Z`, of seconds since the Unix epoch. What is beyond the calendar reads as its last second.
pub(crate) fn iso(seconds: u64) -> String {
    const LAST: &str = "9999-12-31T23:59:59Z";
    let moment = i64::try_from(seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    moment.and_then(|at| at.format(MOMENT).ok()).unwrap_or_else(|| LAST.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_aws_writes_them() {
        assert_eq!(iso(1_440_938_160), "2015-08-30T12:36:00Z");
        assert_eq!(iso(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
