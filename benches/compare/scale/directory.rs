//! A directory of ever more files: what must be done for all of them once, and what should not depend on how many there are.
//!
//! It is mounted three times: first, when all is adopted; when nothing of it is in memory, as after the machine was started, beside
//! `ls -l` of the directory itself as `native`; and again right after it was unmounted.

use super::figures::{Found, Size, grown, timed};
use crate::figure::{Figure, Goal, Unit};
use crate::ground::{Ground, drop_caches};
use crate::hosts::{apart, fill, level, name};
use crate::memory::taken;
use crate::options::Options;
use crate::rig::{Host, Pair, run};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SIZES: [Size; 4] = [("1k", 1_000), ("10k", 10_000), ("100k", 100_000), ("1m", 1_000_000)];
/// Where goals are for a full directory.
const LARGEST: u64 = 1_000_000;
/// From so many files on, memory is what files take.
const MANY: u64 = 100_000;
const CONTENT: &[u8] = b"as small as files are that come by the million";
/// How often what is small is done.
const TIMES: u64 = 21;
/// Between two looks whether something has come.
const LOOK: Duration = Duration::from_micros(100);

pub fn measure(options: &Options) -> Vec<Figure> {
    let sizes = if options.quick { &SIZES[..2] } else { &SIZES };
    grown(options, "scale", sizes, story)
}

fn story(found: &mut Found, files: u64) {
    let empty = empty();
    let grounds = [(); 2].map(|()| Ground::for_files((2 << 30) + 8192 * files, files));
    // The same on both hosts: they have not to send what they both have.
    grounds.iter().for_each(|ground| fill(&ground.dir, files, CONTENT));
    grounds.iter().for_each(Ground::sync);
    let mut pair = apart([&grounds[0].dir, &grounds[1].dir]);
    found.time("adopt", "first mount of a directory", None, || pair.a.start());
    pair.b.start();
    found.time("meet", "first meeting, the same on both", None, || level(&pair.a));
    for host in [&mut pair.a, &mut pair.b] {
        assert!(host.unmount().success(), "{}", host.log_text());
    }
    drop_caches();
    // Whoever wants to know what was changed meanwhile has to look.
    let native = timed(|| list(&grounds[0].dir));
    drop_caches();
    let whole = |goal: Goal| (files >= LARGEST).then_some(goal);
    found.time("mount", "mount, nothing in memory", whole(Goal::AtMost(5.0)), || pair.a.start());
    found.beside("native", native);
    let each = taken(&mut pair.a, "VmRSS:").saturating_sub(empty) as f64 / files as f64;
    let goal = (files >= MANY).then_some(Goal::AtMost(300.0));
    found.add("memory", "resident memory a file, after mount", Unit::Bytes, goal, each);
    found.time("list", "first ls -l", None, || list(&pair.a.dir));
    pair.b.start();
    level(&pair.a);
    small(found, &pair, files);
    let goal = whole(Goal::AtMost(0.05));
    let reconnected = reconnect(&pair.a, &pair.b);
    found.add("reconnect", "reconnect, nothing changed", Unit::Seconds, goal, reconnected);
    let most = [&mut pair.a, &mut pair.b].map(|host| taken(host, "VmHWM:")).into_iter().max().unwrap_or(0);
    let goal = Goal::AtMost(150e6 + 300.0 * files as f64);
    found.add("peak", "most memory of a daemon", Unit::Bytes, Some(goal), most as f64);
    found.time("unmount", "unmount", None, || assert!(pair.a.unmount().success(), "{}", pair.a.log_text()));
    found.time("again", "mount again at once", whole(Goal::AtMost(5.0)), || pair.a.start());
}

/// Bytes that a daemon takes without any file.
fn empty() -> u64 {
    let (ground, root) = (Ground::new(1 << 30), tempfile::tempdir().unwrap());
    let mut pair = apart([&ground.dir, root.path()]);
    pair.a.start();
    taken(&mut pair.a, "VmRSS:")
}

/// What is done to one file, whatever else there is.
fn small(found: &mut Found, pair: &Pair, files: u64) {
    let (a, b) = (&pair.a, &pair.b);
    let some = |n: u64| name(n * 7_919 % files);
    found.median("stat", "stat", TIMES, |n| timed(|| assert!(a.path(some(n)).exists())));
    found.median("create", "create, write, close", TIMES, |n| timed(|| a.save(format!("new {n}"), CONTENT)));
    level(a);
    found.median("cut", "close to readable at the peer", TIMES, |n| {
        let (path, mut content) = (b.path(some(n)), CONTENT.to_vec());
        content[0] ^= 1 + n as u8;
        let mut file = std::fs::File::options().write(true).open(a.path(some(n))).unwrap();
        file.write_all(&content).unwrap();
        let begun = Instant::now();
        drop(file);
        readable(&path, &content);
        begun.elapsed().as_secs_f64()
    });
    level(a);
}

/// Waits until a file has this content.
fn readable(path: &Path, content: &[u8]) {
    let begun = Instant::now();
    while std::fs::read(path).is_ok_and(|found| found != content) {
        assert!(begun.elapsed() < crate::rig::PATIENCE, "the peer has it in time");
        // Who looks all the time takes the processor from who is to bring it.
        std::thread::sleep(LOOK);
    }
}

/// Seconds from a cut connection until both know again that they are level.
fn reconnect(a: &Host, b: &Host) -> f64 {
    let port = |host: &Host| host.status()["listen"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let (ports, connections) =
        ([port(a), port(b)], || a.log_text().matches("connected with replica").count());
    let before = connections();
    let begun = Instant::now();
    for port in &ports {
        let of_port = format!("( sport = :{port} or dport = :{port} )");
        run(&a.dir, &["ss", "-K", "state", "established", &of_port]);
    }
    while connections() == before {
        assert!(begun.elapsed() < crate::rig::PATIENCE, "they meet again");
        std::thread::sleep(LOOK);
    }
    level(a);
    begun.elapsed().as_secs_f64()
}

fn list(dir: &Path) {
    let listed =
        Command::new("ls").arg("-l").env("LC_ALL", "C").current_dir(dir).stdout(Stdio::null()).status();
    assert!(listed.is_ok_and(|status| status.success()), "ls");
}
