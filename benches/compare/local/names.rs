//! Names: small files made, renamed and removed.

use super::row::{Row, Task};
use crate::figure::{Goal, Unit};
use crate::rig::noise;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

const SMALL: usize = 4096;

pub fn rows() -> Vec<Row> {
    let row = |name, title, prepare, take| Row {
        name,
        title,
        unit: Unit::Rate,
        logged: true,
        goal: Goal::Against("bare".into(), 0.8),
        offline: Some(Goal::Against("bare".into(), 0.8)),
        prepare,
        take,
    };
    vec![
        row("create", "create, write 4 KiB, close", clear, create),
        row("rename", "rename", make, rename),
        row("unlink", "unlink", make, unlink),
    ]
}

fn count(task: Task) -> u64 {
    task.options.size(4_000, 1_000)
}

fn path(task: Task, kind: &str, n: u64) -> PathBuf {
    task.dir.join(format!("{kind} {n}"))
}

/// Removes all that a row of this file left.
fn clear(task: Task) {
    for entry in task.dir.read_dir().unwrap() {
        let name = entry.unwrap().file_name();
        if ["small ", "renamed "].iter().any(|kind| name.as_encoded_bytes().starts_with(kind.as_bytes())) {
            std::fs::remove_file(task.dir.join(name)).unwrap();
        }
    }
}

fn make(task: Task) {
    clear(task);
    create(task);
}

/// So many a second.
fn rate(task: Task, mut each: impl FnMut(u64)) -> f64 {
    let begun = Instant::now();
    (0..count(task)).for_each(&mut each);
    count(task) as f64 / begun.elapsed().as_secs_f64()
}

fn create(task: Task) -> f64 {
    let pool = noise(task.sample, SMALL + count(task) as usize);
    rate(task, |n| {
        let mut file = File::create_new(path(task, "small", n)).unwrap();
        file.write_all(&pool[n as usize..][..SMALL]).unwrap();
    })
}

fn rename(task: Task) -> f64 {
    rate(task, |n| std::fs::rename(path(task, "small", n), path(task, "renamed", n)).unwrap())
}

fn unlink(task: Task) -> f64 {
    rate(task, |n| std::fs::remove_file(path(task, "small", n)).unwrap())
}
