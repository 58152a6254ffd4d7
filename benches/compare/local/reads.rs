//! Reading of files that are held here, wholly, and copying one in.

use super::row::{Row, Task, repeated};
use crate::figure::{Goal, Unit};
use crate::ground::drop_caches;
use crate::rig::{noise, run};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const POOL: usize = 16 << 20;
/// Places at which the random reads read before they begin anew.
const PLACES: u64 = 50_000;

pub fn rows() -> Vec<Row> {
    let row = |name, title, unit, goal, prepare, take| Row {
        name,
        title,
        unit,
        logged: false,
        goal,
        offline: None,
        prepare,
        take,
    };
    let native = |ratio| Goal::Against("native".into(), ratio);
    let bytes = Unit::Throughput;
    vec![
        row("read-seq-warm", "sequential read, warm", bytes, native(0.95), warmed, |task| warm(&path(task))),
        row("read-seq-cold", "sequential read, cold", bytes, native(0.95), made, cold),
        row("read-mmap", "read of a mapping, warm", bytes, native(0.95), warmed, mapped),
        row("read-random", "random read, 4 KiB, warm", Unit::Rate, native(0.85), warmed, random),
        row("copy-in", "cp into the directory", bytes, Goal::Against("bare".into(), 0.9), source, copy),
    ]
}

fn path(task: Task) -> PathBuf {
    task.dir.join("large")
}

fn size(task: Task) -> u64 {
    task.options.size(512, 128) * MIB
}

/// A file to read, if it is not there.
fn made(task: Task) {
    make(&path(task), size(task));
}

pub fn make(path: &Path, size: u64) {
    if path.metadata().is_ok_and(|meta| meta.len() == size) {
        return;
    }
    let (mut file, pool) = (File::create(path).unwrap(), noise(1, POOL));
    (0..size as usize / POOL).for_each(|_| file.write_all(&pool).unwrap());
}

fn warmed(task: Task) {
    made(task);
    // The samples after it leave it in memory.
    if task.sample == 0 {
        through(&path(task));
    }
}

/// Reads all of it once.
fn through(path: &Path) -> u64 {
    let (file, mut bytes, mut at) = (File::open(path).unwrap(), vec![0; MIB as usize], 0);
    while let length @ 1.. = file.read_at(&mut bytes, at).unwrap() {
        at += length as u64;
    }
    at
}

/// Bytes a second.
pub fn warm(path: &Path) -> f64 {
    repeated(|| through(path))
}

fn cold(task: Task) -> f64 {
    drop_caches();
    let begun = Instant::now();
    through(&path(task)) as f64 / begun.elapsed().as_secs_f64()
}

fn mapped(task: Task) -> f64 {
    let (file, length) = (File::open(path(task)).unwrap(), size(task) as usize);
    repeated(|| {
        // SAFETY: anew for each reading, and nobody makes the file shorter meanwhile.
        unsafe {
            let start =
                mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, &file, 0).unwrap();
            let words = std::slice::from_raw_parts(start.cast::<u64>(), length / 8);
            black_box(words.iter().fold(0, |sum: u64, word| sum.wrapping_add(*word)));
            munmap(start, length).unwrap();
        }
        length as u64
    })
}

/// Reads a second.
fn random(task: Task) -> f64 {
    let (file, pages) = (File::open(path(task)).unwrap(), size(task) / PAGE);
    let places = noise(task.sample, 8 * PLACES as usize);
    let places = places.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().expect("eight")) >> 8);
    let places: Vec<u64> = places.map(|n| n % pages * PAGE).collect();
    let mut bytes = [0; PAGE as usize];
    repeated(|| {
        places.iter().for_each(|at| file.read_exact_at(&mut bytes, *at).unwrap());
        PLACES
    })
}

/// What `cp` is to copy: in memory, and not where it goes.
fn original(task: Task) -> PathBuf {
    task.scratch.join("original")
}

fn source(task: Task) {
    made(Task { dir: task.scratch, ..task });
    let _ = std::fs::rename(task.scratch.join("large"), original(task));
    through(&original(task));
    let _ = std::fs::remove_file(task.dir.join("copy"));
}

fn copy(task: Task) -> f64 {
    let from = original(task).display().to_string();
    let begun = Instant::now();
    run(task.dir, &["cp", &from, "copy"]);
    size(task) as f64 / begun.elapsed().as_secs_f64()
}
