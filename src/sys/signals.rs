//! Signals as a descriptor: blocked, and read from a signalfd in the loop.
use super::{Result, last_errno};
use rustix::fd::{FromRawFd, OwnedFd};

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigset_t is a plain C struct, for which zero is valid (and empty on Linux).
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: `set` is a valid set; a number out of range is EINVAL.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// Blocks the given signals and no other: those that came before anybody reads them wait.
pub fn hold(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: `set` is a valid set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Whether one of these, which are blocked, was sent to us.
pub fn is_pending(signals: &[i32]) -> bool {
    let mut set = set_of(&[]);
    // SAFETY: `set` is writable.
    unsafe { libc::sigpending(&raw mut set) };
    // SAFETY: `set` is a valid set; a number out of range is EINVAL, which is not 1.
    let has = |signal| unsafe { libc::sigismember(&raw const set, signal) } == 1;
    signals.iter().copied().any(has)
}

/// Blocks the given signals and returns the descriptor that receives them.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn signalfd(signals: &[i32]) -> Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: `set` is a valid set.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    // SAFETY: `set` is a valid set.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd == -1 {
        return Err(last_errno());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
    for signal in 1..=64 {
        // SAFETY: sets a default disposition; EINVAL for KILL, STOP and libc's own is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    for signal in IGNORED {
        // SAFETY: ignores a signal.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
