//! One host: what programs notice of syncfs while they work, beside the file system under it, a daemon that only passes it on,
//! and sshfs.

mod listing;
mod looks;
mod names;
mod place;
mod reads;
mod row;
mod user;
mod writes;
mod yardsticks;

use crate::Group;
use crate::figure::{Figure, attempt};
use crate::memory;
use crate::options::Options;
use place::Place;
use row::Row;

pub const GROUPS: &[Group] = &[("local", work), ("listing", list), ("user", user::measure)];

fn work(options: &Options) -> Vec<Figure> {
    let rows = [writes::rows(), reads::rows(), names::rows(), looks::rows()].concat();
    measure(options, rows, Place::empty)
}

fn list(options: &Options) -> Vec<Figure> {
    measure(options, listing::rows(), || Place::listed(listing::files(options)))
}

/// Measures the rows that are wanted, at one place as long as it is well.
fn measure(options: &Options, rows: Vec<Row>, place: impl Fn() -> Place) -> Vec<Figure> {
    let (mut figures, mut at) = (Vec::new(), None);
    for row in rows.into_iter().filter(|row| row.wanted(options)) {
        at = at.or_else(|| attempt(&place).inspect_err(|why| figures.push(row.left_out(why))).ok());
        let Some(place) = &at else { continue };
        let measured = row.measure(place, options);
        // What a row that failed left behind is not for the next one.
        if measured.iter().any(|figure| figure.rounds.is_empty()) {
            at = None;
        }
        figures.extend(measured);
    }
    if let Some(pair) = at.as_mut().and_then(Place::pair)
        && options.wants(memory::LOCAL)
    {
        figures.push(memory::of(memory::LOCAL, "memory after the rows of one host", pair));
    }
    figures
}
