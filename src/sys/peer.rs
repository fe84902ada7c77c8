//! Who is at the other end of a socket.
use super::{Errno, Result};
use std::os::fd::{AsFd, AsRawFd};

/// Who has connected, as it was then. The pid is 0 of one outside our PID namespace: rustix, whose
/// pids are never 0, takes such an answer for an error.
pub fn peer(stream: &impl AsFd) -> Result<libc::ucred> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| Errno::INVAL)?;
    let (fd, out) = (stream.as_fd().as_raw_fd(), (&raw mut found).cast());
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: a ucred is writable at `out`, and `size` says how large it is.
    match unsafe { libc::getsockopt(fd, level, name, out, &raw mut size) } {
        0 => Ok(found),
        _ => Err(super::last_errno()),
    }
}
