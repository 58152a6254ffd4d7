//! Bugs planted on demand: would a test notice?
//!
//! Each bug is one line somewhere in the product, which asks [`planted`] and goes wrong if it is. `SYNCFS_BUG`
//! names the bug of this process. `tests/simulation/saboteurs.rs` plants them one by one, and fails where nobody
//! notices. This lies on the lowest floor so that every other may ask; it is the only place there that looks at
//! the process it is in.
//!
//! Invariant: without the feature `simulation` nothing is ever planted, and the compiler drops whatever asks.

macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $bug:ident,)+) => {
        /// What may be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])+ $bug,)+
        }

        impl Bug {
            pub const ALL: &[Bug] = &[$(Bug::$bug,)+];

            /// What goes wrong, in a sentence.
            pub fn what(self) -> &'static str {
                match self {
                    $(Bug::$bug => concat!($($what,)+).trim_ascii(),)+
                }
            }
        }
    };
}

bugs! {
    /// Files that both hosts have become one, though one of them was changed since they were compared.
    MergeUnseen,
    /// The peer is thanked before what it told is on the disk.
    ThankBeforeSync,
    /// After power loss what was changed here counts, though this disk never had what it was changed from.
    TrustDisk,
    /// After power loss it is forgotten what fsync had returned for.
    ForgetSynced,
    /// A change of the peer that failed in the middle is forgotten at a checkpoint.
    ForgetUnfinished,
    /// A file is changed under everybody's eyes, where a crash leaves half of it.
    ChangeInSight,
    /// A change of the peer is applied without a redo record.
    SkipRedo,
    /// A change of the peer that a crash cut short is not repeated.
    ForgetRedo,
    /// Of a change of the peer only the first file is applied, and all is thanked for.
    HalfCut,
    /// A change overtakes an earlier one of the same file or program that waits for its content.
    Overtake,
    /// A change goes to the disk without a record in the journal.
    WriteUnjournaled,
    /// The first change of a file that the peer has does not wait for its record to be durable.
    WriteBeforeSync,
    /// The peer hears of a change before the journal is durable.
    AnnounceBeforeSync,
    /// Content that is about to change is not copied aside for the peer that is fetching it.
    ForgetAside,
    /// Who asks for content of one version is given what lies there now.
    ServeAnyVersion,
    /// Thanks clear what was changed since as well.
    ThanksClearAll,
    /// A file is thanked for before all of it is fetched.
    ThankPartial,
    /// Readers are given what is not fetched yet, as zeros.
    ReadPartial,
    /// What is fetched is written over what was changed here meanwhile.
    FillOverWrites,
    /// A chunk that was asked for is filled though a later change has replaced it.
    FillStale,
    /// Delivered content is not held against its digest.
    TrustDelivered,
    /// Content put together from what is like it is not held against its digest.
    TrustRecipes,
    /// A fetched file goes under its name, and is thanked for, before it is durable.
    PublishUnsynced,
    /// Of two versions made apart, the one that loses is not kept.
    LastWriterWins,
    /// A file unlinked by the peer stays, though nobody here has changed it.
    ReviveUnlinked,
    /// A file unlinked by the peer goes, though somebody here has changed it meanwhile.
    UnlinkOverEdit,
    /// An unlinked file is forgotten while announcements that name it are still on their way.
    ForgetUnlinked,
    /// That the peer may still see a file under its old name is forgotten.
    ForgetLeft,
    /// A file that the peer made shorter keeps its length.
    IgnoreShrink,
    /// What was cut off a file and grew again as zeros is not told.
    GrowthKeepsTail,
    /// The chunk in which a file was cut off is not marked as changed.
    TruncateUnmarked,
    /// A file that is missing on the disk at the start is taken for deleted.
    MissingIsDeleted,
    /// Names that a crash left half-way are not finished at the start.
    LeaveNames,
    /// A replica that has lost its state counts as who it was before, from 1 again.
    ReuseWriter,
    /// A peer that has lost its state is told only what it had not thanked for.
    TrustOldThanks,
    /// After power loss a file that was being changed is taken for what the journal says.
    BelieveAfterLoss,
    /// Records of the journal are taken without looking at their checksums.
    AcceptTornTail,
    /// The journal is trimmed before the metadata is durable.
    TrimBeforeMeta,
    /// The metadata takes over from the journal before the content is durable.
    CheckpointUnsynced,
    /// fsync leaves the file's name behind.
    FsyncWithoutName,
    /// A sync that failed succeeds when it is tried again.
    RetryFailedSync,
    /// What the peer unlinks is unlinked and does not go to the trash.
    ForgetTrash,
    /// However much the peer deletes at once, nobody is asked.
    IgnoreStorm,
    /// A host that only receives announces what changes there.
    ReceiverTells,
    /// What only this host has leaves the cache as anything else.
    EvictDirty,
    /// A hole is punched before it is durable that nothing is there.
    PunchUnrecorded,
    /// What the peer knows and does not hold is not kept when it changes here.
    ForgetBefore,
    /// Content goes from a cache before the peer has said that it holds everything.
    EvictUnheld,
}

/// Whether `bug` is planted in this process.
#[cfg(any(test, feature = "simulation"))]
pub fn planted(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let read = || {
        let name = std::env::var("SYNCFS_BUG").ok()?;
        let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
        Some(*bug.unwrap_or_else(|| panic!("SYNCFS_BUG: there is no bug {name}")))
    };
    *PLANTED.get_or_init(read) == Some(bug)
}

#[cfg(not(any(test, feature = "simulation")))]
pub const fn planted(_: Bug) -> bool {
    false
}
