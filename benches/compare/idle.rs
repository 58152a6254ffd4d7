//! What two connected hosts cost while nobody does anything.

use crate::Group;
use crate::figure::{Figure, Goal, Unit, attempt};
use crate::ground::Ground;
use crate::hosts;
use crate::options::Options;
use crate::rig::{Host, Pair};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const GROUPS: &[Group] = &[("idle", measure)];

const FILES: u64 = 1_000;

fn measure(options: &Options) -> Vec<Figure> {
    let figures = [
        Figure::new("idle-cpu", "idle: CPU of one", Unit::Percent, [Goal::AtMost(0.1)]),
        Figure::new("idle-wakeups", "idle: wake-ups a second", Unit::Count, [Goal::AtMost(2.0)]),
        Figure::new("idle-wire", "idle: bytes on the wire a minute", Unit::Bytes, [Goal::AtMost(2_000.0)]),
    ];
    if !figures.iter().any(|figure| options.wants(&figure.name)) {
        return Vec::new();
    }
    let rounds = attempt(|| watch(options.size(3, 1), Duration::from_secs(options.size(30, 20))));
    let wanted = figures.into_iter().zip(0..).filter(|(figure, _)| options.wants(&figure.name));
    wanted
        .map(|(figure, which)| {
            figure.measured(|figure| {
                let rounds = rounds.as_ref().unwrap_or_else(|why| panic!("{why}"));
                let round = |found: &[f64; 3]| BTreeMap::from([("syncfs".into(), found[which])]);
                figure.rounds = rounds.iter().map(round).collect();
            })
        })
        .collect()
}

/// CPU in percent, wake-ups a second, and bytes a minute both ways, so many times, each over such a time.
fn watch(times: u64, span: Duration) -> Vec<[f64; 3]> {
    let grounds = [(); 2].map(|()| Ground::new(1 << 30));
    hosts::fill(&grounds[0].dir, FILES, b"idle");
    let mut pair = hosts::connected([&grounds[0].dir, &grounds[1].dir]);
    // What came after the last change is over: a checkpoint, mapped pages.
    std::thread::sleep(Duration::from_secs(5));
    (0..times).map(|_| once(&mut pair, span)).collect()
}

fn once(pair: &mut Pair, span: Duration) -> [f64; 3] {
    let carried = |host: &Host| {
        let status = host.status();
        ["sent_bytes", "received_bytes"].iter().filter_map(|what| status[what].as_u64()).sum::<u64>()
    };
    // Asking is work, too: it is done before and after.
    let bytes = carried(&pair.a);
    let (begun, before) = (Instant::now(), Use::of(&mut pair.a));
    std::thread::sleep(span);
    let (after, time) = (Use::of(&mut pair.a), begun.elapsed().as_secs_f64());
    let bytes = carried(&pair.a) - bytes;
    let cpu = (after.nanos - before.nanos) as f64 / 1e9 / time * 100.0;
    [cpu, (after.wakeups - before.wakeups) as f64 / time, bytes as f64 / time * 60.0]
}

/// What a daemon and its helpers have used, all threads that live.
#[derive(Default)]
struct Use {
    /// On a CPU.
    nanos: u64,
    /// How often it stopped waiting.
    wakeups: u64,
}

impl Use {
    fn of(host: &mut Host) -> Use {
        let mut all = Use::default();
        all.add(host.daemon().id());
        all
    }

    fn add(&mut self, process: i32) {
        for task in tasks(process) {
            let read = |what| std::fs::read_to_string(task.join(what)).unwrap_or_default();
            self.nanos += first(&read("schedstat"));
            let status = read("status");
            self.wakeups += status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
                .map_or(0, first);
            read("children").split_whitespace().filter_map(|id| id.parse().ok()).for_each(|id| self.add(id));
        }
    }
}

fn tasks(process: i32) -> Vec<PathBuf> {
    let tasks = Path::new("/proc").join(process.to_string()).join("task");
    tasks.read_dir().into_iter().flatten().flatten().map(|task| task.path()).collect()
}

fn first(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}
