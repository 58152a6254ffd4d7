//! One simulated host: a replica on a disk that tears, its life and its deaths.

use super::network::Pipe;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;
use syncfs::engine::stepped::Stepped;
use syncfs::engine::{Host, Options};
use syncfs::model::direction::Direction;
use syncfs::store::torn::{Death, Dice, TornDisk};
use syncfs::store::{Dir, Opened, Site};
use tokio::runtime::Runtime;

pub struct Side {
    pub disk: TornDisk,
    pub running: Option<Stepped>,
    /// What it sends.
    pub out: Pipe,
    /// The session it is in; 0 for none.
    pub session: u64,
    /// Which boot of the machine this is.
    boot: u64,
    /// Starts of the daemon.
    pub starts: u64,
    seed: u64,
    inline_bytes: u64,
    /// What is missing at the next starts is deleted.
    pub adopt_deletes: bool,
    pub max_delete: Option<u64>,
    pub interval: Option<Duration>,
    pub direction: Direction,
    /// It keeps a cache of so many bytes only.
    pub cache: Option<u64>,
}

/// What the death of a process meant to its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The machine runs on.
    Killed,
    /// It lost power; of what was not synced the seed says what is left.
    PowerLost(u64),
    /// It lost power, and all that was not synced.
    UnsyncedLost,
}

impl Fate {
    pub fn loses_power(self) -> bool {
        self != Fate::Killed
    }
}

/// What became of something a host was asked to do.
pub enum Done<T> {
    Value(T),
    /// The process died of it.
    Died,
}

impl Side {
    pub fn new(seed: u64, inline_bytes: u64) -> Side {
        Side {
            disk: TornDisk::new(),
            running: None,
            out: Pipe::default(),
            session: 0,
            boot: 1,
            starts: 0,
            seed,
            inline_bytes,
            adopt_deletes: false,
            max_delete: None,
            interval: None,
            direction: Direction::Both,
            cache: None,
        }
    }

    /// The same replica once more, on a disk of its own: as this one is that does not run.
    pub fn snapshot(&self) -> Side {
        let disk = self.disk.snapshot();
        let Side { boot, starts, adopt_deletes, max_delete, interval, direction, cache, .. } = *self;
        Side {
            disk,
            boot,
            starts,
            adopt_deletes,
            max_delete,
            interval,
            direction,
            cache,
            ..Side::new(self.seed, self.inline_bytes)
        }
    }

    /// Runs `act` on the host; where the process dies of it, the host is gone.
    pub fn run<T>(&mut self, act: impl FnOnce(&mut Stepped) -> T) -> Done<T> {
        let Some(running) = &mut self.running else { return Done::Died };
        let result = catch_unwind(AssertUnwindSafe(|| act(running)));
        match result {
            Ok(value) if !self.disk.is_dead() => Done::Value(value),
            Ok(_) => self.bury(),
            Err(panic) if panic.is::<Death>() => self.bury(),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Ends the daemon in order. It may die of that.
    pub fn close(&mut self) -> Done<Result<(), String>> {
        let Some(running) = self.running.take() else { return Done::Died };
        self.session = 0;
        self.out.begin(0);
        match catch_unwind(AssertUnwindSafe(|| running.close())) {
            Ok(result) if !self.disk.is_dead() => Done::Value(result.map_err(|e| e.to_string())),
            Ok(_) => Done::Died,
            Err(panic) if panic.is::<Death>() => Done::Died,
            Err(panic) => resume_unwind(panic),
        }
    }

    fn bury<T>(&mut self) -> Done<T> {
        self.running = None;
        self.session = 0;
        self.out.begin(0);
        Done::Died
    }

    /// The process is killed where it stands.
    pub fn kill(&mut self) {
        // From here on nothing reaches the disk, not even from destructors.
        self.disk.die_now();
        self.bury::<()>();
    }

    /// The process is dead; this is what became of its machine.
    pub fn settle(&mut self, fate: Fate) {
        match fate {
            Fate::Killed => self.disk.revive(),
            Fate::PowerLost(seed) => self.disk.crash(seed),
            Fate::UnsyncedLost => self.disk.crash_bare(),
        }
        self.boot += u64::from(fate.loses_power());
    }

    /// Starts the daemon. It may die of that, too.
    pub fn start(&mut self, runtime: &Runtime) -> bool {
        self.starts += 1;
        let mut dice = Dice(self.seed ^ (self.starts << 32));
        let site = Site {
            disk: Arc::new(self.disk.clone()),
            meta: self.disk.meta(),
            opened: Opened::Existing,
            boot: format!("boot {}", self.boot),
            random: Box::new(move || u128::from(dice.number()) << 64 | u128::from(dice.number())),
        };
        let options = Options {
            store: "/simulated".into(),
            peer: "peer".into(),
            compress: true,
            bwlimit: None,
            listen: "127.0.0.1:1".parse().unwrap(),
            key_file: "/none".into(),
            read_timeout: std::time::Duration::from_secs(10),
            new_peer: false,
            first_sync: Default::default(),
            trash_days: 7,
            max_delete: self.max_delete,
            adopt_deletes: self.adopt_deletes,
            direction: self.direction,
            interval: self.interval,
            cache_size: self.cache,
            cache_min_free: Some(0),
            inline_bytes: self.inline_bytes,
            mount: "/simulated".into(),
        };
        let out = self.out.clone();
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let host = Host::open_in(site, options, runtime.handle())
                .unwrap_or_else(|e| panic!("the store does not open: {e}"));
            Stepped::new(host, Box::new(out))
        }));
        match opened {
            Ok(running) if !self.disk.is_dead() => {
                self.running = Some(running);
                true
            }
            Ok(_) => false,
            Err(panic) if panic.is::<Death>() => false,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// The directory as a user would find it after unmounting.
    pub fn raw(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.disk.names(Dir::Root).into_iter();
        names
            .map(|name| {
                (String::from_utf8(name.clone()).unwrap(), self.disk.bytes(Dir::Root, &name).unwrap())
            })
            .collect()
    }
}
