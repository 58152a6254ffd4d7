//! `--direction`: changes go one way, where both hosts say so.

use crate::rig::{Pair, until};

fn pair(directions: [&str; 2]) -> Pair {
    let mut pair = Pair::new();
    for (host, direction) in [&mut pair.a, &mut pair.b].into_iter().zip(directions) {
        host.option("--direction", direction.as_ref());
        host.start();
    }
    pair
}

#[test]
fn what_is_changed_on_the_receiver_stays_there_and_gives_way() {
    let mut pair = pair(["send", "receive"]);
    until("they connect", || pair.a.status()["peer"]["connected"] == true);
    pair.a.save("plan", b"of a");
    pair.a.flush();
    assert!(pair.b.has("plan", b"of a"));
    pair.b.save("plan", b"by b");
    pair.b.save("notes", b"by b");
    pair.b.flush();
    assert_eq!(pair.a.ls(), ["plan"]);
    assert!(pair.a.has("plan", b"of a"));
    assert_eq!((&pair.b.status()["held_back"], &pair.b.status()["pending_files"]), (&2.into(), &0.into()));
    pair.a.save("plan", b"anew");
    pair.a.flush();
    assert!(pair.b.has("plan", b"anew") && pair.b.has("notes", b"by b"));
    let copies: Vec<String> = pair.b.ls().into_iter().filter(|n| n.contains(".sync-conflict-")).collect();
    assert_eq!(copies.len(), 1);
    assert!(pair.b.has(&copies[0], b"by b"));
    assert_eq!(pair.a.ls(), ["plan"]);
    for host in [&mut pair.a, &mut pair.b] {
        assert!(host.unmount().success());
    }
}

#[test]
fn hosts_that_disagree_on_the_direction_stay_apart_and_say_what_to_type() {
    for (directions, wanted) in [(["send", "both"], "receive"), (["receive", "receive"], "send")] {
        let mut pair = pair(directions);
        let says = |status: String| status.contains(&format!("the other needs --direction {wanted}"));
        until("one says why", || says(pair.a.status().to_string()) || says(pair.b.status().to_string()));
        for host in [&mut pair.a, &mut pair.b] {
            assert_ne!(host.status()["peer"]["connected"], true);
            assert!(host.unmount().success());
        }
    }
}
