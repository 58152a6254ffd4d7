//! What systemd finds when it runs `syncfs@.service`: its part is played here, by what the unit says.

use crate::machine::Machine;
use crate::rig::{PATIENCE, Pair, Program, until};
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

const UNIT: &str = include_str!("../../packaging/syncfs@.service");

/// What the unit says for `key`.
fn unit(key: &str) -> &'static str {
    let line = UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("the unit says nothing of {key}"))
}

/// The end of NOTIFY_SOCKET that systemd holds, and its journal.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    journal: PathBuf,
}

impl Manager {
    fn new(pair: &Pair) -> Manager {
        let (path, journal) = (pair.root.path().join("notify"), pair.root.path().join("journal"));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, path, journal }
    }

    /// Starts `syncfs@NAME` as the unit says: its command, its capabilities, an environment with nothing of ours.
    fn start(&self, machine: &Machine, name: &str) -> Program {
        let capabilities: Vec<String> = unit("CapabilityBoundingSet")
            .split(' ')
            .map(|name| name.trim_start_matches("CAP_").to_lowercase())
            .collect();
        let set = format!("--bounding-set=-all,+{}", capabilities.join(",+"));
        assert_eq!((unit("Type"), unit("NoNewPrivileges")), ("notify", "yes"));
        let command = unit("ExecStart").replace("%i", name);
        let words = ["/usr/bin/setpriv", "--pdeathsig", "TERM", "--no-new-privs", &set];
        let mut command = machine.command(words.into_iter().chain(command.split(' ')));
        let journal = File::options().create(true).append(true).open(&self.journal).unwrap();
        let stat = journal.metadata().unwrap();
        command.env("NOTIFY_SOCKET", &self.path).env("INVOCATION_ID", "0");
        command.env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino())).stderr(journal);
        Program::spawn(&mut command)
    }

    /// Reads on until this is said.
    #[track_caller]
    fn hears(&self, what: &str) {
        let mut heard = Vec::new();
        loop {
            let mut message = [0; 4096];
            let length = match self.socket.recv(&mut message) {
                Ok(length) => length,
                Err(e) => panic!("{what}: {e}; heard: {heard:?}; {}", self.log()),
            };
            let message = String::from_utf8(message[..length].to_vec()).unwrap();
            if message.lines().any(|line| line == what) {
                return;
            }
            heard.push(message);
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.journal).unwrap_or_default()
    }
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let Some(machine) = Machine::new() else { return };
    if !machine.path("/usr/bin/systemd-analyze").exists() {
        eprintln!("not tested: there is no systemd-analyze here (Debian: systemd)");
        return;
    }
    std::fs::create_dir_all(machine.path("/etc/systemd/system")).unwrap();
    machine.write("/etc/systemd/system/syncfs@.service", UNIT);
    let mut verify =
        machine.command(["/usr/bin/systemd-analyze", "verify", "--man=no", "syncfs@shared.service"]);
    let output = verify.env("PATH", "/usr/bin:/usr/sbin").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("syncfs")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

#[test]
fn the_service_is_ready_when_it_is_mounted_and_tells_how_it_goes() {
    let Some(machine) = Machine::new() else { return };
    let mut pair = Pair::new();
    machine.configure("shared", &pair.a);
    let (manager, dir) = (Manager::new(&pair), pair.a.dir.clone());
    let peer = peer(&pair);
    let mut service = manager.start(&machine, "shared");
    manager.hears("READY=1");
    assert!(machine.mounted(&dir));
    manager.hears(&format!("STATUS=not connected with {peer}"));
    pair.b.start();
    manager.hears(&format!("STATUS=connected with {peer}"));
    assert_eq!(pair.b.unmount().code(), Some(0));
    manager.hears(&format!("STATUS=not connected with {peer}"));
    std::fs::write(machine.path(dir.join("f")), "content").unwrap();
    manager.hears(&format!("STATUS=not connected with {peer}; 1 file pending"));
    pair.b.start();
    manager.hears(&format!("STATUS=connected with {peer}"));
    assert!(pair.b.has("f", b"content"));
    service.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    assert_eq!(service.ended().and_then(|status| status.code()), Some(0), "{}", manager.log());
    assert!(!machine.mounted(&dir));
    assert!(pair.a.has("f", b"content"));
    // For the journal: a level that it knows, and no time of ours.
    let log = manager.log();
    assert!(log.contains("<6>") && log.lines().all(|line| line.starts_with('<')), "{log}");
}

#[test]
fn a_killed_service_is_there_again_with_the_next_start() {
    let Some(machine) = Machine::new() else { return };
    let pair = Pair::new();
    machine.configure("shared", &pair.a);
    let (manager, dir) = (Manager::new(&pair), pair.a.dir.clone());
    let mut service = manager.start(&machine, "shared");
    manager.hears("READY=1");
    for n in 0..2 {
        std::fs::write(machine.path(dir.join("f")), format!("content {n}")).unwrap();
        service.signal(Signal::KILL);
        service.ended().unwrap();
        assert!(machine.mounted(&dir), "the dead mount");
        // What stands by for that ends by itself.
        machine.rests();
        service = manager.start(&machine, "shared");
        manager.hears("READY=1");
        assert_eq!(std::fs::read_to_string(machine.path(dir.join("f"))).unwrap(), format!("content {n}"));
    }
    // Whoever unmounts by hand means it: that is no failure, which would be restarted.
    let umount = machine.run(["/usr/bin/umount".as_ref(), dir.as_os_str()]);
    assert!(umount.status.success(), "{umount:?}");
    manager.hears("STOPPING=1");
    assert_eq!(service.ended().and_then(|status| status.code()), Some(0), "{}", manager.log());
    until("nothing is left", || !machine.mounted(&dir));
}

#[test]
fn a_service_with_a_wrong_config_says_so_and_is_not_restarted() {
    let Some(machine) = Machine::new() else { return };
    let pair = Pair::new();
    let manager = Manager::new(&pair);
    machine.write("/etc/syncfs/shared.toml", "dir = '/mnt'\npear = 'x'\n");
    let mut service = manager.start(&machine, "shared");
    let code = service.ended().and_then(|status| status.code()).unwrap();
    assert_eq!(code.to_string(), unit("RestartPreventExitStatus"));
    assert!(manager.log().contains("/etc/syncfs/shared.toml:2: pear is not known"), "{}", manager.log());
}

/// What A was told its peer is.
fn peer(pair: &Pair) -> String {
    let command: Command = pair.a.mount_command();
    let mut words = command.get_args().skip_while(|word| *word != "--peer");
    words.nth(1).unwrap().to_str().unwrap().to_owned()
}
