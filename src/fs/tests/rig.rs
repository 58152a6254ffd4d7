//! A mount for one test, taken down whatever happens.

use super::passing::Passing;
use crate::fs::adapter::{Owner, Serving, Settings, serve};
use crate::fs::kernel::Kernel;
use crate::fs::mount::{MountOptions, detach_stale, mount, unmount};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Rig {
    pub volume: Arc<Passing>,
    pub kernel: Kernel,
    serving: Option<Serving>,
    _runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(true, MountOptions { source: "peer:".into(), allow_other: true, ..Default::default() })
    }

    pub fn with(passthrough: bool, options: MountOptions) -> Rig {
        assert!(rustix::process::geteuid().is_root(), "these tests mount, and need root");
        let dir = tempfile::tempdir().expect("makes a directory");
        for name in ["raw", "mnt"] {
            std::fs::create_dir(dir.path().join(name)).expect("makes a directory");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("starts");
        let volume = Arc::new(Passing::new(&dir.path().join("raw")));
        let kernel = Kernel::new();
        let connection = mount(&dir.path().join("mnt"), &options).expect("mounts");
        let settings = Settings {
            target: dir.path().join("mnt"),
            threads: 2,
            passthrough,
            replayer: None,
            owner: Owner::default(),
        };
        let serving = serve(volume.clone(), connection, runtime.handle().clone(), kernel.clone(), settings);
        Rig { volume, kernel, serving: Some(serving.expect("serves")), _runtime: runtime, dir }
    }

    /// A path in the mount.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("mnt").join(name)
    }

    /// The same file behind the mount's back.
    pub fn raw(&self, name: &str) -> PathBuf {
        self.dir.path().join("raw").join(name)
    }

    pub fn target(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    pub fn wait(&mut self) -> std::io::Result<()> {
        self.serving.take().expect("served").wait()
    }

    /// The end of a test that went well: everything closed, forgotten, and the mount gone.
    pub fn done(mut self) {
        soon("all is closed", || self.volume.left().0 == 0);
        unmount(&self.target(), false).expect("unmounts");
        self.wait().expect("ends well");
        assert!(!detach_stale(&self.target()).expect("looks"));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.serving.is_some() {
            let _ = unmount(&self.target(), true);
        }
    }
}

/// Waits for what comes shortly.
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Another process, doing nothing but system calls (this one has threads). Its answer is 0 to 255.
pub struct Child(i32);

impl Child {
    pub fn run(work: impl FnOnce() -> i32) -> Child {
        // SAFETY: the child allocates nothing, takes no lock and leaves by _exit.
        // It lets go of the connection, or a mount would outlive the tests.
        match unsafe { libc::fork() } {
            0 => unsafe {
                libc::close_range(3, libc::c_uint::MAX, 0);
                libc::_exit(work())
            },
            pid => Child(pid),
        }
    }

    pub fn kill(&self, signal: i32) {
        // SAFETY: a child of ours that nobody waited for.
        unsafe { libc::kill(self.0, signal) };
    }

    pub fn answer(self) -> i32 {
        let mut status = 0;
        // SAFETY: as above.
        unsafe { libc::waitpid(self.0, &mut status, 0) };
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
    }
}

pub fn c(path: &std::path::Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}
