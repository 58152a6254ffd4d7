//! What content that was replaced costs on the wire, beside rsync: a large file with a byte inserted at its front, saved
//! by rename-over; then `cp` and `mv` of a file inside the mount.
//!
//!     cargo bench --bench delta
//!     SYNCFS_BYTES=100000000 cargo bench --bench delta
//!
//! On two real mounts, joined over loopback. Bytes are those of both directions. Needs what `tests/mounts` needs, and
//! room for four times the file, by default of 1 GiB, in the directory for temporary files.

#[path = "../tests/common/rig.rs"]
mod rig;

use rig::{Pair, noise, run};
use std::path::Path;
use std::time::Instant;
use syncfs::model::delta::{Index, Part, Signature, block_of, blocks_of};

/// Bytes on the wire, both ways, and seconds until both hosts are level.
fn cost(pair: &Pair, words: &[&str]) -> (u64, f64) {
    let wire = || {
        let status = pair.a.status();
        status["sent_bytes"].as_u64().unwrap() + status["received_bytes"].as_u64().unwrap()
    };
    let (before, begun) = (wire(), Instant::now());
    pair.a.run(words);
    pair.a.flush();
    (wire() - before, begun.elapsed().as_secs_f64())
}

/// What rsync says it sent and received to bring `old` to `new`, without looking at either as a whole.
fn rsync(new: &Path, old: &Path) -> (u64, f64) {
    let begun = Instant::now();
    let (new, old) = (new.to_str().unwrap(), old.to_str().unwrap());
    let said = run(Path::new("/"), &["rsync", "--stats", "--no-whole-file", "--no-h", new, old]);
    let number = |line: &str| -> u64 {
        let line = said.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("{said}"));
        line.replace(',', "").trim().parse().unwrap()
    };
    let bytes = number("Total bytes sent:") + number("Total bytes received:");
    (bytes, begun.elapsed().as_secs_f64())
}

/// Bytes a second that the server looks through, in spans as it is asked for them: of content that is found, and of such
/// that is not.
fn speeds() -> [f64; 2] {
    let basis = noise(7, 64_000_000);
    let index = Index::new(Signature::of(&basis));
    let shifted = [b"X", &basis[..]].concat();
    [shifted, noise(8, 64_000_000)].map(|content| {
        let (mut at, begun) = (0, Instant::now());
        while at < content.len() {
            let end = (at + 4_000_000).min(content.len());
            at += index.scan(&content[at..end], 0..end - at).iter().map(Part::len).sum::<u64>() as usize;
        }
        content.len() as f64 / begun.elapsed().as_secs_f64()
    })
}

fn main() {
    let [found, new] = speeds();
    println!(
        "looking for blocks: {:.0} MB/s where they are found, {:.0} MB/s where not",
        found / 1e6,
        new / 1e6
    );
    let size: u64 = std::env::var("SYNCFS_BYTES").map_or(1 << 30, |n| n.parse().expect("a number"));
    let pair = Pair::mounted();
    let apart = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| apart.path().join(name));
    let big = noise(1, size as usize);
    pair.a.save("big", &big);
    std::fs::write(&old, &big).unwrap();
    std::fs::write(&new, [b"X", &big[..]].concat()).unwrap();
    pair.a.save("small", &big[..big.len().min(100_000_000)]);
    drop(big);
    pair.a.flush();

    let saves = ["sh", "-c", "{ printf X; cat big; } > big.new && mv big.new big"];
    let (ours, seconds) = cost(&pair, &saves);
    let same = run(
        Path::new("/"),
        &["sh", "-c", &format!("cmp {} {}", new.display(), pair.b.path("big").display())],
    );
    assert!(same.is_empty(), "{same}");
    let (theirs, rsync_seconds) = rsync(&new, &old);
    let signature = 12 * blocks_of(size, block_of(size));
    let share = |bytes: u64| bytes as f64 * 100.0 / size as f64;
    println!("a file of {size} bytes, one inserted at the front, saved by rename-over:");
    println!(
        "  syncfs {ours} bytes, {:.4} % ({signature} of them the signature), {seconds:.1} s",
        share(ours)
    );
    println!("  rsync  {theirs} bytes, {:.4} %, {rsync_seconds:.1} s", share(theirs));
    println!("  syncfs takes {:.2} of what rsync takes", ours as f64 / theirs as f64);
    let (copied, seconds) = cost(&pair, &["cp", "small", "copy"]);
    println!("cp of {} bytes: {copied} bytes, {seconds:.1} s", size.min(100_000_000));
    let (moved, seconds) = cost(&pair, &["mv", "copy", "moved"]);
    println!("mv of the copy: {moved} bytes, {seconds:.1} s");
    pair.finish();
}
