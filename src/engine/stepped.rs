//! A host whose workers are turned by hand: for simulations, in which one scheduler decides what happens next
//! and nothing else does.

use super::channel::Channel;
use super::host::Host;
use super::live;
use super::queues::Turn;
use super::worker::Worker;
use crate::model::ids::{FileId, ReplicaId};
use crate::model::message::Message;
use crate::wire::Session;
use std::collections::BTreeSet;
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
        let files =
            share.unthanked().union(share.lacking()).chain(share.unsettled()).collect::<BTreeSet<_>>();
        let tell = |id: &&FileId| format!("{id} {:?}", share.file(**id).expect("it is in an index"));
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
