//! The API: every example of docs/api.md runs with curl, and is answered in the documented shape.

use crate::rig::{Host, Pair, Program, SYNCFS, free_ports, mounted, run, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

const API: &str = include_str!("../../docs/api.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");

/// A command of the documentation, and the answer that it shows.
struct Example {
    command: String,
    answer: Option<Value>,
}

/// The indented blocks that begin with curl.
fn examples() -> Vec<Example> {
    let mut examples = Vec::new();
    for block in API.split("\n\n") {
        let lines: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        let Some(at) = lines.iter().position(|line| line.starts_with("curl ")) else { continue };
        let answer = lines[at + 1..].join("\n");
        let answer = answer.starts_with(['{', '[']).then(|| serde_json::from_str(&answer).expect(&answer));
        examples.push(Example { command: lines[at].to_owned(), answer });
    }
    examples
}

fn socket(host: &Host) -> String {
    host.status()["socket"].as_str().expect("a path").to_owned()
}

fn shell(host: &Host, socket: &str, command: &str) -> String {
    run(&host.dir, &["bash", "-c", &format!("cd /; S={socket}; {command}")])
}

/// What of `real` is not as documented: keys and types.
fn differences(at: &str, told: &Value, real: &Value, wrong: &mut Vec<String>) {
    match (told, real) {
        (_, Value::Null) | (Value::Null, _) => {}
        (Value::Object(told), Value::Object(real)) => {
            let keys: BTreeSet<&String> = told.keys().chain(real.keys()).collect();
            for key in keys {
                let at = format!("{at}.{key}");
                match (told.get(key), real.get(key)) {
                    (Some(told), Some(real)) => differences(&at, told, real, wrong),
                    (None, _) => wrong.push(format!("{at} is not documented")),
                    (_, None) => wrong.push(format!("{at} is documented and not there")),
                }
            }
        }
        (Value::Array(told), Value::Array(real)) => {
            if let (Some(told), Some(real)) = (told.first(), real.first()) {
                differences(&format!("{at}[]"), told, real, wrong);
            }
        }
        _ if std::mem::discriminant(told) == std::mem::discriminant(real) => {}
        _ => wrong.push(format!("{at} is {real}, documented as {told}")),
    }
}

#[track_caller]
fn is_as_documented(told: &Value, real: &Value) {
    let mut wrong = Vec::new();
    differences("", told, real, &mut wrong);
    let listed = told.as_array().is_some_and(|told| !told.is_empty());
    assert!(!listed || real.as_array().is_some_and(|real| !real.is_empty()), "an empty list");
    assert!(wrong.is_empty(), "{wrong:#?}\n{real:#}");
}

#[test]
fn every_example_of_the_documentation_runs_and_is_answered_as_shown() {
    let mut pair = Pair::mounted();
    pair.a.save("notes.txt", b"draft");
    pair.b.save("old.txt", b"old\n");
    pair.a.flush();
    pair.contest("notes.txt");
    pair.b.run(&["rm", "old.txt"]);
    pair.a.flush_with_conflicts();

    let socket = socket(&pair.a);
    let mut run_id = Value::Null;
    for Example { command, answer } in examples() {
        let ask = |command: &str| shell(&pair.a, &socket, command);
        let command = match command.contains("/unmount") {
            true => continue, // Last, below.
            false => command.replace("/verify/5", &format!("/verify/{run_id}")),
        };
        if command.contains("/verify?") {
            pair.a.flush();
        }
        if command.contains("/verify/") {
            until("the verification is over", || ask(&command).contains("\"done\":true"));
        }
        let said = ask(&command);
        let Some(told) = answer else { continue };
        let real: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{command}: {e}: {said}"));
        println!("{command}\n{said}");
        is_as_documented(&told, &real);
        if told.get("exit").is_some() {
            assert_eq!(told, real, "{command}");
        }
        if real.get("run").is_some() {
            run_id = real["run"].clone();
        }
    }
    assert_eq!(shell(&pair.a, &socket, "curl -s --unix-socket $S -X POST http://localhost/unmount"), "{}\n");
    assert!(pair.a.ended().success());
    pair.a.start();
    pair.finish();
}

#[test]
fn every_route_is_documented_with_an_example() {
    for (method, route) in syncfs::api::ROUTES {
        let heading = |line: &str| line.starts_with(&format!("## {method} ")) && line.contains(route);
        assert!(API.lines().any(heading), "{method} {route} has no section");
        let path = route.strip_suffix('N').unwrap_or(route);
        let asked = format!("http://localhost{path}");
        assert!(*route == "/wait" || examples().iter().any(|e| e.command.contains(&asked)), "{route}");
    }
}

#[test]
fn every_field_of_the_status_is_explained() {
    let status = examples().into_iter().find_map(|e| e.answer.filter(|_| e.command.ends_with("/status")));
    let mut open = vec![(String::new(), status.expect("an example"))];
    while let Some((at, value)) = open.pop() {
        match value {
            Value::Object(fields) if at.is_empty() => open.extend(fields),
            Value::Object(fields) => {
                open.extend(fields.into_iter().map(|(key, value)| (format!("{at}.{key}"), value)));
            }
            _ => assert!(OPERATIONS.contains(&format!("`{at}`")), "{at} is not explained in operations.md"),
        }
    }
}

#[test]
fn metrics_are_as_prometheus_wants_them_and_documented() {
    let mut pair = Pair::mounted();
    pair.a.save("f", b"to be counted");
    pair.a.flush();
    pair.b.save("g", b"coming");
    pair.b.flush();
    pair.b.unmount();
    until("the peer is gone", || pair.a.status()["peer"]["connected"] == false);
    for up in [false, true] {
        let text = shell(&pair.a, &socket(&pair.a), "curl -s --unix-socket $S http://localhost/metrics");
        let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(families.len() > 20, "{text}");
        for family in families {
            let name = family.split(' ').next().unwrap();
            assert!(API.contains(&format!("`{name}`")), "{name} is not documented");
        }
        let figure = |line: &str| assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        figure(&format!("syncfs_peer_connected {}", u8::from(up)));
        figure("syncfs_files 2");
        figure("syncfs_changes_came_total{what=\"created\"} 1");
        figure("syncfs_changes_went_total{what=\"created\"} 1");
        match std::process::Command::new("promtool").arg("--version").output() {
            Ok(_) => {
                let socket = socket(&pair.a);
                shell(
                    &pair.a,
                    &socket,
                    "curl -s --unix-socket $S http://localhost/metrics | promtool check metrics",
                );
            }
            Err(_) => eprintln!("promtool is not installed: what it says of the metrics was not checked"),
        }
        if !up {
            pair.b.start();
            pair.a.flush();
        }
    }
    pair.finish();
}

#[test]
fn what_came_and_went_and_conflicted_is_told_on_both_sides() {
    let mut pair = Pair::mounted();
    pair.a.save("kept", b"one");
    pair.a.save("shared", b"draft");
    pair.a.flush();
    pair.a.save("kept", b"two");
    pair.a.flush();
    pair.a.run(&["mv", "kept", "moved"]);
    pair.a.flush();
    pair.a.run(&["rm", "moved"]);
    pair.a.flush();
    let log = |host: &Host, kind: &str| -> Vec<String> {
        let output = host.syncfs(&["log", "--json"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        let events = events.filter(|event| event["event"] == kind);
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or("-").to_owned();
        events.map(|e| ["file", "what", "from"].map(|key| text(&e, key)).join(" ")).collect()
    };
    let story =
        ["kept created -", "shared created -", "kept changed -", "moved renamed kept", "moved deleted -"];
    for (host, kind) in [(&pair.a, "went"), (&pair.b, "came")] {
        let mut told = log(host, kind);
        // Two files may go together, and a slow save in two parts.
        told.retain(|line| line != "shared changed -");
        told[..2].sort();
        told.dedup();
        assert_eq!(told, story, "{kind}");
    }
    assert_eq!((log(&pair.b, "went"), log(&pair.a, "came")), (vec![], vec![]));

    pair.contest("shared");
    let people = |host: &Host| String::from_utf8(host.syncfs(&["log"]).stdout).unwrap();
    let (a, b) = (people(&pair.a), people(&pair.b));
    assert!(a.contains("  disconnected  ") && a.matches("  connected  ").count() > 1, "{a}");
    assert!(a.contains("  conflict      shared; this host's version is shared.sync-conflict-"), "{a}");
    assert!(b.contains("  conflict      shared; the peer's version is shared.sync-conflict-"), "{b}");
    let copy = pair.a.ls().into_iter().find(|name| name.contains(".sync-conflict-")).expect("a copy");
    pair.a.run(&["rm", &copy]);
    pair.finish();
}

#[test]
fn who_follows_hears_what_comes_and_when_it_is_over() {
    let mut pair = Pair::mounted();
    let dir = pair.a.dir.to_str().unwrap().to_owned();
    let log = Program::start(pair.a.dir.parent().unwrap(), &[SYNCFS, "log", &dir, "--follow"]);
    assert!(log.line().contains("  connected  "));
    let watch = Program::start(pair.a.dir.parent().unwrap(), &[SYNCFS, "status", &dir, "--watch"]);
    assert!(watch.line().starts_with("state      "));
    pair.b.save("news", b"!");
    pair.b.flush();
    until("the news are told", || log.line().ends_with("  came          news, created"));
    pair.a.unmount();
    while log.last_line().is_some() {}
    let last = std::iter::from_fn(|| watch.last_line()).last().unwrap();
    assert!(last.ends_with("is not mounted any more"), "{last}");
    pair.a.start();
    pair.finish();
}

#[test]
fn a_browser_sees_and_changes_nothing() {
    let [port, _] = free_ports();
    let mut pair = Pair::new();
    pair.a.option("--http", Path::new(&format!("127.0.0.1:{port}")));
    pair.a.start();
    pair.b.start();
    pair.a.save("<b>bold", b"a name to be shown as it is");
    pair.a.flush();
    let curl = |words: &str| {
        let command = format!("curl -s -w '\n%{{http_code}} %{{content_type}}' --max-time 20 {words}");
        run(Path::new("/"), &["bash", "-c", &command])
    };
    let page = curl(&format!("http://127.0.0.1:{port}/"));
    assert!(page.starts_with("<!doctype html>") && page.ends_with("200 text/html; charset=utf-8"), "{page}");
    let status = curl(&format!("http://localhost:{port}/status"));
    assert!(status.contains("\"files\":1") && status.ends_with("200 application/json"), "{status}");
    assert!(curl(&format!("http://127.0.0.1:{port}/metrics")).contains("\nsyncfs_files 1\n"));
    let refused = curl(&format!("-H 'Host: evil.example' http://127.0.0.1:{port}/files"));
    assert!(!refused.contains("bold") && refused.contains("\n403 "), "{refused}");
    for method in ["POST", "DELETE", "PUT"] {
        let refused = curl(&format!("-X {method} http://127.0.0.1:{port}/unmount"));
        assert!(refused.contains("\n405 "), "{refused}");
    }
    pair.finish();
}

#[test]
fn others_are_shown_nothing_unless_that_is_meant() {
    let mut pair = Pair::new();
    pair.a.option("--http", Path::new("0.0.0.0:0"));
    let output = pair.a.mount_command().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--http-public"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    pair.a.option("--http", Path::new(&taken.local_addr().unwrap().to_string()));
    let output = pair.a.mount_command().output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't show the share at"));
    assert!(!mounted(&pair.a.dir));
}

#[test]
fn who_goes_takes_its_flush_along() {
    let mut pair = Pair::mounted();
    pair.b.kill();
    pair.a.save("f", b"for nobody");
    let socket = socket(&pair.a);
    // As long as the peer counts as connected a flush waits.
    let asked = "curl -s --max-time 0.2 --unix-socket $S -X POST http://localhost/flush; echo $?";
    let said = shell(&pair.a, &socket, asked);
    assert!(said.ends_with("28\n") || said.contains("\"exit\":5"), "{said}");
    assert_eq!(pair.a.status()["pending_files"], 1);
    pair.b.start();
    pair.finish();
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let pair = Pair::mounted();
    let socket = socket(&pair.a);
    for (words, status, exit, message) in [
        ("/reboot", 404, 1, "there is no /reboot here"),
        ("/flush", 405, 2, "/flush takes POST, not GET"),
        ("/status?colour=red", 400, 2, "has no parameter"),
        ("-X POST /pin", 400, 2, "needs the parameter name"),
        ("-X POST /flush?timeout_ms=soon", 400, 2, "timeout_ms"),
        ("-X POST /trash/restore?what=none", 404, 1, "is not in the trash"),
        ("/verify/99", 404, 1, "verification"),
    ] {
        let (options, target) = words.rsplit_once(' ').unwrap_or(("", words));
        let asked =
            format!("curl -s -w '%{{http_code}}' --unix-socket $S {options} 'http://localhost{target}'");
        let said = shell(&pair.a, &socket, &asked);
        let (body, code) = said.rsplit_once('\n').expect("a line and a code");
        let body: Value = serde_json::from_str(body).expect(body);
        assert_eq!((code, &body["exit"]), (status.to_string().as_str(), &exit.into()), "{words}: {body}");
        assert!(body["message"].as_str().unwrap().contains(message), "{words}: {body}");
    }
    pair.finish();
}
