//! Content bytes: reading, copying and giving them back to the disk.
//!
//! Invariant: nothing here moves a file position, so any number of threads may share a file.

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes copied at once where the kernel cannot copy by itself.
const BUFFER: usize = 256 << 10;

/// Fills `buf` from `offset`; gives back how many bytes, fewer only at the end of the file.
pub fn read_full_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Copies `len` bytes; gives back how many, fewer only at the end of `from`. The ranges must not
/// overlap within one file.
pub fn copy_range(from: &File, from_off: u64, to: &File, to_off: u64, len: u64) -> io::Result<u64> {
    let (mut source, mut target, end) = (from_off, to_off, from_off.saturating_add(len));
    while source < end {
        let want = usize::try_from(end - source).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), want) {
            // The end of the file, or a file system that says so when it means no.
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::IO) => break,
            Err(e) => return Err(e.into()),
        }
    }
    let mut buffer = vec![0; if source < end { BUFFER } else { 0 }];
    while source < end {
        let want = usize::try_from(end - source).unwrap_or(usize::MAX).min(BUFFER);
        let got = read_full_at(from, &mut buffer[..want], source)?;
        if got == 0 {
            break;
        }
        to.write_all_at(&buffer[..got], target)?;
        source += got as u64;
        target += got as u64;
    }
    Ok(source - from_off)
}

/// Gives the space of a range back to the disk; it reads as zeros, the size stays. Errors where the
/// file system cannot (`EOPNOTSUPP`).
pub fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    Ok(rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
}

/// Takes space for a range without changing size or content, so that writing it cannot run out.
/// File systems that cannot promise are not asked to.
pub fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn a_copy_ends_where_the_file_ends() {
        let bytes: Vec<u8> = (0..700_000u32).map(|i| i as u8 ^ (i >> 8) as u8).collect();
        let from = file(&bytes);
        // On another file system the kernel cannot copy by itself.
        for to in [file(b""), tempfile::tempfile_in("/dev/shm").unwrap()] {
            assert_eq!(copy_range(&from, 1000, &to, 50, u64::MAX).unwrap(), 699_000);
            let mut copied = vec![0; 700_000];
            assert_eq!(read_full_at(&to, &mut copied, 50).unwrap(), 699_000);
            assert!(copied[..699_000] == bytes[1000..]);
            assert_eq!(copy_range(&from, 900_000, &to, 0, 10).unwrap(), 0);
            assert_eq!(copy_range(&from, 10, &to, 0, 5).unwrap(), 5);
        }
    }

    #[test]
    fn a_hole_reads_as_zeros_and_keeps_the_size() {
        let file = file(&[7; 10_000]);
        punch_hole(&file, 4096, 4096).unwrap();
        reserve(&file, 0, 1 << 20).unwrap();
        let mut bytes = [1; 20_000];
        assert_eq!(read_full_at(&file, &mut bytes, 0).unwrap(), 10_000);
        assert!(bytes[..4096].iter().all(|b| *b == 7) && bytes[4096..8192].iter().all(|b| *b == 0));
        assert_eq!(bytes[8192], 7);
    }
}
