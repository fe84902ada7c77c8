//! pidfd: a descriptor that pins one process, whatever becomes of its number.
use super::writer::is_ready;
use super::{Errno, Reach, Result, own_pid};
use crate::process::{Exit, Pid};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

/// From linux/pidfd.h (6.9).
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
/// `statfs.f_type` of pidfs (linux/magic.h).
const PIDFS_MAGIC: u64 = 0x5049_4446;
/// `_IOWR(0xFF, 11, struct pidfd_info)` with the first published size, 64 bytes (6.13).
const PIDFD_GET_INFO: libc::Ioctl = 0xC040_FF0B_u32 as libc::Ioctl;
/// The exit status is asked for, and filled in (6.15).
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// struct pidfd_info of linux/pidfd.h, its first 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    credentials: [u32; 8],
    exit_code: i32,
}

/// pidfd_open(2). Close-on-exec by the kernel's own doing. Errors: ESRCH: no such process, or
/// reaped already. EMFILE, ENFILE, ENOMEM.
pub fn open(pid: i32) -> Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.max(0)).ok_or(Errno::SRCH)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        // The number is a thread's, so no process has it: EINVAL, and ENOENT since 6.15.
        Err(Errno::INVAL | Errno::NOENT) => Err(Errno::SRCH),
        opened => opened,
    }
}

/// Whether this kernel keeps pidfds in pidfs, so that their inodes are identities.
pub fn has_pidfs() -> bool {
    let statfs = open(own_pid()).and_then(rustix::fs::fstatfs);
    statfs.is_ok_and(|statfs| statfs.f_type as u64 == PIDFS_MAGIC)
}

/// The inode of a pidfd; an identity only with [`has_pidfs`].
pub fn inode(pidfd: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(pidfd).ok().map(|stat| stat.st_ino)
}

/// Whether the whole thread group has exited: POLLIN. (State `Z` in /proc/PID/stat is not that:
/// it says so too when only the first thread has exited.)
pub fn is_dead(pidfd: &OwnedFd) -> Result<bool> {
    is_ready(pidfd, PollFlags::IN, 0)
}

/// pidfd_send_signal(2); signal 0 only asks. Errors: ESRCH: gone, or (for the group) empty. EPERM.
/// EINVAL: this kernel has no group flag.
pub fn signal(pidfd: &OwnedFd, signal: i32, reach: Reach) -> Result<()> {
    let flags = match reach {
        Reach::Process => 0,
        Reach::Group => PIDFD_SIGNAL_PROCESS_GROUP,
    };
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks the kernel to fill in its own.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null, flags)
    };
    if result == 0 {
        return Ok(());
    }
    Err(super::last_errno())
}

/// Whether this kernel knows the group flag: an unknown flag is EINVAL before anything else.
pub fn has_group_signal() -> bool {
    open(own_pid()).is_ok_and(|own| signal(&own, 0, Reach::Group) != Err(Errno::INVAL))
}

/// waitid(2) on a child of ours, without waiting. Errors: ECHILD: not our child, or reaped already.
pub fn wait(child: WaitId<'_>, reap: bool) -> Result<Option<Exit>> {
    let look = if reap { WaitIdOptions::empty() } else { WaitIdOptions::NOWAIT };
    let status = waitid(child, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | look)?;
    Ok(status.map(|status| {
        let by_signal = || Exit::Signal(status.terminating_signal().unwrap_or(0));
        status.exit_status().map_or_else(by_signal, Exit::Code)
    }))
}

/// Whether this kernel answers PIDFD_GET_INFO with exit statuses.
pub fn has_get_info() -> bool {
    // Asked of a live process the mask stays without the exit bit, but the call succeeds.
    open(own_pid()).is_ok_and(|own| info(&own).is_ok())
}

fn info(pidfd: &OwnedFd) -> Result<PidfdInfo> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request's size field says 64 bytes, which is the size of `info`.
    if unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) } == -1 {
        return Err(super::last_errno());
    }
    Ok(info)
}

/// The exit status of a process that was somebody else's child, once that one has reaped it.
pub fn exit_status(pidfd: &OwnedFd) -> Option<Exit> {
    let info = info(pidfd).ok()?;
    (info.mask & PIDFD_INFO_EXIT != 0).then(|| Exit::from_wait_status(info.exit_code))
}

const _: () = assert!(size_of::<PidfdInfo>() == 64);

/// What pins a process.
#[derive(Debug)]
pub enum Held {
    /// Any process.
    Pidfd(OwnedFd),
    /// A child of ours that nobody has waited for: its number stays its own, and that of its group,
    /// until we reap it (credentials(7)). For those that are more than there are descriptors.
    Child(Pid),
}

impl Held {
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Pidfd(pidfd) => Some(pidfd),
            Self::Child(_) => None,
        }
    }

    pub fn is_dead(&self) -> Result<bool> {
        match self {
            Self::Pidfd(pidfd) => is_dead(pidfd),
            Self::Child(_) => match self.wait(false) {
                Err(Errno::CHILD) => Ok(true),
                found => found.map(|exit| exit.is_some()),
            },
        }
    }

    pub fn signal(&self, signal: i32, reach: Reach) -> Result<()> {
        match self {
            Self::Pidfd(pidfd) => self::signal(pidfd, signal, reach),
            Self::Child(pid) => super::kill(*pid, signal, reach),
        }
    }

    /// Errors: ECHILD: no child of ours.
    pub fn wait(&self, reap: bool) -> Result<Option<Exit>> {
        match self {
            Self::Pidfd(pidfd) => wait(WaitId::PidFd(pidfd.as_fd()), reap),
            Self::Child(pid) => {
                let pid = rustix::process::Pid::from_raw(*pid).ok_or(Errno::CHILD)?;
                wait(WaitId::Pid(pid), reap)
            }
        }
    }
}
