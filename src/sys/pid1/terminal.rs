//! The controlling terminal, if there is one.
//!
//! It must never take the foreground by itself. With TTOU blocked, which it always is here, a
//! background process may change the foreground group and isn't stopped for it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use super::process::{last_errno, own_pid};

/// A way to the controlling terminal.
#[derive(Debug)]
pub enum Terminal {
    /// One of 0, 1, 2.
    Inherited(i32),
    /// `/dev/tty`, when all three are redirected.
    Opened(OwnedFd),
}

impl Terminal {
    /// The terminal that this process shares with its session.
    pub fn find() -> Option<Terminal> {
        for fd in 0..=2 {
            // SAFETY: asks about a number, which need not be open, let alone a terminal.
            if unsafe { libc::tcgetpgrp(fd) } >= 0 {
                return Some(Terminal::Inherited(fd));
            }
        }
        Terminal::open()
    }

    fn open() -> Option<Terminal> {
        // SAFETY: the path is a C string.
        let fd = unsafe { libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        // SAFETY: the kernel has just made this descriptor for us.
        (fd >= 0).then(|| Terminal::Opened(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The group in the foreground; `None` if that has no number in our PID namespace.
    pub fn foreground(&self) -> Option<i32> {
        // SAFETY: the descriptor is ours or was inherited; an error is an answer.
        let group = unsafe { libc::tcgetpgrp(self.fd()) };
        (group > 0).then_some(group)
    }

    /// Whether this process's own group has the foreground.
    pub fn is_ours(&self) -> bool {
        // SAFETY: takes no pointers and cannot fail.
        match (unsafe { libc::getpgrp() }, self.foreground()) {
            (0, None) => self.may_be_read(),
            (own, front) => front == Some(own),
        }
    }

    /// Whether a read would not be refused for being in the background: with TTIN blocked, as
    /// here, that is EIO. In a PID namespace our group and the one in front may both be somebody's
    /// outside, with no number to compare; this tells whether they are the same.
    fn may_be_read(&self) -> bool {
        // SAFETY: no bytes are asked for, so nothing is written nor taken from the terminal.
        let ours = unsafe { libc::read(self.fd(), ptr::null_mut(), 0) };
        match (ours, self) {
            (0, _) => true,
            // It may be open for writing alone.
            (_, Terminal::Inherited(_)) if last_errno() == libc::EBADF => {
                Terminal::open().is_some_and(|terminal| terminal.may_be_read())
            }
            _ => false,
        }
    }

    /// Puts a group into the foreground. An error is no news: the group may be gone, and no
    /// terminal is worth failing for.
    pub fn give_to(&self, group: i32) {
        // SAFETY: takes no pointers; TTOU is blocked, so the call cannot stop us.
        unsafe { libc::tcsetpgrp(self.fd(), group) };
    }

    /// Puts this process's own group into the foreground. The kernel refuses it where that group
    /// has no number in our PID namespace: it stays the shell's above us to take it back.
    pub fn take_back(&self) {
        // SAFETY: takes no pointers and cannot fail.
        self.give_to(unsafe { libc::getpgrp() });
    }

    /// Whether a shell above may see us stopped, and resume us. Not if we lead the session, nor as
    /// a PID 1, which can't be stopped, nor if the shell is outside of our PID namespace and so
    /// our group has no number: it sees only who made the namespace.
    pub fn has_shell_above() -> bool {
        let own = own_pid();
        // SAFETY: takes no pointers; 0 is ourselves.
        let session = unsafe { libc::getsid(0) };
        // SAFETY: takes nothing and cannot fail.
        let group = unsafe { libc::getpgrp() };
        own != 1 && session != own && group != 0
    }

    fn fd(&self) -> i32 {
        match self {
            Terminal::Inherited(fd) => *fd,
            Terminal::Opened(file) => file.as_raw_fd(),
        }
    }
}

/// Whether a descriptor is a terminal, of whatever session.
pub fn is_terminal(fd: i32) -> bool {
    // SAFETY: asks about a number, which need not be open.
    unsafe { libc::isatty(fd) == 1 }
}
