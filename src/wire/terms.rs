//! What a side of a connection can do beyond what every syncfs can, by the names in its greeting.
//!
//! Invariant: in a session only what both sides have named is done.

/// Frames may be compressed.
const ZSTD: &str = "zstd";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Takes frames that are compressed.
    pub compress: bool,
}

impl Terms {
    /// What somebody can do who names these.
    pub fn of(features: &[String]) -> Terms {
        Terms { compress: features.iter().any(|f| f == ZSTD) }
    }

    pub fn names(self) -> impl Iterator<Item = String> {
        self.compress.then(|| ZSTD.to_owned()).into_iter()
    }

    /// What two sides can do together.
    pub fn both(self, other: Terms) -> Terms {
        Terms { compress: self.compress && other.compress }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_name_is_agreed() {
        let all = Terms { compress: true };
        let named: Vec<String> = all.names().chain(["of a later version".to_owned()]).collect();
        assert_eq!(Terms::of(&named), all);
        assert_eq!(all.both(Terms::of(&[])), Terms::default());
    }
}
