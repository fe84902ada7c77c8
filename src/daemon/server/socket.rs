//! The home's socket: reached by the directory that is held, never by the home's path, which may
//! lead to another daemon's home by now.
use crate::sys::home::Home;
pub(crate) use crate::sys::home::SOCKET;
use crate::sys::peer::peer;
use crate::sys::{Errno, describe, errno_of, own_pid};
use crate::wire::Failure;
use mio::net::UnixListener;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a daemon that seems to listen may take to turn out to be ending.
const ENDING: Duration = Duration::from_secs(1);

/// Binds it anew, by a relative name: there may be no /proc/self yet that can be relied on, and a
/// socket's path has room for 107 bytes only.
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

/// Connects to whoever listens.
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

pub(crate) fn is_listened_by_another(home: &Home) -> bool {
    listener_of(home).is_ok_and(|pid| pid != own_pid())
}

/// The file of the socket that we inherited may be gone, or another daemon's by now.
pub(crate) fn is_listened_by_us(home: &Home) -> bool {
    match listener_of(home) {
        Ok(pid) => pid == own_pid(),
        // A full queue has somebody behind it, and we hold the lock.
        Err(errno) => errno == Errno::AGAIN,
    }
}

/// Whether a daemon hangs up without being asked anything: it was killed, and its end takes a
/// moment in which it seems to listen.
pub(crate) fn is_ending(daemon: &UnixStream) -> bool {
    // Setting a timeout fails for zero only.
    daemon.set_read_timeout(Some(ENDING)).ok();
    let mut daemon = daemon;
    match std::io::Read::read(&mut daemon, &mut [0]) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}
