//! Names of conflict copies: `stem.sync-conflict-YYYYMMDD-HHMMSS-<replica>.ext` for `stem.ext`.
//!
//! Invariant: a conflict copy's name bears one mark, and is nobody else's.

use super::ids::ReplicaId;
use super::limits::NAME_BYTES;
use super::name::Name;

const MARK: &[u8] = b".sync-conflict-";

/// The name for the losing version of `name`, last modified at `stamp` (ns since 1970) on `replica`:
/// `stem.sync-conflict-YYYYMMDD-HHMMSS-<replica>.ext`, shortened to 255 bytes, counted up while
/// `taken`. A conflict copy's own mark is replaced, never repeated.
pub fn conflict_name(name: &Name, stamp: i64, replica: ReplicaId, taken: impl Fn(&Name) -> bool) -> Name {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && bytes.len() - at <= 32);
    let mark = mark_in(bytes).unwrap_or(bytes.len());
    let dot = dot.filter(|at| !bytes[*at..].starts_with(MARK)).unwrap_or(bytes.len());
    let (stem, ext) = (&bytes[..dot.min(mark)], &bytes[dot..]);
    let when = jiff::Timestamp::from_second(stamp.div_euclid(1_000_000_000)).unwrap_or_default();
    let when = when.strftime("%Y%m%d-%H%M%S").to_string();
    for attempt in 0u64.. {
        let count = if attempt == 0 { String::new() } else { format!("-{attempt}") };
        let mark = [MARK, format!("{when}-{}{count}", replica.short()).as_bytes()].concat();
        let room = NAME_BYTES - mark.len() - ext.len();
        let candidate = [shortened(stem, room), &mark, ext].concat();
        if let Ok(candidate) = Name::new(&candidate)
            && !taken(&candidate)
        {
            return candidate;
        }
    }
    unreachable!("there are more numbers than names in a directory")
}

/// As much of `stem` as there is room for; whole letters, where it is text.
fn shortened(stem: &[u8], room: usize) -> &[u8] {
    let cut = &stem[..stem.len().min(room)];
    match (std::str::from_utf8(stem), std::str::from_utf8(cut)) {
        (Ok(_), Err(half)) => &cut[..half.valid_up_to()],
        _ => cut,
    }
}

/// Whether `name` is a conflict copy's.
pub fn is_conflict_copy(name: &Name) -> bool {
    mark_in(name.as_bytes()).is_some()
}

/// Where the mark begins.
fn mark_in(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MARK.len()).position(|w| w == MARK)
}

/// What the name of a conflict copy tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The name that it lost; cut short where that was too long to bear the mark beside it.
    pub original: Name,
    /// The first 8 digits of the replica whose version it was.
    pub replica: String,
    /// All that the mark says, between stem and extension.
    told: Box<[u8]>,
    stem: usize,
}

impl Conflict {
    /// Names for the copy that bear no mark and still say what it was: `stem (date-time-replica).ext`, counted up.
    pub fn plain_names(&self) -> impl Iterator<Item = Name> {
        let (stem, ext) = self.original.as_bytes().split_at(self.stem);
        (0u64..).filter_map(move |attempt| {
            let count = if attempt == 0 { String::new() } else { format!(" {attempt}") };
            Name::new(&[stem, b" (", &self.told, count.as_bytes(), b")", ext].concat()).ok()
        })
    }
}

/// Takes the name of a conflict copy apart. `None` for any other, also for one that bears a mark and not all of it.
pub fn conflict(name: &Name) -> Option<Conflict> {
    let bytes = name.as_bytes();
    let mark = mark_in(bytes)?;
    let (stem, rest) = (&bytes[..mark], &bytes[mark + MARK.len()..]);
    let (_date, rest) = digits(rest, 8, u8::is_ascii_digit)?;
    let (_time, rest) = digits(rest.strip_prefix(b"-")?, 6, u8::is_ascii_digit)?;
    let (replica, rest) = digits(rest.strip_prefix(b"-")?, 8, u8::is_ascii_hexdigit)?;
    let count = rest.strip_prefix(b"-").map(|n| n.iter().take_while(|b| b.is_ascii_digit()).count());
    let ext = count.map_or(rest, |count| &rest[1 + count..]);
    let well = count != Some(0) && (ext.is_empty() || ext[0] == b'.');
    let original = Name::new(&[stem, ext].concat()).ok().filter(|_| well)?;
    let told = &bytes[mark + MARK.len()..bytes.len() - ext.len()];
    let replica = String::from_utf8_lossy(replica).into_owned();
    Some(Conflict { original, replica, told: told.into(), stem: stem.len() })
}

/// The first `n` bytes, all of which are of one kind, and the rest.
fn digits(bytes: &[u8], n: usize, kind: fn(&u8) -> bool) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(n).filter(|(digits, _)| digits.iter().all(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_copy_of_a_conflict_copy_bears_one_mark() {
        let copy = |text: &str| {
            let name = Name::new(text.as_bytes()).unwrap();
            conflict_name(&name, 1_700_000_000_000_000_000, ReplicaId(0xabcd << 112), |_| false).to_string()
        };
        assert_eq!(copy("notes.txt"), "notes.sync-conflict-20231114-221320-abcd0000.txt");
        assert_eq!(copy(&copy("notes.txt")), copy("notes.txt"));
        assert_eq!(copy(&copy("notes")), copy("notes"));
        assert_eq!(copy("notes.sync-conflict-mine"), copy("notes"));
        assert_eq!(copy("notes.sync-conflict-1.sync-conflict-2txt"), copy("notes"));
        assert_eq!(copy(".profile"), ".profile.sync-conflict-20231114-221320-abcd0000");
    }

    #[test]
    fn a_conflict_copys_name_tells_what_it_is_a_copy_of() {
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let replica = ReplicaId(0xabcd << 112);
        for original in ["notes.txt", "notes", ".profile", "a.tar.gz"] {
            for taken in 0..3 {
                let left = std::cell::Cell::new(taken);
                let copy = conflict_name(&name(original), 1, replica, |_| {
                    left.set(left.get() - 1);
                    left.get() >= 0
                });
                let told = conflict(&copy).expect("a conflict copy");
                assert_eq!((told.original, told.replica.as_str()), (name(original), "abcd0000"), "{copy}");
            }
        }
        for other in [
            "notes.sync-conflict-mine",
            "notes.sync-conflict-20231114-221320-abcd0000x",
            ".sync-conflict-20231114-221320-abcd0000",
        ] {
            assert_eq!(conflict(&name(other)), None);
        }
    }

    #[test]
    fn what_is_set_apart_says_still_what_it_was() {
        let copy = Name::new(b"notes.sync-conflict-20231114-221320-abcd0000-1.txt").unwrap();
        let told = conflict(&copy).unwrap();
        let names: Vec<String> = told.plain_names().take(2).map(|name| name.to_string()).collect();
        assert_eq!(
            names,
            ["notes (20231114-221320-abcd0000-1).txt", "notes (20231114-221320-abcd0000-1 1).txt"]
        );
        assert!(told.plain_names().take(2).all(|name| !is_conflict_copy(&name)));
    }
}
