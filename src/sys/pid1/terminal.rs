//! The controlling terminal, if there is one.
//!
//! It must never take the foreground by itself. With TTOU blocked, which it always is here, a
//! background process may change the foreground group and isn't stopped for it.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

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
        // SAFETY: the path is a C string.
        let fd = unsafe { libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        // SAFETY: the kernel has just made this descriptor for us.
        (fd >= 0).then(|| Terminal::Opened(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The group in the foreground.
    pub fn foreground(&self) -> Option<i32> {
        // SAFETY: the descriptor is ours or was inherited; an error is an answer.
        let group = unsafe { libc::tcgetpgrp(self.fd()) };
        (group > 0).then_some(group)
    }

    /// Whether this process's own group has the foreground.
    pub fn is_ours(&self) -> bool {
        // SAFETY: takes no pointers and cannot fail.
        self.foreground() == Some(unsafe { libc::getpgrp() })
    }

    /// Puts a group into the foreground. An error is no news: the group may be gone, and no
    /// terminal is worth failing for.
    pub fn give_to(&self, group: i32) {
        // SAFETY: takes no pointers; TTOU is blocked, so the call cannot stop us.
        unsafe { libc::tcsetpgrp(self.fd(), group) };
    }

    /// Puts this process's own group into the foreground.
    pub fn take_back(&self) {
        // SAFETY: takes no pointers and cannot fail.
        self.give_to(unsafe { libc::getpgrp() });
    }

    /// Whether this process leads the terminal's session: then no shell above could resume it.
    pub fn is_led_by_us() -> bool {
        // SAFETY: neither takes pointers; 0 is ourselves.
        unsafe { libc::getsid(0) == libc::getpid() }
    }

    fn fd(&self) -> i32 {
        match self {
            Terminal::Inherited(fd) => *fd,
            Terminal::Opened(file) => file.as_raw_fd(),
        }
    }
}
