//! What a link gives to a program that asks for nothing but the link: a ping, and one TCP connection.

use super::Link;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const PINGS: usize = 20;
const PORT: u16 = 7000;

#[derive(Clone, Copy)]
pub struct Yardstick {
    /// There and back, the median.
    pub rtt: Duration,
    /// Bytes a second from A to B, from connecting to the last byte.
    pub throughput: f64,
}

impl Yardstick {
    /// Sends so many bytes.
    pub fn of(link: &Link, bytes: u64) -> Yardstick {
        Yardstick { rtt: rtt(link), throughput: throughput(link, bytes) }
    }

    /// How often a message could have gone there and back.
    pub fn rtts(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.rtt.as_secs_f64()
    }
}

fn rtt(link: &Link) -> Duration {
    let [far, near] =
        [&link.a, &link.b].map(|end| end.within(|| UdpSocket::bind((end.address, PORT)).expect("a socket")));
    near.connect((link.a.address, PORT)).expect("an address");
    near.set_read_timeout(Some(Duration::from_secs(10))).expect("a time");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..PINGS {
                let (_, from) = far.recv_from(&mut [0]).expect("a ping");
                far.send_to(&[0], from).expect("an answer");
            }
        });
        let ping = |_| {
            let begun = Instant::now();
            near.send(&[0]).expect("a ping");
            near.recv(&mut [0]).expect("an answer");
            begun.elapsed()
        };
        let mut times: Vec<_> = (0..PINGS).map(ping).collect();
        times.sort();
        times[PINGS / 2]
    })
}

fn throughput(link: &Link, bytes: u64) -> f64 {
    let listener = link.a.within(|| TcpListener::bind((link.a.address, PORT)).expect("a socket"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut to, _) = listener.accept().expect("a connection");
            let part = vec![1; 1 << 17];
            let mut left = bytes as usize;
            while left > 0 {
                let sent = to.write(&part[..left.min(part.len())]).expect("sent");
                left -= sent;
            }
        });
        let begun = Instant::now();
        let mut from = link.b.within(|| TcpStream::connect((link.a.address, PORT)).expect("a connection"));
        let (mut part, mut came) = (vec![0; 1 << 20], 0);
        while let Ok(length @ 1..) = from.read(&mut part) {
            came += length as u64;
        }
        assert_eq!(came, bytes, "what was sent came");
        bytes as f64 / begun.elapsed().as_secs_f64()
    })
}
