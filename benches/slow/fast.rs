//! What can't be compressed crosses as fast as the two hosts can, tried and not tried, by turns.

use crate::hosts::{joined, processor};
use crate::link::number;
use crate::rig::noise;
use std::time::Instant;

pub fn run() {
    let bytes = (number("SYNCFS_FAST_MB", 300.0) * 1e6) as usize;
    let runs = number("SYNCFS_FAST_RUNS", 5.0) as u64;
    println!("fast: {runs} runs each of {:.0} MB that do not shrink, over loopback", bytes as f64 / 1e6);
    let kinds = [&[][..], &["--no-compress"]];
    let mut figures = [Vec::new(), Vec::new()];
    for run in 0..runs {
        let content = noise(run + 1, bytes);
        // Who comes first changes: what runs second finds another machine.
        for kind in [run % 2, 1 - run % 2].map(|kind| kind as usize) {
            let mut pair = joined(kinds[kind]);
            let spent = |pair: &mut crate::rig::Pair| processor(&mut pair.a) + processor(&mut pair.b);
            let (before, begun) = (spent(&mut pair), Instant::now());
            pair.a.save("noise", &content);
            pair.a.flush();
            figures[kind].push((begun.elapsed().as_secs_f64(), spent(&mut pair) - before));
            assert!(pair.b.has("noise", &content), "other bytes came");
        }
    }
    let median = |figures: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| {
        let mut figures: Vec<f64> = figures.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let [tried, plain] =
        [0, 1].map(|kind| [median(&figures[kind], |f| f.0), median(&figures[kind], |f| f.1)]);
    for (kind, [time, spent]) in [("tried", tried), ("not tried", plain)] {
        let speed = bytes as f64 / 1e6 / time;
        println!("  {kind}: median {speed:.0} MB/s, {spent:.2} s of processor time on both sides together");
    }
    println!(
        "  tried takes {:+.1} % time, {:+.1} % processor time",
        (tried[0] / plain[0] - 1.0) * 100.0,
        (tried[1] / plain[1] - 1.0) * 100.0
    );
}
