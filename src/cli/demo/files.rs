//! Content to show things with, and its check.

use anyhow::Context;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Where real files of mixed sizes lie on a Debian machine.
const REAL: &str = "/usr/share/doc";
const MOST: usize = 200;

/// Names and SHA-256 of all files of a directory.
pub type Sums = BTreeMap<String, String>;

/// Up to 200 files: this machine's copyright notices, or generated ones where there are none.
pub fn samples() -> Vec<(String, Vec<u8>)> {
    let mut real: Vec<(String, Vec<u8>)> = std::fs::read_dir(REAL)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|package| {
            let name = format!("{}.copyright", package.file_name().to_str()?);
            Some((name, std::fs::read(package.path().join("copyright")).ok()?))
        })
        .collect();
    real.sort();
    real.truncate(MOST);
    match real.len() {
        0 => (0..MOST).map(|i| (format!("file-{i:03}"), noise(i as u64, i * i))).collect(),
        _ => real,
    }
}

/// `len` bytes without pattern, always the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What lies in `dir`, hidden files not counted.
pub fn sums(dir: &Path) -> anyhow::Result<Sums> {
    let mut sums = Sums::new();
    for entry in dir.read_dir().with_context(|| format!("can't list {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            sums.insert(name, sum(&entry.path())?);
        }
    }
    Ok(sums)
}

fn sum(path: &Path) -> anyhow::Result<String> {
    let failed = || format!("can't read {}", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(failed)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_something_to_show() {
        let samples = samples();
        assert!(!samples.is_empty() && samples.len() <= MOST);
        assert!(samples.iter().all(|(name, _)| !name.contains('/')));
    }

    #[test]
    fn noise_repeats_by_seed_only() {
        assert_eq!(noise(1, 1000), noise(1, 1000));
        assert_ne!(noise(1, 1000), noise(2, 1000));
        assert_eq!(noise(3, 13).len(), 13);
    }

    #[test]
    fn sums_see_content_and_skip_hidden_files() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a"), "abc").unwrap();
        std::fs::create_dir(temp.path().join(".state")).unwrap();
        let sums = sums(temp.path()).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sums, Sums::from([("a".to_owned(), abc.to_owned())]));
    }
}
