//! Which file here is likely to be like one whose content is about to come: what there is to try, and what is worth it.
//!
//! A guess and no more: the hosts compare digests and signatures before anything is taken from it.

use super::conflict;
use super::file::File;
use super::ids::FileId;
use super::limits::CHUNK;
use super::name::Name;
use super::share::Share;

/// Content below this many bytes comes as it is: asking would take longer. Smaller still where content of that size
/// would travel with its announcement.
pub const WORTH_BYTES: u64 = 100 * CHUNK;
/// A basis is read as a whole before it is of use. It may be this many times as large as what is to come, ...
const RATIO: u64 = 64;
/// ... and, where it is larger than this many bytes, a few times.
const LARGE_BYTES: u64 = 4 << 30;
const LARGE_RATIO: u64 = 4;

/// Whether a file of `size` bytes may be put together from `basis`. Nothing below `least` bytes is worth it.
pub fn is_worth(basis: &File, (size, least): (u64, u64)) -> bool {
    let most = size.saturating_mul(RATIO).min(size.saturating_mul(LARGE_RATIO).max(LARGE_BYTES));
    let here = basis.name.is_some() && basis.is_whole() && !basis.unsettled;
    here && (least / 2..=most).contains(&basis.size) && basis.size > 0
}

/// The first of `hints` that can serve `file`, else the file whose name its own comes from; `worth` as in [`is_worth`].
pub fn basis_for(
    share: &Share,
    file: FileId,
    worth: (u64, u64),
    hints: impl IntoIterator<Item = FileId>,
    name: Option<&Name>,
) -> Option<FileId> {
    let fits = |id: &FileId| *id != file && share.file(*id).is_some_and(|basis| is_worth(&basis, worth));
    let named = || name.into_iter().flat_map(origins).filter_map(|name| share.named(&name)).find(fits);
    hints.into_iter().find(fits).or_else(named)
}

/// Whether `chunks` are so much of a file of `size` bytes that it was written anew rather than edited.
pub fn is_much(chunks: u64, size: u64) -> bool {
    chunks * CHUNK >= size / 4
}

/// The names that a program may have had in mind when it chose `name` for the time of writing, and what a conflict copy
/// is a copy of: `notes.txt` for `notes.txt~`, `.notes.txt.swp`, `notes.txt.tmp`, `.notes.txt.Xy12z`, `#notes.txt#`.
fn origins(name: &Name) -> Vec<Name> {
    let mut origins: Vec<Name> = conflict::conflict(name).into_iter().map(|c| c.original).collect();
    let whole = name.as_bytes();
    let bare = whole.trim_ascii();
    let bare =
        bare.strip_prefix(b"~$").or(bare.strip_prefix(b".")).or(bare.strip_prefix(b"#")).unwrap_or(bare);
    let bare = bare.strip_suffix(b"~").or(bare.strip_suffix(b"#")).unwrap_or(bare);
    let dots = |bytes: &[u8]| -> Vec<usize> {
        (1..bytes.len()).rev().filter(|at| matches!(bytes[*at], b'.' | b'-' | b'~')).collect()
    };
    for part in [bare, whole] {
        let cuts = dots(part).into_iter().take(3);
        for end in std::iter::once(part.len()).chain(cuts) {
            match Name::new(&part[..end]) {
                Ok(origin) if origin != *name && !origins.contains(&origin) => origins.push(origin),
                _ => {}
            }
        }
    }
    origins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_the_time_of_writing_tells_what_is_written() {
        let from = |name: &str| -> Vec<String> {
            origins(&Name::new(name.as_bytes()).unwrap()).iter().map(Name::to_string).collect()
        };
        for name in [
            "notes.txt~",
            ".notes.txt.swp",
            "notes.txt.tmp",
            "notes.txt.new",
            ".notes.txt.Xy12z",
            "#notes.txt#",
            "notes.txt.tmp-12345",
            "notes.sync-conflict-20260101-120000-0badcafe.txt",
        ] {
            let origins = from(name);
            assert!(origins.contains(&"notes.txt".to_owned()), "{name}: {origins:?}");
            assert!(!origins.contains(&name.to_owned()));
        }
        assert!(from("x").is_empty());
    }
}
