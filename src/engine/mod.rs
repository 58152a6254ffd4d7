//! Floor 2: the engine, which alone carries between the doors. The only place with threads, tasks and
//! clocks.
//!
//! # Layers
//!
//! `life` on top opens, connects and closes. Below it lie the modules that do things to a `Host`, each
//! in an `impl Host` of its own. Below `host` lies what a host and its threads hold, and nothing there
//! knows the host: `queues`, `flights`, `wants`, `bases`, `hints`, `signatures`, `pending`, `pieces`, `metadata`,
//! `node`, `due`, `holding`, `kept`, `trash`, `verifying`, `events`, `frozen`, `attrs`, `channel`.
//!
//! # Lock order
//!
//! Taken in this order, released in any; a lock further down is never held while one further up is
//! taken:
//!
//! 0. `Holding::sweeping`: one sweep at a time; `Host::applying`: read from a redo record to the end of its apply, written to take a checkpoint
//! 1. `Host::cutting`: one cut is taken at a time, and announced before the next; held over the syncs that an
//!    announcement waits for
//! 2. `Host::names`: the directory; read to look up, written to create, rename, unlink, publish
//! 3. `Node::data`, several in ascending order of their file ids, and after them those of files that nobody else
//!    knows yet: content and attributes of a file
//! 4. `Host::share`: the model; the journal is appended to under it, so both have one order
//! 5. leaves, each alone: `Host::writers`, `Host::outbound`, the fetcher's state, the node table, handles, the
//!    trash, the cache (after the fetcher's state, and before what is in use), the brake, and the small sets of a host (`buried`, `unfinished`, `told_older`, `refused`, `unsure`, `mapped`, `due`,
//!    `random`, `hints`, `signatures`, `patterns`, and the ring of events)
//!
//! None is held across a wait for the network, an await, or a notification to the kernel. Waits for the
//! disk happen under 2 and 3 where the operation itself is that wait.
//!
//! # Threads
//!
//! Each turns a [`worker`]; a simulation turns them by hand (`stepped`).
//!
//! | thread | does |
//! |---|---|
//! | request threads (the kernel door's) | [`volume`]: everything a program asks |
//! | cutter | takes cuts and announces them |
//! | applier | judges, stages and applies the peer's cuts |
//! | filler | writes delivered chunks |
//! | finisher | syncs files that are whole, publishes and thanks |
//! | matcher | reads what may be like content that is wanted: compares, signs, puts together |
//! | sweeper | makes room in the cache |
//! | server | answers `Retrieve`, `Compare` and `Match` |
//! | checkpointer | brings the metadata store level with the journal |
//! | verify | reads everything where somebody wants to know whether both sides hold the same; not turned by hand |

mod apply;
mod attrs;
mod bases;
mod before;
mod bodies;
mod channel;
mod checkpoint;
mod content;
mod copies;
mod cutter;
mod due;
mod error;
pub mod events;
mod fetch;
mod flights;
mod frozen;
mod gathered;
mod hints;
mod holding;
mod host;
mod ignoring;
mod inbound;
mod kept;
mod life;
mod listing;
mod live;
mod location;
mod matcher;
mod meeting;
mod mend;
pub mod metadata;
mod missing;
mod moves;
mod names;
mod node;
mod outbound;
mod pending;
mod pieces;
mod queues;
mod reconcile;
mod recovery;
mod redo;
mod relocate;
mod replay;
pub mod residency;
pub mod restore;
mod serve;
mod signatures;
mod silent;
pub mod status;
#[cfg(feature = "simulation")]
pub mod stepped;
mod storm;
mod sweep;
mod thrown;
mod trash;
mod verify;
pub mod verifying;
mod volume;
mod wants;
mod worker;

pub use channel::Channel;
pub use error::{Error, FlushError, ResidencyError, RestoreError, VerifyError};
pub use host::{Host, Options};
pub use status::Status;
