//! Who this replica is, how often it was started, and the machine's boots and random numbers.
//!
//! The identity lies in two files, `.syncfs/replica` and `.syncfs/replica.2`, each a few lines of text
//! with a checksum. Invariants: either copy alone is enough; a copy is replaced by rename, durable
//! before the other is touched; a new identity is made up only where neither file exists, never
//! because they cannot be read.

use super::disk::{Dir, Disk};
use super::error::{Error, Result};
use crate::model::ids::ReplicaId;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::io;

const COPIES: [&str; 2] = ["replica", "replica.2"];
const FORMAT: u32 = 1;
/// Bytes read of a copy; a good one is shorter.
const COPY_BYTES: usize = 4096;

/// This host's copy of the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub replica: ReplicaId,
    /// How many times a daemon was started on this store; the first is 1.
    pub boots: u64,
}

/// One more start of the daemon: the identity, made up at the first one. Durable on return.
/// Errors: [`Error::Corrupt`] where no copy can be read or the two contradict each other.
pub fn load_or_create(disk: &dyn Disk, random: &mut dyn FnMut() -> u128) -> Result<Identity> {
    let copies = [read(disk, COPIES[0])?, read(disk, COPIES[1])?];
    let identity = match copies {
        [Copy::Good(a), Copy::Good(b)] if a.replica != b.replica => {
            return Err(corrupt("name two different replicas: remove the one that does not belong here"));
        }
        [Copy::Good(a), Copy::Good(b)] => Identity { boots: a.boots.max(b.boots), ..a },
        [Copy::Good(one), _] | [_, Copy::Good(one)] => one,
        [Copy::Missing, Copy::Missing] => Identity { replica: ReplicaId(random()), boots: 0 },
        _ => {
            return Err(corrupt(
                "are damaged: put one back from a backup, or remove both to begin as a new replica (the \
                 peer then wants --new-peer)",
            ));
        }
    };
    let identity = Identity { boots: identity.boots.saturating_add(1), ..identity };
    COPIES.iter().try_for_each(|name| write(disk, name, &identity))?;
    Ok(identity)
}

/// Names this boot of the machine. Where the kernel does not tell, no two answers are equal, so that
/// nobody takes two boots for one.
pub fn machine_boot() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) if !id.trim().is_empty() => id.trim().to_owned(),
        _ => format!("unknown-{:032x}", random()),
    }
}

/// A number that nobody can guess, from the kernel.
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            // As the standard library does: a kernel without it is older than FUSE as we use it.
            Err(e) => panic!("the kernel gives no random bytes: {e}"),
        }
    }
    u128::from_le_bytes(bytes)
}

enum Copy {
    Good(Identity),
    Missing,
    Damaged,
}

fn read(disk: &dyn Disk, name: &str) -> Result<Copy> {
    let file = match disk.open(Dir::State, name.as_bytes(), false) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Copy::Missing),
        file => file.map_err(Error::io(format!("cannot open .syncfs/{name}")))?,
    };
    let mut bytes = vec![0; COPY_BYTES];
    match file.read_full_at(&mut bytes, 0) {
        Ok(read) => bytes.truncate(read),
        // A sector that cannot be read is what the other copy is for.
        Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(Copy::Damaged),
        Err(e) => return Err(Error::io(format!("cannot read .syncfs/{name}"))(e)),
    };
    parse(&bytes, name)
}

fn write(disk: &dyn Disk, name: &str, identity: &Identity) -> Result<()> {
    let new: &[u8] = b"replica.new";
    let replace = || -> io::Result<()> {
        match disk.unlink(Dir::State, new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = disk.create(Dir::State, new, 0o600)?;
        file.write_all_at(text(identity).as_bytes(), 0)?;
        file.sync()?;
        disk.rename((Dir::State, new), (Dir::State, name.as_bytes()), RenameFlags::empty())?;
        disk.sync_dir(Dir::State)
    };
    replace().map_err(Error::io(format!("cannot write .syncfs/{name}")))
}

fn text(identity: &Identity) -> String {
    let body = format!("syncfs replica {FORMAT}\nid {:032x}\nboots {}\n", identity.replica.0, identity.boots);
    format!("{body}crc {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

fn parse(bytes: &[u8], name: &str) -> Result<Copy> {
    let Ok(whole) = std::str::from_utf8(bytes) else { return Ok(Copy::Damaged) };
    let Some((body, crc)) = whole.rsplit_once("crc ") else { return Ok(Copy::Damaged) };
    if crc != format!("{:08x}\n", crc32c::crc32c(body.as_bytes())) {
        return Ok(Copy::Damaged);
    }
    let mut lines = body.lines();
    let mut field = |key: &str| lines.next().and_then(|line| line.strip_prefix(key));
    if field("syncfs replica ").and_then(|n| n.parse().ok()).is_some_and(|n: u32| n > FORMAT) {
        return Err(Error::NewerFormat { what: format!(".syncfs/{name}") });
    }
    let replica = field("id ").and_then(|n| u128::from_str_radix(n, 16).ok());
    let boots = field("boots ").and_then(|n| n.parse().ok());
    match (replica, boots) {
        (Some(id), Some(boots)) => Ok(Copy::Good(Identity { replica: ReplicaId(id), boots })),
        _ => Ok(Copy::Damaged),
    }
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt { what: format!("the files .syncfs/replica and .syncfs/replica.2 {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::real::RealDisk;
    use std::fs;

    fn load(disk: &RealDisk) -> Result<Identity> {
        load_or_create(disk, &mut random)
    }

    fn store() -> (tempfile::TempDir, RealDisk, Identity) {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        let identity = load(&disk).unwrap();
        (dir, disk, identity)
    }

    #[test]
    fn the_replica_stays_and_its_boots_are_counted() {
        let (_dir, disk, first) = store();
        assert_eq!(first.boots, 1);
        for boots in 2..5 {
            assert_eq!(load(&disk).unwrap(), Identity { boots, ..first });
        }
        assert_ne!(store().2.replica, first.replica);
    }

    #[test]
    fn either_copy_alone_is_enough_and_mends_the_other() {
        let (dir, disk, first) = store();
        let mut boots = first.boots;
        for lost in COPIES {
            let path = dir.path().join(".syncfs").join(lost);
            let whole = fs::read(&path).unwrap();
            let mut damages: Vec<Option<Vec<u8>>> = vec![None, Some(vec![])];
            damages.extend((0..whole.len()).map(|at| {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                Some(bytes)
            }));
            for damage in damages {
                match &damage {
                    None => fs::remove_file(&path).unwrap(),
                    Some(bytes) => fs::write(&path, bytes).unwrap(),
                }
                boots += 1;
                assert_eq!(load(&disk).unwrap(), Identity { boots, ..first });
                let [a, b] = COPIES.map(|name| fs::read(dir.path().join(".syncfs").join(name)).unwrap());
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn damage_to_both_copies_is_told_and_never_makes_a_new_replica() {
        let (dir, disk, _) = store();
        let path = |name| dir.path().join(".syncfs").join(name);
        fs::write(path("replica"), "x").unwrap();
        fs::remove_file(path("replica.2")).unwrap();
        let told = load(&disk).unwrap_err().to_string();
        assert!(told.contains("backup") && told.contains("--new-peer"), "{told}");
        assert_eq!(fs::read(path("replica")).unwrap(), b"x");
        fs::write(path("replica"), text(&Identity { replica: ReplicaId(1), boots: 1 })).unwrap();
        fs::write(path("replica.2"), text(&Identity { replica: ReplicaId(2), boots: 1 })).unwrap();
        assert!(load(&disk).is_err());
    }

    #[test]
    fn a_newer_identity_is_left_alone() {
        let (dir, disk, _) = store();
        let body = "syncfs replica 2\nwhatever\n";
        let text = format!("{body}crc {:08x}\n", crc32c::crc32c(body.as_bytes()));
        fs::write(dir.path().join(".syncfs/replica"), &text).unwrap();
        assert!(matches!(load(&disk), Err(Error::NewerFormat { .. })));
        assert_eq!(fs::read_to_string(dir.path().join(".syncfs/replica")).unwrap(), text);
    }

    #[test]
    fn random_numbers_are_new_each_time_and_the_boot_is_the_same() {
        assert_ne!(random(), random());
        assert_eq!(machine_boot(), machine_boot());
    }
}
