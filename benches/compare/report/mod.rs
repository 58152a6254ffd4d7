//! How figures are shown and kept.

pub mod table;
mod units;
