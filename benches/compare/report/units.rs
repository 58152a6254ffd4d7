//! Numbers as people read them.

use crate::figure::{Figure, Goal, Spread, Unit};

pub fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Throughput => format!("{}B/s", scaled(value)),
        Unit::Rate => format!("{}/s", scaled(value)),
        Unit::Bytes => format!("{}B", scaled(value)),
        Unit::Percent => format!("{} %", digits(value)),
        Unit::Count => digits(value),
        Unit::Seconds if value < 1e-3 => format!("{} us", digits(value * 1e6)),
        Unit::Seconds if value < 1.0 => format!("{} ms", digits(value * 1e3)),
        Unit::Seconds => format!("{} s", digits(value)),
    }
}

/// What is wanted, in the figure's unit or as a ratio.
pub fn goal(figure: &Figure, goal: &Goal) -> String {
    match goal {
        Goal::Against(other, ratio) => format!(">= {ratio}x {other}"),
        Goal::AtMost(most) => format!("<= {}", shown(figure.unit, *most)),
        Goal::AtLeast(least) => format!(">= {}", shown(figure.unit, *least)),
    }
}

/// With the prefix of its power of a thousand.
fn scaled(value: f64) -> String {
    let (factor, prefix) = match value.abs() {
        v if v >= 1e9 => (1e9, "G"),
        v if v >= 1e6 => (1e6, "M"),
        v if v >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    format!("{} {prefix}", digits(value / factor))
}

/// Three digits that count.
pub fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 || v == 0.0 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The median, and from where to where it goes.
pub fn ratio(spread: Spread) -> String {
    format!("{}x ({} to {})", digits(spread.median), digits(spread.least), digits(spread.most))
}
