//! Content and attributes of one file brought to the peer's version.

use super::before::restorable;
use super::host::Host;
use super::node::{Data, Held, Locked};
use super::pending::Pending;
use super::pieces;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::BodyCut;
use crate::model::ids::FileId;
use crate::model::judge::{BodyVerdict, Verdict};
use crate::model::limits::CHUNK;
use crate::model::record::{Agreed, TakenBody};
use crate::model::sabotage::{Bug, planted};
use crate::store::{self, At, Content};

/// Bytes of old content kept per file so that pages of a mapping can be told from changes.
const SHADOW_BYTES: usize = 4 << 20;

impl Host {
    /// Sets room aside for all that will be written into files that are here: a disk that is full refuses now, not
    /// half-way, and so does one that lets no file be cut off. Disks that can't set room aside are taken as they are.
    pub(super) fn reserve(
        &self,
        pending: &Pending,
        verdicts: &[Verdict],
        locked: &mut Locked,
    ) -> store::Result<()> {
        for (cut, verdict) in pending.cut.files.iter().zip(verdicts) {
            let (Some(body), Some(changed)) = (&cut.body, verdict.body.takes()) else { continue };
            let Some((node, data)) = locked.get(cut.file) else { continue };
            let Ok(file) = self.data_file(node, data, true) else { continue };
            let cut_off = |source| store::Error::Io { what: format!("cutting {} off", cut.file), source };
            let size = file.len().map_err(cut_off)?;
            if body.attrs.size < size {
                file.set_len(size).map_err(cut_off)?;
            }
            for range in pending.brought(cut.file, body).iter().flat_map(|range| changed.within(&range)) {
                let bytes = chunk::bytes(&range, body.attrs.size);
                let (keep_size, len) = (libc::FALLOC_FL_KEEP_SIZE as u32, bytes.end - bytes.start);
                let full = |e: &std::io::Error| {
                    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
                };
                if let Err(source) = file.allocate(keep_size, bytes.start, len)
                    && full(&source)
                {
                    let what = format!("setting room aside for a change to {}", cut.file);
                    return Err(store::Error::Io { what, source });
                }
            }
        }
        Ok(())
    }

    /// Brings content and attributes of one file to the peer's version, as far as they are here. Content that is the
    /// `same` is left alone: nobody keeps a copy of it that could be torn.
    pub(super) fn take_body(
        &self,
        pending: &Pending,
        id: FileId,
        body: &BodyCut,
        verdict: &BodyVerdict,
        ours: Option<(&Held, &mut Data)>,
        same: bool,
    ) -> store::Result<TakenBody> {
        let changed = verdict.takes().expect("only such are called for");
        let wrap = |source| store::Error::Io { what: format!("applying a change to {id}"), source };
        let (known, unsettled, told, our_size, our_attrs) = {
            let share = self.share.lock();
            let f = share.file(id).filter(|f| f.name.is_some());
            let f = f.as_deref();
            let told = share.ours_in(&body.version);
            let our_size = f.is_some_and(|f| f.size_is_ours(told, body.attrs.size));
            let our_attrs = f.is_some_and(|f| f.attrs_tag > told);
            (f.map(|f| f.partial), f.is_some_and(|f| f.unsettled), told, our_size, our_attrs)
        };
        let mut missing = pending.lacks(id, verdict, unsettled);
        let mut restored = restorable(&self.share.lock(), id, body);
        restored = restored.iter().flat_map(|range| changed.within(&range)).collect();
        missing.subtract(&restored);
        let agrees = matches!(verdict, BodyVerdict::Agree(_));
        let keeps_size = agrees && our_size;
        let (file, partial) = match (known, ours) {
            (Some(partial), Some((node, data))) => {
                let file = self.data_file(node, data, true).map_err(door)?;
                let whole = 0..u64::MAX / CHUNK;
                for range in changed.iter() {
                    self.save_frozen(data, &range);
                }
                if !keeps_size && body.attrs.size < file.len().map_err(wrap)? {
                    self.save_frozen(data, &whole);
                }
                shadow(data, &file, changed).map_err(wrap)?;
                (file, partial || !missing.is_empty())
            }
            _ => {
                let staging = format!("new-{id}");
                let partial = !missing.is_empty();
                let at = if partial { At::Partial(id) } else { At::Staging(&staging) };
                (self.backing.create_afresh(at, 0o600)?, partial)
            }
        };
        let before = file.stat().map_err(wrap)?;
        // Where our own size stays, what lies beyond it is not written.
        let size = if keeps_size { before.size.min(body.attrs.size) } else { body.attrs.size };
        let staged = pending.content.get(&id).map(|c| (&c.file, &c.have));
        if !same {
            pieces::put(&file, changed, size, &body.pieces, staged).map_err(wrap)?;
        }
        self.restore_before(id, &file, &restored, size)?;
        let ignored = size < before.size && planted(Bug::IgnoreShrink);
        if !keeps_size && !ignored && file.len().map_err(wrap)? != size {
            file.set_len(size).map_err(wrap)?;
        }
        if !(agrees && our_attrs) {
            store::apply_attrs(&file, &body.attrs, self.owner).map_err(wrap)?;
        }
        if agrees {
            file.set_times(None, Some(before.mtime)).map_err(wrap)?;
        }
        let now = file.stat().map_err(wrap)?;
        self.holding.weigh(id, &now);
        let mtime = now.mtime.nanoseconds();
        Ok(TakenBody {
            version: body.version.clone(),
            stamp: body.stamp,
            mtime,
            size: if keeps_size { before.size } else { body.attrs.size },
            changed: changed.clone(),
            missing,
            owed: body.told,
            yielded: matches!(verdict, BodyVerdict::Yield { .. }),
            agreed: agrees.then_some(Agreed { seq: told, size: body.attrs.size }),
            partial,
            disk: before.ino,
        })
    }
}

/// Remembers what `changed` chunks read now, while somebody may have them mapped.
fn shadow(data: &mut Data, file: &Content, changed: &ChunkSet) -> std::io::Result<()> {
    if data.mappable == 0 {
        return Ok(());
    }
    let mut room = SHADOW_BYTES / CHUNK as usize;
    for n in changed.iter().flatten() {
        if room == 0 {
            break;
        }
        let mut old = vec![0; CHUNK as usize];
        let len = file.read_full_at(&mut old, n * CHUNK)?;
        old.truncate(len);
        data.shadows.insert(n, old);
        room -= 1;
    }
    Ok(())
}

/// An error of the kernel's door as one of the disk's: the applier knows only these.
pub(super) fn door(error: crate::fs::error::Error) -> store::Error {
    store::Error::Io {
        what: "opening a file that the peer changed".into(),
        source: std::io::Error::from_raw_os_error(error.errno()),
    }
}
