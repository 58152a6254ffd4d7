//! Names that stay on the host where they are: the patterns of `.syncfsignore`, as gitignore(5) has them for files of one directory.
//!
//! Invariants: the file with the patterns itself is never among them, so both hosts have the same; what is wrong in one line
//! leaves the others what they are.

use super::limits::IGNORE_BYTES;
use super::name::Name;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The file with the patterns.
pub const IGNORE_FILE: &str = ".syncfsignore";

/// Its name.
pub fn ignore_file_name() -> Name {
    Name::new(IGNORE_FILE.as_bytes()).expect("it is a name")
}

/// Whether `name` is that of the file with the patterns.
pub fn is_ignore_file(name: &Name) -> bool {
    name.as_bytes() == IGNORE_FILE.as_bytes()
}

#[derive(Clone, Debug)]
pub struct Patterns(Gitignore);

impl Default for Patterns {
    fn default() -> Patterns {
        Patterns(Gitignore::empty())
    }
}

impl Patterns {
    /// The patterns in `text`, and what is wrong with it, line by line.
    pub fn parse(text: &[u8]) -> (Patterns, Vec<String>) {
        if text.len() > IGNORE_BYTES {
            return (
                Patterns::default(),
                vec![format!("it has more than {IGNORE_BYTES} bytes; no line counts")],
            );
        }
        let text = String::from_utf8_lossy(text);
        let mut patterns = GitignoreBuilder::new("");
        let mut wrong = Vec::new();
        for (n, line) in text.lines().enumerate() {
            if let Err(error) = patterns.add_line(None, line) {
                wrong.push(format!("line {}: {error}", n + 1));
            }
        }
        match patterns.build() {
            Ok(patterns) => (Patterns(patterns), wrong),
            Err(error) => (Patterns::default(), vec![format!("{error}; no line counts")]),
        }
    }

    /// All names.
    pub fn everything() -> Patterns {
        Patterns::parse(b"*").0
    }

    /// Whether there is any name that may match.
    pub fn match_anything(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn match_name(&self, name: &Name) -> bool {
        let path = Path::new(OsStr::from_bytes(name.as_bytes()));
        !is_ignore_file(name) && self.0.matched(path, false).is_ignore()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, name: &str) -> bool {
        let (patterns, wrong) = Patterns::parse(text.as_bytes());
        assert!(wrong.is_empty(), "{wrong:?}");
        patterns.match_name(&Name::new(name.as_bytes()).unwrap())
    }

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        let text = "# swap files\n*.swp\n\n*~\n/build.log\n*.o\n!kept.o\n[ab]?.tmp\n\\#*#\ntarget/\n";
        for name in [".a.swp", "a~", "build.log", "x.o", "a1.tmp", "#letter#"] {
            assert!(matches(text, name), "{name}");
        }
        for name in ["a.swpx", "kept.o", "my build.log", "c1.tmp", "# swap files", "target"] {
            assert!(!matches(text, name), "{name}");
        }
    }

    #[test]
    fn the_file_with_the_patterns_is_never_among_them() {
        assert!(matches("*", "anything") && !matches("*", IGNORE_FILE));
        assert!(!Patterns::everything().match_name(&ignore_file_name()));
    }

    #[test]
    fn a_wrong_line_leaves_the_others_what_they_are() {
        let (patterns, wrong) = Patterns::parse(b"*.o\n[z-a]\n*.tmp\n\xff\xfe*\n");
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("line 2: "), "{wrong:?}");
        assert!(patterns.match_name(&Name::new(b"a.tmp").unwrap()));
        assert!(!patterns.match_name(&Name::new(b"plain").unwrap()));
    }

    #[test]
    fn too_long_a_file_ignores_nothing_and_says_so() {
        let (patterns, wrong) = Patterns::parse(&vec![b'*'; IGNORE_BYTES + 1]);
        assert!(wrong[0].contains("more than"), "{wrong:?}");
        assert!(!patterns.match_name(&Name::new(b"a").unwrap()));
    }
}
