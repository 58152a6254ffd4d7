//! What the demo shows: every step does something on one side with ordinary file calls, waits until
//! the other side shows it, and says how long that took and what it cost.
//!
//! Invariant: every step is checked; what differs ends the demo with an error.

use super::files::{self, Sums};
use super::stage::{Side, Stage};
use crate::api::request::Request;
use crate::cli::exit::say;
use crate::cli::units::{bytes, many, time};
use anyhow::{Context, bail, ensure};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long the other side may take to show a change; far more than it needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a side is asked for figures while waiting for it.
const ASKING: Duration = Duration::from_millis(5);
const LARGE: &str = "large.bin";
const LARGE_BYTES: usize = 64 << 20;
const EDITS: u64 = 10;

/// The whole show; leaves both sides mounted and level.
pub fn show(stage: &Stage) -> anyhow::Result<()> {
    let (a, b) = (&stage.a, &stage.b);
    say("Two directories play two hosts; each is mounted by a syncfs of its own:");
    for side in [a, b] {
        say(format_args!("  {}  {}", side.name, side.dir.display()));
    }
    stage.start()?;
    let met = until("the two sides to meet", || {
        std::thread::sleep(ASKING);
        Ok(a.ask(&Request::get("/status"))?["peer"]["connected"] == true)
    })?;
    say(format_args!("Mounted; they met after {}.", time(met)));
    copy_real_files(a, b)?;
    write_large_file(a, b)?;
    edit_single_bytes(a, b)?;
    edit_on_the_other_side(a, b)?;
    rename(a, b)?;
    delete(a, b)?;
    level(a)?;
    let sums = same_on_both(a, b)?;
    say(format_args!(
        "8. In the end both sides hold the same {}, by SHA-256.",
        many(sums.len() as u64, "file")
    ));
    Ok(())
}

/// What to do now, for somebody who wants to play.
pub fn invite(stage: &Stage) {
    say("\nNow it is yours. For example, in two other terminals:");
    say(format_args!("  tail -F {}", stage.b.path("notes.txt").display()));
    say(format_args!("  date >> {}", stage.a.path("notes.txt").display()));
    say("Press Enter or Ctrl-C here to end.");
}

/// Ends the daemons and looks at what lies in the directories without them.
pub fn end(stage: &Stage) -> anyhow::Result<()> {
    level(&stage.a)?;
    level(&stage.b)?;
    stage.stop()?;
    let (a, b) = (files::sums(&stage.a.dir)?, files::sums(&stage.b.dir)?);
    ensure!(a == b, "after unmounting the two directories differ: {}", first_difference(&a, &b));
    say(format_args!(
        "Unmounted: {} lie in each directory, readable without syncfs.",
        many(a.len() as u64, "ordinary file")
    ));
    Ok(())
}

fn copy_real_files(a: &Side, b: &Side) -> anyhow::Result<()> {
    let samples = files::samples();
    let total: usize = samples.iter().map(|(_, content)| content.len()).sum();
    let start = Instant::now();
    for (name, content) in &samples {
        fs::write(a.path(name), content).with_context(|| format!("can't write {name} on A"))?;
    }
    let copied = start.elapsed();
    level(a)?;
    let durable = start.elapsed() - copied;
    let (n, size) = (many(samples.len() as u64, "real file"), bytes(total as u64));
    say(format_args!("1. Copied {n}, {size}, into A in {}.", time(copied)));
    let sums = same_on_both(a, b)?;
    ensure!(sums.len() == samples.len(), "B lists {} of {} files", sums.len(), samples.len());
    say(format_args!(
        "   {} later B held all of them durably: same names, same SHA-256. For example:",
        time(durable)
    ));
    for name in sums.keys().take(3) {
        let size = b.path(name).metadata()?.len();
        say(format_args!("     {}  {}", b.path(name).display(), bytes(size)));
    }
    Ok(())
}

fn write_large_file(a: &Side, b: &Side) -> anyhow::Result<()> {
    let content = files::noise(64, LARGE_BYTES);
    let start = Instant::now();
    fs::write(a.path(LARGE), &content).context("can't write the large file on A")?;
    let written = start.elapsed();
    level(a)?;
    let durable = start.elapsed() - written;
    let size = bytes(LARGE_BYTES as u64);
    say(format_args!(
        "2. Wrote a file of {size} on A in {}; {} later B held it durably.",
        time(written),
        time(durable)
    ));
    same_on_both(a, b)?;
    Ok(())
}

fn edit_single_bytes(a: &Side, b: &Side) -> anyhow::Result<()> {
    let reader = File::open(b.path(LARGE))?;
    let mut delays = Vec::new();
    let before = wire(a)?;
    for edit in 0..EDITS {
        let offset = edit * 6_000_011 + 4321;
        let mut byte = [0];
        reader.read_exact_at(&mut byte, offset)?;
        let edited = [byte[0] ^ 0xff];
        let writer = File::options().write(true).open(a.path(LARGE))?;
        writer.write_all_at(&edited, offset)?;
        let start = Instant::now();
        drop(writer);
        until("B to show the edited byte", || {
            reader.read_exact_at(&mut byte, offset)?;
            Ok(byte == edited)
        })?;
        delays.push(start.elapsed());
        thanked(a)?;
    }
    let cost = wire(a)? - before;
    delays.sort();
    say(format_args!("3. Changed one byte of that file on A, {EDITS} times in different places."));
    say(format_args!(
        "   After close, B's mount showed the byte within {} (median; slowest {}).",
        time(delays[delays.len() / 2]),
        time(*delays.last().expect("there were edits")),
    ));
    say(format_args!("   Each edit took {} on the wire, both directions together.", bytes(cost / EDITS)));
    level(a)?;
    same_on_both(a, b)?;
    say("   Both files are the same by SHA-256.");
    Ok(())
}

fn edit_on_the_other_side(a: &Side, b: &Side) -> anyhow::Result<()> {
    fs::write(a.path("notes.txt"), "written on A\n")?;
    until("B to show the notes", || is(b, "notes.txt", "written on A\n"))?;
    let mut file = File::options().append(true).open(b.path("notes.txt"))?;
    file.write_all(b"added on B\n")?;
    let start = Instant::now();
    drop(file);
    until("A to show the line added on B", || is(a, "notes.txt", "written on A\nadded on B\n"))?;
    say(format_args!(
        "4. Added a line on B to a file made on A: A showed it {} after close.",
        time(start.elapsed())
    ));
    Ok(())
}

fn rename(a: &Side, b: &Side) -> anyhow::Result<()> {
    level(a)?;
    let before = wire(a)?;
    let start = Instant::now();
    fs::rename(a.path(LARGE), a.path("renamed.bin"))?;
    until("B to show the new name", || Ok(exists(b, "renamed.bin")? && !exists(b, LARGE)?))?;
    let shown = start.elapsed();
    thanked(a)?;
    let (size, cost) = (bytes(LARGE_BYTES as u64), bytes(wire(a)? - before));
    say(format_args!(
        "5. Renamed the file of {size} on A: B showed it after {}, for {cost} on the wire.",
        time(shown)
    ));
    Ok(())
}

fn delete(a: &Side, b: &Side) -> anyhow::Result<()> {
    let start = Instant::now();
    fs::remove_file(b.path("renamed.bin"))?;
    until("A to stop listing the deleted file", || Ok(!exists(a, "renamed.bin")?))?;
    say(format_args!("6. Deleted it on B: gone from A after {}.", time(start.elapsed())));
    fs::write(b.path("from-B.txt"), "made on B\n")?;
    until("A to show the new file", || is(a, "from-B.txt", "made on B\n"))?;
    say("7. Made a new file on B: A has it.");
    Ok(())
}

/// Waits until both sides hold the same, durably.
fn level(side: &Side) -> anyhow::Result<()> {
    let timeout_ms = 10 * PATIENCE.as_millis();
    side.ask(&Request::post("/flush").with("timeout_ms", timeout_ms)).map(drop)
}

/// Waits until the peer has acknowledged everything of `side`, without a word on the wire.
fn thanked(side: &Side) -> anyhow::Result<()> {
    until("the acknowledgement", || {
        std::thread::sleep(ASKING);
        let status = side.ask(&Request::get("/status"))?;
        Ok(status["pending_files"] == 0 && status["dirty_chunks"] == 0)
    })?;
    Ok(())
}

/// Bytes that went over the wire so far, both directions together.
fn wire(side: &Side) -> anyhow::Result<u64> {
    let status = side.ask(&Request::get("/status"))?;
    let figure = |key: &str| status[key].as_u64().with_context(|| format!("status has no {key}"));
    Ok(figure("sent_bytes")? + figure("received_bytes")?)
}

fn same_on_both(a: &Side, b: &Side) -> anyhow::Result<Sums> {
    let (here, there) = (files::sums(&a.dir)?, files::sums(&b.dir)?);
    ensure!(here == there, "A and B differ: {}", first_difference(&here, &there));
    Ok(here)
}

fn first_difference(a: &Sums, b: &Sums) -> String {
    match a.keys().chain(b.keys()).find(|name| a.get(*name) != b.get(*name)) {
        Some(name) if !b.contains_key(name) => format!("{name} is on A only"),
        Some(name) if !a.contains_key(name) => format!("{name} is on B only"),
        Some(name) => format!("{name} has other content on B"),
        None => "in nothing".to_owned(),
    }
}

fn is(side: &Side, name: &str, content: &str) -> anyhow::Result<bool> {
    match fs::read(side.path(name)) {
        Ok(found) => Ok(found == content.as_bytes()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("can't read {name} on {}", side.name)),
    }
}

fn exists(side: &Side, name: &str) -> anyhow::Result<bool> {
    side.path(name).try_exists().with_context(|| format!("can't look for {name} on {}", side.name))
}

/// Looks again and again, for the looking is the measurement.
fn until(what: &str, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > PATIENCE {
            bail!("waited {} in vain for {what}", time(PATIENCE));
        }
        std::thread::yield_now();
    }
    Ok(start.elapsed())
}
