//! What is told one by one: files, the trash, and what a verification found.

use super::answer::{Answer, Refusal, json, list};
use super::failure::{Exit, Failure};
use super::share::{A_MOMENT, Share};
use crate::engine::VerifyError;
use crate::engine::residency::Residency;
use crate::engine::verifying::Differs;
use crate::model::name::Name;
use crate::model::verify::Difference;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

/// Ranges of one file that differ and are told one by one.
pub const RANGES: usize = 64;

/// A file, and what of it is here.
#[derive(Serialize)]
struct Listed {
    name: String,
    #[serde(flatten)]
    residency: Residency,
}

impl Share {
    /// All files by name; each as it stands when its turn comes.
    pub(super) async fn files(&self) -> Answer {
        let names = self.on_host(|host| host.file_names()).await?;
        let host = self.host.clone();
        let listed = move |name: Name| {
            let residency = host.residency_of(&name)?;
            Some(Listed { name: name.to_string(), residency })
        };
        Ok(list(String::new(), names.into_iter().filter_map(listed), ""))
    }

    pub(super) async fn trash(&self) -> Answer {
        Ok(list(String::new(), self.on_host(|host| host.thrown()).await?.into_iter(), ""))
    }

    pub(super) async fn verify(&self, repair: bool) -> Answer {
        let begun = self.on_host(move |host| host.verify(repair)).await?;
        json(&json!({"run": begun.map_err(|error| self.unverified(&error))?}))
    }

    /// How far a verification is, after a moment; or what it came to.
    pub(super) async fn verified(&self, run: u64) -> Answer {
        let Some(run) = self.host.verification(run) else {
            return Err(Refusal::missing(
                "no such verification is known; of several only the last one's outcome is kept",
            ));
        };
        let _ = tokio::time::timeout(A_MOMENT, run.wait()).await;
        let Some(outcome) = run.outcome() else {
            let (read, bytes) = (run.read.load(Relaxed), run.bytes.load(Relaxed));
            return json(&json!({"done": false, "read": read, "bytes": bytes}));
        };
        let report = outcome.map_err(|error| self.unverified(&error))?;
        let before =
            format!(r#"{{"done":true,"files":{},"bytes":{},"differences":"#, report.files, report.bytes);
        let differences = (0..report.differences.len()).map(move |i| told(&report.differences[i]));
        Ok(list(before, differences, "}"))
    }

    fn unverified(&self, error: &VerifyError) -> Failure {
        let mount = self.mount.display();
        match error {
            VerifyError::NotLevel(_) | VerifyError::PeerNotLevel => Failure::new(
                Exit::TryAgain,
                format_args!(
                    "{mount}: {error}; wait until both sides are level, and verify then\n  syncfs flush {mount} && syncfs verify {mount}"
                ),
            ),
            VerifyError::Failed(_) => Failure::other(format_args!("{mount}: {error}")),
            _ => Failure::new(Exit::TryAgain, format_args!("{mount}: {error}; try again later")),
        }
    }
}

/// One difference.
pub fn told(differs: &Differs) -> Value {
    let what = match &differs.how {
        Difference::Content(_) => "content",
        Difference::Attributes => "attributes",
        Difference::OnlyHere => "only-here",
        Difference::OnlyThere => "only-there",
        Difference::Changing => "changing",
        Difference::NotHeldHere => "not-held-here",
        Difference::NotHeldThere => "not-held-there",
        Difference::UnreadableHere => "unreadable-here",
        Difference::UnreadableThere => "unreadable-there",
    };
    let (name, repaired, copied) = (differs.name.to_string(), differs.repaired, differs.copied);
    let mut told = json!({"name": name, "what": what, "repaired": repaired, "conflict_copy": copied});
    if let Difference::Content(groups) = &differs.how {
        let ranges: Vec<_> = groups.iter().take(RANGES).map(|g| json!([g.start, g.end - 1])).collect();
        told["groups"] = ranges.into();
        told["differing_groups"] = groups.len().into();
    }
    told
}
