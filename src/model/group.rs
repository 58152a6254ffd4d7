//! Consistency groups: which files are open for writing together.
//!
//! Invariant: a pair (process, file) is counted once per open-for-writing handle.

use super::ids::FileId;
use std::collections::{BTreeMap, BTreeSet};

/// Who has what open for writing. Processes by their number in the kernel's eyes.
#[derive(Clone, Debug, Default)]
pub struct Writers {
    files: BTreeMap<u32, BTreeMap<FileId, u32>>,
    processes: BTreeMap<FileId, BTreeMap<u32, u32>>,
}

impl Writers {
    pub fn opened(&mut self, process: u32, file: FileId) {
        *self.files.entry(process).or_default().entry(file).or_default() += 1;
        *self.processes.entry(file).or_default().entry(process).or_default() += 1;
    }

    pub fn closed(&mut self, process: u32, file: FileId) {
        fn drop_one<A: Ord, B: Ord>(map: &mut BTreeMap<A, BTreeMap<B, u32>>, a: A, b: B) {
            let Some(inner) = map.get_mut(&a) else { return };
            if let Some(count) = inner.get_mut(&b) {
                *count -= 1;
                if *count == 0 {
                    inner.remove(&b);
                }
            }
            if inner.is_empty() {
                map.remove(&a);
            }
        }
        drop_one(&mut self.files, process, file);
        drop_one(&mut self.processes, file, process);
    }

    pub fn is_open(&self, file: FileId) -> bool {
        self.processes.contains_key(&file)
    }

    /// The consistency group of `file`, itself included: all files reached through processes that
    /// have several of them open for writing.
    pub fn group(&self, file: FileId) -> Vec<FileId> {
        let mut files = BTreeSet::from([file]);
        let mut processes = BTreeSet::new();
        let mut todo = vec![file];
        while let Some(file) = todo.pop() {
            for process in self.processes.get(&file).into_iter().flat_map(|m| m.keys()) {
                if processes.insert(*process) {
                    let more = self.files.get(process).into_iter().flat_map(|m| m.keys());
                    todo.extend(more.filter(|f| files.insert(**f)));
                }
            }
        }
        files.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::WriterId;
    use super::*;

    #[test]
    fn files_of_one_program_are_a_group_until_it_closes_them() {
        let id = |counter| FileId { writer: WriterId(1), counter };
        let mut writers = Writers::default();
        writers.opened(10, id(1));
        writers.opened(10, id(2));
        writers.opened(11, id(2));
        writers.opened(11, id(3));
        writers.opened(12, id(4));
        assert_eq!(writers.group(id(1)), vec![id(1), id(2), id(3)]);
        writers.closed(11, id(2));
        assert_eq!(writers.group(id(1)), vec![id(1), id(2)]);
        assert_eq!(writers.group(id(4)), vec![id(4)]);
        writers.closed(10, id(1));
        writers.closed(10, id(2));
        assert!(!writers.is_open(id(1)));
    }
}
