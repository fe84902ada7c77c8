//! Signals as a descriptor: blocked, and read from a signalfd in the loop.
use super::{Result, last_errno};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks the given signals and no other: those that came before anybody reads them wait.
pub fn hold(signals: &[i32]) {
    // SAFETY: sigset_t is a plain C struct, for which zero is valid (and empty on Linux).
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: `set` is a valid set; a number out of range is EINVAL.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    // SAFETY: `set` is a valid set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Whether one of these, which are blocked, was sent to us.
pub fn is_pending(signals: &[i32]) -> bool {
    // SAFETY: sigset_t is a plain C struct, for which zero is valid (and empty on Linux).
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
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
    // SAFETY: sigset_t is a plain C struct, for which zero is valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: `set` is a valid set; a number out of range is EINVAL.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
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

/// Lowers RLIMIT_LOCKS to `value`, soft and hard.
///
/// # Errors
/// EPERM: it would raise the hard limit.
pub fn set_locks_limit(value: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: reads the limit from a valid struct.
    if unsafe { libc::setrlimit(libc::RLIMIT_LOCKS, &raw const limit) } == -1 {
        return Err(last_errno());
    }
    Ok(())
}

/// The hard RLIMIT_LOCKS that we have; `u64::MAX` is none.
pub fn locks_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    unsafe { libc::getrlimit(libc::RLIMIT_LOCKS, &raw mut limit) };
    limit.rlim_max
}

/// The soft limit that we were started with; 0: not raised.
static NOFILE_BEFORE: AtomicU64 = AtomicU64::new(0);

/// Raises our soft limit of open files to the hard one, and gives back the limit that services
/// should start with. None if it can't be read or is at its top already.
pub fn raise_nofile() -> Option<libc::rlimit> {
    let limit = nofile()?;
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: reads the limit from a valid struct.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) };
    if result == -1 || limit.rlim_cur == limit.rlim_max {
        return None;
    }
    NOFILE_BEFORE.store(limit.rlim_cur, Ordering::Relaxed);
    Some(limit)
}

/// Undoes [`raise_nofile`] for the next image of this process, which could not tell otherwise what
/// services should start with. Descriptors above the limit stay. Async-signal-safe.
pub fn lower_nofile() {
    let before = NOFILE_BEFORE.load(Ordering::Relaxed);
    let Some(limit) = nofile().filter(|_| before != 0) else {
        return;
    };
    let lowered = libc::rlimit { rlim_cur: before, ..limit };
    // SAFETY: reads the limit from a valid struct. Failing leaves the raised one.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const lowered) };
}

fn nofile() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (read == 0).then_some(limit)
}

/// Closes every descriptor from 3 on that we inherited, but `kept`.
pub fn close_inherited(kept: &[u32]) {
    let mut first = 3;
    loop {
        let next = kept.iter().copied().filter(|fd| *fd >= first).min();
        let last = next.map_or(u32::MAX, |fd| fd - 1);
        if first <= last {
            close_range(first, last);
        }
        match next {
            Some(fd) => first = fd + 1,
            None => return,
        }
    }
}

fn close_range(first: u32, last: u32) {
    // SAFETY: closes descriptors that nothing in this process owns yet; called at the start.
    // (close_range is as old as the oldest kernel that we run on but for seccomp filters.)
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1 {
        for fd in first.cast_signed()..=last.min(4096).cast_signed() {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Takes over a descriptor that an earlier image of this process left open for us.
pub fn inherited(fd: i32) -> Option<OwnedFd> {
    // SAFETY: asks for a descriptor's flags.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags == -1 {
        return None;
    }
    // SAFETY: it is open, and by the upgrade's contract nothing else in this image owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(fd)
}

/// Lets a descriptor survive the next exec.
///
/// # Errors
/// EBADF.
pub fn keep_across_exec(fd: &impl AsRawFd) -> Result<()> {
    // SAFETY: clears a descriptor's flags.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) } == -1 {
        return Err(last_errno());
    }
    Ok(())
}

/// Puts `new` where `old` is, close-on-exec: whoever knows the number has the new one from now on.
///
/// # Errors
/// What dup3(2) says; then `old` is as it was.
pub fn replace(old: &impl AsRawFd, new: OwnedFd) -> Result<()> {
    // SAFETY: both are open and ours; the owner of `old` goes on owning the number.
    if unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) } == -1 {
        return Err(last_errno());
    }
    Ok(())
}

/// Keeps large requests and replies out of the heap: each is a mapping of its own, and gone when
/// it is freed. (glibc raises the bound to the largest one that it has seen, unless it is set.)
pub fn keep_heap_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator, before anything large was allocated.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10)
    };
}

/// Gives what the heap has free back to the kernel.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: releases pages that hold nothing.
    unsafe {
        libc::malloc_trim(0)
    };
}
