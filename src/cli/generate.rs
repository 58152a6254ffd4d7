//! `syncfs generate`: man pages and completions, made of what the command line is, for a package to install.

use super::args;
use super::exit::{Exit, Outcome};
use anyhow::Context;
use clap_complete::Shell;
use std::path::Path;

pub fn run(args: args::Generate) -> Outcome {
    let (man, completions) = (args.dir.join("man"), args.dir.join("completions"));
    let failed = |dir: &Path| format!("can't write to {}", dir.display());
    for dir in [&man, &completions] {
        std::fs::create_dir_all(dir).with_context(|| failed(dir))?;
    }
    let mut command = args::command();
    clap_mangen::generate_to(command.clone(), &man).with_context(|| failed(&man))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "syncfs", &completions)
            .with_context(|| failed(&completions))?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page_and_every_shell_its_completions() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("new/dir");
        run(args::Generate { dir: dir.clone() }).unwrap();
        let read = |path: &str| std::fs::read_to_string(dir.join(path));
        for command in args::command().get_subcommands() {
            let page = read(&format!("man/syncfs-{}.1", command.get_name()));
            assert_eq!(page.is_err(), command.is_hide_set(), "{}", command.get_name());
        }
        assert!(read("man/syncfs-mount.1").unwrap().contains("cache"));
        for file in ["syncfs.bash", "_syncfs", "syncfs.fish"] {
            assert!(read(&format!("completions/{file}")).unwrap().contains("cache-size"), "{file}");
        }
    }
}
