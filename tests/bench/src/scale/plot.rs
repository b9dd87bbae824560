//! An axis as a picture: medians as lines, from each of which a thin one leads up to the p90.

use std::fmt::Write;
use std::time::Duration;

use super::{Axis, Point};
use crate::stats::Samples;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Around the field, for what is written there.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;
/// Lines across the field, with their milliseconds.
const GRID: u32 = 5;

type Series = (&'static str, &'static str, fn(&Point) -> &Samples);

const SERIES: [Series; 2] = [
    ("no spare clone waiting", "#b3541e", |point| &point.no_spare),
    ("a spare clone waiting", "#1e6fb3", |point| &point.spare),
];

/// The points stand at equal distances, because their values span orders of magnitude.
pub(super) fn svg(axis: &Axis) -> String {
    let field = Field::of(axis);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    text(&mut svg, WIDTH / 2.0, 18.0, "middle", "RunMicrovm call → first 200, median and p90 in ms");
    text(&mut svg, WIDTH / 2.0, HEIGHT - 12.0, "middle", &format!("{} {}", axis.of, parenthesis(axis.unit)));
    for line in 0..=GRID {
        let millis = field.most * f64::from(line) / f64::from(GRID);
        let y = field.y(millis);
        path(&mut svg, "#dddddd", 1.0, &[(LEFT, y), (WIDTH - RIGHT, y)]);
        text(&mut svg, LEFT - 8.0, y + 4.0, "end", &format!("{millis:.0}"));
    }
    for (index, point) in axis.points.iter().enumerate() {
        text(&mut svg, field.x(index), HEIGHT - BOTTOM + 18.0, "middle", &point.at.to_string());
    }
    for (number, series) in SERIES.iter().enumerate() {
        draw(&mut svg, axis, &field, series);
        let x = LEFT + 220.0 * number as f64;
        path(&mut svg, series.1, 2.0, &[(x, 36.0), (x + 20.0, 36.0)]);
        text(&mut svg, x + 26.0, 40.0, "start", series.0);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, axis: &Axis, field: &Field, (_, colour, of): &Series) {
    let points = axis.points.iter().enumerate();
    let medians: Vec<(f64, f64)> =
        points.clone().map(|(index, point)| (field.x(index), field.y(millis(of(point).median())))).collect();
    path(svg, colour, 2.0, &medians);
    for ((index, point), median) in points.zip(&medians) {
        let p90 = (field.x(index), field.y(millis(of(point).percentile(90))));
        path(svg, colour, 1.0, &[*median, p90]);
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>",
            median.0, median.1
        );
    }
}

/// Where on the picture what is.
struct Field {
    points: usize,
    /// Milliseconds at its upper edge.
    most: f64,
}

impl Field {
    fn of(axis: &Axis) -> Self {
        let all = axis.points.iter().flat_map(|point| SERIES.map(|(_, _, of)| of(point).percentile(90)));
        let most = all.map(millis).fold(0.0, f64::max);
        Self { points: axis.points.len(), most: round_up(most) }
    }

    fn x(&self, index: usize) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (index as f64 + 0.5) / self.points as f64
    }

    fn y(&self, millis: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * millis / self.most
    }
}

/// To what divides into round steps.
fn round_up(millis: f64) -> f64 {
    let step = f64::from(GRID) * 10.0;
    (millis / step).ceil().max(1.0) * step
}

fn millis(duration: Option<Duration>) -> f64 {
    duration.unwrap_or_default().as_secs_f64() * 1e3
}

fn parenthesis(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!("({unit})") }
}

fn path(svg: &mut String, colour: &str, width: f64, points: &[(f64, f64)]) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
        points.join(" ")
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn a_larger_median_stands_higher_and_all_within_the_picture() {
        let mut axis = Axis::new(Kind::Ended, [0, 1000]);
        axis.points[0].spare.push(Duration::from_millis(80));
        axis.points[1].no_spare.push(Duration::from_millis(412));
        let field = Field::of(&axis);
        assert_eq!(field.most, 450.0);
        assert_eq!((field.y(0.0), field.y(450.0)), (HEIGHT - BOTTOM, TOP));
        assert!(field.x(0) > LEFT && field.x(0) < field.x(1) && field.x(1) < WIDTH - RIGHT);
        let svg = svg(&axis);
        assert!(svg.contains(">1000</text>") && svg.contains(">450</text>") && svg.ends_with("</svg>\n"));
    }
}
