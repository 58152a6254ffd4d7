//! Names in the trash, `YYYYMMDD-HHMMSS-<file>-<name>` (UTC), and what of it goes when.
//!
//! Invariant: in the order of their names entries are in the order in which they were made.

use super::ids::FileId;
use super::limits::{NAME_BYTES, TRASH_ENTRIES};
use super::name::Name;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const TIME: &str = "%Y%m%d-%H%M%S";
/// Characters of a time.
const TIME_LEN: usize = 15;
/// Seconds in a day.
const DAY: i64 = 86_400;

/// What the name of an entry tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When the file came here, seconds since 1970.
    pub at: i64,
    /// Which file it was; see [`tag`].
    pub file: String,
    /// The name that it had; shortened where it was too long to stand beside the rest.
    pub original: Name,
}

/// What an entry says of its file: enough to tell it from all that one is likely to meet.
pub fn tag(file: FileId) -> String {
    format!("{:04x}{:x}", file.writer.0 >> 48, file.counter)
}

/// The name under which `original` lies in the trash since `at`, seconds since 1970; later by whole seconds while
/// `taken`.
pub fn entry_name(at: i64, file: FileId, original: &Name, taken: impl Fn(&Name) -> bool) -> Name {
    for at in at.. {
        let when = jiff::Timestamp::from_second(at).unwrap_or_default().strftime(TIME).to_string();
        let mark = format!("{when}-{}-", tag(file)).into_bytes();
        let original = shortened(original.as_bytes(), NAME_BYTES - mark.len());
        if let Ok(name) = Name::new(&[mark, original].concat())
            && !taken(&name)
        {
            return name;
        }
    }
    unreachable!("there are more seconds than names in a directory")
}

/// `name` in at most `room` bytes: the stem gives way, the extension stays.
fn shortened(name: &[u8], room: usize) -> Vec<u8> {
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && name.len() - at <= 32);
    let (stem, ext) = name.split_at(dot.unwrap_or(name.len()));
    [&stem[..stem.len().min(room - ext.len())], ext].concat()
}

/// Takes the name of an entry apart. `None` for what somebody else has put there.
pub fn told(entry: &Name) -> Option<Told> {
    let (when, rest) = entry.as_bytes().split_at_checked(TIME_LEN)?;
    let rest = rest.strip_prefix(b"-")?;
    let dash = rest.iter().position(|b| *b == b'-')?;
    let (file, original) = (std::str::from_utf8(&rest[..dash]).ok()?, &rest[dash + 1..]);
    let well = file.len() > 4 && file.bytes().all(|b| b.is_ascii_hexdigit());
    let when = DateTime::strptime(TIME, std::str::from_utf8(when).ok()?).ok()?;
    let at = when.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    Some(Told { at, file: file.to_owned(), original: Name::new(original).ok().filter(|_| well)? })
}

/// Which of `entries`, each with the bytes that it takes, go at the time `now` (seconds since 1970): those older than `days`, all
/// where that is 0; those that alone are larger than `budget` bytes; and the oldest, while all together are larger or too
/// many. `entries` are in the order of their names.
pub fn expired<'a>(
    entries: impl Iterator<Item = (&'a Name, u64)> + Clone,
    now: i64,
    days: u32,
    budget: u64,
) -> Vec<Name> {
    let fits = |bytes: u64| bytes <= budget;
    let (mut count, mut total) = (0, 0u64);
    for (_, bytes) in entries.clone().filter(|e| fits(e.1)) {
        (count, total) = (count + 1, total.saturating_add(bytes));
    }
    let oldest = now.saturating_sub(i64::from(days) * DAY);
    let mut gone = Vec::new();
    for (name, bytes) in entries {
        let old = days == 0 || told(name).is_some_and(|told| told.at < oldest);
        if !fits(bytes) {
            gone.push(name.clone());
        } else if old || total > budget || count > TRASH_ENTRIES {
            gone.push(name.clone());
            (count, total) = (count - 1, total.saturating_sub(bytes));
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::WriterId;

    const NOW: i64 = 1_700_000_000;
    const FILE: FileId = FileId { writer: WriterId(0xabcd << 48), counter: 0x2f };

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn entry(at: i64, original: &str) -> Name {
        entry_name(at, FILE, &name(original), |_| false)
    }

    #[test]
    fn an_entry_tells_when_it_came_and_what_it_was() {
        assert_eq!(entry(NOW, "notes.txt").to_string(), "20231114-221320-abcd2f-notes.txt");
        for original in ["notes.txt", "a-b-c", "-", ".profile", "20231114-221320-abcd2f-notes.txt"] {
            let told = told(&entry(NOW, original)).unwrap();
            assert_eq!((told.at, told.file.as_str(), told.original), (NOW, "abcd2f", name(original)));
        }
        for other in ["notes.txt", "20231114-221320", "20231314-221320-abcd2f-x", "20231114-221320-xyz12-x"] {
            assert_eq!(told(&name(other)), None, "{other}");
        }
    }

    #[test]
    fn of_a_long_name_the_extension_stays() {
        let long = format!("{}.txt", "x".repeat(251));
        let entry = entry(NOW, &long);
        assert_eq!(entry.as_bytes().len(), 255);
        let original = told(&entry).unwrap().original.to_string();
        assert!(long.starts_with(original.trim_end_matches(".txt")) && original.ends_with("xx.txt"));
    }

    #[test]
    fn two_entries_of_one_file_in_one_second_keep_their_order() {
        let first = entry(NOW, "notes");
        let second = entry_name(NOW, FILE, &name("notes"), |n| *n == first);
        assert!(first < second && told(&second).unwrap().original == name("notes"));
    }

    fn gone(entries: &[(Name, u64)], days: u32, budget: u64) -> Vec<Name> {
        expired(entries.iter().map(|(name, bytes)| (name, *bytes)), NOW, days, budget)
    }

    #[test]
    fn what_is_old_goes_and_then_the_oldest_until_the_rest_fits() {
        let entries = [8, 6, 4, 2].map(|days| (entry(NOW - days * DAY, &format!("of {days} days ago")), 10));
        let names = |n: usize| entries[..n].iter().map(|e| e.0.clone()).collect::<Vec<_>>();
        assert_eq!(gone(&entries, 9, 40), names(0));
        assert_eq!(gone(&entries, 7, 40), names(1));
        assert_eq!(gone(&entries, 7, 25), names(2));
        assert_eq!(gone(&entries, 0, 40), names(4));
    }

    #[test]
    fn what_is_too_large_does_not_drive_the_others_out() {
        let entries =
            [(entry(NOW - 2, "small"), 10), (entry(NOW - 1, "huge"), 1000), (entry(NOW, "late"), 10)];
        assert_eq!(gone(&entries, 7, 100), [entries[1].0.clone()]);
    }
}
