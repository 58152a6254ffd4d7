//! What of each file is held, as people see and choose it: `pin`, `fetch`, `free`, and the extended attributes
//! `user.syncfs.*`, which are answers and orders, and lie on no disk.

use super::error::ResidencyError;
use super::host::Host;
use super::node::{Handle, Node};
use super::queues::Sweep;
use crate::fs::error::Error;
use crate::fs::volume::Result;
use crate::model::chunk;
use crate::model::conflict::is_conflict_copy;
use crate::model::file::File;
use crate::model::ids::FileId;
use crate::model::ignore::ignore_file_name;
use crate::model::limits::CHUNK;
use crate::model::message::Message;
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::share::Share;
use crate::store::Content;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// How a file stands.
#[derive(Clone, Debug, Serialize)]
pub struct Residency {
    /// Bytes.
    pub size: u64,
    /// Bytes of it that are here.
    pub held: u64,
    pub pinned: bool,
    /// `synced`, `pending`, `partial`, `conflict` or `ignored`.
    pub state: &'static str,
}

/// The attributes begin with this.
pub(super) const PREFIX: &[u8] = b"user.syncfs.";

impl Residency {
    fn of(name: &Name, file: &File, stays: bool) -> Residency {
        let state = match () {
            () if stays => "ignored",
            () if is_conflict_copy(name) => "conflict",
            () if !file.is_thanked() => "pending",
            () if !file.is_whole() => "partial",
            () => "synced",
        };
        Residency { size: file.size, held: file.size - file.missing_bytes(), pinned: file.pinned, state }
    }

    /// The value of `user.syncfs.` and then this.
    fn attribute(&self, name: &[u8]) -> Option<String> {
        match name {
            b"state" => Some(self.state.to_owned()),
            b"held" => Some(self.held.to_string()),
            b"pin" => Some(u8::from(self.pinned).to_string()),
            _ => None,
        }
    }
}

/// Bytes of all files that are pinned, but for `file`.
fn pinned(share: &Share, file: FileId) -> u64 {
    let own = share.file(file).filter(|f| f.pinned && f.name.is_some()).map_or(0, |f| f.size);
    share.totals().pinned_bytes - own
}

/// The file that says what stays here.
pub(super) fn ignore_file(share: &Share) -> Option<FileId> {
    share.named(&ignore_file_name())
}

impl Host {
    fn named(&self, name: &str) -> std::result::Result<FileId, ResidencyError> {
        let known = Name::new(name.as_bytes()).ok().and_then(|name| self.share.lock().named(&name));
        known.ok_or_else(|| ResidencyError::NoSuchFile(name.to_owned()))
    }

    /// How the file `name` stands.
    ///
    /// # Errors
    /// There is no such file.
    pub fn residency(&self, name: &str) -> std::result::Result<Residency, ResidencyError> {
        let known = Name::new(name.as_bytes()).ok().and_then(|name| self.residency_of(&name));
        known.ok_or_else(|| ResidencyError::NoSuchFile(name.to_owned()))
    }

    /// The same; `None` where there is no such file.
    pub fn residency_of(&self, name: &Name) -> Option<Residency> {
        let share = self.share.lock();
        share.file(share.named(name)?).map(|file| Residency::of(name, &file, self.stays_here(&file)))
    }

    fn residency_by_id(&self, id: FileId) -> Option<Residency> {
        let share = self.share.lock();
        let file = share.file(id)?;
        Some(Residency::of(file.name.as_ref()?, &file, self.stays_here(&file)))
    }

    /// All of the file is held from here on, whatever the cache is; or no more so.
    ///
    /// # Errors
    /// There is no such file, it does not fit into the cache beside what is pinned already, or the disk's.
    pub fn pin(&self, name: &str, pinned: bool) -> std::result::Result<(), ResidencyError> {
        let id = self.named(name)?;
        self.pin_file(id, pinned)
    }

    fn pin_file(&self, file: FileId, pinned: bool) -> std::result::Result<(), ResidencyError> {
        let missing = {
            let mut share = self.share.lock();
            let Some(f) = share.file(file).filter(|f| f.pinned != pinned) else { return Ok(()) };
            let (size, missing) = (f.size, f.missing.len());
            drop(f);
            if let Some(limit) = self.holding.cache(|cache| cache.limit()).filter(|_| pinned) {
                let pins = self::pinned(&share, file);
                if pins + size > limit {
                    return Err(ResidencyError::TooLarge { size, pins, limit });
                }
            }
            self.commit(&mut share, Record::Pinned { file, pinned })?;
            missing
        };
        self.journal.sync(self.journal.end())?;
        match pinned {
            true => self.fetch.enqueue(file, missing),
            false => self.more_may_go(),
        }
        self.pump();
        Ok(())
    }

    /// Begins to bring over what is missing of the file. Who waits for it looks at [`Host::residency`], and asks again.
    ///
    /// # Errors
    /// There is no such file, it does not fit into the cache, or the peer is not there.
    pub fn fetch(&self, name: &str) -> std::result::Result<(), ResidencyError> {
        let id = self.named(name)?;
        let (size, missing, pins) = {
            let share = self.share.lock();
            let Some(f) = share.file(id).filter(|f| !f.is_whole()) else { return Ok(()) };
            (f.size, f.missing.len(), pinned(&share, id))
        };
        if let Some(limit) = self.holding.cache(|cache| cache.limit()).filter(|limit| size + pins > *limit) {
            return Err(ResidencyError::TooLarge { size, pins, limit });
        }
        if self.holding.refuses(missing * CHUNK) {
            return Err(ResidencyError::Full);
        }
        if !self.fetch.is_up() {
            return Err(ResidencyError::NotConnected);
        }
        self.fetch.want_whole(id, missing);
        self.pump();
        Ok(())
    }

    /// Returns when all of the file is here, or it is gone.
    pub async fn until_held(&self, name: &str) {
        let mut progress = self.progress.subscribe();
        while self.residency(name).is_ok_and(|residency| residency.held < residency.size) {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets go what is here of the file, as far as the peer has it. Returns how many bytes of the disk that made free.
    ///
    /// # Errors
    /// There is no such file, this host is to hold everything, the file is pinned, or the disk's.
    pub fn free(&self, name: &str) -> std::result::Result<u64, ResidencyError> {
        let id = self.named(name)?;
        if !self.holding.is_cache() {
            return Err(ResidencyError::HoldsAll);
        }
        let going = {
            let share = self.share.lock();
            if !share.header().may_evict {
                return Err(ResidencyError::PeerHoldsLess);
            }
            let Some(f) = share.file(id) else { return Ok(0) };
            if f.pinned {
                return Err(ResidencyError::Pinned);
            }
            f.can_go(&(0..chunk::count(f.size))).into_iter().collect()
        };
        let _sweeping = self.holding.sweeping.lock();
        Ok(self.evict(BTreeMap::from([(id, going)]))?)
    }

    /// The value of the attribute `name`, which begins with [`PREFIX`].
    pub(super) fn attribute(&self, file: Option<FileId>, name: &[u8]) -> Result<Vec<u8>> {
        let residency = file.and_then(|id| self.residency_by_id(id));
        let value = residency.and_then(|r| r.attribute(name.strip_prefix(PREFIX)?));
        value.map(String::into_bytes).ok_or(Error::NoAttribute)
    }

    /// Only the pin can be set.
    pub(super) fn set_attribute(&self, file: Option<FileId>, name: &[u8], value: &[u8]) -> Result<()> {
        let pinned = match (name.strip_prefix(PREFIX), value) {
            (Some(b"pin"), b"1") => true,
            (Some(b"pin"), b"0" | b"") => false,
            (Some(b"pin"), _) => return Err(Error::Invalid),
            _ => return Err(Error::NotPermitted),
        };
        self.pin_file(file.ok_or(Error::NotFound)?, pinned).map_err(|error| match error {
            ResidencyError::TooLarge { .. } => Error::NoRoom,
            error => Error::Io(std::io::Error::other(error)),
        })
    }

    /// Whether anything has yet to come that this host is to hold.
    pub(super) fn awaits_content(&self, share: &Share) -> bool {
        self.wanted(share).next().is_some()
    }

    /// The files of which something has yet to come, each with how many chunks.
    pub(super) fn wanted<'a>(&'a self, share: &'a Share) -> impl Iterator<Item = (u64, FileId)> + 'a {
        // A cache may lack nearly everything, and want nothing of it.
        let nothing = self.holding.is_cache() && share.totals().pinned_missing == 0;
        let own = ignore_file(share).filter(|id| nothing && share.lacking().contains(*id));
        let all = (!nothing).then(|| share.lacking().iter());
        all.into_iter().flatten().chain(own).filter_map(|id| {
            let file = share.file(id).filter(|f| self.holding.wants_all(f))?;
            Some((file.missing.len(), id))
        })
    }

    /// What the peer acknowledges from here on it may not hold; or it holds all that it ever acknowledged.
    pub(super) fn peer_holds_less(&self, less: bool) {
        let mut share = self.share.lock();
        if share.header().peer_holds_less != less
            && let Err(error) = self.commit(&mut share, Record::PeerHoldsLess { less })
        {
            tracing::error!("what the peer holds could not be journaled: {error}");
        }
    }

    /// The peer holds all that it ever acknowledged, and knows what this host does.
    pub(super) fn peer_holds_all(&self) {
        self.peer_holds_less(false);
        if !self.holding.is_cache() {
            return;
        }
        let mut share = self.share.lock();
        if !share.header().may_evict
            && let Err(error) = self.commit(&mut share, Record::MayEvict { may: true })
        {
            tracing::error!("that the peer holds everything could not be journaled: {error}");
        }
        drop(share);
        self.more_may_go();
    }

    /// What could not go before may go now.
    pub(super) fn more_may_go(&self) {
        if self.holding.is_cache() {
            self.holding.refuses_nothing();
            self.holding.sweep(Sweep::Room(0));
        }
    }

    /// Says so, once in a session, as soon as everything that this host has acknowledged is here.
    pub(super) fn tell_holds_all(&self) {
        let holds_all = {
            let share = self.share.lock();
            !self.holding.is_cache() && !self.awaits_content(&share) && share.unsettled().is_empty()
        };
        if holds_all
            && self.outbound.lock().session().is_some()
            && !self.holding.told_all.swap(true, Ordering::Relaxed)
        {
            // What this host knows of the peer must not go with the power: it would let go of what nobody else has.
            match self.journal.sync(self.journal.end()) {
                Ok(()) => self.tell(Message::HoldsAll),
                Err(error) => tracing::error!("the peer can't be told that everything is here: {error}"),
            }
        }
    }

    /// A file that was in use in a way that let nothing go is so no more: its content was used just now.
    pub(super) fn leave_in_cache(&self, open: &Handle) {
        let id = open.node.id;
        self.holding.lets_go(id);
        self.holding.refuses_nothing();
        let held = self.share.lock().file(id).map(|f| f.held()).unwrap_or_default();
        held.iter().for_each(|range| self.holding.used(id, range));
        self.measure(&open.node, &open.file);
    }

    /// What the file takes on the disk may have changed.
    pub(super) fn measure(&self, node: &Node, content: &Content) {
        if self.holding.is_cache()
            && self.share.lock().file(node.id).is_some_and(|f| f.name.is_some())
            && let Ok(stat) = content.stat()
        {
            self.holding.weigh(node.id, &stat);
        }
    }

    /// Sees to it that `bytes` of new content find room in the cache. Called without locks: what was used long ago may have to
    /// go first.
    ///
    /// # Errors
    /// Nothing more can go.
    pub(super) fn admit_content(&self, bytes: u64) -> Result<()> {
        let over = self.holding.cache(|cache| cache.excess(bytes)).unwrap_or(0);
        match over > 0 && !self.make_room(bytes) {
            true => Err(Error::NoRoom),
            false => Ok(()),
        }
    }
}
