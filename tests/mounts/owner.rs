//! `--uid`, `--gid`: all files are shown as one user's, whoever they belong to.

use crate::rig::{Pair, errno};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

#[test]
fn files_are_shown_as_the_user_that_the_mount_names_and_stay_whose_they_are() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root gives files away");
    }
    let mut pair = Pair::new();
    // Whoever it is, they must get there.
    fs::set_permissions(pair.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    pair.b.option("--uid", Path::new("12345"));
    pair.b.option("--gid", Path::new("54321"));
    pair.a.start();
    pair.b.start();
    pair.a.save("letter", b"from a");
    pair.a.run(&["chmod", "600", "letter"]);
    pair.a.flush();
    let owner = |path: &Path| {
        let seen = fs::metadata(path).unwrap();
        (seen.uid(), seen.gid())
    };
    let there = pair.b.path("letter");
    assert_eq!((owner(&pair.a.path("letter")), owner(&there)), ((0, 0), (12345, 54321)));
    assert_eq!(pair.b.run(&["ls", "-ln"]).split_whitespace().nth(4), Some("12345"));

    // The kernel goes by what is shown.
    let as_them = ["setpriv", "--reuid=12345", "--regid=54321", "--clear-groups"];
    pair.b.run(&[&as_them[..], &["sh", "-c", "printf ', and b' >> letter"]].concat());
    pair.b.flush();
    assert_eq!(pair.a.read("letter"), b"from a, and b");
    assert_eq!(owner(&pair.a.path("letter")), (0, 0));

    chown(&there, Some(12345), Some(54321)).unwrap();
    assert_eq!(errno(chown(&there, Some(1), None)), libc::EPERM);
    assert_eq!(errno(chown(&there, None, Some(1))), libc::EPERM);
    pair.b.flush();
    assert_eq!(owner(&pair.a.path("letter")), (0, 0));
    // Another time, another user.
    pair.b.unmount();
    pair.b.option("--uid", Path::new("77"));
    pair.b.start();
    assert_eq!(owner(&there), (77, 54321));
    pair.finish();
}
