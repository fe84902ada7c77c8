//! Time namespaces: the witness of a tree that no program takes off by accident
//! ([`crate::process::Namespace`]).
use super::{Errno, Result, own_pid, raw};
use crate::process::{Namespace, Pid};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use std::ffi::{CStr, c_int};

/// From linux/sched.h.
const CLONE_NEWTIME: u64 = 0x80;
/// The inode of the initial time namespace (PROC_TIME_INIT_INO of linux/proc_ns.h).
const INITIAL: u64 = 0xEFFF_FFFA;
/// Where open_by_handle_at(2) looks for namespaces (FD_NSFS_ROOT of linux/fcntl.h).
const NSFS_ROOT: c_int = -10_003;
/// `handle_type` of namespaces (FILEID_NSFS of linux/exportfs.h).
const FILEID_NSFS: c_int = 0xf1;

/// struct file_handle of a namespace: its header, and struct nsfs_file_handle of linux/nsfs.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Handle {
    bytes: u32,
    kind: c_int,
    /// ns_id in two halves, for the struct has an alignment of 4.
    id: [u32; 2],
    ns_type: u32,
    inode: u32,
}

const HANDLE_BYTES: u32 = 16;

/// ioctl(2)s of a pidfd that open the time namespace of its process, and that of the children which
/// it will have (linux/pidfd.h, since Linux 6.11). They cost a fraction of a look into /proc, which
/// the kernel has to undo when the process ends.
const OWN: usize = 0xff07;
const OF_CHILDREN: usize = 0xff08;

/// Whether this process may give its children time namespaces, and does: one that is in another
/// than the initial one may be a process of an outer opm's incarnation, and that would lose sight.
pub fn can_make() -> bool {
    // Without time namespaces (before 5.6, or CONFIG_TIME_NS) nothing can be made.
    let own = inode(own_pid());
    let capable = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
    own == Ok(INITIAL) && capable
}

/// Whether this process is in the time namespace that a machine begins with.
pub fn is_initial() -> bool {
    let own = inode(own_pid());
    matches!(own, Ok(INITIAL) | Err(_))
}

/// Whether CAP_SYS_RESOURCE is within reach of what this process starts. It counts in the initial
/// user namespace alone (prlimit(2): capable(), not ns_capable()).
pub fn may_raise_limits() -> bool {
    let bound =
        rustix::thread::capability_is_in_bounding_set(rustix::thread::CapabilitySet::SYS_RESOURCE);
    let initial = super::procfs::read("/proc/self/uid_map").unwrap_or_default();
    let initial = String::from_utf8_lossy(&initial);
    bound.unwrap_or(true) && initial.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether this kernel gives handles of namespaces and takes them back.
pub fn has_handles() -> bool {
    let own = of_self();
    own.id != 0 && is_alive(own) == Some(true)
}

/// The inode of a process's time namespace. Errors: EACCES: not ours to read. ENOENT: it is gone,
/// or exiting. ESRCH.
pub fn inode(pid: Pid) -> Result<u64> {
    let of = |at: &str| rustix::fs::stat(format!("{at}/ns/time")).map(|stat| stat.st_ino);
    super::procfs::of_any_thread(pid, Errno::NOENT, of)
}

/// Our own time namespace; none where it can't be told.
pub fn of_self() -> Namespace {
    of(c"/proc/self/ns/time")
}

/// The time namespace that a link of /proc leads to. Also for a child that shares our memory.
pub fn of(link: &CStr) -> Namespace {
    at(libc::AT_FDCWD, link)
}

/// The inode of a process's time namespace. None: it has ended, or the kernel can't say.
pub fn inode_of(pidfd: BorrowedFd<'_>) -> Option<u64> {
    let fd = opened(pidfd.as_raw_fd(), OWN).ok()?;
    // SAFETY: a new descriptor that nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::fs::fstat(fd).ok().map(|stat| stat.st_ino)
}

fn opened(pidfd: RawFd, which: usize) -> raw::Result<RawFd> {
    raw::numbers(libc::SYS_ioctl, [pidfd as usize, which, 0]).map(|fd| fd as RawFd)
}

/// As with openat(2); the namespace that `fd` is with an empty path.
fn at(fd: RawFd, path: &CStr) -> Namespace {
    let mut handle = Handle { bytes: HANDLE_BYTES, kind: 0, id: [0; 2], ns_type: 0, inode: 0 };
    // SAFETY: `handle` has room for the bytes that it says.
    let named = unsafe { raw::handle(fd, path, &mut handle) };
    if named.is_ok() && handle.kind == FILEID_NSFS && handle.bytes == HANDLE_BYTES {
        let [low, high] = handle.id;
        let id = u64::from(high) << 32 | u64::from(low);
        return Namespace { id, inode: u64::from(handle.inode) };
    }
    Namespace { id: 0, inode: raw::status(fd, path).0 }
}

/// Whether anything is in a time namespace, or holds it open: the kernel's own word. None where it
/// can't be asked.
pub fn is_alive(namespace: Namespace) -> Option<bool> {
    let [low, high] = [namespace.id as u32, (namespace.id >> 32) as u32];
    let mut handle = Handle {
        bytes: HANDLE_BYTES,
        kind: FILEID_NSFS,
        id: [low, high],
        ns_type: CLONE_NEWTIME as u32,
        inode: u32::try_from(namespace.inode).ok()?,
    };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: `handle` is as long as it says and outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, NSFS_ROOT, &raw mut handle, flags) };
    if fd >= 0 {
        // SAFETY: a new descriptor that nothing else owns.
        drop(unsafe { OwnedFd::from_raw_fd(c_int::try_from(fd).ok()?) });
        return Some(true);
    }
    (super::last_errno() == Errno::STALE).then_some(false)
}

/// Whether exec(2) moves a process into the namespace that it has made for its children: since
/// Linux 6.3 (exec_task_namespaces() of kernel/nsproxy.c). A process that shares its memory with
/// another one gets into a time namespace in no other way.
pub fn exec_enters() -> bool {
    let system = rustix::system::uname();
    let mut numbers = system.release().to_bytes().split(|byte| !byte.is_ascii_digit());
    let mut number = || std::str::from_utf8(numbers.next()?).ok()?.parse::<u32>().ok();
    number().zip(number()) >= Some((6, 3))
}

/// Makes a time namespace for the program of this process, and says which. `at_exec`: the exec
/// enters it ([`exec_enters`]). `own`: its own pidfd. None where there may not be one more. For a
/// child that may share our memory, and has descriptors of its own: what is opened its exec closes.
pub fn make(at_exec: bool, own: Option<RawFd>) -> Namespace {
    const NEW: [usize; 3] = [CLONE_NEWTIME as usize, 0, 0];
    const FOR_CHILDREN: &CStr = c"/proc/self/ns/time_for_children";
    if raw::numbers(libc::SYS_unshare, NEW).is_err() {
        return Namespace::default();
    }
    if !at_exec {
        // Left at that, the program could start no threads before 6.3: copy_process() refuses
        // CLONE_VM where the namespace of children is another.
        let fd = raw::open(FOR_CHILDREN, libc::O_RDONLY, 0);
        if !fd.is_ok_and(enter) {
            return Namespace::default();
        }
    }
    match own.map(|own| opened(own, OF_CHILDREN)) {
        Some(Ok(fd)) => at(fd, c""),
        Some(Err(_)) | None => of(FOR_CHILDREN),
    }
}

/// The time namespace outside of every service: PID 1's. It may have more capabilities than we, and
/// then is not ours to read: but one of our ancestors is the daemon of the service that we are in.
pub fn outermost() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = |pid: Pid| rustix::fs::open(format!("/proc/{pid}/ns/time"), flags, Mode::empty());
    let is_initial = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == INITIAL);
    let find = || super::procfs::ancestors().filter_map(|pid| open(pid).ok()).find(is_initial);
    open(1).ok().or_else(find)
}

/// Puts this process into a time namespace: what leaves a service on purpose is no part of its
/// tree. False: it may not.
pub fn enter(namespace: RawFd) -> bool {
    raw::numbers(libc::SYS_setns, [namespace as usize, CLONE_NEWTIME as usize, 0]).is_ok()
}
