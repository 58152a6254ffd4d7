//! inotify(7): programs that watch the mount see what the peer did as if it were done here.

use crate::mapping::Mapping;
use crate::rig::{Host, PATIENCE, Pair, until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use std::mem::MaybeUninit;
use std::path::Path;

/// A program that watches.
struct Watcher {
    inotify: OwnedFd,
}

/// What it is told: the event, and the name in the directory.
type Seen = (ReadFlags, String);

impl Watcher {
    fn of(path: &Path, what: WatchFlags) -> Watcher {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        add_watch(&inotify, path, what).unwrap();
        Watcher { inotify }
    }

    fn on(host: &Host) -> Watcher {
        let changes = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        Watcher::of(&host.dir, changes | WatchFlags::MOVE | WatchFlags::DELETE)
    }

    /// Everything until `last` is seen.
    #[track_caller]
    fn until(&self, last: ReadFlags, name: &str) -> Vec<Seen> {
        let mut seen = Vec::new();
        while !seen.iter().any(|(what, of)| *what == last && of == name) {
            let patience = Timespec::try_from(PATIENCE).unwrap();
            let ready = poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&patience)).unwrap();
            assert!(ready > 0, "{last:?} of {name} does not come, but {seen:?}");
            seen.extend(self.take());
        }
        seen
    }

    /// What has come.
    fn take(&self) -> Vec<Seen> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut seen = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_str().unwrap().to_owned());
            seen.push((event.events(), name.unwrap_or_default()));
        }
        seen
    }
}

fn of(seen: &[Seen], name: &str) -> Vec<ReadFlags> {
    seen.iter().filter(|(_, of)| of == name).map(|(what, _)| *what).collect()
}

#[test]
fn who_watches_sees_what_the_peer_does_as_if_it_were_done_here() {
    let pair = Pair::mounted();
    let (a, b) = (Watcher::on(&pair.a), Watcher::on(&pair.b));
    pair.a.save("new", b"content");
    let seen = b.until(ReadFlags::CLOSE_WRITE, "new");
    assert_eq!(of(&seen, "new"), [ReadFlags::CREATE, ReadFlags::MODIFY, ReadFlags::CLOSE_WRITE]);
    assert_eq!(pair.b.read("new"), b"content");

    pair.a.save("new", b"other content");
    let seen = b.until(ReadFlags::CLOSE_WRITE, "new");
    assert_eq!(of(&seen, "new"), [ReadFlags::MODIFY, ReadFlags::CLOSE_WRITE]);
    assert_eq!(pair.b.read("new"), b"other content");

    pair.a.run(&["mv", "new", "newer"]);
    let seen = b.until(ReadFlags::MOVED_TO, "newer");
    assert_eq!(of(&seen, "new"), [ReadFlags::MOVED_FROM]);
    assert!(pair.b.has("newer", b"other content") && !pair.b.path("new").exists());

    pair.a.run(&["chmod", "600", "newer"]);
    b.until(ReadFlags::ATTRIB, "newer");
    assert_eq!(pair.b.run(&["stat", "-c", "%a", "newer"]).trim(), "600");

    let file = Watcher::of(&pair.b.path("newer"), WatchFlags::DELETE_SELF);
    pair.a.run(&["rm", "newer"]);
    assert_eq!(of(&b.until(ReadFlags::DELETE, "newer"), "newer").last(), Some(&ReadFlags::DELETE));
    file.until(ReadFlags::DELETE_SELF, "");
    assert!(!pair.b.path("newer").exists());

    // Nothing of it comes back: on A they are the events of who did it, each once.
    pair.b.flush();
    let seen = a.take();
    let saved = [ReadFlags::MODIFY, ReadFlags::CLOSE_WRITE];
    let new = [&[ReadFlags::CREATE], &saved[..], &saved[..], &[ReadFlags::MOVED_FROM]].concat();
    assert_eq!(of(&seen, "new"), new);
    assert_eq!(of(&seen, "newer"), [ReadFlags::MOVED_TO, ReadFlags::ATTRIB, ReadFlags::DELETE]);
    assert_eq!(pair.a.status()["pending_files"], 0);
    assert_eq!(pair.b.status()["pending_files"], 0);
    pair.finish();
}

#[test]
fn an_atomic_save_of_the_peer_is_seen_by_who_watches() {
    let pair = Pair::mounted();
    pair.a.save("plan", b"one");
    pair.a.flush();
    let b = Watcher::on(&pair.b);
    pair.a.save("plan.tmp", b"two");
    pair.a.run(&["mv", "plan.tmp", "plan"]);
    let seen = b.until(ReadFlags::MOVED_TO, "plan");
    assert_eq!(of(&seen, "plan"), [ReadFlags::MOVED_TO]);
    assert_eq!(pair.b.read("plan"), b"two");
    pair.finish();
}

#[test]
fn many_changes_are_seen_one_and_all() {
    let pair = Pair::mounted();
    let b = Watcher::on(&pair.b);
    for n in 0..300 {
        pair.a.save(format!("file {n}"), format!("content {n}").as_bytes());
    }
    let mut seen = Vec::new();
    for n in 0..300 {
        let name = format!("file {n}");
        if !of(&seen, &name).contains(&ReadFlags::CLOSE_WRITE) {
            seen.extend(b.until(ReadFlags::CLOSE_WRITE, &name));
        }
        assert!(of(&seen, &name).contains(&ReadFlags::CREATE), "{name}");
    }
    // Few enough to be believed.
    pair.a.run(&["sh", "-c", "rm file*5"]);
    b.until(ReadFlags::DELETE, "file 95");
    pair.b.flush();
    assert_eq!((pair.a.ls().len(), pair.b.ls().len()), (270, 270));
    pair.finish();
}

#[test]
fn nothing_that_a_daemon_started_outlives_it() {
    let mut pair = Pair::mounted();
    let helpers = children(pair.b.daemon().id());
    assert!(helpers.len() >= 2, "{helpers:?}");
    // Killed while it shows what comes.
    let b = Watcher::on(&pair.b);
    for n in 0..200 {
        pair.a.save(format!("file {n}"), b"content");
    }
    b.until(ReadFlags::CREATE, "file 10");
    pair.b.kill();
    until("all have ended", || helpers.iter().all(|id| !Path::new(&format!("/proc/{id}")).exists()));
    pair.b.start();
    pair.finish();
}

/// Processes that `process` started.
fn children(process: i32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let lists =
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap());
    lists.flat_map(|ids| ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect()
}

#[test]
fn a_file_that_is_read_here_is_replayed_beside_its_reader() {
    let pair = Pair::mounted();
    pair.a.save("log", &[b'x'; 10_000]);
    pair.a.flush();
    let open = std::fs::File::open(pair.b.path("log")).unwrap();
    let mapped = Mapping::of(&open, false);
    let b = Watcher::on(&pair.b);
    pair.a.run(&["sh", "-c", "printf y >> log"]);
    b.until(ReadFlags::CLOSE_WRITE, "log");
    assert_eq!(mapped.load(9_999, 1), b"x");
    assert_eq!(pair.b.read("log").len(), 10_001);
    pair.b.save("log", b"short");
    pair.b.flush();
    assert!(pair.a.has("log", b"short"));
    drop((mapped, open));
    pair.finish();
}
