//! syncfs beside what users would take instead, and beside what is under it. `benches/run` builds and calls this.
#![allow(dead_code)]

mod figure;

fn main() {}
