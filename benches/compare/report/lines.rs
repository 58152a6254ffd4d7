//! How something grows with the size of what is there: one line for each thing, both axes logarithmic.

use super::svg::{Anchor, Picture};
use super::units::shown;
use crate::figure::{Figure, Unit};

const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const SPAN: (f64, f64) = (420.0, 280.0);
const TOP: f64 = 36.0;
const COLOURS: [&str; 4] = ["c0", "c2", "c3", "c1"];

pub struct Line {
    pub title: String,
    /// Size, and how long or how much.
    pub points: Vec<(f64, f64)>,
}

/// Lines of figures that are called `PREFIX-WHAT-SIZE`, in the order in which they come.
pub fn lines(figures: &[&Figure], prefix: &str, unit: Unit) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for figure in figures.iter().filter(|figure| figure.unit == unit) {
        let Some(rest) = figure.name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')) else {
            continue;
        };
        let Some((what, size)) = rest.rsplit_once('-') else { continue };
        let (Some(size), Some(found)) = (size_of(size), figure.of("syncfs")) else { continue };
        match lines.iter_mut().find(|line| line.title == what) {
            Some(line) => line.points.push((size, found.median)),
            None => lines.push(Line { title: what.into(), points: vec![(size, found.median)] }),
        }
    }
    lines
}

/// `10k`, `1m`: thousands and so on.
fn size_of(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let power = "kmgt".find(&text[digits.len()..]).map_or(0, |at| at as i32 + i32::from(digits != text));
    Some(digits.parse::<f64>().ok()? * 1000f64.powi(power))
}

/// None where there is nothing to draw.
pub fn drawn(title: &str, across: &str, unit: Unit, lines: &[Line]) -> Option<String> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied()).filter(|(_, y)| *y > 0.0);
    let [xs, ys] = [decades(points().map(|p| p.0))?, decades(points().map(|p| p.1))?];
    let x = |value: f64| LEFT + SPAN.0 * (value.log10() - f64::from(xs.0)) / f64::from(xs.1 - xs.0);
    let y = |value: f64| TOP + SPAN.1 * (f64::from(ys.1) - value.max(1e-12).log10()) / f64::from(ys.1 - ys.0);
    let mut picture = Picture::new(LEFT + SPAN.0 + RIGHT, TOP + SPAN.1 + 46.0);
    picture.text((10.0, 16.0), Anchor::Start, "ink", title);
    let bottom = TOP + SPAN.1;
    for decade in ys.0..=ys.1 {
        let value = 10f64.powi(decade);
        picture.line((LEFT, y(value)), (LEFT + SPAN.0, y(value)), "faint", 1.0);
        picture.text((LEFT - 6.0, y(value) + 4.0), Anchor::End, "ink", &shown(unit, value));
    }
    for decade in xs.0..=xs.1 {
        let value = 10f64.powi(decade);
        picture.line((x(value), TOP), (x(value), bottom), "faint", 1.0);
        picture.text(
            (x(value), bottom + 16.0),
            Anchor::Middle,
            "ink",
            shown(Unit::Bytes, value).trim_end_matches('B').trim(),
        );
    }
    picture.text((LEFT + SPAN.0 / 2.0, bottom + 36.0), Anchor::Middle, "ink", across);
    let mut labels = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let width = if n < COLOURS.len() { 2.0 } else { 1.0 };
        for pair in line.points.windows(2) {
            picture.line((x(pair[0].0), y(pair[0].1)), (x(pair[1].0), y(pair[1].1)), colour, width);
        }
        line.points.iter().for_each(|point| picture.dot((x(point.0), y(point.1)), colour));
        labels.extend(line.points.last().map(|point| (y(point.1), colour, &line.title)));
    }
    // Beside where each line ends, and none upon another.
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP;
    for (at, colour, title) in labels {
        let at = at.max(free);
        picture.dot((LEFT + SPAN.0 + 14.0, at), colour);
        picture.text((LEFT + SPAN.0 + 22.0, at + 4.0), Anchor::Start, "ink", title);
        free = at + 14.0;
    }
    Some(picture.finished(title))
}

/// Powers of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> Option<(i32, i32)> {
    let logs: Vec<f64> = values.map(f64::log10).collect();
    let least = logs.iter().copied().reduce(f64::min)?.floor() as i32;
    let most = logs.iter().copied().reduce(f64::max)?.ceil() as i32;
    Some((least, most.max(least + 1)))
}
