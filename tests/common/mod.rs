//! Two hosts in one process, without mounts: the engine's `Volume` on both sides of a real link over
//! loopback. What a program would ask the kernel is asked of the volume.
#![allow(dead_code)]

mod ports;

use ports::free_port;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use syncfs::engine::{Host, Options};
use syncfs::fs::volume::{Answer, Caller, SetAttr, Volume, WriteMode};
use syncfs::wire::Key;
use tokio::runtime::Runtime;

pub const ME: Caller = Caller { uid: 0, gid: 0, thread: 0 };
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One host: a directory, and a daemon's worth of engine while it runs.
pub struct Side {
    pub dir: PathBuf,
    pub host: Option<Arc<Host>>,
    options: Options,
}

pub struct Pair {
    pub a: Side,
    pub b: Side,
    pub runtime: Runtime,
    _root: tempfile::TempDir,
}

impl Pair {
    /// Two hosts with directories of their own, not yet running.
    pub fn new() -> Pair {
        let filter = tracing_subscriber::EnvFilter::from_env("SYNCFS_LOG");
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_thread_names(true)
            .with_writer(std::io::stderr)
            .try_init();
        let root = tempfile::tempdir().unwrap();
        let key = root.path().join("key");
        Key::generate(&key).unwrap();
        let ports = [free_port(), free_port()];
        let side = |n: usize| {
            let dir = root.path().join(["a", "b"][n]);
            std::fs::create_dir(&dir).unwrap();
            let options = Options {
                store: dir.clone(),
                peer: format!("127.0.0.1:{}", ports[1 - n]),
                compress: true,
                bwlimit: None,
                listen: format!("127.0.0.1:{}", ports[n]).parse().unwrap(),
                key_file: key.clone(),
                read_timeout: Duration::from_secs(10),
                new_peer: false,
                first_sync: Default::default(),
                trash_days: 7,
                max_delete: None,
                adopt_deletes: false,
                direction: Default::default(),
                interval: None,
                cache_size: None,
                cache_min_free: Some(0),
                inline_bytes: syncfs::model::limits::INLINE_BYTES,
                mount: dir.clone(),
            };
            Side { dir, host: None, options }
        };
        let (a, b) = (side(0), side(1));
        Pair { a, b, runtime: Runtime::new().unwrap(), _root: root }
    }

    /// Two hosts, running and connected.
    pub fn started() -> Pair {
        let mut pair = Pair::new();
        pair.start_both();
        pair.flush();
        pair
    }

    pub fn start_both(&mut self) {
        self.a.start(&self.runtime);
        self.b.start(&self.runtime);
    }

    /// Waits until both sides are connected, level and durable.
    pub fn flush(&self) {
        for side in [&self.a, &self.b] {
            let host = side.host().clone();
            self.runtime.block_on(async move {
                let deadline = tokio::time::Instant::now() + PATIENCE;
                while let Err(error) = host.flush(PATIENCE).await {
                    let status = serde_json::to_string(&host.status()).unwrap();
                    assert!(tokio::time::Instant::now() < deadline, "{error}: {status}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
    }

    /// Both directories hold the same names and bytes; returns them.
    pub fn assert_equal(&self) -> Vec<(String, Vec<u8>)> {
        let (a, b) = (self.a.files(), self.b.files());
        let names = |files: &[(String, Vec<u8>)]| files.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&a), names(&b));
        for (x, y) in a.iter().zip(&b) {
            assert!(x.1 == y.1, "{} differs: {} and {} bytes", x.0, x.1.len(), y.1.len());
        }
        a
    }
}

impl Side {
    pub fn start(&mut self, runtime: &Runtime) {
        let host = Host::open(self.options.clone(), runtime.handle()).unwrap();
        host.connect().unwrap();
        self.host = Some(host);
    }

    pub fn stop(&mut self) {
        self.host.take().unwrap().close().unwrap();
    }

    pub fn host(&self) -> &Arc<Host> {
        self.host.as_ref().expect("running")
    }

    /// What lies in the directory, as a user would find it after unmounting.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        raw_files(&self.dir)
    }

    /// The names that programs see.
    pub fn names(&self) -> Vec<String> {
        let list = self.host().list();
        let mut names: Vec<_> = list.into_iter().map(|e| String::from_utf8(e.0).unwrap()).collect();
        names.sort();
        names
    }

    pub fn open(&self, name: &str, flags: i32) -> u64 {
        let host = self.host();
        if flags & libc::O_CREAT != 0 {
            return host.create(ME, name.as_bytes(), 0o644, flags).unwrap().1.handle;
        }
        let attr = host.lookup(name.as_bytes()).unwrap();
        host.open(ME, attr.ino, flags).unwrap().handle
    }

    pub fn close(&self, handle: u64) {
        Volume::flush(&**self.host(), handle, 0).unwrap();
        self.host().release(handle, None);
    }

    pub fn pwrite(&self, handle: u64, offset: u64, bytes: &[u8]) {
        assert_eq!(
            self.host().write(handle, offset, bytes, WriteMode::default()).unwrap() as usize,
            bytes.len()
        );
    }

    /// `echo > name`
    pub fn save(&self, name: &str, bytes: &[u8]) {
        let handle = self.open(name, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC);
        for (n, part) in bytes.chunks(1 << 20).enumerate() {
            self.pwrite(handle, (n as u64) << 20, part);
        }
        self.close(handle);
    }

    /// Writes into an existing file.
    pub fn patch(&self, name: &str, offset: u64, bytes: &[u8]) {
        let handle = self.open(name, libc::O_WRONLY);
        self.pwrite(handle, offset, bytes);
        self.close(handle);
    }

    pub fn truncate(&self, name: &str, size: u64) {
        let ino = self.host().lookup(name.as_bytes()).unwrap().ino;
        self.host().setattr(ME, ino, None, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
    }

    /// `cat name`, through the volume: fetches what is missing.
    pub fn read(&self, name: &str, runtime: &Runtime) -> Vec<u8> {
        let host = self.host();
        let size = host.lookup(name.as_bytes()).unwrap().size;
        let handle = self.open(name, libc::O_RDONLY);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let part = match host.read(handle, bytes.len() as u64, 1 << 17) {
                Answer::Now(part) => part,
                Answer::Later(part) => runtime.block_on(part),
            };
            let part = part.unwrap();
            assert!(!part.is_empty());
            bytes.extend(part);
        }
        self.close(handle);
        bytes
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in [&mut self.a, &mut self.b] {
            if let Some(host) = side.host.take() {
                let _ = host.close();
            }
        }
    }
}

/// Regular files of a directory, by name.
pub fn raw_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().unwrap().is_file())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Bytes that compress and repeat nowhere.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend(next());
    }
    bytes.truncate(len);
    bytes
}
