//! Writing to a descriptor that others share (a terminal, a container's log) without ever
//! waiting, and without changing it for the others.
use super::{Errno, Result};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::SendFlags;
use std::time::Duration;

/// What a pipe that says POLLOUT takes without waiting.
const PIPE_BUF: usize = 4096;
/// The same for a terminal, which says POLLOUT below this.
const TERMINAL_BUF: usize = 256;

/// Where output goes.
#[derive(Debug)]
pub struct Writer {
    fd: OwnedFd,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Our own description of it, which doesn't wait.
    Own,
    Socket,
    File,
    /// A device that is always ready.
    Ready,
    /// Asked first, and given no more than this.
    Asked(usize),
}

impl Writer {
    /// Errors: EBADF, EMFILE.
    pub fn new(fd: BorrowedFd<'_>) -> Result<Self> {
        let kept = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&kept)?.st_mode);
        let most = match kind {
            FileType::Socket => {
                return Ok(Self { fd: kept, way: Way::Socket });
            }
            FileType::RegularFile => {
                return Ok(Self { fd: kept, way: Way::File });
            }
            FileType::Fifo => PIPE_BUF,
            FileType::CharacterDevice => TERMINAL_BUF,
            _ => {
                return Ok(Self { fd: kept, way: Way::Ready });
            }
        };
        // Of its own, so that O_NONBLOCK is ours alone. Refused where the pipe belongs to
        // another user, as a container's often does.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", kept.as_raw_fd());
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(own) => Ok(Self { fd: own, way: Way::Own }),
            Err(_) => Ok(Self { fd: kept, way: Way::Asked(most) }),
        }
    }

    /// Writes what is taken at once. EAGAIN: nothing is.
    pub fn write(&self, bytes: &[u8]) -> Result<usize> {
        match self.way {
            Way::Own | Way::File | Way::Ready => rustix::io::write(&self.fd, bytes),
            Way::Socket => {
                rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }
            Way::Asked(most) => {
                if !is_writable(&self.fd, 0) {
                    return Err(Errno::AGAIN);
                }
                rustix::io::write(&self.fd, &bytes[..bytes.len().min(most)])
            }
        }
    }

    /// As much is written whole or not at all, where only a part may be taken.
    pub fn whole(&self) -> usize {
        match self.way {
            Way::Own | Way::Asked(_) => PIPE_BUF,
            Way::Socket | Way::File | Way::Ready => usize::MAX,
        }
    }

    /// The file that it is, if it is one.
    pub fn file(&self) -> Option<&OwnedFd> {
        (self.way == Way::File).then_some(&self.fd)
    }

    /// How long that is.
    pub fn end(&self) -> u64 {
        let stat = self.file().and_then(|file| rustix::fs::fstat(file).ok());
        stat.map_or(0, |stat| stat.st_size.unsigned_abs())
    }

    /// For the loop's registry. Files can't be registered, and need not be.
    pub fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Waits until it may take something, that long at most.
    pub fn wait(&self, ms: u64) {
        is_writable(&self.fd, ms);
    }
}

/// Whether a write would not wait now, or within this time. Errors count as ready: the write
/// tells.
pub fn is_writable(fd: impl AsFd, ms: u64) -> bool {
    is_ready(fd, PollFlags::OUT, ms).unwrap_or(true)
}

/// poll(2) of one descriptor, for that long at most.
pub(super) fn is_ready(fd: impl AsFd, what: PollFlags, ms: u64) -> Result<bool> {
    let most = Some(Duration::from_millis(ms));
    poll(&mut [PollFd::new(&fd, what)], most).map(|count| count > 0)
}

/// poll(2), until something is ready or the time is over: how many are.
pub fn poll(fds: &mut [PollFd<'_>], most: Option<Duration>) -> Result<usize> {
    // What is too long for the kernel's clock is for ever.
    let most = most.and_then(|most| Timespec::try_from(most).ok());
    loop {
        match rustix::event::poll(fds, most.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return ready,
        }
    }
}
