//! Figures in tables: aligned for people, and as JSON for programs.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::stats::Samples;

const HEADINGS: [&str; 8] = ["figure", "median", "p90", "p99", "limit", "bare engine", "our part", "ratio"];

/// What the numbers of a row count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Ms,
    Bytes,
    Count,
}

/// A number in the unit of its row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Amount(f64);

/// For people, rows that are part of the one above begin with spaces.
fn trimmed<S: Serializer>(figure: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(figure.trim_start())
}

impl From<Duration> for Amount {
    fn from(duration: Duration) -> Self {
        Self(duration.as_secs_f64() * 1e3)
    }
}

impl From<u64> for Amount {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    fn from(number: u64) -> Self {
        Self(number as f64)
    }
}

/// One line: a figure and what it is held against.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    #[serde(serialize_with = "trimmed")]
    figure: String,
    unit: Unit,
    samples: usize,
    median: Option<Amount>,
    p90: Option<Amount>,
    p99: Option<Amount>,
    /// The most that the median may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Amount>,
    /// What the engine alone takes for the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    bare_engine: Option<Amount>,
    /// What remains. Negative where work was done ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    our_part: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Row {
    /// A duration's figure.
    pub(crate) fn of(figure: &str, samples: &Samples) -> Self {
        let median = samples.median().map(Amount::from);
        Self { median, ..Self::spread(figure, Unit::Ms, samples) }
    }

    /// A figure in bytes.
    pub(crate) fn bytes(figure: &str, samples: &Samples<u64>) -> Self {
        Self::spread(figure, Unit::Bytes, samples)
    }

    /// A number of things.
    pub(crate) fn count(figure: &str, number: usize) -> Self {
        Self::spread(figure, Unit::Count, &std::iter::once(number as u64).collect())
    }

    fn spread<T: Ord + Copy + Into<Amount>>(figure: &str, unit: Unit, samples: &Samples<T>) -> Self {
        let [median, p90, p99] = [50, 90, 99].map(|percent| samples.percentile(percent).map(Into::into));
        Self {
            figure: figure.into(),
            unit,
            samples: samples.len(),
            median,
            p90,
            p99,
            limit: None,
            bare_engine: None,
            our_part: None,
            ratio: None,
        }
    }

    /// With the most that the median may be.
    pub(crate) fn limit(mut self, limit: impl Into<Amount>) -> Self {
        self.limit = Some(limit.into());
        self
    }

    /// With what the engine alone takes for the same.
    pub(crate) fn against(mut self, bare: &Samples) -> Self {
        let bare = bare.median().map(Amount::from);
        if let (Some(Amount(ours)), Some(Amount(bare))) = (self.median, bare) {
            self.bare_engine = Some(Amount(bare));
            self.our_part = Some(Amount(ours - bare));
            self.ratio = Some(ours / bare);
        }
        self
    }

    fn cells(&self) -> [String; HEADINGS.len()] {
        let cell = |amount: Option<Amount>| amount.map(|amount| self.unit.text(amount)).unwrap_or_default();
        [
            self.figure.clone(),
            cell(self.median),
            // Of one sample they would say the same.
            cell(self.p90.filter(|_| self.samples > 1)),
            cell(self.p99.filter(|_| self.samples > 1)),
            cell(self.limit),
            cell(self.bare_engine),
            cell(self.our_part),
            self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        ]
    }
}

impl Unit {
    /// In the unit that leaves the fewest zeros.
    fn text(self, Amount(amount): Amount) -> String {
        match self {
            Self::Ms if amount.abs() < 1.0 => format!("{:.0} µs", amount * 1e3),
            Self::Ms => format!("{amount:.1} ms"),
            Self::Bytes => format!("{:.1} MiB", amount / f64::from(1 << 20)),
            Self::Count => format!("{amount:.0}"),
        }
    }
}

/// Rows under a name.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) rows: Vec<Row>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        let headings = HEADINGS.map(str::to_owned);
        let rows: Vec<_> = std::iter::once(headings).chain(self.rows.iter().map(Row::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
        for row in rows {
            let mut line = format!("{:<1$}", row[0], widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                line += &format!("  {cell:>width$}");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn micros(values: impl IntoIterator<Item = u64>) -> Samples {
        values.into_iter().map(Duration::from_micros).collect()
    }

    #[test]
    fn columns_are_aligned() {
        let row = Row::of("a figure", &micros([80, 100, 120]))
            .limit(Duration::from_millis(300))
            .against(&micros([50]));
        let rows = vec![row, Row::of("b", &Samples::default()), Row::count("c", 7)];
        let text = Table { name: "some".into(), rows }.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "some");
        assert_eq!(lines[1], "figure    median     p90     p99     limit  bare engine  our part  ratio");
        assert_eq!(lines[2], "a figure  100 µs  120 µs  120 µs  300.0 ms        50 µs     50 µs   2.00");
        assert_eq!(lines[3..], ["b", "c              7"]);
    }

    #[test]
    fn sizes_are_in_mebibytes() {
        let text = |bytes: u64| Unit::Bytes.text(bytes.into());
        assert_eq!((text(63 << 20), text(3 << 19)), ("63.0 MiB".to_owned(), "1.5 MiB".to_owned()));
    }

    #[test]
    fn json_has_what_was_held_against_it_and_nothing_else() {
        let row = Row::bytes("  memory", &[4, 6, 8].into_iter().collect()).limit(9);
        let expected = json!({"figure": "memory", "unit": "bytes", "samples": 3, "median": 6.0, "p90": 8.0,
            "p99": 8.0, "limit": 9.0});
        assert_eq!(serde_json::to_value(row).unwrap(), expected);
        let row = serde_json::to_value(Row::of("t", &micros([1500])).against(&micros([2000]))).unwrap();
        assert_eq!(
            (&row["unit"], &row["our_part"], &row["ratio"]),
            (&json!("ms"), &json!(-0.5), &json!(0.75))
        );
    }
}
