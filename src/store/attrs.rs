//! A file's attributes, read and put on.
//!
//! Invariants: what [`read_attrs`] gives passes `Attrs::check`; [`apply_attrs`] never touches an
//! attribute that does not travel, changes only what differs, and sets the mtime last, because
//! whatever comes after could move it.

use super::disk::{Content, File, Time};
use crate::model::cut::Attrs;
use crate::model::limits::{XATTR_BYTES, XATTRS};
use std::collections::BTreeMap;
use std::io;

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

const READABLE: u32 = 0o400;
const WRITABLE: u32 = 0o200;

/// Size in bytes, permission bits, owner, mtime in nanoseconds and `user.*` attributes. Attributes
/// over the limits are passed over, and a file system without them has none.
pub fn read_attrs(file: &Content) -> io::Result<Attrs> {
    let stat = file.stat()?;
    Ok(Attrs {
        size: stat.size,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime.nanoseconds(),
        xattrs: read_xattrs(&**file)?.into_iter().collect(),
    })
}

/// Puts on everything but the size; the owner only with `owner`, which takes root. An extended
/// attribute that this file system refuses is reported when all the rest is done; where it has none
/// at all, they are left out.
pub fn apply_attrs(file: &Content, attrs: &Attrs, owner: bool) -> io::Result<()> {
    let mut stat = file.stat()?;
    let xattrs = apply_xattrs(&**file, attrs);
    // Before the mode: a change of owner takes set-id bits away.
    if owner && (stat.uid, stat.gid) != (attrs.uid, attrs.gid) {
        file.set_owner(Some(attrs.uid), Some(attrs.gid))?;
        stat = file.stat()?;
    }
    if stat.mode != attrs.mode {
        file.set_mode(attrs.mode)?;
    }
    if stat.mtime.nanoseconds() != attrs.mtime {
        file.set_times(None, Some(Time::from_nanoseconds(attrs.mtime)))?;
    }
    xattrs
}

fn apply_xattrs(file: &dyn File, attrs: &Attrs) -> io::Result<()> {
    let held = read_xattrs(file)?;
    let mut result = Ok(());
    for (name, value) in &attrs.xattrs {
        if held.get(name) != Some(value) {
            match permitted(file, WRITABLE, || file.set_xattr(name, value, 0)) {
                Err(e) if e.raw_os_error() != Some(libc::EOPNOTSUPP) => result = result.and(Err(e)),
                _ => {}
            }
        }
    }
    // Only what would have travelled: one that is over the limits stays.
    for name in held.keys().filter(|name| attrs.xattrs.binary_search_by(|x| x.0.cmp(name)).is_err()) {
        match permitted(file, WRITABLE, || file.remove_xattr(name)) {
            Err(e) if e.raw_os_error() != Some(libc::ENODATA) => result = result.and(Err(e)),
            _ => {}
        }
    }
    result
}

fn read_xattrs(file: &dyn File) -> io::Result<Xattrs> {
    let names = match file.xattrs() {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Xattrs::new()),
        names => names?,
    };
    let mut names: Vec<&[u8]> = names.split(|b| *b == 0).filter(|n| n.starts_with(b"user.")).collect();
    // In order, so that the same ones travel each time where there are too many.
    names.sort_unstable();
    let mut xattrs = Xattrs::new();
    let mut value = vec![0; if names.is_empty() { 0 } else { XATTR_BYTES }];
    for name in names {
        match permitted(file, READABLE, || file.xattr(name, &mut value)) {
            Ok(size) if xattrs.len() < XATTRS => {
                xattrs.insert(name.to_owned(), value[..size].to_owned());
            }
            Ok(_) => {}
            // Too long, or removed meanwhile.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ERANGE | libc::E2BIG | libc::ENODATA)) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(xattrs)
}

/// Runs `call`; where the mode of a file of ours forbids it, with the permission `bit` lent to the
/// file for that instant. The kernel asks the mode for `user.*` attributes, not the descriptor.
fn permitted<T>(file: &dyn File, bit: u32, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match call() {
        Err(e) if e.raw_os_error() == Some(libc::EACCES) => {
            let mode = file.stat()?.mode;
            file.set_mode(mode | bit)?;
            let result = call();
            file.set_mode(mode)?;
            result
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::real::content;

    /// A file in the build directory: `/tmp` may lie on a file system without attributes.
    fn file() -> Content {
        content(tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).or_else(|_| tempfile::tempfile()).unwrap())
    }

    fn attrs(file: &Content) -> Attrs {
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
        let before = file.stat().unwrap();
        apply_attrs(&file, &wanted, true).unwrap();
        assert_eq!(file.stat().unwrap(), before);
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
        let file = content(tempfile::tempfile_in("/dev/shm").unwrap());
        let name = |i: usize| format!("user.{i:04}");
        for i in 0..XATTRS + 4 {
            if file.set_xattr(name(i).as_bytes(), b"v", 0).is_err() {
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
        let file = content(rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        let wanted = attrs(&file);
        apply_attrs(&file, &wanted, false).unwrap();
        let held = read_attrs(&file).unwrap();
        assert_eq!((held.mode, held.mtime), (wanted.mode, wanted.mtime));
    }
}
