//! Which file lies under which name, where several may: a matching of the two, found by augmenting paths
//! (Kuhn's algorithm).
//!
//! Invariant: who has been given the other side keeps one, though perhaps not the same.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Matching {
    /// The names that each file may lie under, the likeliest first.
    may: BTreeMap<usize, Vec<String>>,
    names: BTreeMap<usize, String>,
    files: BTreeMap<String, usize>,
}

impl Matching {
    pub fn may(&mut self, file: usize, name: &str) {
        self.may.entry(file).or_default().push(name.to_owned());
    }

    /// Whether `file` has a name, though others may have to take another one for it.
    pub fn place(&mut self, file: usize) -> bool {
        self.names.contains_key(&file) || self.seek_name(file, &mut BTreeSet::new())
    }

    /// Whether `name` is some file's, though that may have to leave another one for it.
    pub fn claim(&mut self, name: &str) -> bool {
        self.files.contains_key(name) || self.seek_file(name, &mut BTreeSet::new())
    }

    pub fn name(&self, file: usize) -> Option<&String> {
        self.names.get(&file)
    }

    fn seek_name(&mut self, file: usize, seen: &mut BTreeSet<String>) -> bool {
        for name in self.may.get(&file).cloned().unwrap_or_default() {
            let free = seen.insert(name.clone())
                && self.files.get(&name).copied().is_none_or(|owner| self.seek_name(owner, seen));
            if free {
                self.join(file, name);
                return true;
            }
        }
        false
    }

    fn seek_file(&mut self, name: &str, seen: &mut BTreeSet<usize>) -> bool {
        let files: Vec<usize> =
            self.may.iter().filter(|(_, names)| names.iter().any(|n| n == name)).map(|(f, _)| *f).collect();
        for file in files {
            let free = seen.insert(file)
                && self.names.get(&file).cloned().is_none_or(|other| {
                    self.files.remove(&other);
                    let found = self.seek_file(&other, seen);
                    if !found {
                        self.files.insert(other, file);
                    }
                    found
                });
            if free {
                self.join(file, name.to_owned());
                return true;
            }
        }
        false
    }

    fn join(&mut self, file: usize, name: String) {
        self.files.insert(name.clone(), file);
        self.names.insert(file, name);
    }
}

#[test]
fn a_place_is_found_wherever_there_is_one() {
    let mut matching = Matching::default();
    matching.may(1, "a");
    matching.may(1, "b");
    matching.may(2, "a");
    assert!(matching.place(1) && matching.place(2));
    assert_eq!((matching.name(1), matching.name(2)), (Some(&"b".to_owned()), Some(&"a".to_owned())));
    matching.may(3, "b");
    assert!(!matching.place(3));
    matching.may(1, "c");
    assert!(!matching.claim("d") && matching.claim("c"));
    assert_eq!(matching.name(1), Some(&"c".to_owned()));
    assert!(matching.place(3) && matching.name(3) == Some(&"b".to_owned()));
}
