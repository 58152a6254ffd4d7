//! How long a small edit takes to be seen over there: alone, beside a new file that is large, and beside a large change of one
//! that the other host holds.

use crate::hosts::linked;
use crate::link::Link;
use crate::rig::{Pair, noise, until};
use std::time::Instant;

const LARGE: usize = 8_000_000;
const EDITS: usize = 8;

pub fn run(link: &Link) {
    println!("edit: until {EDITS} small edits of a file are seen over there, one after the other");
    let mut pair = linked(link, &[]);
    for host in [&mut pair.a, &mut pair.b] {
        assert!(host.unmount().success());
        std::fs::write(host.path("held"), noise(1, LARGE)).unwrap();
        host.start();
    }
    pair.a.flush_with_conflicts();
    edits(&pair, "alone");
    let missing = |pair: &Pair| pair.b.status()["missing_chunks"].as_u64().unwrap();
    pair.a.save("large", &noise(2, LARGE));
    until("the large file is on its way", || missing(&pair) > 0);
    edits(&pair, "beside a new file");
    println!("    {:.1} MB of it had yet to come then", missing(&pair) as f64 / 1e3);
    pair.a.flush();

    let before = pair.b.status()["received_bytes"].as_u64().unwrap();
    let received = |pair: &Pair| pair.b.status()["received_bytes"].as_u64().unwrap() - before;
    // By another process than the one that edits: what a process does stays in order.
    let change = pair.root.path().join("change");
    std::fs::write(&change, noise(3, LARGE)).unwrap();
    let from = format!("if={}", change.display());
    pair.a.run(&["dd", "status=none", "bs=1M", "conv=notrunc", &from, "of=held"]);
    until("the change is on its way", || received(&pair) > 500_000);
    edits(&pair, "beside a change of a held file");
    println!("    {:.1} MB of it had come then", received(&pair) as f64 / 1e6);
    pair.finish();
}

fn edits(pair: &Pair, what: &str) {
    let edit = |n: usize| {
        let text = format!("{what}, {n}");
        let begun = Instant::now();
        pair.a.save("small", text.as_bytes());
        until("the edit is seen", || pair.b.has("small", text.as_bytes()));
        begun.elapsed().as_secs_f64() * 1e3
    };
    let mut times: Vec<f64> = (0..EDITS).map(edit).collect();
    times.sort_by(f64::total_cmp);
    println!("  {what}: median {:.0} ms, longest {:.0} ms", times[EDITS / 2], times[EDITS - 1]);
}
