//! Taking the statuses of children.
//!
//! waitid, not waitpid: the latter's macros, and the crates built on them, know no real-time
//! signals. It must never wait: it takes what is there.

use std::mem;

use super::process::last_errno;

/// What one look at the children found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// This child has gone; its zombie with it.
    Exited {
        /// Its number, free from now on.
        pid: i32,
        /// The exit code, 128+n if signal n ended it.
        code: u8,
    },
    /// This child has been stopped by this signal.
    Stopped {
        /// Its number.
        pid: i32,
        /// What stopped it.
        signal: i32,
    },
    /// There are children, and nothing new of them.
    Quiet,
    /// There is no child at all.
    Childless,
}

/// Takes one status. `__WALL`: what was cloned with another exit signal counts too.
pub fn reap_one() -> Reaped {
    loop {
        // SAFETY: an all-zero siginfo is a valid value to be overwritten, and its pid stays 0 when
        // there is nothing to report.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let flags = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
        // SAFETY: the siginfo is writable and of the type that waitid fills.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } != 0 {
            match last_errno() {
                libc::EINTR => continue,
                _ => return Reaped::Childless,
            }
        }
        // SAFETY: waitid fills in pid and status, or leaves them 0.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Reaped::Quiet;
        }
        return match info.si_code {
            libc::CLD_EXITED => Reaped::Exited { pid, code: low_byte(status) },
            libc::CLD_KILLED | libc::CLD_DUMPED => {
                Reaped::Exited { pid, code: low_byte(128 + status) }
            }
            _ => Reaped::Stopped { pid, signal: status },
        };
    }
}

fn low_byte(status: i32) -> u8 {
    u8::try_from(status & 0xff).unwrap_or(u8::MAX)
}
