//! Files that stay on this host, because `.syncfsignore` says so of their names.
//!
//! Invariants: what the peer has ever been told of does not stay here, whatever it is called, nor does what moves together with
//! such a file; so whether a file stays depends on nothing but the share and the patterns, and nothing is written down of it. As
//! long as it is not certain what the patterns are, everything stays that the peer was never told of.

use super::host::Host;
use super::queues::Trigger;
use crate::model::file::File;
use crate::model::ids::FileId;
use crate::model::ignore::{IGNORE_FILE, Patterns, ignore_file_name};
use crate::model::limits::IGNORE_BYTES;
use crate::model::name::Name;
use crate::model::share::Share;
use crate::store::{At, stamp};
use std::io;

impl Host {
    /// Whether the peer is not to hear of `file`.
    pub(super) fn stays_here(&self, file: &File) -> bool {
        stays_by(&self.patterns.read().0, file)
    }

    /// The same of the file `id`, if there is one.
    pub(super) fn stays_here_by_id(&self, share: &Share, id: FileId) -> bool {
        share.file(id).is_some_and(|file| self.stays_here(&file))
    }

    /// The files of which the peer lacks something that it is to have.
    pub(super) fn to_tell<'a>(&'a self, share: &'a Share) -> impl Iterator<Item = FileId> + 'a {
        share.unthanked().iter().filter(|id| !self.stays_here_by_id(share, *id))
    }

    /// Reads the patterns if they may have changed; then what need not stay any more is told.
    pub(super) fn look_at_patterns(&self) {
        if let Err(error) = self.try_look_at_patterns() {
            tracing::error!("{IGNORE_FILE} says what it said before: {error}");
        }
    }

    fn try_look_at_patterns(&self) -> io::Result<()> {
        let name = ignore_file_name();
        let is_plain = {
            let share = self.share.lock();
            share.named(&name).and_then(|id| share.file(id)).map(|file| !file.partial && !file.unsettled)
        };
        let found = match is_plain {
            // What it says has yet to come.
            Some(false) => {
                let mut patterns = self.patterns.write();
                if patterns.1.is_none() {
                    patterns.0 = Patterns::everything();
                }
                return Ok(());
            }
            Some(true) => match self.backing.stat(At::Name(&name)) {
                Ok(stat) => Some(stamp(&stat)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        if self.patterns.read().1 == Some(found) {
            return Ok(());
        }
        let text = found.map_or(Ok(Vec::new()), |_| self.text_of(&name))?;
        let (patterns, wrong) = Patterns::parse(&text);
        wrong.iter().for_each(|wrong| tracing::warn!("{IGNORE_FILE}, {wrong}"));
        let (before, _) = std::mem::replace(&mut *self.patterns.write(), (patterns, Some(found)));
        if before.match_anything() {
            let share = self.share.lock();
            let stayed = |id: &FileId| share.file(*id).is_some_and(|file| stays_by(&before, &file));
            for file in self.to_tell(&share).filter(stayed) {
                let _ = self.triggers.send(Trigger::Changed(vec![file], None));
            }
        }
        self.moved();
        Ok(())
    }

    /// One byte more than counts at most.
    fn text_of(&self, name: &Name) -> io::Result<Vec<u8>> {
        let file = self.backing.open_file(At::Name(name), false).map_err(io::Error::other)?;
        let mut text = vec![0; IGNORE_BYTES + 1];
        let mut length = 0;
        loop {
            match file.read_at(&mut text[length..], length as u64)? {
                0 => break,
                read => length += read,
            }
        }
        text.truncate(length);
        Ok(text)
    }
}

fn stays_by(patterns: &Patterns, file: &File) -> bool {
    let matches = || file.name.as_ref().is_some_and(|name| patterns.match_name(name));
    file.is_untold() && file.bond.is_none() && matches()
}
