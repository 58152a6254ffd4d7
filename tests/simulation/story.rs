//! Two hosts driven by hand, for tests that tell a history step by step.
//!
//! Host A is side 0, host B side 1. Nothing happens but what a story says: workers have their turn only in
//! `work` and `level`.

use crate::simulated::calls::{self, process};
use crate::simulated::hosts::{Hosts, Rest, WORKERS};
use crate::simulated::side::{Done, Fate, Side};
use std::collections::BTreeMap;
use syncfs::engine::Host;
use syncfs::fs::volume::Volume;

pub const A: usize = 0;
pub const B: usize = 1;
pub const CONFLICT: &str = ".sync-conflict-";
/// Content up to this many bytes travels with its announcement.
pub const INLINE: u64 = 1 << 20;

pub struct Story {
    pub hosts: Hosts,
}

/// Two hosts, running, connected and empty; `inline` as in [`INLINE`].
pub fn story(inline: u64, tell: impl FnOnce(&mut Story)) {
    story_of([11, 22], inline, tell);
}

/// The same with these seeds, of which the replicas' ids come.
pub fn story_of(seeds: [u64; 2], inline: u64, tell: impl FnOnce(&mut Story)) {
    story_between(seeds.map(|seed| Side::new(seed, inline)), tell);
}

/// The same between these two.
pub fn story_between(sides: [Side; 2], tell: impl FnOnce(&mut Story)) {
    let hosts = Hosts::new(sides);
    let handle = hosts.handle();
    let _inside = handle.enter();
    let mut story = Story { hosts };
    assert!(story.hosts.start(A) && story.hosts.start(B));
    story.level();
    tell(&mut story);
}

impl Story {
    pub fn host(&self, side: usize) -> &Host {
        self.hosts.host(side)
    }

    /// A program opens or makes the file, writes, and closes it.
    pub fn write(&self, side: usize, name: &str, at: u64, bytes: &[u8]) {
        let host = self.host(side);
        let opened = calls::open(host, process(1), name).or_else(|_| calls::create(host, process(1), name));
        let handle = opened.unwrap();
        calls::write(host, handle, at, bytes).unwrap();
        calls::close(host, handle);
    }

    pub fn fsync(&self, side: usize, name: &str) {
        let host = self.host(side);
        let handle = calls::open(host, process(1), name).unwrap();
        host.fsync(handle, false).unwrap();
        calls::close(host, handle);
    }

    /// What a program reads; the file is there, all of it.
    pub fn read(&self, side: usize, name: &str) -> Vec<u8> {
        calls::read(self.host(side), name).unwrap_or_else(|| panic!("{name} can't be read on host {side}"))
    }

    pub fn names(&self, side: usize) -> Vec<String> {
        calls::names(self.host(side))
    }

    /// The link is cut, and both notice.
    pub fn cut_link(&mut self) {
        (0..2).for_each(|side| self.hosts.hang_up(side));
    }

    /// All workers of a host do what there is to do. False where the process died of it.
    pub fn work(&mut self, side: usize) -> bool {
        for worker in 0..WORKERS {
            loop {
                match self.hosts.turn(side, worker) {
                    Done::Value(true) => {}
                    Done::Value(false) => break,
                    Done::Died => return false,
                }
            }
        }
        true
    }

    /// What one host has said arrives at the other.
    pub fn deliver_from(&mut self, side: usize) {
        let out = self.hosts.sides[side].out.clone();
        while out.transmit() {}
        while out.flies() {
            self.hosts.arrive(1 - side).unwrap();
        }
    }

    /// Both work, connected, until they are level; they are equal then. Returns what both have.
    pub fn level(&mut self) -> BTreeMap<String, Vec<u8>> {
        self.level_watched(|_, _| Ok(()))
    }

    pub fn level_watched(
        &mut self,
        look: impl FnMut(&Host, usize) -> Result<(), String>,
    ) -> BTreeMap<String, Vec<u8>> {
        assert_eq!(self.hosts.rest(|| usize::MAX, look), Ok(Rest::Level));
        self.hosts.equal().unwrap()
    }

    /// The daemon dies, perhaps with the machine, and is started again.
    pub fn crash(&mut self, side: usize, fate: Fate) {
        self.hosts.sides[side].kill();
        assert!(self.hosts.wake(side, fate));
    }
}

/// What a host has, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

pub fn files(expected: &[(&str, &[u8])]) -> Files {
    expected.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect()
}

/// The contents of a file and of its conflict copies.
pub fn versions(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Vec<Vec<u8>> {
    let of = |n: &&String| n.split(CONFLICT).next() == Some(name);
    files.keys().filter(of).map(|n| files[n].clone()).collect()
}

pub fn copies(files: &BTreeMap<String, Vec<u8>>) -> Vec<&String> {
    files.keys().filter(|name| name.contains(CONFLICT)).collect()
}

pub fn text(len: usize, letter: u8) -> Vec<u8> {
    vec![letter; len]
}
