//! Every limit of syncfs, in one place.
//!
//! A limit is checked where data enters: at decode for what a peer sends or a disk holds, at the
//! system call for what a program asks. Code elsewhere may rely on it.

/// Bytes in a chunk, the unit of change.
pub const CHUNK: u64 = 1000;
/// Chunks in a chunk group, the unit of retrieval.
pub const GROUP: u64 = 500;
/// Bytes in a chunk group.
pub const GROUP_BYTES: u64 = CHUNK * GROUP;

/// Bytes in a file name, as on ext4.
pub const NAME_BYTES: usize = 255;
/// Bytes in the largest file, so that chunk numbers and offsets never overflow an `i64`.
pub const FILE_BYTES: u64 = 1 << 62;
/// Extended attributes of one file, and the bytes of one value.
pub const XATTRS: usize = 256;
pub const XATTR_BYTES: usize = 64 * 1024;
/// Writers in one version vector: two replicas that both lose their state hundreds of times.
pub const WRITERS: usize = 1024;

/// Bytes of one frame on the wire, length prefix not counted. Checked before allocation.
pub const FRAME_BYTES: usize = 8 << 20;
/// Bytes of one frame before the peer has proved that it holds the key.
pub const HELLO_BYTES: usize = 4 << 10;
/// Bytes of one journal record.
pub const RECORD_BYTES: usize = 16 << 20;
/// Memory that decoding one value of a peer may claim, bytes.
pub const DECODE_BYTES: usize = 32 << 20;
/// The same for a value of our own disk: a file changed in millions of places is one such value.
pub const OWN_DECODE_BYTES: usize = 1 << 30;
/// Bytes of `.syncfsignore`; of a longer one nothing counts.
pub const IGNORE_BYTES: usize = 64 << 10;
/// Files in one cut.
pub const CUT_FILES: usize = 65_536;
/// Changed ranges of one file in one cut; past it neighbours are joined and unchanged chunks
/// between them travel too.
pub const CUT_RANGES: usize = 65_536;
/// Content bytes that travel inside an announcement; larger cuts are retrieved.
pub const INLINE_BYTES: u64 = 1 << 20;
/// Content bytes in announcements not yet answered; past it cuts wait and merge.
pub const INFLIGHT_BYTES: u64 = 16 << 20;
/// Files whose content is kept as it was announced, each by an open file, until the peer has decided; past it cuts wait.
pub const FROZEN_FILES: usize = 2048;
/// Bytes asked for in one `Retrieve`.
pub const RETRIEVE_BYTES: u64 = GROUP_BYTES;
/// Requests for content that are open at once: of those that nobody waits for, and of all. Twice as many end the session.
pub const ASKED: usize = 1024;
pub const REQUESTS: usize = 4096;
/// Bytes asked for at once by who has something like it, most of which need not travel.
pub const SPAN_BYTES: u64 = 8 * GROUP_BYTES;
/// Bytes in a block of a signature, and blocks in one signature; of longer files only the beginning is signed.
pub const BLOCK_BYTES: u64 = 4_000_000;
pub const SIGNATURE_BLOCKS: u64 = 131_072;
/// Parts of all that one answer to a `Match` makes.
pub const PARTS: usize = 65_536;
/// Signatures of the peer that are kept in a session, and blocks in all of them.
pub const SIGNATURES: usize = 256;
pub const SIGNED_BLOCKS: usize = 4 * SIGNATURE_BLOCKS as usize;
/// Hints of the peer, and of our own, which file is like which.
pub const HINTS: usize = 1024;
/// Bytes asked for and not yet delivered.
pub const WINDOW_BYTES: u64 = 24 << 20;
/// The smallest cache, bytes.
pub const CACHE_BYTES: u64 = 4 << 20;
/// Bytes asked for ahead of one reader.
pub const AHEAD_BYTES: u64 = 16 << 20;
/// Bytes that copy-aside and staging may take on the disk together.
pub const STAGING_BYTES: u64 = 8 << 30;
/// Bytes that the trash may take on the disk, where that is not more than an eighth of it.
pub const TRASH_BYTES: u64 = 8 << 30;
/// Files in the trash.
pub const TRASH_ENTRIES: usize = 100_000;
/// Bytes of a file of which a copy is kept in the trash when the peer rewrites it in place.
pub const TRASH_COPY_BYTES: u64 = 16 << 20;
/// Files of which more than half, deleted by the peer within a minute, are too many to be believed; of so many and fewer any
/// number is.
pub const STORM_FILES: u64 = 100;
/// Room set aside on the disk for coming journal records, bytes.
pub const JOURNAL_ROOM: u64 = 1 << 20;
/// Connections that have not yet proved that they hold the key.
pub const STRANGERS: usize = 64;
/// Answers to those who say that they know a pairing's code; after as many failures it is worthless.
pub const PAIR_TRIES: u32 = 3;
/// Hosts with our key that are remembered as seen on the local network, and addresses of one.
pub const SEEN_HOSTS: usize = 16;
pub const SEEN_ADDRESSES: usize = 16;
/// Acknowledgements in one `Thanks`.
pub const ACKS: usize = 65_536;
/// Feature names in a greeting, and bytes in one.
pub const FEATURES: usize = 64;
pub const FEATURE_BYTES: usize = 64;
/// Bytes of one class of bulk messages queued for the peer; past it whoever can wait does.
pub const QUEUE_BYTES: usize = 8 << 20;
/// Bytes queued for the peer in all; past it the peer takes nothing and the session ends.
pub const OUTBOX_BYTES: usize = 64 << 20;
/// Events that wait for the engine; past it nothing more is read from the peer.
pub const EVENTS: usize = 8;
/// Changes of the peer that wait to be shown to programs that watch the mount; what is more they do not hear of. As many as
/// inotify(7) keeps for one of them.
pub const REPLAYED_CHANGES: usize = 16_384;
/// Questions in one round of a survey, and names in one answer: with the longest names a round fits a frame.
pub const SURVEY_QUESTIONS: usize = 512;
pub const SURVEY_LEAF: usize = 32;
/// Files that a verification looks at more closely at a time, and groups of one file that it names one by one.
pub const VERIFY_LOOKS: usize = 64;
pub const VERIFY_GROUPS: u64 = 4096;

/// Bytes of a request over the control socket, all of its headers included.
pub const HEAD_BYTES: usize = 16 << 10;
/// Clients of the control socket at a time; more wait.
pub const CLIENTS: usize = 256;
/// Entries of a list that are made before the client has read those before.
pub const PAGE: usize = 1000;
/// Events that are remembered for who looks later.
pub const HISTORY: usize = 1024;
