//! Signals that are held in the mask of the process and taken out of it one by one: no handler
//! and no descriptor, so nothing runs behind the loop's back and nothing needs closing.
//!
//! Raw system calls, because the C library's own leave 32 and 33 out of every set.

use std::mem;
use std::ptr;
use std::time::Duration;

use rustix::time::Timespec;

use crate::process::Pid;

/// A set of signals: bit N-1 for signal N. 64 bits on every architecture that opm runs on.
pub type Mask = u64;

const MASK_BYTES: usize = size_of::<Mask>();

/// Every signal.
pub const ALL: Mask = !0;

/// Blocks exactly these, and gives what was blocked before.
pub fn set(mask: Mask) -> Mask {
    let mut before: Mask = 0;
    let (call, how) = (libc::SYS_rt_sigprocmask, libc::SIG_SETMASK);
    // SAFETY: both sets are as long as the last argument says; the process has one thread.
    unsafe { libc::syscall(call, how, &raw const mask, &raw mut before, MASK_BYTES) };
    before
}

/// Whether a blocked signal waits to be taken.
pub fn is_pending(signal: i32) -> bool {
    let mut pending: Mask = 0;
    // SAFETY: the set is as long as the last argument says.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut pending, MASK_BYTES) };
    pending >> (signal - 1) & 1 == 1
}

/// A signal that was taken.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Its number, 1 to 64.
    pub signal: i32,
    /// Who sent it; 0 if that lives outside of our PID namespace or is the kernel.
    pub sender: Pid,
    /// A terminal or another part of the kernel sent it, not a process.
    pub is_from_kernel: bool,
}

/// Waits for a signal, for ever if no timeout is given. All must be blocked. `None` when the time
/// is over, and also when a stop interrupted the wait: the caller looks at its clock.
pub fn take(timeout: Option<Duration>) -> Option<Arrival> {
    // What is too long for the kernel's clock is for ever.
    let timeout = timeout.and_then(|span| Timespec::try_from(span).ok());
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let (call, every) = (libc::SYS_rt_sigtimedwait, ALL);
    // SAFETY: an all-zero siginfo is a valid value to be overwritten.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the set is as long as said, the siginfo the kernel's, the time null or valid.
    let taken =
        unsafe { libc::syscall(call, &raw const every, &raw mut info, timeout, MASK_BYTES) };
    let is_from_kernel = info.si_code > 0;
    // SAFETY: whatever a process sends (code <= 0) carries the sender at this place.
    let sender = if is_from_kernel { 0 } else { unsafe { info.si_pid() } };
    (taken > 0).then_some(Arrival { signal: info.si_signo, sender, is_from_kernel })
}
