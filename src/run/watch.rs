//! The process file, where it is to be read anew when it changes (`--watch-file`).
//!
//! Watched are the directories in which something can take its place, those of links on the way
//! to it too, and the file itself: editors, deploys, volumes and `>` each make another file of it
//! elsewhere. What happens there is a hint; what counts is whether the file is another one.
use super::options::{Stamp, Watched};
use crate::service::machine::Time;
use crate::sys::Result;
use crate::sys::token::Token;
use mio::Registry;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use std::mem::MaybeUninit;
use std::path::Path;

/// The changes have ceased when there is none for so long.
const QUIET_MS: u64 = 200;
/// No service has this id.
const TOKEN: Token = Token::Files(u32::MAX);
/// Room for what one read brings.
const EVENTS_BYTES: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct Watch {
    fd: OwnedFd,
    of: Watched,
    /// What it has become, and when that is read.
    changed: Option<(Stamp, Time)>,
}

impl Watch {
    /// Errors: EMFILE, ENOSPC: the user has no more of them.
    pub(super) fn new(of: Watched, registry: Option<&Registry>, now: Time) -> Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let real = of.path.canonicalize().unwrap_or_default();
        let links = of.path.ancestors().filter(|way| way.is_symlink());
        let directories = links.chain([&*of.path, &real]).filter_map(Path::parent);
        for place in directories.chain([&*real]).filter(|place| place.exists()) {
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, place, flags)?;
        }
        if let Some(registry) = registry {
            TOKEN.watch(registry, &fd)?;
        }
        let mut watch = Self { fd, of, changed: None };
        // It may be another one already than was read.
        watch.look(now);
        Ok(watch)
    }

    fn look(&mut self, now: Time) {
        let found = self.of.found().filter(|found| Some(*found) != self.of.read);
        if found != self.changed.map(|(known, _)| known) {
            self.changed = found.map(|found| (found, now + QUIET_MS));
        }
    }

    /// Whether it is to be read anew: once for each file that it has become. One that has gone is
    /// waited for.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        let mut room = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = Reader::new(&self.fd, &mut room);
        let hinted = std::iter::from_fn(|| reader.next().ok().map(drop)).count() > 0;
        if hinted {
            self.look(now);
        }
        let Some((found, _)) = self.changed.filter(|(_, due)| *due <= now) else { return false };
        self.of.read = Some(found);
        self.changed = None;
        true
    }

    /// When it is due, if nothing else happens to it.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.changed.map(|(_, due)| due)
    }
}
