//! The sources of syncfs cross the link, file by file and as one large file, compressed and as they are.

use crate::hosts::{linked, sent};
use crate::link::Link;
use std::path::Path;
use std::time::Instant;

pub fn run(link: &Link) {
    let mut files = Vec::new();
    for room in ["src", "tests", "docs"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut files);
    }
    let all = files.concat();
    println!("text: {} files, {:.2} MB", files.len(), all.len() as f64 / 1e6);
    let mut figures = Vec::new();
    for flags in [&[][..], &["--no-compress"]] {
        let pair = linked(link, flags);
        let mut cross = |what: &str, save: &dyn Fn()| {
            let (before, begun) = (sent(&pair.a), Instant::now());
            save();
            pair.a.flush();
            let figure = (sent(&pair.a) - before, begun.elapsed().as_secs_f64());
            println!("  {what} {flags:?}: {} bytes sent, {:.1} s until both are level", figure.0, figure.1);
            figures.push(figure);
        };
        cross("as one file", &|| pair.a.save("all", &all));
        cross("file by file", &|| {
            files.iter().enumerate().for_each(|(n, text)| pair.a.save(format!("file {n}"), text));
        });
        pair.finish();
    }
    for (what, n) in [("as one file", 0), ("file by file", 1)] {
        let (with, without) = (figures[n], figures[n + 2]);
        let share = |with: f64, without: f64| with * 100.0 / without;
        println!(
            "  {what}: compressed {:.0} % of the bytes, {:.0} % of the time",
            share(with.0 as f64, without.0 as f64),
            share(with.1, without.1)
        );
    }
}

/// The files below a directory, in the order of their names.
fn collect(dir: &Path, files: &mut Vec<Vec<u8>>) {
    let mut entries: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(std::fs::read(&path).unwrap()),
        }
    }
}
