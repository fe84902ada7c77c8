//! The home's lock and its socket: who holds the lock is the daemon, and has the home's key in it.
//!
//! The socket is reached by the directory that is held, never by the home's path, which may lead to
//! another daemon's home by now.
use crate::daemon::log::log;
pub(crate) use crate::sys::home::SOCKET;
use crate::sys::home::{Home, lock_sharers, try_lock};
use crate::sys::sockets::peer;
use crate::sys::{Errno, describe, errno_of, own_pid, signals};
use crate::wire::Failure;
use mio::net::UnixListener;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub(crate) const LOCK: &str = "lock";
/// From one try for the lock to the next, at the start only.
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// When it takes longer, say who is in the way.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

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
            (true, true) => listener_of(home).is_ok_and(|pid| pid != own_pid()),
            (true, false) => false,
            (false, true) => connect(home).is_ok(),
            // One that is just ending makes room.
            (false, false) => connect(home).is_ok_and(|other| !is_ending(&other)),
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

/// How long a daemon that seems to listen may take to turn out to be ending.
const ENDING: Duration = Duration::from_secs(1);

/// Binds it anew by a relative name: /proc may be missing, and a path has 107 bytes at most.
pub(crate) fn bind(home: &Home) -> Result<UnixListener, Failure> {
    let cannot =
        |errno: Errno| Failure::unreachable(format!("{}/{SOCKET}: {}", home.path, describe(errno)));
    home.remove(SOCKET).map_err(cannot)?;
    rustix::process::fchdir(&home.dir).map_err(cannot)?;
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(SOCKET);
    rustix::process::umask(before);
    drop(std::env::set_current_dir("/"));
    listener.map_err(|error| cannot(errno_of(&error)))
}

pub(crate) fn connect(home: &Home) -> std::io::Result<UnixStream> {
    UnixStream::connect(home.path_by_descriptor(SOCKET))
}

/// Who listens. Never waits: the queue may be our own, and full.
fn listener_of(home: &Home) -> Result<i32, Errno> {
    let address = SocketAddrUnix::new(home.path_by_descriptor(SOCKET))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    peer(&socket).map(|peer| peer.pid)
}

/// The file of the socket that we inherited may be gone, or another daemon's by now.
pub(crate) fn is_listened_by_us(home: &Home) -> bool {
    match listener_of(home) {
        Ok(pid) => pid == own_pid(),
        // A full queue has somebody behind it, and we hold the lock.
        Err(errno) => errno == Errno::AGAIN,
    }
}

/// Whether a daemon hangs up unasked: it was killed, and seems to listen for a moment yet.
pub(crate) fn is_ending(daemon: &UnixStream) -> bool {
    // Setting a timeout fails for zero only.
    daemon.set_read_timeout(Some(ENDING)).ok();
    let mut daemon = daemon;
    match std::io::Read::read(&mut daemon, &mut [0]) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[cfg(test)]
#[path = "../../../tests/inner/daemon_server_lock.rs"]
mod tests;
