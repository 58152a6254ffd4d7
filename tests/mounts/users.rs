//! Who is not root: what fusermount3 lets an ordinary user mount, who may look there, and what users find in a mount of
//! root's.

use crate::machine::Machine;
use crate::rig::free_ports;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Output;

const ANNA: u32 = 4711;
const BERT: u32 = 4712;

/// Two users with homes in /run, and a device that lets them mount, as udev makes it.
const SETTLE: &str = r#"
set -e
for user in anna:4711 bert:4712; do
    name=${user%:*} id=${user#*:}
    echo "$name:x:$id:$id::/run/$name:/bin/sh" >>/etc/passwd
    mkdir -p /run/$name/run
    chmod 700 /run/$name/run
    chown -R $id:$id /run/$name
done
: >/etc/fuse.conf
[ "$(stat -c %a /dev/fuse)" = 666 ] && exit
mknod -m 666 /run/fuse c 10 229
mount --bind /run/fuse /dev/fuse
"#;

struct Users {
    machine: Machine,
    /// Options of two mounts that are each other's peers.
    options: [String; 2],
}

impl Users {
    fn new() -> Option<Users> {
        let machine = Machine::new()?;
        let settled = machine.run(["/bin/sh", "-c", SETTLE]);
        assert!(settled.status.success(), "{settled:?}");
        let [a, b] = free_ports();
        let options = [(a, b), (b, a)].map(|(listen, peer)| {
            format!("--listen 127.0.0.1:{listen} --peer 127.0.0.1:{peer} --key-file ~/key")
        });
        Some(Users { machine, options })
    }

    /// What a line of shell says to this user, and how it ends.
    fn run(&self, user: u32, line: &str) -> (Option<i32>, String) {
        let id = user.to_string();
        let mut words =
            vec!["/usr/bin/setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "/bin/sh", "-c"];
        if user == 0 {
            words.drain(..6);
        }
        let home = if user == ANNA { "/run/anna" } else { "/run/bert" };
        let mut command = self.machine.command(words.into_iter().chain([line]));
        command.env("PATH", "/usr/bin:/usr/sbin:/bin").env("HOME", home);
        command.env("XDG_RUNTIME_DIR", format!("{home}/run"));
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    #[track_caller]
    fn done(&self, user: u32, line: &str) -> String {
        let (code, said) = self.run(user, line);
        assert_eq!(code, Some(0), "{line}: {said}");
        said
    }

    #[track_caller]
    fn refused(&self, user: u32, line: &str) -> String {
        let (code, said) = self.run(user, line);
        assert_ne!(code, Some(0), "{line}: {said}");
        said
    }

    /// `syncfs mount` of the first or the second of the two.
    fn mount(&self, which: usize, dir: &str, more: &str) -> String {
        format!("syncfs mount {dir} {} {more}", self.options[which])
    }
}

#[test]
fn an_ordinary_user_has_a_share_that_nobody_else_sees() {
    let Some(users) = Users::new() else { return };
    users.done(ANNA, "syncfs keygen --key-file ~/key && mkdir ~/a ~/b");
    users.done(ANNA, &users.mount(0, "~/a", ""));
    users.done(ANNA, &users.mount(1, "~/b", ""));
    let flush = "until syncfs flush ~/a 2>/dev/null; do sleep .1; done";
    assert!(users.done(ANNA, &format!("echo mine >~/a/f; {flush}; cat ~/b/f")).ends_with("mine\n"));
    for other in [BERT, 0] {
        assert!(users.refused(other, "cat /run/anna/a/f").contains("Permission denied"));
        let said = users.refused(other, "syncfs status /run/anna/a");
        assert!(said.contains("another user's answers to that user alone"), "{said}");
        let said = users.refused(other, "syncfs status");
        assert!(said.contains("dead, or another user's:\n") && said.contains("\n  /run/anna/a\n"), "{said}");
    }
    users.refused(BERT, "syncfs unmount /run/anna/a");
    assert!(users.done(ANNA, "syncfs status ~/a").starts_with("state      level"));
    users.done(ANNA, "syncfs unmount ~/a && syncfs unmount ~/b");
    let file = users.machine.path("/run/anna/b/f").metadata().unwrap();
    assert_eq!((file.uid(), file.gid()), (ANNA, ANNA));
    assert!(users.done(ANNA, "ls ~/.local/state/syncfs").contains("run-anna-a.log"));
    users.machine.rests();
}

#[test]
fn much_that_nobody_watches_is_not_shown() {
    const FILES: usize = 2000;
    if std::fs::metadata("/proc/self/ns/pid").unwrap().ino() != 0xEFFF_FFFC {
        eprintln!("not tested: in a PID namespace of its own a daemon can't know who watches");
        return;
    }
    let Some(users) = Users::new() else { return };
    users.done(ANNA, "syncfs keygen --key-file ~/key && mkdir ~/a ~/b");
    users.done(ANNA, &users.mount(0, "~/a", ""));
    users.done(ANNA, &users.mount(1, "~/b", ""));
    users.done(ANNA, "until syncfs flush ~/a 2>/dev/null; do sleep .1; done");
    let before = switches_of_replayers(&users.machine);
    users.done(
        ANNA,
        &format!("cd ~/a; i=0; while [ $i -lt {FILES} ]; do echo $i >$i; i=$((i+1)); done; syncfs flush ."),
    );
    let taken = switches_of_replayers(&users.machine) - before;
    // To show a file takes two system calls that wait for the daemon and an order, at the very least.
    assert!(taken < 3 * FILES, "{taken} times the replayers waited");
    assert_eq!(users.done(ANNA, "ls ~/b | wc -l").trim(), FILES.to_string());
    users.done(ANNA, "syncfs unmount ~/a && syncfs unmount ~/b");
    users.machine.rests();
}

/// How often the processes that show programs what the peer does have waited.
fn switches_of_replayers(machine: &Machine) -> usize {
    let is_replayer = |process: &PathBuf| {
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        words.ends_with(b"syncfs\0replay\0") && machine.has(process)
    };
    let all = std::fs::read_dir("/proc").unwrap().map(|process| process.unwrap().path());
    let all: Vec<PathBuf> = all.filter(is_replayer).collect();
    assert_eq!(all.len(), 2, "one for each mount");
    let waited = |process: &PathBuf| {
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        count.trim().parse::<usize>().unwrap()
    };
    all.iter().map(waited).sum()
}

#[test]
fn others_are_let_into_a_users_share_where_root_allows_it() {
    let Some(users) = Users::new() else { return };
    users.done(
        ANNA,
        "syncfs keygen --key-file ~/key && mkdir ~/a && echo open >~/a/open && umask 77 && echo >~/a/closed",
    );
    let mount = users.mount(0, "~/a", "-o allow_other");
    let said = users.refused(ANNA, &mount);
    assert!(said.contains("user_allow_other") && said.contains("/etc/fuse.conf"), "{said}");
    assert!(said.contains("\n  syncfs doctor\n"), "{said}");
    users.done(0, "echo user_allow_other >>/etc/fuse.conf");
    users.done(ANNA, &mount);
    // By mode and owner, as in any directory.
    assert_eq!(users.done(BERT, "cat /run/anna/a/open"), "open\n");
    users.refused(BERT, "cat /run/anna/a/closed");
    users.refused(BERT, "echo >/run/anna/a/of-bert");
    users.done(ANNA, "syncfs unmount ~/a");
    users.machine.rests();
}

#[test]
fn a_mount_of_roots_is_everybodys_by_owner_and_mode() {
    let Some(users) = Users::new() else { return };
    users.done(0, "syncfs keygen --key-file /run/bert/key && mkdir -m 1777 /run/a /run/b");
    users.done(0, &users.mount(0, "/run/a", ""));
    users.done(0, &users.mount(1, "/run/b", ""));
    users.done(ANNA, "umask 77; echo mine >/run/a/of-anna; echo later >/run/a/f; chmod 644 /run/a/f");
    users.done(0, "until syncfs flush /run/a; do sleep .1; done");
    // Owners cross by number.
    assert_eq!(users.done(ANNA, "cat /run/b/of-anna"), "mine\n");
    users.refused(BERT, "cat /run/b/of-anna");
    assert_eq!(users.done(BERT, "cat /run/b/f"), "later\n");
    users.refused(BERT, "echo >/run/b/f");
    let said = users.refused(ANNA, "syncfs status /run/a");
    assert!(said.contains("another user's answers to that user alone"), "{said}");
    users.done(0, "syncfs unmount /run/a && syncfs unmount /run/b");
    assert_eq!(users.machine.path("/run/b/of-anna").metadata().unwrap().uid(), ANNA);
    users.machine.rests();
}

#[test]
fn between_root_and_an_ordinary_user_no_owner_crosses_to_the_user() {
    let Some(users) = Users::new() else { return };
    users.done(0, "syncfs keygen --key-file /run/bert/key && cp -p /run/bert/key /run/anna/key && chown 4711 /run/anna/key");
    users.done(ANNA, "mkdir ~/b");
    users.done(0, "mkdir /run/a");
    users.done(0, &users.mount(0, "/run/a", ""));
    users.done(ANNA, &users.mount(1, "~/b", ""));
    users.done(ANNA, "echo >~/b/of-anna; until syncfs flush ~/b; do sleep .1; done");
    users.done(0, "echo >/run/a/of-root; chown 4712 /run/a/of-root; syncfs flush /run/a");
    assert_eq!(users.done(ANNA, "stat -c %u ~/b/of-root"), "4711\n");
    // Root keeps what it is told, and an ordinary user owns all there.
    assert_eq!(users.done(0, "stat -c %u /run/a/of-anna /run/a/of-root"), "4711\n4712\n");
    users.done(ANNA, "syncfs unmount ~/b");
    users.done(0, "syncfs unmount /run/a");
    users.machine.rests();
}
