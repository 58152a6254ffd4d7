//! The life of a mount: its end from outside, and what a killed daemon leaves.

use super::rig::{Rig, soon};
use crate::fs::mount::{MountError, MountOptions, detach_stale, is_mounted, mounts, unmount};
use std::fs;
use std::process::{Command, Stdio};

#[test]
fn an_unmount_from_outside_ends_it() {
    let mut rig = Rig::new();
    fs::write(rig.at("a"), "x").unwrap();
    assert!(Command::new("umount").arg(rig.target()).status().unwrap().success());
    rig.wait().unwrap();
    // Orders after the end come to nothing, and nobody waits for them.
    rig.kernel.inval_inode(2);
    rig.kernel.drain();
}

#[test]
fn a_lazy_unmount_ends_it_with_the_last_user() {
    let mut rig = Rig::new();
    fs::write(rig.at("a"), "x").unwrap();
    let open = fs::File::open(rig.at("a")).unwrap();
    let busy = unmount(&rig.target(), false);
    assert!(
        matches!(&busy, Err(MountError::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY)),
        "{busy:?}"
    );
    unmount(&rig.target(), true).unwrap();
    assert!(!is_mounted(&rig.target()).unwrap());
    drop(open);
    rig.wait().unwrap();
}

#[test]
fn a_mount_is_shown_with_its_source_and_options() {
    let options = MountOptions {
        source: r"a,allow_other b\:".into(),
        read_only: true,
        default_permissions: true,
        extra: vec!["noexec".into()],
        ..Default::default()
    };
    let rig = Rig::with(true, options);
    let mine = mounts().unwrap().into_iter().find(|mount| mount.target == rig.target()).expect("listed");
    assert_eq!(mine.source, r"a,allow_other b\:");
    let text = fs::read_to_string("/proc/mounts").unwrap();
    let line = text.lines().find(|line| line.contains(rig.target().to_str().unwrap())).unwrap();
    assert!(line.contains(" fuse.syncfs ro,nosuid,nodev,noexec,"), "{line}");
    assert!(line.contains(",default_permissions") && !line.ends_with(",allow_other 0 0"), "{line}");
    assert!(matches!(detach_stale(&rig.target()), Err(MountError::AlreadyMounted(_))));
    assert_eq!(fs::write(rig.at("a"), "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
    rig.done();
}

#[test]
fn a_dead_mount_is_detached() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("mnt");
    fs::create_dir(&target).unwrap();
    assert!(!detach_stale(&target).unwrap());
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fs::tests::daemon::as_another_process", "--ignored", "--nocapture"])
        .env("SYNCFS_TEST_TARGET", &target)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    soon("it is mounted", || is_mounted(&target).unwrap_or(false));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    soon("it is dead", || fs::metadata(&target).is_err());
    assert!(is_mounted(&target).unwrap());
    assert!(detach_stale(&target).unwrap());
    assert!(fs::metadata(&target).unwrap().is_dir());
    assert!(!detach_stale(&target).unwrap());
    assert!(detach_stale(&dir.path().join("nothing")).is_err());
}

/// Not a test: mounts and waits to be killed.
#[test]
#[ignore]
fn as_another_process() {
    let Some(target) = std::env::var_os("SYNCFS_TEST_TARGET") else { return };
    let options = MountOptions { source: "peer:".into(), ..Default::default() };
    let _connection = crate::fs::mount::mount(target.as_ref(), &options).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(30));
}
