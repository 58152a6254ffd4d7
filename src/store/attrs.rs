//! A file's attributes, read and put on.
//!
//! Invariants: what [`read_attrs`] gives passes `Attrs::check`; [`apply_attrs`] never touches an
//! attribute that does not travel, changes only what differs, and sets the mtime last, because
//! whatever comes after could move it.

use super::backing::nanoseconds;
use crate::model::cut::Attrs;
use crate::model::limits::{XATTR_BYTES, XATTRS};
use rustix::fs::{Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Size in bytes, permission bits, owner, mtime in nanoseconds and `user.*` attributes. Attributes
/// over the limits are passed over, and a file system without them has none.
pub fn read_attrs(file: &File) -> io::Result<Attrs> {
    let stat = rustix::fs::fstat(file)?;
    Ok(Attrs {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime(&stat),
        xattrs: read_xattrs(file)?.into_iter().collect(),
    })
}

/// Puts on everything but the size; the owner only with `owner`, which takes root. An extended
/// attribute that this file system refuses is reported when all the rest is done; where it has none
/// at all, they are left out.
pub fn apply_attrs(file: &File, attrs: &Attrs, owner: bool) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    // Before the mode: a change of owner takes set-id bits away.
    if owner && (stat.st_uid, stat.st_gid) != (attrs.uid, attrs.gid) {
        rustix::fs::fchown(file, Some(Uid::from_raw(attrs.uid)), Some(Gid::from_raw(attrs.gid)))?;
    }
    let xattrs = apply_xattrs(file, attrs);
    if rustix::fs::fstat(file)?.st_mode & 0o7777 != attrs.mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(attrs.mode))?;
    }
    if mtime(&rustix::fs::fstat(file)?) != attrs.mtime {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ };
        let last_modification = Timespec {
            tv_sec: attrs.mtime.div_euclid(1_000_000_000),
            tv_nsec: attrs.mtime.rem_euclid(1_000_000_000) as _,
        };
        rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?;
    }
    Ok(xattrs?)
}

fn mtime(stat: &Stat) -> i64 {
    nanoseconds(stat.st_mtime, stat.st_mtime_nsec)
}

fn apply_xattrs(file: &File, attrs: &Attrs) -> rustix::io::Result<()> {
    let held = read_xattrs(file)?;
    let mut result = Ok(());
    for (name, value) in &attrs.xattrs {
        if held.get(name) != Some(value) {
            let set = || rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
            match permitted(file, Mode::WUSR, set) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(e) => result = result.and(Err(e)),
            }
        }
    }
    // Only what would have travelled: one that is over the limits stays.
    for name in held.keys().filter(|name| attrs.xattrs.binary_search_by(|x| x.0.cmp(name)).is_err()) {
        match permitted(file, Mode::WUSR, || rustix::fs::fremovexattr(file, name.as_slice())) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(e) => result = result.and(Err(e)),
        }
    }
    result
}

fn read_xattrs(file: &File) -> rustix::io::Result<Xattrs> {
    let names = loop {
        let size = match rustix::fs::flistxattr_query(file) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
            size => size?,
        };
        let mut names = vec![0; size];
        match rustix::fs::flistxattr(file, &mut names[..]) {
            // Grown between the two calls.
            Err(Errno::RANGE) => {}
            used => {
                names.truncate(used?);
                break names;
            }
        }
    };
    let mut names: Vec<&[u8]> = names.split(|b| *b == 0).filter(|n| n.starts_with(b"user.")).collect();
    // In order, so that the same ones travel each time where there are too many.
    names.sort_unstable();
    let mut xattrs = Xattrs::new();
    let mut value = vec![0; if names.is_empty() { 0 } else { XATTR_BYTES }];
    for name in names {
        match permitted(file, Mode::RUSR, || rustix::fs::fgetxattr(file, name, &mut value[..])) {
            Ok(size) if xattrs.len() < XATTRS => {
                xattrs.insert(name.to_owned(), value[..size].to_owned());
            }
            // Too many, too long, or removed meanwhile.
            Ok(_) | Err(Errno::RANGE | Errno::TOOBIG | Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(xattrs)
}

/// Runs `call`; where the mode of a file of ours forbids it, with the permission `bit` lent to the
/// file for that instant. The kernel asks the mode for `user.*` attributes, not the descriptor.
fn permitted<T>(
    file: &File,
    bit: Mode,
    mut call: impl FnMut() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match call() {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode & 0o7777);
            rustix::fs::fchmod(file, mode | bit)?;
            let result = call();
            rustix::fs::fchmod(file, mode)?;
            result
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A file in the build directory: `/tmp` may lie on a file system without attributes.
    fn file() -> File {
        tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).or_else(|_| tempfile::tempfile()).unwrap()
    }

    fn attrs(file: &File) -> Attrs {
        Attrs {
            mode: 0o6751,
            mtime: -1_500_000_001,
            xattrs: vec![
                (b"user.a".to_vec(), b"one".to_vec()),
                (b"user.empty".to_vec(), vec![]),
                (b"user.\xff".to_vec(), vec![0, 1, 255]),
            ],
            ..read_attrs(file).unwrap()
        }
    }

    #[test]
    fn attributes_come_back_as_they_were_put_on() {
        let file = file();
        file.set_len(1234).unwrap();
        let wanted = attrs(&file);
        wanted.check().unwrap();
        apply_attrs(&file, &wanted, false).unwrap();
        assert_eq!(read_attrs(&file).unwrap(), wanted);
        // Others are taken off, changed ones changed.
        let fewer = Attrs {
            xattrs: vec![(b"user.a".to_vec(), b"two".to_vec())],
            mode: 0o444,
            mtime: i64::from(u32::MAX) * 1_000_000_007,
            ..wanted
        };
        apply_attrs(&file, &fewer, false).unwrap();
        assert_eq!(read_attrs(&file).unwrap(), fewer);
    }

    #[test]
    fn putting_on_what_is_there_changes_nothing() {
        let file = file();
        let wanted = attrs(&file);
        apply_attrs(&file, &wanted, true).unwrap();
        let before = rustix::fs::fstat(&file).unwrap();
        apply_attrs(&file, &wanted, true).unwrap();
        let after = rustix::fs::fstat(&file).unwrap();
        assert_eq!(
            (before.st_ctime, before.st_ctime_nsec, before.st_atime, before.st_atime_nsec),
            (after.st_ctime, after.st_ctime_nsec, after.st_atime, after.st_atime_nsec)
        );
    }

    #[test]
    fn a_setuid_program_stays_one_when_its_owner_changes() {
        let file = file();
        // Taking a file away from its owner and back takes root.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let wanted = Attrs { uid: 1234, gid: 5678, ..attrs(&file) };
        apply_attrs(&file, &wanted, false).unwrap();
        assert_eq!(read_attrs(&file).unwrap().uid, 0, "the owner was not asked for");
        apply_attrs(&file, &wanted, true).unwrap();
        assert_eq!(read_attrs(&file).unwrap(), wanted);
    }

    #[test]
    fn attributes_beyond_the_limits_neither_travel_nor_are_removed() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let name = |i: usize| format!("user.{i:04}");
        for i in 0..XATTRS + 4 {
            if rustix::fs::fsetxattr(&file, name(i), b"v", XattrFlags::empty()).is_err() {
                return; // This kernel's tmpfs holds fewer.
            }
        }
        let mut read = read_attrs(&file).unwrap();
        read.check().unwrap();
        assert_eq!(read.xattrs.len(), XATTRS);
        read.xattrs.clear();
        apply_attrs(&file, &read, false).unwrap();
        assert_eq!(read_attrs(&file).unwrap().xattrs.len(), 4);
    }

    #[test]
    fn a_file_system_without_attributes_takes_the_rest() {
        // A memfd knows no user attributes on many kernels; where it does, they come back.
        let file = File::from(rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let wanted = attrs(&file);
        apply_attrs(&file, &wanted, false).unwrap();
        let held = read_attrs(&file).unwrap();
        assert_eq!((held.mode, held.mtime), (wanted.mode, wanted.mtime));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o6751);
    }
}
