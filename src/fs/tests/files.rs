//! Content: every way to read, write and map it, beside other ways and behind the kernel's back.

use super::rig::{Rig, soon};
use rustix::fs::{FallocateFlags, SeekFrom, XattrFlags};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, UNIX_EPOCH};

/// A shared mapping of a file's first bytes.
struct Map(*mut u8, usize);

impl Map {
    fn of(file: &File, length: usize) -> Map {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place the kernel picks.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, prot, MapFlags::SHARED, file, 0) };
        Map(at.expect("maps").cast(), length)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for as long as this lives.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }

    fn sync(&self) {
        // SAFETY: as above.
        unsafe { rustix::mm::msync(self.0.cast(), self.1, MsyncFlags::SYNC) }.expect("syncs")
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and nobody uses it any more.
        let _ = unsafe { rustix::mm::munmap(self.0.cast(), self.1) };
    }
}

fn read_write() -> fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true);
    options
}

#[test]
fn bytes_are_written_appended_and_cut_off() {
    for passthrough in [true, false] {
        let rig = Rig::with(passthrough, Default::default());
        fs::write(rig.at("a"), "0123456789").unwrap();
        let file = read_write().open(rig.at("a")).unwrap();
        file.write_all_at(b"xx", 3).unwrap();
        assert_eq!(fs::read(rig.at("a")).unwrap(), b"012xx56789");
        let mut log = File::options().append(true).open(rig.at("a")).unwrap();
        log.write_all(b"A").unwrap();
        // It grew from behind: the end is the daemon's, whatever the kernel believes.
        File::options().append(true).open(rig.raw("a")).unwrap().write_all(b"B").unwrap();
        log.write_all(b"C").unwrap();
        assert_eq!(fs::read(rig.raw("a")).unwrap(), b"012xx56789ABC");
        file.set_len(4).unwrap();
        assert_eq!(fs::read(rig.at("a")).unwrap(), b"012x");
        file.set_len(6).unwrap();
        assert_eq!(fs::read(rig.at("a")).unwrap(), b"012x\0\0");
        File::create(rig.at("a")).unwrap();
        assert_eq!(fs::metadata(rig.at("a")).unwrap().len(), 0);
        drop((file, log));
        rig.done();
    }
}

#[test]
fn attributes_are_kept() {
    let rig = Rig::new();
    let path = rig.at("a");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
    let file = File::open(&path).unwrap();
    for before in [Duration::ZERO, Duration::new(1, 200_000_000), Duration::from_secs(77)] {
        let time = UNIX_EPOCH - before;
        file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
        assert_eq!(fs::metadata(rig.raw("a")).unwrap().modified().unwrap(), time);
        assert_eq!(file.metadata().unwrap().modified().unwrap(), time);
    }
    let seen = fs::metadata(&path).unwrap();
    assert_eq!((seen.mode() & 0o7777, seen.uid(), seen.gid(), seen.len()), (0o640, 12, 34, 1));
    let set = |value: &[u8], flags| rustix::fs::setxattr(&path, "user.k", value, flags);
    set(b"v", XattrFlags::CREATE).unwrap();
    assert_eq!(set(b"w", XattrFlags::CREATE), Err(rustix::io::Errno::EXIST));
    set(b"word", XattrFlags::REPLACE).unwrap();
    let mut room = [0; 64];
    assert_eq!(rustix::fs::getxattr(&path, "user.k", &mut room), Ok(4));
    assert_eq!(&room[..4], b"word");
    assert_eq!(rustix::fs::getxattr(&path, "user.k", &mut room[..2]), Err(rustix::io::Errno::RANGE));
    assert_eq!(rustix::fs::listxattr(&path, &mut room), Ok(7));
    assert_eq!(&room[..7], b"user.k\0");
    rustix::fs::removexattr(&path, "user.k").unwrap();
    assert_eq!(rustix::fs::getxattr(&path, "user.k", &mut room), Err(rustix::io::Errno::NODATA));
    drop(file);
    rig.done();
}

#[test]
fn holes_are_found_and_punched_and_ranges_copied() {
    let rig = Rig::new();
    let mut file = read_write().create(true).open(rig.at("a")).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(&[7; 4096], 512 << 10).unwrap();
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)), Ok(512 << 10));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(512 << 10)), Ok((512 << 10) + 4096));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(1 << 21)), Err(rustix::io::Errno::NXIO));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 512 << 10, 4096).unwrap();
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() == 1 << 20 && bytes.iter().all(|b| *b == 0));
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 1 << 20, 1000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), (1 << 20) + 1000);
    file.write_all_at(b"to be copied", 0).unwrap();
    let copy = File::create(rig.at("b")).unwrap();
    assert_eq!(rustix::fs::copy_file_range(&file, Some(&mut 6), &copy, Some(&mut 1), 6), Ok(6));
    assert_eq!(fs::read(rig.at("b")).unwrap(), b"\0copied");
    drop((file, copy));
    rig.done();
}

#[test]
fn reads_pass_us_by_where_the_file_is_whole() {
    let rig = Rig::new();
    fs::write(rig.raw("a"), "0123456789").unwrap();
    let mut file = File::open(rig.at("a")).unwrap();
    let read = |length| {
        let mut bytes = vec![0; length];
        file.read_at(&mut bytes, 0).map(|read| bytes.truncate(read)).unwrap();
        bytes
    };
    assert_eq!(read(20), b"0123456789");
    // What the daemon does to the file is seen at once: bytes, growth, shrinkage.
    let raw = File::options().write(true).open(rig.raw("a")).unwrap();
    raw.write_all_at(b"abc", 8).unwrap();
    assert_eq!(read(20), b"01234567abc");
    raw.set_len(2).unwrap();
    assert_eq!(read(20), b"01");
    assert_eq!(rig.volume.seen.reads.load(Relaxed), 0);
    // A second reader finds the file in part only: its reads come to us, and nobody gets an error.
    rig.volume.whole.store(false, Relaxed);
    assert_eq!(fs::read(rig.at("a")).unwrap(), b"01");
    assert!(rig.volume.seen.reads.load(Relaxed) > 0);
    file.rewind().unwrap();
    drop(file);
    rig.done();
}

#[test]
fn a_file_is_open_in_all_ways_at_once() {
    for passthrough in [true, false] {
        let rig = Rig::with(passthrough, Default::default());
        let ways = ["r", "w", "rw"].map(|way| {
            let mut options = File::options();
            options.read(way.contains('r')).write(way.contains('w'));
            options
        });
        // Every order of four opens, each closed in the order it was opened or the other way round.
        for number in 0..81 {
            let name = format!("f{number}");
            fs::write(rig.at(&name), "....").unwrap();
            let mut open = Vec::new();
            for step in 0..4u64 {
                let way = number / 3usize.pow(step as u32) % 3;
                let file = ways[way].open(rig.at(&name)).unwrap_or_else(|e| panic!("{number}, {step}: {e}"));
                if way > 0 {
                    file.write_all_at(&[b'0' + step as u8], step).unwrap();
                }
                open.push((way, file));
                for (_, file) in open.iter().filter(|(way, _)| *way != 1) {
                    let mut bytes = [0; 4];
                    file.read_exact_at(&mut bytes, 0).unwrap();
                    assert_eq!(fs::read(rig.raw(&name)).unwrap(), bytes, "{number}, {step}");
                }
                if step == 1 {
                    open.remove(number % 2);
                }
            }
        }
        rig.done();
    }
}

#[test]
fn opens_race_and_none_fails() {
    let rig = Rig::new();
    fs::write(rig.at("a"), [1; 8192]).unwrap();
    std::thread::scope(|scope| {
        for way in 0..4 {
            let path = rig.at("a");
            scope.spawn(move || {
                for round in 0..400u64 {
                    let mut options = File::options();
                    let file = match way {
                        0 | 1 => options.read(true).open(&path),
                        2 => options.write(true).open(&path),
                        _ => options.read(true).write(true).open(&path),
                    };
                    let file = file.unwrap_or_else(|e| panic!("{way}, {round}: {e}"));
                    match way {
                        2 => file.write_all_at(&[1; 100], round).unwrap(),
                        _ => file.read_exact_at(&mut [0; 4096], round).unwrap(),
                    }
                }
            });
        }
    });
    rig.done();
}

#[test]
fn a_reader_beside_a_writer_sees_every_write() {
    for passthrough in [true, false] {
        let rig = Rig::with(passthrough, Default::default());
        fs::write(rig.at("a"), [0; 4096]).unwrap();
        let writer = File::options().write(true).open(rig.at("a")).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Keeps pulling pages in while they are written over.
                let reader = File::open(rig.at("a")).unwrap();
                while !stop.load(Relaxed) {
                    reader.read_exact_at(&mut [0; 4096], 0).unwrap();
                }
            });
            let reader = File::open(rig.at("a")).unwrap();
            for round in 0..3000u32 {
                let stamp = round.to_le_bytes();
                writer.write_all_at(&stamp, 100).unwrap();
                let mut bytes = [0; 4];
                reader.read_exact_at(&mut bytes, 100).unwrap();
                if stamp != bytes {
                    stop.store(true, Relaxed);
                }
                assert_eq!(stamp, bytes, "round {round}, passthrough {passthrough}");
            }
            stop.store(true, Relaxed);
        });
        drop(writer);
        rig.done();
    }
}

#[test]
fn mappings_are_read_and_written() {
    let rig = Rig::new();
    fs::write(rig.at("a"), [b'.'; 8192]).unwrap();
    let file = read_write().open(rig.at("a")).unwrap();
    let ino = file.metadata().unwrap().ino();
    let mut map = Map::of(&file, 8192);
    map.bytes()[5000] = b'm';
    assert_eq!(rig.volume.seen.mapped.load(Relaxed), 0);
    map.sync();
    assert_eq!(fs::read(rig.raw("a")).unwrap()[5000], b'm');
    assert!(rig.volume.seen.mapped.load(Relaxed) > 0);
    // Without msync: the store comes to us when we ask for it.
    map.bytes()[1] = b'n';
    rig.kernel.write_back();
    soon("the store arrives", || fs::read(rig.raw("a")).unwrap()[1] == b'n');
    // A change from behind is seen in the mapping.
    File::options().write(true).open(rig.raw("a")).unwrap().write_all_at(b"behind", 100).unwrap();
    rig.kernel.inval_inode(ino);
    rig.kernel.drain();
    assert_eq!(&map.bytes()[100..106], b"behind");
    assert_eq!(map.bytes()[1], b'n');
    // An unmapped store is not lost.
    map.bytes()[2] = b'o';
    drop(map);
    drop(file);
    soon("the store arrives", || fs::read(rig.raw("a")).unwrap()[2] == b'o');
    assert_eq!(rig.volume.seen.unseen.load(Relaxed), 0);
    rig.done();
}

#[test]
fn stores_past_us_are_announced_and_read_afterwards() {
    let rig = Rig::new();
    fs::write(rig.at("a"), [b'.'; 4096]).unwrap();
    // The kernel has pages of it.
    let cached = read_write().open(rig.at("a")).unwrap();
    cached.read_exact_at(&mut [0; 4096], 0).unwrap();
    drop(cached);
    soon("it is closed", || rig.volume.left().0 == 0);
    let reader = File::open(rig.at("a")).unwrap();
    let file = read_write().open(rig.at("a")).unwrap();
    assert_eq!(rig.volume.seen.unseen.load(Relaxed), 1);
    let mut map = Map::of(&file, 4096);
    map.bytes()[0] = b'u';
    let mut byte = [0];
    reader.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(&byte, b"u");
    drop((map, file, reader));
    soon("it is closed", || rig.volume.left().0 == 0);
    rig.kernel.drain();
    let file = read_write().open(rig.at("a")).unwrap();
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(&byte, b"u");
    drop(file);
    rig.done();
}

#[test]
fn synchronous_writes_are_synced() {
    let rig = Rig::new();
    for (flags, read) in [(libc::O_DSYNC, false), (libc::O_SYNC, true)] {
        let options = &mut File::options();
        let mut file =
            options.write(true).read(read).create(true).custom_flags(flags).open(rig.at("a")).unwrap();
        let before = rig.volume.seen.fsyncs.load(Relaxed);
        file.write_all(b"x").unwrap();
        assert_eq!(rig.volume.seen.fsyncs.load(Relaxed), before + 1);
        file.sync_data().unwrap();
        assert_eq!(rig.volume.seen.fsyncs.load(Relaxed), before + 2);
    }
    rig.done();
}

/// Not a test: what it costs to have one dirty page of a large mapping written back.
#[test]
#[ignore]
fn cost_of_write_back() {
    let rig = Rig::new();
    let length = 256 << 20;
    fs::write(rig.at("a"), vec![1; length]).unwrap();
    let file = read_write().open(rig.at("a")).unwrap();
    let ino = file.metadata().unwrap().ino();
    let mut map = Map::of(&file, length);
    let touch = |map: &mut Map| map.bytes().iter().step_by(4096).map(|b| u64::from(*b)).sum::<u64>();
    let sum = touch(&mut map);
    for way in ["inval_inode", "write_back"] {
        let reads = rig.volume.seen.reads.load(Relaxed);
        map.bytes()[12345] = 1;
        let start = std::time::Instant::now();
        if way == "write_back" {
            rig.kernel.write_back();
        } else {
            rig.kernel.inval_inode(ino);
        }
        rig.kernel.drain();
        let mapped = rig.volume.seen.mapped.load(Relaxed);
        let (called, start) = (start.elapsed(), std::time::Instant::now());
        assert_eq!(touch(&mut map), sum);
        let reads = rig.volume.seen.reads.load(Relaxed) - reads;
        println!(
            "{way}: {called:?}, {mapped} pages so far, then touching all {:?} with {reads} reads",
            start.elapsed()
        );
    }
    drop((map, file));
    rig.done();
}

/// Not a test: serves a directory for other tools, until it is unmounted.
#[test]
#[ignore]
fn for_other_tools() {
    let Some(passthrough) = std::env::var_os("SYNCFS_TEST_PASSTHROUGH") else { return };
    let mut rig = Rig::with(passthrough == "1", Default::default());
    println!("{}", rig.target().display());
    rig.wait().unwrap();
}
