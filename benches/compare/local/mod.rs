//! One host: what programs notice of syncfs while they work, beside the file system under it, a daemon that only passes it on,
//! and sshfs.

mod names;
mod place;
mod row;
mod writes;

use crate::Group;
use crate::figure::Figure;
use crate::options::Options;
use place::Place;
use row::Row;

pub const GROUPS: &[Group] = &[("local", measure)];

fn measure(options: &Options) -> Vec<Figure> {
    let rows: Vec<Row> = [writes::rows(), names::rows()].concat();
    let rows: Vec<Row> = rows.into_iter().filter(|row| row.wanted(options)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let place = Place::new(options);
    rows.iter().flat_map(|row| row.measure(&place, options)).collect()
}
