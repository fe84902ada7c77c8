//! Ourselves and others: numbers, groups, signals to them.
//!
//! It must never signal a number that may have been given to somebody else meanwhile: an own
//! child's is pinned until we reap it, a group's by its leader's pidfd.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Since Linux 6.9: the group of the pidfd's process, even when that is gone.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 4;

pub(super) fn last_errno() -> i32 {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() }
}

/// This process's number.
pub fn own_pid() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getpid() }
}

/// The parent's number, 0 if it lives outside our PID namespace.
pub fn parent_pid() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getppid() }
}

/// Makes orphaned descendants ours. Whether the kernel agreed.
pub fn set_subreaper() -> bool {
    // SAFETY: integers only.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0 }
}

/// Whether this process was made a subreaper before its exec.
pub fn is_subreaper_set() -> bool {
    let mut answer: libc::c_int = 0;
    // SAFETY: the kernel writes one int to the address given.
    let done = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut answer, 0, 0, 0) };
    done == 0 && answer != 0
}

/// Asks for a signal when the parent dies. Whether the kernel agreed.
pub fn set_parent_death_signal(signal: i32) -> bool {
    // SAFETY: integers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) == 0 }
}

/// Closes every descriptor from 3 up: the program has them, and a copy here would keep pipes from
/// ending and file systems from being unmounted.
pub fn close_inherited() {
    /// Kernels before 5.9 have no close_range; nobody inherits more than this.
    const CLOSED_ONE_BY_ONE_MAX: i32 = 4096;
    // SAFETY: nothing in this process owns a descriptor above 2 at this time.
    if unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) } == 0 {
        return;
    }
    for fd in 3..CLOSED_ONE_BY_ONE_MAX {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// Signals one process; false if there is none.
pub fn signal_one(pid: i32, signal: i32) -> bool {
    // SAFETY: integers only. The number is that of a child that is not reaped, our own, or, where
    // we are PID 1, one of our namespace's.
    unsafe { libc::kill(pid, signal) == 0 }
}

/// Signals a group by its leader, who is our child and not reaped; false if there is no such
/// group (yet).
pub fn signal_group(leader: i32, signal: i32) -> bool {
    // SAFETY: integers only.
    unsafe { libc::kill(-leader, signal) == 0 || last_errno() == libc::EPERM }
}

/// PID 1 only: signals every process of the namespace but ourselves.
pub fn signal_everyone(signal: i32) {
    assert_eq!(own_pid(), 1, "outside a namespace of our own this would reach strangers");
    // SAFETY: integers only; as PID 1 the -1 means what this PID 1 is responsible for.
    unsafe { libc::kill(-1, signal) };
}

/// A process group that can be signalled after its leader is gone.
#[derive(Debug)]
pub struct Group {
    leader: i32,
    pin: Option<OwnedFd>,
}

impl Group {
    /// The leader must be our child, not reaped yet.
    pub fn of(leader: i32) -> Group {
        // SAFETY: integers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, leader, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
        // SAFETY: the kernel has just made this descriptor for us.
        let pin = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Group { leader, pin }
    }

    /// By its number alone, which is its own while it has members.
    pub fn unpinned(leader: i32) -> Group {
        Group { leader, pin: None }
    }

    /// Signals it (0 only asks). False once no member is left, zombies included.
    pub fn signal(&self, signal: i32) -> bool {
        if let Some(pin) = &self.pin {
            let (fd, flags) = (pin.as_raw_fd(), PIDFD_SIGNAL_PROCESS_GROUP);
            let call = libc::SYS_pidfd_send_signal;
            let info = std::ptr::null::<libc::siginfo_t>();
            // SAFETY: a null siginfo asks for the one that kill would send.
            if unsafe { libc::syscall(call, fd, signal, info, flags) } == 0 {
                return true;
            }
            match last_errno() {
                libc::ESRCH => return false,
                libc::EPERM => return true,
                // EINVAL: before 6.9; ENOSYS: a filter.
                _ => {}
            }
        }
        signal_group(self.leader, signal)
    }
}
