//! Configs: a name that stands for a directory and for what its mount is told.
//!
//! `NAME.toml` beside the key says `dir = "/mnt/shared"` and any long option of `mount`, with `_` or `-`. What is said on
//! the command line counts more.
//!
//! Invariants: which word is a name depends on the word and on the configs there are, never on the working directory; what
//! a config says that can't be done is an error with file and line, and nothing of it is done; one that is
//! wrong in its options still says its directory, so that what is mounted can be found by its name.

use super::args::{self, Takes};
use super::exit::{Exit, Failure};
use super::options::KernelOptions;
use super::place::{self, Places};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The ending of a config's name.
const ENDING: &str = "toml";
/// The one key that is no option of `mount`.
const DIR: &str = "dir";

/// What one file says.
#[derive(Debug)]
pub struct Config {
    pub path: PathBuf,
    pub dir: PathBuf,
    options: Vec<Setting>,
}

/// One line.
#[derive(Debug)]
struct Setting {
    line: usize,
    key: String,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Switch(bool),
    /// Numbers, too.
    Text(String),
    /// What no option takes; its TOML type.
    Odd(&'static str),
}

/// What a config asks of a mount, in the words of the command line.
#[derive(Debug, Default)]
pub struct Spelled {
    pub long: Vec<String>,
    pub kernel: KernelOptions,
}

/// The config that `word` names; `None` where it means a directory.
pub fn named(word: &Path, places: &Places) -> Result<Option<Config>, Failure> {
    match path_of(word, places) {
        Some(path) if !is_missing(&path) => Config::read(&path).map(Some),
        _ => Ok(None),
    }
}

/// The directory that `word` stands for, without links: that of the config of this name, else itself.
pub fn directory(word: &Path, places: &Places) -> Result<PathBuf, Failure> {
    match named(word, places)? {
        Some(config) => place::resolve(&config.dir),
        None => place::resolve(word).map_err(|failure| match path_of(word, places) {
            Some(path) => {
                Failure::new(failure.exit, format_args!("{failure}, nor a config {}", path.display()))
            }
            None => failure,
        }),
    }
}

/// All configs there are.
pub fn all(places: &Places) -> Result<Vec<PathBuf>, Failure> {
    let Some(dir) = places.configs() else { return Ok(Vec::new()) };
    let failed = |e| Failure::other(format_args!("can't list {}: {e}", dir.display()));
    let entries = match dir.read_dir() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == ENDING));
    paths.sort();
    Ok(paths)
}

/// Where the config named `word` lies, if it can be the name of one.
pub fn path_of(word: &Path, places: &Places) -> Option<PathBuf> {
    let bytes = word.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&b'/') || bytes.starts_with(b".") {
        return None;
    }
    let mut name = word.as_os_str().to_owned();
    name.push(".");
    name.push(ENDING);
    Some(places.configs()?.join(name))
}

/// A link that leads nowhere is not missing: somebody meant something by it.
fn is_missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|e| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

impl Config {
    pub fn read(path: &Path) -> Result<Config, Failure> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let message =
                format_args!("can't read the config {}: {e}; who mounts must be able to", path.display());
            Failure::other(message)
        })?;
        Config::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Config, Failure> {
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let table = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            wrong(path, line(at), format_args!("{}; a line is KEY = VALUE, text in quotes", e.message()))
        })?;
        let mut dir = None;
        let mut options = Vec::new();
        for (key, value) in table.into_inner() {
            let (at, key) = (line(key.span().start), key.into_inner().into_owned());
            let value = match value.into_inner() {
                DeValue::Boolean(on) => Value::Switch(on),
                DeValue::String(text) => Value::Text(text.into_owned()),
                DeValue::Integer(number) if number.radix() == 10 => Value::Text(number.as_str().to_owned()),
                DeValue::Float(number) => Value::Text(number.as_str().to_owned()),
                other => Value::Odd(other.type_str()),
            };
            match key.as_str() {
                DIR => dir = Some(whole_path(&key, &value).map_err(|why| wrong(path, at, why))?.into()),
                _ => options.push(Setting { line: at, key, value }),
            }
        }
        options.sort_by_key(|setting| setting.line);
        let dir = dir.ok_or_else(|| {
            let message = "dir is missing: say which directory is shared, as in dir = \"/mnt/shared\"";
            Failure::new(Exit::Usage, format_args!("{}: {message}", path.display()))
        })?;
        Ok(Config { path: path.to_owned(), dir, options })
    }

    /// What was said on the command line, and this config where nothing was.
    pub fn complete(&self, said: &args::Mount) -> Result<args::Mount, Failure> {
        let spelled = self.spelled()?;
        let mut mount = said.with_defaults(&spelled.long).map_err(|e| {
            Failure::new(Exit::Usage, format_args!("{}: {}", self.path.display(), reason(&e)))
        })?;
        mount.kernel.merge(&spelled.kernel);
        mount.dir.clone_from(&self.dir);
        Ok(mount)
    }

    /// Its options; an error names all lines that are wrong.
    pub fn spelled(&self) -> Result<Spelled, Failure> {
        let mut spelled = Spelled::default();
        let mut wrongs = Vec::new();
        let mut seen = HashMap::new();
        for setting in &self.options {
            let twice = seen.insert(setting.long(), setting.line);
            let read = match twice {
                Some(line) => Err(format!("{} is in line {line} already; remove one of them", setting.key)),
                None => setting.spell(&mut spelled),
            };
            wrongs.extend(read.err().map(|why| wrong(&self.path, setting.line, why).message));
        }
        match wrongs.is_empty() {
            true => Ok(spelled),
            false => Err(Failure::new(Exit::Usage, wrongs.join("\n"))),
        }
    }
}

impl Setting {
    fn long(&self) -> String {
        self.key.replace('_', "-")
    }

    fn spell(&self, out: &mut Spelled) -> Result<(), String> {
        let (key, long) = (&self.key, self.long());
        let switch = || match self.value {
            Value::Switch(on) => Ok(on),
            _ => Err(format!("{key} is either on or off: write {key} = true, without quotes, or remove it")),
        };
        if KernelOptions::default().set(key) {
            if switch()? {
                out.kernel.set(key);
            }
            return Ok(());
        }
        let word = match args::takes(&long) {
            None if matches!(self.value, Value::Odd("table")) => {
                return Err(format!("there are no sections in a config: remove the line [{key}]"));
            }
            None => return Err(format!("{key} is not known; {}", args::hint(key))),
            Some(Takes::Nothing) if !switch()? => return Ok(()),
            Some(Takes::Nothing) => format!("--{long}"),
            Some(Takes::Path) => format!("--{long}={}", whole_path(key, &self.value)?),
            Some(Takes::Value) => match &self.value {
                Value::Text(text) => format!("--{long}={text}"),
                Value::Switch(_) => return Err(format!("{key} needs a value, not true or false")),
                Value::Odd(kind) => return Err(format!("{key} takes one text or number, not a TOML {kind}")),
            },
        };
        // By itself, so that what is wrong is told of this line.
        args::Mount::plain(Path::new("/"))
            .with_defaults(std::slice::from_ref(&word))
            .map_err(|e| format!("{key}: {}", reason(&e)))?;
        out.long.push(word);
        Ok(())
    }
}

/// A path that means the same wherever `mount` is called.
fn whole_path<'a>(key: &str, value: &'a Value) -> Result<&'a str, String> {
    match value {
        Value::Text(text) if text.starts_with('/') => Ok(text),
        _ => Err(format!("{key} needs a whole path, from / on and in quotes")),
    }
}

fn wrong(path: &Path, line: usize, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format_args!("{}:{line}: {why}", path.display()))
}

/// The first paragraph of a complaint, in one line.
fn reason(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
    lines.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/c/x.toml"), text).map_err(|failure| failure.message)
    }

    fn complaint(lines: &str) -> String {
        config(&format!("dir = \"/d\"\n{lines}")).unwrap().spelled().unwrap_err().message
    }

    #[test]
    fn every_spelling_of_an_option_becomes_that_of_the_command_line() {
        let text = "# a comment\ndir = '/mnt/a b'\npeer = \"hostb\"\nread_timeout = 5\ncache-size = \"10G\"\n\
                    new_peer = true\nadopt_deletes = false\nro = true\nallow_other = false\nstore = '/s'";
        let config = config(text).unwrap();
        let spelled = config.spelled().unwrap();
        assert_eq!(config.dir, Path::new("/mnt/a b"));
        let long = ["--peer=hostb", "--read-timeout=5", "--cache-size=10G", "--new-peer", "--store=/s"];
        assert_eq!(spelled.long, long);
        assert!(spelled.kernel.read_only && !spelled.kernel.allow_other);
    }

    #[test]
    fn what_was_said_counts_more() {
        let config = config("dir = '/d'\npeer = 'a'\nread_timeout = 5\nro = true").unwrap();
        let said = args::Mount::plain(Path::new("x")).with_defaults(&["--peer=b".to_owned()]).unwrap();
        let mount = config.complete(&said).unwrap();
        assert_eq!((mount.dir, mount.peer.as_deref()), ("/d".into(), Some("b")));
        assert_eq!((mount.read_timeout, mount.kernel.read_only), (5, true));
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_key() {
        for (lines, told) in [
            ("\npear = 'x'", "/c/x.toml:3: pear is not known; did you mean peer?"),
            ("cachesize = '1G'", ":2: cachesize is not known; did you mean cache_size?"),
            ("help = true", ":2: help is not known"),
            ("nofail = true", ":2: nofail is not known; `syncfs mount --help` lists all"),
            ("new_peer = 'true'", ":2: new_peer is either on or off"),
            ("ro = 1", ":2: ro is either on or off"),
            ("peer = true", ":2: peer needs a value"),
            ("peer = ['a', 'b']", ":2: peer takes one text or number, not a TOML array"),
            ("[mount]\npeer = 'a'", ":2: there are no sections in a config: remove the line [mount]"),
            ("store = 's'", ":2: store needs a whole path"),
            ("listen = '7377'", ":2: listen: invalid value '7377'"),
            ("direction = 'up'", "[possible values: both, send, receive]"),
            ("trash_days = -1", ":2: trash_days: invalid value '-1'"),
            ("read_timeout = 5\nread-timeout = 6", ":3: read-timeout is in line 2 already"),
        ] {
            let complaint = complaint(lines);
            assert!(complaint.contains(told) && complaint.lines().count() == 1, "{lines}: {complaint}");
        }
        assert_eq!(complaint("a = 1\nb = 2").lines().count(), 2);
    }

    #[test]
    fn a_file_that_says_no_directory_is_no_config() {
        for (text, told) in [
            ("", "dir is missing"),
            ("dir = 'shared'", "/c/x.toml:1: dir needs a whole path"),
            ("dir = 5", ":1: dir needs a whole path"),
            ("dir = '/d'\npeer = a", "/c/x.toml:2: "),
            ("dir = '/d'\ndir = '/e'", "/c/x.toml:2: "),
        ] {
            let complaint = config(text).unwrap_err();
            assert!(complaint.contains(told), "{text}: {complaint}");
        }
    }

    #[test]
    fn only_a_bare_word_can_be_a_name() {
        let places = Places::here();
        for word in ["", ".", "..", ".hidden", "./a", "/a", "a/", "a/b"] {
            assert_eq!(path_of(Path::new(word), &places), None, "{word}");
        }
    }
}
