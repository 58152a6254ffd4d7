//! Files in use: what the engine keeps of a file while a program, a cut or an apply works on it.
//!
//! Invariants: there is at most one [`Node`] per file, so its `data` lock serialises everything that
//! reads or changes the file's content as a whole; a node goes when its last user does. A file that was unlinked here
//! and comes back from the peer begins with a node of its own: who has it open from before goes on with what was
//! unlinked, and nothing of that concerns the file any more.

use super::frozen::Frozen;
use crate::model::ahead::Ahead;
use crate::model::chunk::ChunkSet;
use crate::model::file;
use crate::model::ids::FileId;
use crate::model::share::Share;
use crate::store::{Content, File, Time};
use parking_lot::{Mutex, MutexGuard};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

pub struct Node {
    pub id: FileId,
    pub ino: u64,
    pub data: Mutex<Data>,
}

impl Node {
    /// What the share says of the file whose content this is; `None` once that is unlinked.
    pub fn file<'s>(&self, data: &Data, share: &'s Share) -> Option<Cow<'s, file::File>> {
        share.file(self.id).filter(|f| data.orphan.is_none() && f.name.is_some())
    }
}

#[derive(Default)]
pub struct Data {
    /// The open backing file, shared by all handles, and whether it can be written.
    pub file: Option<Weak<dyn File>>,
    pub writable: bool,
    /// The last cut as it stood, while the peer may still ask for it.
    pub frozen: Option<Frozen>,
    /// Handles open for reading and writing: these may be mapped and stored into.
    pub mappable: u32,
    /// Chunks as they were before a peer's cut replaced them, until the kernel has forgotten its
    /// pages: written back from a mapping, such bytes are nobody's change.
    pub shadows: BTreeMap<u64, Vec<u8>>,
    /// The file's mtime as our own writes left it, while somebody's stores go past us.
    pub unseen: Option<Time>,
    /// Pages that were stored into unseen may be dirty still: a store into such a one moves no time.
    pub dirty_pages: bool,
    /// Set when the file was unlinked: what of it will never come.
    pub orphan: Option<ChunkSet>,
}

impl Data {
    /// The backing file, where it is open.
    pub fn open(&self) -> Option<Content> {
        self.file.as_ref()?.upgrade()
    }

    /// Notes the backing file, now open.
    pub fn opened(&mut self, file: &Content, writable: bool) {
        (self.file, self.writable) = (Some(Arc::downgrade(file)), writable);
    }
}

/// An open file of a program.
pub struct Handle {
    pub node: Held,
    pub file: Content,
    /// The process that opened it for writing.
    pub writer: Option<u32>,
    pub mappable: bool,
    /// While it is open nothing of the file is evicted.
    pub stays: bool,
    pub ahead: Mutex<Ahead>,
}

/// All nodes in use.
#[derive(Default)]
pub struct Nodes(Mutex<HashMap<FileId, Arc<Node>>>);

/// A node in use; it goes from the table with its last holder.
pub struct Held {
    nodes: Arc<Nodes>,
    node: Arc<Node>,
}

/// Files with their data locked, all of them in lock order.
pub struct Locked<'a> {
    nodes: &'a [Held],
    datas: Vec<MutexGuard<'a, Data>>,
}

impl<'a> Locked<'a> {
    /// `nodes` in ascending order of their ids.
    pub fn all(nodes: &'a [Held]) -> Locked<'a> {
        Locked { nodes, datas: nodes.iter().map(|n| n.data.lock()).collect() }
    }

    pub fn get(&mut self, id: FileId) -> Option<(&'a Held, &mut Data)> {
        let at = self.nodes.binary_search_by_key(&id, |n| n.id).ok()?;
        Some((&self.nodes[at], &mut self.datas[at]))
    }

    pub fn has(&self, id: FileId) -> bool {
        self.nodes.binary_search_by_key(&id, |n| n.id).is_ok()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&'a Held, &mut Data)> {
        self.nodes.iter().zip(self.datas.iter_mut().map(|data| &mut **data))
    }
}

/// Files that a peer's cut has just replaced or unlinked. Who looked the name up a moment before finds the
/// file open still, as on a local disk.
#[derive(Default)]
pub struct Graves(Mutex<VecDeque<(Instant, Content, Held)>>);

/// How long after its end a file can still be opened.
const GRACE: Duration = Duration::from_secs(2);

impl Graves {
    pub fn keep(&self, file: Content, node: Held) {
        self.0.lock().push_back((Instant::now(), file, node));
        self.tidy();
    }

    pub fn tidy(&self) {
        let mut over = Vec::new();
        {
            let mut graves = self.0.lock();
            while let Some(grave) = graves.pop_front_if(|g| g.0.elapsed() > GRACE) {
                over.push(grave);
            }
        }
        // Dropped without the lock: closing a file may take its time.
        drop(over);
    }

    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }
}

impl Nodes {
    pub fn get(self: &Arc<Self>, id: FileId, ino: u64) -> Held {
        let mut map = self.0.lock();
        let node = map.entry(id).or_insert_with(|| Arc::new(Node { id, ino, data: Mutex::default() }));
        Held { nodes: self.clone(), node: node.clone() }
    }

    /// A node of its own for a file that comes back; nobody else has it before it is installed.
    pub fn another(self: &Arc<Self>, id: FileId, ino: u64) -> Held {
        Held { nodes: self.clone(), node: Arc::new(Node { id, ino, data: Mutex::default() }) }
    }

    /// From here on this is the file's node.
    pub fn install(&self, held: &Held) {
        self.0.lock().insert(held.id, held.node.clone());
    }

    /// Whether the file of `held` has come back and has another node.
    pub fn is_another(&self, held: &Held) -> bool {
        self.0.lock().get(&held.id).is_some_and(|node| !Arc::ptr_eq(node, &held.node))
    }

    /// The node of an inode whose file may have left the share but is still open.
    pub fn by_ino(self: &Arc<Self>, ino: u64) -> Option<Held> {
        let map = self.0.lock();
        let node = map.values().find(|n| n.ino == ino)?;
        Some(Held { nodes: self.clone(), node: node.clone() })
    }

    /// The node of `id`, where it is in use.
    pub fn find(self: &Arc<Self>, id: FileId) -> Option<Held> {
        let node = self.0.lock().get(&id)?.clone();
        Some(Held { nodes: self.clone(), node })
    }
}

impl Deref for Held {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Clone for Held {
    fn clone(&self) -> Held {
        Held { nodes: self.nodes.clone(), node: self.node.clone() }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut map = self.nodes.0.lock();
        let is_there = map.get(&self.node.id).is_some_and(|node| Arc::ptr_eq(node, &self.node));
        // The table's reference and this one.
        if is_there && Arc::strong_count(&self.node) == 2 {
            map.remove(&self.node.id);
        }
    }
}
