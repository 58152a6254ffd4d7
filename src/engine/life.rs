//! A host's life: opened from what lies on the disk, connected, closed.
//!
//! Invariants: nothing is heard or told before the cuts that a crash cut short have had their second
//! try; the metadata is level when a life begins, and when it ends in order.

use super::error::Error;
use super::events::Events;
use super::frozen::Budget;
use super::holding::Holding;
use super::host::{Ears, Host, Options};
use super::kept::Before;
use super::metadata::Checkpointer;
use super::node::Graves;
use super::queues::{self, Server};
use super::signatures::Signatures;
use super::verifying::Verifying;
use super::wants::Fetch;
use super::{live, recovery};
use crate::fs::kernel::Kernel;
use crate::fs::locks::LockTable;
use crate::model::brake::Brake;
use crate::model::sabotage::{Bug, planted};
use crate::store::Site;
use crate::wire::Key;
use parking_lot::{Mutex, RwLock};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use tokio::runtime;
use tokio::sync::watch;

impl Host {
    /// Opens the store: lock, recovery, adoption of what lies there. Nothing is touched by path
    /// afterwards, so that the mount may cover the directory.
    pub fn open(options: Options, runtime: &runtime::Handle) -> Result<Arc<Host>, Error> {
        let key = Key::load(&options.key_file)?;
        let site = Site::open(&options.store)?;
        let host = Host::open_in(site, options, runtime)?;
        *host.key.lock() = Some(key);
        Ok(host)
    }

    /// As [`Host::open`], in a place of the caller's making.
    pub fn open_in(site: Site, options: Options, runtime: &runtime::Handle) -> Result<Arc<Host>, Error> {
        let recovered = recovery::open(site, &options)?;
        let paused = match options.max_delete {
            // Who says how many may go has been asked.
            Some(_) => recovered.backing.set_paused(false).map(|()| false)?,
            None => recovered.backing.is_paused(),
        };
        let brake = Mutex::new(Brake::new(options.max_delete, paused));
        let (trigger, triggers) = channel();
        let (inbox, inbox_ear) = queues::inbox();
        let before = Before::open(&recovered.backing, &recovered.share)?;
        let (holding, sweeps) = Holding::open(
            (options.cache_size, options.cache_min_free),
            &recovered.backing,
            &recovered.share,
        )?;
        let host = Arc::new_cyclic(|me| Host {
            me: me.clone(),
            options,
            runtime: runtime.clone(),
            backing: recovered.backing,
            journal: recovered.journal,
            identity: recovered.identity,
            checkpointer: Checkpointer::new(recovered.meta, recovered.machine_boot),
            random: Mutex::new(recovered.random),
            kernel: Kernel::new(),
            locks: LockTable::default(),
            owner: rustix::process::geteuid().is_root(),
            left_alone: recovered.left_alone,
            missing: recovered.missing,
            trash: recovered.trash,
            brake,
            holding,
            patterns: RwLock::default(),
            before,
            began: tokio::time::Instant::now(),
            applying: RwLock::new(()),
            cutting: Mutex::new(()),
            names: RwLock::new(()),
            nodes: Arc::default(),
            graves: Graves::default(),
            share: Mutex::new(recovered.share),
            writers: Mutex::default(),
            outbound: Mutex::default(),
            fetch: Fetch::default(),
            handles: RwLock::default(),
            unsure: Mutex::default(),
            mapped: Mutex::default(),
            due: Default::default(),
            buried: Mutex::default(),
            told_older: Mutex::default(),
            unfinished: Mutex::default(),
            refused: Mutex::default(),
            unseen_move: AtomicU64::new(0),
            next_handle: AtomicU64::new(1),
            budget: Budget::default(),
            triggers: trigger,
            inbox,
            server: Server::default(),
            signatures: Signatures::default(),
            hints: Mutex::default(),
            link: OnceLock::new(),
            session: Mutex::new(None),
            progress: watch::channel(0).0,
            next_flush: AtomicU64::new(1),
            flushes: watch::channel(0).0,
            verifying: Verifying::default(),
            events: Events::default(),
            stopping: AtomicBool::new(false),
            threads: Mutex::default(),
            ears: Mutex::new(Some(Ears { triggers, inbox: inbox_ear, sweeps })),
            key: Mutex::default(),
        });
        if !planted(Bug::ForgetRedo) {
            host.redo(recovered.redo, &recovered.half_done, &recovered.midway)?;
        }
        // What lies in staging is the proof of records that are not durable yet.
        host.journal.sync(host.journal.end())?;
        host.backing.clear_staging()?;
        host.checkpoint(false)?;
        host.look_at_patterns();
        Ok(host)
    }

    /// Starts replication; called once, when the mount is ready.
    pub fn connect(self: &Arc<Self>) -> Result<(), Error> {
        let ears = self.ears.lock().take().expect("connect is called once");
        *self.threads.lock() = live::start(self, ears)?;
        Ok(())
    }

    /// Ends replication and brings the metadata level; called after the mount is gone.
    pub fn close(self: Arc<Self>) -> Result<(), Error> {
        live::stop(&self, std::mem::take(&mut self.threads.lock()));
        self.handles.write().clear();
        self.graves.clear();
        self.checkpoint(true)?;
        Ok(())
    }
}
