//! What a side of a connection can do beyond what every syncfs can, by the names in its greeting.
//!
//! Invariant: in a session only what both sides have named is done.

/// Frames may be compressed.
const ZSTD: &str = "zstd";
/// Frames may come in parts.
const PARTS: &str = "parts";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Takes frames that are compressed.
    pub compress: bool,
    /// Takes frames in parts.
    pub parts: bool,
}

impl Terms {
    /// What somebody can do who names these.
    pub fn of(features: &[String]) -> Terms {
        let named = |name: &str| features.iter().any(|f| f == name);
        Terms { compress: named(ZSTD), parts: named(PARTS) }
    }

    pub fn names(self) -> impl Iterator<Item = String> {
        [(self.compress, ZSTD), (self.parts, PARTS)]
            .into_iter()
            .filter(|named| named.0)
            .map(|named| named.1.to_owned())
    }

    /// What two sides can do together.
    pub fn both(self, other: Terms) -> Terms {
        Terms { compress: self.compress && other.compress, parts: self.parts && other.parts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_name_is_agreed() {
        let all = Terms { compress: true, parts: true };
        let named: Vec<String> = all.names().chain(["of a later version".to_owned()]).collect();
        assert_eq!(Terms::of(&named), all);
        assert_eq!(all.both(Terms::of(&[])), Terms::default());
        let one = Terms { parts: true, ..Terms::default() };
        assert_eq!(all.both(Terms::of(&one.names().collect::<Vec<_>>())), one);
    }
}
