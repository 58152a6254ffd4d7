//! Connections that have not yet proved what they must know.
//!
//! Invariant: they are at most [`STRANGERS`]; when full, the oldest from the address with the most of them goes, so who
//! knocks often shuts out only itself.

use crate::model::limits::STRANGERS;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Connections that have proved nothing yet.
#[derive(Default)]
pub struct Strangers(Mutex<Vec<Entry>>);

struct Entry {
    ip: IpAddr,
    token: CancellationToken,
    number: u64,
}

/// One such connection; counted until dropped.
pub struct Stranger {
    all: Arc<Strangers>,
    token: CancellationToken,
    number: u64,
}

impl Strangers {
    pub fn enter(self: &Arc<Strangers>, ip: IpAddr) -> Stranger {
        let mut entries = self.0.lock();
        if entries.len() >= STRANGERS {
            let mut counts: HashMap<IpAddr, usize> = HashMap::new();
            entries.iter().for_each(|e| *counts.entry(e.ip).or_default() += 1);
            let crowd = counts.into_iter().max_by_key(|(_, count)| *count).map(|(ip, _)| ip);
            if let Some(oldest) = entries.iter().position(|e| Some(e.ip) == crowd) {
                entries.remove(oldest).token.cancel();
            }
        }
        let number = entries.last().map_or(0, |e| e.number + 1);
        let token = CancellationToken::new();
        entries.push(Entry { ip, token: token.clone(), number });
        Stranger { all: self.clone(), token, number }
    }
}

impl Stranger {
    /// Waits until it has to make room for another one.
    pub async fn has_to_go(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.all.0.lock().retain(|e| e.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_from_one_address_shuts_out_only_itself() {
        let strangers = Arc::new(Strangers::default());
        let peer = strangers.enter([10, 0, 0, 2].into());
        let crowd: Vec<_> = (0..1000).map(|_| strangers.enter([10, 0, 0, 66].into())).collect();
        assert!(!peer.token.is_cancelled());
        assert_eq!(strangers.0.lock().len(), STRANGERS);
        assert_eq!(crowd.iter().filter(|s| !s.token.is_cancelled()).count(), STRANGERS - 1);
        assert!(crowd.last().is_some_and(|s| !s.token.is_cancelled()));
        drop((peer, crowd));
        assert!(strangers.0.lock().is_empty());
    }
}
