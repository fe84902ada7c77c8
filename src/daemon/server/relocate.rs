//! A home that is moved, removed or unmounted under its daemon.
//!
//! A path that no longer leads to our directory is anybody's: another daemon could begin there,
//! and knows nothing of what we supervise. So nothing is launched until the daemon has followed
//! its home, or has made it anew and holds its locks, with all that is on record in it. Where
//! neither can be, it never launches anything again: services live on, marked.
use super::event_loop::Server;
use super::lock::{self, LOCK, SOCKET, lock_home, write_key};
use super::predecessor;
use super::role::Role;
use super::startup::write_pid;
use crate::daemon::ledger::load::JOURNAL;
use crate::daemon::{Daemon, Leave};
use crate::process::journal_format::{Header, Signature};
use crate::service::machine::Time;
use crate::sys::home::{self, Home, Whereabouts};
use crate::sys::linux::Linux;
use crate::sys::token::Token;
use crate::sys::{Errno, Kernel, Mode, describe, errno_of, fds, notify, reexec};
use crate::wire::Failure;
use mio::Interest;
use mio::unix::SourceFd;
use rustix::fd::{AsRawFd, OwnedFd};
use std::fs::File;
use std::io::Write;

/// After a removal in the home: the first look at it, and for how long there are more.
const LOOK_FIRST_MS: u64 = 5;
const QUIET_MS: u64 = 200;
const BUSY_MS: u64 = 2_000;
/// From one try to have a home again to the next, for one that can't leave.
const LOST_MS: u64 = 1_000;

/// Looks at the home that are due.
#[derive(Clone, Copy)]
pub(super) struct Removal {
    pub(super) next: Time,
    pause: u64,
    /// When nothing more was removed by then, what is missing is made anew.
    until: Time,
    /// However much is removed.
    most: Time,
}

impl Server {
    /// Something in the home was removed, or the home itself: looks where it is, now and for a
    /// moment more, since of the end of the directory itself there is no word.
    pub(super) fn note_removal(&mut self, now: Time) {
        let mut buffer = [0u8; 4096];
        while let Some(removals) = &self.removals
            && rustix::io::read(removals, &mut buffer).is_ok_and(|length| length > 0)
        {}
        let most = self.removal.map_or(now + BUSY_MS, |removal| removal.most);
        let until = most.min(now + QUIET_MS);
        self.removal = Some(Removal { next: now, pause: LOOK_FIRST_MS, until, most });
    }

    /// Goes after the home. A socket that somebody cleaned up is bound again, but not at once, lest
    /// a home is never empty while somebody removes it.
    pub(super) fn look_after_home(&mut self, daemon: &mut Daemon<Linux>, role: &mut dyn Role) {
        let now = daemon.kernel.now();
        let due = self.removal.filter(|removal| removal.next <= now);
        if due.is_none() && (!daemon.launches.home_lost || self.removal.is_some()) {
            return;
        }
        self.removal = None;
        match find_home(daemon) {
            Err(reason) => {
                let home = &daemon.home;
                daemon.log.push(format!("{home} is lost: {reason}; launching nothing any more"));
                if role.yields() {
                    daemon.leave = Some(Leave::Quit);
                }
                daemon.launches.home_lost = true;
                let (next, pause) = (now + LOST_MS, LOST_MS);
                self.removal = Some(Removal { next, pause, until: now, most: now });
            }
            Ok(true) => {
                self.watch_home(daemon);
                write_pid(&daemon.kernel.home);
                self.bind_again(daemon);
                self.bind_notify(&daemon.kernel.home);
                role.home_is_new(daemon);
            }
            Ok(false) => {
                if let Some(removal) = due.filter(|removal| now < removal.until) {
                    let pause = removal.pause * 2;
                    let next = (now + pause).min(removal.until);
                    self.removal = Some(Removal { next, pause, ..removal });
                    return;
                }
                restore_records(daemon);
                if !daemon.kernel.home.has(SOCKET) {
                    self.bind_again(daemon);
                }
                if !daemon.kernel.home.has(notify::FILE) {
                    self.bind_notify(&daemon.kernel.home);
                }
            }
        }
    }

    fn watch_home(&mut self, daemon: &Daemon<Linux>) {
        let registry = self.poll.registry();
        if let Some(old) = self.removals.take() {
            // Failing means that it was not registered.
            registry.deregister(&mut SourceFd(&old.as_raw_fd())).ok();
        }
        let fresh = daemon.kernel.home.watch_removals().ok();
        self.removals = fresh.filter(|fresh| Token::Removals.watch(registry, fresh).is_ok());
    }

    /// The descriptor keeps its number, which a crash hands on.
    fn bind_again(&mut self, daemon: &mut Daemon<Linux>) {
        let healed = lock::bind(&daemon.kernel.home).and_then(|fresh| {
            let registry = self.poll.registry();
            // Failing means that it was not registered.
            registry.deregister(&mut self.listener).ok();
            let fresh = OwnedFd::from(std::os::unix::net::UnixListener::from(fresh));
            let replaced = fds::replace(&self.listener, fresh);
            registry.register(&mut self.listener, Token::Listener.into(), Interest::READABLE).ok();
            replaced.map_err(|errno| Failure::plain(describe(errno)))
        });
        daemon.log.push(match healed {
            Ok(()) => "the socket was removed: bound it again".to_owned(),
            Err(failure) => format!("the socket was removed: {}", failure.text),
        });
    }
}

/// Goes after the home; true: it was made anew, there is no socket in it, and nobody watches it.
/// Errors: why there is none any more.
fn find_home(daemon: &mut Daemon<Linux>) -> Result<bool, String> {
    let whereabouts = daemon.kernel.home.whereabouts();
    let is_new = whereabouts == Whereabouts::Lost;
    if is_new {
        renew_home(daemon)?;
        daemon.log.push(format!("{} was removed: made it anew", daemon.home));
    } else if let Whereabouts::Moved(path) = whereabouts {
        daemon.log.push(format!("{} was moved: it is {path} now", daemon.home));
        daemon.home.clone_from(&path);
        reexec::move_to(&path);
        daemon.kernel.home.path = path;
    }
    daemon.launches.home_lost = false;
    // What it is to hold may not be there any more.
    daemon.launches.has_preload = false;
    Ok(is_new)
}

/// Makes the home again, with all that is on record, from the files that are still open.
fn renew_home(daemon: &mut Daemon<Linux>) -> Result<(), String> {
    let why = |errno: Errno| describe(errno);
    let home = Home::open(&daemon.home).map_err(why)?;
    let lock = home.open_file(LOCK, Mode::InPlace).map_err(why)?;
    lock_home(&home, &lock).map_err(|errno| match errno {
        Errno::WOULDBLOCK => "another daemon serves it".to_owned(),
        errno => describe(errno),
    })?;
    let records = daemon.ledger.files();
    if records.iter().any(|(name, _)| home.has(name)) {
        return Err("it is another home by now".to_owned());
    }
    home.make_dir("logs").map_err(why)?;
    let header = Header { home: home.place, ..daemon.ledger.header };
    // First of all: by the key what bears our marks is known, whatever fails from here on.
    write_key(&lock, header.home_key, header.home);
    let encoded = header.encode();
    let copies = records.iter().map(|(name, file)| {
        let head = if *name == JOURNAL { &encoded[..] } else { &[] };
        copy(file, &home, name, head)
    });
    let copies = copies.collect::<Result<Vec<OwnedFd>, Errno>>().map_err(|errno| {
        // Half a journal says that the other half does not live.
        for (name, _) in records {
            home.remove(name).ok();
        }
        describe(errno)
    })?;
    reopen_log(&home);
    // The numbers stay: children that share our descriptors rely on them.
    for ((_, file), copy) in records.iter().zip(copies) {
        fds::replace(*file, copy).map_err(why)?;
    }
    fds::replace(&daemon.kernel.lock, lock).map_err(why)?;
    daemon.kernel.home.replace(home).map_err(why)?;
    daemon.ledger.header = header;
    // As PID 1 we say there, too, that we live; without it only a later PID 1 can't tell.
    predecessor::hold_alive(&daemon.kernel.home, None).ok();
    sign_for_launching(daemon);
    Ok(())
}

/// Puts back what somebody has removed from the home, from the files that are still open.
fn restore_records(daemon: &mut Daemon<Linux>) {
    match try_restore(daemon) {
        Ok(false) => {}
        Ok(true) => {
            reopen_log(&daemon.kernel.home);
            sign_for_launching(daemon);
            daemon.log.push(format!("{}: files were removed: made anew", daemon.home));
        }
        Err(errno) => {
            let reason = describe(errno);
            let text = format!("{}: files were removed: {reason}", daemon.home);
            daemon.ledger.disk_error = Some(text);
        }
    }
}

fn try_restore(daemon: &Daemon<Linux>) -> Result<bool, Errno> {
    let home = &daemon.kernel.home;
    let mut any = false;
    if !home.has("logs") {
        home.make_dir("logs")?;
        any = true;
    }
    if !home.has(LOCK) {
        let lock = home.open_file(LOCK, Mode::InPlace)?;
        home::try_lock(&lock)?;
        write_key(&lock, daemon.ledger.header.home_key, daemon.ledger.header.home);
        fds::replace(&daemon.kernel.lock, lock)?;
        any = true;
    }
    for (name, file) in daemon.ledger.files().into_iter().filter(|(name, _)| !home.has(name)) {
        fds::replace(file, copy(file, home, name, &[])?)?;
        any = true;
    }
    Ok(any)
}

/// A child that has not exec'd yet signs where the journal was when it was forked.
fn sign_for_launching(daemon: &mut Daemon<Linux>) {
    let parent = daemon.ledger.header.daemon;
    for (id, generation, leader, namespace) in daemon.with_trees(|trees, cx| trees.launching(cx)) {
        let signature = Signature { generation: generation.0, leader, parent, namespace };
        // What can't be written is said by `doctor`.
        daemon.ledger.sign(&mut daemon.kernel, id, &signature).ok();
    }
}

/// Copies a file, whether or not it has a name, into the home, with another head. Gives the copy.
fn copy(from: &OwnedFd, home: &Home, name: &str, head: &[u8]) -> Result<OwnedFd, Errno> {
    let mut bytes = home::read_whole(from)?;
    if let Some(place) = bytes.get_mut(..head.len()) {
        place.copy_from_slice(head);
    }
    let mut file = File::from(home.open_file(name, Mode::Fresh)?);
    file.write_all(&bytes).map_err(|error| errno_of(&error))?;
    Ok(file.into())
}

/// The log goes on in the new home, if it was in the old one.
fn reopen_log(home: &Home) {
    let is_removed = rustix::fs::fstat(rustix::stdio::stderr())
        .is_ok_and(|stat| stat.st_nlink == 0 && stat.st_mode & 0o170_000 == 0o100_000);
    if !is_removed {
        return;
    }
    let flags =
        rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::APPEND | rustix::fs::OFlags::CREATE;
    if let Ok(log) = home::open_regular(&home.dir, "daemon.log", flags) {
        // Failing leaves the old one, which nobody sees.
        rustix::stdio::dup2_stdout(&log).ok();
        rustix::stdio::dup2_stderr(&log).ok();
    }
}
