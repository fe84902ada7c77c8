//! The launch pipe: how a child tells how far it got. Its exec closes the child's end, and so
//! does its death; why nothing was exec'd it says before it exits.
use super::{Errno, Launch, Result, Stage, raw};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::pipe::PipeFlags;
use std::ffi::c_int;

/// A report of a failure: its stage and its errno.
const REPORT_BYTES: usize = 8;

/// Our end of a launch pipe.
#[derive(Debug)]
pub struct ExecPipe(OwnedFd);

impl ExecPipe {
    /// A pipe for one launch, and the child's end, of which ours is to be dropped after the clone.
    /// Errors: EMFILE, ENFILE.
    pub fn new() -> Result<(Self, OwnedFd)> {
        let (ours, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((Self(ours), report))
    }

    /// Looks without waiting. End of file: close-on-exec closed the child's end, or the child was
    /// killed, which its stat tells.
    pub fn look(&self) -> Launch {
        let mut bytes = [0; REPORT_BYTES];
        match rustix::io::read(&self.0, &mut bytes) {
            Ok(0) => Launch::Done,
            Ok(_) => {
                let [a, b, c, d, errno @ ..] = bytes;
                let number = u32::from_le_bytes([a, b, c, d]) as usize;
                let option = number.saturating_sub(STAGES.len()) as u8;
                let stage = STAGES.get(number).copied().unwrap_or(Stage::Option(option));
                Launch::Failed(stage, Errno::from_raw_os_error(c_int::from_le_bytes(errno)))
            }
            Err(_) => Launch::Pending,
        }
    }
}

impl AsRawFd for ExecPipe {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// In the child, last of all: why nothing is exec'd. A pipe takes so few bytes whole.
pub fn report(report: RawFd, stage: Stage, errno: c_int) {
    let number = match stage {
        Stage::Option(at) => STAGES.len().wrapping_add(usize::from(at)),
        stage => STAGES.iter().position(|known| *known == stage).unwrap_or_default(),
    };
    let [a, b, c, d] = (number as u32).to_le_bytes();
    let [e, f, g, h] = errno.to_le_bytes();
    let _written = raw::write(report, &[a, b, c, d, e, f, g, h]);
}

/// Stages by their number on the pipe; behind them come the options of the table.
const STAGES: [Stage; 7] = [
    Stage::Exec,
    Stage::Sign,
    Stage::Setup,
    Stage::Cgroup,
    Stage::Directory,
    Stage::Log,
    Stage::Interpreter,
];
