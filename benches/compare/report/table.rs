//! The table that a run prints.

use super::units::{digits, goal, shown};
use crate::figure::{Figure, Goal, Spread};
use std::collections::BTreeSet;

/// One block of lines a figure: everybody's median, then each goal and how far it is reached.
pub fn print(figures: &[Figure]) {
    for figure in figures {
        println!("{} ({})", figure.title, figure.name);
        let all: BTreeSet<&str> = figure.rounds.iter().flatten().map(|(who, _)| who.as_ref()).collect();
        let of = |who: &str| figure.of(who).map(|of| format!("{who} {}", shown(figure.unit, of.median)));
        // syncfs first.
        let others = all.iter().filter(|who| **who != "syncfs");
        let medians: Vec<String> = ["syncfs"].iter().chain(others).filter_map(|who| of(who)).collect();
        if !medians.is_empty() {
            println!("    {}", medians.join(", "));
        }
        for wanted in &figure.goals {
            println!("    {}", line(figure, wanted));
        }
        figure.notes.iter().for_each(|note| println!("    {note}"));
    }
}

fn line(figure: &Figure, wanted: &Goal) -> String {
    let reached = match figure.reaches(wanted) {
        Some(true) => "reached",
        Some(false) => "missed",
        None => "not measured",
    };
    let found = match wanted {
        Goal::Against(other, _) => figure.beside(other).map(ratio),
        Goal::AtMost(_) | Goal::AtLeast(_) => figure.of("syncfs").map(|of| shown(figure.unit, of.median)),
    };
    format!(
        "{}: {}{reached}",
        goal(figure, wanted),
        found.map_or(String::new(), |found| format!("{found}, "))
    )
}

/// The median, and from where to where it goes.
fn ratio(spread: Spread) -> String {
    format!("{}x ({} to {})", digits(spread.median), digits(spread.least), digits(spread.most))
}
