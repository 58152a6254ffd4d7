//! The engine's threads, and the session with the peer: what comes in goes to the thread that answers it.

use super::bases::Job;
use super::channel::{Channel, Wire};
use super::checkpoint::Keeper;
use super::cutter::Cutter;
use super::error::Error;
use super::events::Told;
use super::fetch::{Filler, Finisher};
use super::host::{Ears, Host};
use super::inbound::Applier;
use super::matcher::Matcher;
use super::queues::{Filling, Inbound, Request, Sweep, Trigger, Turn, Want};
use super::recovery::new_writer;
use super::serve::Servant;
use super::sweep::Sweeper;
use super::worker::Worker;
use crate::model::direction::Direction;
use crate::model::ids::LogPosition;
use crate::model::message::{Begin, Hello, Message};
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::wire::{self, Event, Events, Link};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

/// Starts all threads and the link.
pub(super) fn start(host: &Arc<Host>, ears: Ears) -> Result<Vec<JoinHandle<()>>, Error> {
    let pairing = Arc::downgrade(host);
    let admit = Arc::new(move |hello: &Hello| match pairing.upgrade() {
        Some(host) => host.admit(hello),
        None => Err("this host is shutting down".to_owned()),
    });
    let config = wire::Config {
        key: host.key.lock().take().expect("no host connects without its key"),
        replica: host.identity.replica,
        boot: host.identity.boots,
        features: host.features(),
        compress: host.options.compress,
        bwlimit: host.options.bwlimit,
        listen: Some(host.options.listen),
        peer: host.options.peer.clone(),
        admit,
    };
    let (link, events) = host.runtime.block_on(Link::start(config))?;
    let mut threads = Vec::new();
    for (name, mut worker) in attach(host, Box::new(Wire { link, runtime: host.runtime.clone() }), ears) {
        let host = host.clone();
        let run = move || while worker.turn(&host, true) != Turn::Over {};
        threads.push(std::thread::Builder::new().name(name.into()).spawn(run)?);
    }
    host.runtime.spawn(listen(host.clone(), events));
    Ok(threads)
}

/// Gives the host its way to the peer; returns its workers, each with its name.
pub(super) fn attach(
    host: &Arc<Host>,
    channel: Box<dyn Channel>,
    ears: Ears,
) -> Vec<(&'static str, Box<dyn Worker>)> {
    host.link.set(channel).ok().expect("a host is attached once");
    let (fillings, finished, jobs) = host.fetch.take_ears();
    vec![
        ("cutter", Box::new(Cutter::new(ears.triggers))),
        ("applier", Box::new(Applier::new(ears.inbox))),
        ("filler", Box::new(Filler(fillings))),
        ("finisher", Box::new(Finisher(finished))),
        ("server", Box::new(Servant)),
        ("checkpointer", Box::new(Keeper::new(host))),
        ("matcher", Box::new(Matcher::new(jobs))),
        ("sweeper", Box::new(Sweeper(ears.sweeps))),
    ]
}

/// Ends the session and all threads, in the order in which they feed each other.
pub(super) fn stop(host: &Arc<Host>, threads: Vec<JoinHandle<()>>) {
    host.stopping.store(true, Ordering::Relaxed);
    if let Some(link) = host.link.get() {
        link.close();
    }
    host.verifying.stop();
    let _ = host.triggers.send(Trigger::Stop);
    host.inbox.send(Inbound::Stop);
    host.fetch.job(Job::Stop);
    host.holding.sweep(Sweep::Stop);
    let _ = host.fetch.fillings.send(Filling::Stop);
    let _ = host.fetch.finished.send(None);
    host.server.stop();
    host.checkpointer.stop();
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the engine panicked");
        }
    }
}

/// What the peer says, as it comes.
async fn listen(host: Arc<Host>, mut events: Events) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Up(session) => host.up(session),
            Event::Message(message) => host.hear(message),
            Event::Down { reason } => {
                tracing::info!("the peer is gone: {reason}");
                host.events.tell(Told::Disconnected { reason });
                host.down();
            }
        }
    }
}

/// What a hello says of how the sender wants to become one with a peer it never met, and of the one it has met.
const FIRST_SYNC: &str = "first-sync=";
const PEER: &str = "peer=";
/// Which way changes go; without it, both ways.
const DIRECTION: &str = "direction=";
/// The sender keeps a cache only.
const CACHE: &str = "cache";

impl Host {
    pub(super) fn features(&self) -> Vec<String> {
        let peer = self.share.lock().header().peer.map(|peer| format!("{PEER}{peer}"));
        let direction = Some(self.options.direction).filter(|d| *d != Direction::Both);
        let direction = direction.map(|direction| format!("{DIRECTION}{}", direction.word()));
        let first = format!("{FIRST_SYNC}{}", self.options.first_sync.word());
        let cache = self.holding.is_cache().then(|| CACHE.to_owned());
        [first].into_iter().chain(peer).chain(direction).chain(cache).collect()
    }

    fn admit(&self, hello: &Hello) -> Result<(), String> {
        let direction = hello.features.iter().find_map(|f| f.strip_prefix(DIRECTION));
        let direction = direction.unwrap_or(Direction::Both.word());
        if direction != self.options.direction.from_the_peer().word() {
            return Err(self.options.direction.disagreement(direction));
        }
        if self.holding.is_cache() && hello.features.iter().any(|f| f == CACHE) {
            return Err("both hosts were mounted with --cache-size, so that nobody would hold everything; mount one of them \
                        without"
                .to_owned());
        }
        let share = self.share.lock();
        let knows_us = hello.features.contains(&format!("{PEER}{}", self.identity.replica));
        let word = hello.features.iter().find_map(|f| f.strip_prefix(FIRST_SYNC));
        let ours = self.options.first_sync;
        if let Some(word) = word.filter(|word| *word != ours.from_the_peer().word())
            && share.header().peer != Some(hello.replica)
            && !knows_us
        {
            return Err(ours.disagreement(word));
        }
        match share.header().peer {
            Some(peer) if peer != hello.replica && !self.options.new_peer => Err(format!(
                "this share belongs together with replica {}, not with {}; to pair it anew, mount with --new-peer",
                peer.short(),
                hello.replica.short()
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn up(&self, session: wire::Session) {
        tracing::info!("connected with replica {} at {}", session.peer.replica.short(), session.address);
        let peer = session.peer.replica;
        let address = session.address.to_string();
        self.events.tell(Told::Connected { replica: peer.to_string(), address });
        if session.peer.features.iter().any(|f| f == CACHE) {
            self.peer_holds_less(true);
        }
        *self.session.lock() = Some(session);
        let since = {
            let share = self.share.lock();
            share.header().followed.filter(|_| share.header().peer == Some(peer))
        };
        self.tell(Message::Sync { since });
        self.moved();
    }

    pub(super) fn down(&self) {
        *self.session.lock() = None;
        self.outbound_down();
        self.fetch_down();
        self.server.clear();
        self.signatures.clear();
        self.verifying.end();
        self.refused.lock().clear();
        self.told_older.lock().clear();
        self.inbox.send(Inbound::Down);
        self.moved();
    }

    pub(super) fn hear(self: &Arc<Self>, message: Message) {
        match message {
            Message::Sync { since } => self.synced(since),
            Message::Begin(theirs) => match self.outbound.lock().begin.clone() {
                Some(ours) => self.inbox.send(Inbound::Begin { ours, theirs }),
                None => self.distrust("the peer begins before it says where"),
            },
            Message::Survey { nonce, answers } => self.inbox.send(Inbound::Survey { nonce, answers }),
            Message::Verify { nonce, word } => self.hear_of_verification(nonce, word),
            Message::Announce(cut) => self.inbox.send(Inbound::Cut(cut)),
            Message::Dropped { seq } => self.dropped(seq),
            Message::Thanks { cuts, acks } => self.thanked(&cuts, acks),
            Message::Retrieve { request, file, version, start, end, urgent, digest } => {
                let want = Want::Content(digest);
                self.asked(Request { request, file, version, chunks: start..end, urgent, want });
            }
            Message::Compare { request, file, version, start, end, urgent, digest } => {
                let want = Want::Verdict(digest);
                self.asked(Request { request, file, version, chunks: start..end, urgent, want });
            }
            Message::Match { request, file, version, start, end, urgent, basis } => {
                let want = Want::Recipes(basis);
                self.asked(Request { request, file, version, chunks: start..end, urgent, want });
            }
            Message::Signature { number, signature } => self.signatures.learn(number, signature),
            Message::Recipes { request, end, recipes, sha256 } => {
                self.fetch.job(Job::Make { request, end, recipes, sha256 });
            }
            Message::Differs { request } => {
                let _ = self.fetch.fillings.send(Filling::Differs { request });
            }
            Message::Alike { file, basis } => self.fetch.hint(file, basis),
            Message::Deliver { request, pieces, sha256 } => {
                let _ = self.fetch.fillings.send(Filling::Deliver { request, pieces, sha256 });
            }
            Message::Superseded { request } => {
                let _ = self.fetch.fillings.send(Filling::Superseded { request });
            }
            Message::Same { request } => {
                let _ = self.fetch.fillings.send(Filling::Same { request });
            }
            Message::HoldsAll => self.peer_holds_all(),
            Message::Tell { file } => self.inbox.send(Inbound::Tell(file)),
            Message::Unknown { file } => self.settle(file),
            Message::Flush { request } => {
                let host = self.clone();
                self.runtime.spawn(async move {
                    host.level().await;
                    match host.flush_disk().await {
                        Ok(()) => host.tell(Message::Flushed { request }),
                        Err(error) => tracing::error!("what the peer waits for is not durable here: {error}"),
                    }
                });
            }
            Message::Flushed { request } => self.flushed(request),
            Message::Ping { .. } | Message::Pong { .. } => {}
        }
    }

    fn asked(&self, request: Request) {
        if !self.server.ask(request) {
            self.distrust("the peer asks for more at once than it may");
        }
    }

    /// The peer says how far it has followed our log: where that is less than it once thanked for, or nothing, it may lack
    /// anything.
    fn synced(&self, since: Option<LogPosition>) {
        let Some(peer) = self.session.lock().as_ref().map(|s| s.peer.replica) else { return };
        let nonce = self.random.lock()() as u64;
        let begin = {
            let mut share = self.share.lock();
            let met = share.header().peer == Some(peer);
            let mut anew = !met || share.must_begin_anew(since);
            let ahead = since.is_some_and(|s| s.writer == share.writer() && s.seq > share.header().head)
                && !planted(Bug::ReuseWriter);
            if ahead {
                // We are an older self, restored: the numbers since are taken.
                tracing::warn!("the peer has seen more of this host than this host remembers");
                anew = true;
                let began = Record::Began { writer: new_writer(&mut self.random.lock()) };
                if let Err(error) = self.commit(&mut share, began) {
                    tracing::error!("a new writer could not be journaled: {error}");
                }
            }
            if let Some(since) = since.filter(|_| met)
                && let Err(error) = self.commit(&mut share, Record::Heard { since })
            {
                tracing::error!("the peer's position could not be journaled: {error}");
            }
            let head = LogPosition { writer: share.writer(), seq: share.header().head };
            Begin { anew, met, first: self.options.first_sync, owner: self.owner, nonce, head }
        };
        self.outbound.lock().begin = Some(begin.clone());
        self.tell(Message::Begin(begin));
    }

    /// Waits until everything here is on the peer and everything of the peer's is here.
    pub(super) async fn level(&self) {
        let mut progress = self.progress.subscribe();
        loop {
            self.cut_fresh();
            // Until both have begun, what was acknowledged may be another peer's, or lost there.
            let begun = self.outbound.lock().session().is_some();
            if begun && self.is_level() {
                return;
            }
            // Changes are counted; a slow tick catches what changed without a count.
            let _ = tokio::time::timeout(Duration::from_millis(500), progress.changed()).await;
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    pub(super) fn is_level(&self) -> bool {
        let share = self.share.lock();
        let nothing = match self.options.direction.receives() {
            false => self.to_tell(&share).next().is_none(),
            // What was changed here alone is nobody else's.
            true => true,
        };
        let nothing = nothing && !self.awaits_content(&share);
        let nothing = nothing && share.unsettled().is_empty();
        drop(share);
        nothing && self.outbound.lock().in_flight() == 0
    }
}
