//! The way to the peer, as the engine uses it.
//!
//! Contract: messages arrive in the order of their class, once, while the session lives, or not at all;
//! only [`Channel::deliver`] and [`Channel::close`] wait.

use crate::model::message::Message;
use crate::wire::{Counters, Link};
use tokio::runtime::Handle;

pub trait Channel: Send + Sync {
    /// Queues a message; where no session is up it goes nowhere.
    fn send(&self, message: Message);
    /// Queues content, once there is room for it; `urgent` where a reader waits for it.
    fn deliver(&self, message: Message, urgent: bool);
    /// Ends the session: the peer did what no peer would.
    fn drop_session(&self, why: &str);
    /// Sends so many bytes a second at most from now on; `None`: as many as go.
    fn set_bwlimit(&self, rate: Option<u64>);
    fn counters(&self) -> Counters;
    /// Sends what is queued, for a moment at most, and ends.
    fn close(&self);
}

/// The network.
pub(super) struct Wire {
    pub link: Link,
    pub runtime: Handle,
}

impl Channel for Wire {
    fn send(&self, message: Message) {
        self.link.send(message);
    }

    fn deliver(&self, message: Message, urgent: bool) {
        if urgent {
            self.runtime.block_on(self.link.send_urgent(message));
        } else {
            self.runtime.block_on(self.link.send_bulk(message));
        }
    }

    fn drop_session(&self, why: &str) {
        self.link.drop_session(why);
    }

    fn set_bwlimit(&self, rate: Option<u64>) {
        self.link.set_bwlimit(rate);
    }

    fn counters(&self) -> Counters {
        self.link.counters()
    }

    fn close(&self) {
        self.runtime.block_on(self.link.close());
    }
}
