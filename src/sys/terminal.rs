//! The controlling terminal, if there is one.
//!
//! It must never take the foreground by itself. With TTOU blocked, which it always is here, a
//! background process may change the foreground group and isn't stopped for it.
use super::{Errno, own_pid};
use crate::process::Pid;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// A way to the controlling terminal.
#[derive(Debug)]
pub enum Terminal {
    /// One of 0, 1, 2.
    Inherited(BorrowedFd<'static>),
    /// `/dev/tty`, when all three are redirected.
    Opened(OwnedFd),
}

impl Terminal {
    /// The terminal that this process shares with its session.
    pub fn find() -> Option<Terminal> {
        use rustix::stdio::{stderr, stdin, stdout};
        // OPNOTSUPP: it is one, and the group in front has no number in our PID namespace.
        let is_ours = |fd: &_| matches!(tcgetpgrp(fd), Ok(_) | Err(Errno::OPNOTSUPP));
        let inherited = [stdin(), stdout(), stderr()].into_iter().find(is_ours);
        inherited.map(Terminal::Inherited).or_else(Terminal::open)
    }

    fn open() -> Option<Terminal> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(c"/dev/tty", flags, Mode::empty()).ok().map(Terminal::Opened)
    }

    /// The group in the foreground; `None` if that has no number in our PID namespace.
    pub fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self).ok().map(|group| group.as_raw_nonzero().get())
    }

    /// Whether this process's own group has the foreground.
    pub fn is_ours(&self) -> bool {
        match (own_group(), self.foreground()) {
            (0, None) => self.may_be_read(),
            (own, front) => front == Some(own),
        }
    }

    /// Whether a read would not be refused for being in the background: with TTIN blocked, as
    /// here, that is EIO. In a PID namespace our group and the one in front may both be somebody's
    /// outside, with no number to compare; this tells whether they are the same.
    fn may_be_read(&self) -> bool {
        match (rustix::io::read(self, &mut [0u8; 0]), self) {
            (Ok(_), _) => true,
            // It may be open for writing alone.
            (Err(Errno::BADF), Terminal::Inherited(_)) => {
                Terminal::open().is_some_and(|terminal| terminal.may_be_read())
            }
            (Err(_), _) => false,
        }
    }

    /// Puts a group into the foreground. An error is no news: the group may be gone, it may have
    /// no number in our PID namespace (a shell above us takes the foreground back itself), and no
    /// terminal is worth failing for.
    pub fn give_to(&self, group: Pid) {
        if let Some(group) = rustix::process::Pid::from_raw(group) {
            tcsetpgrp(self, group).ok();
        }
    }

    /// Whether a shell above may see us stopped, and resume us. Not if we lead the session, nor as
    /// a PID 1, which can't be stopped, nor if the shell is outside of our PID namespace and so
    /// our group has no number: it sees only who made the namespace.
    pub fn has_shell_above() -> bool {
        // SAFETY: takes no pointers; 0 is ourselves.
        let session = unsafe { libc::getsid(0) };
        own_pid() != 1 && session != own_pid() && own_group() != 0
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Terminal::Inherited(fd) => *fd,
            Terminal::Opened(file) => file.as_fd(),
        }
    }
}

/// This process's own group; 0 if it has no number in our PID namespace, which rustix's function
/// can't say.
pub fn own_group() -> Pid {
    // SAFETY: takes no pointers and cannot fail.
    unsafe { libc::getpgrp() }
}
