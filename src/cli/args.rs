//! What may be asked on the command line.
//!
//! Invariant: every long option of `mount` can also be written `-o name_with_underscores`, and as a line of a config, with no
//! list to keep in step: the other spellings are turned into the first and parsed again.

use super::options::{self, KernelOptions};
use super::units;
use crate::model::direction::Direction;
use crate::model::first::FirstSync;
use clap::builder::TypedValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser};
use std::any::TypeId;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// As the README has them.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 5 try again later (the peer is not there, time ran out), \
                          7 failed for good, 11 done but conflict copies wait";

#[derive(Debug, Parser)]
#[command(name = "syncfs", version, about, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it, for a moment")]
pub enum Command {
    /// Make the key that both hosts of a share need
    Keygen(Keygen),
    /// Give another host this one's key: shows a code, which is typed there
    Pair(Pair),
    /// Mount DIR and keep it the same as on the peer; returns when the mount is ready
    Mount(Mount),
    /// Show how a share is doing
    Status(Status),
    /// Show what came, went and conflicted lately
    Log(Log),
    /// Wait until both sides are level and durable
    Flush(Flush),
    /// List the conflict copies that wait for somebody
    Conflicts(Conflicts),
    /// Decide a conflict: which version keeps the name
    Resolve(Resolve),
    /// Let deletes of the peer through that wait because they are many
    Resume(Resume),
    /// See and bring back what the peer deleted or wrote over
    Trash(Trash),
    /// Compare both sides from their disks; exit code 1 where they differ
    Verify(Verify),
    /// Hold all of FILE here, whatever the cache is; brings over what is missing
    Pin(Residency),
    /// Let FILE go from the cache again as anything else
    Unpin(Residency),
    /// Bring over what is missing of FILE, and wait for it
    Fetch(Residency),
    /// Let go what is here of FILE; it comes back when it is read
    Free(Residency),
    /// Unmount DIR and wait until everything is on the disk
    Unmount(Unmount),
    /// Look after configs, which let a name stand for a directory and all options of its mount
    Config(Config),
    /// Say whether this host has what a mount needs; exit code 1 where it has not
    Doctor(Doctor),
    /// Show syncfs at work: two mounts on this machine, live
    Demo(Demo),
    /// Break the daemon's connection when it dies; its standard output is what breaks it
    #[command(hide = true)]
    Guard(Guard),
    /// Show programs that watch a mount what the peer does; its standard input says what
    #[command(hide = true)]
    Replay,
    /// Write man pages and completions for a package
    #[command(hide = true)]
    Generate(Generate),
}

#[derive(Debug, clap::Args)]
pub struct Generate {
    /// Where they go
    pub dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Guard {
    /// The daemon's process
    pub daemon: i32,
}

#[derive(Debug, clap::Args)]
pub struct Keygen {
    /// Where the key goes [default: $XDG_CONFIG_HOME/syncfs/key, for root /etc/syncfs/key]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Pair {
    /// The host that shows the code; left out, this one shows a code and waits ten minutes for who types it, and if it has no
    /// key, makes one then
    #[arg(value_name = "HOST[:PORT]", requires = "code")]
    pub host: Option<String>,
    /// The code, with or without its dash
    #[arg(value_name = "CODE")]
    pub code: Vec<String>,
    /// Where to wait for the other host
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:7377", conflicts_with = "host")]
    pub listen: SocketAddr,
    /// Where the key lies, or goes [default: $XDG_CONFIG_HOME/syncfs/key, for root /etc/syncfs/key]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Mount {
    /// The directory to share; what lies in it is shared, too. A word without a slash that names a config, as NAME does
    /// NAME.toml in /etc/syncfs (for others than root in ~/.config/syncfs), stands for what that says, also where a
    /// directory of that name is here: that one is ./NAME
    #[arg(value_name = "DIR|NAME")]
    pub dir: PathBuf,
    /// The other host; auto in the place of HOST finds it on the local network, where it is mounted with auto, too, and
    /// listens at the same port
    #[arg(long, value_name = "HOST[:PORT]")]
    pub peer: Option<String>,
    /// Where to wait for the peer
    #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:7377", value_parser = address)]
    pub listen: SocketAddr,
    /// The directory that holds the files and the state [default: DIR itself]
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// The share's key [default: $XDG_CONFIG_HOME/syncfs/key, for root /etc/syncfs/key]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Stay in the foreground and log to stderr
    #[arg(long)]
    pub foreground: bool,
    /// How long a read waits for content that only the peer holds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub read_timeout: u64,
    /// Pair with another replica than before
    #[arg(long)]
    pub new_peer: bool,
    /// How this directory and that of a peer it never met become one; the peer must be told the same from its
    /// point of view: newest, the union, where the later version of a name keeps it; local or peer, the union, where
    /// that side's version does (what loses stays as a conflict copy); mirror-local or mirror-peer, the other becomes as
    /// that side is, and what it loses goes into its trash
    #[arg(long, value_name = "MODE", default_value = "newest", value_parser = first_sync())]
    pub first_sync: FirstSync,
    /// How long what the peer deletes or writes over stays in the trash; 0: there is no trash
    #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(..=36_500))]
    pub trash_days: u32,
    /// What was removed from DIR while it was not mounted is deleted on the peer, too, instead of coming back
    #[arg(long)]
    pub adopt_deletes: bool,
    /// How many files the peer may delete within a minute before somebody is asked [default: half of them, where there are
    /// more than 100]
    #[arg(long, value_name = "N")]
    pub max_delete: Option<u64>,
    /// Which way changes go; the peer must be told the same from its point of view: both; send, nothing comes from the
    /// peer; receive, what is changed here stays here, and as a conflict copy where the peer changes the same
    #[arg(long, value_name = "both|send|receive", default_value = "both", value_parser = direction())]
    pub direction: Direction,
    /// How often what changes here is announced to the peer, beside `flush`; 0: at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub interval: u64,
    /// How many bytes a second this host sends at most (500k, 2M); 0: as many as go
    #[arg(long, value_name = "RATE", default_value_t = 0, value_parser = rate)]
    pub bwlimit: u64,
    /// Compress nothing on its way; without it, what shrinks is compressed, where the peer does the same
    #[arg(long)]
    pub no_compress: bool,
    /// Hold only what is used here, up to SIZE on the disk (500M, 10G); the rest comes from the peer when it is read. The peer
    /// holds everything [default: everything is held]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub cache_size: Option<u64>,
    /// What the peer has is brought over only as long as SIZE of the disk stays free [default: a twentieth of the disk]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub cache_min_free: Option<u64>,
    /// Show all files as this user's, whoever they belong to; they can't be given to another then
    #[arg(long, value_name = "UID", value_parser = clap::value_parser!(u32).range(..=0xffff_fffe))]
    pub uid: Option<u32>,
    /// Show all files as this group's
    #[arg(long, value_name = "GID", value_parser = clap::value_parser!(u32).range(..=0xffff_fffe))]
    pub gid: Option<u32>,
    /// Show the share to browsers of this machine, and its figures to Prometheus; nothing can be changed there
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub http: Option<SocketAddr>,
    /// Let --http show it to whoever reaches ADDR, and is no browser of this machine alone
    #[arg(long, requires = "http")]
    pub http_public: bool,
    /// Options as mount(8) passes them: any of the above as name_with_underscores, and ro, noexec,
    /// allow_other, default_permissions
    #[arg(short = 'o', value_name = "OPTION,...", value_delimiter = ',')]
    options: Vec<String>,
    /// What of `-o` is for the kernel.
    #[arg(skip)]
    pub kernel: KernelOptions,
    /// What of `-o` is not known, where `sloppy` lets that pass.
    #[arg(skip)]
    pub unknown: Vec<String>,
    /// How all this was said, `-o` spelled out.
    #[arg(skip)]
    words: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub struct Status {
    /// The mounted directory, or the config that it has; may be left out where only one share is mounted
    #[arg(value_name = "DIR|NAME")]
    pub dir: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub json: bool,
    /// Show it again and again, until the share is unmounted
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

#[derive(Debug, clap::Args)]
pub struct Log {
    /// The mounted directory; may be left out where only one share is mounted
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Go on with what comes, until the share is unmounted
    #[arg(long, short)]
    pub follow: bool,
    /// For programs: one object a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Flush {
    /// The mounted directory, or the config that it has; may be left out where only one share is mounted
    #[arg(value_name = "DIR|NAME")]
    pub dir: Option<PathBuf>,
    /// Give up after this long, with exit code 5 [default: never, while the peer is there]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<std::time::Duration>,
}

#[derive(Debug, clap::Args)]
pub struct Conflicts {
    /// The mounted directory, or the config that it has; may be left out where only one share is mounted
    #[arg(value_name = "DIR|NAME")]
    pub dir: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Resolve {
    /// The file in conflict, or a conflict copy
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Of the version FILE, the other one, or both, what is kept
    #[arg(long, value_name = "this|other|both")]
    pub keep: Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// FILE; other versions are removed
    This,
    /// The other version, under the file's own name; FILE is removed
    Other,
    /// Both: the copy takes a name that is no conflict copy's
    Both,
}

#[derive(Debug, clap::Args)]
pub struct Resume {
    /// The mounted directory, or the config that it has; may be left out where only one share is mounted
    #[arg(value_name = "DIR|NAME")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Trash {
    #[command(subcommand)]
    pub command: TrashCommand,
}

#[derive(Debug, clap::Subcommand)]
pub enum TrashCommand {
    /// Show what lies in the trash, oldest first
    List(TrashList),
    /// Bring a file back, on both hosts
    Restore(Restore),
}

#[derive(Debug, clap::Args)]
pub struct TrashList {
    /// The mounted directory, or the config that it has; may be left out where only one share is mounted
    #[arg(value_name = "DIR|NAME")]
    pub dir: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Restore {
    /// An entry of the trash, or the name of a file, of which the latest comes back
    #[arg(value_name = "ENTRY|NAME")]
    pub what: String,
    /// The mounted directory, or the config that it has; may be left out where only one share is mounted
    #[arg(value_name = "DIR|NAME")]
    pub dir: Option<PathBuf>,
    /// The name that it gets [default: the one that it had]
    #[arg(long = "as", value_name = "NAME")]
    pub to: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The mounted directory, or the config that it has; may be left out where only one share is mounted
    #[arg(value_name = "DIR|NAME")]
    pub dir: Option<PathBuf>,
    /// Make them the same: both versions of a content are kept, one as a conflict copy
    #[arg(long)]
    pub repair: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Residency {
    /// Files in a mounted share
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Unmount {
    /// The mounted directory, or the config that it has
    #[arg(value_name = "DIR|NAME")]
    pub dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Config {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Check all of a config that can be checked without mounting, and show what it would do
    Check(ConfigCheck),
}

#[derive(Debug, clap::Args)]
pub struct ConfigCheck {
    /// The config, by its name or its path [default: all there are]
    #[arg(value_name = "NAME|FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// The config whose mount is meant [default: one without options]
    #[arg(value_name = "NAME")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Demo {
    /// End after the show instead of leaving the two directories to play with
    #[arg(long)]
    pub exit: bool,
}

/// The command that `words` ask for; `words[0]` is the program.
pub fn parse(words: Vec<OsString>) -> Result<Command, clap::Error> {
    let command = Cli::try_parse_from(&words)?.command;
    let Command::Mount(mount) = &command else { return Ok(command) };
    let spelled = options::spell_out(&mount.options, &mount_options(), hint).map_err(|text| {
        let mut cli = Cli::command();
        cli.build();
        mount_command_mut(&mut cli).error(ErrorKind::UnknownArgument, text)
    })?;
    // Right after `mount`, because after a `--` they would be taken for a directory.
    let mut again = words;
    again.splice(2..2, spelled.long.into_iter().map(OsString::from));
    match Cli::try_parse_from(&again)?.command {
        Command::Mount(mount) => {
            let (kernel, unknown) = (spelled.kernel, spelled.unknown);
            Ok(Command::Mount(Mount { kernel, unknown, words: again, ..mount }))
        }
        command => Ok(command),
    }
}

impl Mount {
    /// What `syncfs mount DIR` asks for.
    pub fn plain(dir: &Path) -> Mount {
        let words: Vec<OsString> = vec!["syncfs".into(), "mount".into(), "--".into(), dir.into()];
        let mount = Mount::parse(Cli::command(), &words).expect("a directory is all it needs");
        Mount { words, ..mount }
    }

    /// The same with `options`, long ones in one word each, as if they had been said first: of what both have, what was
    /// said counts.
    pub fn with_defaults(&self, options: &[String]) -> Result<Mount, clap::Error> {
        let mut words = self.words.clone();
        words.splice(2..2, options.iter().map(OsString::from));
        let mount = Mount::parse(Cli::command().args_override_self(true), &words)?;
        Ok(Mount { kernel: self.kernel.clone(), words, ..mount })
    }

    fn parse(cli: clap::Command, words: &[OsString]) -> Result<Mount, clap::Error> {
        match Cli::from_arg_matches(&cli.try_get_matches_from(words)?)?.command {
            Command::Mount(mount) => Ok(mount),
            _ => unreachable!("the words begin with `syncfs mount`"),
        }
    }
}

/// What a long option of `mount` wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    Path,
    Value,
}

/// `None` where `mount` has no such option.
pub fn takes(long: &str) -> Option<Takes> {
    let cli = Cli::command();
    let option = mount_command(&cli).get_arguments().find(|arg| arg.get_long() == Some(long))?;
    Some(match option.get_action().takes_values() {
        false => Takes::Nothing,
        true if option.get_value_parser().type_id() == TypeId::of::<PathBuf>() => Takes::Path,
        true => Takes::Value,
    })
}

/// What to do about `word`, which is no option of `mount`, where options are written with `_`.
pub fn hint(word: &str) -> String {
    let long = format!("--{}", word.replace('_', "-"));
    let words = ["syncfs", "mount", "/", &long].map(OsString::from);
    let refused = Mount::parse(Cli::command(), &words).err();
    match refused.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg)) {
        Some(ContextValue::String(like)) => {
            format!("did you mean {}?", like.trim_start_matches('-').replace('-', "_"))
        }
        _ => "`syncfs mount --help` lists all, and --cache-size is written cache_size here".to_owned(),
    }
}

/// All that may be asked.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The long options of `mount`.
fn mount_options() -> Vec<String> {
    let cli = Cli::command();
    mount_command(&cli).get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect()
}

fn mount_command(cli: &clap::Command) -> &clap::Command {
    cli.find_subcommand("mount").expect("mount is a command")
}

fn mount_command_mut(cli: &mut clap::Command) -> &mut clap::Command {
    cli.find_subcommand_mut("mount").expect("mount is a command")
}

fn first_sync() -> impl clap::builder::TypedValueParser<Value = FirstSync> {
    let words = clap::builder::PossibleValuesParser::new(FirstSync::ALL.map(FirstSync::word));
    let by_word = |word: String| FirstSync::ALL.into_iter().find(|mode| mode.word() == word);
    words.map(move |word| by_word(word).expect("only these words pass"))
}

fn direction() -> impl clap::builder::TypedValueParser<Value = Direction> {
    let words = clap::builder::PossibleValuesParser::new(Direction::ALL.map(Direction::word));
    let by_word = |word: String| Direction::ALL.into_iter().find(|direction| direction.word() == word);
    words.map(move |word| by_word(word).expect("only these words pass"))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "not an address in digits with a port: 127.0.0.1:7380, or [::]:7377 for all addresses of this host".to_owned()
    })
}

fn size(text: &str) -> Result<u64, String> {
    units::parse_bytes(text).ok_or_else(|| "not a size: 500M, 10G, 1T, or a number of bytes".to_owned())
}

fn rate(text: &str) -> Result<u64, String> {
    units::parse_bytes(text)
        .ok_or_else(|| "not a rate: 500k, 2M, or a number of bytes a second; 0: no limit".to_owned())
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    std::time::Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, ErrorKind> {
        parse(line.split(' ').map(OsString::from).collect()).map_err(|e| e.kind())
    }

    fn mount(line: &str) -> Mount {
        match parsed(line) {
            Ok(Command::Mount(mount)) => mount,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let mount = mount("syncfs mount /mnt/shared --peer hostb");
        assert_eq!(mount.listen, "[::]:7377".parse().unwrap());
        assert_eq!((mount.read_timeout, mount.new_peer, mount.foreground), (30, false, false));
        assert_eq!((mount.bwlimit, mount.no_compress), (0, false));
        assert_eq!((mount.store, mount.key_file), (None, None));
        assert_eq!((mount.trash_days, mount.max_delete, mount.adopt_deletes), (7, None, false));
    }

    #[test]
    fn every_long_option_can_be_written_with_o() {
        let mount = mount(
            "syncfs mount /d -o rw,noatime,peer=hostb,listen=127.0.0.1:1,store=/s,key_file=/k,_netdev \
             -o read_timeout=5,new_peer,trash_days=0,max_delete=900,adopt_deletes,foreground,x-systemd.automount,ro",
        );
        assert_eq!(mount.peer.as_deref(), Some("hostb"));
        assert_eq!(mount.listen, "127.0.0.1:1".parse().unwrap());
        assert_eq!(mount.store, Some("/s".into()));
        assert_eq!(mount.key_file, Some("/k".into()));
        assert_eq!((mount.read_timeout, mount.new_peer, mount.foreground), (5, true, true));
        assert_eq!((mount.trash_days, mount.max_delete, mount.adopt_deletes), (0, Some(900), true));
        assert!(mount.kernel.read_only);
        assert_eq!(self::mount("syncfs mount /d -o peer=b,bwlimit=500k").bwlimit, 500 << 10);
    }

    #[test]
    fn what_is_said_counts_more_than_the_defaults_of_a_config() {
        let said = mount("syncfs mount x --read-timeout 5 -o listen=127.0.0.1:1,ro --new-peer");
        let defaults = ["--read-timeout=9", "--listen=[::]:2", "--peer=b", "--new-peer", "--adopt-deletes"];
        let both = said.with_defaults(&defaults.map(str::to_owned)).unwrap();
        assert_eq!((both.read_timeout, both.listen), (5, "127.0.0.1:1".parse().unwrap()));
        assert_eq!((both.peer.as_deref(), both.new_peer, both.adopt_deletes), (Some("b"), true, true));
        assert!(both.kernel.read_only);
        assert!(said.with_defaults(&["--read-timeout=x".to_owned()]).is_err());
    }

    #[test]
    fn what_an_option_takes_is_known() {
        let known = ["new-peer", "store", "peer", "read-timeout", "help", "nonsense"].map(takes);
        let [nothing, path, value] = [Takes::Nothing, Takes::Path, Takes::Value].map(Some);
        assert_eq!(known, [nothing, path, value, value, None, None]);
    }

    #[test]
    fn a_code_is_typed_with_a_dash_or_a_space_and_not_without_a_host() {
        let pair = |line| match parsed(line) {
            Ok(Command::Pair(pair)) => (pair.host, pair.code.concat()),
            other => panic!("{other:?}"),
        };
        assert_eq!(pair("syncfs pair"), (None, String::new()));
        for line in ["syncfs pair b 1234-5678", "syncfs pair b 1234- 5678"] {
            assert_eq!(pair(line), (Some("b".to_owned()), "1234-5678".to_owned()));
        }
        assert_eq!(parsed("syncfs pair b").unwrap_err(), ErrorKind::MissingRequiredArgument);
        assert_eq!(parsed("syncfs pair b 1 --listen 127.0.0.1:1").unwrap_err(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn what_is_not_known_may_mean_something() {
        assert_eq!(hint("cachesize"), "did you mean cache_size?");
        assert_eq!(hint("keyfile"), "did you mean key_file?");
        assert!(hint("nofail").contains("syncfs mount --help"));
        let refused = parse("syncfs mount /d -o peer=b,bwlmit=1M".split(' ').map(OsString::from).collect());
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("did you mean bwlimit?") && text.contains("Usage: syncfs mount"), "{text}");
    }

    #[test]
    fn options_work_after_a_double_dash() {
        assert_eq!(mount("syncfs mount -o peer=b -- -dir").peer.as_deref(), Some("b"));
    }

    #[test]
    fn what_is_not_known_is_a_usage_error() {
        assert_eq!(parsed("syncfs mount /d --peer b --compress 1G").unwrap_err(), ErrorKind::UnknownArgument);
        assert_eq!(parsed("syncfs mount /d -o peer=b,compress=1G").unwrap_err(), ErrorKind::UnknownArgument);
        assert_eq!(parsed("syncfs mount /d -o peer=b,help").unwrap_err(), ErrorKind::UnknownArgument);
        assert_eq!(parsed("syncfs mount /d -o peer=b,new_peer=1").unwrap_err(), ErrorKind::TooManyValues);
        assert_eq!(parsed("syncfs mount /d -o peer=b,listen=x").unwrap_err(), ErrorKind::ValueValidation);
        assert_eq!(
            parsed("syncfs mount /d --peer b --bwlimit fast").unwrap_err(),
            ErrorKind::ValueValidation
        );
        assert_eq!(parsed("syncfs mount /d --peer a -o peer=b").unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(parsed("syncfs compress x").unwrap_err(), ErrorKind::InvalidSubcommand);
        assert_eq!(parsed("syncfs flush --timeout -1").unwrap_err(), ErrorKind::UnknownArgument);
        assert_eq!(parsed("syncfs flush --timeout=-1").unwrap_err(), ErrorKind::ValueValidation);
    }
}
