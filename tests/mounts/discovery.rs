//! `--peer auto`, on a network of the test's own: namespaces that hang on one bridge.

use crate::rig::{Host, Pair, Program, run, until};
use std::path::Path;
use std::time::{Duration, Instant};

/// A switch and what hangs on it. All of it goes with the processes that hold it.
struct Network {
    switch: Program,
    hosts: Vec<Program>,
}

impl Network {
    /// With hosts 10.99.0.1 and on; `None`, and a word of it, where this user can't have one.
    fn new(hosts: usize) -> Option<Network> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tested: only root can make a network namespace");
            return None;
        }
        let namespace = || {
            let words =
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo made; exec cat"];
            let holder = Program::start(Path::new("/"), &words);
            assert_eq!(holder.line(), "made");
            holder
        };
        let network = Network { switch: namespace(), hosts: (0..hosts).map(|_| namespace()).collect() };
        network.on_switch("link add br0 type bridge mcast_snooping 0");
        network.on_switch("link set br0 up");
        for (n, host) in network.hosts.iter().enumerate() {
            network.on_switch(&format!("link add port{n} type veth peer name eth0 netns {}", host.id()));
            network.on_switch(&format!("link set port{n} master br0 up"));
            // With one way to each host, a test sees which one is gone.
            let ipv6 = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";
            run(Path::new("/"), &["nsenter", &network.inside(n), "sh", "-c", ipv6]);
            network.on_host(n, "link set lo up");
            network.on_host(n, "link set eth0 up");
            network.on_host(n, &format!("addr add 10.99.0.{}/24 dev eth0", n + 1));
        }
        Some(network)
    }

    fn inside(&self, host: usize) -> String {
        format!("--net=/proc/{}/ns/net", self.hosts[host].id())
    }

    #[track_caller]
    fn on_switch(&self, words: &str) {
        ip(&format!("--net=/proc/{}/ns/net", self.switch.id()), words);
    }

    #[track_caller]
    fn on_host(&self, host: usize, words: &str) {
        ip(&self.inside(host), words);
    }

    /// Lets `host` run there, with `peer`.
    fn connect(&self, n: usize, host: &mut Host, peer: &str) {
        host.around = vec!["nsenter".into(), self.inside(n).into()];
        host.option("--listen", Path::new("0.0.0.0:7377"));
        host.option("--peer", Path::new(peer));
    }
}

#[track_caller]
fn ip(inside: &str, words: &str) {
    let words: Vec<&str> = ["nsenter", inside, "ip"].into_iter().chain(words.split(' ')).collect();
    run(Path::new("/"), &words);
}

fn is_connected(host: &Host, ip: &str) -> bool {
    let peer = &host.status()["peer"];
    peer["connected"] == true && peer["address"].as_str().unwrap().starts_with(&format!("{ip}:"))
}

fn last_error(host: &Host) -> String {
    host.status()["peer"]["last_error"].as_str().unwrap_or_default().to_owned()
}

const NOBODY: &str = "no host with this share's key";

#[test]
fn hosts_with_one_key_find_each_other_within_three_seconds_and_others_are_ignored() {
    let Some(network) = Network::new(3) else { return };
    let (mut pair, mut other) = (Pair::new(), Pair::new());
    network.connect(0, &mut pair.a, "auto");
    network.connect(1, &mut pair.b, "auto");
    network.connect(2, &mut other.a, "auto");
    other.a.start();
    pair.a.start();
    pair.b.start();
    let mounted = Instant::now();
    until("they find each other", || {
        is_connected(&pair.a, "10.99.0.2") && is_connected(&pair.b, "10.99.0.1")
    });
    let took = mounted.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}: {}", pair.logs());
    eprintln!("found and connected {} ms after the mount", took.as_millis());
    pair.a.save("f", b"content");
    pair.assert_same();

    // The third one has heard them as well, and is alone.
    until("the other one finds nobody", || last_error(&other.a).contains(NOBODY));
    let heard = [pair.logs(), other.a.log_text()].concat();
    assert!(!heard.contains("does not hold this share's key") && !heard.contains("10.99.0.3"), "{heard}");
    // With their key it reaches them at once, and is told that they are two already.
    other.a.unmount();
    other.a.option("--key-file", &pair.root.path().join("key"));
    other.a.start();
    until("they are found by a third one", || last_error(&other.a).contains("refuses us"));
    other.a.unmount();
    pair.finish();
}

#[test]
fn a_host_that_gets_another_address_is_found_there() {
    let Some(network) = Network::new(2) else { return };
    let mut pair = Pair::new();
    network.connect(0, &mut pair.a, "auto");
    network.connect(1, &mut pair.b, "auto");
    pair.a.start();
    pair.b.start();
    until("they find each other", || is_connected(&pair.a, "10.99.0.2"));
    network.on_host(1, "addr del 10.99.0.2/24 dev eth0");
    network.on_host(1, "addr add 10.99.0.77/24 dev eth0");
    let moved = Instant::now();
    until("it is found at its new address", || is_connected(&pair.a, "10.99.0.77"));
    eprintln!("connected again {} ms after the move", moved.elapsed().as_millis());
    pair.b.save("f", b"from elsewhere");
    pair.finish();
}

#[test]
fn only_who_looks_is_announced_and_who_goes_takes_it_back() {
    let Some(network) = Network::new(2) else { return };
    let mut pair = Pair::new();
    network.connect(0, &mut pair.a, "10.99.0.99");
    network.connect(1, &mut pair.b, "auto");
    pair.a.start();
    pair.b.start();
    until("a host that does not look is not seen", || last_error(&pair.b).contains(NOBODY));
    assert!(pair.a.unmount().success());
    network.connect(0, &mut pair.a, "auto");
    pair.a.start();
    until("now it is", || is_connected(&pair.b, "10.99.0.1"));
    assert!(pair.a.unmount().success());
    // At once, and not when its records expire.
    until("it is gone", || last_error(&pair.b).contains(NOBODY));
    pair.a.start();
    until("it is back", || is_connected(&pair.b, "10.99.0.1"));
    pair.finish();
}
