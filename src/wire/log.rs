//! Complaints that are worth one line a minute, not one a retry.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(60);
/// Distinct complaints remembered: many hosts that knock must not fill memory or disk.
const REMEMBERED: usize = 256;

/// Remembers what was complained of lately.
#[derive(Default)]
pub struct Complaints(Mutex<HashMap<String, Instant>>);

impl Complaints {
    /// Whether `text` should be logged now: the first time, and then once a minute.
    pub fn due(&self, text: &str) -> bool {
        let mut said = self.0.lock();
        let now = Instant::now();
        if said.len() >= REMEMBERED {
            said.retain(|_, at| now.duration_since(*at) < EVERY);
        }
        match said.get(text) {
            Some(at) if now.duration_since(*at) < EVERY => false,
            None if said.len() >= REMEMBERED => false,
            _ => {
                said.insert(text.to_owned(), now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cause_is_told_once_a_minute_and_many_causes_fill_nothing() {
        let complaints = Complaints::default();
        assert!(complaints.due("a") && !complaints.due("a") && complaints.due("b"));
        tokio::time::advance(EVERY).await;
        assert!(complaints.due("a"));
        for n in 0..10_000 {
            complaints.due(&n.to_string());
        }
        assert_eq!(complaints.0.lock().len(), REMEMBERED);
    }
}
