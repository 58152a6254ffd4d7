//! The table of docs/semantics.md: what becomes of what both sides changed while neither knew of the other's change.
//!
//! One test for each row, named there. Each meets many times: with A's change the later one and with B's, with either
//! replica the greater, with content that travels at once and content that is fetched, with messages that
//! arrive together and one by one.

use crate::simulated::calls::{self, EXCHANGE, process};
use crate::simulated::hosts::Rest;
use crate::story::{A, B, INLINE, Story, story_of};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use syncfs::fs::volume::{SetAttr, Volume};
use syncfs::model::conflict::{conflict, conflict_name};
use syncfs::model::ids::ReplicaId;
use syncfs::model::name::Name;

const MINUTE: Duration = Duration::from_secs(60);
/// When simulated time begins, in seconds since 1970; "1990" is long before.
const LONG_AGO: u64 = 631_152_000;
const OLD: &str = "as both had it";
/// What the one and the other write.
const BY: [&str; 2] = ["written by A", "changed by B"];

/// How it ended, in the same words whichever side was later or greater.
struct Met<'a> {
    story: &'a mut Story,
    files: BTreeMap<String, Vec<u8>>,
    /// Who did its part last, and who first.
    later: usize,
    earlier: usize,
    /// Whose replica id is the greater one.
    greater: usize,
}

fn replica(story: &Story, side: usize) -> ReplicaId {
    story.hosts.sides[side].running.as_ref().expect("it runs").replica()
}

/// The conflict copy of `name` that holds that side's version.
fn of(name: &str, side: usize) -> String {
    format!("{name}, of {}", ["A", "B"][side])
}

impl Met<'_> {
    /// Both hold exactly these: names, or copies as [`of`] has them, with their contents; no copy overwrote another.
    fn hold<T: AsRef<str>>(&self, expected: &[(T, &str)]) {
        let replicas = [A, B].map(|side| replica(self.story, side).short());
        let plain = |name: &String| match conflict(&Name::new(name.as_bytes()).unwrap()) {
            Some(told) => {
                assert_eq!(name.matches(".sync-conflict-").count(), 1, "a copy of a copy: {name}");
                let side = replicas.iter().position(|r| *r == told.replica).expect("a replica of these two");
                of(&told.original.to_string(), side)
            }
            None => name.clone(),
        };
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let mut held: Vec<_> = self.files.iter().map(|(name, bytes)| (plain(name), text(bytes))).collect();
        let mut expected: Vec<_> =
            expected.iter().map(|(name, text)| (name.as_ref().to_owned(), text.to_string())).collect();
        held.sort();
        expected.sort();
        assert_eq!(held, expected, "later: {}, greater: {}", self.later, self.greater);
        let copies = self.files.keys().filter(|name| name.contains(".sync-conflict-")).count();
        for side in [A, B] {
            assert_eq!(self.story.host(side).status().conflicts, copies as u64);
        }
    }

    /// Two versions of `name`: the later one has it.
    fn later_keeps(&self, name: &str) {
        self.hold(&[(name.to_owned(), BY[self.later]), (of(name, self.earlier), BY[self.earlier])]);
    }
}

/// Both have `before`, made one after another; A and B do their parts while they are apart; `then` looks.
fn meet(before: &[(&str, &str)], parts: [&dyn Fn(&mut Story); 2], then: &dyn Fn(Met)) {
    let choices = [[11, 22], [22, 11]].into_iter().flat_map(|seeds| [A, B].map(|first| (seeds, first)));
    let ways = [(INLINE, usize::MAX), (INLINE, 1), (0, usize::MAX), (0, 1)];
    for (seeds, first) in choices {
        for (inline, arrivals) in ways {
            story_of(seeds, inline, |s| {
                for (n, (name, text)) in before.iter().enumerate() {
                    save(s, n % 2, name, text);
                    s.hosts.pass(MINUTE);
                    s.level();
                }
                s.cut_link();
                for side in [first, 1 - first] {
                    s.hosts.pass(MINUTE);
                    parts[side](s);
                    s.work(side);
                }
                assert_eq!(s.hosts.rest(|| arrivals, |_, _| Ok(())), Ok(Rest::Level));
                let files = s.hosts.equal().unwrap();
                let greater = if replica(s, A) > replica(s, B) { A } else { B };
                then(Met { story: s, files, later: 1 - first, earlier: first, greater });
            });
        }
    }
}

/// The shortest: both have one file, and each does something to it.
fn meet_over_plan(parts: [&dyn Fn(&mut Story); 2], then: &dyn Fn(Met)) {
    meet(&[("plan", OLD)], parts, then);
}

/// Writes a file anew in place, or makes it, as a program does that truncates it first.
fn save(s: &Story, side: usize, name: &str, text: &str) {
    save_many(s, side, &[(name, text)]);
}

/// The same with several files that one program has open at once.
fn save_many(s: &Story, side: usize, files: &[(&str, &str)]) {
    let host = s.host(side);
    let open = |name| calls::open(host, process(1), name).or_else(|_| calls::create(host, process(1), name));
    let handles: Vec<u64> = files.iter().map(|(name, _)| open(name).unwrap()).collect();
    for (handle, (name, text)) in handles.iter().zip(files) {
        calls::truncate(host, name, 0).unwrap();
        calls::write(host, *handle, 0, text.as_bytes()).unwrap();
    }
    handles.into_iter().for_each(|handle| calls::close(host, handle));
}

/// Writes a file beside it and renames that over it.
fn save_over(s: &Story, side: usize, name: &str, text: &str) {
    let beside = format!(".{name}.of-{side}");
    save(s, side, &beside, text);
    rename(s, side, &beside, name);
}

fn rename(s: &Story, side: usize, from: &str, to: &str) {
    s.host(side).rename(from.as_bytes(), to.as_bytes(), 0).unwrap();
}

fn swap(s: &Story, side: usize, one: &str, other: &str) {
    s.host(side).rename(one.as_bytes(), other.as_bytes(), EXCHANGE).unwrap();
}

fn unlink(s: &Story, side: usize, name: &str) {
    s.host(side).unlink(name.as_bytes()).unwrap();
}

fn chmod(s: &Story, side: usize, name: &str, mode: u32) {
    let host = s.host(side);
    let ino = host.lookup(name.as_bytes()).unwrap().ino;
    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
    host.setattr(process(0), ino, None, set).unwrap();
}

fn touch(s: &Story, side: usize, name: &str, seconds: u64) {
    calls::set_mode_and_time(s.host(side), name, 0o644, seconds).unwrap();
}

// Content.

#[test]
fn edit_and_edit() {
    let edit = |side| move |s: &mut Story| save(s, side, "plan", BY[side]);
    meet_over_plan([&edit(A), &edit(B)], &|met| met.later_keeps("plan"));
}

#[test]
fn edit_and_edit_to_the_same_bytes() {
    let edit = |side| move |s: &mut Story| save(s, side, "plan", "the same");
    meet_over_plan([&edit(A), &edit(B)], &|met| met.hold(&[("plan", "the same")]));
}

#[test]
fn truncation_and_append() {
    let cut = |s: &mut Story| calls::truncate(s.host(A), "plan", 3).unwrap();
    let append = |s: &mut Story| s.write(B, "plan", OLD.len() as u64, b" and more");
    let kept = [&OLD[..3], &format!("{OLD} and more")];
    meet_over_plan([&cut, &append], &|met| {
        met.hold(&[("plan".to_owned(), kept[met.later]), (of("plan", met.earlier), kept[met.earlier])]);
    });
}

#[test]
fn append_and_append() {
    let append =
        |side: usize| move |s: &mut Story| s.write(side, "plan", OLD.len() as u64, BY[side].as_bytes());
    let kept = BY.map(|text| format!("{OLD}{text}"));
    meet_over_plan([&append(A), &append(B)], &|met| {
        met.hold(&[("plan".to_owned(), &kept[met.later][..]), (of("plan", met.earlier), &kept[met.earlier])]);
    });
}

#[test]
fn mode_and_edit() {
    let mode = |s: &mut Story| chmod(s, A, "plan", 0o600);
    let edit = |s: &mut Story| save(s, B, "plan", BY[B]);
    // A change of the mode is none of the time, so the edit is the later version, mode included.
    meet_over_plan([&mode, &edit], &|met| {
        met.hold(&[("plan", BY[B])]);
        assert_eq!(calls::mode(met.story.host(A), "plan"), Some(0o644));
    });
}

#[test]
fn mode_and_mode() {
    let mode = |side: usize| move |s: &mut Story| chmod(s, side, "plan", [0o600, 0o640][side]);
    meet_over_plan([&mode(A), &mode(B)], &|met| {
        met.hold(&[("plan", OLD)]);
        assert_eq!(calls::mode(met.story.host(A), "plan"), Some([0o600, 0o640][met.greater]));
    });
}

#[test]
fn time_and_edit() {
    // A sets a time in the future: that version is the later one, and the edit is in the copy.
    let time = |s: &mut Story| touch(s, A, "plan", 4_000_000_000);
    let edit = |s: &mut Story| save(s, B, "plan", BY[B]);
    meet_over_plan([&time, &edit], &|met| met.hold(&[("plan".to_owned(), OLD), (of("plan", B), BY[B])]));
}

#[test]
fn edit_with_an_old_time_and_edit() {
    let edit_back = |s: &mut Story| {
        save(s, A, "plan", BY[A]);
        touch(s, A, "plan", LONG_AGO);
    };
    let edit = |s: &mut Story| save(s, B, "plan", BY[B]);
    meet_over_plan([&edit_back, &edit], &|met| {
        met.hold(&[("plan".to_owned(), BY[B]), (of("plan", A), BY[A])]);
        let copy = met.files.keys().find(|name| name.contains(".sync-conflict-")).unwrap();
        assert!(copy.contains("-19900101-"), "{copy} does not bear its time");
    });
}

#[test]
fn edit_after_an_old_time_and_edit() {
    let touch_and_edit = |s: &mut Story| {
        touch(s, A, "plan", LONG_AGO);
        save(s, A, "plan", BY[A]);
    };
    let edit = |s: &mut Story| save(s, B, "plan", BY[B]);
    meet_over_plan([&touch_and_edit, &edit], &|met| met.later_keeps("plan"));
}

#[test]
fn edit_and_edit_under_clocks_three_days_apart() {
    for ahead in [A, B] {
        let edit = |side: usize| {
            move |s: &mut Story| {
                s.hosts.set_clock(ahead, 3 * 24 * 3_600);
                save(s, side, "plan", BY[side]);
            }
        };
        // Who is ahead has the name, whoever was later.
        meet_over_plan([&edit(A), &edit(B)], &|met| {
            met.hold(&[("plan".to_owned(), BY[ahead]), (of("plan", 1 - ahead), BY[1 - ahead])]);
        });
    }
}

#[test]
fn edits_of_several_files_of_one_program() {
    let edit = |files: &'static [(&str, &str)], side| move |s: &mut Story| save_many(s, side, files);
    let of_a = edit(&[("db", "of A"), ("db-log", "log of A")], A);
    // The same program at work over there, which has written the log last.
    let of_b = |s: &mut Story| {
        save_many(s, B, &[("db", "of B"), ("db-log", "log of B")]);
        touch(s, B, "db", LONG_AGO);
    };
    let both = [["of A", "log of A"], ["of B", "log of B"]];
    meet(&[("db", OLD), ("db-log", OLD)], [&of_a, &of_b], &|met| {
        let ([won, lost], earlier) = ([both[met.later], both[met.earlier]], met.earlier);
        met.hold(&[
            ("db".to_owned(), won[0]),
            ("db-log".to_owned(), won[1]),
            (of("db", earlier), lost[0]),
            (of("db-log", earlier), lost[1]),
        ]);
        let times: BTreeSet<&str> =
            met.files.keys().filter_map(|name| Some(name.split_once(".sync-conflict-")?.1)).collect();
        assert_eq!(times.len(), 1, "the copies bear different times");
    });
}

#[test]
fn edits_of_several_files_that_are_one_program_s_only_on_one_side() {
    let together = |s: &mut Story| save_many(s, A, &[("db", "of A"), ("db-log", "log of A")]);
    // Edited one by one, the one before what A does, where A is first, and the other with a time of the past.
    let apart = |s: &mut Story| {
        save(s, B, "db", "of B");
        touch(s, B, "db", LONG_AGO);
        s.work(B);
        save(s, B, "db-log", "log of B");
    };
    let both = [["of A", "log of A"], ["of B", "log of B"]];
    meet(&[("db", OLD), ("db-log", OLD)], [&together, &apart], &|met| {
        let ([won, lost], earlier) = ([both[met.later], both[met.earlier]], met.earlier);
        met.hold(&[
            ("db".to_owned(), won[0]),
            ("db-log".to_owned(), won[1]),
            (of("db", earlier), lost[0]),
            (of("db-log", earlier), lost[1]),
        ]);
    });
}

// Deletes.

#[test]
fn delete_and_edit() {
    let (delete, edit) = (|s: &mut Story| unlink(s, A, "plan"), |s: &mut Story| save(s, B, "plan", BY[B]));
    meet_over_plan([&delete, &edit], &|met| met.hold(&[("plan", BY[B])]));
}

#[test]
fn edit_and_delete() {
    let (edit, delete) = (|s: &mut Story| save(s, A, "plan", BY[A]), |s: &mut Story| unlink(s, B, "plan"));
    meet_over_plan([&edit, &delete], &|met| met.hold(&[("plan", BY[A])]));
}

#[test]
fn delete_and_delete() {
    let delete = |side| move |s: &mut Story| unlink(s, side, "plan");
    meet_over_plan([&delete(A), &delete(B)], &|met| met.hold::<&str>(&[]));
}

#[test]
fn delete_and_rename() {
    let (delete, renamed) =
        (|s: &mut Story| unlink(s, A, "plan"), |s: &mut Story| rename(s, B, "plan", "plan of May"));
    meet_over_plan([&delete, &renamed], &|met| met.hold(&[("plan of May", OLD)]));
}

#[test]
fn delete_and_mode() {
    let (delete, mode) = (|s: &mut Story| unlink(s, A, "plan"), |s: &mut Story| chmod(s, B, "plan", 0o600));
    meet_over_plan([&delete, &mode], &|met| met.hold(&[("plan", OLD)]));
}

#[test]
fn edit_then_delete_and_edit() {
    let delete = |s: &mut Story| {
        save(s, A, "plan", BY[A]);
        unlink(s, A, "plan");
    };
    let edit = |s: &mut Story| save(s, B, "plan", BY[B]);
    meet_over_plan([&delete, &edit], &|met| met.hold(&[("plan", BY[B])]));
}

#[test]
fn delete_and_a_new_file_of_that_name() {
    let delete = |s: &mut Story| unlink(s, A, "plan");
    let anew = |s: &mut Story| {
        unlink(s, B, "plan");
        save(s, B, "plan", BY[B]);
    };
    meet_over_plan([&delete, &anew], &|met| met.hold(&[("plan", BY[B])]));
}

// Renames.

#[test]
fn rename_and_edit() {
    let (renamed, edit) =
        (|s: &mut Story| rename(s, A, "plan", "plan of May"), |s: &mut Story| save(s, B, "plan", BY[B]));
    meet_over_plan([&renamed, &edit], &|met| met.hold(&[("plan of May", BY[B])]));
}

#[test]
fn rename_and_rename_to_different_names() {
    let renamed = |side: usize| move |s: &mut Story| rename(s, side, "plan", ["of May", "of June"][side]);
    meet_over_plan([&renamed(A), &renamed(B)], &|met| met.hold(&[(["of May", "of June"][met.greater], OLD)]));
}

#[test]
fn rename_and_rename_to_the_same_name() {
    let renamed = |side: usize| move |s: &mut Story| rename(s, side, "plan", "of May");
    meet_over_plan([&renamed(A), &renamed(B)], &|met| met.hold(&[("of May", OLD)]));
}

#[test]
fn renames_of_two_files_to_the_same_name() {
    for before in [[("one", BY[A]), ("two", BY[B])], [("two", BY[B]), ("one", BY[A])]] {
        let renamed = |side: usize| move |s: &mut Story| rename(s, side, ["one", "two"][side], "plan");
        // The file that was modified last has the name, whoever renamed last.
        let later = if before[0].0 == "one" { B } else { A };
        meet(&before, [&renamed(A), &renamed(B)], &|met| {
            met.hold(&[("plan".to_owned(), BY[later]), (of("plan", 1 - later), BY[1 - later])]);
        });
    }
}

#[test]
fn rename_and_a_new_file_of_the_new_name() {
    let renamed = |s: &mut Story| rename(s, A, "plan", "of May");
    let new = |s: &mut Story| save(s, B, "of May", BY[B]);
    // What was renamed was last modified before.
    meet_over_plan([&renamed, &new], &|met| {
        met.hold(&[("of May".to_owned(), BY[B]), (of("of May", A), OLD)]);
    });
}

#[test]
fn rename_and_a_new_file_of_the_old_name() {
    let renamed = |s: &mut Story| rename(s, A, "plan", "of May");
    let anew = |s: &mut Story| save_over(s, B, "plan", BY[B]);
    // A's rename wins over B's unlink, which the save is: both files stay.
    meet_over_plan([&renamed, &anew], &|met| met.hold(&[("of May", OLD), ("plan", BY[B])]));
}

#[test]
fn rename_over_and_edit() {
    let over = |s: &mut Story| save_over(s, A, "plan", BY[A]);
    let edit = |s: &mut Story| save(s, B, "plan", BY[B]);
    meet_over_plan([&over, &edit], &|met| met.later_keeps("plan"));
}

#[test]
fn rename_over_and_rename_over() {
    let over = |side: usize| move |s: &mut Story| save_over(s, side, "plan", BY[side]);
    meet_over_plan([&over(A), &over(B)], &|met| met.later_keeps("plan"));
}

#[test]
fn rename_over_and_delete() {
    let (over, delete) =
        (|s: &mut Story| save_over(s, A, "plan", BY[A]), |s: &mut Story| unlink(s, B, "plan"));
    meet_over_plan([&over, &delete], &|met| met.hold(&[("plan", BY[A])]));
}

#[test]
fn rename_over_another_and_edit_of_that() {
    let over = |s: &mut Story| rename(s, A, "draft", "plan");
    let edit = |s: &mut Story| save(s, B, "plan", BY[B]);
    meet(&[("plan", OLD), ("draft", "a draft")], [&over, &edit], &|met| {
        met.hold(&[("plan".to_owned(), BY[B]), (of("plan", A), "a draft")]);
    });
}

#[test]
fn rename_over_another_and_edit_of_what_is_renamed() {
    let over = |s: &mut Story| rename(s, A, "draft", "plan");
    let edit = |s: &mut Story| save(s, B, "draft", BY[B]);
    meet(&[("plan", OLD), ("draft", "a draft")], [&over, &edit], &|met| met.hold(&[("plan", BY[B])]));
}

#[test]
fn swap_and_edit() {
    let swapped = |s: &mut Story| swap(s, A, "one", "two");
    let edit = |s: &mut Story| save(s, B, "one", BY[B]);
    meet(&[("one", "1"), ("two", "2")], [&swapped, &edit], &|met| met.hold(&[("one", "2"), ("two", BY[B])]));
}

#[test]
fn swap_and_swap() {
    let swapped = |side: usize| move |s: &mut Story| swap(s, side, "one", "two");
    meet(&[("one", "1"), ("two", "2")], [&swapped(A), &swapped(B)], &|met| {
        met.hold(&[("one", "2"), ("two", "1")]);
    });
}

#[test]
fn swap_and_rename() {
    let swapped = |s: &mut Story| swap(s, A, "one", "two");
    let renamed = |s: &mut Story| rename(s, B, "one", "three");
    meet(&[("one", "1"), ("two", "2")], [&swapped, &renamed], &|met| {
        met.hold(&[("one", "2"), (["two", "three"][met.greater], "1")]);
    });
}

#[test]
fn swap_and_delete() {
    let swapped = |s: &mut Story| swap(s, A, "one", "two");
    let delete = |s: &mut Story| unlink(s, B, "one");
    meet(&[("one", "1"), ("two", "2")], [&swapped, &delete], &|met| met.hold(&[("one", "2"), ("two", "1")]));
}

#[test]
fn chain_and_edit() {
    let chain = |s: &mut Story| {
        rename(s, A, "b", "c");
        rename(s, A, "a", "b");
    };
    let edit = |s: &mut Story| save(s, B, "b", BY[B]);
    meet(&[("a", "1"), ("b", "2")], [&chain, &edit], &|met| met.hold(&[("b", "1"), ("c", BY[B])]));
}

#[test]
fn chain_and_a_new_file_in_its_way() {
    let chain = |s: &mut Story| {
        rename(s, A, "b", "c");
        rename(s, A, "a", "b");
    };
    let new = |s: &mut Story| save(s, B, "c", BY[B]);
    meet(&[("a", "1"), ("b", "2")], [&chain, &new], &|met| {
        met.hold(&[("b".to_owned(), "1"), ("c".to_owned(), BY[B]), (of("c", A), "2")]);
    });
}

// New names, and names of copies.

#[test]
fn new_and_new_of_one_name() {
    let new = |side: usize| move |s: &mut Story| save(s, side, "plan", BY[side]);
    meet(&[], [&new(A), &new(B)], &|met| met.later_keeps("plan"));
}

#[test]
fn new_and_new_of_one_name_with_the_same_bytes() {
    let new = |side: usize| move |s: &mut Story| save(s, side, "plan", "the same");
    meet(&[], [&new(A), &new(B)], &|met| met.hold(&[("plan", "the same")]));
}

/// What the version of `side` would be called that lost `name` and was last modified now.
fn copy_of(s: &Story, side: usize, name: &str) -> String {
    let stamp = s.hosts.now();
    conflict_name(&Name::new(name.as_bytes()).unwrap(), stamp, replica(s, side), |_| false).to_string()
}

#[test]
fn new_file_that_is_named_as_a_copy_will_be() {
    let names = std::cell::RefCell::new(String::new());
    let edit = |s: &mut Story| {
        save(s, A, "plan", BY[A]);
        // Somebody has a file of that name already.
        *names.borrow_mut() = copy_of(s, A, "plan");
        save(s, A, &names.borrow(), "mine");
        touch(s, A, &names.borrow(), 4_000_000_000);
    };
    let edit_too = |s: &mut Story| {
        save(s, B, "plan", BY[B]);
        touch(s, B, "plan", 4_000_000_000);
    };
    meet_over_plan([&edit, &edit_too], &|met| {
        met.hold(&[("plan".to_owned(), BY[B]), (of("plan", A), BY[A]), (of("plan", A), "mine")]);
        assert_eq!(met.files[&*names.borrow()], b"mine", "a file was moved for the sake of a copy");
    });
    // The other side has it.
    let names = |s: &Story| copy_of(s, A, "plan");
    let edit = |s: &mut Story| save(s, A, "plan", BY[A]);
    let edit_too = |s: &mut Story| {
        save(s, B, &names(s), "mine");
        save(s, B, "plan", BY[B]);
        touch(s, B, "plan", 4_000_000_000);
    };
    meet_over_plan([&edit, &edit_too], &|met| {
        let held: BTreeSet<&[u8]> = met.files.values().map(Vec::as_slice).collect();
        assert_eq!(held, BTreeSet::from([BY[A].as_bytes(), BY[B].as_bytes(), b"mine"]));
        assert_eq!(met.files.len(), 3);
    });
}

#[test]
fn edits_of_a_file_whose_name_is_as_long_as_names_can_be() {
    for (name, kept) in [
        (format!("{}.txt", "n".repeat(251)), "n".repeat(212)),
        // Letters of two bytes and of three, of which the room does not take a whole number.
        (format!("n{}.txt", "ä".repeat(125)), format!("n{}", "ä".repeat(105))),
        (format!("{}.txt", "字".repeat(83)), "字".repeat(70)),
    ] {
        let edit = |side: usize| {
            let name = name.clone();
            move |s: &mut Story| save(s, side, &name, BY[side])
        };
        meet(&[(&name, OLD)], [&edit(A), &edit(B)], &|met| {
            assert_eq!(met.files.len(), 2);
            assert_eq!(met.files[&name], BY[met.later].as_bytes());
            let (copy, bytes) = met.files.iter().find(|(other, _)| **other != name).unwrap();
            assert!(copy.len() <= 255 && copy.ends_with(".txt"), "{copy}");
            assert_eq!(copy.split_once(".sync-conflict-").unwrap().0, kept);
            assert_eq!(bytes, BY[met.earlier].as_bytes());
        });
    }
}

#[test]
fn edits_of_two_files_whose_copies_get_one_name() {
    // They differ only where they are cut off.
    let names = ["1", "2"].map(|end| format!("{}{end}", "n".repeat(254)));
    let edit = |side: usize| {
        let names = names.clone();
        move |s: &mut Story| {
            save(s, side, &names[0], &format!("{} 1", BY[side]));
            save(s, side, &names[1], &format!("{} 2", BY[side]));
        }
    };
    meet(&[(&names[0], OLD), (&names[1], OLD)], [&edit(A), &edit(B)], &|met| {
        let held: BTreeSet<Vec<u8>> = met.files.into_values().collect();
        let expected =
            BY.iter().flat_map(|by| [format!("{by} 1").into_bytes(), format!("{by} 2").into_bytes()]);
        assert_eq!(held, expected.collect());
    });
}

#[test]
fn edit_and_edit_of_a_conflict_copy() {
    let copy = "plan.sync-conflict-20010203-040506-00000000.txt";
    let edit = |side: usize| move |s: &mut Story| save(s, side, copy, BY[side]);
    meet(&[(copy, OLD)], [&edit(A), &edit(B)], &|met| {
        assert_eq!(met.files[copy], BY[met.later].as_bytes());
        let (other, bytes) = met.files.iter().find(|(name, _)| *name != copy).unwrap();
        let told = conflict(&Name::new(other.as_bytes()).unwrap()).unwrap();
        assert_eq!(
            (told.original.to_string(), other.matches("conflict").count()),
            ("plan.txt".to_owned(), 1)
        );
        assert_eq!(bytes, BY[met.earlier].as_bytes());
        assert_eq!(met.files.len(), 2);
    });
}

#[test]
fn three_conflicts_in_one_second() {
    let nothing = |_: &mut Story| ();
    meet_over_plan([&nothing, &nothing], &|met| {
        let (s, greater, lesser) = (met.story, met.greater, 1 - met.greater);
        let text = |side: usize, round: u32| format!("{} {round}", BY[side]);
        // No time passes, so the greater replica has the name each time.
        for round in 0..3 {
            s.cut_link();
            [A, B].into_iter().for_each(|side| save(s, side, "plan", &text(side, round)));
            s.level();
        }
        let files = s.level();
        let held: BTreeSet<&[u8]> = files.values().map(Vec::as_slice).collect();
        let expected = [text(greater, 2), text(lesser, 0), text(lesser, 1), text(lesser, 2)];
        assert_eq!(held, expected.iter().map(String::as_bytes).collect());
        assert_eq!((files.len(), &files["plan"]), (4, &text(greater, 2).into_bytes()));
    });
}

/// The rows of the page name the tests in the last column.
fn rows() -> BTreeSet<&'static str> {
    let page = include_str!("../../docs/semantics.md");
    let last = |line: &'static str| line.trim().strip_suffix("` |")?.rsplit_once("| `").map(|(_, test)| test);
    page.lines().filter_map(last).collect()
}

#[test]
fn each_row_of_the_table_has_its_test_and_each_test_its_row() {
    let here = include_str!("meeting.rs");
    let tests = here.split("#[test]\n").skip(1).filter_map(|text| {
        let text = text.strip_prefix("#[ignore").map_or(text, |rest| rest.split_once('\n').unwrap().1);
        text.strip_prefix("fn ")?.split_once('(').map(|(name, _)| name)
    });
    let this = "each_row_of_the_table_has_its_test_and_each_test_its_row";
    let tests: BTreeSet<&str> = tests.filter(|name| *name != this).collect();
    assert!(tests.len() > 30);
    assert_eq!(rows(), tests);
}
