//! An ordinary user's mount: the kernel lets no file be read past its daemon, and keeps what was read.

use super::reads;
use crate::figure::{Contender, Figure, Goal, Unit, rounds};
use crate::ground::Ground;
use crate::hosts;
use crate::options::Options;
use crate::rig::{mounted, run};
use rustix::mount::UnmountFlags;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use std::path::{Path, PathBuf};

/// Nobody in particular.
const USER: u32 = 65_534;
const DEVICE: &str = "/dev/fuse";
const NAME: &str = "read-user";

pub fn measure(options: &Options) -> Vec<Figure> {
    if !options.wants(NAME) {
        return Vec::new();
    }
    let goal = Goal::Against("native".into(), 0.8);
    let figure =
        Figure::new(NAME, "sequential read, warm, an ordinary user's mount", Unit::Throughput, [goal]);
    vec![figure.measured(|figure| compare(figure, options))]
}

fn compare(figure: &mut Figure, options: &Options) {
    let size = options.size(512, 128) << 20;
    let grounds = [(); 2].map(|()| Ground::new(4 << 30));
    grounds.iter().for_each(|ground| reads::make(&ground.dir.join("large"), size));
    let nobody = tempfile::tempdir_in(grounds[0].path()).expect("a directory");
    let _device = Device::open_to_all(&grounds[0].path().join("fuse"));
    let mut pair = hosts::apart([&grounds[1].dir, nobody.path()]);
    let (user, root) = (USER.to_string(), pair.root.path().display().to_string());
    let dir = grounds[1].dir.display().to_string();
    run(Path::new("/"), &["chown", "-R", &format!("{user}:{user}"), &root, &dir]);
    let home = [format!("HOME={root}"), format!("XDG_RUNTIME_DIR={root}")];
    let identity = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
    let around = ["env"].into_iter().chain(home.iter().map(String::as_str)).chain(identity);
    pair.a.around = around.map(Into::into).collect();
    pair.a.start();
    let read = |dir: PathBuf| Box::new(move || as_user(|| reads::warm(&dir.join("large"))));
    let mut contenders: [Contender; 2] =
        [("native", read(grounds[0].dir.clone())), ("syncfs", read(pair.a.dir.clone()))];
    // The first reading is not counted: it fills the cache.
    rounds(1, &mut contenders);
    figure.rounds = rounds(5, &mut contenders);
}

/// Nobody but who mounted it may look into the mount, not even root.
fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
            set_thread_res_gid(gid, gid, gid).expect("root may");
            set_thread_res_uid(uid, uid, uid).expect("root may");
            work()
        });
        worker.join().expect("the work of the user")
    })
}

/// A device that lets everybody mount, as udev makes it, where this machine has another.
struct Device;

impl Device {
    fn open_to_all(other: &Path) -> Device {
        let other = other.to_str().expect("plain");
        run(Path::new("/"), &["mknod", "-m", "666", other, "c", "10", "229"]);
        // Only where this process is.
        run(Path::new("/"), &["mount", "--bind", other, DEVICE]);
        Device
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        while mounted(Path::new(DEVICE)) && rustix::mount::unmount(DEVICE, UnmountFlags::DETACH).is_ok() {}
    }
}
