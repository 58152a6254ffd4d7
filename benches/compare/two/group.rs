//! A control group: processor time of programs and of all that they start, also of those that have ended.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Its last programs are just ending.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Group {
    dir: PathBuf,
}

impl Group {
    pub fn new() -> Group {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").expect("mounts");
        let root = mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
        });
        let name = format!("syncfs-bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let dir = root.expect("a cgroup2 file system is mounted").join(name);
        std::fs::create_dir(&dir).expect("a control group, which takes root");
        Group { dir }
    }

    /// What is put before a command so that it is counted.
    pub fn around(&self) -> Vec<String> {
        let members = self.dir.join("cgroup.procs").display().to_string();
        ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", &members].map(str::to_owned).into()
    }

    /// Spent so far, in the kernel too.
    pub fn seconds(&self) -> f64 {
        let text = std::fs::read_to_string(self.dir.join("cpu.stat")).expect("what was spent");
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        line.and_then(|number| number.parse::<f64>().ok()).expect("a number") / 1e6
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let begun = Instant::now();
        while std::fs::remove_dir(&self.dir).is_err() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
