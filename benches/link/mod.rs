//! A link with a delay and a rate, between two network namespaces of its own.
//!
//! A packet leaves one namespace by a TUN device, waits for those before it to pass at the link's rate, then for
//! the delay, and comes into the other. Where more waits than is in flight, packets are lost, as in a router.
//!
//! The namespaces have no names: they last as long as somebody is in them or holds their descriptor. However the
//! process ends, nothing of the link is left. Needs root and /dev/net/tun.

mod yardstick;

use crate::rig::Pair;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::collections::VecDeque;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
pub use yardstick::Yardstick;

/// Bytes that one TCP connection may have in flight. With the kernel's own limit for what is sent a far link stays
/// half empty.
const TCP_BUFFERS: [(&str, &str); 2] = [
    ("/proc/sys/net/ipv4/tcp_wmem", "4096 65536 33554432"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096 131072 33554432"),
];
/// What the kernel puts before a packet: how it is to be cut up. So many segments pass at the price of one.
const HEADER: usize = 10;
/// Packets taken in before those are looked after that are due.
const BATCH: usize = 16;

/// What a link is like.
#[derive(Clone, Copy)]
pub struct Terms {
    /// One way.
    pub delay: Duration,
    /// Bits a second, each way.
    pub rate: f64,
}

pub struct Link {
    pub a: End,
    pub b: End,
    carried: Arc<AtomicU64>,
    over: Arc<OwnedFd>,
    lines: Vec<JoinHandle<()>>,
}

/// One end: a namespace with an address.
pub struct End {
    pub address: Ipv4Addr,
    space: OwnedFd,
}

/// A number from the environment.
pub fn number(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

/// The one row that the environment asks for, of these; all of them without.
pub fn only(rows: &[&str]) -> Option<String> {
    let only = std::env::var("SYNCFS_ONLY").ok();
    assert!(only.iter().all(|only| rows.contains(&only.as_str())), "no such row: {only:?}");
    only
}

impl Link {
    /// As the environment wants it, `mbit` a second each way where it says nothing, and what it is like: measured by `probe`
    /// bytes of a link of so many bits a second.
    pub fn wanted(mbit: f64, probe: impl Fn(f64) -> u64) -> (Link, Yardstick) {
        let delay = Duration::from_secs_f64(number("SYNCFS_DELAY_MS", 25.0) / 1e3);
        let rate = number("SYNCFS_RATE_MBIT", mbit) * 1e6;
        let link = Link::new(Terms { delay, rate });
        let yardstick = Yardstick::of(&link, probe(rate));
        println!(
            "the link, made for {:.0} ms there and back and {} Mbit/s: ping {:.2} ms, plain TCP {:.2} Mbit/s",
            delay.as_secs_f64() * 2e3,
            rate / 1e6,
            yardstick.rtt.as_secs_f64() * 1e3,
            yardstick.throughput * 8.0 / 1e6,
        );
        (link, yardstick)
    }

    /// Puts two hosts at its ends, each the other's peer.
    pub fn join(&self, pair: &mut Pair) {
        for (host, here, there) in [(&mut pair.a, &self.a, &self.b), (&mut pair.b, &self.b, &self.a)] {
            host.around = here.around().map(Into::into).to_vec();
            host.option("--listen", Path::new(&format!("{}:7377", here.address)));
            host.option("--peer", Path::new(&format!("{}:7377", there.address)));
        }
    }

    pub fn new(terms: Terms) -> Link {
        // Addresses that are set aside for benchmarks.
        let [a, b] = [1, 2].map(|n| Ipv4Addr::new(198, 18, 0, n));
        let (a, from_a) = End::new(a, b);
        let (b, from_b) = End::new(b, a.address);
        let (carried, over) = (Arc::default(), eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"));
        let mut link = Link { a, b, carried, over: Arc::new(over), lines: Vec::new() };
        let (from_a, from_b) = (Arc::new(from_a), Arc::new(from_b));
        for (from, to) in [(from_a.clone(), from_b.clone()), (from_b, from_a)] {
            let (carried, over) = (link.carried.clone(), link.over.clone());
            link.lines.push(std::thread::spawn(move || {
                hurry();
                carry(terms, from.as_fd(), to.as_fd(), over.as_fd(), &carried);
            }));
        }
        link
    }

    /// Bytes that came over, both ways, with the headers of TCP and IP.
    pub fn carried(&self) -> u64 {
        self.carried.load(Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.over, &1u64.to_ne_bytes());
        self.lines.drain(..).for_each(|line| drop(line.join()));
    }
}

impl End {
    /// An end, and the device by which it is left.
    fn new(address: Ipv4Addr, peer: Ipv4Addr) -> (End, OwnedFd) {
        std::thread::spawn(move || {
            // SAFETY: descriptors stay shared, only this thread sees another network.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace, which takes root");
            let space = File::open("/proc/thread-self/ns/net").expect("this thread's namespace").into();
            let device = device();
            for (setting, value) in TCP_BUFFERS {
                std::fs::write(setting, value).expect("a setting of the namespace");
            }
            ip(&["link", "set", "lo", "up"]);
            ip(&["addr", "add", &address.to_string(), "peer", &peer.to_string(), "dev", "far"]);
            ip(&["link", "set", "far", "up"]);
            (End { address, space }, device)
        })
        .join()
        .expect("an end of the link")
    }

    /// What is put before a command so that it runs at this end.
    pub fn around(&self) -> [String; 2] {
        let (process, space) = (std::process::id(), self.space.as_raw_fd());
        ["nsenter".to_owned(), format!("--net=/proc/{process}/fd/{space}")]
    }

    /// Does something at this end.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.space.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().expect("the work at the end of the link"))
    }
}

/// A TUN device in the namespace of this thread. Many segments of TCP come out of it as one packet, and go in so.
fn device() -> OwnedFd {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tun = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).expect("/dev/net/tun");
    // SAFETY: all zeros is an empty request; the kernel reads it, and writes back the name.
    let made = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        b"far".iter().zip(&mut request.ifr_name).for_each(|(from, to)| *to = *from as libc::c_char);
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
        let offers = libc::TUN_F_CSUM | libc::TUN_F_TSO4;
        libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &mut request) == 0
            && libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offers)) == 0
    };
    assert!(made, "a TUN device: {}", std::io::Error::last_os_error());
    tun
}

fn ip(words: &[&str]) {
    let done = Command::new("ip").args(words).status().expect("ip can be run");
    assert!(done.success(), "ip {words:?}: {done}");
}

/// A cable does not wait for its turn on a processor, nor does it sleep longer than it is told.
fn hurry() {
    // SAFETY: two numbers of this thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
    }
}

/// Carries one way, until `over` can be read.
fn carry(terms: Terms, from: BorrowedFd, to: BorrowedFd, over: BorrowedFd, carried: &AtomicU64) {
    let mut flying: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut free = Instant::now();
    let mut packet = vec![0; 1 << 17];
    loop {
        let now = Instant::now();
        while let Some((_, packet)) = flying.pop_front_if(|(due, _)| *due <= now) {
            carried.fetch_add((packet.len() - HEADER) as u64, Relaxed);
            // What the other end has no room for is lost.
            let _ = rustix::io::write(to, &packet);
        }
        let wait = flying.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        let wait = wait.map(|wait| Timespec::try_from(wait).expect("short"));
        let mut ready =
            [PollFd::from_borrowed_fd(from, PollFlags::IN), PollFd::from_borrowed_fd(over, PollFlags::IN)];
        let _ = poll(&mut ready, wait.as_ref());
        if !ready[1].revents().is_empty() {
            return;
        }
        for _ in 0..BATCH {
            let Ok(length) = rustix::io::read(from, &mut packet) else { break };
            let now = Instant::now();
            if free.saturating_duration_since(now) > 2 * terms.delay + Duration::from_millis(5) {
                continue;
            }
            free = free.max(now) + Duration::from_secs_f64((length - HEADER) as f64 * 8.0 / terms.rate);
            flying.push_back((free + terms.delay, packet[..length].to_vec()));
        }
    }
}
