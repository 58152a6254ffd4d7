//! Reading what may be like content that is wanted: a thread of its own, as a basis is read as a whole.
//!
//! Invariants:
//! - a basis is read without any lock: it may change meanwhile, and what is put together of it is held against the
//!   peer's digest before it counts;
//! - where anything about a basis goes wrong, its chunks are asked for as if there were none.

use super::bases::{Bases, Job, Key, Request, Way};
use super::host::Host;
use super::queues::{self, Filling, Turn};
use super::worker::Worker;
use crate::model::chunk;
use crate::model::cut::Piece;
use crate::model::delta::{self, Part, Recipe, Signature, Sum};
use crate::model::message::Message;
use crate::model::sabotage::{Bug, planted};
use crate::store::Content;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Bytes of a basis that are signed in one turn.
const SLICE_BYTES: u64 = 4_000_000;

pub(super) struct Matcher {
    ear: Receiver<Job>,
    /// Bases that are being signed, one after the other.
    signing: VecDeque<Signing>,
}

/// A basis of which a signature is made, a slice in each turn: whoever waits for something smaller does not wait for all
/// of it.
struct Signing {
    key: Key,
    file: Content,
    made: Signature,
    /// Bytes that are signed.
    at: u64,
}

impl Matcher {
    pub fn new(ear: Receiver<Job>) -> Matcher {
        Matcher { ear, signing: VecDeque::new() }
    }
}

impl Worker for Matcher {
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn {
        let job = match queues::next(&self.ear, wait && self.signing.is_empty(), None) {
            Ok(Some(job)) => job,
            Ok(None) => {
                let Some(mut signing) = self.signing.pop_front() else { return Turn::Idle };
                if !host.sign_on(&mut signing) {
                    self.signing.push_front(signing);
                }
                return Turn::Worked;
            }
            Err(over) => return over,
        };
        match job {
            Job::Compare(message) => host.compare(message),
            Job::Sign(key) => self.signing.extend(host.begin_to_sign(key)),
            Job::Same { request } => host.take_same(request),
            Job::Make { request, end, recipes, sha256 } => host.make_content(request, end, recipes, sha256),
            Job::Stop => return Turn::Over,
        }
        Turn::Worked
    }
}

impl Host {
    /// Sends a `Compare` with the digest of what is here.
    fn compare(&self, mut message: Message) {
        let Message::Compare { request, digest, .. } = &mut message else { return };
        let id = *request;
        let Some((key, chunks, size)) = self.request(id, |r| (r.key(), r.asked.clone(), r.size)) else {
            return;
        };
        let Some(bytes) = self.read_basis(&key, &chunks, size) else { return self.ask_plainly(id, &key) };
        *digest = Sha256::digest(&bytes).into();
        let noted =
            self.fetch.state.lock().requests.get_mut(&id).map(|r| r.way = Way::Compare(Some(*digest)));
        if noted.is_some() {
            self.tell(message);
        }
    }

    /// The peer has the same as what was compared: it is taken from here.
    fn take_same(&self, id: u64) {
        let Some((key, chunks, size, way)) = self.request(id, |r| (r.key(), r.asked.clone(), r.size, r.way))
        else {
            return;
        };
        let bytes = self.read_basis(&key, &chunks, size).filter(|bytes| {
            let digest: [u8; 32] = Sha256::digest(bytes).into();
            !bytes.is_empty() && way == Way::Compare(Some(digest))
        });
        let Some(bytes) = bytes else { return self.ask_plainly(id, &key) };
        let pieces = vec![Piece { first: chunks.start, bytes }];
        let _ = self.fetch.fillings.send(Filling::Made { request: id, pieces });
    }

    fn begin_to_sign(&self, key: Key) -> Option<Signing> {
        let opened = self.open_basis(&key).and_then(|file| file.len().ok().map(|size| (file, size)));
        let Some((file, size)) = opened else {
            self.not_signed(&key);
            return None;
        };
        let made = Signature { size, block: delta::block_of(size), sums: Vec::new() };
        Some(Signing { key, file, made, at: 0 })
    }

    /// Signs some more of a basis; true once it is done and the peer knows, or nobody wants it any more.
    fn sign_on(&self, signing: &mut Signing) -> bool {
        let Signing { key, file, made, at } = signing;
        let blocks = delta::blocks_of(made.size, made.block);
        let slice = (SLICE_BYTES / made.block).max(1).min(blocks - made.sums.len() as u64) * made.block;
        let mut bytes = vec![0; slice.min(made.size - *at) as usize];
        if !self.fetch.state.lock().bases.is_signing(key) {
            return true;
        }
        if file.read_exact_at(&mut bytes, *at).is_err() {
            self.not_signed(key);
            return true;
        }
        made.sums.extend(bytes.chunks(made.block as usize).map(Sum::of));
        *at += bytes.len() as u64;
        if (made.sums.len() as u64) < blocks {
            return false;
        }
        let mut state = self.fetch.state.lock();
        state.next += 1;
        let number = state.next;
        drop(state);
        tracing::debug!(file = %key.1, size = made.size, block = made.block, "signed what may be like it");
        // It leaves before anybody can ask against it.
        self.tell(Message::Signature { number, signature: made.clone() });
        self.fetch.state.lock().bases.signed(key, number, made.size);
        self.fetch.arrived.notify_waiters();
        self.pump();
        true
    }

    fn not_signed(&self, key: &Key) {
        self.fetch.state.lock().bases.not_signed(key);
        self.fetch.arrived.notify_waiters();
        self.pump();
    }

    /// Puts content together as the peer says.
    fn make_content(&self, id: u64, end: u64, recipes: Vec<Recipe>, sha256: [u8; 32]) {
        let Some((key, asked, way)) = self.request(id, |r| (r.key(), r.asked.clone(), r.way)) else { return };
        let Way::Match { size, .. } = way else {
            return self.distrust("the peer puts together what it was not asked to");
        };
        let inside = |r: &Recipe| r.first >= asked.start && r.chunks().end <= end;
        let held = |p: &Part| !matches!(p, Part::Copy { from, len } if from + len > size);
        if !(asked.start + 1..=asked.end).contains(&end) || !recipes.iter().all(inside) {
            return self.distrust("the peer gives content that it was not asked for");
        }
        if !recipes.iter().flat_map(|r| &r.parts).all(held) {
            return self.distrust("the peer takes content from where there is none");
        }
        let all = recipes.iter().map(Recipe::len).sum::<u64>();
        let copied = recipes.iter().map(Recipe::copied).sum::<u64>();
        let made = self.open_basis(&key).and_then(|basis| make(&basis, recipes));
        let right =
            |pieces: &Vec<Piece>| super::pieces::digest(pieces) == sha256 || planted(Bug::TrustRecipes);
        let Some(pieces) = made.filter(right) else {
            tracing::debug!(file = %key.1, "what it may be like has changed");
            return self.ask_anew(id, |bases| bases.wrong(&key));
        };
        {
            let mut state = self.fetch.state.lock();
            state.bases.took(&key, copied, all - copied);
            state.again(id, end);
        }
        let _ = self.fetch.fillings.send(Filling::Made { request: id, pieces });
    }

    fn request<T>(&self, id: u64, look: impl FnOnce(&Request) -> T) -> Option<T> {
        self.fetch.state.lock().requests.get(&id).map(look)
    }

    /// The basis of a fetch is of no use: what was asked for is asked for without.
    fn ask_plainly(&self, id: u64, key: &Key) {
        self.ask_anew(id, |bases| bases.useless(key));
    }

    fn ask_anew(&self, id: u64, judge: impl FnOnce(&mut Bases)) {
        {
            let mut state = self.fetch.state.lock();
            judge(&mut state.bases);
            state.all_again(id);
        }
        self.fetch.arrived.notify_waiters();
        self.pump();
    }

    /// The basis of a fetch, where all of it is here.
    fn open_basis(&self, key: &Key) -> Option<Content> {
        let source = self.fetch.state.lock().bases.source(key)?;
        let whole = self.share.lock().file(source).is_some_and(|f| f.name.is_some() && f.is_whole());
        let node = self.node(source).filter(|_| whole)?;
        let file = self.data_file(&node, &mut node.data.lock(), false);
        file.ok()
    }

    /// What the basis has at `chunks`, up to byte `size`.
    fn read_basis(&self, key: &Key, chunks: &Range<u64>, size: u64) -> Option<Vec<u8>> {
        let file = self.open_basis(key)?;
        let at = chunk::bytes(chunks, size);
        let mut bytes = vec![0; (at.end - at.start) as usize];
        let len = file.read_full_at(&mut bytes, at.start).ok()?;
        bytes.truncate(len);
        Some(bytes)
    }
}

/// What `recipes` make of `basis`; `None` where it has become shorter.
fn make(basis: &Content, recipes: Vec<Recipe>) -> Option<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(recipes.len());
    for recipe in recipes {
        let mut bytes = Vec::with_capacity(recipe.len() as usize);
        for part in recipe.parts {
            match part {
                Part::Bytes(new) => bytes.extend(new),
                Part::Copy { from, len } => {
                    let begin = bytes.len();
                    bytes.resize(begin + len as usize, 0);
                    basis.read_exact_at(&mut bytes[begin..], from).ok()?;
                }
            }
        }
        pieces.push(Piece { first: recipe.first, bytes });
    }
    Some(pieces)
}
