//! Bringing content over: what is missing of files, and what large cuts need before they apply.
//!
//! Invariants:
//! - at most `WINDOW_BYTES` are asked for and not yet delivered, but for what a reader waits for, and once
//!   as much for changes that wait for their content;
//! - a chunk is written only while it is missing and no cut has changed it since it was asked for;
//! - a file goes under its own name only when its content is durable.

use super::bases::{Job, Request, Target};
use super::channel::Channel;
use super::host::Host;
use super::node::{Data, Node};
use super::pieces::{digest, write_through};
use super::queues::{self, Filling, Inbound, Sweep, Trigger, Turn};
use super::wants::{State, Wish};
use super::worker::Worker;
use crate::fs::error::Error;
use crate::fs::volume::Result;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::Piece;
use crate::model::file::File;
use crate::model::ids::FileId;
use crate::model::ignore::is_ignore_file;
use crate::model::likeness::WORTH_BYTES;
use crate::model::limits::{ASKED, CHUNK, GROUP_BYTES, REQUESTS, WINDOW_BYTES};
use crate::model::message::{Ack, Message};
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::store::{At, Time};
use rustix::fs::RenameFlags;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// After an error of the disk, content is asked for again this much later.
const RETRY: Duration = Duration::from_secs(1);

impl Host {
    pub(super) fn fetch_up(&self) {
        let lacking: Vec<(u64, FileId)> = {
            let share = self.share.lock();
            self.wanted(&share).collect()
        };
        {
            let mut state = self.fetch.state.lock();
            state.up = true;
            state.queue.extend(lacking);
        }
        self.pump();
    }

    pub(super) fn fetch_down(&self) {
        let mut state = self.fetch.state.lock();
        let next = state.next;
        *state = State { next, ..State::default() };
        drop(state);
        self.holding.told_all.store(false, Ordering::Relaxed);
        self.fetch.arrived.notify_waiters();
    }

    /// Asks for as much as the window allows.
    pub(super) fn pump(&self) {
        let Some(link) = self.link.get() else { return };
        loop {
            let share = self.share.lock();
            let mut state = self.fetch.state.lock();
            if !state.up {
                return;
            }
            // A change that waits for its content goes before the background copy, and past a window that is
            // full of it.
            let may_ask = state.may_ask();
            let need = if may_ask && state.bytes < 2 * WINDOW_BYTES { state.next_need() } else { None };
            let asks = may_ask && need.is_none() && state.bytes < WINDOW_BYTES && !state.queue.is_empty();
            let wanted = |f: &File| self.holding.wants_all(f);
            let missing = |state: &mut State| {
                let room =
                    if asks { self.holding.room(&self.backing).saturating_sub(state.coming()) } else { 0 };
                let next = state.next_missing(&share, (self.least(), room), wanted);
                if asks && next.is_none() && room < GROUP_BYTES && !state.queue.is_empty() {
                    self.has_room(state.coming() + GROUP_BYTES.min(self.holding.eager()));
                }
                next
            };
            let next = need.or_else(|| missing(&mut state).map(|message| (message, false)));
            let unsigned = state.bases.take_unsigned();
            unsigned.into_iter().for_each(|key| self.fetch.job(Job::Sign(key)));
            let Some((mut message, compare)) = next else { return };
            drop(state);
            drop(share);
            if let Message::Retrieve { file, start, end, digest, .. } = &mut message
                && compare
            {
                *digest = self.digest_of(*file, &(*start..*end));
            }
            self.send_request(link.as_ref(), message);
        }
    }

    /// Whether `bytes` more may come in the background. If not, sees to it that room is made.
    fn has_room(&self, bytes: u64) -> bool {
        let fits = self.holding.excess(&self.backing, bytes) == 0;
        if !fits && self.holding.is_cache() && !self.holding.refuses(bytes) {
            self.holding.sweep(Sweep::Room(bytes));
        }
        fits
    }

    /// Content of fewer bytes is not worth comparing.
    pub(super) fn least(&self) -> u64 {
        WORTH_BYTES.min(self.options.inline_bytes)
    }

    /// What is compared has to be read first.
    fn send_request(&self, link: &dyn Channel, message: Message) {
        match message {
            Message::Compare { .. } => self.fetch.job(Job::Compare(message)),
            message => link.send(message),
        }
    }

    /// The digest of what lies in a file, as far as it goes.
    fn digest_of(&self, id: FileId, chunks: &Range<u64>) -> Option<[u8; 32]> {
        let node = self.node(id)?;
        let file = self.data_file(&node, &mut node.data.lock(), false).ok()?;
        let mut bytes = vec![0; ((chunks.end - chunks.start) * CHUNK) as usize];
        let len = file.read_full_at(&mut bytes, chunks.start * CHUNK).ok()?;
        bytes.truncate(len);
        Some(digest(&[Piece { first: chunks.start, bytes }]))
    }

    /// Brings what `file` needs before it can be cut: the rest of chunks written, or cut off, in part.
    pub(super) fn fetch_for_cut(&self, file: FileId) {
        let share = self.share.lock();
        let Some(f) = share.file(file) else { return };
        let (torn, lacks) = (f.torn(), f.missing.len());
        drop(share);
        if !self.ask_now(file, &torn) {
            self.fetch.want_whole(file, lacks);
            self.pump();
        }
    }

    /// Asks for chunks that somebody waits for, ahead of everything else. False where that were too many requests at once: for
    /// the rest it is to be called again when some have come.
    fn ask_now(&self, file: FileId, chunks: &ChunkSet) -> bool {
        self.ask(file, chunks, false)
    }

    /// Asks for chunks that somebody will read soon, as long as there is room for them.
    pub(super) fn ask_ahead(&self, file: FileId, chunks: &Range<u64>) {
        if self.has_room(self.fetch.coming() + (chunks.end - chunks.start) * CHUNK) {
            self.ask(file, &ChunkSet::of(chunks.clone()), true);
        }
    }

    fn ask(&self, file: FileId, chunks: &ChunkSet, ahead: bool) -> bool {
        let Some(link) = self.link.get() else { return true };
        let mut messages = Vec::new();
        let all = {
            let share = self.share.lock();
            let Some(f) = share.file(file) else { return true };
            let mut state = self.fetch.state.lock();
            if !state.up {
                return true;
            }
            let mut wanted: ChunkSet = chunks.iter().flat_map(|r| f.missing.within(&r)).collect();
            // What was asked for as urgently already is on its way; what flies as bulk may be far behind.
            let urgent = state.requests.values().filter(|r| r.file == file && (ahead || r.bytes == 0));
            let flying: Vec<ChunkSet> = urgent.map(|r| r.expect.clone()).collect();
            flying.iter().for_each(|set| wanted.subtract(set));
            if let Some(stalled) = state.stalled.get(&file) {
                wanted.subtract(stalled);
            }
            let version = f.peers_version(&share.us());
            let room = if ahead { ASKED } else { REQUESTS }.saturating_sub(state.requests.len());
            let mut parts = wanted.iter().flat_map(chunk::groups);
            for part in parts.by_ref().take(room) {
                let wish = Wish { target: Target::Missing, file, version: version.clone(), size: f.size };
                messages.push(state.ask(wish, part, true));
            }
            parts.next().is_none()
        };
        messages.into_iter().for_each(|m| self.send_request(link.as_ref(), m));
        all
    }

    /// Waits until all of `chunks` of `file` are held, and fails in bounded time where they do not come.
    pub(super) async fn fetch_wait(self: Arc<Self>, file: FileId, chunks: Range<u64>) -> Result<()> {
        let deadline = tokio::time::Instant::now() + self.options.read_timeout;
        // Where a read has failed the kernel asks once more, for less. It need not wait as long again.
        let mut given_up = self.fetch.silence() >= self.options.read_timeout;
        loop {
            let arrived = self.fetch.arrived.notified();
            let lacks: ChunkSet = {
                let share = self.share.lock();
                let Some(f) = share.file(file) else { return Err(Error::NotHere) };
                let end = chunk::count(f.size).min(chunks.end);
                f.missing.within(&(chunks.start..end.max(chunks.start))).into_iter().collect()
            };
            if lacks.is_empty() {
                return Ok(());
            }
            if !self.fetch.is_up() {
                tracing::warn!("a read failed: the peer that holds the content is not connected");
                return Err(Error::NotHere);
            }
            let needs = if self.holding.is_cache() { self.fetch.room_for(file, &lacks) } else { 0 };
            if needs == 0 || self.holding.excess(&self.backing, needs) == 0 {
                self.ask_now(file, &lacks);
            } else if !self.holding.refuses(needs) {
                self.holding.sweep(Sweep::Room(needs));
            } else if self.fetch.coming() == 0 {
                tracing::warn!("a read failed: the cache is full of what can't go from it");
                return Err(Error::NoRoom);
            }
            // Else what is under way may go once it has come.
            given_up = given_up || tokio::time::timeout_at(deadline, arrived).await.is_err();
            if given_up {
                tracing::warn!(
                    "a read failed: the peer did not deliver within {:?}",
                    self.options.read_timeout
                );
                return Err(Error::NotHere);
            }
        }
    }

    fn filled(&self, filling: Filling) {
        let (id, pieces) = match filling {
            Filling::Deliver { request, pieces, sha256 }
                if digest(&pieces) == sha256 || planted(Bug::TrustDelivered) =>
            {
                (request, pieces)
            }
            Filling::Deliver { .. } => {
                self.distrust("the peer delivered content that does not match its digest");
                return;
            }
            Filling::Superseded { request } => (request, Vec::new()),
            Filling::Made { request, pieces } => (request, pieces),
            Filling::Differs { request } => {
                {
                    let mut state = self.fetch.state.lock();
                    let Some((key, way)) = state.requests.get(&request).map(|r| (r.key(), r.way)) else {
                        return;
                    };
                    state.bases.differs(key, way);
                    state.all_again(request);
                }
                self.fetch.arrived.notify_waiters();
                self.pump();
                return;
            }
            Filling::Same { request } if self.fetch.is_comparing(request) => {
                self.fetch.job(Job::Same { request });
                return;
            }
            Filling::Same { request } => {
                let answered = self.fetch.state.lock().done(request, &[]);
                if let Some(Request { target: Target::Staged(cut), file, expect, .. }) = answered {
                    self.inbox.send(Inbound::Same { cut, file, chunks: expect });
                }
                self.pump();
                return;
            }
            Filling::Stop => return,
        };
        let Some((target, file)) = self.fetch.state.lock().requests.get(&id).map(|r| (r.target, r.file))
        else {
            return;
        };
        match target {
            Target::Staged(cut) => {
                if let Some(request) = self.fetch.state.lock().done(id, &pieces) {
                    self.inbox.send(Inbound::Content {
                        cut,
                        file: request.file,
                        pieces,
                        asked: request.expect,
                    });
                }
            }
            Target::Missing => {
                if let Err(error) = self.fill(file, id, &pieces) {
                    if matches!(error.errno(), libc::ENOSPC | libc::EDQUOT) {
                        self.trash.give_way(&self.backing);
                    }
                    tracing::error!(
                        "delivered content could not be written, and is asked for again: {error}"
                    );
                    self.fetch.state.lock().done(id, &[]);
                    self.ask_again_later(file);
                }
            }
        }
        if self.fetch.has_stalled(file) {
            self.inbox.send(Inbound::Again);
        }
        self.fetch.arrived.notify_waiters();
        self.pump();
    }

    /// Nobody tells when a disk has room again.
    fn ask_again_later(&self, file: FileId) {
        let Some(host) = self.me.upgrade() else { return };
        self.runtime.spawn(async move {
            tokio::time::sleep(RETRY).await;
            let lacks = host.share.lock().file(file).map_or(0, |f| f.missing.len());
            host.fetch.enqueue(file, lacks);
            host.pump();
        });
    }

    /// Writes delivered chunks into a file that lacks them. Until it is known that they are here they are under way.
    fn fill(&self, id: FileId, request: u64, pieces: &[Piece]) -> Result<()> {
        let Some(node) = self.node(id) else {
            self.fetch.state.lock().done(request, pieces);
            return Ok(());
        };
        let mut data = node.data.lock();
        let expect = self.fetch.state.lock().requests.get(&request).map(|r| r.expect.clone());
        let Some(expect) = expect else { return Ok(()) };
        let filled = self.fill_missing(&node, &mut data, &expect, pieces);
        self.fetch.state.lock().done(request, pieces);
        drop(data);
        let filled = filled?;
        let (whole, is_torn) = {
            let share = self.share.lock();
            share.file(id).map_or((false, false), |f| (f.is_whole(), !f.torn().is_empty()))
        };
        // Its cut has waited for this; the rest may have been written here meanwhile.
        if !is_torn && self.outbound.lock().waiting.contains(&id) {
            let _ = self.triggers.send(Trigger::Cut(vec![id], None));
        }
        if !filled {
            return Ok(());
        }
        if whole {
            self.fetch.state.lock().bases.end(id);
            let _ = self.fetch.finished.send(Some(id));
        }
        self.moved();
        Ok(())
    }

    /// Of `pieces` writes what is missing and was `expect`ed; false where that is nothing.
    fn fill_missing(
        &self,
        node: &Node,
        data: &mut Data,
        expect: &ChunkSet,
        pieces: &[Piece],
    ) -> Result<bool> {
        let id = node.id;
        let (missing, scraps, size, mtime) = {
            let share = self.share.lock();
            let Some(f) = share.file(id).filter(|f| f.name.is_some()) else { return Ok(false) };
            // A kill may have left the time of an earlier delivery.
            let mtime = f.mtime.filter(|_| f.is_thanked()).map(Time::from_nanoseconds);
            let missing = pieces.iter().flat_map(|piece| f.missing.within(&piece.chunks()));
            let wanted = |range: Range<u64>| match planted(Bug::FillStale) {
                true => vec![range],
                false => expect.within(&range),
            };
            let missing: ChunkSet = missing.flat_map(wanted).collect();
            (missing, f.scraps.clone(), f.size, mtime)
        };
        if missing.is_empty() {
            return Ok(false);
        }
        let file = self.data_file(node, data, true)?;
        let mtime = mtime.unwrap_or(file.stat()?.mtime);
        for piece in pieces {
            for range in missing.within(&piece.chunks()) {
                let bytes = chunk::bytes(&range, size);
                // The end of a file that has grown since it was asked for: behind that are zeros, here as there.
                let end = piece.first * CHUNK + piece.bytes.len() as u64;
                let come = bytes.start..bytes.end.min(end);
                // Bytes written here since are newer than the chunk they lie in.
                let scraps = if planted(Bug::FillOverWrites) { &ChunkSet::new() } else { &scraps };
                for gap in scraps.gaps(&come) {
                    let at = |byte: u64| (byte - piece.first * CHUNK) as usize;
                    write_through(&file, &piece.bytes[at(gap.start)..at(gap.end)], gap.start)?;
                }
            }
        }
        file.set_times(None, Some(mtime))?;
        if self.holding.is_cache() {
            missing.iter().for_each(|range| self.holding.used(id, &range));
            self.holding.weigh(id, &file.stat()?);
            self.kernel.inval_attributes(node.ino);
        }
        self.commit(&mut self.share.lock(), Record::Present { file: id, chunks: missing })?;
        Ok(true)
    }

    /// Makes files durable that are wholly held now, puts them under their names and thanks for them.
    pub(super) fn finish(&self, files: Vec<FileId>) -> Result<()> {
        let files: BTreeSet<FileId> = files.into_iter().collect();
        let mut whole = Vec::new();
        for id in files {
            let Some(node) = self.node(id) else { continue };
            let file = {
                let mut data = node.data.lock();
                match self.data_file(&node, &mut data, false) {
                    Ok(file) => file,
                    Err(_) => continue,
                }
            };
            if !planted(Bug::PublishUnsynced) {
                self.backing.sync_file(&file)?;
            }
            let _names = self.names.write();
            let _data = node.data.lock();
            let mut share = self.share.lock();
            let Some(f) = share.file(id).filter(|f| f.is_whole()) else { continue };
            let hidden = f.name.clone().filter(|_| f.partial);
            drop(f);
            if let Some(name) = hidden {
                self.backing.rename(At::Partial(id), At::Name(&name), RenameFlags::NOREPLACE)?;
                self.commit(&mut share, Record::Published { file: id })?;
                if is_ignore_file(&name) {
                    let _ = self.triggers.send(Trigger::Look);
                }
            }
            whole.push(id);
        }
        self.backing.sync_names()?;
        self.journal.sync(self.journal.end())?;
        let acks: Vec<Ack> = {
            let share = self.share.lock();
            let owed = |id: &FileId| share.file(*id).filter(|f| f.is_whole()).map_or(0, |f| f.owed);
            let acks = whole.iter().map(|id| Ack { file: *id, place: 0, body: owed(id) });
            acks.filter(|a| a.body != 0).collect()
        };
        if let Some(link) = self.link.get()
            && !acks.is_empty()
        {
            link.send(Message::Thanks { cuts: Vec::new(), acks });
        }
        self.tell_holds_all();
        self.inbox.send(Inbound::Again);
        self.moved();
        Ok(())
    }
}

pub(super) struct Filler(pub Receiver<Filling>);

impl Worker for Filler {
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn {
        match queues::next(&self.0, wait, None) {
            Ok(Some(Filling::Stop)) | Err(_) => Turn::Over,
            Ok(Some(filling)) => {
                host.filled(filling);
                Turn::Worked
            }
            Ok(None) => Turn::Idle,
        }
    }
}

pub(super) struct Finisher(pub Receiver<Option<FileId>>);

impl Worker for Finisher {
    /// One round for all files that have come meanwhile.
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn {
        let first = match queues::next(&self.0, wait, None) {
            Ok(Some(Some(first))) => first,
            Ok(Some(None)) | Err(_) => return Turn::Over,
            Ok(None) => return Turn::Idle,
        };
        let mut files = vec![first];
        let mut turn = Turn::Worked;
        for next in self.0.try_iter() {
            match next {
                Some(id) => files.push(id),
                None => turn = Turn::Over,
            }
        }
        if let Err(error) = host.finish(files) {
            tracing::error!("files could not be made durable: {error}");
        }
        turn
    }
}
