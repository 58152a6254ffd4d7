//! Two hosts that both hold everything, at the ends of the link or over loopback.

use crate::link::Link;
use crate::rig::{Host, Pair};

/// At the ends of the link, with these flags of `mount`; mounted and connected.
pub fn linked(link: &Link, flags: &[&str]) -> Pair {
    let mut pair = Pair::new();
    link.join(&mut pair);
    started(pair, flags)
}

/// Joined over loopback.
pub fn joined(flags: &[&str]) -> Pair {
    started(Pair::new(), flags)
}

fn started(mut pair: Pair, flags: &[&str]) -> Pair {
    for host in [&mut pair.a, &mut pair.b] {
        flags.iter().for_each(|flag| host.flag(flag));
        host.start();
    }
    pair.a.flush();
    pair
}

/// Bytes that a host has sent since its start.
pub fn sent(host: &Host) -> u64 {
    host.status()["sent_bytes"].as_u64().unwrap()
}

/// Processor time that a host's daemon has taken, seconds.
pub fn processor(host: &mut Host) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.daemon().id())).unwrap();
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}
