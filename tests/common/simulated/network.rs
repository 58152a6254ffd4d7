//! The network between two simulated hosts: it delays, loses sessions on one side before the other, and
//! delivers what it delivers in order.
//!
//! A message waits in its class (the lesser class first, as the real link has it), then flies, then arrives.
//! Nothing arrives in another session than it was sent in.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use syncfs::engine::Channel;
use syncfs::model::message::Message;
use syncfs::wire::{Class, Counters};

/// One direction, from one host to the other.
#[derive(Clone, Default)]
pub struct Pipe(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The session that the sender believes to be in; 0 for none.
    session: u64,
    waiting: [VecDeque<Message>; 4],
    flying: VecDeque<(u64, Message)>,
    dropped: Option<String>,
}

impl Pipe {
    /// The sender takes up a session; 0 ends it.
    pub fn begin(&self, session: u64) {
        let mut state = self.0.lock();
        state.session = session;
        state.waiting.iter_mut().for_each(VecDeque::clear);
    }

    /// Puts the next waiting message on the wire.
    pub fn transmit(&self) -> bool {
        let mut state = self.0.lock();
        let session = state.session;
        let Some(message) = state.waiting.iter_mut().find_map(VecDeque::pop_front) else { return false };
        state.flying.push_back((session, message));
        true
    }

    /// What arrives next, with its session.
    pub fn arrive(&self) -> Option<(u64, Message)> {
        self.0.lock().flying.pop_front()
    }

    /// What the sender has said and is not on the wire yet.
    pub fn said(&self) -> Vec<Message> {
        self.0.lock().waiting.iter().flatten().cloned().collect()
    }

    /// Whether anything is on the wire.
    pub fn flies(&self) -> bool {
        !self.0.lock().flying.is_empty()
    }

    pub fn is_idle(&self) -> bool {
        let state = self.0.lock();
        state.flying.is_empty() && state.waiting.iter().all(VecDeque::is_empty)
    }

    /// Why the sender has ended the session, if it has.
    pub fn take_dropped(&self) -> Option<String> {
        self.0.lock().dropped.take()
    }

    fn push(&self, class: Class, message: Message) {
        let mut state = self.0.lock();
        if state.session != 0 {
            state.waiting[class as usize].push_back(message);
        }
    }
}

impl Channel for Pipe {
    fn send(&self, message: Message) {
        self.push(Class::of(&message), message);
    }

    fn deliver(&self, message: Message, urgent: bool) {
        self.push(if urgent { Class::Soon } else { Class::Bulk }, message);
    }

    fn drop_session(&self, why: &str) {
        self.0.lock().dropped = Some(why.to_owned());
    }

    /// Nothing takes time here but what the story says.
    fn set_bwlimit(&self, _: Option<u64>) {}

    fn counters(&self) -> Counters {
        Counters { connected: self.0.lock().session != 0, ..Counters::default() }
    }

    fn close(&self) {}
}
