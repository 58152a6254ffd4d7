//! mount(8), /etc/fstab and umount(8), with `mount.syncfs` where they look for it.

use crate::machine::Machine;
use crate::rig::{Pair, free_ports};
use std::path::Path;
use std::process::Output;

/// A directory, and the options that mount it whatever else uses this machine.
struct Share {
    machine: Machine,
    pair: Pair,
    dir: String,
    options: String,
}

impl Share {
    fn new() -> Option<Share> {
        let (machine, pair) = (Machine::new()?, Pair::new());
        let (key, [port, _]) = (pair.root.path().join("key"), free_ports());
        let options = format!("key_file={},listen=127.0.0.1:{port}", key.display());
        Some(Share { machine, dir: pair.a.dir.to_str().unwrap().to_owned(), pair, options })
    }

    /// The words in the machine, and what they said.
    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.machine.run(words);
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    #[track_caller]
    fn done(&self, words: &[&str]) -> String {
        let (code, said) = self.run(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    }

    #[track_caller]
    fn refused(&self, words: &[&str]) -> String {
        let (code, said) = self.run(words);
        assert_ne!(code, Some(0), "{words:?}: {said}");
        said
    }

    fn mount(&self, more: &str) -> (Option<i32>, String) {
        self.run(&[
            "/usr/bin/mount",
            "-t",
            "syncfs",
            "localhost",
            &self.dir,
            "-o",
            &format!("{}{more}", self.options),
        ])
    }

    fn line(&self) -> Option<String> {
        self.machine.mount_line(&self.pair.a.dir)
    }

    /// umount(8), and the end of the daemon.
    #[track_caller]
    fn umount(&self) {
        self.done(&["/usr/bin/umount", &self.dir]);
        assert_eq!(self.line(), None);
        self.machine.rests();
    }
}

#[test]
fn mount_mounts_and_umount_unmounts() {
    let Some(share) = Share::new() else { return };
    std::fs::write(share.pair.a.path("before"), "before").unwrap();
    assert_eq!(share.mount(",cache_size=10G").0, Some(0));
    let line = share.line().unwrap();
    assert!(line.contains(" - fuse.syncfs localhost "), "{line}");
    let status = share.done(&["/usr/bin/syncfs", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["cache"]["limit"], 10u64 << 30);
    std::fs::write(share.machine.path(&share.dir).join("f"), "content").unwrap();
    share.umount();
    // The raw directory is the same on both sides of the namespace.
    assert_eq!((share.pair.a.read("f"), share.pair.a.read("before")), (b"content".into(), b"before".into()));
}

#[test]
fn a_line_in_fstab_mounts_with_all_that_such_lines_carry() {
    let Some(share) = Share::new() else { return };
    let (dir, options) = (&share.dir, &share.options);
    let line = |more: &str| format!("localhost {dir} syncfs {options},{more} 0 0\n");
    share.machine.write("/etc/fstab", &line("noauto,ro,noexec,_netdev"));
    share.done(&["/usr/bin/mount", "-a"]);
    assert_eq!(share.line(), None, "noauto");
    share.done(&["/usr/bin/mount", dir]);
    let mounted = share.line().unwrap();
    assert!(mounted.contains("ro,") && mounted.contains("noexec"), "{mounted}");
    share.umount();
    let all = "defaults,nofail,_netdev,user,exec,x-systemd.automount,x-systemd.idle-timeout=60,x-nobody.knows=1,comment=none";
    share.machine.write("/etc/other", &line(all));
    share.done(&["/usr/bin/mount", "-T", "/etc/other", "-a"]);
    let mounted = share.line().unwrap();
    assert!(mounted.contains(" rw,") && !mounted.contains("noexec"), "{mounted}");
    // Again: what is mounted is left alone.
    share.done(&["/usr/bin/mount", "-T", "/etc/other", "-a"]);
    share.umount();
}

#[test]
fn a_mount_is_not_changed_while_it_is_there() {
    let Some(share) = Share::new() else { return };
    assert_eq!(share.mount("").0, Some(0));
    let before = share.line();
    let told = "unmount it, and mount it again";
    // From the kernel's table, from fstab, and with all that is needed.
    let said = share.refused(&["/usr/bin/mount", "-o", "remount,ro", &share.dir]);
    assert!(said.contains(told), "{said}");
    share.machine.write("/etc/fstab", &format!("localhost {} syncfs {} 0 0\n", share.dir, share.options));
    let said = share.refused(&["/usr/bin/mount", "-o", "remount,ro", &share.dir]);
    assert!(said.contains(told), "{said}");
    let (code, said) = share.mount(",remount");
    assert!(code != Some(0) && said.contains(told), "{said}");
    assert_eq!(share.line(), before);
    share.umount();
}

#[test]
fn what_is_not_known_is_refused_unless_mount_is_to_be_sloppy() {
    let Some(share) = Share::new() else { return };
    let (code, said) = share.mount(",compress=1");
    assert!(code != Some(0) && said.contains("mount option 'compress' is not known"), "{said}");
    let (code, said) = share.mount(",cache_size=much");
    assert!(code != Some(0) && said.contains("not a size"), "{said}");
    assert_eq!(share.line(), None);
    let options = format!("{},compress=1", share.options);
    let said = share.done(&["/usr/bin/mount", "-s", "-t", "syncfs", "localhost", &share.dir, "-o", &options]);
    assert!(said.contains("'compress' is not known"), "{said}");
    assert!(share.line().is_some());
    share.umount();
}

#[test]
fn mount_may_pretend_talk_and_keep_no_list() {
    let Some(share) = Share::new() else { return };
    let words = |flags: &'static str| {
        let options = share.options.clone();
        ["/usr/bin/mount", flags, "-t", "syncfs", "localhost"].map(str::to_owned).into_iter().chain([
            share.dir.clone(),
            "-o".to_owned(),
            options,
        ])
    };
    let run = |flags| {
        let words: Vec<String> = words(flags).collect();
        share.done(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    run("-fv");
    assert_eq!(share.line(), None);
    let said = run("-nv");
    assert!(said.contains("/usr/bin/syncfs") && said.contains("--peer=localhost"), "{said}");
    assert!(share.line().is_some());
    share.umount();
}

#[test]
fn a_directory_without_a_slash_is_no_config_for_mount() {
    let Some(share) = Share::new() else { return };
    share.machine.configure("here", &share.pair.a);
    std::fs::create_dir(share.machine.path("/run/here")).unwrap();
    let options = format!("cd /run && exec /usr/sbin/mount.syncfs localhost here -o {}", share.options);
    share.done(&["/bin/sh", "-c", &options]);
    assert!(share.machine.mounted(Path::new("/run/here")));
    share.done(&["/usr/bin/umount", "/run/here"]);
    share.machine.rests();
}
