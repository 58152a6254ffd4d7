//! Answering the peer's `Retrieve`, `Compare` and `Match`: a thread of its own, what a reader waits for first.
//!
//! Invariant: a delivered chunk is of exactly the version asked for. Chunks changed since are left
//! out; the cut that changed them brings them.

use super::host::Host;
use super::pieces::digest;
use super::queues::{Request, Turn, Want};
use super::worker::Worker;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::Piece;
use crate::model::delta::{Index, Recipe};
use crate::model::file::File;
use crate::model::limits::{CHUNK, GROUP_BYTES};
use crate::model::message::Message;
use crate::model::sabotage::{Bug, planted};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
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
        let urgent = request.urgent;
        let Some(link) = host.link.get() else { return Turn::Worked };
        match host.answer(&request) {
            message @ (Message::Deliver { .. } | Message::Recipes { .. }) => link.deliver(message, urgent),
            word => link.send(word),
        }
        Turn::Worked
    }
}

/// Whether `pieces` begin where the request does, and leave nothing out before they end.
fn whole(request: &Request, pieces: &[Piece]) -> bool {
    let mut next = request.chunks.start;
    pieces.iter().all(|p| p.first == std::mem::replace(&mut next, p.chunks().end))
}

/// Pieces, with those joined that follow one another.
fn runs(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut runs: Vec<Piece> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run)
                if run.chunks().end == piece.first && (run.bytes.len() as u64).is_multiple_of(CHUNK) =>
            {
                run.bytes.extend(piece.bytes);
            }
            _ => runs.push(piece),
        }
    }
    runs
}

impl Host {
    fn answer(&self, request: &Request) -> Message {
        let id = request.request;
        match request.want {
            Want::Recipes(basis) => match self.signatures.get(basis) {
                Some(index) => self.recipes(request, &index).unwrap_or(Message::Superseded { request: id }),
                None => Message::Differs { request: id },
            },
            want => match self.serve(request, &request.chunks) {
                None => Message::Superseded { request: id },
                Some(pieces) => {
                    let sha256 = digest(&pieces);
                    let is = |told: [u8; 32]| told == sha256 && whole(request, &pieces);
                    match want {
                        Want::Content(Some(told)) | Want::Verdict(told) if is(told) => {
                            Message::Same { request: id }
                        }
                        Want::Verdict(_) => Message::Differs { request: id },
                        _ => Message::Deliver { request: id, pieces, sha256 },
                    }
                }
            },
        }
    }

    /// How to make what can be given of the chunks asked for, from what the peer has signed.
    fn recipes(&self, request: &Request, index: &Index) -> Option<Message> {
        // Blocks that reach out of what is asked for are found by what lies around it.
        let (asked, block) = (&request.chunks, index.block() / CHUNK);
        let around = asked.start.saturating_sub(block)..asked.end + block;
        let (mut recipes, mut end, mut hash, mut new) = (Vec::new(), asked.end, Sha256::new(), 0);
        for Piece { first, bytes } in runs(self.serve(request, &around)?) {
            let at = |chunk: u64| ((chunk.max(first) - first) * CHUNK).min(bytes.len() as u64) as usize;
            let want = at(asked.start)..at(asked.end);
            if want.is_empty() {
                continue;
            }
            let recipe = Recipe { first: first.max(asked.start), parts: index.scan(&bytes, want.clone()) };
            let made = recipe.len() as usize;
            hash.update(&bytes[want.start..want.start + made]);
            new += recipe.len() - recipe.copied();
            let upto = recipe.chunks().end;
            recipes.push(recipe);
            if made < want.len() || new > GROUP_BYTES {
                end = upto;
                break;
            }
        }
        let sha256 = hash.finalize().into();
        let request = request.request;
        (!recipes.is_empty()).then_some(Message::Recipes { request, end, recipes, sha256 })
    }

    /// What can be given of `chunks`; `None` where nothing of that version is left.
    fn serve(&self, request: &Request, chunks: &Range<u64>) -> Option<Vec<Piece>> {
        let node = self.node(request.file).or_else(|| self.nodes.find(request.file))?;
        let mut data = node.data.lock();
        let mut pieces = Vec::new();
        let mut left = ChunkSet::of(chunks.clone());
        let live = {
            let share = self.share.lock();
            // What power loss left uncertain is no version at all.
            let certain =
                |f: &Cow<File>| f.name.is_some() && !f.unsettled && f.body.includes(&request.version);
            share.file(request.file).filter(certain).map(|f| {
                let inside = chunks.start..chunks.end.min(chunk::count(f.size)).max(chunks.start);
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
        let since = {
            let share = self.share.lock();
            let knows = |f: &Cow<File>| !f.unsettled && f.body.includes(&request.version);
            share.file(request.file).filter(knows).map(|_| share.ours_in(&request.version))
        };
        pieces.extend(since.into_iter().flat_map(|since| self.pieces_before(request.file, &left, since)));
        pieces.sort_by_key(|p| p.first);
        (!pieces.is_empty()).then_some(pieces)
    }
}
