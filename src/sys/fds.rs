//! Descriptors across an exec: what an image leaves to the next one, and what it closes.
use super::{Errno, Result, procfs, raw, sockets};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Closes every descriptor from 3 on that we inherited, but `kept`.
pub fn close_inherited(kept: &[u32]) {
    let mut first = 3;
    loop {
        let next = kept.iter().copied().filter(|fd| *fd >= first).min();
        let last = next.map_or(u32::MAX, |fd| fd - 1);
        if first <= last {
            // Nothing in this process owns a descriptor yet.
            raw::close_range(first, last, 0).ok();
        }
        match next {
            Some(fd) => first = fd + 1,
            None => return,
        }
    }
}

/// Takes over a descriptor that an earlier image of this process left open for us.
pub fn inherited(fd: i32) -> Option<OwnedFd> {
    // SAFETY: only its flags are asked for, which says whether it is open.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).ok()?;
    // SAFETY: it is open, and by the upgrade's contract nothing else in this image owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// The numbers of our listening sockets.
pub fn listening() -> Vec<u32> {
    let numbers = procfs::numbers("/proc/self/fd").unwrap_or_default().into_iter();
    let listens = |number: &i32| {
        // SAFETY: only asked whether it listens, which says EBADF of one that is gone.
        *number >= 3 && sockets::listens(unsafe { BorrowedFd::borrow_raw(*number) })
    };
    numbers.filter(listens).map(i32::cast_unsigned).collect()
}

/// Puts `new` where `old` is, close-on-exec: whoever knows the number has the new one from now on.
/// Errors: what dup3(2) says; then `old` is as it was.
pub fn replace(old: &impl AsRawFd, new: OwnedFd) -> Result<()> {
    // The owner of `old` goes on owning the number.
    let numbers = [new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC].map(|number| number as usize);
    raw::numbers(libc::SYS_dup3, numbers).map(drop).map_err(Errno::from_raw_os_error)
}
