//! The peer's cuts that are not applied yet, and the content that has come for them.
//!
//! Invariants: a cut is in the queue once, under its number; staged content stays with the cut it came
//! for, and after the session with the version of the file it belongs to.

use super::pieces;
use super::wants::Need;
use crate::model::brake::Names;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::{BodyCut, Cut, FileCut};
use crate::model::file;
use crate::model::ids::{FileId, Seq};
use crate::model::judge::BodyVerdict;
use crate::model::message::Ack;
use crate::model::version::Version;
use crate::store::{self, Content};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// An apply waits this long for programs that hold locks on its files.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A cut of the peer that is not applied yet.
pub(super) struct Pending {
    pub cut: Cut,
    pub content: BTreeMap<FileId, Staged>,
    pub asked: BTreeMap<FileId, ChunkSet>,
    /// Chunks that lie in their files already, as long as these are not certain of them themselves.
    pub same: BTreeMap<FileId, ChunkSet>,
    pub since: Instant,
    pub watched: bool,
    /// It was found in the journal after a crash.
    pub again: bool,
    /// Its redo record is in the journal, or it is among the unfinished.
    pub journaled: bool,
    /// How often it could not be applied.
    pub failures: u32,
    /// What it waits for will not come.
    pub hopeless: bool,
    /// Nor does what our own versions lack that it makes copies of.
    pub incomplete: bool,
    /// What it does to names, as judged when it came.
    pub names: Option<Names>,
}

/// What a cut is waiting for.
pub(super) enum Readiness {
    Ready,
    /// Content in staging.
    Fetch(Vec<Need>),
    /// These files, which are on their way already.
    Wait(Vec<FileId>),
    /// What these lack, whose versions here are about to be kept as copies.
    Complete(Vec<FileId>),
    /// Programs that hold locks.
    Locked(Vec<u64>),
}

/// All cuts of the peer that are not applied yet.
#[derive(Default)]
pub(super) struct Queue {
    /// The disk has refused something: until it is worth another try nothing is applied.
    pub failing: bool,
    pub pending: BTreeMap<Seq, Pending>,
    /// Cuts that were applied and are not durable yet, and what to thank for then.
    pub applied: Vec<Pending>,
    pub thanks: (Vec<Seq>, Vec<Ack>),
    /// Staged content of an earlier session, for the same version of the same file.
    kept: BTreeMap<(FileId, Version), Staged>,
    /// Unlinked files that the peer knows to be so.
    pub gone: Vec<Ack>,
}

/// Content of a large cut, in a staging file at its own offsets.
pub(super) struct Staged {
    pub file: Content,
    pub name: String,
    pub have: ChunkSet,
}

/// A cut that is in the journal and was not wholly applied, with what lies in staging for it.
#[derive(Clone)]
pub(super) struct Redo {
    pub cut: Cut,
    pub staged: Vec<(FileId, ChunkSet)>,
}

/// Cuts that failed in the middle. They outlive checkpoints, for they may show by half: until they are applied, or
/// later ones for all their files are, or these are forgotten.
#[derive(Default)]
pub(super) struct Unfinished(Vec<Redo>);

/// What became of an attempt to apply a cut.
pub(super) enum Outcome {
    Applied(Vec<Ack>),
    NotReady,
}

impl Queue {
    pub fn add(&mut self, cut: Cut) {
        let mut content = BTreeMap::new();
        for file in &cut.files {
            let Some(body) = &file.body else { continue };
            if let Some(kept) = self.kept.remove(&(file.file, body.version.clone())) {
                content.insert(file.file, kept);
            }
        }
        let pending = Pending {
            cut,
            content,
            asked: BTreeMap::new(),
            same: BTreeMap::new(),
            since: Instant::now(),
            watched: false,
            again: false,
            journaled: false,
            failures: 0,
            hopeless: false,
            incomplete: false,
            names: None,
        };
        self.pending.insert(pending.cut.seq, pending);
    }

    /// The session is over: its cuts will be announced anew; what came of them already is kept.
    pub fn keep(&mut self) {
        self.thanks = Default::default();
        for (_, pending) in std::mem::take(&mut self.pending) {
            for (id, content) in pending.content {
                let body = pending.cut.files.iter().find(|f| f.file == id).and_then(|f| f.body.as_ref());
                if let Some(body) = body {
                    self.kept.insert((id, body.version.clone()), content);
                }
            }
        }
    }
}

impl Redo {
    /// What it has to say of `files` is of no matter any more.
    pub fn pass_over(&mut self, files: &BTreeSet<FileId>) {
        self.cut.files.retain(|f| !files.contains(&f.file));
        self.staged.retain(|s| !files.contains(&s.0));
    }
}

impl Unfinished {
    /// The files that may show by half.
    pub fn files(&self) -> BTreeSet<FileId> {
        self.0.iter().flat_map(|redo| &redo.cut.files).map(|f| f.file).collect()
    }

    pub fn failed(&mut self, redo: Redo) {
        let key = |cut: &Cut| (cut.writer, cut.seq);
        self.0.retain(|other| key(&other.cut) != key(&redo.cut));
        self.0.push(redo);
    }

    pub fn applied(&mut self, cut: &Cut) {
        self.pass_over(&cut.files.iter().map(|f| f.file).collect());
    }

    /// As [`Redo::pass_over`], for all.
    pub fn pass_over(&mut self, files: &BTreeSet<FileId>) {
        self.0.iter_mut().for_each(|redo| redo.pass_over(files));
        self.0.retain(|redo| !redo.cut.files.is_empty());
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn all(&self) -> Vec<Redo> {
        self.0.clone()
    }
}

impl Pending {
    /// What the journal says of it before it is applied.
    pub(super) fn redo(&self) -> Redo {
        let staged = self.content.iter().map(|(file, c)| (*file, c.have.clone())).collect();
        Redo { cut: self.cut.clone(), staged }
    }

    /// A cut found in the journal after a crash.
    pub(super) fn again(cut: Cut, content: BTreeMap<FileId, Staged>) -> Pending {
        Pending {
            cut,
            content,
            asked: BTreeMap::new(),
            same: BTreeMap::new(),
            since: Instant::now() - LOCK_PATIENCE,
            watched: true,
            again: true,
            journaled: true,
            failures: 0,
            hopeless: false,
            incomplete: false,
            names: None,
        }
    }

    /// Whether it still waits for programs that hold locks.
    pub(super) fn is_patient(&self) -> bool {
        self.since.elapsed() < LOCK_PATIENCE
    }

    /// The chunks of a file whose content came with the cut or for it.
    pub(super) fn brought(&self, id: FileId, body: &BodyCut) -> ChunkSet {
        let mut brought: ChunkSet = body.pieces.iter().map(|p| p.chunks()).collect();
        self.content.get(&id).into_iter().for_each(|staged| brought.extend(&staged.have));
        brought
    }

    /// Whether `file`, which is to become as `body` says, has that content already.
    pub(super) fn brings_the_same(
        &self,
        id: FileId,
        body: &BodyCut,
        changed: &ChunkSet,
        file: &Content,
    ) -> store::Result<bool> {
        // What has yet to come nobody knows.
        let mut absent = changed.clone();
        absent.subtract(&self.brought(id, body));
        self.same.get(&id).into_iter().for_each(|same| absent.subtract(same));
        if !absent.is_empty() {
            return Ok(false);
        }
        let same = || -> io::Result<bool> {
            let size = file.len()?;
            let staged = self.content.get(&id).map(|c| (&c.file, &c.have));
            Ok(size == body.attrs.size && pieces::is_there(file, changed, size, &body.pieces, staged)?)
        };
        same().map_err(store::Error::io(format!("comparing the two versions of {id}")))
    }

    /// The chunks that a verdict takes and that have not come yet.
    pub(super) fn lacks(&self, file: FileId, verdict: &BodyVerdict, unsettled: bool) -> ChunkSet {
        let Some(mut lacks) = verdict.takes().cloned() else { return ChunkSet::new() };
        let body = self.cut.files.iter().find(|f| f.file == file).and_then(|f| f.body.as_ref());
        body.into_iter().flat_map(|b| &b.pieces).for_each(|p| lacks.remove(p.chunks()));
        if let Some(content) = self.content.get(&file) {
            lacks.subtract(&content.have);
        }
        if let Some(same) = self.same.get(&file).filter(|_| unsettled) {
            lacks.subtract(same);
        }
        lacks
    }
}

/// What `file` still lacks once `cut` has done to it what `verdict` says.
pub(super) fn still_missing(file: &file::File, cut: &FileCut, verdict: &BodyVerdict) -> ChunkSet {
    let mut still = file.missing.clone();
    if let (Some(changed), Some(body)) = (verdict.takes(), &cut.body) {
        still.subtract(changed);
        // What the cut truncates is gone: nobody could deliver it any more.
        still.remove(chunk::count(body.attrs.size)..u64::MAX);
    }
    still
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cut::{Attrs, BodyCut};
    use crate::model::ids::WriterId;

    #[test]
    fn a_truncated_file_does_not_wait_for_what_was_cut_off() {
        let mut file = file::File { size: 4_000, ..file::File::default() };
        file.missing.insert(1..4);
        let attrs = Attrs { size: 2_000, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
        let version = Version::default().with(WriterId(1), 2);
        let body = BodyCut {
            base: version.clone(),
            version,
            attrs,
            stamp: 0,
            changed: Vec::new(),
            lacks: ChunkSet::new(),
            pieces: Vec::new(),
            sha256: [0; 32],
            told: 0,
        };
        let file_id = FileId { writer: WriterId(1), counter: 1 };
        let cut = FileCut { file: file_id, place: None, body: Some(body) };
        let still = still_missing(&file, &cut, &BodyVerdict::Take(ChunkSet::new()));
        assert_eq!(still.iter().collect::<Vec<_>>(), vec![1..2]);
        assert_eq!(still_missing(&file, &cut, &BodyVerdict::Have).iter().collect::<Vec<_>>(), vec![1..4]);
    }
}
