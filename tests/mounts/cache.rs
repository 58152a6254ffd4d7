//! A host that was mounted with `--cache-size`: everything is seen there, what is used is held, the rest is the peer's.
//!
//! Host B keeps the cache, and its files lie beside its mount, where they can be weighed.

use crate::rig::{Host, Item, PATIENCE, Pair, Program, errno, noise, run, try_run, until};
use rustix::fs::{Advice, XattrFlags, fadvise};
use rustix::process::Signal;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

const LIMIT: u64 = 20_000_000;
const MB: usize = 1_000_000;

/// Bytes around what is read, and of what is said beside.
const WIRE: u64 = 20_000;

/// Two hosts of which B holds only what is used, not yet running.
fn pair() -> Pair {
    pair_of(LIMIT)
}

fn pair_of(limit: u64) -> Pair {
    let mut pair = Pair::new();
    std::fs::create_dir(pair.root.path().join("store")).unwrap();
    let store = store(&pair);
    pair.b.option("--store", &store);
    pair.b.flag(&cache_size(limit));
    // Whatever the disk of this machine.
    pair.b.option("--cache-min-free", "0".as_ref());
    pair
}

fn cache_size(limit: u64) -> String {
    format!("--cache-size={limit}")
}

/// Where B's files lie.
fn store(pair: &Pair) -> PathBuf {
    pair.root.path().join("store")
}

/// A pair that runs, where A had these files, and B has heard of them.
fn with_files(files: &[(&str, usize)]) -> Pair {
    start_with(pair(), files)
}

fn start_with(mut pair: Pair, files: &[(&str, usize)]) -> Pair {
    for (n, (name, length)) in files.iter().enumerate() {
        pair.a.save(name, &noise(n as u64, *length));
    }
    pair.a.start();
    pair.b.start();
    pair.a.flush();
    assert_eq!(pair.b.ls().len(), files.len());
    pair
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// `syncfs WORD FILE...` in the directory of `host`.
#[track_caller]
fn syncfs(host: &Host, words: &[&str], code: i32) -> String {
    let output = try_run(&host.dir, &[&[crate::rig::SYNCFS], words].concat());
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
    said(&output)
}

fn attribute(path: &Path, name: &str) -> std::io::Result<String> {
    let mut value = [0; 100];
    let length = rustix::fs::getxattr(path, format!("user.syncfs.{name}"), &mut value[..])?;
    Ok(String::from_utf8(value[..length].to_vec()).unwrap())
}

fn set(path: &Path, name: &str, value: &str) -> std::io::Result<()> {
    let name = format!("user.syncfs.{name}");
    Ok(rustix::fs::setxattr(path, name, value.as_bytes(), XattrFlags::empty())?)
}

#[track_caller]
fn held(host: &Host, name: &str) -> usize {
    attribute(&host.path(name), "held").unwrap().parse().unwrap()
}

/// What `du` says, bytes.
fn du(host: &Host, name: &str) -> u64 {
    host.run(&["du", "-B1", name]).split_whitespace().next().unwrap().parse().unwrap()
}

/// Columns of `df`: size, used, available; bytes.
fn df(host: &Host) -> [u64; 3] {
    let shown = host.run(&["df", "-B1", "--output=size,used,avail", "."]);
    let figures: Vec<u64> =
        shown.lines().nth(1).unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect();
    figures.try_into().unwrap()
}

/// Bytes on the disk that content takes in a store, wherever it lies there; the state beside it is not counted.
fn weight(store: &Path) -> u64 {
    let mut found = HashMap::new();
    for dir in [store.to_owned(), store.join(".syncfs/partial"), store.join(".syncfs/staging")] {
        // What moves meanwhile is found at one place or the other, and counts once.
        for entry in dir.read_dir().into_iter().flatten().flatten() {
            if let Ok(meta) = entry.metadata()
                && meta.is_file()
            {
                found.insert(meta.ino(), meta.blocks() * 512);
            }
        }
    }
    found.values().sum()
}

fn received(host: &Host) -> u64 {
    host.status()["received_bytes"].as_u64().unwrap()
}

/// Reads past what the kernel may still have of it.
fn read_at(path: &Path, at: usize, length: usize) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at as u64).map(|()| bytes)
}

/// The error of a read, which must come at once.
#[track_caller]
fn fails_at_once(path: &Path) -> i32 {
    let begin = Instant::now();
    let error = errno(read_at(path, 0, 1000));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    error
}

fn disconnected(host: &Host) {
    until("the peer is gone", || host.status()["peer"]["connected"] == false);
}

/// Numbers here and there, always the same ones.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Both show the same, and end well; then all of it is A's, and what lies under its name on B is whole.
#[track_caller]
fn finish(mut pair: Pair) -> BTreeMap<OsString, Item> {
    let seen = pair.assert_same();
    for host in [&mut pair.a, &mut pair.b] {
        let status = host.unmount();
        assert!(status.success(), "{status}: {}", host.log_text());
    }
    assert!(pair.a.contents() == seen);
    for (name, item) in plain(&store(&pair)) {
        assert!(item == seen[&name], "{name:?}: {item:?}");
    }
    seen
}

/// The files of a directory that nobody has mounted.
fn plain(dir: &Path) -> BTreeMap<OsString, Item> {
    let names = dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name != ".syncfs").map(|name| (name.clone(), Item::of(&dir.join(name)))).collect()
}

#[test]
fn a_host_that_may_open_few_files_announces_many_all_the_same() {
    let mut pair = pair();
    let files = 600;
    for n in 0..files {
        pair.a.save(format!("file {n}"), &noise(n, 2_000));
    }
    pair.a.start();
    let daemon = format!("--pid={}", pair.a.daemon().id());
    run(Path::new("/"), &["prlimit", &daemon, "--nofile=200:200"]);
    pair.b.start();
    pair.a.flush();
    assert_eq!(pair.b.ls().len() as u64, files);
    assert!(pair.b.has("file 599", &noise(599, 2_000)));
    finish(pair);
}

#[test]
fn all_files_are_listed_with_their_sizes_and_du_and_df_show_what_is_held() {
    let pair = with_files(&[("big", 30 * MB), ("mid", 3 * MB), ("odd", 2 * MB + 345)]);
    let list = |host: &Host| -> Vec<String> {
        host.run(&["ls", "-l", "--time-style=full-iso"]).lines().skip(1).map(str::to_owned).collect()
    };
    assert_eq!(list(&pair.a), list(&pair.b));
    assert!(list(&pair.b)[2].contains(" 2000345 "), "{:?}", list(&pair.b));
    for name in ["big", "mid", "odd"] {
        assert_eq!((du(&pair.b, name), held(&pair.b, name)), (0, 0), "{name}");
    }
    let within_a_block = |figure: u64, bytes: u64| figure.abs_diff(bytes) <= 4096;
    let [size, used, free] = df(&pair.b);
    assert!(
        within_a_block(size, LIMIT) && used <= 4096 && within_a_block(free, LIMIT),
        "{size} {used} {free}"
    );
    // Here and there, and one file wholly.
    assert!(
        read_at(&pair.b.path("big"), 12_345_678, 1_000_000).unwrap() == noise(0, 30 * MB)[12_345_678..][..MB]
    );
    assert!(pair.b.read("odd") == noise(2, 2 * MB + 345));
    let some = held(&pair.b, "big");
    assert!((MB..10 * MB).contains(&some), "{some}");
    assert_eq!((held(&pair.b, "odd"), held(&pair.b, "mid")), (2 * MB + 345, 0));
    // Chunks and blocks have different borders.
    let blocks = |bytes: usize| bytes as u64 - 8192..bytes as u64 + 400_000;
    assert!(blocks(some).contains(&du(&pair.b, "big")), "{} for {some}", du(&pair.b, "big"));
    assert!(blocks(2 * MB + 345).contains(&du(&pair.b, "odd")), "{}", du(&pair.b, "odd"));
    assert_eq!(du(&pair.b, "mid"), 0);
    let cache = &pair.b.status()["cache"];
    assert_eq!(cache["limit"], LIMIT);
    // Written to the disk meanwhile, a file in pieces may take a block more, for their map.
    let here = du(&pair.b, "big") + du(&pair.b, "odd");
    assert!(within_a_block(cache["used"].as_u64().unwrap(), here), "{cache} {here}");
    // What is held is used; what the peer has makes way for what is written.
    let [size, used, free] = df(&pair.b);
    assert!(
        within_a_block(size, LIMIT) && within_a_block(used, here) && within_a_block(free, LIMIT),
        "{size} {used} {free}"
    );
    syncfs(&pair.b, &["pin", "odd"], 0);
    let [size, used, free] = df(&pair.b);
    assert!(within_a_block(size, LIMIT) && within_a_block(used, here), "{size} {used}");
    assert!(within_a_block(free, LIMIT - 2 * MB as u64 - 345), "{free}");
    finish(pair);
}

#[test]
fn ten_times_the_cache_is_read_here_and_there_by_two_and_the_disk_holds_the_limit() {
    const FILES: usize = 20;
    const SIZE: usize = 10 * MB;
    let names: Vec<String> = (0..FILES).map(|n| format!("file {n}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), SIZE)).collect();
    let pair = with_files(&files);
    let contents: Vec<Vec<u8>> = (0..FILES as u64).map(|n| noise(n, SIZE)).collect();
    let store = store(&pair);
    let dir = pair.b.dir.as_path();
    assert_eq!(weight(&store), 0);
    let read = |seed| {
        let mut dice = Dice(seed);
        let (mut done, mut most) = (0, 0);
        while done < FILES * SIZE / 2 {
            let (n, length) = (dice.below(FILES), 1 + dice.below(400_000));
            let at = dice.below(SIZE - length);
            let found = read_at(&dir.join(&names[n]), at, length).unwrap();
            assert!(found == contents[n][at..at + length], "{length} bytes of {} at {at}", names[n]);
            done += length;
            most = most.max(weight(&store));
        }
        most
    };
    let most = std::thread::scope(|scope| {
        let readers = [3, 4].map(|seed| {
            scope.spawn({
                let read = &read;
                move || read(seed)
            })
        });
        readers.map(|reader| reader.join().unwrap()).into_iter().max().unwrap()
    });
    assert!(most > LIMIT / 2, "{most}: nothing was held");
    assert!(most <= LIMIT + 2 * 500_000, "{most} bytes on the disk");
    // From the first byte to the last, too.
    for (n, name) in names.iter().enumerate().step_by(4) {
        assert!(pair.b.has(name, &contents[n]), "{name}");
    }
    let now = weight(&store);
    assert!(now <= LIMIT + 500_000, "{now} bytes on the disk");
    assert!(pair.b.status()["cache"]["used"].as_u64().unwrap() <= LIMIT);
}

#[test]
fn pin_fetch_and_free_do_what_they_say() {
    let mut pair = with_files(&[("five", 5 * MB), ("six", 6 * MB), ("huge", 25 * MB), ("ten", 10 * MB)]);
    assert_eq!(syncfs(&pair.b, &["fetch", "five"], 0), "five: all of it is here, 5.00 MB\n");
    assert_eq!(held(&pair.b, "five"), 5 * MB);
    // Below its own name, and once more costs nothing.
    assert_eq!(syncfs(&pair.b, &["fetch", "five"], 0), "five: all of it is here, 5.00 MB\n");
    let freed = syncfs(&pair.b, &["free", "five"], 0);
    assert!(freed.starts_with("five: 5.0") && freed.ends_with(" MB freed\n"), "{freed}");
    assert_eq!((held(&pair.b, "five"), du(&pair.b, "five")), (0, 0));
    assert!(pair.b.has("five", &noise(0, 5 * MB)), "it comes back when it is read");

    assert_eq!(syncfs(&pair.b, &["pin", "six"], 0), "six: pinned, all of it is here, 6.00 MB\n");
    assert_eq!(held(&pair.b, "six"), 6 * MB);
    assert_eq!(pair.b.status()["cache"]["pinned"], 6 * MB);
    let refused = syncfs(&pair.b, &["free", "six"], 1);
    assert_eq!(refused, "syncfs: six: it is pinned\n");
    assert_eq!(held(&pair.b, "six"), 6 * MB);
    assert_eq!(syncfs(&pair.b, &["unpin", "six"], 0), "six: may go from the cache again\n");
    assert_eq!(pair.b.status()["cache"]["pinned"], 0);
    assert!(syncfs(&pair.b, &["free", "six"], 0).contains("freed"));
    assert_eq!(held(&pair.b, "six"), 0);

    // More than fits: alone, and beside others. It is said with figures, and the rest is done.
    for word in ["pin", "fetch"] {
        let refused = syncfs(&pair.b, &[word, "huge", "five"], 1);
        assert!(
            refused.contains("syncfs: huge: it takes 25000000 bytes; the cache has 20000000"),
            "{refused}"
        );
        assert!(refused.contains("five: "), "{refused}");
    }
    syncfs(&pair.b, &["pin", "six"], 0);
    let refused = syncfs(&pair.b, &["pin", "ten"], 1);
    assert!(refused.contains("of which 11000000 are pinned already"), "{refused}");
    assert_eq!(pair.b.status()["cache"]["pinned"], 11 * MB);
    assert!(syncfs(&pair.b, &["fetch", "none"], 1).contains("there is no file none in the share"));
    // Who holds everything has nothing to let go.
    assert!(syncfs(&pair.a, &["free", "five"], 1).contains("this host holds everything"));

    // Without the peer: what needs it may work later, what does not works.
    syncfs(&pair.b, &["unpin", "six", "five"], 0);
    syncfs(&pair.b, &["free", "six"], 0);
    assert!(pair.a.unmount().success());
    disconnected(&pair.b);
    assert!(syncfs(&pair.b, &["fetch", "five"], 0).contains("all of it is here"));
    let failed = syncfs(&pair.b, &["fetch", "six"], 5);
    assert!(failed.contains("syncfs: six: the peer, which holds the rest, is not there"), "{failed}");
    assert_eq!(syncfs(&pair.b, &["pin", "six"], 0), "six: pinned; the rest comes when the peer is there\n");
    pair.b.save("mine", b"of b");
    let stays = syncfs(&pair.b, &["free", "mine"], 5);
    assert!(stays.contains("4 bytes stay: the peer does not have it yet; try again later"), "{stays}");
    pair.a.start();
    until("what is pinned comes by itself", || held(&pair.b, "six") == 6 * MB);
    pair.b.flush();
    assert!(syncfs(&pair.b, &["free", "mine"], 0).contains("freed"));
    // What somebody writes stays.
    let open = File::options().write(true).open(pair.b.path("five")).unwrap();
    let stays = syncfs(&pair.b, &["free", "five"], 5);
    assert!(stays.contains("five: 5.00 MB stay: it is open; try again later"), "{stays}");
    drop(open);
    until("it is closed", || try_run(&pair.b.dir, &[crate::rig::SYNCFS, "free", "five"]).status.success());
    syncfs(&pair.b, &["unpin", "six"], 0);
    finish(pair);
}

#[test]
fn attributes_tell_how_a_file_stands_and_pin_it() {
    let pair = with_files(&[("big", 4 * MB), ("huge", 25 * MB), ("ten", 10 * MB), ("twelve", 12 * MB)]);
    let big = pair.b.path("big");
    let get = |name| attribute(&big, name).unwrap();
    assert_eq!([get("state"), get("held"), get("pin")], ["partial", "0", "0"]);
    // As the tool shows it.
    let shown = pair.b.run(&["getfattr", "--only-values", "-n", "user.syncfs.state", "big"]);
    assert_eq!(shown, "partial");
    set(&big, "pin", "1").unwrap();
    until("it comes by itself", || get("held") == "4000000");
    assert_eq!([get("state"), get("pin")], ["synced", "1"]);
    set(&big, "pin", "0").unwrap();
    assert_eq!(get("pin"), "0");
    pair.b.run(&["setfattr", "-n", "user.syncfs.pin", "-v", "1", "big"]);
    assert_eq!(get("pin"), "1");
    pair.b.run(&["setfattr", "-x", "user.syncfs.pin", "big"]);
    assert_eq!(get("pin"), "0");
    // What can't be set, and what is not there.
    assert_eq!(errno(set(&big, "pin", "yes")), libc::EINVAL);
    assert_eq!(errno(set(&big, "held", "1")), libc::EPERM);
    assert_eq!(errno(set(&big, "state", "synced")), libc::EPERM);
    assert_eq!(errno(attribute(&big, "other")), libc::ENODATA);
    // More than fits, alone or beside what is pinned.
    assert_eq!(errno(set(&pair.b.path("huge"), "pin", "1")), libc::ENOSPC);
    set(&pair.b.path("ten"), "pin", "1").unwrap();
    assert_eq!(errno(set(&pair.b.path("twelve"), "pin", "1")), libc::ENOSPC);
    assert_eq!(attribute(&pair.b.path("twelve"), "pin").unwrap(), "0");
    set(&pair.b.path("ten"), "pin", "0").unwrap();
    // They are listed by nobody and copied by nobody; others are.
    set(&big, "pin", "1").unwrap();
    pair.b.run(&["setfattr", "-n", "user.mine", "-v", "x", "big"]);
    let names = pair.b.run(&["getfattr", "-m", "-", "big"]);
    assert!(names.contains("user.mine") && !names.contains("syncfs"), "{names}");
    for copy in [pair.root.path().join("copy"), pair.b.path("copy")] {
        pair.b.run(&["cp", "--preserve=xattr", "big", copy.to_str().unwrap()]);
        let names = run(pair.root.path(), &["getfattr", "-m", "-", copy.to_str().unwrap()]);
        assert!(names.contains("user.mine") && !names.contains("syncfs"), "{names}");
    }
    assert_eq!(errno(attribute(&pair.root.path().join("copy"), "pin")), libc::ENODATA);
    assert_eq!(attribute(&pair.b.path("copy"), "pin").unwrap(), "0");
    pair.b.flush();
    // A pin is this host's alone.
    assert_eq!(attribute(&pair.a.path("big"), "pin").unwrap(), "0");
    let files = finish(pair);
    assert_eq!(files[&OsString::from("big")].attributes.keys().collect::<Vec<_>>(), ["user.mine"]);
}

#[test]
fn what_is_pinned_or_only_here_outlives_a_full_cache_and_a_killed_daemon() {
    let names: Vec<String> = (0..20).map(|n| format!("file {n:02}")).collect();
    let mut files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 10 * MB)).collect();
    files.push(("pinned", 3 * MB));
    let mut pair = pair();
    // Nothing that is changed here is told before the next flush, though the peer is there.
    pair.b.option("--interval", "3600".as_ref());
    let mut pair = start_with(pair, &files);
    syncfs(&pair.b, &["pin", "pinned"], 0);
    pair.b.save("dirty", &noise(100, 2 * MB));
    pair.b.run(&["sh", "-c", "printf 'and more' >> 'file 00'"]);
    let stand = |pair: &Pair, states: [&str; 3]| {
        let state = |name| attribute(&pair.b.path(name), "state").unwrap();
        assert_eq!(["pinned", "dirty", "file 00"].map(state), states);
        assert_eq!((held(&pair.b, "pinned"), held(&pair.b, "dirty")), (3 * MB, 2 * MB));
        assert!(read_at(&pair.b.path("pinned"), 0, 3 * MB).unwrap() == noise(20, 3 * MB));
        assert!(read_at(&pair.b.path("dirty"), 0, 2 * MB).unwrap() == noise(100, 2 * MB));
        assert_eq!(attribute(&pair.b.path("pinned"), "pin").unwrap(), "1");
        assert!(weight(&store(pair)) <= LIMIT + 500_000, "{}", weight(&store(pair)));
    };
    // Ten times what it takes.
    for (n, name) in names.iter().enumerate().skip(1) {
        assert!(pair.b.has(name, &noise(n as u64, 10 * MB)), "{name}");
    }
    let only_here = ["synced", "pending", "pending"];
    stand(&pair, only_here);
    pair.a.kill();
    pair.b.kill();
    pair.b.start();
    stand(&pair, only_here);
    assert!(pair.b.unmount().success());
    pair.b.start();
    stand(&pair, only_here);
    // And with the peer, once more.
    pair.a.start();
    pair.b.flush();
    for (n, name) in names.iter().enumerate().skip(1).take(4) {
        assert!(pair.b.has(name, &noise(n as u64, 10 * MB)), "{name}");
    }
    assert_eq!(held(&pair.b, "pinned"), 3 * MB);
    let edited = [&noise(0, 10 * MB)[..], b"and more"].concat();
    for host in [&pair.a, &pair.b] {
        assert!(host.has("dirty", &noise(100, 2 * MB)) && host.has("file 00", &edited));
    }
}

#[test]
fn a_cache_full_of_what_the_peer_lacks_takes_no_more_until_it_has_it() {
    let mut pair = with_files(&[("old", 8 * MB), ("pinned", 3 * MB)]);
    syncfs(&pair.b, &["pin", "pinned"], 0);
    syncfs(&pair.b, &["fetch", "old"], 0);
    assert!(pair.a.unmount().success());
    disconnected(&pair.b);
    // What the peer has makes way for what is written.
    let full = (0..40).find_map(|n| {
        let written = std::fs::write(pair.b.path(format!("new {n:02}")), noise(n + 10, MB));
        written.err().map(|error| (n, error.raw_os_error()))
    });
    let (count, error) = full.expect("it never gets full");
    assert_eq!(error, Some(libc::ENOSPC));
    assert!((15..=17).contains(&count), "{count} of 1 MB beside 3 MB in 20 MB");
    assert_eq!((held(&pair.b, "pinned"), held(&pair.b, "old")), (3 * MB, 0));
    let [size, used, free] = df(&pair.b);
    assert!(
        size.abs_diff(LIMIT) <= 4096 && used > LIMIT * 9 / 10 && free < 2 * MB as u64,
        "{size} {used} {free}"
    );
    std::fs::remove_file(pair.b.path(format!("new {count:02}"))).unwrap();
    for _ in 0..2 {
        (0..count).for_each(|n| assert!(pair.b.has(format!("new {n:02}"), &noise(n + 10, MB))));
        assert!(pair.b.has("pinned", &noise(1, 3 * MB)));
        pair.b.kill();
        pair.b.start();
    }
    pair.a.start();
    pair.b.flush();
    assert!(pair.b.has("old", &noise(0, 8 * MB)));
    assert_eq!(finish(pair).len(), count as usize + 2);
}

/// Reads a file that does not fit, three times from end to end, beside a pinned one of `pins` bytes.
fn read_what_does_not_fit(limit: usize, pins: usize) {
    let pair = start_with(pair_of(limit as u64), &[("huge", 30 * MB), ("pinned", pins)]);
    syncfs(&pair.b, &["pin", "pinned"], 0);
    for n in 0..3 {
        let read = std::fs::read(pair.b.path("huge"));
        let read = read.unwrap_or_else(|error| panic!("time {n}: {error}\n{}", pair.b.log_text()));
        assert!(read == noise(0, 30 * MB));
    }
    assert_eq!(held(&pair.b, "pinned"), pins);
    assert!(weight(&store(&pair)) <= limit as u64 + 500_000, "{}", weight(&store(&pair)));
    finish(pair);
}

#[test]
fn a_file_larger_than_a_small_cache_is_read_from_end_to_end() {
    read_what_does_not_fit(6 * MB, 1);
}

#[test]
fn a_file_larger_than_what_pins_leave_is_read_from_end_to_end() {
    read_what_does_not_fit(20 * MB, 14 * MB);
}

#[test]
fn without_the_peer_what_is_held_is_read_and_the_rest_fails_at_once() {
    let mut pair =
        with_files(&[("held", 4 * MB), ("log", 4 * MB + 321), ("part", 9 * MB), ("unheld", 4 * MB)]);
    assert!(pair.b.has("held", &noise(0, 4 * MB)));
    assert!(read_at(&pair.b.path("part"), 5 * MB, MB).unwrap() == noise(2, 9 * MB)[5 * MB..6 * MB]);
    let list = pair.b.run(&["ls", "-l"]);
    pair.a.kill();
    disconnected(&pair.b);
    for remounted in [false, true] {
        if remounted {
            pair.b.kill();
            pair.b.start();
        }
        assert!(read_at(&pair.b.path("held"), 0, 4 * MB).unwrap() == noise(0, 4 * MB));
        assert!(read_at(&pair.b.path("part"), 5 * MB, MB).unwrap() == noise(2, 9 * MB)[5 * MB..6 * MB]);
        assert_eq!(fails_at_once(&pair.b.path("part")), libc::EIO);
        assert_eq!(fails_at_once(&pair.b.path("unheld")), libc::EIO);
        let begin = Instant::now();
        let (now, was) = (pair.b.run(&["ls", "-l"]), list.as_str());
        assert!(now.lines().skip(1).eq(was.lines().skip(1)), "{now}\nwas {was}");
        assert_eq!(pair.b.run(&["stat", "-c", "%s", "unheld"]), "4000000\n");
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
    // A line for a log of which nothing is here, after one from before in half a chunk.
    for _ in 0..3 {
        pair.b.run(&["sh", "-c", "echo 'a line' >> log"]);
    }
    assert_eq!(fails_at_once(&pair.b.path("log")), libc::EIO);
    assert!(
        read_at(&pair.b.path("log"), 4 * MB + 321, 21).unwrap_or_default().is_empty()
            || held(&pair.b, "log") > 0
    );
    assert_eq!(pair.b.path("log").metadata().unwrap().len(), 4 * MB as u64 + 321 + 21);
    pair.a.start();
    // Without a remount.
    until("it is read again", || pair.b.has("unheld", &noise(3, 4 * MB)));
    assert!(pair.b.has("part", &noise(2, 9 * MB)));
    let log = [&noise(1, 4 * MB + 321)[..], &b"a line\n".repeat(3)].concat();
    assert!(pair.b.has("log", &log));
    assert_eq!(finish(pair)[&OsString::from("log")].bytes, log);
}

#[test]
fn a_reader_that_waits_for_a_frozen_peer_can_be_killed() {
    let mut pair = with_files(&[("big", 20 * MB), ("held", 2 * MB)]);
    assert!(pair.b.has("held", &noise(1, 2 * MB)));
    pair.a.daemon().stand_still();
    let mut readers = [&["cat", "big"][..], &["dd", "if=big", "bs=4k", "skip=2000", "iflag=direct"]]
        .map(|words| Program::start(&pair.b.dir, words));
    for reader in &readers {
        let wchan = || std::fs::read_to_string(format!("/proc/{}/wchan", reader.id())).unwrap_or_default();
        until("it waits", || ["request_wait_answer", "folio_wait"].iter().any(|at| wchan().contains(at)));
    }
    // Others go on meanwhile.
    assert!(read_at(&pair.b.path("held"), 0, 2 * MB).unwrap() == noise(1, 2 * MB));
    for reader in &mut readers {
        let begin = Instant::now();
        reader.signal(Signal::KILL);
        assert!(reader.ended().is_some(), "it outlives SIGKILL by {PATIENCE:?}");
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    }
    pair.a.daemon().signal(Signal::CONT);
    until("it is read again", || pair.b.has("big", &noise(0, 20 * MB)));
    finish(pair);
}

#[test]
fn a_fetch_whose_peer_goes_meanwhile_ends_and_says_try_again() {
    let mut pair = with_files(&[("big", 18 * MB)]);
    pair.a.daemon().stand_still();
    let mut fetch = Program::start(&pair.b.dir, &[crate::rig::SYNCFS, "fetch", "big"]);
    let mut pin = Program::start(&pair.b.dir, &[crate::rig::SYNCFS, "pin", "big"]);
    until("the pin is seen", || attribute(&pair.b.path("big"), "pin").unwrap() == "1");
    pair.a.kill();
    assert_eq!(fetch.ended().and_then(|end| end.code()), Some(5));
    assert_eq!(pin.ended().and_then(|end| end.code()), Some(0));
    assert_eq!(pin.line(), "big: pinned; the rest comes when the peer is there");
    pair.a.start();
    until("it comes by itself", || held(&pair.b, "big") == 18 * MB);
    finish(pair);
}

#[test]
fn readers_of_the_same_or_of_many_bring_each_byte_over_once() {
    const SIZE: usize = 4 * MB;
    let names: Vec<String> = (0..10).map(|n| format!("file {n}")).collect();
    let mut files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), SIZE)).collect();
    files.extend([("one", 4 * SIZE), ("other", 4 * SIZE)]);
    let pair = start_with(pair_of(100 * MB as u64), &files);
    let all_read = |files: &[(&str, Vec<u8>)]| {
        let dir = pair.b.dir.as_path();
        let read =
            |name: &str, bytes: &[u8]| assert!(std::fs::read(dir.join(name)).unwrap() == bytes, "{name}");
        let before = received(&pair.b);
        std::thread::scope(|scope| {
            files.iter().for_each(|(name, bytes)| drop(scope.spawn(move || read(name, bytes))));
        });
        received(&pair.b) - before
    };
    let mut costs = Vec::new();
    for (n, name) in [(10, "one"), (11, "other")] {
        let bytes = noise(n, 4 * SIZE);
        costs.push(("two readers of one file", 4 * SIZE, all_read(&[(name, bytes.clone()), (name, bytes)])));
    }
    let ten = names.iter().zip(0..).map(|(name, n)| (name.as_str(), noise(n, SIZE)));
    costs.push(("ten readers of ten files", 10 * SIZE, all_read(&ten.collect::<Vec<_>>())));
    let too_much = |(_, bytes, cost): &&(_, usize, u64)| *cost > *bytes as u64 * 102 / 100;
    assert_eq!(costs.iter().find(too_much), None, "of {costs:?}");
    finish(pair);
}

#[test]
fn two_caches_do_not_connect_and_both_say_why() {
    let mut pair = pair();
    pair.a.flag(&cache_size(LIMIT));
    pair.a.save("of a", b"a");
    pair.a.start();
    pair.b.start();
    for host in [&pair.a, &pair.b] {
        until("status says why", || {
            let peer = &host.status()["peer"];
            peer["connected"] == false
                && peer["last_error"].as_str().is_some_and(|error| error.contains("--cache-size"))
        });
        until("the log says why", || host.log_text().contains("both hosts were mounted with --cache-size"));
        let shown = said(&host.syncfs(&["status"]));
        assert!(shown.contains("not connected") && shown.contains("mount one of them without"), "{shown}");
    }
    assert!(pair.b.ls().is_empty());
    assert_eq!(pair.a.syncfs(&["flush"]).status.code(), Some(5));
    // One without it, and they do.
    assert!(pair.a.unmount().success());
    pair.a.unflag(&cache_size(LIMIT));
    pair.a.start();
    until("B has it", || pair.b.has("of a", b"a"));
    finish(pair);
}

#[test]
fn a_cache_becomes_everything_by_a_remount_and_back() {
    let mut pair = with_files(&[("big", 25 * MB), ("mid", 9 * MB), ("small", 2 * MB)]);
    assert!(pair.b.has("mid", &noise(1, 9 * MB)));
    assert!(read_at(&pair.b.path("big"), 3 * MB, MB).is_ok());
    assert!(pair.b.unmount().success());
    let names = |pair: &Pair| plain(&store(pair)).into_keys().collect::<Vec<_>>();
    // Only what is whole lies under its name.
    assert_eq!(names(&pair), ["mid"]);
    pair.b.unflag(&cache_size(LIMIT));
    pair.b.start();
    pair.b.flush();
    pair.a.flush();
    assert_eq!(pair.b.status()["missing_chunks"], 0);
    assert!(pair.b.status()["cache"]["limit"].is_null());
    let seen = pair.compare();
    assert!(pair.b.unmount().success());
    assert!(plain(&store(&pair)) == seen, "{:?}", names(&pair));
    assert_eq!(store(&pair).join(".syncfs/partial").read_dir().unwrap().count(), 0);

    pair.b.flag(&cache_size(LIMIT));
    pair.b.start();
    let used = || pair.b.status()["cache"]["used"].as_u64().unwrap();
    until("it lets go what is too much", || used() <= LIMIT);
    pair.b.flush();
    assert!(weight(&store(&pair)) <= LIMIT, "{}", weight(&store(&pair)));
    assert_eq!(finish(pair), seen);
}

#[test]
fn a_small_write_into_what_is_not_held_brings_over_two_chunks_at_most() {
    const WRITES: usize = 50;
    let pair = with_files(&[("big", 30 * MB)]);
    let mut bytes = noise(0, 30 * MB);
    let mut dice = Dice(5);
    let path = pair.b.path("big");
    let before = received(&pair.b);
    for n in 0..WRITES {
        let (at, new) = (dice.below(30 * MB - 4096), noise(n as u64 + 1000, 4096));
        File::options().write(true).open(&path).unwrap().write_all_at(&new, at as u64).unwrap();
        bytes[at..at + 4096].copy_from_slice(&new);
    }
    pair.b.flush();
    let cost = received(&pair.b) - before;
    assert!(cost <= (WRITES * 2 * 1000) as u64 + WIRE, "{cost} bytes for {WRITES} writes");
    assert!(held(&pair.b, "big") <= WRITES * (4096 + 2 * 1000));
    assert!(pair.a.has("big", &bytes));
    assert!(pair.b.has("big", &bytes));
    finish(pair);
}

#[test]
fn who_reads_an_unlinked_file_goes_on_reading_it_as_it_was() {
    let mut pair = pair();
    let below = pair.root.path().join("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("notes"), noise(0, 3_000)).unwrap();
    pair.a.option("--store", &below);
    pair.a.start();
    pair.b.start();
    pair.a.flush();
    pair.b.unmount();
    // While the cache is away host A keeps of a file what the other one may yet ask for.
    let edited = [b"edited", &noise(0, 3_000)[6..]].concat();
    pair.a.run(&["sh", "-c", "printf edited | dd of=notes conv=notrunc status=none"]);
    let reader = File::open(pair.a.path("notes")).unwrap();
    std::fs::remove_file(pair.a.path("notes")).unwrap();
    let staging = below.join(".syncfs/staging");
    let mut bytes = vec![0; 3_000];
    until("its grave is looked after", || {
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == edited, "what was unlinked has changed");
        std::fs::read_dir(&staging).unwrap().next().is_none()
    });
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == edited, "what was unlinked has changed");
    drop(reader);
    pair.b.start();
    pair.a.flush();
    assert!(pair.b.ls().is_empty());
}
