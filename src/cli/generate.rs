//! `syncfs generate`: man pages and completions, made of what the command line is, for a package to install.

use super::args;
use super::exit::{Exit, Outcome};
use anyhow::Context;
use clap_complete::Shell;
use clap_mangen::Man;
use std::io;
use std::path::Path;

/// The package's.
const CHANGELOG: &str = include_str!("../../packaging/changelog");

pub fn run(args: args::Generate) -> Outcome {
    let (man, completions) = (args.dir.join("man"), args.dir.join("completions"));
    let failed = |dir: &Path| format!("can't write to {}", dir.display());
    for dir in [&man, &completions] {
        std::fs::create_dir_all(dir).with_context(|| failed(dir))?;
    }
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    let date = date().context("packaging/changelog has no date")?;
    pages(&command, &date, &man).with_context(|| failed(&man))?;
    let mut command = args::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "syncfs", &completions)
            .with_context(|| failed(&completions))?;
    }
    Ok(Exit::Ok)
}

/// A page of `command` and of each below it that is shown.
fn pages(command: &clap::Command, date: &str, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, date, dir)?;
    }
    let page = Man::new(command.clone()).date(date).source(concat!("syncfs ", env!("CARGO_PKG_VERSION")));
    page.manual("syncfs").generate_to(dir).map(drop)
}

/// When this version was made.
fn date() -> Option<String> {
    let (_, date) = CHANGELOG.lines().find_map(|line| line.strip_prefix(" -- ")?.split_once(">  "))?;
    Some(jiff::fmt::rfc2822::parse(date).ok()?.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_a_page_of_every_command_that_is_shown_completions_of_every_shell_and_this_version() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("new/dir");
        run(args::Generate { dir: dir.clone() }).unwrap();
        let read = |path: &str| std::fs::read_to_string(dir.join(path));
        for command in args::command().get_subcommands() {
            let page = read(&format!("man/syncfs-{}.1", command.get_name()));
            assert_eq!(page.is_err(), command.is_hide_set(), "{}", command.get_name());
        }
        let page = read("man/syncfs-mount.1").unwrap();
        let title =
            format!(".TH syncfs-mount 1 {} \"syncfs {}\"", date().unwrap(), env!("CARGO_PKG_VERSION"));
        assert!(page.contains(&title) && page.contains("cache"), "{page}");
        assert!(CHANGELOG.starts_with(concat!("syncfs (", env!("CARGO_PKG_VERSION"), "-")), "{CHANGELOG}");
        for file in ["syncfs.bash", "_syncfs", "syncfs.fish"] {
            assert!(read(&format!("completions/{file}")).unwrap().contains("cache-size"), "{file}");
        }
    }
}
