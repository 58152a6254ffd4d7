//! What changes cost on the wire, both ways together, as `status` counts them.

use crate::rig::{Pair, noise};

/// What crosses the wire for what `act` does on host A.
fn cost(pair: &Pair, act: impl FnOnce()) -> u64 {
    let wire = || {
        let status = pair.a.status();
        status["sent_bytes"].as_u64().unwrap() + status["received_bytes"].as_u64().unwrap()
    };
    let before = wire();
    act();
    pair.a.flush();
    wire() - before
}

#[test]
fn a_large_file_saved_by_rename_over_costs_little_though_all_of_it_is_shifted() {
    let pair = Pair::mounted();
    pair.a.save("big", &noise(1, 20_000_000));
    pair.a.flush();
    // Under any name: what a program reads is like what it writes.
    let cost = cost(&pair, || {
        pair.a.run(&["sh", "-c", "{ printf X; cat big; } > 4913 && mv 4913 big"]);
    });
    assert!(pair.b.read("big") == [b"X", &noise(1, 20_000_000)[..]].concat());
    assert!(cost <= 60_000, "{cost} bytes");
    pair.finish();
}

#[test]
fn sed_in_place_costs_what_it_edits() {
    let pair = Pair::mounted();
    let text: String = (0..400_000).map(|n| format!("this is line {n}\n")).collect();
    pair.a.save("text", text.as_bytes());
    pair.a.flush();
    let cost = cost(&pair, || {
        pair.a.run(&["sed", "-i", "-e", "1i a new line", "-e", "200000d", "text"]);
    });
    assert!(pair.b.read("text").starts_with(b"a new line\nthis is line 0\n"));
    assert!(cost <= 60_000, "{cost} bytes");
    pair.finish();
}

#[test]
fn cp_and_mv_cost_no_content() {
    let pair = Pair::mounted();
    pair.a.save("one", &noise(2, 20_000_000));
    pair.a.flush();
    let copied = cost(&pair, || drop(pair.a.run(&["cp", "one", "another"])));
    assert!(pair.b.has("another", &noise(2, 20_000_000)));
    assert!(copied <= 20_000, "{copied} bytes");
    let moved = cost(&pair, || drop(pair.a.run(&["mv", "another", "elsewhere"])));
    assert!(moved <= 2_000, "{moved} bytes");
    pair.finish();
}
