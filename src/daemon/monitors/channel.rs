//! Channels that a service may speak over: a pipe, as s6 has it, or a socket pair with lines of
//! JSON, as node gives its children.
//!
//! The service holds a copy of our end, too. So its own never breaks, whatever becomes of us: what
//! it says then is lost, and nothing else.
use super::advice::Cx;
use crate::service::probe::{IPC_FD, Sign};
use crate::sys::token::Token;
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

/// The number that the copy of our end has in a service.
const COPY_FD: i32 = 98;
/// The message that says it, and what is kept of another.
const READY: &[u8] = b"\"ready\"";
const LINE_BYTES_MAX: usize = 64;
/// Blocks that are heard in one turn.
const READS_MAX: usize = 16;

/// Our end.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    is_json: bool,
    line: Vec<u8>,
    watched: bool,
}

/// Our end, the service's, and what goes where in it.
type Opened = (Channel, OwnedFd, [(RawFd, i32); 2]);

impl Channel {
    /// Opens one, if a service says by one that it is ready. Errors: too many descriptors.
    pub(crate) fn open(sign: &Sign) -> Result<Option<Opened>, Errno> {
        let (number, is_json) = match sign {
            Sign::Fd(number) => (i32::from(*number), false),
            Sign::Ipc => (i32::from(IPC_FD), true),
            _ => return Ok(None),
        };
        let (fd, theirs) = if is_json {
            let flags = SocketFlags::CLOEXEC;
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?
        } else {
            pipe_with(PipeFlags::CLOEXEC)?
        };
        rustix::io::ioctl_fionbio(&fd, true)?;
        let given = [(theirs.as_raw_fd(), number), (fd.as_raw_fd(), COPY_FD)];
        Ok(Some((Self { fd, is_json, line: Vec::new(), watched: false }, theirs, given)))
    }

    /// Watches it, and hears whether it said that it is ready, and whether there may be more.
    pub(super) fn hear(&mut self, cx: &Cx<'_>, token: Token) -> (bool, bool) {
        if let Some(registry) = cx.registry.filter(|_| !self.watched) {
            self.watched = token.watch(registry, &self.fd).is_ok();
        }
        let mut is_ready = false;
        let mut bytes = [0; 4096];
        // Nobody may keep the loop by talking.
        for _ in 0..READS_MAX {
            let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut bytes) else {
                return (is_ready, false);
            };
            for byte in &bytes[..length] {
                if *byte != b'\n' {
                    if self.line.len() < LINE_BYTES_MAX {
                        self.line.push(*byte);
                    }
                    continue;
                }
                is_ready |= !self.is_json || self.line == READY;
                self.line.clear();
            }
        }
        (is_ready, true)
    }
}
