//! A file that is ever larger, and sparse: what the edit of one byte in it costs. The peer holds only what it reads of it.

use super::figures::{Found, Size, grown};
use crate::figure::Figure;
use crate::ground::Ground;
use crate::hosts::apart;
use crate::options::Options;
use crate::rig::until;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const SIZES: [Size; 4] = [("1m", 1 << 20), ("1g", 1 << 30), ("32g", 32 << 30), ("1t", 1 << 40)];
const TIMES: u64 = 21;
/// Between two looks whether something has come.
const LOOK: Duration = Duration::from_micros(100);

pub fn measure(options: &Options) -> Vec<Figure> {
    grown(options, "grow", &SIZES, story)
}

fn story(found: &mut Found, bytes: u64) {
    let grounds = [(); 2].map(|()| Ground::new(4 << 30));
    File::create(grounds[0].dir.join("large")).and_then(|file| file.set_len(bytes)).unwrap();
    let mut pair = apart([&grounds[0].dir, &grounds[1].dir]);
    pair.b.option("--cache-size", Path::new("1G"));
    found.time("adopt", "first mount of a file", None, || pair.a.start());
    pair.b.start();
    until("B shows the file", || pair.b.path("large").metadata().is_ok_and(|meta| meta.len() == bytes));
    let [ours, theirs] = [&pair.a, &pair.b].map(|host| host.path("large"));
    found.median("edit", "one byte: close to readable at the peer", TIMES, |n| {
        let (at, byte) = (bytes / (TIMES + 1) * (n + 1), [1 + n as u8]);
        let file = File::options().write(true).open(&ours).unwrap();
        file.write_all_at(&byte, at).unwrap();
        let begun = Instant::now();
        drop(file);
        let (file, mut read) = (File::open(&theirs).unwrap(), [0]);
        while file.read_exact_at(&mut read, at).is_ok() && read != byte {
            assert!(begun.elapsed() < crate::rig::PATIENCE, "the peer has it in time");
            std::thread::sleep(LOOK);
        }
        begun.elapsed().as_secs_f64()
    });
    pair.a.flush();
    assert!(pair.a.unmount().success(), "{}", pair.a.log_text());
    found.time("mount", "mount", None, || pair.a.start());
}
