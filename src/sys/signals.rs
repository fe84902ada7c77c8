//! Signals without handlers: held in the mask of the process, and taken out of it one by one or
//! through a signalfd, so that nothing runs behind a loop's back.
//!
//! Raw system calls, because the C library's own leave 32 and 33 out of every set.
use super::{Errno, Reach, Result, last_errno, own_pid, raw};
use crate::process::Pid;
use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use rustix::time::Timespec;
use std::ffi::c_int;
use std::mem;
use std::ptr;
use std::time::Duration;

/// A set of signals: bit N-1 for signal N. 64 bits on every architecture that opm runs on.
pub type Mask = u64;

const MASK_BYTES: usize = size_of::<Mask>();

/// Every signal.
pub const ALL: Mask = !0;

fn mask_of(signals: &[i32]) -> Mask {
    signals.iter().fold(0, |mask, signal| mask | 1 << (signal - 1))
}

fn change_mask(how: c_int, mask: Mask) -> Mask {
    let mut before: Mask = 0;
    let (call, new) = (libc::SYS_rt_sigprocmask, &raw const mask);
    // SAFETY: both sets are as long as the last argument says; the process has one thread.
    unsafe { libc::syscall(call, how, new, &raw mut before, MASK_BYTES) };
    before
}

/// Blocks exactly these, and gives what was blocked before.
pub fn set_mask(mask: Mask) -> Mask {
    change_mask(libc::SIG_SETMASK, mask)
}

/// Blocks the given signals and no other: those that came before anybody reads them wait.
pub fn hold(signals: &[i32]) {
    set_mask(mask_of(signals));
}

/// Whether one of these, which are blocked, waits to be taken.
pub fn is_pending(signals: &[i32]) -> bool {
    let mut pending: Mask = 0;
    // SAFETY: the set is as long as the last argument says.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut pending, MASK_BYTES) };
    pending & mask_of(signals) != 0
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

/// Blocks the given signals and returns the descriptor that receives them. Errors: EMFILE, ENFILE,
/// ENOMEM.
pub fn signalfd(signals: &[i32]) -> Result<OwnedFd> {
    let mask = mask_of(signals);
    change_mask(libc::SIG_BLOCK, mask);
    let (new, flags): (RawFd, _) = (-1, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
    // SAFETY: the set is as long as the argument behind it says.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, new, &raw const mask, MASK_BYTES, flags) };
    match RawFd::try_from(fd) {
        // SAFETY: a new descriptor that nothing else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(last_errno()),
    }
}

/// Takes the pending signals' numbers.
pub fn drain(signalfd: &OwnedFd, mut each: impl FnMut(i32)) {
    const RECORD: usize = size_of::<libc::signalfd_siginfo>();
    let mut records = [0u8; 16 * RECORD];
    while let Ok(length) = rustix::io::read(signalfd, &mut records) {
        for record in records[..length].chunks_exact(RECORD) {
            // ssi_signo is the first u32.
            if let Some(number) = record.first_chunk::<4>() {
                each(u32::from_ne_bytes(*number).cast_signed());
            }
        }
        if length < records.len() {
            return;
        }
    }
}

/// What the daemon ignores, for a write to say so instead: EPIPE, EFBIG (RLIMIT_FSIZE).
pub const IGNORED: [i32; 2] = [libc::SIGPIPE, libc::SIGXFSZ];

/// Makes every disposition the default, but for [`IGNORED`]: whoever started us may have
/// left SIGCHLD ignored, and then waitid(2) says ECHILD; ignored signals survive exec.
pub fn reset_dispositions() {
    (1..=64).for_each(raw::default_disposition);
    for signal in IGNORED {
        // SAFETY: ignores a signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// kill(2), by number: for our own children that are not reaped, for their groups, which need not
/// be there yet, and for ourselves. Errors: ESRCH: there is no such process or group. EPERM.
pub fn kill(pid: Pid, signal: i32, reach: Reach) -> Result<()> {
    let target = if reach == Reach::Group { -pid } else { pid };
    let sent = raw::numbers(libc::SYS_kill, [target as usize, signal as usize, 0]);
    sent.map(drop).map_err(Errno::from_raw_os_error)
}

/// PID 1 only: signals every process of the namespace but ourselves.
pub fn kill_everybody(signal: i32) {
    assert_eq!(own_pid(), 1, "outside a namespace of our own this would reach strangers");
    // To PID 1 the -1 means what it is responsible for.
    raw::numbers(libc::SYS_kill, [usize::MAX, signal as usize, 0]).ok();
}
