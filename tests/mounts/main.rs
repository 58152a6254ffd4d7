//! Two daemons on this machine, each with a real mount, joined over loopback: what a user does with
//! ordinary tools on one side is found on the other, and in the raw directories after unmounting.
//!
//! Needs /dev/fuse and root or fusermount3, and the tools that the tests run: coreutils, sed, tar,
//! rsync, util-linux, attr, bash, curl, iproute2. What is done in a browser is passed over where there is no chromium.

mod api;
mod brakes;
mod browser;
mod bwlimit;
mod cache;
mod configs;
mod conflicts;
mod costs;
mod direction;
mod directory;
mod discovery;
mod editing;
mod first;
mod fstab;
mod ignoring;
mod interval;
mod life;
mod locking;
mod machine;
mod mapping;
mod mistakes;
mod names;
mod owner;
mod page;
mod pairing;
mod reading;
#[path = "../common/rig.rs"]
mod rig;
mod semantics;
mod service;
mod trash;
mod users;
mod verify;
mod watching;
mod wiped;
