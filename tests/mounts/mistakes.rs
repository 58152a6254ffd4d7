//! What somebody finds who does it wrong: each line of the table in docs/operations.md is done, and prints what stands there.

use crate::machine::Machine;
use crate::rig::free_ports;
use std::collections::BTreeSet;
use std::process::Output;

const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// A key and an empty directory, as somebody has them who does it right; $A and $B are free ports, `seen` waits for a word in
/// a status.
const BEGIN: &str = r#"
seen() { for _ in $(seq 1200); do syncfs status /mnt/shared | grep -q "$1" && return; sleep .05; done; }
other="syncfs mount /mnt/other --listen 127.0.0.1:$B --peer 127.0.0.1:$A"
shared="syncfs mount /mnt/shared --listen 127.0.0.1:$A --peer 127.0.0.1:$B"
rm -rf /etc/syncfs/* /mnt/*
mkdir /mnt/shared /mnt/other /mnt/store
syncfs keygen >/dev/null
exec 2>&1
"#;

const END: &str = r#"
code=$?
cd /
for dir in /mnt/shared /mnt/other; do
    while mountpoint -q $dir; do syncfs unmount $dir || sleep .1; done
done
exit $code
"#;

/// How each is made; what the last command says and how it ends is what counts.
const MISTAKES: &[(&str, &str)] = &[
    ("no key", "rm /etc/syncfs/key; syncfs mount /mnt/shared --peer hostB"),
    ("a key that others can read", "chmod 644 /etc/syncfs/key; syncfs mount /mnt/shared --peer hostB"),
    ("another file for a key", "echo no key >/etc/syncfs/key; syncfs mount /mnt/shared --peer hostB"),
    ("a key made twice", "syncfs keygen"),
    (
        "a key of its own on each host",
        "syncfs keygen --key-file /mnt/key >/dev/null; $shared; $other --key-file /mnt/key; seen 'does not hold'; \
         syncfs status /mnt/shared",
    ),
    ("no such directory", "rmdir /mnt/shared; syncfs mount /mnt/shared --peer hostB"),
    ("a file in its place", "rmdir /mnt/shared; touch /mnt/shared; syncfs mount /mnt/shared --peer hostB"),
    ("a directory with files in it", "touch /mnt/shared/f; $shared"),
    ("no peer named", "syncfs mount /mnt/shared"),
    ("a peer that can't be one", "syncfs mount /mnt/shared --peer hostB:port"),
    (
        "a peer that is not there, or behind a firewall",
        "$shared; seen 'not connected: '; syncfs status /mnt/shared; syncfs flush /mnt/shared",
    ),
    (
        "a name that nobody knows",
        "syncfs mount /mnt/shared --listen 127.0.0.1:$A --peer hostB.invalid; seen 'not connected: '; \
         syncfs status /mnt/shared",
    ),
    (
        "the peer is this host",
        "syncfs mount /mnt/shared --listen 127.0.0.1:$A --peer 127.0.0.1:$A; seen itself; syncfs status /mnt/shared",
    ),
    ("an option misspelt", "syncfs mount /mnt/shared -o peer=hostB,cachesize=1G"),
    (
        "a line of a config misspelt",
        "printf '# mine\\ndir = \"/mnt/shared\"\\npear = \"hostB\"\\n' >/etc/syncfs/shared.toml; syncfs mount shared",
    ),
    ("an address without a port", "syncfs mount /mnt/shared --peer hostB --http 7380"),
    ("a cache that is too small", "syncfs mount /mnt/shared --peer hostB --cache-size 1M"),
    (
        "a cache on both hosts",
        "$shared --cache-size 9M; $other --cache-size 9M; seen 'both hosts'; syncfs status /mnt/shared",
    ),
    ("mounted already", "$shared; $shared"),
    ("two mounts of one store", "$shared --store /mnt/store; $other --store /mnt/store"),
    (
        "the port is taken, as by a second share",
        "$shared; syncfs mount /mnt/other --listen 127.0.0.1:$A --peer hostB",
    ),
    (
        "the page's port is taken",
        "$other --http 127.0.0.1:$A; syncfs mount /mnt/shared --peer hostB --listen 127.0.0.1:0 --http 127.0.0.1:$A",
    ),
    ("the page for other hosts", "syncfs mount /mnt/shared --peer hostB --http 0.0.0.0:7380"),
    (
        "no /dev/fuse",
        "unshare --mount sh -c 'mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; $0 --listen 127.0.0.1:0' \
         'syncfs mount /mnt/shared --peer hostB'",
    ),
    ("unmounting what is in use", "$shared; cd /mnt/shared; syncfs unmount /mnt/shared"),
    ("not mounted", "syncfs status /mnt/shared"),
    ("nothing is mounted", "syncfs status"),
];

/// What `syncfs status` says of itself where it is tested, for nobody turns a clock here.
const ELSEWHERE: &str = "the clock is off";

/// A line of the table.
struct Row {
    mistake: &'static str,
    says: Vec<&'static str>,
    code: i32,
}

fn rows() -> Vec<Row> {
    let table =
        OPERATIONS.split("\n### Mistakes\n").nth(1).expect("a section").split("\n### ").next().unwrap();
    let lines = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            // The name of a command is no more than that.
            let says = cells[1].split('`').skip(1).step_by(2).filter(|text| text.contains(' ')).collect();
            let code = cells[2].rsplit(' ').next().unwrap().parse().expect("a code");
            Row { mistake: cells[0], says, code }
        })
        .collect()
}

#[test]
fn every_mistake_of_the_table_says_what_stands_there() {
    let Some(machine) = Machine::new() else { return };
    assert!(machine.run(["/usr/bin/mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status.success());
    let mut wrong = Vec::new();
    for Row { mistake, says, code } in rows().into_iter().filter(|row| row.mistake != ELSEWHERE) {
        let (_, done) = MISTAKES.iter().find(|(name, _)| *name == mistake).expect(mistake);
        let [a, b] = free_ports().map(|port| port.to_string());
        let mut command = machine.command(["/bin/sh", "-c", &format!("{BEGIN}{done}{END}")]);
        command.env("PATH", "/usr/bin:/usr/sbin:/bin").env("A", &a).env("B", &b);
        let Output { status, stdout, .. } = command.output().unwrap();
        let said = String::from_utf8(stdout).unwrap();
        // As it is read, however it is set.
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "");
        let missing: Vec<_> =
            says.iter().map(|text| text.replace("7377", &a)).filter(|text| !words.contains(text)).collect();
        if !missing.is_empty() || status.code() != Some(code) {
            wrong.push(format!(
                "{mistake}: {:?} instead of {code}, without {missing:?}:\n{said}",
                status.code()
            ));
        }
        machine.rests();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_mistakes_has_each_that_is_tried() {
    let told: BTreeSet<&str> = rows().iter().map(|row| row.mistake).collect();
    let tried: BTreeSet<&str> = MISTAKES.iter().map(|(name, _)| *name).chain([ELSEWHERE]).collect();
    assert_eq!(told, tried);
}
