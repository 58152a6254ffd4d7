//! Names of files, of conflict copies, and of partial content.

use super::script::Script;
use syncfs::model::codec;
use syncfs::model::conflict::{conflict_name, is_conflict_copy};
use syncfs::model::ids::{FileId, ReplicaId};
use syncfs::model::limits::NAME_BYTES;
use syncfs::model::name::Name;

/// A stamp, how many conflict names are taken, and a name.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let stamp = i64::from_le_bytes(std::array::from_fn(|_| script.below(256) as u8));
    let busy = script.below(20);
    let text = script.rest();
    let decoded = codec::decode::<Name>(&codec::encode(&text.to_vec()));
    if let Ok(id) = String::from_utf8_lossy(text).parse::<FileId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let Ok(name) = Name::new(text) else {
        assert!(decoded.is_err(), "{text:?} is no name, and came in as {decoded:?}");
        return;
    };
    assert_eq!(decoded.ok().as_ref(), Some(&name));
    assert_eq!(name.as_bytes(), text);
    assert!(text.len() <= NAME_BYTES && !text.contains(&b'/') && !text.contains(&0));

    let replica = ReplicaId(u128::MAX / 3);
    let mut taken = Vec::new();
    for _ in 0..=busy {
        let copy = conflict_name(&name, stamp, replica, |n| taken.contains(n));
        assert!(is_conflict_copy(&copy) && !taken.contains(&copy), "{copy:?}");
        let marks = copy.as_bytes().windows(15).filter(|w| w == b".sync-conflict-").count();
        assert_eq!(marks, 1, "{copy:?}");
        taken.push(copy);
    }
}
