//! The launch pipe: how a child tells how far it got. Its exec closes the child's end, and so
//! does its death; why nothing was exec'd it says before it exits.
//!
//! As long as a child shares our table of descriptors, its end is ours, too: it says when it has
//! a table of its own, and only then does ours close. One that dies before has closed nothing.
use super::table::Table;
use super::{Errno, Launch, Result, Stage, raw};
use rustix::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::pipe::PipeFlags;
use std::ffi::c_int;

/// A report of a failure: its stage and its errno.
const REPORT_BYTES: usize = 8;

/// Our end of a launch pipe.
#[derive(Debug)]
pub struct ExecPipe {
    ours: OwnedFd,
    /// The child's, while it shares our table.
    shared: Option<OwnedFd>,
    /// The exec takes the child into a time namespace of its own.
    pub enters_namespace: bool,
}

impl ExecPipe {
    /// A pipe for one launch, and the child's end, of which ours is to be dropped after the clone.
    /// Errors: EMFILE, ENFILE.
    pub fn new(enters_namespace: bool) -> Result<(Self, OwnedFd)> {
        let (ours, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Self { ours, shared: None, enters_namespace }, report))
    }

    /// Keeps the child's end, until the child has a table of its own.
    pub fn share(&mut self, report: OwnedFd) {
        self.shared = Some(report);
    }

    /// The child's end in our table, of a child that is over or about to be.
    pub fn take(&mut self) -> Option<OwnedFd> {
        self.shared.take()
    }

    /// Looks without waiting. End of file: close-on-exec closed the child's end, or the child was
    /// killed ([`super::Kernel::has_execed`]). Of one that has not left our table nothing is known,
    /// be it dead.
    pub fn look(&mut self, table: &mut Table) -> Launch {
        if let Some(report) = self.shared.take() {
            if rustix::io::read(&self.ours, &mut [0; 1]) != Ok(1) {
                self.shared = Some(report);
                return Launch::Pending;
            }
            table.take_back(report);
        }
        let mut bytes = [0; REPORT_BYTES];
        match rustix::io::read(&self.ours, &mut bytes) {
            Ok(0) => Launch::Done,
            Ok(_) => {
                let [a, b, c, d, errno @ ..] = bytes;
                let stage = Stage::from_number(u32::from_le_bytes([a, b, c, d]));
                Launch::Failed(stage, Errno::from_raw_os_error(c_int::from_le_bytes(errno)))
            }
            Err(_) => Launch::Pending,
        }
    }
}

impl Drop for ExecPipe {
    /// The child may be about to write to its end: whatever had the number by then would get it.
    fn drop(&mut self) {
        if let Some(report) = self.shared.take() {
            let _kept_open = report.into_raw_fd();
        }
    }
}

impl AsRawFd for ExecPipe {
    fn as_raw_fd(&self) -> RawFd {
        self.ours.as_raw_fd()
    }
}

/// In the child: it has a table of its own, and the daemon may close its copy of this end.
pub fn leave_table(report: RawFd) {
    if raw::write(report, &[0]) == Err(libc::EPIPE) {
        // Our daemon is gone. Blocked, the signal waits for the child to unblock it.
        raw::take_signal(libc::SIGPIPE);
    }
}

/// In the child, last of all: why nothing is exec'd. A pipe takes so few bytes whole. `shares`: it
/// has no table of its own, and says so only now: the daemon may close this end at once.
pub fn report(report: RawFd, stage: Stage, errno: c_int, shares: bool) {
    let [a, b, c, d] = stage.number().to_le_bytes();
    let [e, f, g, h] = errno.to_le_bytes();
    let _written = match shares {
        true => raw::write(report, &[0, a, b, c, d, e, f, g, h]),
        false => raw::write(report, &[a, b, c, d, e, f, g, h]),
    };
}

impl Stage {
    /// Its number on the pipe and in the journal.
    pub fn number(self) -> u32 {
        let number = match self {
            Self::Option(at) => STAGES.len().wrapping_add(usize::from(at)),
            stage => STAGES.iter().position(|known| *known == stage).unwrap_or_default(),
        };
        number as u32
    }

    /// The one of that number.
    pub fn from_number(number: u32) -> Self {
        let option = (number as usize).saturating_sub(STAGES.len()) as u8;
        STAGES.get(number as usize).copied().unwrap_or(Self::Option(option))
    }
}

/// Stages by their number; behind them come the options of the table.
const STAGES: [Stage; 7] = [
    Stage::Exec,
    Stage::Sign,
    Stage::Setup,
    Stage::Cgroup,
    Stage::Directory,
    Stage::Log,
    Stage::Interpreter,
];
