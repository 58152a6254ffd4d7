//! Looking at what is there: attributes of files, and names that lead nowhere, both as the kernel has them in mind.

use super::row::{Row, Task, repeated};
use crate::figure::{Goal, Unit};
use crate::rig::{errno, noise};
use std::path::PathBuf;

const FILES: u64 = 100;
/// How often all of them are looked at between two looks at the clock.
const TIMES: u64 = 20;

pub fn rows() -> Vec<Row> {
    let row = |name, title, prepare, take| Row {
        name,
        title,
        unit: Unit::Rate,
        logged: false,
        goal: Goal::Against("native".into(), 0.9),
        offline: None,
        prepare,
        take,
    };
    vec![
        row("stat", "stat, known to the kernel", |task| look(task, "there"), |task| rate(task, "there")),
        row(
            "lookup",
            "lookup of what is not there, known",
            |task| look(task, "not"),
            |task| rate(task, "not"),
        ),
    ]
}

fn paths(task: Task, kind: &str) -> Vec<PathBuf> {
    (0..FILES).map(|n| task.dir.join(format!("{kind} {n}"))).collect()
}

fn look(task: Task, kind: &str) {
    for path in paths(task, kind) {
        match kind {
            "there" => std::fs::write(path, noise(1, 10)).unwrap(),
            _ => assert_eq!(errno(path.metadata()), libc::ENOENT),
        }
    }
}

fn rate(task: Task, kind: &str) -> f64 {
    let paths = paths(task, kind);
    repeated(|| {
        for _ in 0..TIMES {
            paths.iter().for_each(|path| assert_eq!(path.symlink_metadata().is_ok(), kind == "there"));
        }
        TIMES * FILES
    })
}
