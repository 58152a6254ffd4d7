//! A host whose workers are turned by hand: for simulations, in which one scheduler decides what happens next
//! and nothing else does.

use super::channel::Channel;
use super::host::Host;
use super::live;
use super::queues::Turn;
use super::worker::Worker;
use crate::model::chunk;
use crate::model::ids::{FileId, ReplicaId};
use crate::model::message::Message;
use crate::model::name::Name;
use crate::wire::Session;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

pub struct Stepped {
    pub host: Arc<Host>,
    workers: Vec<(&'static str, Box<dyn Worker>)>,
}

impl Stepped {
    /// Attaches an opened host to `channel`, which takes what it has to say.
    pub fn new(host: Arc<Host>, channel: Box<dyn Channel>) -> Stepped {
        let ears = host.ears.lock().take().expect("a host is attached once");
        let workers = live::attach(&host, channel, ears);
        Stepped { host, workers }
    }

    /// The workers' names; a worker's place here is its number.
    pub fn workers(&self) -> Vec<&'static str> {
        self.workers.iter().map(|w| w.0).collect()
    }

    /// Turns one worker; false where it had nothing to do.
    pub fn turn(&mut self, worker: usize) -> bool {
        self.workers[worker].1.turn(&self.host, false) == Turn::Worked
    }

    pub fn replica(&self) -> ReplicaId {
        self.host.identity.replica
    }

    /// Makes everything durable here, as `flush` does.
    ///
    /// # Errors
    /// As the disk's.
    pub fn flush_disk(&self) -> Result<(), super::Error> {
        self.host.backing.sync_all()?;
        Ok(self.host.journal.sync(self.host.journal.end())?)
    }

    /// What it says of itself to the peer.
    pub fn features(&self) -> Vec<String> {
        self.host.features()
    }

    /// Bytes on the disk that the cache takes, where it keeps one only.
    pub fn cache_used(&self) -> Option<u64> {
        self.host.holding.cache(|cache| cache.used())
    }

    /// A session with the peer begins.
    pub fn up(&self, session: Session) {
        self.host.up(session);
    }

    /// The peer says something.
    pub fn hear(&self, message: Message) {
        self.host.hear(message);
    }

    /// The session is over.
    pub fn down(&self) {
        self.host.down();
    }

    /// Brings the metadata level, as the checkpointer does now and then.
    ///
    /// # Errors
    /// As the disk's.
    pub fn checkpoint(&self) -> Result<(), super::Error> {
        self.host.checkpoint(false)
    }

    /// Ends in order, as an unmount does.
    ///
    /// # Errors
    /// As the disk's.
    pub fn close(self) -> Result<(), super::Error> {
        drop(self.workers);
        self.host.close()
    }

    /// Every change that waits for its second to pass is cut now, as `flush` does.
    pub fn level_soon(&self) {
        self.host.cut_fresh();
    }

    /// What keeps it from being level, for people.
    pub fn state(&self) -> String {
        let share = self.host.share.lock();
        let outbound = self.host.outbound.lock();
        let sets = [share.unthanked(), share.lacking(), share.unsettled()];
        let files: BTreeSet<FileId> = sets.into_iter().flat_map(|set| set.iter()).collect();
        let tell = |id: &FileId| format!("{id} {:?}", share.file(*id).expect("it is in an index"));
        let files: Vec<String> = files.iter().map(tell).collect();
        format!(
            "{} cuts under way, {:?} waiting, {}",
            outbound.in_flight(),
            outbound.waiting,
            files.join(", ")
        )
    }

    /// Whether everything here is on the peer and everything of the peer's is here.
    pub fn is_level(&self) -> bool {
        self.host.is_level()
    }
}

impl Host {
    /// What lies here of a file, its number, and the bytes of it that are missing; `None` where there is none of that name.
    pub fn lies_here(&self, name: &str) -> Option<(FileId, Vec<u8>, Vec<Range<u64>>)> {
        let id = self.share.lock().named(&Name::new(name.as_bytes()).ok()?)?;
        let bytes = self.content(id)?;
        let share = self.share.lock();
        let file = share.file(id)?;
        // What was written into missing chunks is here.
        let missing = file.missing.iter().map(|range| chunk::bytes(&range, file.size));
        Some((id, bytes, missing.flat_map(|range| file.scraps.gaps(&range)).collect()))
    }

    /// What lies here of that file, held or not.
    pub fn content(&self, id: FileId) -> Option<Vec<u8>> {
        let node = self.node(id)?;
        let content = self.data_file(&node, &mut node.data.lock(), false).ok()?;
        let mut bytes = vec![0; usize::try_from(content.len().ok()?).ok()?];
        content.read_exact_at(&mut bytes, 0).ok()?;
        Some(bytes)
    }
}
