//! `kill -9` of either daemon between any two of its system calls, while users work on both sides: nothing that
//! a call accepted is lost, nothing is half there, and both sides become the same by themselves.
//!
//! `SYNCFS_KILLS` is how many; `SYNCFS_SEED` replays the users' calls and the choice of faults, not the timing.

use crate::rig::{Host, PATIENCE, Pair, until};
use crate::strace::{self, CALLS, Fault, Tracer};
use crate::user::{Dice, User};
use crate::{able, number, said, seed};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many kills one pair of hosts goes through.
const KILLS_OF_A_PAIR: u64 = 12;
/// A fault that has not happened by then is not reached by this load.
const REACHED: Duration = Duration::from_secs(3);
/// Mounting again after a kill takes at most this.
const RESTART: Duration = Duration::from_secs(2);

#[test]
fn a_kill_at_any_system_call_loses_nothing_and_leaves_nothing_half() {
    if !able(&["strace", "setpriv"]) {
        return;
    }
    let (kills, seed) = (number("SYNCFS_KILLS", 6), seed());
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    let mut round = 0;
    while tally.kills() < kills {
        round += 1;
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(round);
        let goal = (tally.kills() + KILLS_OF_A_PAIR).min(kills);
        let mut story = Story::new(seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| story.until(goal, &mut tally))) {
            println!("FAILED after {}: {}\n{}", tally.last, said(&*panic), story.pair.logs());
            failures.push(tally.last.clone());
        }
    }
    println!("{tally}");
    assert!(failures.is_empty(), "{} of {} kills: {failures:#?}", failures.len(), tally.kills());
}

/// One of the daemon's threads is in the kernel, where no kill reaches it, and waits for a program that waits for the
/// daemon.
#[test]
fn a_kill_frees_all_who_wait_for_the_daemon_and_the_daemon_itself() {
    if !able(&["setpriv"]) {
        return;
    }
    let mut pair = Pair::mounted();
    let stop = AtomicBool::new(false);
    let (here, there) = (&pair.a.dir.clone(), &pair.b.dir.clone());
    std::thread::scope(|scope| {
        let _stopping = Stopping(std::slice::from_ref(&stop));
        let stop = &stop;
        let go_on = move || !stop.load(Ordering::Relaxed);
        // Names come and go over there, and A's kernel is told.
        scope.spawn(move || {
            for n in (0..).take_while(|_| go_on()) {
                let name = there.join(format!("name-{}", n % 5));
                std::fs::write(&name, "x").and_then(|()| std::fs::remove_file(&name)).unwrap();
            }
        });
        let local = scope.spawn(move || {
            let name = here.join("made-here");
            (0..)
                .take_while(|_| go_on())
                .find_map(|_| std::fs::write(&name, "x").and_then(|()| std::fs::remove_file(&name)).err())
        });
        let daemon = pair.a.daemon();
        until("the kernel's lock is waited for", || {
            let stuck = daemon.stand_still();
            if !stuck {
                daemon.signal(Signal::CONT);
            }
            stuck
        });
        let begun = Instant::now();
        pair.a.kill();
        let error = local.join().unwrap().expect("a killed daemon answers nothing");
        println!("all were free after {:?}", begun.elapsed());
        assert!(matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)), "{error}");
        assert!(begun.elapsed() < RESTART, "{:?}", begun.elapsed());
        pair.a.start();
    });
    pair.finish();
}

/// What happened so far.
#[derive(Default)]
struct Tally {
    sites: BTreeMap<String, u64>,
    /// Killed from outside, as the fault was not reached.
    outside: u64,
    slowest_restart: Duration,
    last: String,
}

impl Tally {
    fn kills(&self) -> u64 {
        self.sites.values().sum::<u64>() + self.outside
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (site, count) in &self.sites {
            writeln!(f, "{count:5} {site}")?;
        }
        writeln!(f, "{:5} at no call of its own", self.outside)?;
        let (kills, sites) = (self.kills(), self.sites.len());
        write!(f, "{kills} kills at {sites} places, slowest restart {:?}", self.slowest_restart)
    }
}

/// Two hosts, with a user and a pair of ledgers each, who live through kills.
struct Story {
    dice: Dice,
    pair: Pair,
    users: [User; 2],
    ledgers: [Ledger; 2],
}

impl Story {
    fn new(seed: u64) -> Story {
        let pair = Pair::mounted();
        let users = [User::new(&pair.a.dir, "a", seed), User::new(&pair.b.dir, "b", !seed)];
        let ledgers = [Ledger::new(&pair.a.dir, "left"), Ledger::new(&pair.b.dir, "right")];
        Story { dice: Dice(seed), pair, users, ledgers }
    }

    fn until(&mut self, goal: u64, tally: &mut Tally) {
        while tally.kills() < goal {
            self.kill_one(tally);
        }
        self.rest();
        let found = self.pair.assert_same();
        drop(found);
    }

    fn rest(&mut self) {
        self.users.iter_mut().for_each(User::rest);
        self.ledgers.iter_mut().for_each(|ledger| ledger.open = None);
    }

    fn kill_one(&mut self, tally: &mut Tally) {
        let victim = self.dice.roll(2) as usize;
        let call = *self.dice.one_of(&CALLS);
        let reach = 3u64.pow(self.dice.roll(6) as u32);
        let fault = Fault::kill(call, 1 + self.dice.roll(reach));
        tally.last = format!("{} at {call} {}", ["A", "B"][victim], fault.when);
        let took = self.die_and_come_back(victim, &fault, tally);
        tally.slowest_restart = tally.slowest_restart.max(took);
        let found = self.pair.assert_same();
        for user in &mut self.users {
            user.check(&found).unwrap_or_else(|why| panic!("{why}"));
        }
        if self.ledgers.iter_mut().any(Ledger::check) {
            self.pair.a.flush();
        }
        let known = |name: &str| ["a", "b", "left", "right"].iter().any(|prefix| name.starts_with(prefix));
        let strange: Vec<_> = found.keys().filter(|n| !n.to_str().is_some_and(known)).collect();
        assert!(strange.is_empty(), "nobody made {strange:?}");
        assert!(took < RESTART, "mounting again took {took:?}");
    }

    /// Everybody works, the victim is killed by the fault, and mounted again while the other side works on. Returns
    /// how long mounting took.
    fn die_and_come_back(&mut self, victim: usize, fault: &Fault, tally: &mut Tally) -> Duration {
        let Story { dice, pair, users, ledgers } = self;
        let stop = [AtomicBool::new(false), AtomicBool::new(false)];
        let dirs: [PathBuf; 2] = [pair.a.dir.clone(), pair.b.dir.clone()];
        let trace = pair.root.path().join("trace");
        let host = if victim == 0 { &mut pair.a } else { &mut pair.b };
        let tracer = Tracer::attach(host.daemon().id(), fault);
        let foreign = ledgers[1 - victim].reader();
        let stopped = |side: usize| stop[side].load(Ordering::Relaxed);
        let (stopped, dirs) = (&stopped, &dirs);
        std::thread::scope(|scope| {
            // However this ends, nobody works for ever.
            let _stopping = Stopping(&stop);
            let mut threads = Vec::new();
            for (side, (user, ledger)) in users.iter_mut().zip(ledgers).enumerate() {
                let reader = ledger.reader();
                threads.push(scope.spawn(move || user.work(|| stopped(side))));
                threads.push(scope.spawn(move || ledger.keep(|| stopped(side))));
                threads.push(scope.spawn(move || {
                    while !stopped(1 - side) && reader.read(&dirs[1 - side]) {
                        // Locks without end would hold up all that is to be seen.
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }));
            }
            let daemon = Pid::from_raw(host.daemon().id()).expect("a process");
            let mut reached = strace::ends_within(daemon, REACHED);
            stop[victim].store(true, Ordering::Relaxed);
            host.kill();
            let site = tracer.sites().pop();
            reached |= site.is_some();
            match site.filter(|_| reached) {
                Some(site) => {
                    tally.last = format!("{}: {site}", tally.last);
                    *tally.sites.entry(site).or_default() += 1;
                }
                None => tally.outside += 1,
            }
            std::thread::sleep(Duration::from_millis(dice.roll(200)));
            if dice.roll(3) == 0 {
                kill_while_it_recovers(host, dice, &trace, tally);
            }
            let begun = Instant::now();
            host.start();
            let took = begun.elapsed();
            // The peer may not have come yet: what is here is what recovery made of it.
            foreign.read(&dirs[victim]);
            stop[1 - victim].store(true, Ordering::Relaxed);
            for thread in threads {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
            took
        })
    }
}

struct Stopping<'a>(&'a [AtomicBool]);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|stop| stop.store(true, Ordering::Relaxed));
    }
}

/// Killed again, before the mount stands; or just after, where the fault was not reached.
fn kill_while_it_recovers(host: &mut Host, dice: &mut Dice, trace: &Path, tally: &mut Tally) {
    let call = *dice.one_of(&CALLS);
    let fault = Fault::kill(call, 1 + dice.roll(8));
    // The tracer stands aside, so that the daemon is our child.
    host.around = fault.words(trace).into_iter().map(Into::into).collect();
    host.around.insert(1, "-D".into());
    let started = host.try_start();
    host.around.clear();
    if started.is_ok() {
        tally.outside += 1;
        return host.kill();
    }
    until("the tracer is done", || {
        std::fs::read_to_string(trace).is_ok_and(|text| text.contains("killed by SIGKILL"))
    });
    let text = std::fs::read_to_string(trace).unwrap_or_default();
    let site = strace::sites(&text, &BTreeMap::new()).pop().unwrap_or_else(|| format!("{call}(?)"));
    let site = format!("in recovery: {site}");
    tally.last = format!("{}, then {call} {} {site}", tally.last, fault.when);
    *tally.sites.entry(site).or_default() += 1;
}

/// Two files in which one program writes the same number over and over, first into the one and then into the
/// other: they must never be seen apart by more than that, nor one of them with two numbers in it.
struct Ledger {
    names: [String; 2],
    dir: PathBuf,
    open: Option<[File; 2]>,
    /// What was last accepted.
    count: [u64; 2],
    /// A turn did not come to its end.
    doubt: bool,
}

/// Chunks of a ledger's file, and then some.
const PAGES: usize = 40_500;

fn page(count: u64) -> Vec<u8> {
    count.to_le_bytes().repeat(PAGES / 8)
}

struct Reader {
    names: [String; 2],
}

impl Ledger {
    fn new(dir: &Path, name: &str) -> Ledger {
        let names = [format!("{name}-first"), format!("{name}-second")];
        Ledger { names, dir: dir.to_owned(), open: None, count: [0; 2], doubt: false }
    }

    fn reader(&self) -> Reader {
        Reader { names: self.names.clone() }
    }

    /// Writes until told to stop or until the daemon dies.
    fn keep(&mut self, stop: impl Fn() -> bool) {
        while !stop() {
            if let Err(error) = self.turn() {
                assert!(
                    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)),
                    "{:?}: {error}",
                    self.names
                );
                self.open = None;
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn turn(&mut self) -> std::io::Result<()> {
        if self.open.is_none() {
            let open =
                |name| File::options().create(true).truncate(false).write(true).open(self.dir.join(name));
            self.open = Some([open(&self.names[0])?, open(&self.names[1])?]);
        }
        let files = self.open.as_ref().expect("just opened");
        self.doubt = true;
        for (file, count) in files.iter().zip(&mut self.count) {
            file.write_all_at(&page(*count + 1), 0)?;
            *count += 1;
        }
        self.doubt = false;
        Ok(())
    }

    /// After a kill and a flush: what stands there is what was accepted last, or what was in mid-write. True
    /// where that had to be made whole before anybody looks again.
    fn check(&mut self) -> bool {
        let doubt = std::mem::take(&mut self.doubt);
        let mut mended = false;
        for n in 0..2 {
            let found = match std::fs::read(self.dir.join(&self.names[n])) {
                Ok(found) => found,
                Err(_) if self.count[n] == 0 => continue,
                Err(error) => panic!("{}: {error}", self.names[n]),
            };
            let counts = numbers(&found);
            let (last, next) = (self.count[n], self.count[n] + 1);
            let fits = |count: &u64| *count == last || (doubt && *count == next);
            assert!(
                counts.iter().all(fits) && (found.len() == PAGES / 8 * 8 || last == 0),
                "{}: {} bytes with {counts:?} instead of {last}",
                self.names[n],
                found.len()
            );
            if counts.contains(&next) {
                self.count[n] = next;
            }
            if counts.len() > 1 || found.len() < PAGES / 8 * 8 {
                let file = File::options().write(true).open(self.dir.join(&self.names[n])).unwrap();
                file.write_all_at(&page(self.count[n]), 0).unwrap();
                mended = true;
            }
        }
        // The turn that was cut off is not taken up again, so the second file catches up with the first.
        if self.count[1] < self.count[0] {
            self.count[1] = self.count[0];
            let options = File::options().create(true).truncate(false).write(true).clone();
            let file = options.open(self.dir.join(&self.names[1])).unwrap();
            file.write_all_at(&page(self.count[1]), 0).unwrap();
            mended = true;
        }
        mended
    }
}

/// The different numbers in a ledger's file, ascending.
fn numbers(bytes: &[u8]) -> Vec<u64> {
    let all = bytes.chunks(8).map(|n| n.try_into().map_or(u64::MAX, u64::from_le_bytes));
    let all: std::collections::BTreeSet<u64> = all.collect();
    all.into_iter().collect()
}

impl Reader {
    /// Reads both files, locked, so that none changes meanwhile. False where the daemon is dead.
    fn read(&self, dir: &Path) -> bool {
        let mut files = Vec::new();
        for name in &self.names {
            match File::open(dir.join(name)) {
                Ok(file) => files.push(file),
                // Not there yet.
                Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
            }
        }
        if !files.iter().all(lock) {
            return false;
        }
        let Some(seen) = look(&files) else { return false };
        if !fits(&seen) {
            // For the report: a cache that is stale for a moment is another fault than half a state.
            let direct =
                |name| File::options().read(true).custom_flags(libc::O_DIRECT).open(dir.join(name)).ok();
            let past_the_cache: Option<Vec<File>> = self.names.iter().map(direct).collect();
            // A daemon that was killed meanwhile took the locks with it, while what was opened before is still read
            // from the disk below.
            let Some(truth) = past_the_cache.and_then(|files| look(&files)) else { return false };
            std::thread::sleep(Duration::from_millis(500));
            let later = look(&files);
            panic!(
                "{:?} show {seen:?} in {}; {truth:?} past the cache, and later {later:?}",
                self.names,
                dir.display()
            );
        }
        true
    }
}

/// The numbers in each file; `None` where the daemon is dead.
fn look(files: &[File]) -> Option<Vec<Vec<u64>>> {
    let read = |file: &File| {
        let mut bytes = vec![0; PAGES + 1000];
        let length = file.read_at(&mut bytes, 0).ok()?;
        bytes.truncate(length);
        Some(numbers(&bytes))
    };
    files.iter().map(read).collect()
}

/// Whether each file holds one number, and the second one the same as the first or the one before.
fn fits(seen: &[Vec<u64>]) -> bool {
    match (&seen[0][..], &seen[1][..]) {
        ([first], [second]) => first == second || *first == second + 1,
        (first, second) => first.len() <= 1 && second.len() <= 1,
    }
}

/// A shared fcntl lock of the whole file, waited for; false where the daemon is dead.
fn lock(file: &File) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lock = libc::flock {
            l_type: libc::F_RDLCK as _,
            l_whence: libc::SEEK_SET as _,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        // SAFETY: a valid descriptor and a valid struct.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &lock) } {
            0 => return true,
            _ if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {
                assert!(Instant::now() < deadline, "no lock");
            }
            _ => return false,
        }
    }
}
