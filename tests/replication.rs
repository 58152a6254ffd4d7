//! Two hosts, one directory: what is done on one side is found on the other.

mod common;
use common::{Pair, noise};
use std::collections::BTreeSet;
use syncfs::fs::volume::{Answer, Volume};

#[test]
fn a_new_file_arrives_and_an_edit_follows() {
    let pair = Pair::started();
    pair.a.save("hello", b"hello, world\n");
    pair.flush();
    assert_eq!(pair.b.read("hello", &pair.runtime), b"hello, world\n");
    pair.b.patch("hello", 7, b"earth");
    pair.flush();
    assert_eq!(pair.assert_equal(), vec![("hello".into(), b"hello, earth\n".to_vec())]);
}

#[test]
fn files_that_lay_there_before_are_shared_both_ways() {
    let mut pair = Pair::new();
    std::fs::write(pair.a.dir.join("of-a"), noise(1, 5_000_000)).unwrap();
    std::fs::write(pair.b.dir.join("of-b"), noise(2, 3)).unwrap();
    std::fs::write(pair.b.dir.join("empty"), b"").unwrap();
    pair.start_both();
    pair.flush();
    let names: Vec<String> = pair.assert_equal().into_iter().map(|f| f.0).collect();
    assert_eq!(names, ["empty", "of-a", "of-b"]);
}

#[test]
fn a_byte_edit_of_a_large_file_costs_about_a_chunk() {
    let pair = Pair::started();
    pair.a.save("large", &noise(3, 64 << 20));
    pair.flush();
    let wire = || {
        let status = pair.a.host().status();
        status.sent_bytes + status.received_bytes
    };
    let before = wire();
    pair.a.patch("large", 12_345_678, b"!");
    pair.flush();
    let cost = wire() - before;
    pair.assert_equal();
    assert!(cost <= 2_500, "{cost} bytes");
}

/// What crosses the wire, both ways, for what `act` does on host A.
fn cost(pair: &Pair, act: impl FnOnce()) -> u64 {
    let wire = || {
        let status = pair.a.host().status();
        status.sent_bytes + status.received_bytes
    };
    let before = wire();
    act();
    pair.flush();
    wire() - before
}

#[test]
fn a_save_by_rename_over_costs_what_was_edited_though_everything_is_shifted() {
    let pair = Pair::started();
    let old = noise(30, 20_000_000);
    pair.a.save("text", &old);
    pair.flush();
    let mut new = old;
    new.insert(0, b'!');
    new.splice(12_000_000..12_000_100, *b"edited");
    let cost = cost(&pair, || {
        pair.a.save("text.tmp", &new);
        pair.a.host().rename(b"text.tmp", b"text", 0).unwrap();
    });
    assert!(pair.assert_equal()[0].1 == new);
    // A signature, a block around the edit, and little else.
    assert!(cost <= 60_000, "{cost} bytes");
}

#[test]
fn a_file_written_anew_in_place_costs_what_was_edited() {
    let pair = Pair::started();
    let old = noise(31, 5_000_000);
    pair.a.save("export", &old);
    pair.flush();
    let new = [b"a new line\n", &old[..4_000_000]].concat();
    let cost = cost(&pair, || pair.a.save("export", &new));
    assert!(pair.assert_equal()[0].1 == new);
    assert!(cost <= 50_000, "{cost} bytes");
}

#[test]
fn a_copy_of_a_file_that_the_peer_has_costs_no_content() {
    let pair = Pair::started();
    let bytes = noise(32, 20_000_000);
    pair.a.save("one", &bytes);
    pair.flush();
    let cost = cost(&pair, || {
        let from = pair.a.open("one", libc::O_RDONLY);
        let to = pair.a.open("another", libc::O_CREAT | libc::O_WRONLY);
        let (mut at, size) = (0, bytes.len() as u64);
        while at < size {
            let Answer::Now(copied) = pair.a.host().copy_range(from, at, to, at, size - at) else {
                panic!("all of it is held");
            };
            at += copied.unwrap();
        }
        pair.a.close(to);
        pair.a.close(from);
    });
    let files = pair.assert_equal();
    assert!(files[0].1 == bytes && files[1].1 == bytes);
    assert!(cost <= 8_000, "{cost} bytes");
}

#[test]
fn what_only_looks_alike_costs_little_more_than_itself() {
    let pair = Pair::started();
    pair.a.save("text", &noise(33, 3_000_000));
    pair.flush();
    let new = noise(34, 3_000_000);
    let cost = cost(&pair, || {
        pair.a.save("text.tmp", &new);
        pair.a.host().rename(b"text.tmp", b"text", 0).unwrap();
    });
    assert!(pair.assert_equal()[0].1 == new);
    assert!(cost <= 3_060_000, "{cost} bytes");
}

#[test]
fn rewriting_the_same_bytes_sends_no_content() {
    let pair = Pair::started();
    let bytes = noise(4, 3_000_000);
    pair.a.save("same", &bytes);
    pair.flush();
    let before = pair.a.host().status().sent_bytes;
    pair.a.patch("same", 0, &bytes);
    pair.flush();
    assert!(pair.a.host().status().sent_bytes - before < 2_000);
    pair.assert_equal();
}

#[test]
fn renames_swaps_and_unlinks_arrive_and_move_no_content() {
    let pair = Pair::started();
    for name in ["one", "two", "three", "four"] {
        pair.a.save(name, &noise(name.len() as u64, 200_000));
    }
    pair.flush();
    let before = pair.a.host().status().sent_bytes;
    let a = pair.a.host();
    a.rename(b"one", b"uno", 0).unwrap();
    a.rename(b"two", b"three", 2).unwrap();
    a.rename(b"four", b"uno", 0).unwrap();
    a.unlink(b"two").unwrap();
    pair.flush();
    let names: Vec<String> = pair.assert_equal().into_iter().map(|f| f.0).collect();
    assert_eq!(names, ["three", "uno"]);
    assert!(pair.a.host().status().sent_bytes - before < 8_000);
}

#[test]
fn a_large_change_of_a_held_file_arrives() {
    let pair = Pair::started();
    let old = noise(5, 10_000_000);
    let new = noise(6, 10_000_000);
    pair.a.save("big", &old);
    pair.flush();
    pair.a.patch("big", 0, &new);
    pair.flush();
    assert!(pair.assert_equal()[0].1 == new);
}

#[test]
fn truncation_and_growth_leave_no_old_tail() {
    let pair = Pair::started();
    pair.a.save("t", &noise(7, 10_000));
    pair.flush();
    pair.a.truncate("t", 1_500);
    pair.a.truncate("t", 9_000);
    pair.flush();
    let files = pair.assert_equal();
    assert!(files[0].1[1_500..].iter().all(|b| *b == 0));
    pair.a.truncate("t", 100);
    pair.flush();
    assert_eq!(pair.assert_equal()[0].1.len(), 100);
}

#[test]
fn both_sides_work_apart_and_meet_again_with_nothing_lost() {
    let mut pair = Pair::started();
    pair.a.save("shared", &noise(8, 50_000));
    pair.flush();
    pair.b.stop();
    pair.a.patch("shared", 10, b"from a");
    pair.a.save("only-a", b"a");
    pair.a.stop();
    pair.b.start(&pair.runtime);
    pair.b.patch("shared", 40_000, b"from b");
    pair.b.save("only-b", b"b");
    pair.a.start(&pair.runtime);
    pair.flush();
    let files = pair.assert_equal();
    let of = |name: &str| files.iter().find(|f| f.0 == name).unwrap().1.clone();
    assert_eq!(files.len(), 4, "{:?}", files.iter().map(|f| &f.0).collect::<Vec<_>>());
    let copy = files.iter().find(|f| f.0.contains(".sync-conflict-")).unwrap().1.clone();
    // The later edit keeps the name; each version is whole.
    assert_eq!(&of("shared")[40_000..40_006], b"from b");
    assert_ne!(&of("shared")[10..16], b"from a");
    assert_eq!(&copy[10..16], b"from a");
    assert_ne!(&copy[40_000..40_006], b"from b");
    assert_eq!((of("only-a"), of("only-b")), (b"a".to_vec(), b"b".to_vec()));
}

#[test]
fn an_edit_outlives_a_concurrent_unlink() {
    let mut pair = Pair::started();
    pair.a.save("f", &noise(9, 3_000_000));
    pair.flush();
    pair.a.stop();
    pair.b.patch("f", 0, b"edited");
    pair.b.stop();
    pair.a.start(&pair.runtime);
    pair.a.host().unlink(b"f").unwrap();
    pair.b.start(&pair.runtime);
    pair.flush();
    let files = pair.assert_equal();
    assert_eq!(files.len(), 1);
    assert_eq!(&files[0].1[..6], b"edited");
}

#[test]
fn the_same_new_name_on_both_sides_keeps_both_files() {
    let mut pair = Pair::started();
    pair.b.stop();
    pair.a.save("new", b"from a");
    pair.a.stop();
    pair.b.start(&pair.runtime);
    pair.b.save("new", b"from b");
    pair.a.start(&pair.runtime);
    pair.flush();
    let files = pair.assert_equal();
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(files[0].1, b"from b");
    assert!(files[1].0.starts_with("new.sync-conflict-"));
    assert_eq!(files[1].1, b"from a");
}

#[test]
fn a_file_that_only_grew_is_kept_beside_a_concurrent_edit() {
    let mut pair = Pair::started();
    pair.a.save("file", &noise(20, 3_500));
    pair.flush();
    pair.b.stop();
    pair.a.truncate("file", 6_000);
    pair.a.stop();
    pair.b.start(&pair.runtime);
    pair.b.patch("file", 0, b"edited");
    pair.a.start(&pair.runtime);
    pair.flush();
    let files = pair.assert_equal();
    let sizes: Vec<usize> = files.iter().map(|f| f.1.len()).collect();
    assert_eq!(sizes, [3_500, 6_000]);
    assert!(files[1].0.starts_with("file.sync-conflict-"));
    assert_eq!(files[1].1[..3_500], noise(20, 3_500)[..]);
}

#[test]
fn three_thousand_small_files_arrive() {
    let pair = Pair::started();
    for n in 0..3_000u64 {
        pair.a.save(&format!("file-{n}"), &noise(n, (n % 7_000) as usize));
    }
    pair.flush();
    assert_eq!(pair.assert_equal().len(), 3_000);
}

#[test]
fn what_changed_while_unmounted_is_shared_like_any_edit() {
    let mut pair = Pair::started();
    pair.a.save("kept", &noise(10, 100_000));
    pair.a.save("removed", b"comes back");
    pair.flush();
    pair.a.stop();
    let mut bytes = std::fs::read(pair.a.dir.join("kept")).unwrap();
    bytes[50_000] ^= 1;
    std::fs::write(pair.a.dir.join("kept"), &bytes).unwrap();
    std::fs::write(pair.a.dir.join("added"), b"new").unwrap();
    std::fs::remove_file(pair.a.dir.join("removed")).unwrap();
    pair.a.start(&pair.runtime);
    pair.flush();
    let files = pair.assert_equal();
    let names: Vec<&str> = files.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(names, ["added", "kept", "removed"]);
    assert_eq!(files[1].1, bytes);
    assert_eq!(files[2].1, b"comes back");
}

#[test]
fn a_large_file_edited_while_unmounted_costs_what_was_edited() {
    let mut pair = Pair::started();
    let bytes = noise(35, 8_000_000);
    pair.a.save("kept", &bytes);
    pair.flush();
    pair.a.stop();
    let edited = [&bytes[..3_000_000], b"a line", &bytes[3_000_000..]].concat();
    std::fs::write(pair.a.dir.join("kept"), &edited).unwrap();
    pair.a.start(&pair.runtime);
    pair.flush();
    let status = pair.a.host().status();
    let cost = status.sent_bytes + status.received_bytes;
    assert!(pair.assert_equal()[0].1 == edited);
    assert!(cost <= 60_000, "{cost} bytes");
}

#[test]
fn a_large_file_that_both_hosts_had_before_they_met_costs_no_content() {
    let mut pair = Pair::new();
    let bytes = noise(36, 8_000_000);
    std::fs::write(pair.a.dir.join("same"), &bytes).unwrap();
    std::fs::write(pair.b.dir.join("same"), &bytes).unwrap();
    pair.start_both();
    pair.flush();
    let status = pair.a.host().status();
    assert!(pair.assert_equal().iter().all(|file| file.1 == bytes));
    assert!(status.sent_bytes + status.received_bytes <= 100_000);
}

#[test]
fn a_conflict_copy_never_gets_a_name_that_comes_with_the_same_cut() {
    use syncfs::model::conflict::conflict_name;
    use syncfs::model::ids::ReplicaId;
    use syncfs::model::name::Name;

    let mut pair = Pair::new();
    let theirs = std::fs::File::create(pair.a.dir.join("a")).unwrap();
    std::io::Write::write_all(&mut &theirs, b"older").unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    theirs.set_modified(then).unwrap();
    pair.a.start(&pair.runtime);
    let replica = u128::from_str_radix(&pair.a.host().status().replica, 16).unwrap();
    let copy =
        conflict_name(&Name::new(b"a").unwrap(), 1_000_000_000_000_000_000, ReplicaId(replica), |_| false);
    let copy = copy.to_string();
    pair.a.stop();

    // Two files that change names with one another go into one cut.
    pair.b.start(&pair.runtime);
    pair.b.save("a", b"of that name");
    pair.b.save(&copy, b"newer");
    pair.b.host().rename(b"a", copy.as_bytes(), libc::RENAME_EXCHANGE).unwrap();
    pair.a.start(&pair.runtime);
    pair.flush();

    let files = pair.assert_equal();
    let contents: BTreeSet<&[u8]> = files.iter().map(|f| f.1.as_slice()).collect();
    assert_eq!(contents, BTreeSet::from([&b"newer"[..], b"of that name", b"older"]), "{files:?}");
    assert!(
        files.contains(&("a".into(), b"newer".to_vec())) && files.contains(&(copy, b"of that name".to_vec()))
    );
}

#[test]
fn a_limit_that_is_lifted_counts_at_once() {
    let pair = Pair::started();
    let sender = pair.a.host();
    // Half an hour at that rate.
    sender.set_bwlimit(Some(1000));
    assert_eq!(sender.status().bwlimit, Some(1000));
    pair.a.save("large", &noise(1, 2_000_000));
    sender.set_bwlimit(Some(0));
    assert_eq!((sender.bwlimit(), sender.status().bwlimit), (None, None));
    pair.flush();
    pair.assert_equal();
}
