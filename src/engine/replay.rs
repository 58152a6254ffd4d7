//! The journal's tail, applied to the share, and what it tells beside: which of the peer's cuts were cut short,
//! and after power loss, which files are not certain and why.
//!
//! Invariant: what is [`Shaky`] the peer had made durable, and no sync of this disk since is known.

use super::error::Error;
use super::pending::Redo;
use super::reconcile::End;
use crate::model::chunk::{self, ChunkSet};
use crate::model::codec;
use crate::model::dirty::Dirty;
use crate::model::file::Shaky;
use crate::model::ids::{FileId, LogPosition, Seq, WriterId};
use crate::model::name::Name;
use crate::model::record::{Record, Taken};
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::Lsn;
use std::collections::{BTreeMap, BTreeSet};

/// What the journal's tail came to, beside the share.
#[derive(Default)]
pub(super) struct Replayed {
    /// Cuts of the peer whose apply was cut short.
    pub redo: Vec<Redo>,
    /// After power loss: cuts that were applied, but perhaps not to the disk.
    pub undurable: Vec<(Redo, Vec<Taken>)>,
    /// After power loss: files that were being changed here.
    pub suspects: BTreeSet<FileId>,
    pub shaky: BTreeMap<FileId, Shaky>,
    /// Files that were made shorter, perhaps not on the disk, and to how many bytes.
    pub shrunk: BTreeMap<FileId, u64>,
    /// Names that files had at the checkpoint or since, and gave up.
    pub former: BTreeMap<FileId, BTreeSet<Name>>,
    /// Inodes of files that were forgotten.
    pub gone: BTreeMap<u64, FileId>,
    /// Those of them that the peer unlinked.
    pub thrown: BTreeSet<u64>,
}

/// A cut of the peer.
struct Taking {
    redo: Redo,
    begun: Lsn,
    /// What it did, and the record that says so.
    taken: Option<(Lsn, Vec<Taken>)>,
}

/// Content and attributes of a file that the peer has, with the record from which on it had them.
#[derive(Default)]
struct Had {
    chunks: Dirty,
    attrs: Lsn,
}

struct Replay<'a> {
    share: &'a mut Share,
    end: End,
    cuts: BTreeMap<(WriterId, Seq), Taking>,
    suspects: BTreeSet<FileId>,
    former: BTreeMap<FileId, BTreeSet<Name>>,
    had: BTreeMap<FileId, Had>,
    shrunk: BTreeMap<FileId, (Lsn, u64)>,
    gone: BTreeMap<u64, FileId>,
    thrown: BTreeSet<u64>,
}

/// Applies the records that the metadata store has not seen.
pub(super) fn replay(
    share: &mut Share,
    records: &[(Lsn, Vec<u8>)],
    after: Lsn,
    end: End,
) -> Result<Replayed, Error> {
    // Who was dirty could be written to without a record.
    let suspects = match end {
        End::Lost => share.files().filter(|(_, f)| f.body_tag != 0).map(|(id, _)| id).collect(),
        _ => BTreeSet::new(),
    };
    let mut replay = Replay {
        share,
        end,
        cuts: BTreeMap::new(),
        suspects,
        former: BTreeMap::new(),
        had: BTreeMap::new(),
        shrunk: BTreeMap::new(),
        gone: BTreeMap::new(),
        thrown: BTreeSet::new(),
    };
    for (lsn, bytes) in records.iter().filter(|r| r.0 > after) {
        let record: Record = codec::decode_own(bytes).map_err(|_| Error::Unreadable("the journal"))?;
        tracing::debug!(?record, "replaying");
        replay.look(*lsn, &record);
        let moving: Vec<(FileId, u64)> =
            record.moves().iter().filter_map(|id| Some((*id, replay.share.file(*id)?.disk))).collect();
        let by_peer = matches!(record, Record::Took { .. });
        replay.apply(*lsn, record);
        for (id, disk) in moving.into_iter().filter(|(id, _)| replay.share.file(*id).is_none()) {
            replay.gone.insert(disk, id);
            if by_peer {
                replay.thrown.insert(disk);
            }
        }
    }
    Ok(replay.outcome())
}

impl Replay<'_> {
    /// What a record tells beside the share, which it has yet to change.
    fn look(&mut self, lsn: Lsn, record: &Record) {
        match record {
            Record::Wrote { file, size, .. }
            | Record::Scrapped { file, size, .. }
            | Record::Resized { file, size } => {
                self.suspects.insert(*file);
                if self.share.file(*file).is_some_and(|f| *size < f.size) {
                    let least = self.shrunk.get(file).map_or(*size, |before| before.1.min(*size));
                    self.shrunk.insert(*file, (lsn, least));
                }
            }
            Record::Touched { file, .. } | Record::Adopted { file, .. } | Record::Created { file, .. } => {
                self.suspects.insert(*file);
            }
            Record::Thanked { acks } => acks.iter().for_each(|ack| self.peer_has(ack.file, ack.body, lsn)),
            Record::Took { files, .. } => files.iter().for_each(|taken| self.peer_gave(taken, lsn)),
            Record::Present { file, chunks } => self.mark(*file, chunks, lsn),
            Record::Synced { file, upto } => self.synced(*file, *upto),
            _ => {}
        }
        for id in record.moves() {
            let name = self.share.file(id).and_then(|f| f.name.clone());
            self.former.entry(id).or_default().extend(name);
        }
        if let Record::Wrote { file, chunks, .. } = record {
            // What was changed here since must not be written over.
            let taken = self.cuts.values_mut().filter_map(|c| c.taken.as_mut()).flat_map(|t| &mut t.1);
            let bodies = taken.filter(|t| t.file == *file).filter_map(|t| t.body.as_mut());
            bodies.for_each(|b| b.changed.subtract(chunks));
        }
    }

    fn apply(&mut self, lsn: Lsn, record: Record) {
        match record {
            Record::Redo { cut, staged } => {
                let (key, redo) = ((cut.writer, cut.seq), Redo { cut: *cut, staged });
                self.cuts.insert(key, Taking { redo, begun: lsn, taken: None });
            }
            Record::Took { from, ref files, .. } => {
                self.share.apply(&record);
                self.took(from, lsn, files);
            }
            Record::Thanked { ref acks } => {
                let mut gone: BTreeSet<FileId> = acks.iter().map(|ack| ack.file).collect();
                gone.retain(|id| self.share.file(*id).is_some());
                self.share.apply(&record);
                gone.retain(|id| self.share.file(*id).is_none());
                self.pass_over(&gone, |_, _| true);
            }
            Record::Durable { ref cuts } => self.durable(cuts),
            // After a loss the delivered bytes themselves may be gone: they are fetched again, ...
            Record::Present { .. } if self.end == End::Lost => {}
            // ... but for those that were synced to be put under their name.
            Record::Published { file } if self.end == End::Lost => {
                let size = self.share.file(file).map_or(0, |f| f.size);
                self.share.apply(&Record::Present { file, chunks: ChunkSet::of(0..chunk::count(size)) });
                self.share.apply(&record);
            }
            record => self.share.apply(&record),
        }
    }

    /// The peer has what our cut `seq` told of `file`.
    fn peer_has(&mut self, file: FileId, seq: Seq, lsn: Lsn) {
        let Some(f) = self.share.file(file).filter(|_| seq != 0) else { return };
        let thanked: ChunkSet =
            f.dirty.changed().iter().filter(|c| c.seq <= seq).map(|c| c.start..c.end).collect();
        let attrs = f.attrs_tag != 0 && f.attrs_tag <= seq;
        drop(f);
        self.mark(file, &thanked, lsn);
        if attrs {
            self.had.entry(file).or_default().attrs = lsn;
        }
    }

    /// A cut of the peer brought this.
    fn peer_gave(&mut self, taken: &Taken, lsn: Lsn) {
        let Some(body) = &taken.body else { return };
        let mut came = body.changed.clone();
        came.subtract(&body.missing);
        match body.agreed {
            Some(agreed) => self.peer_has(taken.file, agreed.seq, lsn),
            None => self.had.entry(taken.file).or_default().attrs = lsn,
        }
        self.mark(taken.file, &came, lsn);
    }

    fn mark(&mut self, file: FileId, chunks: &ChunkSet, lsn: Lsn) {
        let had = self.had.entry(file).or_default();
        chunks.iter().for_each(|range| had.chunks.mark(range, lsn));
    }

    /// What was in `file` when record `upto` was made is on this disk.
    fn synced(&mut self, file: FileId, upto: Lsn) {
        if planted(Bug::ForgetSynced) {
            return;
        }
        if let Some(had) = self.had.get_mut(&file) {
            had.chunks.thank(upto);
            had.attrs = if had.attrs <= upto { 0 } else { had.attrs };
        }
        self.shrunk.retain(|id, (lsn, _)| *id != file || *lsn > upto);
    }

    /// A cut was applied. Earlier ones that came to no end are of no matter any more for the files of this one.
    fn took(&mut self, from: LogPosition, lsn: Lsn, files: &[Taken]) {
        let Some(done) = self.cuts.get_mut(&(from.writer, from.seq)) else { return };
        done.taken = Some((lsn, files.to_vec()));
        let (begun, files) = (done.begun, done.redo.cut.files.iter().map(|f| f.file).collect());
        // Of one writer by their numbers: what failed is begun once more, after others that wait behind it.
        self.pass_over(
            &files,
            |(writer, seq), cut| {
                if *writer == from.writer { *seq <= from.seq } else { cut.begun <= begun }
            },
        );
    }

    /// What `earlier` cuts that came to no end have to say of `files` is of no matter any more.
    fn pass_over(&mut self, files: &BTreeSet<FileId>, earlier: impl Fn(&(WriterId, Seq), &Taking) -> bool) {
        self.cuts.retain(|key, cut| {
            cut.taken.is_some() || !earlier(key, cut) || {
                cut.redo.pass_over(files);
                !cut.redo.cut.files.is_empty()
            }
        });
    }

    /// What these cuts did was synced.
    fn durable(&mut self, cuts: &[Seq]) {
        let done = self.cuts.extract_if(.., |key, cut| cuts.contains(&key.1) && cut.taken.is_some());
        let taken: Vec<(Lsn, Vec<Taken>)> = done.filter_map(|(_, cut)| cut.taken).collect();
        for (lsn, taken) in taken {
            for taken in taken.iter().filter(|t| t.body.is_some()) {
                self.synced(taken.file, lsn);
                // Synced as a whole; changed again, it has a durable record.
                if self.share.file(taken.file).is_some_and(|f| f.body_tag == 0) {
                    self.suspects.remove(&taken.file);
                }
            }
        }
    }

    fn outcome(self) -> Replayed {
        let mut replayed =
            Replayed { former: self.former, gone: self.gone, thrown: self.thrown, ..Replayed::default() };
        let lost = self.end == End::Lost;
        for cut in self.cuts.into_values() {
            match cut.taken {
                None => replayed.redo.push(cut.redo),
                Some((_, taken)) if lost => replayed.undurable.push((cut.redo, taken)),
                Some(_) => {}
            }
        }
        if lost {
            let shaky = |had: Had| Shaky { chunks: had.chunks.since(0).collect(), attrs: had.attrs != 0 };
            replayed.suspects = self.suspects;
            if !planted(Bug::TrustDisk) {
                replayed.shaky = self.had.into_iter().map(|(file, had)| (file, shaky(had))).collect();
            }
            replayed.shrunk = self.shrunk.into_iter().map(|(file, (_, size))| (file, size)).collect();
        }
        replayed
    }
}
