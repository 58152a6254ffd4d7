//! Floor 0: what syncfs decides, without I/O, clocks, threads, randomness or logging.

pub mod brake;
pub mod chunk;
pub mod codec;
pub mod conflict;
pub mod cut;
pub mod delta;
pub mod direction;
pub mod dirty;
pub mod file;
pub mod first;
pub mod group;
pub mod ids;
pub mod judge;
pub mod likeness;
pub mod limits;
pub mod message;
pub mod name;
pub mod record;
pub mod rolling;
pub mod sabotage;
pub mod share;
pub mod survey;
pub mod trash;
pub mod verify;
pub mod version;
