//! From what lies on the disk to a share that can be served: after a clean end, a crash, or a life
//! without syncfs.
//!
//! Order: metadata, journal, names (`relocate`), content (`reconcile`). Cuts whose apply was cut short are
//! handed back to be applied again.

use super::error::Error;
use super::metadata::Stored;
use super::pending::Redo;
use super::reconcile::{End, Reconciler};
use crate::model::chunk::{self, ChunkSet};
use crate::model::codec;
use crate::model::file::File;
use crate::model::ids::{FileId, Seq, WriterId};
use crate::model::name::Name;
use crate::model::record::{Record, Taken};
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::{self, Backing, Identity, Journal, Lsn, MetaStore, Opened, Random, Site};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Recovered {
    pub backing: Backing,
    pub journal: Journal,
    pub meta: Box<dyn MetaStore>,
    pub identity: Identity,
    pub machine_boot: String,
    pub random: Random,
    pub share: Share,
    /// Cuts to be applied again.
    pub redo: Vec<Redo>,
    /// Names under which these may have left something that nobody knows.
    pub half_done: BTreeSet<Name>,
    pub left_alone: usize,
}

/// A writer that nobody was before.
pub(super) fn new_writer(random: &mut Random) -> WriterId {
    WriterId(random() as u64)
}

pub(super) fn open(site: Site) -> Result<Recovered, Error> {
    let Site { disk, mut meta, opened, boot: machine_boot, mut random } = site;
    let identity = store::load_or_create(&*disk, &mut random)?;
    let backing = Backing::new(disk.clone());
    let (journal, records) = Journal::open(disk)?;

    let stored = meta.load()?;
    let header: Option<Stored> = match &stored.header {
        Some(bytes) => Some(codec::decode_own(bytes).map_err(|_| Error::Unreadable("the metadata store"))?),
        None => None,
    };
    let end = match &header {
        None => End::Never,
        Some(h) if h.clean => End::Clean,
        Some(h) if h.machine_boot == machine_boot => End::Killed,
        Some(_) => End::Lost,
    };
    if matches!(opened, Opened::Rebuilt) {
        tracing::warn!("the metadata store was damaged and is built anew; nothing is deleted for it");
    }
    let mut share = match header {
        Some(stored_header) => {
            let mut files = Vec::with_capacity(stored.files.len());
            for (id, bytes) in &stored.files {
                let file: File =
                    codec::decode_own(bytes).map_err(|_| Error::Unreadable("the metadata store"))?;
                files.push((*id, file));
            }
            Share::restore(stored_header.header, files)
        }
        // Without metadata the journal's tail would be applied to nothing: all is adopted anew.
        None if planted(Bug::ReuseWriter) => {
            Share::new(identity.replica, WriterId(identity.replica.0 as u64))
        }
        None => Share::new(identity.replica, new_writer(&mut random)),
    };
    let replayed = match end {
        End::Never => Replayed::default(),
        _ => replay(&mut share, &records, stored.lsn, end)?,
    };

    // What the journal tells of a file since the checkpoint explains why it looks different now.
    let explained: BTreeSet<FileId> = share.touched_now().into_iter().collect();
    let redo = replayed.redo;
    let mut work = Reconciler {
        backing: &backing,
        journal: &journal,
        share: &mut share,
        end,
        explained,
        suspects: replayed.suspects,
        former: replayed.former,
        redone: redo.iter().flat_map(|r| r.cut.files.iter().map(|f| f.file)).collect(),
    };
    if end == End::Lost {
        // What the old writer counted last may be forgotten; its numbers are never used again.
        work.commit(Record::Began { writer: new_writer(&mut random) })?;
    }
    // New files of theirs may be on the disk already. What somebody here had made under such a name is in the
    // journal, but for a file whose creation was under way when all ended.
    let half_done: BTreeSet<Name> =
        redo.iter().flat_map(|r| &r.cut.files).filter_map(|f| f.place.as_ref()?.name.clone()).collect();
    work.find_names()?;
    work.rewrite(&replayed.undurable)?;
    let left_alone = work.line_up(&half_done)?;
    Ok(Recovered {
        backing,
        journal,
        meta,
        identity,
        machine_boot,
        random,
        share,
        redo,
        half_done,
        left_alone,
    })
}

/// What the journal's tail came to, beside the share.
#[derive(Default)]
struct Replayed {
    /// Cuts of the peer whose apply was cut short.
    redo: Vec<Redo>,
    /// After power loss: cuts that were applied, but perhaps not to the disk.
    undurable: Vec<(Redo, Vec<Taken>)>,
    /// After power loss: files that were being changed here.
    suspects: BTreeSet<FileId>,
    /// Names that files had at the checkpoint or since, and gave up.
    former: BTreeMap<FileId, BTreeSet<Name>>,
}

/// Applies the journal's records that the metadata store has not seen.
fn replay(share: &mut Share, records: &[(Lsn, Vec<u8>)], after: Lsn, end: End) -> Result<Replayed, Error> {
    // Cuts of the peer, with what they did where that is known.
    type Taking = (Redo, Option<Vec<Taken>>);
    let mut redo: BTreeMap<(WriterId, Seq), Taking> = BTreeMap::new();
    // Who was dirty could be written to without a record.
    let mut suspects: BTreeSet<FileId> =
        share.files().filter(|(_, f)| f.body_tag != 0).map(|f| f.0).collect();
    let mut former: BTreeMap<FileId, BTreeSet<Name>> = BTreeMap::new();
    for (_, bytes) in records.iter().filter(|r| r.0 > after) {
        let record: Record = codec::decode_own(bytes).map_err(|_| Error::Unreadable("the journal"))?;
        tracing::debug!(?record, "replaying");
        match &record {
            Record::Wrote { file, .. }
            | Record::Scrapped { file, .. }
            | Record::Resized { file, .. }
            | Record::Touched { file }
            | Record::Adopted { file, .. }
            | Record::Created { file, .. } => drop(suspects.insert(*file)),
            _ => {}
        }
        for id in record.moves() {
            let name = share.file(id).and_then(|f| f.name.clone());
            former.entry(id).or_default().extend(name);
        }
        if let Record::Wrote { file, chunks, .. } = &record {
            // What was changed here since must not be written over.
            let bodies = redo.values_mut().filter_map(|r| r.1.as_mut()).flatten().filter(|t| t.file == *file);
            bodies.filter_map(|t| t.body.as_mut()).for_each(|b| b.changed.subtract(chunks));
        }
        match record {
            Record::Redo { cut, staged } => {
                let key = (cut.writer, cut.seq);
                redo.insert(key, (Redo { cut: *cut, staged }, None));
            }
            Record::Took { from, ref files, .. } => {
                share.apply(&record);
                if let Some(redo) = redo.get_mut(&(from.writer, from.seq)) {
                    redo.1 = Some(files.clone());
                }
            }
            Record::Durable { ref cuts } => {
                let done = redo.extract_if(.., |key, redo| cuts.contains(&key.1) && redo.1.is_some());
                let taken: Vec<Taken> = done.filter_map(|(_, redo)| redo.1).flatten().collect();
                for taken in taken.iter().filter(|t| t.body.is_some()) {
                    // Synced as a whole; changed again, it has a durable record.
                    if share.file(taken.file).is_some_and(|f| f.body_tag == 0) {
                        suspects.remove(&taken.file);
                    }
                }
            }
            // After a loss the delivered bytes themselves may be gone: they are fetched again, ...
            Record::Present { .. } if end == End::Lost => {}
            // ... but for those that were synced to be put under their name.
            Record::Published { file } if end == End::Lost => {
                let size = share.file(file).map_or(0, |f| f.size);
                share.apply(&Record::Present { file, chunks: ChunkSet::of(0..chunk::count(size)) });
                share.apply(&record);
            }
            record => share.apply(&record),
        }
    }
    let mut replayed = Replayed { suspects, former, ..Replayed::default() };
    for (redo, taken) in redo.into_values() {
        match taken {
            None => replayed.redo.push(redo),
            Some(taken) if end == End::Lost => replayed.undurable.push((redo, taken)),
            Some(_) => {}
        }
    }
    if end != End::Lost {
        replayed.suspects.clear();
    }
    Ok(replayed)
}
