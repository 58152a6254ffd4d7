//! Where the peer is: at a host that has a name or an address, or wherever on the local network its announcement is seen.
//!
//! Invariant: a name is resolved anew each time, for hosts move.

use super::error::{Error, Result};
use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Where syncfs listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 7377;
/// In the place of a host: the one that is found by its announcement.
const AUTO: &str = "auto";
/// To find out a host's addresses.
const RESOLVE: Duration = Duration::from_secs(10);
/// For one of the peer's addresses, where it has several.
const CONNECT: Duration = Duration::from_secs(3);

/// Where to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    host: String,
    port: u16,
}

impl std::str::FromStr for Peer {
    type Err = Error;

    /// `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address; `auto` is a host, too.
    fn from_str(text: &str) -> Result<Peer> {
        let bad = || Error::PeerAddress { text: text.into() };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) })
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |p| p.parse().map_err(|_| bad()))?;
        let known = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
        if host.is_empty() || port == 0 || !host.chars().all(known) {
            return Err(bad());
        }
        Ok(Peer { host: host.into(), port })
    }
}

impl fmt::Display for Peer {
    /// As a user would write it; the port where it is not the usual one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (_, DEFAULT_PORT) => f.write_str(&self.host),
            (true, port) => write!(f, "[{}]:{port}", self.host),
            (false, port) => write!(f, "{}:{port}", self.host),
        }
    }
}

impl Peer {
    /// Whether it is to be found by its announcement.
    pub fn is_auto(&self) -> bool {
        self.host == AUTO
    }

    /// As it was written, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// All addresses that the host has now; there is one at least.
    ///
    /// # Errors
    /// [`Error::Resolve`].
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let failed = |source| Error::Resolve { peer: self.host.clone(), source };
        let looked_up = timeout(RESOLVE, lookup_host((self.host.as_str(), self.port))).await;
        let addresses = looked_up.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        match addresses.is_empty() {
            true => Err(failed(io::ErrorKind::NotFound.into())),
            false => Ok(addresses),
        }
    }
}

/// A connection to one address of the peer, within a bounded time.
///
/// # Errors
/// [`Error::Connect`].
pub async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let connected = timeout(CONNECT, TcpStream::connect(address)).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| Error::Connect { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_host_with_or_without_a_port() {
        let good = [
            ("hostb", "hostb", 7377),
            ("hostb:1", "hostb", 1),
            ("10.0.0.2:80", "10.0.0.2", 80),
            ("[fe80::1]", "fe80::1", 7377),
            ("[fe80::1]:9", "fe80::1", 9),
            ("::1", "::1", 7377),
        ];
        for (text, host, port) in good {
            let peer: Peer = text.parse().unwrap();
            assert_eq!(peer, Peer { host: host.into(), port }, "{text}");
            assert_eq!(peer.to_string().parse::<Peer>().unwrap(), peer, "{text}");
        }
        for text in ["", ":1", "a:", "a:0", "a:70000", "[::1", "[::1]9", "a b", "a:b:c", "[]:1"] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }

    #[test]
    fn auto_stands_for_the_host_and_leaves_the_port() {
        let auto = |text: &str| text.parse::<Peer>().map(|peer| (peer.is_auto(), peer.port())).unwrap();
        assert_eq!([auto("auto"), auto("auto:9"), auto("auto.:9")], [(true, 7377), (true, 9), (false, 9)]);
    }
}
