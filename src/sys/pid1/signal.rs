//! Signal masks, dispositions, and the one place where a signal is taken.
//!
//! Raw system calls, because glibc's wrappers leave 32 and 33 out of every set. It must never
//! install a handler.

use std::mem;
use std::ptr;
use std::time::Duration;

/// The highest signal number there is.
pub const SIGNAL_MAX: i32 = 64;
/// What a shell calls `RTMIN`: glibc keeps 32 and 33 for itself.
pub const REAL_TIME_FIRST: i32 = 34;
/// What a shell calls `RTMAX`.
pub const REAL_TIME_LAST: i32 = 64;

/// The kernel's sigset is 64 bits wide on every architecture that Rust's std knows but MIPS.
const SET_BYTES: usize = size_of::<u64>();
static ALL: u64 = !0;

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Blocks every signal and returns what was blocked before.
pub(super) fn block_all() -> u64 {
    let mut before = 0u64;
    let (how, set) = (libc::SIG_SETMASK, &raw const ALL);
    // SAFETY: both sets are 8 bytes, as the last argument says; the process has one thread.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, set, &raw mut before, SET_BYTES) };
    before
}

/// Blocks exactly the given set.
pub(super) fn set_mask(mask: u64) {
    let (how, none) = (libc::SIG_SETMASK, ptr::null_mut::<u64>());
    // SAFETY: the set is 8 bytes, as the last argument says; no old set is asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask, none, SET_BYTES) };
}

pub(super) fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is a valid value to be overwritten.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: a null new action only reads the old one into a struct of the right type.
    let answer = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    answer == 0 && action.sa_sigaction == libc::SIG_IGN
}

pub(super) fn set_default(signal: i32) {
    // SAFETY: SIG_DFL is no handler, so nothing can run.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

pub(super) fn set_ignored(signal: i32) {
    // SAFETY: SIG_IGN is no handler, so nothing can run.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// One signal, taken.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Its number, 1 to [`SIGNAL_MAX`].
    pub signal: i32,
    /// The sender, 0 if it lives outside our PID namespace or is the kernel.
    pub sender: i32,
    /// A terminal or another part of the kernel sent it, not a process.
    pub is_from_kernel: bool,
}

/// Waits for a signal, for ever if no timeout is given. `None` when the time is over, and also
/// when the wait was interrupted by a stop: the caller looks at its clock.
pub fn next_arrival(timeout: Option<Duration>) -> Option<Arrival> {
    let limit = timeout.map(|span| libc::timespec {
        tv_sec: libc::time_t::try_from(span.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(span.subsec_nanos().cast_signed()),
    });
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: an all-zero siginfo is a valid value to be overwritten.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    let (set, number) = (&raw const ALL, libc::SYS_rt_sigtimedwait);
    // SAFETY: the set is 8 bytes, the siginfo is the kernel's 128, the time is null or valid.
    let taken = unsafe { libc::syscall(number, set, &raw mut info, limit, SET_BYTES) };
    if taken <= 0 {
        return None;
    }
    let is_from_kernel = info.si_code > 0;
    let sender = match is_from_kernel {
        true => 0,
        // SAFETY: whatever a process sends (code <= 0) carries the sender at this place.
        false => unsafe { info.si_pid() },
    };
    Some(Arrival { signal: info.si_signo, sender, is_from_kernel })
}

/// Whether a signal waits to be taken.
pub fn is_pending(signal: i32) -> bool {
    let mut pending = 0u64;
    // SAFETY: the set is 8 bytes, as the last argument says.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut pending, SET_BYTES) };
    pending & bit(signal) != 0
}

/// Stops this process until somebody sends CONT. A PID 1 can't be stopped: nothing happens.
pub fn stop_oneself() {
    // SAFETY: signals this process alone; SIGSTOP takes effect before kill returns.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}
