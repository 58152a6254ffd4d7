//! The directory as programs see it: every request of the kernel's door, answered from this replica.

use super::attrs::{attr, attr_of, disk_time};
use super::host::Host;
use super::names::name;
use super::node::{Handle, Held};
use super::residency::PREFIX;
use crate::fs::error::Error;
use crate::fs::volume::*;
use crate::model::chunk;
use crate::model::limits::{CHUNK, XATTR_BYTES};
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::store::{At, Content};
use std::sync::Arc;

/// Bytes that one copy_file_range(2) moves at most; the caller goes on from there.
const COPY_BYTES: u64 = 8 << 20;

impl Host {
    fn handle(&self, handle: u64) -> Result<Arc<Handle>> {
        self.handles.read().get(&handle).cloned().ok_or(Error::BadHandle)
    }

    /// The node of an inode, also of one that is unlinked but open.
    fn ino_node(&self, ino: Ino) -> Result<Held> {
        let id = self.share.lock().by_ino(ino);
        match id {
            Some(id) => Ok(self.nodes.get(id, ino)),
            None => self.nodes.by_ino(ino).ok_or(Error::NotFound),
        }
    }

    fn root(&self) -> Result<Attr> {
        Ok(Attr { is_dir: true, nlink: 2, ..attr(&self.backing.root()?, ROOT) })
    }

    fn change<T>(
        &self,
        ino: Ino,
        change: impl FnOnce(&Held, &mut super::node::Data, &Content) -> Result<T>,
    ) -> Result<T> {
        self.change_node(&self.ino_node(ino)?, change)
    }

    fn change_node<T>(
        &self,
        node: &Held,
        change: impl FnOnce(&Held, &mut super::node::Data, &Content) -> Result<T>,
    ) -> Result<T> {
        let mut data = node.data.lock();
        let file = self.data_file(node, &mut data, false)?;
        change(node, &mut data, &file)
    }

    /// What is asked for, where all of it is held; an unlinked file's missing chunks never come.
    fn read_held(&self, open: &Handle, offset: u64, size: u32) -> Result<Option<Vec<u8>>> {
        let chunks = chunk::touched(offset, u64::from(size));
        let data = open.node.data.lock();
        if let Some(missing) = &data.orphan {
            return match missing.overlaps(&chunks) {
                true => Err(Error::NotHere),
                false => read_file(&open.file, offset, size).map(Some),
            };
        }
        let (lacks, stays) = {
            let share = self.share.lock();
            let file = share.file(open.node.id).filter(|f| f.name.is_some());
            (file.as_ref().is_some_and(|f| f.missing.overlaps(&chunks)), file.is_none_or(|f| !f.partial))
        };
        if lacks && !planted(Bug::ReadPartial) {
            return Ok(None);
        }
        self.holding.used(open.node.id, &chunks);
        // What is here as a whole, and never goes, may be read while others write; elsewhere a hole could come in between.
        let _data = if stays && !self.holding.is_cache() { None } else { Some(data) };
        read_file(&open.file, offset, size).map(Some)
    }

    /// Whether all of that is held.
    fn holds(&self, open: &Handle, offset: u64, len: u64) -> bool {
        let chunks = chunk::touched(offset, len);
        let data = open.node.data.lock();
        let share = self.share.lock();
        match &data.orphan {
            Some(missing) => !missing.overlaps(&chunks),
            None => share.file(open.node.id).is_none_or(|f| !f.missing.overlaps(&chunks)),
        }
    }

    /// Asks for what a reader that goes on will read next.
    fn read_ahead(&self, open: &Handle, offset: u64, size: u32) {
        let chunks = {
            let share = self.share.lock();
            let Some(file) = share.file(open.node.id).filter(|f| !f.is_whole() && f.name.is_some()) else {
                return;
            };
            let end = (offset + u64::from(size)).min(file.size);
            let ahead = open.ahead.lock().read(&(offset.min(end)..end), self.holding.ahead());
            let chunks = chunk::touched(ahead.start, ahead.end.min(file.size).saturating_sub(ahead.start));
            if chunks.is_empty() || !file.missing.overlaps(&chunks) {
                return;
            }
            chunks
        };
        self.ask_ahead(open.node.id, &chunks);
    }

    /// Makes room in the cache for what a write brings that was not held.
    fn admit_write(&self, node: &Held, offset: u64, len: u64) -> Result<()> {
        if !self.holding.is_cache() {
            return Ok(());
        }
        let chunks = chunk::touched(offset, len);
        self.holding.used(node.id, &chunks);
        let new = {
            let share = self.share.lock();
            share.file(node.id).map_or(len, |f| {
                let end = chunk::count(f.size);
                let missing = f.missing.within(&chunks).into_iter().map(|r| r.end - r.start).sum::<u64>();
                (missing + chunks.end.max(end) - chunks.start.max(end).min(chunks.end.max(end))) * CHUNK
            })
        };
        self.admit_content(new)
    }

    /// What the share has under `name`; nothing moves meanwhile.
    fn find(&self, name: &Name) -> Option<Result<Attr>> {
        let _names = self.names.read();
        let (id, ino, partial) = {
            let share = self.share.lock();
            let id = share.named(name)?;
            (id, share.ino(id), share.file(id).is_some_and(|f| f.partial))
        };
        let lies = if partial { At::Partial(id) } else { At::Name(name) };
        Some(self.backing.stat(lies).map(|stat| attr(&stat, ino)).map_err(Error::from))
    }
}

impl Volume for Host {
    fn lookup(&self, bytes: &[u8]) -> Result<Attr> {
        let name = match name(bytes) {
            Ok(name) => name,
            Err(Error::NameTooLong) => return Err(Error::NameTooLong),
            Err(_) => return Err(Error::NotFound),
        };
        if let Some(found) = self.find(&name) {
            return found;
        }
        self.adopt(&name)?;
        self.find(&name).ok_or(Error::NotFound)?
    }

    fn forget(&self, _ino: Ino, _count: u64) {}

    fn getattr(&self, ino: Ino, handle: Option<u64>) -> Result<Attr> {
        if ino == ROOT {
            return self.root();
        }
        if let Some(open) = handle.and_then(|h| self.handles.read().get(&h).cloned()) {
            // Under the lock: an apply in progress shows either before or after.
            let data = open.node.data.lock();
            return attr_of(&open.file, &data, ino);
        }
        let id = self.share.lock().by_ino(ino);
        if let Some(node) = id.and_then(|id| self.nodes.find(id)).or_else(|| self.nodes.by_ino(ino)) {
            let mut data = node.data.lock();
            let file = self.data_file(&node, &mut data, false)?;
            return attr_of(&file, &data, ino);
        }
        let _names = self.names.read();
        let stat = id.and_then(|id| self.stat(id)).ok_or(Error::NotFound)?;
        Ok(attr(&stat, ino))
    }

    fn setattr(&self, _caller: Caller, ino: Ino, handle: Option<u64>, set: SetAttr) -> Result<Attr> {
        if ino == ROOT {
            // The directory's own mode and owner are this host's matter.
            return match set {
                SetAttr { mode: None, uid: None, gid: None, size: None, atime, mtime } => {
                    self.backing.set_root_times(atime.map(disk_time), mtime.map(disk_time))?;
                    self.root()
                }
                _ => Err(Error::NotPermitted),
            };
        }
        let open = handle.and_then(|h| self.handles.read().get(&h).cloned());
        let node = match &open {
            Some(open) => open.node.clone(),
            None => self.ino_node(ino)?,
        };
        self.change_node(&node, |node, data, file| {
            if let Some(size) = set.size {
                let writable = match &open {
                    Some(open) => open.file.clone(),
                    None => self.data_file(node, data, true)?,
                };
                self.resize(node, data, &writable, size)?;
                self.measure(node, &writable);
            }
            if set.mode.is_some() || set.uid.is_some() || set.gid.is_some() || set.mtime.is_some() {
                self.touch(node, data)?;
            }
            if set.uid.is_some() || set.gid.is_some() {
                file.set_owner(set.uid, set.gid)?;
            }
            if let Some(mode) = set.mode {
                file.set_mode(mode & 0o7777)?;
            }
            if set.atime.is_some() || set.mtime.is_some() {
                file.set_times(set.atime.map(disk_time), set.mtime.map(disk_time))?;
            }
            attr_of(file, data, ino)
        })
    }

    fn create(&self, caller: Caller, name: &[u8], mode: u32, flags: i32) -> Result<(Attr, Opened)> {
        self.create_and_open(caller, name, mode, flags)
    }

    fn mknod(&self, caller: Caller, bytes: &[u8], mode: u32) -> Result<Attr> {
        let name = name(bytes)?;
        let _names = self.names.write();
        if self.share.lock().named(&name).is_some() {
            return Err(Error::Exists);
        }
        let (_, ino, file) = self.make(caller, &name, mode)?;
        Ok(attr(&file.stat()?, ino))
    }

    fn open(&self, caller: Caller, ino: Ino, flags: i32) -> Result<Opened> {
        let node = self.ino_node(ino)?;
        self.open_node(caller, &node, flags)
    }

    fn stores_unseen(&self, handle: u64) {
        let Ok(open) = self.handle(handle) else { return };
        let mut data = open.node.data.lock();
        if data.unseen.is_none() {
            data.unseen = open.file.stat().map(|s| s.mtime).ok();
        }
    }

    fn read(&self, handle: u64, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let open = match self.handle(handle) {
            Ok(open) => open,
            Err(e) => return Answer::Now(Err(e)),
        };
        self.read_ahead(&open, offset, size);
        match self.read_held(&open, offset, size).transpose() {
            Some(read) => Answer::Now(read),
            None => {
                let Some(host) = self.me.upgrade() else { return Answer::Now(Err(Error::NotHere)) };
                Answer::Later(Box::pin(async move {
                    let chunks = chunk::touched(offset, u64::from(size));
                    loop {
                        host.clone().fetch_wait(open.node.id, chunks.clone()).await?;
                        // What has come may have changed or gone again.
                        if let Some(read) = host.read_held(&open, offset, size)? {
                            return Ok(read);
                        }
                    }
                }))
            }
        }
    }

    fn write(&self, handle: u64, offset: u64, bytes: &[u8], mode: WriteMode) -> Result<u32> {
        let open = self.handle(handle)?;
        self.admit_write(&open.node, offset, bytes.len() as u64)?;
        let mut data = open.node.data.lock();
        let offset = if mode.append && !mode.from_mapping { None } else { Some(offset) };
        let written = self.write_at(&open.node, &mut data, &open.file, offset, bytes, mode.from_mapping)?;
        self.measure(&open.node, &open.file);
        if mode.kill_suid {
            kill_suid(&open.file)?;
        }
        Ok(written)
    }

    fn flush(&self, handle: u64, owner: u64) -> Result<()> {
        let open = self.handle(handle)?;
        self.locks.release_owner(open.node.ino, owner);
        if let Some(process) = open.writer {
            self.cut_soon(open.node.id, Some(process));
        }
        Ok(())
    }

    fn release(&self, handle: u64, flock_owner: Option<u64>) {
        self.close_handle(handle, flock_owner);
    }

    fn fsync(&self, handle: u64, data_only: bool) -> Result<()> {
        let _ = data_only;
        let open = self.handle(handle)?;
        self.look_at_stores(&open.node, &mut open.node.data.lock(), &open.file)?;
        let upto = self.journal.end();
        self.backing.sync_file(&open.file)?;
        // A new file's name is as durable as what was written into it.
        if !planted(Bug::FsyncWithoutName) {
            self.backing.sync_names()?;
        }
        {
            let data = open.node.data.lock();
            let mut share = self.share.lock();
            // Where the peer has all, nothing here stands above what it has.
            if open.node.file(&data, &share).is_some_and(|f| !f.is_thanked()) {
                self.commit(&mut share, Record::Synced { file: open.node.id, upto })?;
            }
        }
        self.journal.sync(self.journal.end())?;
        if let Some(process) = open.writer {
            self.cut_soon(open.node.id, Some(process));
        }
        Ok(())
    }

    fn fsync_dir(&self) -> Result<()> {
        self.backing.sync_names()?;
        Ok(self.journal.sync(self.journal.end())?)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.unlink_name(name)
    }

    fn rename(&self, from: &[u8], to: &[u8], flags: u32) -> Result<()> {
        self.rename_name(from, to, flags)
    }

    fn list(&self) -> Vec<(Vec<u8>, Ino)> {
        let share = self.share.lock();
        share.names().map(|(name, id)| (name.as_bytes().to_vec(), share.ino(id))).collect()
    }

    fn statfs(&self) -> Result<StatFs> {
        let fs = self.holding.space(self.backing.space()?, &self.share.lock());
        Ok(StatFs {
            block: u32::try_from(fs.block).unwrap_or(u32::MAX),
            blocks: fs.blocks,
            free: fs.free,
            available: fs.available,
            files: fs.files,
            files_free: fs.files_free,
        })
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        if !name.starts_with(b"user.") {
            // `ls -l` asks for such of each file, until it hears that there are none anywhere here.
            return Err(Error::NotSupported);
        }
        if ino == ROOT {
            return Err(Error::NoAttribute);
        }
        if name.starts_with(PREFIX) {
            let file = self.share.lock().by_ino(ino);
            return self.attribute(file, name);
        }
        self.change(ino, |_, _, file| {
            let mut value = vec![0; XATTR_BYTES];
            let len = file.xattr(name, &mut value).map_err(xattr_error)?;
            value.truncate(len);
            Ok(value)
        })
    }

    fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        if ino == ROOT || !name.starts_with(b"user.") {
            return Err(Error::NotSupported);
        }
        if name.starts_with(PREFIX) {
            let file = self.share.lock().by_ino(ino);
            return self.set_attribute(file, name, value);
        }
        self.change(ino, |node, data, file| {
            self.touch(node, data)?;
            file.set_xattr(name, value, flags as u32).map_err(xattr_error)
        })
    }

    fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        if ino == ROOT || !name.starts_with(b"user.") {
            return Err(Error::NotSupported);
        }
        if name.starts_with(PREFIX) {
            let file = self.share.lock().by_ino(ino);
            return self.set_attribute(file, name, b"");
        }
        self.change(ino, |node, data, file| {
            self.touch(node, data)?;
            file.remove_xattr(name).map_err(xattr_error)
        })
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        if ino == ROOT {
            return Ok(Vec::new());
        }
        self.change(ino, |_, _, file| {
            let names = file.xattrs().map_err(xattr_error)?;
            let names = names.split(|b| *b == 0);
            Ok(names.filter(|n| n.starts_with(b"user.")).map(<[u8]>::to_vec).collect())
        })
    }

    fn fallocate(&self, handle: u64, offset: u64, len: u64, mode: i32) -> Result<()> {
        let open = self.handle(handle)?;
        let end = offset.checked_add(len).filter(|_| len > 0).ok_or(Error::Invalid)?;
        let takes_room = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_COLLAPSE_RANGE) == 0;
        self.admit_write(&open.node, offset, if takes_room { len } else { 0 })?;
        let mut data = open.node.data.lock();
        let changed = self.change_range(&open.node, &mut data, &open.file, offset..end, mode);
        self.measure(&open.node, &open.file);
        changed
    }

    fn lseek(&self, handle: u64, offset: u64, whence: i32) -> Result<u64> {
        let open = self.handle(handle)?;
        let size = open.file.len()?;
        if offset >= size {
            return Err(Error::PastEnd);
        }
        let data = open.node.data.lock();
        let whole = open.node.file(&data, &self.share.lock()).is_none_or(|f| f.is_whole());
        drop(data);
        match (whence, whole) {
            (libc::SEEK_DATA, true) => Ok(open.file.seek_data(offset)?),
            (libc::SEEK_HOLE, true) => Ok(open.file.seek_hole(offset)?),
            // What is not held may be anything: all of it counts as data.
            (libc::SEEK_DATA, false) => Ok(offset),
            (libc::SEEK_HOLE, false) => Ok(size),
            _ => Err(Error::Invalid),
        }
    }

    fn copy_range(&self, from: u64, from_offset: u64, to: u64, to_offset: u64, len: u64) -> Answer<u64> {
        Answer::Now(self.copy(from, from_offset, to, to_offset, len.min(COPY_BYTES)))
    }

    fn getlk(&self, handle: u64, owner: u64, lock: Lock) -> Result<Option<Lock>> {
        let open = self.handle(handle)?;
        Ok(self.locks.test(open.node.ino, owner, lock))
    }

    fn setlk(&self, handle: u64, owner: u64, lock: Lock, wait: bool, flock: bool) -> Answer<()> {
        use crate::fs::locks::{Kind, Taker};
        match self.handle(handle) {
            Ok(open) => {
                let kind = if flock { Kind::Flock } else { Kind::Fcntl };
                self.locks.set(open.node.ino, Taker { owner, handle }, lock, kind, wait)
            }
            Err(e) => Answer::Now(Err(e)),
        }
    }
}

impl Host {
    fn copy(&self, from: u64, from_offset: u64, to: u64, to_offset: u64, len: u64) -> Result<u64> {
        let (source, target) = (self.handle(from)?, self.handle(to)?);
        if !self.holds(&source, from_offset, len) {
            // The kernel then reads and writes, and the read waits for the peer.
            return Err(Error::NotSupported);
        }
        self.hints.lock().copied(target.node.id, source.node.id);
        let mut done = 0;
        while done < len {
            let want = (len - done).min(1 << 20) as u32;
            let got = match self.read_held(&source, from_offset + done, want)? {
                Some(bytes) => bytes,
                // Gone since: the caller comes back for the rest.
                None if done > 0 => break,
                None => return Err(Error::NotSupported),
            };
            if got.is_empty() {
                break;
            }
            self.admit_write(&target.node, to_offset + done, got.len() as u64)?;
            let mut data = target.node.data.lock();
            let at = Some(to_offset + done);
            self.write_at(&target.node, &mut data, &target.file, at, &got, false)?;
            self.measure(&target.node, &target.file);
            done += got.len() as u64;
        }
        Ok(done)
    }
}

fn read_file(file: &Content, offset: u64, size: u32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size as usize];
    let len = file.read_full_at(&mut bytes, offset)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Clears the set-id bits as a write by who is not the owner does.
fn kill_suid(file: &Content) -> Result<()> {
    let mode = file.stat()?.mode;
    let mut clear = libc::S_ISUID;
    if mode & libc::S_IXGRP != 0 {
        clear |= libc::S_ISGID;
    }
    if mode & clear != 0 {
        file.set_mode(mode & !clear)?;
    }
    Ok(())
}

fn xattr_error(error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENODATA) => Error::NoAttribute,
        _ => error.into(),
    }
}
