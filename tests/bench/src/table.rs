//! The result as one aligned table.

use std::fmt;
use std::time::Duration;

use crate::stats::Samples;

const HEADINGS: [&str; 8] = ["figure", "median", "p90", "p99", "limit", "bare engine", "our part", "ratio"];

/// One line: a figure and what it is held against.
#[derive(Debug, Default)]
pub(crate) struct Row([String; HEADINGS.len()]);

impl Row {
    /// A duration's figure.
    pub(crate) fn of(figure: &str, samples: &Samples) -> Self {
        let cell = |value: Option<Duration>| value.map(duration).unwrap_or_default();
        let mut row = Self::default();
        row.0[0] = figure.into();
        row.0[1] = cell(samples.median());
        row.0[2] = cell(samples.p90());
        row.0[3] = cell(samples.p99());
        row
    }

    /// A figure of another kind, already in words.
    pub(crate) fn in_words(figure: &str, median: String, p90: String, p99: String) -> Self {
        let mut row = Self::default();
        [row.0[0], row.0[1], row.0[2], row.0[3]] = [figure.into(), median, p90, p99];
        row
    }

    /// With the most that the median may be.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.0[4] = duration(limit);
        self
    }

    /// With what the engine alone takes for the same. What is ours is negative where work was done ahead.
    pub(crate) fn against(mut self, ours: &Samples, bare: &Samples) -> Self {
        if let (Some(ours), Some(bare)) = (ours.median(), bare.median()) {
            self.0[5] = duration(bare);
            self.0[6] = match ours.checked_sub(bare) {
                Some(more) => duration(more),
                None => format!("-{}", duration(bare - ours)),
            };
            self.0[7] = format!("{:.2}", ours.as_secs_f64() / bare.as_secs_f64());
        }
        self
    }
}

/// The whole table.
#[derive(Debug, Default)]
pub(crate) struct Table(pub(crate) Vec<Row>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headings = HEADINGS.map(str::to_owned);
        let rows: Vec<&[String; HEADINGS.len()]> =
            std::iter::once(&headings).chain(self.0.iter().map(|row| &row.0)).collect();
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

/// In the unit that leaves the fewest zeros.
fn duration(value: Duration) -> String {
    let millis = value.as_secs_f64() * 1e3;
    if millis < 1.0 { format!("{:.0} µs", millis * 1e3) } else { format!("{millis:.1} ms") }
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let samples: Samples = [80, 100, 120].map(Duration::from_micros).into_iter().collect();
        let bare: Samples = std::iter::once(Duration::from_micros(50)).collect();
        let row = Row::of("a figure", &samples).limit(Duration::from_millis(300)).against(&samples, &bare);
        let text = Table(vec![row, Row::of("b", &Samples::default())]).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "figure    median     p90     p99     limit  bare engine  our part  ratio");
        assert_eq!(lines[1], "a figure  100 µs  120 µs  120 µs  300.0 ms        50 µs     50 µs   2.00");
        assert_eq!(lines[2], "b");
    }

    #[test]
    fn sizes_are_in_mebibytes() {
        assert_eq!(mebibytes(63 << 20), "63.0 MiB");
        assert_eq!(mebibytes((1 << 20) + (1 << 19)), "1.5 MiB");
    }
}
