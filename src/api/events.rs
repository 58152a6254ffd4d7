//! `GET /events`: what happens, as server-sent events: first what is remembered, then what comes.
//!
//! Invariants: nobody who tells waits for who reads. Of what a slow reader did not take in time it learns how much it was
//! (`missed`), and goes on with what is left.

use super::answer::{Answer, stream};
use super::share::Share;
use crate::engine::Host;
use crate::engine::events::Event;
use hyper::body::Bytes;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long a reader hears nothing at most; so it is noticed when it has gone.
const STILL_HERE: Duration = Duration::from_secs(15);

/// Events that are written down before the reader has taken those before.
const AT_A_TIME: usize = 64;

impl Share {
    /// The events after number `after`, without one all that are remembered; and, where `follow`, those to come.
    pub(super) async fn events(&self, mut after: Option<u64>, follow: bool) -> Answer {
        let (mut reader, response) = stream("text/event-stream");
        let (host, mut over) = (self.host.clone(), self.over.clone());
        tokio::spawn(async move {
            let mut news = host.events().news();
            loop {
                news.mark_unchanged();
                let text = next(&host, &mut after);
                let level = text.is_empty();
                if !level && reader.send_data(Bytes::from(text)).await.is_err() {
                    return;
                }
                if level && !follow {
                    return;
                }
                if level {
                    tokio::select! {
                        _ = news.changed() => {}
                        _ = async { over.wait_for(Option::is_some).await.is_ok() } => return,
                        () = tokio::time::sleep(STILL_HERE) => {
                            if reader.send_data(Bytes::from_static(b": still here\n\n")).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            }
        });
        Ok(response)
    }
}

/// The next events after number `after`, which moves on; nothing where there are none.
fn next(host: &Arc<Host>, after: &mut Option<u64>) -> String {
    let (missed, events) = host.events().after(*after);
    let mut text = String::new();
    if missed > 0 {
        text.push_str(&format!("event: missed\ndata: {}\n\n", json!({"event": "missed", "missed": missed})));
    }
    for event in events.iter().take(AT_A_TIME) {
        text.push_str(&written(event));
        *after = Some(event.number);
    }
    text
}

fn written(event: &Event) -> String {
    let data = serde_json::to_value(event).expect("events have text keys only");
    let kind = data["event"].as_str().expect("every event has its kind");
    format!("id: {}\nevent: {kind}\ndata: {data}\n\n", event.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::events::Told;

    #[test]
    fn an_event_is_one_line_of_json_whatever_it_is_about() {
        let told = Told::Disconnected { reason: "broken\n\ndata: pipe".into() };
        let text = written(&Event { number: 7, time_ms: 1_700_000_000_000, told });
        let (head, data) = text.split_once("data: ").unwrap();
        assert_eq!(head, "id: 7\nevent: disconnected\n");
        let data: serde_json::Value = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
        assert_eq!(
            data,
            json!({"number": 7, "time_ms": 1_700_000_000_000u64, "event": "disconnected", "reason": "broken\n\ndata: pipe"})
        );
        assert_eq!(text.matches('\n').count(), 4);
    }
}
