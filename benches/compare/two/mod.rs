//! Two hosts: how soon and at what price the one has what was written on the other, beside what users would take instead.

mod bulk;
mod cpu;
mod floor;
mod group;
mod latency;
mod lazy;
mod ours;
mod turns;
mod wire;

use crate::Group;

pub const GROUPS: &[Group] = &[
    ("latency", latency::measure),
    ("wire", wire::measure),
    ("bulk", bulk::measure),
    ("lazy", lazy::measure),
    ("cpu", cpu::measure),
];
