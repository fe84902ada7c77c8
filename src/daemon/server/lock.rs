//! The home's lock: who holds it is the daemon; and the home's key, which is written in it.
use super::socket;
use crate::daemon::log::log;
use crate::sys::home::{Home, lock_sharers, try_lock};
use crate::sys::{Errno, describe, own_pid, signals};
use crate::wire::Failure;
use rustix::fd::OwnedFd;
use std::time::{Duration, Instant};

pub(crate) const LOCK: &str = "lock";
/// From one try for the lock to the next, at the start only.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// When it takes longer, say who is in the way.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Who waits for the lock.
#[derive(Clone, Copy)]
pub(super) struct Waiter {
    /// An earlier image of this very process was the daemon: it has services, the socket is still
    /// its own, and whoever holds the lock is a child of it that has not exec'd yet.
    pub(super) follows: bool,
    /// It leaves the home to another daemon. `opm run` does not: its end is that of the services.
    pub(super) yields: bool,
}

impl Waiter {
    /// Whether another daemon serves the home, so that waiting is in vain.
    fn is_served(self, home: &Home) -> bool {
        match (self.follows, self.yields) {
            (true, true) => socket::is_listened_by_another(home),
            (true, false) => false,
            (false, true) => socket::connect(home).is_ok(),
            // One that is just ending makes room.
            (false, false) => socket::connect(home).is_ok_and(|other| !socket::is_ending(&other)),
        }
    }
}

/// False: another daemon serves this home already.
pub(super) fn wait_for_lock(home: &Home, lock: &OwnedFd, waiter: Waiter) -> Result<bool, Failure> {
    let path = home.path.as_str();
    let began = Instant::now();
    let mut is_said = false;
    loop {
        match lock_home(home, lock) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(errno) => {
                return Err(Failure::unreachable(format!("{path}/lock: {}", describe(errno))));
            }
        }
        if waiter.is_served(home) {
            if waiter.yields {
                log(&format!("another daemon serves {path} already"));
            }
            return Ok(false);
        }
        // A daemon that follows its own earlier image has services: it takes the lock first, and
        // then leaves them as any daemon does.
        let may_end = !(waiter.follows && waiter.yields);
        if may_end && signals::is_pending(&[libc::SIGTERM, libc::SIGINT]) {
            let text = format!("told to end while another process holds {path}/lock");
            return Err(Failure::unreachable(text));
        }
        if !is_said && began.elapsed() > LOCK_PATIENCE {
            is_said = true;
            let holders = lock_sharers(&format!("{path}/lock")).into_iter();
            let holders = holders.filter(|pid| *pid != own_pid()).map(|pid| pid.to_string());
            let holders = holders.collect::<Vec<_>>().join(", ");
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

/// None: it holds none, or one of another home.
pub(super) fn read_key(lock: &OwnedFd, device_inode: (u64, u64)) -> Result<Option<u64>, Errno> {
    let mut text = [0u8; 64];
    let length = rustix::io::pread(lock, &mut text, 0)?;
    Ok(key_of(&text[..length], device_inode))
}

fn key_of(text: &[u8], (device, inode): (u64, u64)) -> Option<u64> {
    let line = std::str::from_utf8(text).ok()?.lines().next()?;
    let mut words = line.split(' ').map(|word| u64::from_str_radix(word, 16).ok());
    let key = words.next()??;
    let is_here = [device, inode].into_iter().eq(words.by_ref().flatten());
    is_here.then_some(key)
}

#[cfg(test)]
#[path = "../../../tests/inner/daemon_server_lock.rs"]
mod tests;
