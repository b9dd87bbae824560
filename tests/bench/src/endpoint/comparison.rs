//! Figures beside those of nginx and of no proxy at all.

use std::fmt;

use serde::Serialize;

/// What a figure counts.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    PerSecond,
    BytesPerSecond,
    Seconds,
    Bytes,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    Least(f64),
    Most(f64),
    LeastOfNginx(f64),
    MostOfNginx(f64),
    LeastOfDirect(f64),
}

/// A figure, and the same of others.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    figure: String,
    unit: Unit,
    ours: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nginx: Option<f64>,
    /// Without a proxy, and without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    direct: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<Wanted>,
}

impl Comparison {
    pub(crate) fn of(figure: &str, unit: Unit, ours: f64) -> Self {
        Self { figure: figure.to_owned(), unit, ours, nginx: None, direct: None, wanted: None }
    }

    pub(crate) fn beside_nginx(self, nginx: f64) -> Self {
        Self { nginx: Some(nginx), ..self }
    }

    pub(crate) fn beside_direct(self, direct: f64) -> Self {
        Self { direct: Some(direct), ..self }
    }

    pub(crate) fn wanted(self, wanted: Wanted) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    /// Whether the figure is as wanted; nothing where nothing is, or where what it is held against is missing.
    fn met(&self) -> Option<bool> {
        Some(match self.wanted? {
            Wanted::Least(least) => self.ours >= least,
            Wanted::Most(most) => self.ours <= most,
            Wanted::LeastOfNginx(share) => self.ours >= share * self.nginx?,
            Wanted::MostOfNginx(share) => self.ours <= share * self.nginx?,
            Wanted::LeastOfDirect(share) => self.ours >= share * self.direct?,
        })
    }

    fn wish(&self) -> String {
        let wish = match self.wanted {
            None => return String::new(),
            Some(Wanted::Least(least)) => format!("≥ {}", self.unit.text(least)),
            Some(Wanted::Most(most)) => format!("≤ {}", self.unit.text(most)),
            Some(Wanted::LeastOfNginx(share)) => format!("≥ {share} of nginx"),
            Some(Wanted::MostOfNginx(share)) => format!("≤ {share} of nginx"),
            Some(Wanted::LeastOfDirect(share)) => format!("≥ {share} of direct"),
        };
        format!("{wish}{}", if self.met() == Some(false) { ", missed" } else { "" })
    }
}

impl Unit {
    fn text(self, amount: f64) -> String {
        match self {
            Self::PerSecond => format!("{amount:.0}"),
            Self::BytesPerSecond => format!("{:.0} MB", amount / 1e6),
            Self::Seconds => format!("{:.1} µs", amount * 1e6),
            Self::Bytes => format!("{:.1} KiB", amount / 1024.0),
        }
    }
}

/// Comparisons as lines of a table.
pub(crate) struct Lines<'a>(pub(crate) &'a [Comparison]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = ["endpoint", "Rekindle", "nginx", "ratio", "direct", "ratio", "wanted"];
        let mut line = |[figure, ours, nginx, to_nginx, direct, to_direct, wanted]: [&str; 7]| {
            let text =
                format!("{figure:<38}{ours:>12}{nginx:>12}{to_nginx:>8}{direct:>12}{to_direct:>8}  {wanted}");
            writeln!(f, "{}", text.trim_end())
        };
        line(heading)?;
        for it in self.0 {
            let text = |amount: Option<f64>| amount.map(|amount| it.unit.text(amount)).unwrap_or_default();
            let ratio = |of: Option<f64>| of.map(|of| format!("{:.2}", it.ours / of)).unwrap_or_default();
            let cells =
                [text(Some(it.ours)), text(it.nginx), ratio(it.nginx), text(it.direct), ratio(it.direct)];
            let [ours, nginx, to_nginx, direct, to_direct] = cells.each_ref().map(String::as_str);
            line([&it.figure, ours, nginx, to_nginx, direct, to_direct, &it.wish()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_what_is_wanted() {
        let half = |wanted| {
            Comparison::of("f", Unit::Bytes, 1.0).beside_nginx(2.0).beside_direct(2.0).wanted(wanted)
        };
        let met = |wanted| half(wanted).met();
        assert_eq!(met(Wanted::LeastOfNginx(0.5)), Some(true));
        assert_eq!(met(Wanted::LeastOfDirect(0.6)), Some(false));
        assert_eq!(met(Wanted::MostOfNginx(0.4)), Some(false));
        assert_eq!((met(Wanted::Most(1.0)), met(Wanted::Least(1.1))), (Some(true), Some(false)));
        assert_eq!(Comparison::of("f", Unit::Bytes, 1.0).wanted(Wanted::LeastOfNginx(1.0)).met(), None);
    }

    #[test]
    fn lines_have_what_there_is() {
        let figure = Comparison::of("requests/s", Unit::PerSecond, 900.0)
            .beside_nginx(1000.0)
            .wanted(Wanted::LeastOfNginx(1.0));
        let text = Lines(&[figure]).to_string();
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["requests/s", "900", "1000", "0.90", "≥", "1", "of", "nginx,", "missed"]);
    }
}
