//! `syncfs pair`, as it is typed on two hosts, and what is on their disks afterwards.

use crate::rig::{Pair, Program, SYNCFS, free_ports, try_run};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

struct Hosts {
    root: tempfile::TempDir,
    port: u16,
}

/// A host that shows a code.
struct Showing {
    program: Program,
    code: String,
}

impl Hosts {
    fn new() -> Hosts {
        Hosts { root: tempfile::tempdir().unwrap(), port: free_ports()[0] }
    }

    fn key(&self, host: &str) -> PathBuf {
        self.root.path().join(host).join("key")
    }

    fn show(&self, host: &str) -> Showing {
        let (key, listen) = (self.key(host), format!("127.0.0.1:{}", self.port));
        let words = [SYNCFS, "pair", "--listen", &listen, "--key-file", key.to_str().unwrap()];
        let program = Program::start(self.root.path(), &words);
        let (told, typed) = (program.line(), program.line());
        let code = typed.rsplit(' ').next().unwrap().to_owned();
        assert!(told.contains(&code) && typed.contains(&format!(":{} {code}", self.port)), "{told}\n{typed}");
        Showing { program, code }
    }

    /// What was typed and how it ended.
    fn take(&self, host: &str, code: &str) -> (Option<i32>, String) {
        let (key, peer) = (self.key(host), format!("127.0.0.1:{}", self.port));
        let words = [SYNCFS, "pair", &peer, code, "--key-file", key.to_str().unwrap()];
        let output = try_run(self.root.path(), &words);
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    #[track_caller]
    fn is_paired(&self) {
        let [a, b] = ["a", "b"].map(|host| std::fs::read(self.key(host)).unwrap());
        assert_eq!((a.len(), &a), (32, &b));
        for host in ["a", "b"] {
            assert_eq!(self.key(host).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    /// There is nothing, not even the directory.
    fn has_nothing(&self, host: &str) -> bool {
        !self.key(host).parent().unwrap().exists()
    }
}

impl Showing {
    fn ends(&mut self) -> Option<i32> {
        self.program.ended().expect("it ends").code()
    }
}

#[test]
fn a_code_gives_two_hosts_one_key_with_which_they_mount() {
    let hosts = Hosts::new();
    let mut showing = hosts.show("a");
    let (code, said) = hosts.take("b", &showing.code);
    assert_eq!((code, showing.ends()), (Some(0), Some(0)), "{said}");
    assert!(said.contains("syncfs mount DIR --peer 127.0.0.1"), "{said}");
    hosts.is_paired();
    let mut pair = Pair::new();
    pair.a.option("--key-file", &hosts.key("a"));
    pair.b.option("--key-file", &hosts.key("b"));
    pair.a.start();
    pair.b.start();
    pair.a.save("f", b"content");
    pair.finish();
}

#[test]
fn a_key_that_is_there_is_handed_on_and_never_written_over() {
    let hosts = Hosts::new();
    for host in ["a", "c"] {
        let key = hosts.key(host);
        assert!(
            try_run(Path::new("/"), &[SYNCFS, "keygen", "--key-file", key.to_str().unwrap()])
                .status
                .success()
        );
    }
    let (before, other) = (std::fs::read(hosts.key("a")).unwrap(), std::fs::read(hosts.key("c")).unwrap());
    let mut showing = hosts.show("a");
    // Refused before anything is said to the other host, so it costs none of its three tries.
    for _ in 0..4 {
        let (code, said) = hosts.take("c", &showing.code);
        assert_eq!(code, Some(1));
        assert!(said.contains("has a key already") && said.contains("never overwritten"), "{said}");
    }
    assert_eq!(hosts.take("b", &showing.code.replace('-', "")).0, Some(0));
    assert_eq!(showing.ends(), Some(0));
    hosts.is_paired();
    assert_eq!(std::fs::read(hosts.key("a")).unwrap(), before);
    assert_eq!(std::fs::read(hosts.key("c")).unwrap(), other);
}

#[test]
fn three_wrong_codes_end_it_and_nothing_has_changed() {
    let hosts = Hosts::new();
    let mut showing = hosts.show("a");
    let wrong = if showing.code.starts_with('0') { "1000-0000" } else { "0000-0000" };
    for _ in 0..3 {
        let (code, said) = hosts.take("b", wrong);
        assert_eq!(code, Some(1));
        assert!(said.contains("that is not the code") && said.contains("Nothing has changed"), "{said}");
    }
    assert_eq!(showing.ends(), Some(1));
    let (code, said) = hosts.take("b", &showing.code);
    assert_eq!(code, Some(5), "{said}");
    assert!(hosts.has_nothing("a") && hosts.has_nothing("b"));
    assert_eq!(hosts.take("b", "1234").0, Some(2));
}

#[test]
fn ctrl_c_ends_it_and_nothing_has_changed() {
    let hosts = Hosts::new();
    let mut showing = hosts.show("a");
    showing.program.signal(Signal::INT);
    assert_eq!(showing.ends(), Some(1));
    assert!(hosts.has_nothing("a"));
}

#[test]
fn where_the_other_host_can_not_keep_the_key_both_say_so_and_pairing_again_mends_it() {
    let hosts = Hosts::new();
    let mut showing = hosts.show("a");
    // A file where its directory should be.
    std::fs::write(hosts.root.path().join("b"), "").unwrap();
    let (code, said) = hosts.take("b", &showing.code);
    assert_eq!((code, showing.ends()), (Some(1), Some(1)), "{said}");
    assert!(said.contains("can't use the key file"), "{said}");
    std::fs::remove_file(hosts.root.path().join("b")).unwrap();
    let first = std::fs::read(hosts.key("a")).unwrap();
    let mut showing = hosts.show("a");
    assert_eq!((hosts.take("b", &showing.code).0, showing.ends()), (Some(0), Some(0)));
    hosts.is_paired();
    assert_eq!(std::fs::read(hosts.key("b")).unwrap(), first);
}

#[test]
fn a_share_that_waits_at_the_port_is_named_and_so_is_the_way_out() {
    let pair = Pair::mounted();
    let listen = pair.a.status()["listen"].as_str().unwrap().to_owned();
    let key = pair.root.path().join("key");
    let words = [SYNCFS, "pair", "--listen", &listen, "--key-file", key.to_str().unwrap()];
    let output = try_run(Path::new("/"), &words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(pair.a.dir.to_str().unwrap()) && said.contains("syncfs pair --listen"), "{said}");
    // And who dials a share is told that it shows no code.
    let mine = pair.root.path().join("mine");
    let words = [SYNCFS, "pair", &listen, "1234-5678", "--key-file", mine.to_str().unwrap()];
    let output = try_run(Path::new("/"), &words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("shows no code") && !mine.exists(), "{said}");
    pair.finish();
}
