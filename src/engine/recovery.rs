//! From what lies on the disk to a share that can be served: after a clean end, a crash, or a life
//! without syncfs.
//!
//! Order: metadata, journal (`replay`), names (`relocate`), content (`reconcile`). Cuts whose apply was cut short are
//! handed back to be applied again.

use super::error::Error;
use super::host::Options;
use super::metadata::Stored;
use super::pending::Redo;
use super::reconcile::{End, Reconciler};
use super::replay::{Replayed, replay};
use super::trash::Trash;
use crate::model::codec;
use crate::model::file::File;
use crate::model::ids::{FileId, WriterId};
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::model::share::{Restoring, Share};
use crate::store::{self, Backing, Identity, Journal, MetaStore, Opened, Random, Site};
use std::collections::BTreeSet;

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
    /// Names under which these may have left something that nobody knows, ...
    pub half_done: BTreeSet<Name>,
    /// ... and files that they were changing.
    pub midway: BTreeSet<FileId>,
    pub left_alone: usize,
    /// Files that were missing from the directory and come back from the peer.
    pub missing: u64,
    pub trash: Trash,
}

/// A writer that nobody was before.
pub(super) fn new_writer(random: &mut Random) -> WriterId {
    WriterId(random() as u64)
}

pub(super) fn open(site: Site, options: &Options) -> Result<Recovered, Error> {
    let Site { disk, mut meta, opened, boot: machine_boot, mut random } = site;
    let identity = store::load_or_create(&*disk, &mut random)?;
    let backing = Backing::new(disk.clone());
    let beside = backing.list_beside();
    let (journal, records) = Journal::open(disk)?;
    let trash = Trash::open(&backing, options.trash_days)?;

    let (lsn, header) = meta.head()?;
    let header: Option<Stored> = match &header {
        Some(bytes) => Some(codec::decode_own(bytes).map_err(|_| Error::Unreadable("the metadata store"))?),
        None => None,
    };
    let end = match &header {
        None => End::Never,
        Some(h) if h.clean => End::Clean,
        Some(h) if h.machine_boot != machine_boot => End::Lost,
        // A kill cuts off no record but the one that was being written, and nobody can tell which these were.
        Some(_) if journal.was_torn() => End::Forgot,
        Some(_) => End::Killed,
    };
    if matches!(opened, Opened::Rebuilt) {
        tracing::warn!("the metadata store was damaged and is built anew; nothing is deleted for it");
    }
    let mut share = match header {
        Some(stored_header) => {
            let mut restoring = Restoring::new(stored_header.header);
            let mut unreadable = false;
            meta.each_file(&mut |id, bytes| match codec::decode_own::<File>(bytes) {
                Ok(file) => restoring.file(id, file),
                Err(_) => unreadable = true,
            })?;
            if unreadable {
                return Err(Error::Unreadable("the metadata store"));
            }
            restoring.finish()
        }
        // Without metadata the journal's tail would be applied to nothing: all is adopted anew.
        None if planted(Bug::ReuseWriter) => {
            Share::new(identity.replica, WriterId(identity.replica.0 as u64))
        }
        None => Share::new(identity.replica, new_writer(&mut random)),
    };
    let replayed = match end {
        End::Never => Replayed::default(),
        _ => replay(&mut share, &records, lsn, end)?,
    };

    // What the journal tells of a file since the checkpoint explains why it looks different now.
    let explained: BTreeSet<FileId> = share.touched_now().iter().collect();
    let redo = replayed.redo;
    let mut work = Reconciler {
        backing: &backing,
        journal: &journal,
        trash: &trash,
        share: &mut share,
        end,
        explained,
        suspects: replayed.suspects,
        shaky: replayed.shaky,
        shrunk: replayed.shrunk,
        gone: replayed.gone,
        thrown: replayed.thrown,
        former: replayed.former,
        redone: redo.iter().flat_map(|r| r.cut.files.iter().map(|f| f.file)).collect(),
        midway: BTreeSet::new(),
        redo: &redo,
        adopt_deletes: options.adopt_deletes,
        max_delete: options.max_delete,
    };
    if matches!(end, End::Lost | End::Forgot) {
        // What the old writer counted last may be forgotten; its numbers are never used again.
        work.commit(Record::Began { writer: new_writer(&mut random) })?;
    }
    // New files of theirs may be on the disk already. What somebody here had made under such a name is in the
    // journal, but for a file whose creation was under way when all ended.
    let half_done: BTreeSet<Name> =
        redo.iter().flat_map(|r| &r.cut.files).filter_map(|f| f.place.as_ref()?.name.clone()).collect();
    let moved = work.find_names()?;
    work.restore_kept()?;
    work.rewrite(&replayed.undurable)?;
    let untouched = matches!(end, End::Clean | End::Never) && !moved && replayed.undurable.is_empty();
    let listing = match beside.listing() {
        Some(listing) if untouched => listing?,
        _ => work.backing.list()?,
    };
    let lined_up = work.line_up(listing)?;
    work.drop_before()?;
    if options.cache_size.is_none() && work.share.header().may_evict {
        // The peer may hold less from here on.
        work.commit(Record::MayEvict { may: false })?;
    }
    let midway = work.midway;
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
        midway,
        left_alone: lined_up.left_alone,
        missing: lined_up.missing,
        trash,
    })
}
