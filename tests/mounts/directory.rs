//! The directory as a whole.

use crate::rig::{Pair, run};
use std::os::unix::fs::MetadataExt;

#[test]
fn a_program_that_lists_while_files_go_sees_each_remaining_file_once() {
    let pair = Pair::mounted();
    pair.a.run(&["sh", "-c", "seq -w 1 3000 | xargs touch"]);
    let mut seen = Vec::new();
    for (n, entry) in pair.a.dir.read_dir().unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if n % 3 == 0 {
            std::fs::remove_file(pair.a.path(&name)).unwrap();
        }
        seen.push(name);
    }
    seen.sort();
    assert_eq!(seen.len(), 3000);
    seen.dedup();
    assert_eq!(seen.len(), 3000);
    assert_eq!(pair.finish().len(), 2000);
}

#[test]
fn find_du_and_df_work() {
    let pair = Pair::mounted();
    pair.a.save("f", &[1; 100_000]);
    pair.a.flush();
    for host in [&pair.a, &pair.b] {
        assert_eq!(host.run(&["find", ".", "-type", "f"]), "./f\n");
        assert_eq!(host.run(&["sh", "-c", "du -k f | cut -f1"]), "100\n");
        assert!(host.run(&["df", "-T", "."]).contains("fuse.syncfs"));
        assert!(host.dir.metadata().unwrap().is_dir());
    }
    // A program that remembers a file by its number finds the same number again.
    let number = pair.b.path("f").metadata().unwrap().ino();
    run(&pair.a.dir, &["sh", "-c", "echo more >> f; mv f g"]);
    pair.a.flush();
    assert_eq!(pair.b.path("g").metadata().unwrap().ino(), number);
    pair.finish();
}
