//! The directory as a whole.

use crate::rig::{Pair, run, until};
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

/// The kernel keeps what it was told: it must be told of everything that comes and goes.
#[test]
fn who_lists_the_directory_again_sees_what_has_come_and_gone() {
    let mut pair = Pair::new();
    let store = pair.root.path().join("store");
    std::fs::create_dir(&store).unwrap();
    pair.b.option("--store", &store);
    pair.a.start();
    pair.b.start();
    let shows = |what: &str, names: &[&str]| until(what, || pair.b.ls() == names);
    pair.a.save("a", b"a");
    shows("a new file of the peer's", &["a"]);
    pair.b.save("b", b"b");
    shows("a new file", &["a", "b"]);
    std::fs::rename(pair.a.path("a"), pair.a.path("c")).unwrap();
    shows("a file that the peer renamed", &["b", "c"]);
    std::fs::remove_file(pair.b.path("b")).unwrap();
    shows("that one is gone", &["c"]);
    // Put there past the mount it is found by whoever looks for it, and from then on there for all.
    std::fs::write(store.join("d"), b"d").unwrap();
    assert!(pair.b.has("d", b"d"));
    shows("a file that was found", &["c", "d"]);
    std::fs::remove_file(pair.a.path("c")).unwrap();
    shows("one that the peer unlinked is gone", &["d"]);
}

/// `ls -l` asks every file for the attributes of other systems, unless it hears that there are none on this file system.
#[test]
fn what_a_file_can_not_have_is_not_supported_rather_than_absent() {
    let pair = Pair::mounted();
    pair.a.save("f", b"f");
    let asked = |name: &str| rustix::fs::lgetxattr(pair.a.path("f"), name, &mut [0; 64][..]);
    assert_eq!(asked("security.selinux"), Err(rustix::io::Errno::OPNOTSUPP));
    assert_eq!(asked("user.absent"), Err(rustix::io::Errno::NODATA));
}
