//! The beginning of a session in which one side may lack what the other holds for known: a first meeting, a lost or
//! restored state.
//!
//! Both find out what they have in common (see [`survey`](crate::model::survey)): first, where they were together before,
//! files of the same id at the same versions; then names of the same size, and of these those of the same content. The latter
//! become one file under an id that both come to by themselves. What only one has is never read for that. All else is news, and goes the way of all news.
//!
//! Invariants: nothing is told before both have come to the same findings; a file that a program has open, or that has
//! changed since it was looked at, is no part of them here, and the peer is asked to tell of it; what both have is
//! durable here before the journal says so, and the peer's position is the last thing that it says.

use super::host::Host;
use crate::fs::replayer::Change;
use crate::fs::volume::Ino;
use crate::model::codec;
use crate::model::file::File;
use crate::model::first::FirstSync;
use crate::model::ids::{FileId, LogPosition, WriterId};
use crate::model::limits::ACKS;
use crate::model::message::{Begin, Message};
use crate::model::name::Name;
use crate::model::record::{CutMark, Merge, Record};
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::model::survey::{Answer, Entry, Found, Met, Survey};
use crate::model::version::Version;
use crate::store::{self, At};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Files dealt with in one record.
const BATCH: usize = 4096;
/// Bytes read at once where content is digested.
const READ: usize = 1 << 20;

/// A meeting under way.
pub(super) struct Meeting {
    ours: Begin,
    theirs: Begin,
    next: Step,
    /// The peer's answers that came before this side was ready for them.
    early: Option<Vec<Answer>>,
    /// Files that the peer, which is through with it, wants to hear of.
    asked: BTreeSet<FileId>,
    /// The versions of the files when they were first looked at.
    seen: BTreeMap<FileId, (Version, Version)>,
    /// Files that both know, at the same versions.
    known: BTreeSet<FileId>,
    /// Files whose names and sizes both have: only of these the content is looked at.
    alike: BTreeSet<FileId>,
    /// Files whose names both have for something else.
    contested: Vec<Met>,
}

/// What comes next.
enum Step {
    /// To hold nothing for known to the peer any more.
    Part,
    Look(About),
    /// The peer's answers are awaited.
    Hear(About, Survey),
    Conclude(Found),
}

/// What the two sides compare.
#[derive(Clone, Copy, PartialEq)]
enum About {
    /// Which files are known to both.
    Versions,
    /// Which of the others are as long as the other side's of the same name.
    Sizes,
    /// Which of those have the same content.
    Content,
}

impl Meeting {
    /// How the two become one, where neither has met the other.
    fn first(&self) -> Option<FirstSync> {
        (!self.ours.met && !self.theirs.met).then_some(self.ours.first)
    }

    /// Does what can be done before the peer is heard again. True where all is done.
    fn go_on(&mut self, host: &Host) -> Result<bool, Trouble> {
        loop {
            match &mut self.next {
                Step::Part => {
                    self.seen = host.part()?;
                    let met = self.ours.met && self.theirs.met;
                    self.next = Step::Look(if met { About::Versions } else { About::Sizes });
                }
                Step::Look(about) => {
                    let about = *about;
                    let survey = host.look(self, about)?;
                    self.ask(host, about, survey);
                }
                Step::Hear(..) => match self.early.take() {
                    Some(answers) => self.compare(host, answers)?,
                    None => return Ok(false),
                },
                Step::Conclude(found) => {
                    let found = std::mem::take(found);
                    if let Err(error) = host.conclude_meeting(self, &found) {
                        self.next = Step::Conclude(found);
                        return Err(error.into());
                    }
                    return Ok(true);
                }
            }
        }
    }

    /// Answers the next questions, or sees what the survey has found.
    fn ask(&mut self, host: &Host, about: About, mut survey: Survey) {
        if let Some(answers) = survey.answers() {
            host.tell(Message::Survey { nonce: self.ours.nonce, answers });
            self.next = Step::Hear(about, survey);
            return;
        }
        let found = survey.finish();
        self.next = match about {
            About::Versions => {
                self.known = found.equal.into_iter().map(|met| met.file).collect();
                Step::Look(About::Sizes)
            }
            About::Sizes => {
                self.alike = found.equal.into_iter().map(|met| met.file).collect();
                self.contested = found.contested;
                Step::Look(About::Content)
            }
            About::Content => {
                let contested = [std::mem::take(&mut self.contested), found.contested].concat();
                Step::Conclude(Found { contested, ..found })
            }
        };
    }

    /// The peer's answers to the questions that both were at.
    fn compare(&mut self, host: &Host, answers: Vec<Answer>) -> Result<(), Trouble> {
        if let Step::Hear(about, mut survey) = std::mem::replace(&mut self.next, Step::Part) {
            survey.compare(answers).map_err(Trouble::Peer)?;
            self.ask(host, about, survey);
        }
        Ok(())
    }
}

/// Why a meeting does not go on.
enum Trouble {
    /// The peer says what no peer would.
    Peer(&'static str),
    Disk(store::Error),
}

impl From<store::Error> for Trouble {
    fn from(error: store::Error) -> Trouble {
        Trouble::Disk(error)
    }
}

impl Host {
    /// Both sides have said how they begin.
    pub(super) fn begin(self: &Arc<Self>, meeting: &mut Option<Meeting>, ours: Begin, theirs: Begin) {
        *meeting = None;
        if !ours.anew && !theirs.anew {
            return self.begun(ours.nonce, Vec::new());
        }
        let unmet = !ours.met && !theirs.met;
        if unmet && ours.first.from_the_peer() != theirs.first {
            return self.distrust(&ours.first.disagreement(theirs.first.word()));
        }
        *meeting = Some(Meeting {
            ours,
            theirs,
            next: Step::Part,
            early: None,
            asked: BTreeSet::new(),
            seen: BTreeMap::new(),
            known: BTreeSet::new(),
            alike: BTreeSet::new(),
            contested: Vec::new(),
        });
        self.meet(meeting);
    }

    /// The peer answers the questions of the session that it began with `nonce`.
    pub(super) fn surveyed(
        self: &Arc<Self>,
        meeting: &mut Option<Meeting>,
        nonce: u64,
        answers: Vec<Answer>,
    ) {
        let Some(present) = meeting.as_mut().filter(|m| m.theirs.nonce == nonce) else { return };
        if present.early.replace(answers).is_some() {
            *meeting = None;
            return self.distrust("the peer answers what it was not asked");
        }
        self.meet(meeting);
    }

    /// The peer wants to hear of `file`, which it may have come to know in this very meeting.
    pub(super) fn tell_again(&self, meeting: &mut Option<Meeting>, file: FileId) {
        match meeting {
            Some(present) if present.asked.len() < ACKS => _ = present.asked.insert(file),
            Some(_) => {}
            None => self.tell_anew(file),
        }
    }

    /// Goes on with the meeting, if there is one. What the disk refuses is tried again.
    pub(super) fn meet(self: &Arc<Self>, meeting: &mut Option<Meeting>) {
        let Some(present) = meeting else { return };
        match present.go_on(self) {
            Ok(false) => {}
            Ok(true) => {
                let asked = std::mem::take(&mut present.asked);
                *meeting = None;
                asked.into_iter().for_each(|file| self.tell_anew(file));
            }
            Err(Trouble::Peer(why)) => {
                *meeting = None;
                self.distrust(why);
            }
            Err(Trouble::Disk(error)) => {
                tracing::error!("what is here can't be compared with what the peer has yet: {error}");
                self.try_again_later();
            }
        }
    }

    /// From here on both tell what the other lacks, in the session that was begun with `nonce`. Files that are `losing`
    /// their names come when they have others.
    fn begun(&self, nonce: u64, losing: Vec<FileId>) {
        if !self.outbound_up(nonce, losing) {
            return;
        }
        self.ask_for_certainty();
        self.fetch_up();
        self.moved();
    }

    /// Gives every file a version that the survey can speak of, and holds none for known to the peer. Returns the
    /// versions.
    fn part(&self) -> store::Result<BTreeMap<FileId, (Version, Version)>> {
        let files: Vec<FileId> = self.share.lock().ids().collect();
        let mut seen = BTreeMap::new();
        for batch in files.chunks(BATCH) {
            let mut share = self.share.lock();
            let mut marks = Vec::new();
            for &file in batch {
                let Some(f) = share.file(file).filter(|f| f.name.is_some()) else { continue };
                // Whoever changes it from here on has a node before the change is in the journal.
                if !f.is_plain() || self.stays_here(&f) || self.nodes.find(file).is_some() {
                    continue;
                }
                let Some(name) = f.name.as_ref() else { continue };
                if f.is_fresh()
                    && let Ok(stat) = self.backing.stat(At::Name(name))
                {
                    let mtime = stat.mtime.nanoseconds();
                    let (place, body, stamp) = (f.place_is_fresh(), f.body_is_fresh(), f.next_stamp(mtime));
                    marks.push(CutMark { file, place, body, stamp, mtime });
                }
            }
            if !marks.is_empty() {
                let seq = share.header().head + 1;
                self.commit(&mut share, Record::Cut { seq, marks })?;
            }
            let versions = |f: &File| (f.place.clone(), f.body.clone());
            let settled = batch.iter().filter_map(|id| Some((*id, share.file(*id)?)));
            seen.extend(settled.filter(|(_, f)| !f.is_fresh()).map(|(id, f)| (id, versions(&f))));
        }
        let mut share = self.share.lock();
        if !planted(Bug::TrustOldThanks) {
            let seq = share.header().head + 1;
            self.commit(&mut share, Record::Parted { seq })?;
        }
        Ok(seen)
    }

    /// Looks at all that the sides compare next.
    fn look(&self, meeting: &Meeting, about: About) -> store::Result<Survey> {
        let files: Vec<(FileId, Name)> = {
            let share = self.share.lock();
            let compared = |id: &FileId| match about {
                About::Versions => true,
                About::Sizes => !meeting.known.contains(id),
                About::Content => meeting.alike.contains(id),
            };
            let compared =
                share.names().filter(|(_, id)| compared(id) && !self.stays_here_by_id(&share, *id));
            compared.map(|(name, id)| (id, name)).collect()
        };
        let mut entries = Vec::with_capacity(files.len());
        let mut scratch = Vec::new();
        for (file, name) in files {
            let (stamp, size, versions) = {
                let share = self.share.lock();
                let Some(f) = share.file(file) else { continue };
                (
                    f.stamp,
                    f.size,
                    meeting.seen.get(&file).filter(|seen| is_as_seen(&share, file, &name, seen)),
                )
            };
            let (what, attrs) = match (versions, about) {
                (None, _) => (None, 0),
                (Some(versions), About::Versions) => {
                    (Some(Sha256::digest(codec::encode(&(file, versions))).into()), 0)
                }
                (Some(_), About::Sizes) => (Some(Sha256::digest(size.to_le_bytes()).into()), 0),
                (Some(_), About::Content) => {
                    match self.digest_file(&name, meeting.ours.owner && meeting.theirs.owner, &mut scratch) {
                        Ok((what, attrs)) => (Some(what), attrs),
                        Err(error) => {
                            tracing::warn!("{name} can't be compared with the peer's: {error}");
                            (None, 0)
                        }
                    }
                }
            };
            entries.push((file, Entry { name, what, attrs, stamp }));
            if self.session.lock().is_none() {
                // Over: nobody wants to know any more.
                break;
            }
        }
        Ok(Survey::new(self.identity.replica.0, entries))
    }

    /// Digests of the content that lies under `name`, and of its attributes, `owners` among them where both keep these.
    fn digest_file(
        &self,
        name: &Name,
        owners: bool,
        scratch: &mut Vec<u8>,
    ) -> store::Result<([u8; 32], u64)> {
        let wrap = |source| store::Error::Io { what: format!("reading {name}"), source };
        let file = self.backing.open_file(At::Name(name), false)?;
        let mut attrs = store::read_attrs(&file).map_err(wrap)?;
        if !owners {
            (attrs.uid, attrs.gid) = (0, 0);
        }
        scratch.resize(READ, 0);
        let (mut hasher, mut at) = (Sha256::new(), 0);
        loop {
            let len = file.read_full_at(scratch, at).map_err(wrap)?;
            hasher.update(&scratch[..len]);
            at += len as u64;
            if len < READ {
                break;
            }
        }
        Ok((hasher.finalize().into(), xxhash_rust::xxh3::xxh3_64(&codec::encode(&attrs))))
    }

    /// Notes what both have; everything else is told.
    fn conclude_meeting(&self, meeting: &Meeting, found: &Found) -> store::Result<()> {
        let peer = self.session.lock().as_ref().map(|s| s.peer.replica);
        let Some(peer) = peer else { return Ok(()) };
        // What is known to both needs no second copy to be safe, but it needs one here.
        self.backing.sync_all()?;
        let id = both(meeting, self.identity.replica.0, peer.0);
        let ours_wins = |met: &Met, stamp: i64| {
            let by_stamp = (stamp, self.identity.replica) > (met.stamp, peer);
            let by_first = || meeting.first().and_then(FirstSync::prefers_ours);
            self.options.direction.prefers_ours().or_else(by_first).unwrap_or(by_stamp)
        };
        let _gate = self.applying.read();
        let _names = self.names.write();
        let mut declined = Vec::new();
        let mut merges = Vec::new();
        let share = self.share.lock();
        for (n, met) in found.equal.iter().enumerate() {
            let into = FileId { writer: id, counter: n as u64 + 1 };
            let seen = meeting.seen.get(&met.file);
            let as_seen = seen.is_some_and(|seen| is_as_seen(&share, met.file, &met.name, seen));
            if (!as_seen || self.nodes.find(met.file).is_some()) && !planted(Bug::MergeUnseen) {
                declined.push(into);
                continue;
            }
            let stamp = share.file(met.file).map_or(0, |f| f.stamp);
            merges.push(Merge { file: met.file, into, attrs: !met.same_attrs && ours_wins(met, stamp) });
        }
        drop(share);
        let mut gone = Vec::new();
        if meeting.first() == Some(FirstSync::MirrorPeer) {
            let kept = found.equal.iter().map(|met| met.file).chain(merges.iter().map(|m| m.into));
            gone = self.discard(&kept.chain(declined.iter().copied()).collect())?;
        }
        let mut share = self.share.lock();
        let known: Vec<FileId> = meeting.known.iter().copied().collect();
        for files in known.chunks(BATCH) {
            self.commit(&mut share, Record::Known { files: files.to_vec() })?;
        }
        for files in merges.chunks(BATCH) {
            self.commit(&mut share, Record::Merged { files: files.to_vec() })?;
        }
        let prefers_ours = meeting.first().and_then(FirstSync::prefers_ours) == Some(true);
        for met in found.contested.iter().filter(|_| prefers_ours) {
            let Some(stamp) = share.file(met.file).map(|f| f.stamp) else { continue };
            if stamp <= met.stamp {
                self.commit(&mut share, Record::Stamped { file: met.file, stamp: met.stamp + 1 })?;
            }
        }
        // What no peer ever had is another file than the peer's.
        let own = |f: &File| f.base.is_empty() && !f.is_fresh();
        let loses = |met: &&Met| share.file(met.file).is_some_and(|f| own(&f) && !ours_wins(met, f.stamp));
        let losing = found.contested.iter().filter(loses).map(|met| met.file).collect();
        let (ours, theirs): (LogPosition, LogPosition) = (meeting.ours.head, meeting.theirs.head);
        self.commit(&mut share, Record::Met { peer, ours, theirs })?;
        drop(share);
        drop(_names);
        tracing::info!(
            "met replica {}: {} files known to both, {} equal, {} different under one name",
            peer.short(),
            known.len(),
            merges.len(),
            found.contested.len()
        );
        for (name, ino) in &gone {
            self.kernel.inval_entry(name.as_bytes());
            self.kernel.changed(Change::Deleted(name.as_bytes().to_vec(), *ino));
        }
        self.journal.sync(self.journal.end())?;
        self.begun(meeting.ours.nonce, losing);
        declined.into_iter().for_each(|file| self.tell(Message::Tell { file }));
        Ok(())
    }

    /// This side becomes as the peer is: what it has beside `kept` goes into the trash. Returns the names and what they led to. Whoever comes
    /// back here after a crash finds a file under its name and in the journal, or neither: what is in the trash the journal
    /// knows nothing of.
    fn discard(&self, kept: &BTreeSet<FileId>) -> store::Result<Vec<(Name, Ino)>> {
        let others: Vec<(FileId, Name, bool)> = {
            let share = self.share.lock();
            let others =
                share.names().filter(|(_, id)| !kept.contains(id) && !self.stays_here_by_id(&share, *id));
            others.map(|(name, id)| (id, name, share.file(id).is_some_and(|f| f.partial))).collect()
        };
        let mut gone = Vec::with_capacity(others.len());
        for (file, name, partial) in others {
            match partial {
                true => self.backing.unlink_if_there(At::Partial(file))?,
                false => match self.trash.take(&self.backing, At::Name(&name), file, &name) {
                    Err(error) if error.is_not_found() => {}
                    done => done?,
                },
            }
            let mut share = self.share.lock();
            gone.push((name, share.ino(file)));
            self.commit(&mut share, Record::Forgotten { file })?;
        }
        if !gone.is_empty() {
            tracing::warn!(
                "this side becomes as the peer is: {} files went into .syncfs/trash; syncfs trash list shows them",
                gone.len()
            );
        }
        Ok(gone)
    }
}

/// Whether nothing has happened to a file since its versions were `seen`.
fn is_as_seen(share: &Share, file: FileId, name: &Name, seen: &(Version, Version)) -> bool {
    let same = |f: &File| (&f.place, &f.body) == (&seen.0, &seen.1);
    let plain = |f: &File| f.is_plain() && !f.is_fresh();
    share.file(file).is_some_and(|f| f.name.as_ref() == Some(name) && same(&f) && plain(&f))
}

/// The writer under whose name both sides number what they have in common.
fn both(meeting: &Meeting, us: u128, peer: u128) -> WriterId {
    let mut sides = [(us, meeting.ours.nonce), (peer, meeting.theirs.nonce)];
    sides.sort_unstable();
    let digest = Sha256::digest(codec::encode(&sides));
    WriterId(u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes")))
}
