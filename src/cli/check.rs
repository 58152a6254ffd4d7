//! `syncfs config check`: what is wrong with a config, or what it would do.
//!
//! Invariant: nothing is mounted, made or changed; what is checked is checked by what `mount` itself calls.

use super::args::{self, ConfigCommand};
use super::config::{self, Config};
use super::exit::{Exit, Failure, Outcome, complain, say};
use super::mount;
use super::place::Places;
use std::path::Path;

pub fn run(args: args::Config) -> Outcome {
    let ConfigCommand::Check(args) = args.command;
    let places = Places::here();
    let paths = match args.config {
        Some(word) => vec![config::path_of(&word, &places).filter(|path| path.exists()).unwrap_or(word)],
        None => config::all(&places)?,
    };
    if paths.is_empty() {
        let dir = places
            .configs()
            .map_or("a directory that HOME tells, which is not set".into(), Path::to_string_lossy);
        say(format_args!("there is no config; they are files NAME.toml in {dir}"));
    }
    let failures: Vec<Failure> = paths.iter().flat_map(|path| check(path, &places)).collect();
    failures.iter().for_each(|failure| complain(failure));
    Ok(match failures.iter().any(|failure| failure.exit == Exit::Usage) {
        true => Exit::Usage,
        false if failures.is_empty() => Exit::Ok,
        false => Exit::Other,
    })
}

/// Says what the config would do, or gives all that keeps it from that.
fn check(path: &Path, places: &Places) -> Vec<Failure> {
    let config = match Config::read(path) {
        Ok(config) => config,
        Err(failure) => return vec![failure],
    };
    let judged = config.spelled().and_then(|spelled| {
        let mount = config.complete(&args::Mount::plain(path))?;
        Ok((spelled, mount::obstacles(&mount, places)))
    });
    let (spelled, obstacles) = match judged {
        Ok(judged) => judged,
        Err(failure) => return vec![failure],
    };
    if obstacles.is_empty() {
        let mut words = vec!["syncfs".to_owned(), "mount".to_owned(), config.dir.display().to_string()];
        words.extend(spelled.long);
        let kernel = spelled.kernel.names().join(",");
        words.extend((!kernel.is_empty()).then(|| format!("-o{kernel}")));
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        say(format_args!("{}: all well; it means\n  {}", path.display(), line.join(" ")));
    }
    let told = |failure: Failure| Failure::new(failure.exit, format_args!("{}: {failure}", path.display()));
    obstacles.into_iter().map(told).collect()
}

/// As a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=/.,:[]@%+".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_is_shown() {
        assert_eq!(quoted("--listen=[::]:7377"), "--listen=[::]:7377");
        assert_eq!(quoted("/mnt/it's here"), r"'/mnt/it'\''s here'");
    }
}
