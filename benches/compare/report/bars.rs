//! One bar for each contender of each figure: how good it is beside the one that the goal names, whose own bar is grey and 1 long.

use super::svg::{Anchor, Picture};
use super::units::digits;
use crate::figure::{Figure, Goal, Spread};

const LEFT: f64 = 90.0;
const SPAN: f64 = 480.0;
const RIGHT: f64 = 70.0;
const BAR: f64 = 14.0;
const GAP: f64 = 12.0;
const TOP: f64 = 40.0;
/// What is better than so many times is cut off, and its number says how much it is.
const MOST: f64 = 1.6;

/// None where no figure has a goal beside another.
pub fn drawn(title: &str, figures: &[&Figure]) -> Option<String> {
    let rows: Vec<Row> = figures.iter().filter_map(|figure| Row::of(figure)).collect();
    if rows.is_empty() {
        return None;
    }
    let height = TOP + rows.iter().map(|row| (1 + row.bars.len()) as f64 * BAR + GAP).sum::<f64>() + 10.0;
    let mut picture = Picture::new(LEFT + SPAN + RIGHT, height);
    picture.text((10.0, 16.0), Anchor::Start, "ink", title);
    let x = |ratio: f64| LEFT + SPAN * ratio.clamp(0.0, MOST) / MOST;
    for tenth in [0, 5, 10, 15] {
        let ratio = f64::from(tenth) / 10.0;
        picture.line((x(ratio), TOP - 6.0), (x(ratio), height - 10.0), "faint", 1.0);
        picture.text((x(ratio), TOP - 10.0), Anchor::Middle, "ink", &digits(ratio));
    }
    let mut y = TOP;
    for row in &rows {
        picture.text((10.0, y + BAR - 3.0), Anchor::Start, "ink", &row.title);
        y += BAR;
        let top = y;
        for (who, ratio) in &row.bars {
            let colour = match *who {
                "syncfs" => "c0",
                "sshfs" => "c2",
                who if who == row.other => "c1",
                _ => "c3",
            };
            picture.text((LEFT - 6.0, y + BAR - 3.0), Anchor::End, "ink", who);
            picture.bar((x(0.0), y + 1.0), (x(ratio.median) - x(0.0), BAR - 3.0), colour);
            let middle = y + BAR / 2.0 - 0.5;
            picture.line((x(ratio.least), middle), (x(ratio.most), middle), "ink", 1.0);
            let end = x(ratio.most.max(ratio.median)) + 4.0;
            picture.text((end, y + BAR - 3.0), Anchor::Start, "ink", &digits(ratio.median));
            y += BAR;
        }
        picture.line((x(row.goal), top - 1.0), (x(row.goal), y + 1.0), "goal", 2.0);
        y += GAP;
    }
    Some(picture.finished(title))
}

struct Row<'a> {
    title: String,
    other: &'a str,
    goal: f64,
    bars: Vec<(&'a str, Spread)>,
}

impl<'a> Row<'a> {
    fn of(figure: &'a Figure) -> Option<Row<'a>> {
        let (other, goal) = figure.goals.iter().find_map(|goal| match goal {
            Goal::Against(other, ratio) => Some((other, *ratio)),
            Goal::AtMost(_) | Goal::AtLeast(_) => None,
        })?;
        let all = figure.all().into_iter();
        let bars: Vec<_> = all.filter_map(|who| Some((who, figure.compared(who, other)?))).collect();
        let title = figure.title.clone();
        (!bars.is_empty()).then_some(Row { title, other, goal, bars })
    }
}
