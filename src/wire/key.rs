//! The share's key: a file of 32 random bytes, the same on both hosts.
//!
//! Invariants: the bytes are never printed and are wiped from memory after use; a key that others on
//! this host can read is not used; an existing file is never overwritten.

use super::error::{Error, Result};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroize;

/// Bytes in a key.
pub const KEY_BYTES: usize = 32;

/// The secret that makes two hosts a share.
pub struct Key([u8; KEY_BYTES]);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Writes a new random key to `path`, for the owner's eyes only, and makes it durable.
    /// Directories on the way are made with mode 0700.
    ///
    /// # Errors
    /// [`Error::KeyExists`] if there is anything at `path`; [`Error::KeyFile`] otherwise.
    pub fn generate(path: &Path) -> Result<()> {
        let key = Key::random().map_err(|source| Error::KeyFile { path: path.into(), source })?;
        write_new(path, &key.0).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::KeyExists { path: path.into() },
            _ => Error::KeyFile { path: path.into(), source },
        })
    }

    /// Reads the key at `path`.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::KeyExposed`], [`Error::NotAKey`], [`Error::KeyFile`].
    pub fn load(path: &Path) -> Result<Key> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::KeyMissing { path: path.into() },
            _ => Error::KeyFile { path: path.into(), source },
        };
        let file = File::open(path).map_err(failed)?;
        // The open file is judged, not the path: it can't be exchanged in between.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() || metadata.len() != KEY_BYTES as u64 {
            return Err(Error::NotAKey { path: path.into() });
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(Error::KeyExposed { path: path.into() });
        }
        let mut key = Key([0; KEY_BYTES]);
        (&file).read_exact(&mut key.0).map_err(failed)?;
        Ok(key)
    }

    /// A key that lies in no file.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Key {
        Key(bytes)
    }

    fn random() -> io::Result<Key> {
        let mut key = Key([0; KEY_BYTES]);
        super::system::random(&mut key.0)?;
        Ok(key)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a key would stand in the way of the next attempt.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, metadata, set_permissions, write};

    #[test]
    fn a_generated_key_is_private_and_loads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/key");
        Key::generate(&path).unwrap();
        assert_eq!(metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let key = Key::load(&path).unwrap();
        assert_eq!(key.0.as_slice(), std::fs::read(&path).unwrap());
        assert_eq!(format!("{key:?}"), "Key(..)");
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, "precious").unwrap();
        assert!(matches!(Key::generate(&path), Err(Error::KeyExists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_missing_key_names_the_two_commands() {
        let text = Key::load(Path::new("/nowhere/key")).unwrap_err().to_string();
        assert!(text.contains("syncfs keygen --key-file /nowhere/key") && text.contains("scp -p"), "{text}");
    }

    #[test]
    fn a_key_others_can_read_is_refused_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        Key::generate(&path).unwrap();
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let text = Key::load(&path).unwrap_err().to_string();
        assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
    }

    #[test]
    fn a_file_of_another_size_is_not_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for size in [0, 31, 33, 4096] {
            write(&path, vec![1; size]).unwrap();
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Key::load(&path), Err(Error::NotAKey { .. })), "{size}");
        }
        assert!(matches!(Key::load(dir.path()), Err(Error::NotAKey { .. })));
    }
}
