//! Answering the peer's `Retrieve`: a thread of its own, what a reader waits for first.
//!
//! Invariant: a delivered chunk is of exactly the version asked for. Chunks changed since are left
//! out; the cut that changed them brings them.

use super::host::Host;
use super::pieces::digest;
use super::queues::{Request, Turn};
use super::worker::Worker;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::Piece;
use crate::model::file::File;
use crate::model::message::Message;
use crate::model::sabotage::{Bug, planted};
use std::ops::Range;
use std::sync::Arc;

pub(super) struct Servant;

impl Worker for Servant {
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn {
        let request = match host.server.next(wait) {
            Ok(Some(request)) => request,
            Ok(None) => return Turn::Idle,
            Err(over) => return over,
        };
        let (id, urgent) = (request.request, request.urgent);
        let Some(link) = host.link.get() else { return Turn::Worked };
        match host.serve(&request) {
            Some(pieces)
                if request.digest.is_some_and(|d| whole(&request, &pieces) && d == digest(&pieces)) =>
            {
                link.send(Message::Same { request: id });
            }
            Some(pieces) => {
                let sha256 = digest(&pieces);
                link.deliver(Message::Deliver { request: id, pieces, sha256 }, urgent);
            }
            None => link.send(Message::Superseded { request: id }),
        }
        Turn::Worked
    }
}

/// Whether `pieces` begin where the request does, and leave nothing out before they end.
fn whole(request: &Request, pieces: &[Piece]) -> bool {
    let mut next = request.chunks.start;
    pieces.iter().all(|p| p.first == std::mem::replace(&mut next, p.chunks().end))
}

impl Host {
    /// What can be given of the chunks asked for; `None` where nothing of that version is left.
    fn serve(&self, request: &Request) -> Option<Vec<Piece>> {
        let node = self.node(request.file).or_else(|| self.nodes.find(request.file))?;
        let mut data = node.data.lock();
        let mut pieces = Vec::new();
        let mut left = ChunkSet::of(request.chunks.clone());
        let live = {
            let share = self.share.lock();
            // What power loss left uncertain is no version at all.
            let certain = |f: &&File| f.name.is_some() && !f.unsettled && f.body.includes(&request.version);
            share.file(request.file).filter(certain).map(|f| {
                let inside = request.chunks.start
                    ..request.chunks.end.min(chunk::count(f.size)).max(request.chunks.start);
                let any = planted(Bug::ServeAnyVersion);
                let since = if any { u64::MAX } else { share.ours_in(&request.version) };
                let mut good: ChunkSet = f.dirty.unchanged_since(since, &inside).into_iter().collect();
                good.subtract(&f.missing);
                (good, f.size)
            })
        };
        if let Some((good, size)) = live
            && let Ok(file) = self.data_file(&node, &mut data, false)
        {
            for range in good.iter() {
                let at = chunk::bytes(&range, size);
                let mut bytes = vec![0; (at.end - at.start) as usize];
                if file.read_exact_at(&mut bytes, at.start).is_ok() {
                    // The last chunk may have been longer at that version; only whole ones are the same.
                    left.remove(range.clone());
                    pieces.push(Piece { first: range.start, bytes });
                }
            }
        }
        if let Some(frozen) = &data.frozen {
            let since = self.share.lock().ours_in(&request.version);
            let gaps: Vec<Range<u64>> =
                left.iter().flat_map(|r| frozen.has(&r, &request.version, since)).collect();
            for range in gaps {
                if let Ok(bytes) = frozen.read(&range) {
                    left.remove(range.clone());
                    pieces.push(Piece { first: range.start, bytes });
                }
            }
        }
        pieces.sort_by_key(|p| p.first);
        (!pieces.is_empty()).then_some(pieces)
    }
}
