//! Histories by name: each is one that could happen to somebody, told step by step, and says what they find.

use crate::simulated::calls::{self, process};
use crate::simulated::side::{Done, Fate};
use crate::story::{A, B, INLINE, Story, copies, story, text, versions};
use std::collections::BTreeMap;
use std::time::Duration;
use syncfs::engine::Host;
use syncfs::fs::volume::Volume;
use syncfs::model::limits::REQUESTS;
use syncfs::store::{Dir, Disk};

/// Every way in which a power cut tears a disk that a story tries.
fn tears() -> impl Iterator<Item = Fate> {
    std::iter::once(Fate::UnsyncedLost).chain((0..8).map(Fate::PowerLost))
}

#[test]
fn an_edit_made_after_a_power_cut_and_what_the_peer_has_are_both_kept() {
    for fate in tears() {
        story(INLINE, |s| {
            s.write(A, "report", 0, &text(3_000, b'1'));
            s.fsync(A, "report");
            s.level();
            // The peer thanks for the second version, which is on no disk of A's.
            s.write(A, "report", 0, &text(3_000, b'2'));
            s.level();
            s.cut_link();
            s.crash(A, fate);
            s.write(A, "report", 0, &text(3_500, b'3'));
            s.fsync(A, "report");
            let files = s.level();
            let kept = versions(&files, "report");
            assert!(
                kept.contains(&text(3_500, b'3')),
                "{fate:?}: what was written after the power cut is lost"
            );
            assert!(kept.len() <= 2, "{fate:?}: {} versions of two", kept.len());
            // It was written over all of the older one, so that may be gone; never half of it.
            assert!(kept.iter().all(|v| v.iter().all(|byte| *byte == v[0])), "{fate:?}: a mixture");
        });
    }
}

#[test]
fn a_part_written_after_a_power_cut_does_not_take_the_rest_back() {
    for fate in tears() {
        story(INLINE, |s| {
            s.write(A, "report", 0, &text(3_000, b'1'));
            s.fsync(A, "report");
            s.level();
            s.write(A, "report", 0, &text(2_000, b'2'));
            s.level();
            s.cut_link();
            s.crash(A, fate);
            // A program goes on with the file before anybody could compare it.
            s.write(A, "report", 2_000, &text(1_000, b'3'));
            let files = s.level();
            let kept = versions(&files, "report");
            let has = |at: std::ops::Range<usize>, byte| {
                kept.iter().any(|v| v[at.clone()].iter().all(|b| *b == byte))
            };
            assert!(has(2_000..3_000, b'3'), "{fate:?}: what was written after the power cut is lost");
            assert!(has(0..2_000, b'2'), "{fate:?}: what both hosts had is lost");
            assert!(kept.len() <= 2, "{fate:?}: {} versions of two", kept.len());
        });
    }
}

#[test]
fn what_both_hosts_had_is_not_taken_back_by_a_disk_that_never_had_it() {
    for fate in tears() {
        story(INLINE, |s| {
            s.write(A, "report", 0, &text(3_000, b'1'));
            s.fsync(A, "report");
            s.level();
            // The peer has the second version, which is on no disk of A's, and A writes to that once more.
            s.write(A, "report", 0, &text(3_000, b'2'));
            s.level();
            s.write(A, "report", 500, &text(100, b'3'));
            s.crash(A, fate);
            let found = s.level();
            assert_eq!(found.len(), 1, "{fate:?}: a copy of what nobody wrote apart");
            let report = &found["report"];
            assert_eq!(report.len(), 3_000);
            assert!(report.iter().all(|byte| b"23".contains(byte)), "{fate:?}: the first version is back");
        });
    }
}

#[test]
fn what_fsync_returned_for_stays_above_what_the_peer_had() {
    for fate in tears() {
        story(INLINE, |s| {
            s.write(A, "report", 0, &text(3_000, b'1'));
            s.fsync(A, "report");
            s.level();
            s.write(A, "report", 0, &text(3_000, b'2'));
            s.level();
            s.cut_link();
            s.write(A, "report", 500, &text(100, b'3'));
            calls::set_mode_and_time(s.host(A), "report", 0o600, 1_600_000_000).unwrap();
            s.fsync(A, "report");
            s.crash(A, fate);
            let found = s.level();
            let mut report = text(3_000, b'2');
            report[500..600].fill(b'3');
            assert_eq!(found, BTreeMap::from([("report".to_owned(), report)]), "{fate:?}");
            assert_eq!(calls::mode(s.host(B), "report"), Some(0o600), "{fate:?}");
        });
    }
}

#[test]
fn permissions_that_both_hosts_had_do_not_come_undone() {
    story(INLINE, |s| {
        s.write(A, "key", 0, &text(1_000, b'k'));
        s.fsync(A, "key");
        s.level();
        calls::set_mode_and_time(s.host(A), "key", 0o600, 1_600_000_000).unwrap();
        s.level();
        s.write(A, "key", 0, &text(10, b'K'));
        s.crash(A, Fate::UnsyncedLost);
        s.level();
        assert_eq!([A, B].map(|side| calls::mode(s.host(side), "key")), [Some(0o600); 2]);
    });
}

#[test]
fn what_was_cut_off_does_not_come_back_beneath_what_is_written_later() {
    for fate in tears() {
        story(INLINE, |s| {
            s.write(A, "list", 0, &text(3_000, b'1'));
            s.fsync(A, "list");
            s.level();
            calls::truncate(s.host(A), "list", 700).unwrap();
            s.level();
            s.write(A, "list", 2_500, &text(100, b'2'));
            s.crash(A, fate);
            let list = &s.level()["list"];
            assert!(list[..700].iter().all(|byte| *byte == b'1'), "{fate:?}");
            assert!(list[700..].iter().all(|byte| *byte != b'1'), "{fate:?}: what was cut off is back");
        });
    }
}

#[test]
fn what_the_peer_has_of_a_file_that_only_grew_is_not_cut_off_by_a_disk_that_never_had_it() {
    for fate in tears() {
        story(INLINE, |s| {
            let told = text(2_610, b'1');
            s.write(A, "list", 0, &told);
            s.level();
            s.write(A, "list", 2_600, &text(2_400, b'1'));
            // The journal is durable when this is told; the file need not be, nor ever have been.
            s.work(A);
            s.crash(A, fate);
            let list = &s.level()["list"];
            assert_eq!(list.get(..2_600), told.get(..2_600), "{fate:?}: {} bytes", list.len());
        });
    }
}

#[test]
fn a_change_that_failed_in_the_middle_is_finished_after_a_checkpoint_and_a_kill() {
    story(INLINE, |s| {
        let (old, new) = (text(3_000, b'o'), text(2_000, b'n'));
        s.write(A, "plan", 0, &old);
        s.level();
        calls::truncate(s.host(A), "plan", 2_000).unwrap();
        s.write(A, "plan", 0, &new);
        s.work(A);
        s.deliver_from(A);
        // B's disk takes what is written, and fails when the file is to become shorter.
        s.hosts.sides[B].disk.fail_truncate(true);
        s.work(B);
        s.cut_link();
        let checkpointed = s.hosts.sides[B].run(|stepped| stepped.checkpoint().map_err(|e| e.to_string()));
        assert!(matches!(checkpointed, Done::Value(Ok(()))));
        s.hosts.sides[B].disk.fail_truncate(false);
        s.crash(B, Fate::Killed);
        assert_eq!(s.read(B, "plan"), new, "half of a change shows");
        assert_eq!(s.level(), BTreeMap::from([("plan".to_owned(), new)]));
    });
}

#[test]
fn a_change_that_failed_does_not_bring_back_what_was_unlinked_since() {
    for checkpointed in [false, true] {
        story(INLINE, |s| {
            s.write(B, "plan", 0, &text(3_000, b'o'));
            s.write(B, "draft", 0, &text(3_000, b'd'));
            s.level();
            s.cut_link();
            calls::truncate(s.host(A), "plan", 2_000).unwrap();
            s.host(B).unlink(b"draft").unwrap();
            // B, which has never had anything of A's own, is told of all that A has.
            s.hosts.connect();
            s.deliver_from(B);
            s.work(A);
            s.deliver_from(A);
            // The change to the plan fails, so that of the draft, which stands behind it, is not begun.
            s.hosts.sides[B].disk.fail_truncate(true);
            s.work(B);
            s.deliver_from(B);
            s.work(A);
            s.deliver_from(A);
            s.work(B);
            s.cut_link();
            s.work(B);
            s.hosts.sides[B].disk.fail_truncate(false);
            if checkpointed {
                let done = s.hosts.sides[B].run(|stepped| stepped.checkpoint().map_err(|e| e.to_string()));
                assert!(matches!(done, Done::Value(Ok(()))));
            }
            s.crash(B, Fate::Killed);
            assert_eq!(s.names(B), ["plan"], "a file that both have unlinked is there again");
            assert_eq!(s.level(), BTreeMap::from([("plan".to_owned(), text(2_000, b'o'))]));
        });
    }
}

#[test]
fn a_file_edited_by_hand_after_a_kill_is_told() {
    story(INLINE, |s| {
        s.write(A, "plan", 0, &text(3_000, b'o'));
        s.level();
        s.hosts.sides[B].kill();
        s.hosts.sides[B].settle(Fate::Killed);
        s.hosts.pass(Duration::from_secs(5));
        let by_hand = text(3_000, b'h');
        s.hosts.sides[B].disk.open(Dir::Root, b"plan", true).unwrap().write_all_at(&by_hand, 0).unwrap();
        assert!(s.hosts.start(B));
        assert_eq!(s.level(), BTreeMap::from([("plan".to_owned(), by_hand)]));
    });
}

#[test]
fn what_is_on_its_way_for_a_file_that_grows_meanwhile_is_taken() {
    story(0, |s| {
        s.write(A, "log", 0, &text(3_300, b'1'));
        s.work(A);
        s.deliver_from(A);
        s.work(B);
        s.deliver_from(B);
        s.work(A);
        // The answer is there, and the news that the file has grown, before B writes any of it.
        s.deliver_from(A);
        s.write(A, "log", 5_000, &text(100, b'2'));
        s.work(A);
        s.deliver_from(A);
        assert!(matches!(s.hosts.turn(B, 1), Done::Value(true)), "the applier has something to do");
        let mut log = text(3_300, b'1');
        log.resize(5_000, 0);
        log.extend(text(100, b'2'));
        assert_eq!(s.level()["log"], log);
    });
}

#[test]
fn a_program_at_work_in_a_file_that_is_being_compared_loses_nothing() {
    for fate in tears() {
        story(INLINE, |s| {
            s.write(A, "report", 0, &text(3_000, b'1'));
            s.fsync(A, "report");
            s.level();
            s.write(A, "report", 0, &text(2_000, b'2'));
            s.level();
            s.crash(A, fate);
            let handle = calls::open(s.host(A), process(1), "report").unwrap();
            // The question is on its way when the program writes, and writes again when the answer is there.
            s.hosts.connect();
            s.deliver_from(A);
            calls::write(s.host(A), handle, 2_500, &text(250, b'3')).unwrap();
            s.work(B);
            s.deliver_from(B);
            calls::write(s.host(A), handle, 2_750, &text(250, b'4')).unwrap();
            s.work(A);
            calls::close(s.host(A), handle);
            let files = s.level();
            let kept = versions(&files, "report");
            let written = [text(250, b'3'), text(250, b'4')].concat();
            assert!(kept.iter().any(|v| v[2_500..] == written), "{fate:?}: what the program wrote is lost");
            let both_had = text(2_000, b'2');
            assert!(kept.iter().any(|v| v[..2_000] == both_had), "{fate:?}: what both hosts had is lost");
        });
    }
}

#[test]
fn a_new_file_whose_name_was_not_durable_comes_back_from_the_peer() {
    for fate in tears() {
        story(INLINE, |s| {
            s.write(A, "new", 0, &text(2_500, b'n'));
            s.level();
            s.crash(A, fate);
            assert_eq!(s.level(), BTreeMap::from([("new".to_owned(), text(2_500, b'n'))]), "{fate:?}");
        });
    }
}

#[test]
fn a_new_file_that_nobody_else_had_is_gone_with_the_power_and_leaves_no_ghost() {
    story(INLINE, |s| {
        s.write(A, "old", 0, &text(500, b'o'));
        s.fsync(A, "old");
        s.level();
        s.cut_link();
        s.write(A, "new", 0, &text(2_500, b'n'));
        s.crash(A, Fate::UnsyncedLost);
        assert_eq!(s.names(A), ["old"]);
        assert_eq!(s.level(), BTreeMap::from([("old".to_owned(), text(500, b'o'))]));
        // The name is free for something else.
        s.write(A, "new", 0, &text(100, b'N'));
        assert_eq!(s.level()["new"], text(100, b'N'));
    });
}

#[test]
fn a_file_that_was_changed_in_very_many_places_arrives() {
    story(0, |s| {
        let places = 3 * REQUESTS;
        let mut image = text(places * 2_000, b'o');
        s.write(A, "image", 0, &image);
        s.level();
        s.cut_link();
        let host = s.host(A);
        let handle = calls::open(host, process(1), "image").unwrap();
        for at in (0..places).map(|n| n * 2_000) {
            calls::write(host, handle, at as u64, b"n").unwrap();
            image[at] = b'n';
        }
        calls::close(host, handle);
        assert_eq!(s.level(), BTreeMap::from([("image".to_owned(), image)]));
    });
}

#[test]
fn a_file_that_vanished_with_what_nobody_else_had_of_it_comes_back_as_the_peer_has_it() {
    for (told, size) in [(2_610, 5_000), (5_000, 2_610), (2_500, 2_500)] {
        story(INLINE, |s| {
            let list = text(told, b'1');
            s.write(A, "list", 0, &list);
            s.level();
            s.cut_link();
            calls::truncate(s.host(A), "list", size).unwrap();
            s.write(A, "list", 100, b"changed and never told");
            assert!(matches!(s.hosts.sides[A].close(), Done::Value(Ok(()))));
            s.hosts.sides[A].disk.unlink(Dir::Root, b"list").unwrap();
            assert!(s.hosts.start(A));
            assert_eq!(s.level(), BTreeMap::from([("list".to_owned(), list)]));
        });
    }
}

#[test]
fn a_file_replaced_by_an_editor_stays_whole_when_the_link_is_cut_before_the_content() {
    story(0, |s| {
        let (old, new) = (text(4_000, b'o'), text(5_000, b'n'));
        s.write(A, "letter", 0, &old);
        s.level();
        s.write(A, "letter.tmp", 0, &new);
        s.fsync(A, "letter.tmp");
        s.host(A).rename(b"letter.tmp", b"letter", 0).unwrap();
        s.work(A);
        s.deliver_from(A);
        s.work(B);
        // B has asked for the content, and the answer is lost.
        s.deliver_from(B);
        s.work(A);
        s.cut_link();
        s.work(B);
        assert_eq!(s.read(B, "letter"), old, "the old version can't be read while the new one is on its way");
        // Also not after B was started anew.
        s.crash(B, Fate::Killed);
        assert_eq!(s.read(B, "letter"), old);
        assert_eq!(s.level(), BTreeMap::from([("letter".to_owned(), new)]));
    });
}

#[test]
fn a_database_in_mid_transaction_never_shows_without_its_rollback_journal() {
    for inline in [INLINE, 0] {
        story(inline, |s| {
            let (old, new) = (text(8_000, b'o'), text(4_000, b'n'));
            s.write(A, "db", 0, &old);
            s.level();
            // What SQLite does: the pages as they were, synced, then the new ones.
            let db = calls::open(s.host(A), process(1), "db").unwrap();
            let journal = calls::create(s.host(A), process(1), "db-journal").unwrap();
            calls::write(s.host(A), journal, 0, &old[..4_000]).unwrap();
            s.host(A).fsync(journal, false).unwrap();
            calls::write(s.host(A), db, 0, &new).unwrap();
            s.host(A).fsync(db, false).unwrap();
            let can_be_rolled_back = |host: &Host, side: usize| {
                let db = calls::read(host, "db").ok_or("the database can't be read")?;
                let journal = calls::read(host, "db-journal");
                let names = calls::names(host);
                match &journal {
                    _ if side == A || db == old => Ok(()),
                    // A program that finds the journal puts these pages back.
                    Some(pages) if [&pages[..], &db[4_000..]].concat() == old => Ok(()),
                    _ => Err(format!("half a transaction, beside {names:?}")),
                }
            };
            s.level_watched(can_be_rolled_back);
            assert_eq!(s.names(B), ["db", "db-journal"]);
            can_be_rolled_back(s.host(B), B).unwrap();
            // The rest of the transaction, and the journal goes: that commits it.
            calls::write(s.host(A), db, 4_000, &new).unwrap();
            s.host(A).fsync(db, false).unwrap();
            calls::close(s.host(A), journal);
            s.host(A).unlink(b"db-journal").unwrap();
            let committed = [&new[..], &new].concat();
            let files = s.level_watched(|host, side| {
                let db = calls::read(host, "db").ok_or("the database can't be read")?;
                let journal = calls::read(host, "db-journal");
                match journal {
                    None if side == B && db != committed => Err("half a transaction, and no journal".into()),
                    _ => Ok(()),
                }
            });
            assert_eq!(files, BTreeMap::from([("db".to_owned(), committed)]));
            calls::close(s.host(A), db);
        });
    }
}

#[test]
fn a_file_edited_by_hand_while_an_apply_was_cut_short_is_kept() {
    let (old, theirs, by_hand) = (text(3_000, b'o'), text(3_000, b'a'), text(2_000, b'h'));
    // Killed at each change of B's disk while it applies, until it no longer is.
    for effect in 1.. {
        let mut died = false;
        story(INLINE, |s| {
            s.write(A, "plan", 0, &old);
            s.level();
            s.write(A, "plan", 0, &theirs);
            s.work(A);
            s.deliver_from(A);
            let disk = s.hosts.sides[B].disk.clone();
            disk.die_at(Some(disk.effects() + effect));
            died = !s.work(B);
            if !died {
                return;
            }
            s.hosts.sides[B].settle(Fate::Killed);
            s.hosts.pass(Duration::from_secs(5));
            // While it changes it is out of sight: then somebody writes it anew.
            let raw = disk.open(Dir::Root, b"plan", true).or_else(|_| disk.create(Dir::Root, b"plan", 0o644));
            let raw = raw.unwrap();
            raw.set_len(0).unwrap();
            raw.write_all_at(&by_hand, 0).unwrap();
            assert!(s.hosts.start(B));
            let kept = versions(&s.level(), "plan");
            assert!(kept.contains(&by_hand), "killed at {effect}: what was written by hand is lost");
            // By hand it was written over what lay there; A's version, if that was not it, is kept.
            assert!(kept.iter().all(|v| *v == by_hand || *v == theirs), "killed at {effect}: a mixture");
        });
        if !died {
            assert!(effect > 3, "only {effect} changes");
            return;
        }
    }
}

#[test]
fn a_database_that_both_hosts_wrote_while_apart_is_kept_in_both_versions() {
    for inline in [INLINE, 0] {
        story(inline, |s| {
            s.write(A, "db", 0, &text(9_000, b'0'));
            s.level();
            s.cut_link();
            // Different pages: a mixture would be no database at all.
            s.write(A, "db", 0, &text(4_000, b'a'));
            s.fsync(A, "db");
            s.hosts.pass(Duration::from_secs(60));
            s.write(B, "db", 4_000, &text(4_000, b'b'));
            s.fsync(B, "db");
            let of_a = [text(4_000, b'a'), text(5_000, b'0')].concat();
            let of_b = [text(4_000, b'0'), text(4_000, b'b'), text(1_000, b'0')].concat();
            let files = s.level();
            assert_eq!(files["db"], of_b, "the later version does not have the name");
            let copies = copies(&files);
            assert_eq!(copies.len(), 1, "{copies:?}");
            assert_eq!(files[copies[0]], of_a, "the other version is not whole");
        });
    }
}

#[test]
fn a_week_offline_with_an_fsync_every_second_stays_small_and_is_caught_up_with() {
    // A week has 604,800; more find nothing that an hour does not.
    let seconds = std::env::var("SYNCFS_WEEK").map_or(3_600, |n| n.parse().expect("SYNCFS_WEEK is a number"));
    story(INLINE, |s| {
        s.write(A, "ledger", 0, &text(50_000, b'.'));
        let mut expected = s.level()["ledger"].clone();
        s.cut_link();
        let handle = calls::open(s.host(A), process(1), "ledger").unwrap();
        let (mut journal, mut metadata) = (0, 0);
        for second in 0..seconds {
            let line = format!("{second:09}\n");
            let at = (second as usize * line.len()) % expected.len();
            expected[at..at + line.len()].copy_from_slice(line.as_bytes());
            calls::write(s.host(A), handle, at as u64, line.as_bytes()).unwrap();
            s.host(A).fsync(handle, false).unwrap();
            s.hosts.pass(Duration::from_secs(1));
            s.work(A);
            if second % 60 == 59 {
                let disk = &s.hosts.sides[A].disk;
                let segments = disk.names(Dir::Journal);
                let bytes = |name: &Vec<u8>| disk.bytes(Dir::Journal, name).map_or(0, |b| b.len());
                journal = journal.max(segments.iter().map(bytes).sum());
                let stored = disk.meta().load().unwrap();
                metadata = metadata.max(stored.files.iter().map(|(_, bytes)| bytes.len()).sum());
            }
        }
        calls::close(s.host(A), handle);
        println!("{seconds} fsyncs: {journal} bytes of journal and {metadata} of metadata at most");
        assert!(journal < 4 << 20, "the journal grew to {journal} bytes");
        assert!(metadata < 4_096, "the metadata of one file grew to {metadata} bytes");
        let files = s.level();
        assert_eq!(files, BTreeMap::from([("ledger".to_owned(), expected)]));
    });
}

/// B is put back to what a backup of its disk has, after both had gone on.
fn restored(then: impl FnOnce(&mut Story)) {
    story(INLINE, |s| {
        s.write(A, "from a", 0, &text(2_000, b'1'));
        s.write(B, "from b", 0, &text(2_000, b'1'));
        s.write(B, "removed", 0, &text(1_000, b'r'));
        s.level();
        let backup = s.hosts.sides[B].disk.snapshot();
        s.write(A, "from a", 500, &text(1_000, b'2'));
        s.write(B, "from b", 500, &text(1_000, b'2'));
        s.write(A, "later", 0, &text(1_500, b'l'));
        s.write(B, "latest", 0, &text(1_500, b'L'));
        s.host(B).unlink(b"removed").unwrap();
        s.level();
        s.cut_link();
        s.hosts.sides[B].kill();
        s.hosts.sides[B].disk = backup;
        assert!(s.hosts.wake(B, Fate::PowerLost(0)));
        then(s);
    });
}

#[test]
fn a_backup_put_back_takes_nothing_from_the_other_host() {
    restored(|s| {
        let had = calls::whole_files(s.host(A));
        let files = s.level();
        for (name, bytes) in had {
            assert!(versions(&files, &name).contains(&bytes), "{name} is lost: {:?}", files.keys());
        }
    });
}

#[test]
fn work_on_a_backup_that_was_put_back_is_kept_as_well() {
    restored(|s| {
        let had = calls::whole_files(s.host(A));
        // Somebody goes on with what the backup had, before the hosts meet.
        s.write(B, "from b", 1_000, &text(1_000, b'3'));
        s.write(B, "another", 0, &text(700, b'n'));
        let edited = s.read(B, "from b");
        let files = s.level();
        for (name, bytes) in had {
            assert!(versions(&files, &name).contains(&bytes), "{name} is lost: {:?}", files.keys());
        }
        assert!(versions(&files, "from b").contains(&edited), "what was written after the backup is lost");
        assert_eq!(files["another"], text(700, b'n'));
    });
}

#[test]
fn a_file_that_comes_back_is_not_the_deleted_one_that_a_program_still_has_open() {
    for inline in [INLINE, 0] {
        story(inline, |s| {
            s.write(A, "log", 0, &text(3_000, b'o'));
            s.level();
            s.cut_link();
            let open = calls::open(s.host(A), process(1), "log").unwrap();
            s.host(A).unlink(b"log").unwrap();
            let edited = [text(1_000, b'b'), text(2_000, b'o')].concat();
            s.write(B, "log", 0, &edited[..1_000]);
            assert_eq!(s.level(), BTreeMap::from([("log".to_owned(), edited.clone())]));
            // The program goes on with what was deleted, and nobody else sees that.
            calls::write(s.host(A), open, 500, &text(4_000, b'p')).unwrap();
            s.host(A).fsync(open, false).unwrap();
            assert_eq!(s.read(A, "log"), edited);
            assert_eq!(calls::read_open(s.host(A), open, 9_000).map(|b| b.len()), Some(4_500));
            s.write(A, "log", 2_000, b"later");
            calls::close(s.host(A), open);
            let later = [&edited[..2_000], b"later", &edited[2_005..]].concat();
            assert_eq!(s.level(), BTreeMap::from([("log".to_owned(), later)]));
        });
    }
}

/// The link comes back while a program is at work on two files that it has open: whatever it had told of them before, they
/// are told as one.
#[test]
fn files_that_a_program_has_open_together_are_told_together_when_the_link_comes_back() {
    story(INLINE, |s| {
        s.write(A, "first", 0, &text(2_000, b'a'));
        s.write(A, "second", 0, &text(2_000, b'a'));
        s.level();
        s.cut_link();
        let host = s.host(A);
        let open = ["first", "second"].map(|name| calls::open(host, process(1), name).unwrap());
        open.iter().for_each(|handle| calls::write(host, *handle, 0, &text(2_000, b'b')).unwrap());
        s.hosts.connect();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..30 {
            for side in [A, B] {
                assert!(s.work(side));
                let out = s.hosts.sides[side].out.clone();
                while out.transmit() {}
                while out.flies() {
                    s.hosts.arrive(1 - side).unwrap();
                    assert!(s.work(1 - side));
                    let state = ["first", "second"].map(|name| s.read(B, name)[0]);
                    assert_eq!(state[0], state[1], "one file is ahead of the other");
                    seen.insert(state);
                }
            }
        }
        assert_eq!(seen.len(), 2, "the change never came");
    });
}
