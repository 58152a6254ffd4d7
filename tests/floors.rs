//! The house stands: imports go downward only, and never in a circle.
//!
//! Reads src/ the way the compiler does, from lib.rs along `mod` declarations, collects every path
//! that leads to another module of the crate, and holds it against two rules:
//!
//! - **floors**: a room imports only from rooms below it (`model` 0; `store`, `wire`, `fs` 1;
//!   `engine` 2; `api` 3; `cli` 4). Tests inside a room keep this rule, too.
//! - **no cycles**: inside a room no module needs itself by way of others. Code under `#[cfg(test)]`
//!   is free to look around in its room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

const FLOORS: [(&str, u32); 7] =
    [("model", 0), ("store", 1), ("wire", 1), ("fs", 1), ("engine", 2), ("api", 3), ("cli", 4)];

#[test]
fn imports_go_downward_and_never_in_a_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let house = House::read(&mut |path| std::fs::read_to_string(source.join(path)).ok());
    assert!(house.modules.len() > FLOORS.len(), "hardly any module found: {:?}", house.modules.keys());
    let wrongs = house.wrongs();
    assert!(wrongs.is_empty(), "{}", wrongs.iter().map(|w| format!("\n{w}")).collect::<String>());
}

/// A module by the names that lead to it; the crate's root is empty.
type Module = Vec<String>;

/// One path in the code that leads to another module.
#[derive(Clone, Debug)]
struct Edge {
    file: PathBuf,
    line: usize,
    from: Module,
    to: Module,
    test: bool,
}

struct Wrong {
    edges: Vec<Edge>,
    rule: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        self.edges.iter().try_for_each(|e| {
            write!(f, "\n  src/{}:{}: {} -> {}", e.file.display(), e.line, e.from.join("::"), e.to.join("::"))
        })
    }
}

struct House {
    /// Which modules there are, and whether they are for tests only.
    modules: BTreeMap<Module, bool>,
    edges: Vec<Edge>,
}

impl House {
    /// `read` gives the content of a file below src/.
    fn read(read: &mut dyn FnMut(&Path) -> Option<String>) -> House {
        let mut files = Vec::new();
        let mut modules = BTreeMap::from([(Module::new(), false)]);
        let mut open = vec![(PathBuf::from("lib.rs"), Module::new(), false)];
        while let Some((path, module, test)) = open.pop() {
            let text = read(&path).unwrap_or_else(|| panic!("src/{} can't be read", path.display()));
            let file = scan(&text);
            for child in &file.children {
                let name = [module.clone(), vec![child.name.clone()]].concat();
                let test = test || child.test;
                open.push((child_path(&path, child, read), name.clone(), test));
                modules.insert(name, test);
            }
            files.push((path, module, test, file));
        }
        let mut edges = Vec::new();
        for (path, module, test, file) in files {
            for found in file.paths {
                let Some(to) = resolve(&module, &found, &modules) else { continue };
                if to != module && !to.is_empty() {
                    let (file, from) = (path.clone(), module.clone());
                    edges.push(Edge { file, line: found.line, from, to, test: test || found.test });
                }
            }
        }
        House { modules, edges }
    }

    fn wrongs(&self) -> Vec<Wrong> {
        let mut wrongs: Vec<Wrong> = self.edges.iter().filter_map(floor_wrong).collect();
        for room in self.modules.keys().filter(|m| m.len() == 1 && floor(&m[0]).is_none()) {
            wrongs.push(Wrong { edges: vec![], rule: format!("{} is a room without a floor", room[0]) });
        }
        wrongs.extend(self.cycles());
        wrongs
    }

    /// For every set of modules that need one another: the imports that tie them together.
    fn cycles(&self) -> Vec<Wrong> {
        let mut next: BTreeMap<&Module, BTreeMap<&Module, &Edge>> = BTreeMap::new();
        for edge in self.edges.iter().filter(|e| !e.test && e.from.first() == e.to.first()) {
            next.entry(&edge.from).or_default().entry(&edge.to).or_insert(edge);
        }
        let mut done = BTreeSet::new();
        let mut wrongs = Vec::new();
        for start in next.keys() {
            let reached = needs(start, &next);
            let knot: BTreeSet<&Module> =
                reached.into_iter().filter(|module| needs(module, &next).contains(*start)).collect();
            if knot.is_empty() || done.contains(start) {
                continue;
            }
            let inside = next.values().flat_map(BTreeMap::values).copied();
            let edges = inside.filter(|e| knot.contains(&e.from) && knot.contains(&e.to)).cloned().collect();
            wrongs.push(Wrong { edges, rule: "modules that import one another in a circle:".to_owned() });
            done.extend(knot);
        }
        wrongs
    }
}

/// All modules that `start` needs, directly or by way of others.
fn needs<'a>(
    start: &Module,
    next: &BTreeMap<&'a Module, BTreeMap<&'a Module, &Edge>>,
) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut open = vec![start];
    while let Some(at) = open.pop() {
        for to in next.get(at).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(*to) {
                open.push(to);
            }
        }
    }
    found
}

fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn floor_wrong(edge: &Edge) -> Option<Wrong> {
    let (from, to) = (edge.from.first()?, edge.to.first()?);
    let (high, low) = (floor(from)?, floor(to)?);
    if from == to || low < high {
        return None;
    }
    let way = if low == high { "sideways" } else { "upward" };
    let rule = format!("{way} import: {from} (floor {high}) must not know {to} (floor {low})");
    Some(Wrong { edges: vec![edge.clone()], rule })
}

/// The module that a path found in `module` leads to; `None` if it leads out of the crate.
fn resolve(module: &Module, found: &Found, modules: &BTreeMap<Module, bool>) -> Option<Module> {
    let here = [module.clone(), found.inner.clone()].concat();
    let mut names = found.names.iter().peekable();
    let mut at = match names.peek()?.as_str() {
        "crate" => {
            names.next();
            Module::new()
        }
        "self" => {
            names.next();
            here
        }
        "super" => here,
        // A child of the module it is written in, or something that is no module of ours.
        child if modules.contains_key(&[here.clone(), vec![child.to_owned()]].concat()) => here,
        _ => return None,
    };
    while names.next_if(|name| *name == "super").is_some() {
        at.pop()?;
    }
    for name in names {
        at.push(name.clone());
        if !modules.contains_key(&at) {
            at.pop();
            break;
        }
    }
    // What lies in a module written inside a file belongs to the file.
    while !modules.contains_key(&at) {
        at.pop()?;
    }
    Some(at)
}

/// What one file says about modules.
#[derive(Default)]
struct Scanned {
    children: Vec<Child>,
    paths: Vec<Found>,
}

/// `mod name;`, with the file that `#[path]` names.
struct Child {
    name: String,
    path: Option<String>,
    test: bool,
}

/// A path as written, `use` trees spread out. `inner`: the modules of this file it stands in.
struct Found {
    names: Vec<String>,
    inner: Module,
    line: usize,
    test: bool,
}

fn child_path(parent: &Path, child: &Child, read: &mut dyn FnMut(&Path) -> Option<String>) -> PathBuf {
    let dir = parent.parent().unwrap_or(Path::new(""));
    if let Some(path) = &child.path {
        return dir.join(path);
    }
    let dir = match parent.file_name().and_then(|n| n.to_str()) {
        Some("lib.rs" | "mod.rs") => dir.to_owned(),
        _ => parent.with_extension(""),
    };
    let flat = dir.join(&child.name).with_extension("rs");
    if read(&flat).is_some() { flat } else { dir.join(&child.name).join("mod.rs") }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
    /// `::`
    Colons,
}

fn scan(text: &str) -> Scanned {
    let tokens = tokens(text);
    let mut out = Scanned::default();
    // For every open brace: the module that it opened, if any, and whether that is for tests.
    let mut braces: Vec<Option<(String, bool)>> = Vec::new();
    let mut attributes: Vec<&[(Token, usize)]> = Vec::new();
    let word = |i: usize| match tokens.get(i) {
        Some((Token::Word(word), _)) => Some(word.as_str()),
        _ => None,
    };
    let sign = |i: usize, c: char| tokens.get(i).is_some_and(|(t, _)| *t == Token::Sign(c));
    let mut i = 0;
    while i < tokens.len() {
        let line = tokens[i].1;
        let inner: Module = braces.iter().flatten().map(|(name, _)| name.clone()).collect();
        let mut test = braces.iter().flatten().any(|(_, test)| *test);
        if sign(i, '#') && sign(i + 1, '[') {
            let end = matching(&tokens, i + 1);
            attributes.push(&tokens[i + 2..end]);
            i = end + 1;
            continue;
        }
        let for_tests = attributes.iter().any(|a| is_cfg_test(a));
        match word(i) {
            // `pub(in some::path)` imports nothing.
            Some("pub") if sign(i + 1, '(') => {
                i = matching(&tokens, i + 1) + 1;
                continue;
            }
            Some("pub") => {
                i += 1;
                continue;
            }
            Some("mod") if word(i + 1).is_some() => {
                let name = word(i + 1).expect("just seen").to_owned();
                if sign(i + 2, '{') {
                    braces.push(Some((name, for_tests)));
                } else {
                    let path = attributes.iter().find_map(|a| path_attribute(a));
                    out.children.push(Child { name, path, test: test || for_tests });
                }
                i += 3;
            }
            Some("use") => {
                test |= for_tests;
                let mut paths = Vec::new();
                i = use_tree(&tokens, i + 1, &[], &mut paths);
                out.paths.extend(paths.into_iter().map(|(names, line)| Found {
                    names,
                    inner: inner.clone(),
                    line,
                    test,
                }));
            }
            Some(first) if tokens.get(i + 1).is_some_and(|(t, _)| *t == Token::Colons) => {
                let mut names = vec![first.to_owned()];
                i += 1;
                while let (Some((Token::Colons, _)), Some(name)) = (tokens.get(i), word(i + 1)) {
                    names.push(name.to_owned());
                    i += 2;
                }
                out.paths.push(Found { names, inner, line, test });
                // A generic argument after `::`, or the end of the path.
                i += usize::from(tokens.get(i).is_some_and(|(t, _)| *t == Token::Colons));
                continue;
            }
            _ => {
                if sign(i, '{') {
                    braces.push(None);
                } else if sign(i, '}') {
                    braces.pop();
                }
                i += 1;
            }
        }
        attributes.clear();
    }
    out
}

/// Spreads out a `use` tree from `i` on; returns where it ended.
fn use_tree(
    tokens: &[(Token, usize)],
    mut i: usize,
    before: &[String],
    out: &mut Vec<(Vec<String>, usize)>,
) -> usize {
    let mut names = before.to_vec();
    let mut line = tokens.get(i).map_or(0, |t| t.1);
    while let Some((token, at)) = tokens.get(i) {
        match token {
            Token::Word(word) if word == "as" => i += 2,
            // `self` at the end of a list is the module itself.
            Token::Word(word) if word == "self" && !names.is_empty() => i += 1,
            Token::Word(word) => {
                names.push(word.clone());
                line = *at;
                i += 1;
            }
            Token::Sign('{') => {
                i += 1;
                while tokens.get(i).is_some_and(|(t, _)| *t != Token::Sign('}')) {
                    i = use_tree(tokens, i, &names, out);
                    i += usize::from(tokens.get(i).is_some_and(|(t, _)| *t == Token::Sign(',')));
                }
                return i + 1;
            }
            Token::Colons | Token::Sign('*') => i += 1,
            _ => break,
        }
    }
    out.push((names, line));
    i
}

fn is_cfg_test(attribute: &[(Token, usize)]) -> bool {
    let words: Vec<&str> = attribute
        .iter()
        .filter_map(|(t, _)| if let Token::Word(w) = t { Some(w.as_str()) } else { None })
        .collect();
    words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not")
}

fn path_attribute(attribute: &[(Token, usize)]) -> Option<String> {
    match attribute {
        [(Token::Word(name), _), (Token::Sign('='), _), (Token::Text(path), _)] if name == "path" => {
            Some(path.clone())
        }
        _ => None,
    }
}

/// The index of the bracket that closes the one at `open`.
fn matching(tokens: &[(Token, usize)], open: usize) -> usize {
    let mut depth = 0;
    for (i, (token, _)) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    tokens.len() - 1
}

/// The tokens of Rust code that matter here, with their lines: comments and the insides of strings
/// do not.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
            }
            '"' => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
                out.push((Token::Text(chars[start + 1..(i - 1).min(chars.len())].iter().collect()), line));
            }
            // A character, unless it is a lifetime.
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            'r' | 'b' if raw_string(&chars, i).is_some() => {
                i = raw_string(&chars, i).expect("just seen");
                out.push((Token::Text(String::new()), line));
            }
            c if is_word(c) => {
                while is_word(at(i)) {
                    i += 1;
                }
                out.push((Token::Word(chars[start..i].iter().collect()), line));
            }
            ':' if at(i + 1) == ':' => {
                out.push((Token::Colons, line));
                i += 2;
            }
            c if c.is_whitespace() => i += 1,
            c => {
                out.push((Token::Sign(c), line));
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    out
}

/// Where a raw string that begins at `i` ends; `None` if none begins there.
fn raw_string(chars: &[char], i: usize) -> Option<usize> {
    let rest = &chars[i..];
    let prefix = rest.iter().take_while(|c| matches!(c, 'b' | 'r')).count();
    if !rest[..prefix].contains(&'r') || prefix > 2 {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    if rest.get(prefix + hashes) != Some(&'"') {
        return None;
    }
    let body = prefix + hashes + 1;
    let end = (body..rest.len()).find(|&j| {
        rest[j] == '"' && rest[j + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    })?;
    Some(i + end + 1 + hashes)
}

mod planted {
    use super::*;

    /// What is wrong in a house of these files; every room is there.
    fn wrongs(files: &[(&str, &str)]) -> Vec<String> {
        let mut all = HashMap::from([
            (
                "lib.rs",
                "pub mod model; pub mod store; pub mod wire; pub mod fs; pub mod engine; pub mod cli;",
            ),
            ("model/mod.rs", "pub mod a; pub mod b; pub mod c;"),
            ("model/a.rs", ""),
            ("model/b.rs", ""),
            ("model/c.rs", ""),
            ("store/mod.rs", ""),
            ("wire/mod.rs", ""),
            ("fs/mod.rs", ""),
            ("engine/mod.rs", ""),
            ("cli/mod.rs", ""),
        ]);
        all.extend(files.iter().copied());
        let house = House::read(&mut |path| all.get(path.to_str()?).map(|text| (*text).to_owned()));
        house.wrongs().iter().map(ToString::to_string).collect()
    }

    fn one(files: &[(&str, &str)]) -> String {
        match &wrongs(files)[..] {
            [wrong] => wrong.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sound_house_is_left_in_peace() {
        let cli = "use crate::engine::Host; use crate::fs::{self, mount}; fn f() { crate::model::a::f() }";
        let store =
            "use crate::model::{a::A, b::*}; use std::fs; use self::deep::D; mod deep { pub use super::E; }";
        assert_eq!(wrongs(&[("cli/mod.rs", cli), ("store/mod.rs", store)]), Vec::<String>::new());
    }

    #[test]
    fn an_upward_import_is_found() {
        let found = one(&[("model/b.rs", "//! b\n\nuse crate::engine::Host;\n")]);
        assert!(
            found.starts_with("upward import: model (floor 0) must not know engine (floor 2)"),
            "{found}"
        );
        assert!(found.contains("src/model/b.rs:3: model::b -> engine"), "{found}");
    }

    #[test]
    fn a_sideways_import_is_found() {
        let found = one(&[("wire/mod.rs", "use crate::{model::a, store::Journal};")]);
        assert!(
            found.starts_with("sideways import: wire (floor 1) must not know store (floor 1)"),
            "{found}"
        );
    }

    #[test]
    fn no_spelling_hides_an_import() {
        for text in [
            "use super::super::cli::x;",
            "fn f() { crate::cli::x() }",
            "type T = Vec<crate::cli::X>;",
            "mod inner { use super::super::super::cli; }",
            "#[cfg(test)] mod tests { use crate::cli::x; }",
            "use crate::{\n    model::b,\n    cli::{self as face},\n};",
            "fn f() -> &'static str { let c = '\"'; crate::cli::NAME }",
            "fn f() { let s = r#\"\"#; crate::cli::x::<u8>() }",
            "macro_rules! m { () => { $crate::cli::x() } }",
            "pub use crate::cli::x;",
            "pub(crate) use crate::cli::x;",
            "impl crate::cli::Trait for X {}",
        ] {
            let found = one(&[("model/a.rs", text)]);
            assert!(found.contains("model (floor 0) must not know cli (floor 4)"), "{text}: {found}");
        }
    }

    #[test]
    fn what_is_no_import_is_not_taken_for_one() {
        let text = "//! See [`crate::cli::x`].\n/* use crate::cli; /* crate::cli */ crate::cli */\n\
                    const S: &str = \"crate::cli::x \\\" crate::cli\"; const R: &str = r#\"\" crate::cli::x\"#;\n\
                    pub(in crate::model) fn f<'a>(x: &'a str) { std::fs::read(cli::x); }";
        assert_eq!(wrongs(&[("model/a.rs", text)]), Vec::<String>::new());
    }

    #[test]
    fn a_cycle_is_found_with_all_its_steps() {
        let found = one(&[
            ("model/a.rs", "use super::b::B;"),
            ("model/b.rs", "\nuse crate::model::c::{C};"),
            ("model/c.rs", "fn f() { super::a::f() }"),
        ]);
        assert!(found.starts_with("modules that import one another in a circle"), "{found}");
        for step in
            ["a.rs:1: model::a -> model::b", "b.rs:2: model::b -> model::c", "c.rs:1: model::c -> model::a"]
        {
            assert!(found.contains(step), "{step} is missing: {found}");
        }
    }

    #[test]
    fn a_cycle_through_the_head_of_a_room_is_found() {
        let room = "pub mod a; pub mod b; pub mod c; pub use a::A; pub fn f() {}";
        let found = one(&[("model/mod.rs", room), ("model/a.rs", "use super::f;")]);
        assert!(found.contains("model -> model::a") && found.contains("model::a -> model"), "{found}");
    }

    #[test]
    fn tests_may_look_around_in_their_room() {
        let b = "use super::a::A; #[cfg(test)] #[path = \"b_tests.rs\"] mod tests;";
        let a = "#[cfg(test)] mod tests { use super::*; use crate::model::b; }";
        let tests = "use super::*; use crate::model::c;";
        let sound = [("model/a.rs", a), ("model/b.rs", b), ("model/b_tests.rs", tests)];
        assert_eq!(wrongs(&sound), Vec::<String>::new());
        let upward = one(&[("model/b.rs", b), ("model/b_tests.rs", "use crate::store::X;")]);
        assert!(upward.contains("src/model/b_tests.rs:1"), "{upward}");
    }

    #[test]
    fn a_new_room_needs_a_floor() {
        let lib = "mod model; mod attic;";
        assert_eq!(one(&[("lib.rs", lib), ("attic.rs", "")]), "attic is a room without a floor");
    }
}
