//! Files that programs have mapped into their memory.

use crate::rig::{Pair, errno, noise, until};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// A shared mapping of a whole file, for writing or not. Goes with its guard.
pub struct Mapping {
    start: *mut c_void,
    length: usize,
    writable: bool,
}

impl Mapping {
    pub fn of(file: &File, writable: bool) -> Mapping {
        let length = file.metadata().unwrap().len() as usize;
        let rights = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), length, rights, MapFlags::SHARED, file, 0) };
        Mapping { start: start.unwrap(), length, writable }
    }

    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.length);
        // SAFETY: within the mapping.
        unsafe { self.start.cast::<u8>().add(offset) }
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        assert!(self.writable);
        for (n, byte) in bytes.iter().enumerate() {
            // SAFETY: within the mapping, which is ours and writable; others may change it at any time, hence volatile.
            unsafe { self.at(offset + n).write_volatile(*byte) }
        }
    }

    pub fn load(&self, offset: usize, length: usize) -> Vec<u8> {
        // SAFETY: as above.
        (offset..offset + length).map(|at| unsafe { self.at(at).read_volatile() }).collect()
    }

    fn sync(&self) {
        // SAFETY: our mapping.
        unsafe { msync(self.start, self.length, MsyncFlags::SYNC) }.unwrap()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, and nothing borrows from it.
        unsafe { munmap(self.start, self.length) }.unwrap()
    }
}

fn open(path: impl AsRef<Path>) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_mapped_store_arrives_after_msync() {
    let pair = Pair::mounted();
    let mut bytes = noise(1, 100_000);
    pair.a.save("f", &bytes);
    pair.a.flush();
    let file = open(pair.a.path("f"));
    let mapping = Mapping::of(&file, true);
    for n in 0..5u8 {
        let at = 20_000 * usize::from(n) + 17;
        mapping.store(at, &[n; 300]);
        bytes[at..at + 300].fill(n);
        mapping.sync();
        until("B has the store", || pair.b.has("f", &bytes));
    }
    drop((mapping, file));
    pair.finish();
}

#[test]
fn a_mapped_store_arrives_while_the_file_stays_open_and_nobody_syncs() {
    let pair = Pair::mounted();
    let mut bytes = noise(1, 50_000);
    pair.a.save("f", &bytes);
    pair.a.flush();
    let file = open(pair.a.path("f"));
    let mapping = Mapping::of(&file, true);
    // Twice: the second time the page is mapped and clean already.
    for n in 0..2u8 {
        mapping.store(30_000, &[n; 10]);
        bytes[30_000..30_010].fill(n);
        until("B has the store", || pair.b.has("f", &bytes));
    }
    // The descriptor may go before the mapping does.
    drop(file);
    mapping.store(10, b"descriptor closed");
    bytes[10..27].copy_from_slice(b"descriptor closed");
    until("B has what came after the close", || pair.b.has("f", &bytes));
    drop(mapping);
    pair.finish();
}

#[test]
fn a_mapped_store_arrives_although_others_read_the_file() {
    let pair = Pair::mounted();
    let mut bytes = noise(1, 50_000);
    pair.a.save("f", &bytes);
    pair.a.flush();
    let reader = File::open(pair.a.path("f")).unwrap();
    let seen = Mapping::of(&reader, false);
    assert_eq!(seen.load(0, 100), bytes[..100]);
    let file = open(pair.a.path("f"));
    let mapping = Mapping::of(&file, true);
    // Again and again: the page is dirty already, and a store moves no time then.
    for n in 0..3u8 {
        mapping.store(40_000, &[n; 6]);
        bytes[40_000..40_006].fill(n);
        assert_eq!(seen.load(40_000, 6), [n; 6]);
        until("B has the store", || pair.b.has("f", &bytes));
    }
    drop((seen, reader, mapping, file));
    pair.finish();
}

#[test]
fn a_store_and_a_remote_edit_in_one_page_both_survive() {
    let pair = Pair::mounted();
    let mut bytes = noise(1, 8_192);
    pair.a.save("f", &bytes);
    pair.a.flush();
    let file = open(pair.a.path("f"));
    let mapping = Mapping::of(&file, true);
    // The page is in the mapping, and was stored to before.
    mapping.store(100, b"mapped");
    mapping.sync();
    pair.a.flush();
    bytes[100..106].copy_from_slice(b"mapped");
    pair.b.run(&["sh", "-c", "printf remote | dd of=f bs=1 seek=3000 conv=notrunc status=none"]);
    bytes[3_000..3_006].copy_from_slice(b"remote");
    until("the mapping shows the edit", || mapping.load(3_000, 6) == b"remote");
    mapping.store(200, b"again");
    bytes[200..205].copy_from_slice(b"again");
    mapping.sync();
    until("B has both", || pair.b.has("f", &bytes));
    drop((mapping, file));
    assert_eq!(pair.finish().len(), 1);
}

#[test]
fn a_mapping_of_a_reader_shows_remote_edits() {
    let pair = Pair::mounted();
    let mut bytes = noise(1, 20_000);
    pair.a.save("f", &bytes);
    pair.a.flush();
    let file = File::open(pair.b.path("f")).unwrap();
    let mapping = Mapping::of(&file, false);
    assert_eq!(mapping.load(0, 20_000), bytes);
    for n in 0..5u8 {
        bytes[9_000..9_500].fill(n);
        pair.a.save("part", &bytes[9_000..9_500]);
        pair.a.run(&["dd", "if=part", "of=f", "bs=500", "seek=18", "conv=notrunc", "status=none"]);
        until("the mapping shows the edit", || mapping.load(0, 20_000) == bytes);
    }
    drop((mapping, file));
    pair.finish();
}

#[test]
fn a_mapping_for_writing_needs_a_descriptor_for_writing() {
    let pair = Pair::mounted();
    pair.a.save("f", b"read only");
    let file = File::open(pair.a.path("f")).unwrap();
    // SAFETY: it fails, and else nothing is done with it.
    let result = unsafe { mmap(std::ptr::null_mut(), 9, ProtFlags::WRITE, MapFlags::SHARED, &file, 0) };
    assert_eq!(errno(result.map_err(Into::into)), libc::EACCES);
    drop(file);
    pair.finish();
}
