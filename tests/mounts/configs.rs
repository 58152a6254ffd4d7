//! A name that stands for a directory and for what its mount is told.

use crate::machine::Machine;
use crate::rig::Pair;
use std::process::Output;

/// `syncfs` with these words, in the machine.
fn syncfs(machine: &Machine, words: &[&str]) -> Output {
    machine.run([&["/usr/bin/syncfs"], words].concat())
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

#[test]
fn a_name_does_wherever_a_directory_does() {
    let Some(machine) = Machine::new() else { return };
    let pair = Pair::new();
    machine.configure("shared", &pair.a);
    said(&syncfs(&machine, &["mount", "shared"]), 0);
    assert!(machine.mounted(&pair.a.dir));
    let status = said(&syncfs(&machine, &["status", "shared", "--json"]), 0);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["mount"], pair.a.dir.to_str().unwrap());
    assert!(said(&syncfs(&machine, &["flush", "shared"]), 5).contains("the peer is not there"));
    assert!(said(&syncfs(&machine, &["mount", "shared"]), 1).contains("is mounted already"));
    // Somebody edits it meanwhile, and not well: what is mounted is found all the same.
    let path = machine.path("/etc/syncfs/shared.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}pear = 'x'\n")).unwrap();
    said(&syncfs(&machine, &["unmount", "shared"]), 0);
    assert!(!machine.mounted(&pair.a.dir));
    let line = text.lines().count() + 1;
    let refused = said(&syncfs(&machine, &["mount", "shared"]), 2);
    assert!(refused.contains(&format!("/etc/syncfs/shared.toml:{line}: pear is not known")), "{refused}");
    assert!(!machine.mounted(&pair.a.dir));
}

#[test]
fn a_directory_of_the_same_name_is_meant_with_a_slash_only() {
    let Some(machine) = Machine::new() else { return };
    let pair = Pair::new();
    machine.configure("shared", &pair.a);
    std::fs::create_dir(machine.path("/run/shared")).unwrap();
    let there = |words: &str| machine.run(["/bin/sh", "-c", &format!("cd /run && /usr/bin/syncfs {words}")]);
    assert!(said(&there("mount ./shared"), 2).contains("--peer"));
    // What is said counts more than what the config says.
    said(&there("mount shared --read-timeout 7 -o ro"), 0);
    assert!(machine.mount_line(&pair.a.dir).unwrap().contains(" ro,"));
    assert!(said(&there("status ./shared"), 1).contains("/run/shared is not mounted"));
    said(&there("unmount shared"), 0);
    let neither = said(&there("mount other --peer b"), 1);
    assert!(neither.contains("there is no directory other"), "{neither}");
    assert!(neither.contains("nor a config /etc/syncfs/other.toml"), "{neither}");
}

#[test]
fn a_doctor_finds_what_is_missing_and_whose_a_port_is() {
    let Some(machine) = Machine::new() else { return };
    let pair = Pair::new();
    machine.configure("shared", &pair.a);
    let line = |told: &str, what: &str| {
        let line = told.lines().find(|line| line.split_whitespace().nth(1) == Some(what));
        line.unwrap_or_else(|| panic!("{what}: {told}")).to_owned()
    };
    let told = said(&syncfs(&machine, &["doctor", "shared"]), 0);
    for what in ["device", "fusermount3", "allow_other", "passthrough", "clock", "TCP", "port", "key"] {
        line(&told, what);
    }
    assert!(line(&told, "port").contains("is free"), "{told}");
    said(&syncfs(&machine, &["mount", "shared"]), 0);
    let told = said(&syncfs(&machine, &["doctor", "shared"]), 0);
    let here = format!("is where {} waits for its peer", pair.a.dir.display());
    assert!(line(&told, "port").contains(&here), "{told}");
    said(&syncfs(&machine, &["unmount", "shared"]), 0);
    // Somebody else's port, and a key that is gone.
    let path = machine.path("/etc/syncfs/shared.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let listen = config.lines().find_map(|line| line.strip_prefix("listen = ")).unwrap();
    let _taken = std::net::TcpListener::bind(listen.trim_matches('\'')).unwrap();
    std::fs::remove_file(pair.root.path().join("key")).unwrap();
    let told = said(&syncfs(&machine, &["doctor", "shared"]), 1);
    assert!(
        line(&told, "port").starts_with("problem") && line(&told, "key").starts_with("problem"),
        "{told}"
    );
    assert!(said(&syncfs(&machine, &["doctor", "other"]), 1).contains("no config /etc/syncfs/other.toml"));
}

#[test]
fn a_check_says_what_a_config_means_or_all_that_is_wrong_with_it() {
    let Some(machine) = Machine::new() else { return };
    let pair = Pair::new();
    let (dir, key) = (pair.a.dir.display(), pair.root.path().join("key"));
    let check = |text: &str, code: i32| {
        machine.write("/etc/syncfs/shared.toml", text);
        said(&syncfs(&machine, &["config", "check", "shared"]), code)
    };
    let well = format!(
        "dir = '{dir}'\npeer = 'hostb'\ncache_size = '10G'\nkey_file = '{}'\nro = true\n",
        key.display()
    );
    let told = check(&well, 0);
    let line = format!("syncfs mount {dir} --peer=hostb --cache-size=10G --key-file={} -oro", key.display());
    assert!(told.contains("/etc/syncfs/shared.toml: all well") && told.contains(&line), "{told}");
    let told = check("dir = '/nowhere'\nfirst_sync = 'local'\ndirection = 'receive'\n", 2);
    for wrong in ["no directory /nowhere", "--peer HOST", "/etc/syncfs/key", "contradict each other"] {
        assert!(told.contains(wrong), "{wrong}: {told}");
    }
    std::fs::copy(&key, machine.path("/etc/syncfs/key")).unwrap();
    std::fs::set_permissions(
        machine.path("/etc/syncfs/key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    let exposed = check(&format!("dir = '{dir}'\npeer = 'hostb'\n"), 1);
    assert!(exposed.contains("chmod 600 /etc/syncfs/key"), "{exposed}");
    check("dir = '/nowhere'\nnew_peer = 1\n", 2);
    // By its path, and all at once.
    machine.write("/run/well.toml", &well);
    assert!(said(&syncfs(&machine, &["config", "check", "/run/well.toml"]), 0).contains("all well"));
    machine.write("/etc/syncfs/well.toml", &well);
    let both = said(&syncfs(&machine, &["config", "check"]), 2);
    assert!(both.contains("well.toml: all well") && both.contains("shared.toml:2: new_peer"), "{both}");
}
