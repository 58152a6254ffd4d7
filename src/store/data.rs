//! Copying content.
//!
//! Invariant: nothing here moves a file position, so any number of threads may share a file.

use super::disk::Content;
use rustix::io::Errno;
use std::io;

/// Bytes copied at once where the kernel cannot copy by itself.
const BUFFER: usize = 256 << 10;

/// Copies `len` bytes; gives back how many, fewer only at the end of `from`. The ranges must not
/// overlap within one file.
pub fn copy_range(from: &Content, from_off: u64, to: &Content, to_off: u64, len: u64) -> io::Result<u64> {
    let (mut source, mut target, end) = (from_off, to_off, from_off.saturating_add(len));
    if let (Some(from), Some(to)) = (from.descriptor(), to.descriptor()) {
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
    }
    let mut buffer = vec![0; if source < end { BUFFER } else { 0 }];
    while source < end {
        let want = usize::try_from(end - source).unwrap_or(usize::MAX).min(BUFFER);
        let got = from.read_full_at(&mut buffer[..want], source)?;
        if got == 0 {
            break;
        }
        to.write_all_at(&buffer[..got], target)?;
        source += got as u64;
        target += got as u64;
    }
    Ok(source - from_off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::real::content;

    fn file(bytes: &[u8]) -> Content {
        let file = content(tempfile::tempfile().unwrap());
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    #[test]
    fn a_copy_ends_where_the_file_ends() {
        let bytes: Vec<u8> = (0..700_000u32).map(|i| i as u8 ^ (i >> 8) as u8).collect();
        let from = file(&bytes);
        // On another file system the kernel cannot copy by itself.
        for to in [file(b""), content(tempfile::tempfile_in("/dev/shm").unwrap())] {
            assert_eq!(copy_range(&from, 1000, &to, 50, u64::MAX).unwrap(), 699_000);
            let mut copied = vec![0; 700_000];
            assert_eq!(to.read_full_at(&mut copied, 50).unwrap(), 699_000);
            assert!(copied[..699_000] == bytes[1000..]);
            assert_eq!(copy_range(&from, 900_000, &to, 0, 10).unwrap(), 0);
            assert_eq!(copy_range(&from, 10, &to, 0, 5).unwrap(), 5);
        }
    }
}
