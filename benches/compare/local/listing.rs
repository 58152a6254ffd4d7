//! Listing a directory of many files, as `ls` does, not for the first time.

use super::row::{Row, Task, repeated};
use crate::figure::{Goal, Unit};
use crate::options::Options;
use std::process::{Command, Stdio};

pub fn rows() -> Vec<Row> {
    let row = |name, title, take| Row {
        name,
        title,
        unit: Unit::Rate,
        logged: false,
        goal: Goal::Against("native".into(), 0.7),
        offline: None,
        prepare: |task| list(task, "-l"),
        take,
    };
    vec![
        row("list-long", "ls -l, files", |task| rate(task, "-l")),
        row("list-names", "ls -f, files", |task| rate(task, "-f")),
    ]
}

pub fn files(options: &Options) -> u64 {
    options.size(100_000, 10_000)
}

fn list(task: Task, how: &str) {
    let listed =
        Command::new("ls").arg(how).env("LC_ALL", "C").current_dir(task.dir).stdout(Stdio::null()).status();
    assert!(listed.is_ok_and(|status| status.success()), "ls {how}");
}

fn rate(task: Task, how: &str) -> f64 {
    repeated(|| {
        list(task, how);
        files(task.options)
    })
}
