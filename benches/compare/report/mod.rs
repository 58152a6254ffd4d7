//! How figures are shown and kept.

mod bars;
mod lines;
mod machine;
mod page;
mod raw;
mod svg;
pub mod table;
mod units;

use crate::figure::{Figure, Unit};
use crate::options::Options;
use machine::Machine;
use raw::Record;
use std::path::Path;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");

/// A picture of bars: its file, its title, and how the names of its figures begin.
const BARS: [(&str, &str, &[&str]); 3] = [
    (
        "writing",
        "Writing and names, one host: times as fast",
        &["write-", "append", "copy-in", "create", "rename", "unlink"],
    ),
    ("reading", "Reading and looking, one host: times as fast", &["read-", "stat", "lookup", "list-"]),
    ("bulk", "Two hosts: times as good", &["bulk", "cpu", "lazy"]),
];
/// A picture of lines: its file, its title, what grows, how names begin, and the unit.
const LINES: [(&str, &str, &str, &str, Unit); 2] = [
    ("files", "As a directory grows", "files", "scale", Unit::Seconds),
    ("size", "As a file grows", "bytes of one file", "grow", Unit::Seconds),
];

/// Puts the figures into the documents.
pub fn write(options: &Options, figures: Vec<Figure>) {
    let (docs, machine) = (Path::new(DOCS), Machine::this());
    let record = |figure| Record { figure, quick: options.quick, machine: machine.clone() };
    let place = docs.join("performance");
    std::fs::create_dir_all(&place).expect("a directory beside the documents");
    let kept = place.join("figures.json");
    let records = raw::merged(&kept, figures.into_iter().map(record).collect());
    raw::keep(&kept, &records);
    let figures: Vec<&Figure> = records.iter().map(|record| &record.figure).collect();
    for (file, title, names) in BARS {
        let named = |figure: &&&Figure| names.iter().any(|name| figure.name.starts_with(name));
        let shown: Vec<&Figure> = figures.iter().filter(named).copied().collect();
        draw(&place, file, bars::drawn(title, &shown));
    }
    for (file, title, across, prefix, unit) in LINES {
        draw(&place, file, lines::drawn(title, across, unit, &lines::lines(&figures, prefix, unit)));
    }
    let titles =
        BARS.map(|(file, title, _)| (file, title)).into_iter().chain(LINES.map(|line| (line.0, line.1)));
    let pictures: Vec<_> =
        titles.filter(|(file, _)| place.join(file).with_extension("svg").exists()).collect();
    page::write(&docs.join("performance.md"), &records, &pictures);
}

/// Nothing to draw leaves what was drawn.
fn draw(place: &Path, file: &str, picture: Option<String>) {
    if let Some(picture) = picture {
        std::fs::write(place.join(file).with_extension("svg"), picture)
            .expect("a picture beside the documents");
    }
}
