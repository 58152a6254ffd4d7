//! `--interval`: changes are announced every so many seconds, or by `flush`.

use crate::rig::Pair;

#[test]
fn with_an_interval_edits_wait_and_flush_brings_them() {
    let mut pair = Pair::new();
    pair.a.option("--interval", "3600".as_ref());
    pair.a.start();
    pair.b.start();
    pair.a.flush();
    for n in 0..10 {
        pair.a.save("plan", format!("edit {n}").as_bytes());
    }
    assert_eq!(pair.a.status()["interval"], 3600);
    assert_eq!(pair.a.status()["pending_files"], 1);
    // Changes of the peer come at once, and by then anything that was told before has come, too.
    pair.b.save("theirs", b"x");
    crate::rig::until("the peer's change comes", || pair.a.has("theirs", b"x"));
    assert_eq!(pair.b.ls(), ["theirs"]);
    pair.b.flush();
    assert!(pair.b.has("plan", b"edit 9"));
    pair.finish();
}
