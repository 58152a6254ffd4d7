//! Comparing both sides from their disks; see [`verify`](crate::model::verify) for what is said.
//!
//! Invariants: all reading happens on a thread of its own, under no lock; nothing is changed but by [`mend`](super::mend), and
//! by that only where it was asked for; a file is said to differ only if neither side has changed it since the beginning.

use super::error::VerifyError;
use super::host::Host;
use super::verifying::{Differs, Heard, Report, Run};
use crate::model::codec;
use crate::model::cut::Attrs;
use crate::model::fileset::FileSet;
use crate::model::ids::{FileId, ReplicaId};
use crate::model::limits::{GROUP_BYTES, VERIFY_LOOKS};
use crate::model::message::Message;
use crate::model::name::Name;
use crate::model::survey::{Entry, Survey};
use crate::model::verify::{self, Descent, Difference, Look, Refusal, Sight, Word};
use crate::model::version::Version;
use crate::store::{self, At};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

/// Digests of a content's chunk groups.
type Groups = Vec<[u8; 32]>;

/// A file as the share has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub id: FileId,
    versions: (Version, Version),
    /// The peer has it as it is here.
    settled: bool,
    held: bool,
}

impl Host {
    /// Begins to compare both sides; with `repair`, what differs is mended. [`Host::verification`] says how it goes.
    ///
    /// # Errors
    /// Why it can't begin.
    pub fn verify(self: &Arc<Self>, repair: bool) -> Result<u64, VerifyError> {
        let nonce = self.random.lock()() as u64;
        self.may_verify()?;
        let (run, ear) = self.verifying.begin(nonce, true, repair).ok_or(VerifyError::Busy)?;
        self.tell(Message::Verify { nonce, word: Word::Begin { repair, owner: self.owner } });
        self.begin_verification(run, ear, None);
        Ok(nonce)
    }

    /// The verification of that number, if it is the last that was asked for here.
    pub fn verification(&self, nonce: u64) -> Option<Arc<Run>> {
        self.verifying.last().filter(|run| run.nonce == nonce)
    }

    fn may_verify(&self) -> Result<(), VerifyError> {
        if self.session.lock().is_none() || self.outbound.lock().session().is_none() {
            return Err(VerifyError::NotConnected);
        }
        match self.is_level() {
            true => Ok(()),
            false => Err(VerifyError::NotLevel(self.what_is_uneven())),
        }
    }

    /// What keeps the two sides from being level, for people.
    fn what_is_uneven(&self) -> String {
        let held = self.brake.lock().held();
        let share = self.share.lock();
        let of = |what: &str, files: &FileSet| {
            let name = |id| share.name(id).map(|name| name.to_string());
            let first: Vec<String> = files.iter().filter_map(name).take(3).collect();
            let more = if files.len() > first.len() { ", ..." } else { "" };
            (!files.is_empty()).then(|| format!("{}: {} ({}{more})", what, files.len(), first.join(", ")))
        };
        let paused = held.map(|n| format!("deletes of the peer that wait for syncfs resume: {n}"));
        let parts = [
            of("changed here and not yet on the peer", &self.to_tell(&share).collect()),
            of("content not yet here", share.lacking()),
            of("uncertain after power loss", share.unsettled()),
            paused,
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "changes are on their way".into() } else { parts.join("; ") }
    }

    /// The peer has something to say of the verification `nonce`.
    pub(super) fn hear_of_verification(self: &Arc<Self>, nonce: u64, word: Word) {
        match self.verifying.hear(nonce, word.clone()) {
            Heard::Taken => {}
            Heard::TooMuch => self.distrust("the peer says more of a verification than it can know"),
            Heard::Unknown => {
                let Word::Begin { repair, owner } = word else { return };
                let refuse = |why| self.tell(Message::Verify { nonce, word: Word::Refused(why) });
                if self.may_verify().is_err() {
                    return refuse(Refusal::NotLevel);
                }
                match self.verifying.begin(nonce, false, repair) {
                    None => refuse(Refusal::Busy),
                    Some((run, ear)) => {
                        self.tell(Message::Verify { nonce, word: Word::Begin { repair, owner: self.owner } });
                        self.begin_verification(run, ear, Some(owner));
                    }
                }
            }
        }
    }

    /// `owner`: as the peer said, if it has.
    fn begin_verification(self: &Arc<Self>, run: Arc<Run>, ear: Receiver<Word>, owner: Option<bool>) {
        let (host, this) = (self.clone(), run.clone());
        let work = move || {
            let peer = host.session.lock().as_ref().map(|s| s.peer.replica);
            let outcome = match peer {
                Some(peer) => Verification::new(&host, &this, ear, peer).go(owner),
                None => Err(VerifyError::Disconnected),
            };
            match &outcome {
                Ok(report) => tracing::info!(
                    "verified {} files: {} differ from the peer's",
                    report.files,
                    report.differences.len()
                ),
                Err(error) => tracing::warn!("the two sides can't be verified: {error}"),
            }
            host.verifying.finish(&this, outcome);
            if !this.asked {
                host.tell(Message::Verify { nonce: this.nonce, word: Word::End });
            }
        };
        match std::thread::Builder::new().name("verify".into()).spawn(work) {
            Ok(thread) => self.verifying.done_by(thread),
            Err(error) => self.verifying.finish(&run, Err(VerifyError::Failed(error.to_string()))),
        }
    }

    /// What the share says of `name`.
    pub(super) fn state_of(&self, name: &Name) -> Option<State> {
        let share = self.share.lock();
        let id = share.named(name)?;
        let f = share.file(id)?;
        let held = f.is_whole() && !f.partial;
        let mapped = self.mapped.lock().contains(&id);
        let settled = f.is_thanked() && held && !f.unsettled && !mapped;
        Some(State { id, versions: (f.place.clone(), f.body.clone()), settled, held })
    }
}

impl State {
    /// Nobody has changed it since `before`, and the peer has it.
    pub fn is_steady(&self, before: Option<&State>) -> bool {
        self.settled && before.is_some_and(|b| (b.id, &b.versions) == (self.id, &self.versions))
    }
}

/// One side's part in a verification.
pub(super) struct Verification<'a> {
    pub host: &'a Host,
    pub run: &'a Run,
    ear: Receiver<Word>,
    /// The replica on the other side.
    pub peer: ReplicaId,
    /// Both keep owner and group.
    owner: bool,
    /// The files as they were at the beginning.
    pub seen: BTreeMap<Name, State>,
    report: Report,
}

impl<'a> Verification<'a> {
    fn new(host: &'a Host, run: &'a Run, ear: Receiver<Word>, peer: ReplicaId) -> Verification<'a> {
        Verification { host, run, ear, peer, owner: false, seen: BTreeMap::new(), report: Report::default() }
    }

    fn go(mut self, owner: Option<bool>) -> Result<Report, VerifyError> {
        let owner = match owner {
            Some(owner) => owner,
            None => match self.hear()? {
                Word::Begin { owner, .. } => owner,
                Word::Refused(Refusal::Busy) => return Err(VerifyError::Busy),
                Word::Refused(Refusal::NotLevel) => return Err(VerifyError::PeerNotLevel),
                _ => return Err(self.nonsense("the peer begins a verification with something else")),
            },
        };
        self.owner = owner && self.host.owner;
        let suspects = self.survey()?;
        for names in suspects.chunks(VERIFY_LOOKS) {
            self.look_closer(names)?;
        }
        if self.run.asked && self.hear()? != Word::End {
            return Err(self.nonsense("the peer has more to say of a verification than there is"));
        }
        Ok(self.report)
    }

    pub(super) fn say(&self, word: Word) {
        self.host.tell(Message::Verify { nonce: self.run.nonce, word });
    }

    pub(super) fn hear(&self) -> Result<Word, VerifyError> {
        self.ear.recv().map_err(|_| VerifyError::Disconnected)
    }

    /// Ends the session of a peer that says what no peer would.
    pub(super) fn nonsense(&self, why: &'static str) -> VerifyError {
        self.host.distrust(why);
        VerifyError::Disconnected
    }

    /// Reads everything and finds the names worth another look, in order.
    fn survey(&mut self) -> Result<Vec<Name>, VerifyError> {
        let names: Vec<(Name, u64)> = {
            let share = self.host.share.lock();
            let size = |id| share.file(id).map_or(0, |f| f.size);
            let told = share.names().filter(|(_, id)| !self.host.stays_here_by_id(&share, *id));
            told.map(|(name, id)| (name, size(id))).collect()
        };
        self.report.files = names.len() as u64;
        self.report.bytes = names.iter().map(|name| name.1).sum();
        self.run.bytes.store(self.report.bytes, Ordering::Relaxed);
        let mut entries = Vec::with_capacity(names.len());
        for (name, _) in names {
            let Some(state) = self.host.state_of(&name) else { continue };
            self.seen.insert(name.clone(), state.clone());
            let (what, attrs) = match self.look(&name)?.0 {
                Look::Is(sight) if sight.steady => (Some(sight.content), sight.attrs),
                _ => (None, 0),
            };
            entries.push((state.id, Entry { name, what, attrs, stamp: 0 }));
        }
        let mut survey = Survey::of_all(self.host.identity.replica.0, entries);
        while let Some(answers) = survey.answers() {
            self.say(Word::Names(answers));
            let Word::Names(theirs) = self.hear()? else {
                return Err(self.nonsense("the peer speaks of something else than names"));
            };
            survey.compare(theirs).map_err(|why| self.nonsense(why))?;
        }
        let found = survey.finish();
        let changed = found.equal.into_iter().filter(|met| !met.same_attrs);
        let both = found.contested.into_iter().chain(changed).map(|met| met.name);
        let suspects: BTreeSet<Name> = both.chain(found.alone).collect();
        Ok(suspects.into_iter().collect())
    }

    /// Both look at these once more, and find out how they differ.
    fn look_closer(&mut self, names: &[Name]) -> Result<(), VerifyError> {
        let mut ours = Vec::with_capacity(names.len());
        for name in names {
            ours.push(self.look(name)?);
        }
        self.say(Word::Looks(ours.iter().map(|look| look.0.clone()).collect()));
        let theirs = match self.hear()? {
            Word::Looks(theirs) if theirs.len() == names.len() => theirs,
            _ => return Err(self.nonsense("the peer looks at other files than were found")),
        };
        let mut found = Vec::new();
        let mut deeper = Vec::new();
        for ((name, (ours, groups)), theirs) in names.iter().zip(ours).zip(theirs) {
            let Some(how) = verify::compare(&ours, &theirs) else { continue };
            if let (Difference::Content(_), Look::Is(theirs)) = (&how, &theirs) {
                deeper.push((groups, verify::groups(theirs.size)));
            }
            let differs = Differs { name: name.clone(), how, repaired: false, copied: false };
            found.push((differs, ours, theirs));
        }
        let mut descent = Descent::new(deeper);
        while let Some(answers) = descent.answers() {
            self.say(Word::Groups(answers));
            let Word::Groups(theirs) = self.hear()? else {
                return Err(self.nonsense("the peer speaks of something else than chunk groups"));
            };
            descent.compare(&theirs).map_err(|why| self.nonsense(why))?;
        }
        let mut groups = descent.finish().into_iter();
        for (differs, ..) in &mut found {
            if let Difference::Content(differ) = &mut differs.how {
                *differ = groups.next().unwrap_or_default();
            }
        }
        if self.run.repair && !found.is_empty() {
            self.mend(&mut found)?;
        }
        self.report.differences.extend(found.into_iter().map(|found| found.0));
        Ok(())
    }

    /// What lies under `name` now.
    ///
    /// # Errors
    /// Nobody wants to know any more.
    fn look(&self, name: &Name) -> Result<(Look, Groups), VerifyError> {
        let Some(before) = self.host.state_of(name) else { return Ok((Look::Absent, Groups::new())) };
        if !before.held {
            return Ok((Look::NotHeld, Groups::new()));
        }
        let read = self.read(name)?;
        let after = self.host.state_of(name);
        let steady = after.is_some_and(|state| state == before && state.is_steady(self.seen.get(name)));
        Ok(match read {
            Ok(Some((sight, groups))) => (Look::Is(Sight { steady, ..sight }), groups),
            Ok(None) => (Look::Changing, Groups::new()),
            // A change of the peer hides a file while it is made.
            Err(_) if !steady => (Look::Changing, Groups::new()),
            Err(error) => {
                tracing::error!("{name} can't be verified: {error}");
                (Look::Unreadable, Groups::new())
            }
        })
    }

    /// Reads a file from the disk; `None` where it was changed meanwhile.
    fn read(&self, name: &Name) -> Result<store::Result<Option<(Sight, Groups)>>, VerifyError> {
        let wrap = |source| store::Error::Io { what: format!("reading {name}"), source };
        let opened = self.host.backing.open_file(At::Name(name), false);
        let opened = opened.and_then(|file| Ok((store::read_attrs(&file).map_err(wrap)?, file)));
        let (before, file) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let (mut groups, mut bytes) = (Groups::new(), vec![0; GROUP_BYTES as usize]);
        let mut at = 0;
        loop {
            if self.run.has_ended() {
                return Err(VerifyError::Disconnected);
            }
            let len = match file.read_full_at(&mut bytes, at) {
                Ok(len) => len,
                Err(error) => return Ok(Err(wrap(error))),
            };
            if len > 0 {
                groups.push(Sha256::digest(&bytes[..len]).into());
            }
            at += len as u64;
            self.run.read.fetch_add(len as u64, Ordering::Relaxed);
            if len < bytes.len() {
                break;
            }
        }
        let after = match store::read_attrs(&file) {
            Ok(after) => after,
            Err(error) => return Ok(Err(wrap(error))),
        };
        if after != before || at != after.size {
            return Ok(Ok(None));
        }
        let sight = Sight {
            steady: false,
            size: at,
            mtime: after.mtime,
            content: verify::root(at, &groups),
            attrs: self.digest(after),
        };
        Ok(Ok(Some((sight, groups))))
    }

    /// Digest of what of the attributes is the same on both sides.
    fn digest(&self, attrs: Attrs) -> u64 {
        let (uid, gid) = if self.owner { (attrs.uid, attrs.gid) } else { (0, 0) };
        xxhash_rust::xxh3::xxh3_64(&codec::encode(&Attrs { size: 0, uid, gid, ..attrs }))
    }
}
