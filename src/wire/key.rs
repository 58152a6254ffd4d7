//! The share's key: a file of 32 random bytes, the same on both hosts.
//!
//! Invariants: the bytes are never printed and are wiped from memory after use; a key that others on
//! this host can read is not used; an existing file is never overwritten, and there is never half a key.

use super::error::{Error, Result};
use super::system::random_number;
use hkdf::Hkdf;
use sha2::Sha256;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
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
        Key::random().map_err(|source| Error::KeyFile { path: path.into(), source })?.store(path)
    }

    /// Writes this key to `path`, as [`Key::generate`] does; after an error nothing new is there.
    ///
    /// # Errors
    /// The same.
    pub fn store(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::KeyFile { path: path.into(), source };
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Written aside and then linked: at `path` there is all of it or nothing, whatever dies in between.
        let aside = write_aside(parent, &self.0).map_err(failed)?;
        let linked = std::fs::hard_link(&aside, path);
        let removed = std::fs::remove_file(&aside);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::KeyExists { path: path.into() })
            }
            linked => linked.and(removed).and_then(|()| File::open(parent)?.sync_all()).map_err(failed),
        }
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

    /// A new key.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub fn random() -> io::Result<Key> {
        let mut key = Key([0; KEY_BYTES]);
        super::system::random(&mut key.0)?;
        Ok(key)
    }

    /// Another key, which follows from this one, differs by `label` and tells nothing of this one.
    pub(super) fn derive(&self, label: &[u8]) -> Key {
        let mut key = Key([0; KEY_BYTES]);
        Hkdf::<Sha256>::new(None, &self.0)
            .expand(label, &mut key.0)
            .expect("a few bytes are always to be had");
        key
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// Makes `bytes` durable in a new file of `dir`, which is made where it is missing, for the owner's eyes only.
fn write_aside(dir: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let path = dir.join(format!(".syncfs-key-{:016x}", random_number()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    match file.write_all(bytes).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(path),
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            Err(error)
        }
    }
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
        assert_eq!(dir.path().read_dir().unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn keys_that_follow_from_one_differ_by_their_label() {
        let key = Key::from_bytes([7; KEY_BYTES]);
        let [a, b, again] = ["a", "b", "a"].map(|label| key.derive(label.as_bytes()).0);
        assert!(a == again && a != b && a != key.0);
    }

    #[test]
    fn a_missing_key_names_the_two_commands() {
        let text = Key::load(Path::new("/nowhere/key")).unwrap_err().to_string();
        assert!(
            text.contains("syncfs keygen --key-file /nowhere/key") && text.contains("syncfs pair"),
            "{text}"
        );
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
