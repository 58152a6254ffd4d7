//! Writing: a new file from its beginning to its end, here and there into one, and to its end. Until `close` returns.

use super::row::{Row, Task};
use crate::figure::{Goal, Unit};
use crate::rig::noise;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
/// So much content before it comes again.
const POOL: usize = 16 << 20;

pub fn rows() -> Vec<Row> {
    let sequential = |name, title, take| Row {
        name,
        title,
        unit: Unit::Throughput,
        logged: false,
        goal: Goal::Against("bare".into(), 0.9),
        offline: Some(Goal::Against("bare".into(), 0.95)),
        prepare: remove,
        take,
    };
    let scattered = |name, title, prepare, take| Row {
        name,
        title,
        unit: Unit::Rate,
        logged: true,
        goal: Goal::Against("bare".into(), 0.9),
        offline: Some(Goal::Against("bare".into(), 0.9)),
        prepare,
        take,
    };
    vec![
        sequential("write-1m", "sequential write, 1 MiB", |task| write(task, MIB as usize)),
        sequential("write-128k", "sequential write, 128 KiB", |task| write(task, 128 << 10)),
        scattered("write-random", "random write, 4 KiB", |task| fill(task, 1), |task| scatter(task, 1)),
        scattered(
            "write-random-2",
            "random write, 4 KiB, 2 jobs",
            |task| fill(task, 2),
            |task| scatter(task, 2),
        ),
        scattered("append", "append, 100 bytes", remove, append),
    ]
}

fn path(task: Task, job: u64) -> PathBuf {
    task.dir.join(format!("file {job}"))
}

fn remove(task: Task) {
    for job in 0..2 {
        let _ = std::fs::remove_file(path(task, job));
    }
}

/// Bytes a second.
fn write(task: Task, piece: usize) -> f64 {
    let (pool, size) = (noise(task.sample, POOL), task.options.size(1024, 256) * MIB);
    let begun = Instant::now();
    let mut file = File::create_new(path(task, 0)).unwrap();
    for n in 0..size as usize / piece {
        let at = n * piece % POOL;
        file.write_all(&pool[at..at + piece]).unwrap();
    }
    drop(file);
    size as f64 / begun.elapsed().as_secs_f64()
}

fn area(task: Task) -> u64 {
    task.options.size(256, 128) * MIB
}

/// A file for each job, if it is not there.
fn fill(task: Task, jobs: u64) {
    for job in 0..jobs {
        if path(task, job).metadata().is_ok_and(|meta| meta.len() == area(task)) {
            continue;
        }
        let (mut file, pool) = (File::create(path(task, job)).unwrap(), noise(job, POOL));
        for _ in 0..area(task) as usize / POOL {
            file.write_all(&pool).unwrap();
        }
    }
}

/// Writes a second, of all jobs together.
fn scatter(task: Task, jobs: u64) -> f64 {
    let (each, pages) = (task.options.size(20_000, 10_000) / jobs, area(task) / PAGE);
    let work: Vec<_> = (0..jobs)
        .map(|job| {
            let seed = task.sample * jobs + job;
            let places = noise(seed ^ 0x5eed, 8 * each as usize);
            let places = places.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().expect("eight")));
            let places: Vec<u64> = places.map(|n| (n >> 8) % pages * PAGE).collect();
            let file = File::options().write(true).open(path(task, job)).unwrap();
            (file, places, noise(seed, PAGE as usize + each as usize))
        })
        .collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (file, places, pool) in work {
            scope.spawn(move || {
                for (n, at) in places.into_iter().enumerate() {
                    file.write_all_at(&pool[n..n + PAGE as usize], at).unwrap();
                }
            });
        }
    });
    (jobs * each) as f64 / begun.elapsed().as_secs_f64()
}

/// Lines a second.
fn append(task: Task) -> f64 {
    let (count, pool) = (task.options.size(40_000, 20_000) as usize, noise(task.sample, POOL));
    let mut file = File::options().append(true).create_new(true).open(path(task, 0)).unwrap();
    let begun = Instant::now();
    for n in 0..count {
        file.write_all(&pool[100 * n..100 * (n + 1)]).unwrap();
    }
    drop(file);
    count as f64 / begun.elapsed().as_secs_f64()
}
