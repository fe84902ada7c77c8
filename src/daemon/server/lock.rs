//! The home's lock: who holds it is the daemon; and the home's key, which is written in it.
use super::socket;
use crate::daemon::failure::Failure;
use crate::daemon::log::log;
use crate::sys::home::{Home, lock_sharers, try_lock};
use crate::sys::{Errno, describe, signals};
use crate::wire::code;
use rustix::fd::OwnedFd;
use std::time::{Duration, Instant};

pub(crate) const LOCK: &str = "lock";
/// From one try for the lock to the next, at the start only.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// When it takes longer, say who is in the way.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// What a lock that is held says to whoever waits for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// A daemon that listens serves the home.
    Brief,
    /// As above, but not one that is ending.
    Patient,
    /// A child of the image before has not exec'd yet: that image was the daemon, and the socket
    /// that answers is our own. Or a daemon that came in between serves the home.
    Again,
    /// As above, but there is no giving way to another: our end is that of the services.
    Always,
}

impl Waiting {
    /// `follows`: an image of this very process was the daemon. `yields`: to another daemon.
    pub(super) fn of(follows: bool, yields: bool) -> Self {
        match (follows, yields) {
            (true, true) => Self::Again,
            (true, false) => Self::Always,
            (false, false) => Self::Patient,
            (false, true) => Self::Brief,
        }
    }
}

/// False: another daemon serves this home already.
pub(super) fn wait_for_lock(
    place: &Home,
    lock: &OwnedFd,
    waiting: Waiting,
) -> Result<bool, Failure> {
    let home = place.path.as_str();
    let began = Instant::now();
    let mut told = false;
    loop {
        match lock_home(place, lock) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => {
                return Err((code::UNREACHABLE, format!("{home}/lock: {}", describe(errno))));
            }
        }
        if waiting == Waiting::Again && socket::is_listened_by_another(place) {
            log(&format!("another daemon serves {home} by now"));
            return Ok(false);
        }
        if matches!(waiting, Waiting::Brief | Waiting::Patient)
            && let Ok(daemon) = socket::connect(place)
            && !(waiting == Waiting::Patient && socket::is_ending(&daemon))
        {
            if waiting == Waiting::Brief {
                log(&format!("a daemon serves {home} already"));
            }
            return Ok(false);
        }
        // An image that follows another has services, and leaves them as a daemon does.
        if waiting != Waiting::Again && signals::is_pending(&[libc::SIGTERM, libc::SIGINT]) {
            let text = format!("told to end while another process holds {home}/lock");
            return Err((code::UNREACHABLE, text));
        }
        if !told && began.elapsed() > LOCK_PATIENCE {
            told = true;
            let own = rustix::process::getpid().as_raw_nonzero().get();
            let mut holders = lock_sharers(&format!("{home}/lock"));
            holders.retain(|pid| *pid != own);
            let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
            let holders = holders.join(", ");
            log(&format!(
                "waiting for pid {holders}: started by the daemon before, and not yet exec'd"
            ));
        }
        std::thread::sleep(LOCK_RETRY);
    }
}

/// The lock file may be removed, and then guards nothing: the directory itself is locked too.
/// (NFS takes no exclusive lock of what is not open for writing: there the file has to do.)
pub(crate) fn lock_home(home: &Home, lock: &OwnedFd) -> Result<(), Errno> {
    try_lock(lock)?;
    match try_lock(&home.dir) {
        Err(Errno::WOULDBLOCK) => Err(Errno::WOULDBLOCK),
        _ => Ok(()),
    }
}

/// The key outlives the journal here, so that marks are known even when that is lost. With it
/// the home's device and inode: in a copy it is the original's.
pub(crate) fn write_key(lock: &OwnedFd, key: u64, (device, inode): (u64, u64)) {
    let text = format!("{key:016x} {device:016x} {inode:016x}\n");
    rustix::io::pwrite(lock, text.as_bytes(), 0).ok();
}

pub(super) fn key_of(text: &[u8], (device, inode): (u64, u64)) -> Option<u64> {
    let line = std::str::from_utf8(text).ok()?.lines().next()?;
    let mut words = line.split(' ').map(|word| u64::from_str_radix(word, 16).ok());
    let key = words.next()??;
    let is_here = [device, inode].into_iter().eq(words.by_ref().flatten());
    is_here.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_only_where_it_was_written() {
        let text = b"00000000000000ff 0000000000000001 0000000000000002\n";
        assert_eq!(key_of(text, (1, 2)), Some(255));
        assert_eq!(key_of(text, (1, 3)), None);
        assert_eq!(key_of(text, (3, 2)), None);
        for torn in [&text[..16], &text[..40], &text[20..], b""] {
            assert_eq!(key_of(torn, (1, 2)), None);
        }
    }
}
