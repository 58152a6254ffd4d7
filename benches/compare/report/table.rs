//! The table that a run prints.

use super::units::{goal, ratio, shown};
use crate::figure::{Figure, Goal};

/// One block of lines a figure: everybody's median, then each goal and how far it is reached.
pub fn print(figures: &[Figure]) {
    for figure in figures {
        println!("{} ({})", figure.title, figure.name);
        let of = |who: &str| figure.of(who).map(|of| format!("{who} {}", shown(figure.unit, of.median)));
        let medians: Vec<String> = figure.all().into_iter().filter_map(of).collect();
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
