//! What grows as a directory or a file grows. Costs are to follow what changed, not what is there.

mod directory;
mod figures;
mod file;

use crate::Group;

pub const GROUPS: &[Group] = &[("scale", directory::measure), ("grow", file::measure)];
