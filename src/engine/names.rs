//! Changing the directory: create, unlink, rename.
//!
//! Invariant: names change in the journal first and on the disk second, under the directory lock; after
//! a crash between the two, recovery finishes on the disk what the journal says. A new file comes the
//! other way round: it is on the disk before it is in the journal, and adopted where it is not.

use super::attrs::attr_of;
use super::before::as_acknowledged;
use super::host::Host;
use super::kept::{Acknowledged, Buried};
use super::node::{Data, Handle, Held};
use super::queues::Trigger;
use super::relocate::{Heir, grave};
use crate::fs::error::Error;
use crate::fs::volume::{Attr, Caller, Opened, Result};
use crate::model::ids::FileId;
use crate::model::name::{BadName, Name};
use crate::model::record::Record;
use crate::store::{At, Content, is_shareable};
use parking_lot::Mutex;
use rustix::fs::RenameFlags;
use rustix::process::{Pid, getpgid};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A name from the kernel. Names that can't be in the share read as absent where they are looked up.
pub(super) fn name(bytes: &[u8]) -> Result<Name> {
    Name::new(bytes).map_err(|bad| match bad {
        BadName::TooLong => Error::NameTooLong,
        BadName::Reserved => Error::NotPermitted,
        BadName::Empty | BadName::BadByte => Error::Invalid,
    })
}

impl Host {
    pub(super) fn make(&self, caller: Caller, name: &Name, mode: u32) -> Result<(FileId, u64, Content)> {
        self.after_unseen_moves()?;
        // Where a directory or link that was left alone stands there, it says so.
        let create = || self.backing.create(At::Name(name), mode & 0o7777);
        let file = create().or_else(|error| if self.makes_room(&error) { create() } else { Err(error) })?;
        if self.owner && (caller.uid, caller.gid) != (0, 0) {
            file.set_owner(Some(caller.uid), Some(caller.gid))?;
        }
        let disk = file.stat()?.ino;
        let mut share = self.share.lock();
        let id = share.next_file();
        let record = Record::Created { file: id, name: name.clone(), size: 0, disk };
        if let Err(error) = self.commit(&mut share, record) {
            self.backing.unlink_if_there(At::Name(name))?;
            return Err(error.into());
        }
        let ino = share.ino(id);
        drop(share);
        self.fresh(id);
        Ok((id, ino, file))
    }

    /// A file that lies under no name moves in the journal alone. Before anything shows on the disk in its place that is
    /// durable: else power loss would leave both under one name.
    fn after_unseen_moves(&self) -> Result<()> {
        match self.unseen_move.load(Ordering::Relaxed) {
            0 => Ok(()),
            lsn => Ok(self.journal.sync(lsn)?),
        }
    }

    /// A file that somebody put into the directory past the mount, found where it is looked for.
    pub(super) fn adopt(&self, name: &Name) -> Result<()> {
        if self.backing.stat(At::Name(name)).is_err() {
            return Err(Error::NotFound);
        }
        let _names = self.names.write();
        let Ok(stat) = self.backing.stat(At::Name(name)) else { return Err(Error::NotFound) };
        let mut share = self.share.lock();
        if share.named(name).is_some() {
            return Ok(());
        }
        if !is_shareable(&stat) {
            return Err(Error::NotFound);
        }
        let (file, size, disk) = (share.next_file(), stat.size, stat.ino);
        self.commit(&mut share, Record::Created { file, name: name.clone(), size, disk })?;
        drop(share);
        // Whoever has listed the directory has not seen it.
        self.kernel.inval_entry(name.as_bytes());
        self.fresh(file);
        Ok(())
    }

    pub(super) fn create_and_open(
        &self,
        caller: Caller,
        bytes: &[u8],
        mode: u32,
        flags: i32,
    ) -> Result<(Attr, Opened)> {
        let name = name(bytes)?;
        let existing = {
            let _names = self.names.write();
            let existing = self.share.lock().named(&name);
            match existing {
                Some(_) if flags & libc::O_EXCL != 0 => return Err(Error::Exists),
                Some(id) => id,
                None => {
                    let (id, ino, file) = self.make(caller, &name, mode)?;
                    let node = self.nodes.get(id, ino);
                    let mut data = node.data.lock();
                    data.opened(&file, true);
                    let attr = attr_of(&file, &data, ino)?;
                    let opened = self.opened(caller, &node, &mut data, file, flags)?;
                    return Ok((attr, opened));
                }
            }
        };
        let node = self.node(existing).ok_or(Error::NotFound)?;
        let opened = self.open_node(caller, &node, flags)?;
        let data = node.data.lock();
        let file = data.open().ok_or(Error::NotFound)?;
        Ok((attr_of(&file, &data, node.ino)?, opened))
    }

    pub(super) fn open_node(&self, caller: Caller, node: &Held, flags: i32) -> Result<Opened> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let truncates = flags & libc::O_TRUNC != 0;
        let mut data = node.data.lock();
        let file = self.data_file(node, &mut data, writes || truncates)?;
        if truncates {
            self.resize(node, &mut data, &file, 0)?;
            self.measure(node, &file);
        }
        self.opened(caller, node, &mut data, file, flags)
    }

    fn opened(
        &self,
        caller: Caller,
        node: &Held,
        data: &mut Data,
        file: Content,
        flags: i32,
    ) -> Result<Opened> {
        let access = flags & libc::O_ACCMODE;
        let writes = access != libc::O_RDONLY;
        let size = self.share.lock().file(node.id).map_or(0, |f| f.size);
        // What a program reads may be like the new file that it writes; small content travels anyway.
        let hints = if writes { size == 0 } else { size > self.options.inline_bytes };
        let program = (writes || hints).then(|| program_of(caller.thread));
        let writer = program.filter(|_| writes).map(|(process, _)| process);
        if let Some((_, group)) = program.filter(|_| hints) {
            self.hints.lock().opened(group, node.id, writes);
        }
        let mappable = access == libc::O_RDWR;
        if let Some(process) = writer {
            self.writers.lock().opened(process, node.id);
        }
        if mappable {
            data.mappable += 1;
            let mut mapped = self.mapped.lock();
            if mapped.is_empty() {
                // Its pages are written back each second from now on.
                let _ = self.triggers.send(Trigger::Look);
            }
            mapped.insert(node.id);
        }
        let whole = node.file(data, &self.share.lock()).is_some_and(|f| f.is_whole() && !f.partial);
        let backing = if whole { file.descriptor().cloned() } else { None };
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        // Decided under the file's data: an eviction comes before, or finds it in use.
        let stays = self.holding.is_cache() && (writes || backing.is_some());
        if stays {
            self.holding.takes_into_use(node.id);
        }
        let open = Handle { node: node.clone(), file, writer, mappable, stays, ahead: Mutex::default() };
        self.handles.write().insert(handle, Arc::new(open));
        Ok(Opened { handle, backing })
    }

    pub(super) fn close_handle(&self, handle: u64, flock_owner: Option<u64>) {
        let Some(open) = self.handles.write().remove(&handle) else { return };
        let node = open.node.clone();
        if let Some(owner) = flock_owner {
            self.locks.release_flock(node.ino, owner);
        }
        self.locks.release_handle(node.ino, handle);
        if open.stays {
            self.leave_in_cache(&open);
        }
        if open.mappable {
            let mut data = node.data.lock();
            if let Err(error) = self.look_at_stores(&node, &mut data, &open.file) {
                tracing::error!("stores into a mapping may not be announced: {error}");
            }
            data.mappable -= 1;
            if data.mappable == 0 {
                data.shadows.clear();
                (data.unseen, data.dirty_pages) = (None, false);
                // One that came back meanwhile may be mapped as well.
                if data.orphan.is_none() || !self.nodes.is_another(&node) {
                    self.mapped.lock().remove(&node.id);
                }
            }
        }
        if let Some(process) = open.writer {
            let group = self.writers.lock().group(node.id);
            let fresh = {
                let mut share = self.share.lock();
                // Whoever cuts one of them from here on takes all, though nobody has them open together any more.
                if let Err(error) = self.bind(&mut share, &group) {
                    tracing::error!("files that belong together may be announced apart: {error}");
                }
                group.iter().any(|id| share.fresh().contains(*id))
            };
            self.writers.lock().closed(process, node.id);
            if fresh {
                self.cut_together(group, Some(process));
            }
        }
    }

    pub(super) fn unlink_name(&self, bytes: &[u8]) -> Result<()> {
        let name = name(bytes)?;
        let _names = self.names.write();
        let id = self.share.lock().named(&name).ok_or(Error::NotFound)?;
        let node = self.node(id).ok_or(Error::NotFound)?;
        let mut data = node.data.lock();
        let group = self.writers.lock().group(id);
        let mut share = self.share.lock();
        let file = share.file(id).ok_or(Error::NotFound)?;
        let (partial, missing, told) = (file.partial, file.missing.clone(), !file.is_untold());
        let known = as_acknowledged(&file);
        drop(file);
        self.bind(&mut share, &group)?;
        let lsn = self.commit(&mut share, Record::Moved { moves: vec![(id, None)] })?;
        drop(share);
        if partial {
            self.unseen_move.fetch_max(lsn, Ordering::Relaxed);
        }
        data.orphan = Some(missing);
        match partial {
            true => self.must(self.backing.unlink_if_there(At::Partial(id)))?,
            false if told && self.bury(&name, id, None, known) => {}
            false => self.must(self.backing.unlink_if_there(At::Name(&name)))?,
        }
        drop(data);
        self.holding.gone(id);
        self.cut_together(group, None);
        self.look_after_names([&name]);
        self.names_moved();
        self.moved();
        Ok(())
    }

    /// Puts a file that was unlinked, or makes room for another, where recovery finds it, until the record of that is
    /// durable.
    fn bury(&self, name: &Name, file: FileId, heir: Option<Heir>, known: Acknowledged) -> bool {
        let grave = grave(file, heir);
        let buried = self.backing.rename(At::Name(name), At::Staging(&grave), RenameFlags::empty()).is_ok();
        if buried {
            self.buried.lock().push(Buried { grave, file, known });
        }
        buried
    }

    pub(super) fn rename_name(&self, from: &[u8], to: &[u8], flags: u32) -> Result<()> {
        let (from, to) = (name(from)?, name(to)?);
        let flags = RenameFlags::from_bits(flags).ok_or(Error::Invalid)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let no_replace = flags.contains(RenameFlags::NOREPLACE);
        if flags.contains(RenameFlags::WHITEOUT) || (exchange && no_replace) {
            return Err(Error::Invalid);
        }
        let _names = self.names.write();
        let (a, b) = {
            let share = self.share.lock();
            (share.named(&from).ok_or(Error::NotFound)?, share.named(&to))
        };
        if b.is_some() && no_replace {
            return Err(Error::Exists);
        }
        if exchange && b.is_none() {
            return Err(Error::NotFound);
        }
        if b == Some(a) {
            return Ok(());
        }
        if b.is_none() && self.backing.stat(At::Name(&to)).is_ok() {
            // Something that was left alone stands there.
            return Err(if no_replace { Error::Exists } else { Error::NotPermitted });
        }
        let mut ids: Vec<FileId> = std::iter::once(a).chain(b).collect();
        ids.sort_unstable();
        let nodes: Vec<Held> = ids.iter().filter_map(|id| self.node(*id)).collect();
        let mut datas: Vec<_> = nodes.iter().map(|n| n.data.lock()).collect();
        let mut share = self.share.lock();
        let lies = |id: FileId| share.file(id).is_some_and(|f| f.partial);
        let (a_partial, b_partial) = (lies(a), b.is_some_and(lies));
        let told = |id: FileId| share.file(id).is_some_and(|f| !f.is_untold());
        let replaced = b.filter(|b| !exchange && !b_partial && told(*b));
        let known = replaced.and_then(|b| share.file(b)).map(|f| as_acknowledged(&f)).unwrap_or_default();
        let mut moves = vec![(a, Some(to.clone()))];
        if let Some(b) = b {
            moves.push((b, exchange.then(|| from.clone())));
        }
        let unlinked = b.filter(|_| !exchange).and_then(|b| Some((b, share.file(b)?.missing.clone())));
        if !a_partial {
            self.after_unseen_moves()?;
        }
        let lsn = self.commit(&mut share, Record::Moved { moves })?;
        drop(share);
        if a_partial || b_partial {
            self.unseen_move.fetch_max(lsn, Ordering::Relaxed);
        }
        if let Some((b, missing)) = unlinked
            && let Some(at) = nodes.iter().position(|n| n.id == b)
        {
            datas[at].orphan = Some(missing);
        }
        let (old, new) = (At::Name(&from), At::Name(&to));
        if let Some(b) = replaced {
            self.bury(&to, b, Some(Heir::new(a, &from)), known);
        }
        let rename = |from, to, flags| self.backing.rename(from, to, flags);
        let unlink_replaced = || b.map_or(Ok(()), |b| self.backing.unlink_if_there(At::Partial(b)));
        let moved = match (a_partial, b.map(|_| b_partial)) {
            (false, Some(false)) if exchange => rename(old, new, RenameFlags::EXCHANGE),
            (false, Some(true)) if exchange => rename(old, new, RenameFlags::NOREPLACE),
            (true, Some(false)) if exchange => rename(new, old, RenameFlags::NOREPLACE),
            (true, Some(true)) if exchange => Ok(()),
            (false, None) => {
                let moved = rename(old, new, RenameFlags::empty());
                if moved.is_err() {
                    // A directory may have no room for another name; then nothing has happened.
                    let back = Record::Moved { moves: vec![(a, Some(from))] };
                    self.must(self.commit(&mut self.share.lock(), back))?;
                    self.fresh(a);
                    return Ok(moved?);
                }
                moved
            }
            (false, Some(false)) => rename(old, new, RenameFlags::empty()),
            (true, Some(false)) => self.backing.unlink_if_there(new),
            (false, Some(true)) => rename(old, new, RenameFlags::empty()).and_then(|()| unlink_replaced()),
            (true, Some(true)) => unlink_replaced(),
            (true, None) => Ok(()),
        };
        self.must(moved)?;
        drop(datas);
        b.filter(|_| !exchange).into_iter().for_each(|gone| self.holding.gone(gone));
        // What moved together stays together until the peer has it.
        let mut group: Vec<FileId> = Vec::new();
        for id in ids {
            group.extend(self.writers.lock().group(id));
        }
        group.sort_unstable();
        group.dedup();
        self.cut_together(group, None);
        self.look_after_names([&from, &to]);
        self.names_moved();
        self.moved();
        Ok(())
    }
}

/// The process of a thread, and its process group in our own eyes; the thread itself where they are unknown, as if it were
/// a process of its own.
fn program_of(thread: u32) -> (u32, u32) {
    let Some(id) = i32::try_from(thread).ok().and_then(Pid::from_raw) else { return (thread, thread) };
    let group = getpgid(Some(id)).map_or(thread, |group| group.as_raw_pid() as u32);
    // Reading /proc costs as much as all the rest of an open: most programs have but one thread.
    let process = if leads_its_process(id) { None } else { process_of(thread) };
    (process.unwrap_or(thread), group)
}

/// Whether it is the first thread of its process, which has the process's number.
fn leads_its_process(thread: Pid) -> bool {
    let id = thread.as_raw_pid();
    // SAFETY: three numbers; signal 0 reaches nobody.
    let found = unsafe { libc::syscall(libc::SYS_tgkill, id, id, 0) };
    // Somebody else's we must not signal, but it is there.
    found == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_of_a_program_is_known_as_of_its_process() {
        let process = std::process::id();
        let group = getpgid(None).unwrap().as_raw_pid() as u32;
        let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_pid() as u32);
        assert_eq!(program_of(process), (process, group));
        let here = rustix::thread::gettid().as_raw_pid() as u32;
        assert_ne!(here, process, "a test runs beside the first thread");
        assert_eq!(program_of(here), (process, group));
        let gone = thread.join().unwrap();
        // One that was joined may be on its way out yet. Its number may be given to somebody else, but not within this test.
        while getpgid(Pid::from_raw(gone as i32)).is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(program_of(gone), (gone, gone));
        assert_eq!(program_of(0), (0, 0));
    }
}
