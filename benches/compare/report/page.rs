//! The table of goals in docs/performance.md, and the pictures, between two marks; what is around them is written by people.

use super::raw::Record;
use super::units::{goal, ratio, shown};
use crate::figure::{Figure, Goal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

const BEGIN: &str = "<!-- figures: begin -->";
const END: &str = "<!-- figures: end -->";

/// `pictures` are files beside the page, without their ending, and what they show.
pub fn write(page: &Path, records: &[Record], pictures: &[(&str, &str)]) {
    let text = std::fs::read_to_string(page).expect("the page");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where the table ends");
    let table = table(records);
    let pictures: String =
        pictures.iter().map(|(file, title)| format!("\n![{title}](performance/{file}.svg)\n")).collect();
    std::fs::write(page, format!("{before}{BEGIN}\n{table}{pictures}{END}{after}")).expect("the page");
}

fn table(records: &[Record]) -> String {
    let mut text = String::from("| what | syncfs | others | goal | found | |\n|---|---|---|---|---|---|\n");
    for Record { figure, .. } in records {
        let goals =
            if figure.goals.is_empty() { vec![None] } else { figure.goals.iter().map(Some).collect() };
        for (n, wanted) in goals.into_iter().enumerate() {
            // What belongs to the figure as a whole stands beside its first goal.
            let [title, ours, others] = if n == 0 { medians(figure) } else { Default::default() };
            let [wanted, found, reached] =
                wanted.map_or_else(Default::default, |wanted| judged(figure, wanted));
            let _ = writeln!(text, "| {title} | {ours} | {others} | {wanted} | {found} | {reached} |");
        }
    }
    let measured = records.iter().map(|Record { machine, quick, .. }| {
        let quick = if *quick { ", with the smaller sizes of `--quick`" } else { "" };
        format!("Measured {}{quick}.\n", machine.shown())
    });
    text.push('\n');
    text.extend(measured.collect::<BTreeSet<_>>());
    // What holds of many figures is said once.
    let mut notes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Record { figure, .. } in records {
        figure.notes.iter().for_each(|note| notes.entry(note).or_default().push(&figure.name));
    }
    if !notes.is_empty() {
        text.push_str("\nTo be known beside:\n\n");
    }
    for (note, of) in notes {
        let _ = writeln!(text, "- {note} ({})", of.join(", "));
    }
    text
}

fn medians(figure: &Figure) -> [String; 3] {
    let median = |who| figure.of(who).map_or("-".into(), |of| shown(figure.unit, of.median));
    let others = figure.all().into_iter().filter(|who| *who != "syncfs");
    let others: Vec<String> = others.map(|who| format!("{who} {}", median(who))).collect();
    [format!("{} (`{}`)", figure.title, figure.name), median("syncfs"), others.join(", ")]
}

fn judged(figure: &Figure, wanted: &Goal) -> [String; 3] {
    let found = match wanted {
        Goal::Against(other, _) => figure.beside(other).map_or(String::new(), ratio),
        Goal::AtMost(_) | Goal::AtLeast(_) => {
            figure.of("syncfs").map_or(String::new(), |of| shown(figure.unit, of.median))
        }
    };
    let reached = match figure.reaches(wanted) {
        Some(true) => "reached",
        Some(false) => "**missed**",
        None => "not measured",
    };
    [goal(figure, wanted), found, reached.into()]
}
