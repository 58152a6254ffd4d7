//! Finding the peer on the local network, by DNS-SD over multicast DNS.
//!
//! This host announces its port under a [`beacon`](super::beacon), and listens for the beacons of others.
//! What is seen goes to the dialler, which is woken when it changes.
//!
//! Invariants: nobody is dialled whose beacon was not made with our key, nor is this host itself; names, store and share are
//! not announced; the announcement is taken back, and all threads and sockets end, when the link closes.

use super::beacon::Lamp;
use super::error::{Error, Result};
use super::key::Key;
use super::sightings::{SERVICE, Sightings, TAG};
use mdns_sd::{IfKind, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo, VERIFY_TIMEOUT_DEFAULT};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long nobody may be seen before that is told: about what an answer takes at most.
const LOOK: Duration = Duration::from_secs(3);
/// How often it is asked anew who is there, while nobody is seen: an announcement may have been lost.
const ASK: Duration = Duration::from_secs(30);
/// How often the addresses of this host are looked at, seconds.
const ADDRESSES: u32 = 2;
/// How long taking the announcement back may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// Announces this host and listens, until told to end.
pub struct Discovery {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    sightings: Sightings,
    seen: watch::Sender<Vec<SocketAddr>>,
    doubts: Arc<Notify>,
}

/// Where the peer is seen.
pub struct Seen {
    addresses: watch::Receiver<Vec<SocketAddr>>,
    doubts: Arc<Notify>,
    port: u16,
}

impl Discovery {
    /// Announces `listen`, if this host listens, and looks for those who listen at `port`.
    ///
    /// # Errors
    /// [`Error::Search`].
    pub fn start(key: &Key, listen: Option<SocketAddr>, port: u16) -> Result<(Discovery, Seen)> {
        let lamp = Lamp::new(key);
        let own = lamp.light().map_err(|error| Error::Search(error.to_string()))?;
        let sightings = Sightings::new(lamp, own, port);
        let daemon = ServiceDaemon::new().map_err(search)?;
        let events = begin(&daemon, &sightings, listen).inspect_err(|_| drop(daemon.shutdown()))?;
        let (seen, addresses) = watch::channel(Vec::new());
        let doubts = Arc::new(Notify::new());
        let discovery = Discovery { daemon, events, sightings, seen, doubts: doubts.clone() };
        Ok((discovery, Seen { addresses, doubts, port }))
    }

    /// Listens until `shut`, and says goodbye.
    pub async fn run(mut self, shut: CancellationToken) {
        loop {
            tokio::select! {
                () = shut.cancelled() => break,
                event = self.events.recv_async() => match event {
                    Ok(event) => self.sightings.hear(&event),
                    // More came than there was room for: what is known already is told again.
                    Err(_) => if let Err(error) = self.ask() {
                        tracing::error!("{error}");
                        shut.cancelled().await;
                        break;
                    },
                },
                () = self.doubts.notified() => self.verify(),
                () = sleep(ASK), if self.seen.borrow().is_empty() => {
                    let _ = self.ask();
                }
            }
            self.tell();
        }
        if let Ok(ended) = self.daemon.shutdown() {
            let _ = timeout(GOODBYE, ended.recv_async()).await;
        }
    }

    fn tell(&self) {
        let now = self.sightings.addresses();
        self.seen.send_if_modified(|seen| {
            let changed = *seen != now;
            if changed {
                tracing::debug!(addresses = ?now, "seen on the local network with this key");
                *seen = now;
            }
            changed
        });
    }

    fn ask(&mut self) -> Result<()> {
        self.events = self.daemon.browse(SERVICE).map_err(search)?;
        Ok(())
    }

    /// Whether those who are seen are still there.
    fn verify(&self) {
        for name in self.sightings.names() {
            if let Err(error) = self.daemon.verify(name.clone(), VERIFY_TIMEOUT_DEFAULT) {
                tracing::debug!("{}", search(error));
            }
        }
    }
}

fn begin(
    daemon: &ServiceDaemon,
    sightings: &Sightings,
    listen: Option<SocketAddr>,
) -> Result<Receiver<ServiceEvent>> {
    daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6]).map_err(search)?;
    daemon.set_ip_check_interval(ADDRESSES).map_err(search)?;
    if let Some(listen) = listen {
        let (name, tag) = (&sightings.own.nonce, [(TAG, &sightings.own.tag)]);
        let any = listen.ip().is_unspecified();
        let addresses = if any { String::new() } else { listen.ip().to_string() };
        let host = format!("{name}.local.");
        let mut info =
            ServiceInfo::new(SERVICE, name, &host, addresses, listen.port(), &tag[..]).map_err(search)?;
        if any {
            info = info.enable_addr_auto();
        }
        // Nobody else has thrown the same 128 dice.
        info.set_requires_probe(false);
        daemon.register(info).map_err(search)?;
    }
    daemon.browse(SERVICE).map_err(search)
}

fn search(error: mdns_sd::Error) -> Error {
    Error::Search(error.to_string())
}

impl Seen {
    /// Where the peer is seen now, the likeliest address first; waits a moment for it to be seen at all.
    ///
    /// # Errors
    /// [`Error::NotSeen`].
    pub async fn addresses(&mut self) -> Result<Vec<SocketAddr>> {
        let _ = timeout(LOOK, self.addresses.wait_for(|seen| !seen.is_empty())).await;
        let seen = self.addresses.borrow_and_update().clone();
        match seen.is_empty() {
            true => Err(Error::NotSeen { port: self.port }),
            false => Ok(seen),
        }
    }

    /// Waits until the peer is seen elsewhere than [`Seen::addresses`] said, and no longer than `most` where it is seen at all;
    /// whether it is.
    pub async fn changes(&mut self, most: Duration) -> bool {
        let seen = !self.addresses.borrow().is_empty();
        let changed = async {
            if self.addresses.changed().await.is_err() {
                // The link closes, and takes who waits here along.
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => true,
            () = sleep(most), if seen => false,
        }
    }

    /// Nobody could be reached where it is seen: is that still so?
    pub fn doubt(&self) {
        self.doubts.notify_one();
    }
}
