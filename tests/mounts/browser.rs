//! A headless Chromium, driven over its DevTools protocol: what somebody sees who opens a page.
//!
//! Invariants: it knows no profile but one of its own, which goes with it; what the page asked for and what went wrong in it
//! is kept, from before it was opened.

use crate::rig::{PATIENCE, run};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// What it is called, by who packages it.
const NAMES: [&str; 3] = ["chromium", "google-chrome", "chrome"];

/// It is spoken to through descriptors 3 and 4.
const START: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// One browser with one page.
pub struct Browser {
    process: Child,
    words: ChildStdin,
    /// Answers and events, as they come.
    heard: Receiver<Value>,
    events: Vec<Value>,
    asked: u64,
    session: Value,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None`, and a word of it, where there is none.
    pub fn start() -> Option<Browser> {
        let runs = |name: &str| {
            let version = Command::new(name).arg("--version").stderr(Stdio::null()).output();
            version.is_ok_and(|output| output.status.success())
        };
        let Some(name) = NAMES.into_iter().find(|name| runs(name)) else {
            eprintln!("not tested: there is no browser here (Debian: chromium)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", START, name, "--headless", "--remote-debugging-pipe", "--no-first-run"]);
        command.args([
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.env("HOME", profile.path()).env("LC_ALL", "C.UTF-8");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let words = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, heard) = channel();
        std::thread::spawn(move || {
            let messages = answers.split(0).map_while(Result::ok);
            messages.map(|text| serde_json::from_slice(&text).expect("JSON")).try_for_each(|m| sender.send(m))
        });
        let (events, session) = (Vec::new(), Value::Null);
        let mut browser = Browser { process, words, heard, events, asked: 0, session, _profile: profile };
        let page = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let attached =
            browser.ask("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    pub fn open(&mut self, address: &str) {
        let opened = self.ask("Page.navigate", json!({"url": address}));
        assert!(opened["errorText"].is_null(), "{opened}");
        self.until("the page is there", "document.readyState", |state| state == "complete");
    }

    /// Of the window, in pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", size);
    }

    /// What the user likes: `light` or `dark`.
    pub fn prefers(&mut self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.ask("Emulation.setEmulatedMedia", json!({"features": [feature]}));
    }

    /// What `expression` of JavaScript is in the page.
    #[track_caller]
    pub fn look(&mut self, expression: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Looks until `done` says so.
    #[track_caller]
    pub fn until(&mut self, what: &str, expression: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let found = self.look(expression);
            if done(&found) {
                return found;
            }
            assert!(std::time::Instant::now() < deadline, "waited in vain: {what}; it is {found}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// All that the page asked for, by address.
    pub fn requests(&mut self) -> Vec<String> {
        self.look("0"); // What has happened is told before that is answered.
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// All that a developer would see in the console.
    pub fn complaints(&mut self) -> Vec<String> {
        self.look("0");
        let console = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
        let said = |event: &&Value| console.iter().any(|method| event["method"] == *method);
        self.events.iter().filter(said).map(Value::to_string).collect()
    }

    /// Keeps a picture of the whole page, where somebody wants to see it: `SYNCFS_PICTURES=DIRECTORY`.
    pub fn picture(&mut self, name: &str) {
        let Ok(dir) = std::env::var("SYNCFS_PICTURES") else { return };
        let picture = self.ask("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let base64 = Path::new(&dir).join(format!("{name}.base64"));
        std::fs::write(&base64, picture["data"].as_str().unwrap()).unwrap();
        run(Path::new(&dir), &["sh", "-c", &format!("base64 -d {name}.base64 >{name}.png")]);
        std::fs::remove_file(base64).unwrap();
    }

    #[track_caller]
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut words = json!({"id": self.asked, "method": method, "params": params});
        if !self.session.is_null() {
            words["sessionId"] = self.session.clone();
        }
        write!(self.words, "{words}\0").unwrap();
        loop {
            let heard = self.heard.recv_timeout(PATIENCE);
            let mut message = heard.unwrap_or_else(|e| panic!("the browser says nothing to {method}: {e}"));
            if message["id"] == self.asked {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
