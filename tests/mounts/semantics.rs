//! The examples of docs/semantics.md, run as they stand.

use crate::rig::{SYNCFS, free_ports};
use std::path::Path;
use std::process::{Command, Stdio};

const PAGE: &str = include_str!("../../docs/semantics.md");

/// What the page has to run, and what it says is printed.
fn examples() -> (String, Vec<&'static str>) {
    let (mut script, mut printed, mut inside) = (String::new(), Vec::new(), false);
    for line in PAGE.lines() {
        match line.strip_prefix("#->") {
            _ if line.starts_with("```") => inside = line == "```sh",
            _ if !inside => {}
            Some(text) => printed.push(text.strip_prefix(' ').unwrap_or(text)),
            None => script += &format!("{line}\n"),
        }
    }
    (script, printed)
}

#[test]
fn the_examples_of_the_page_on_semantics_print_what_it_says() {
    let (script, expected) = examples();
    assert!(expected.len() > 20, "the page has lost its examples");
    let temp = tempfile::tempdir().unwrap();
    let ports = [free_ports(), free_ports()].concat();
    let pages = ["7401", "7402", "7403", "7404"].into_iter().zip(ports);
    let script = pages.fold(script, |script, (page, port)| script.replace(page, &port.to_string()));
    // However it ends, nothing stays mounted.
    let tidy = r#"trap 'for m in "$PWD"/[a-d]; do mountpoint -q "$m" && syncfs unmount "$m"; done' EXIT"#;
    let bin = Path::new(SYNCFS).parent().unwrap().display();
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1; {tidy}\n{script}")])
        .env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()))
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", temp.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let printed: Vec<&str> = printed.lines().collect();
    for (n, (got, wanted)) in printed.iter().zip(&expected).enumerate() {
        assert_eq!(got, wanted, "line {n} of {printed:#?}");
    }
    assert_eq!(printed.len(), expected.len(), "{printed:#?}");
}
