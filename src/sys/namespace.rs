//! Time namespaces: the witness of a tree that no program takes off by accident
//! ([`crate::process::Namespace`]).
use super::{Errno, Result};
use crate::process::{Namespace, Pid};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use std::ffi::c_int;

/// From linux/sched.h; of clone3(2) since 6.3.
pub const CLONE_NEWTIME: u64 = 0x80;
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

/// Whether this process may give its children time namespaces, and does: one that is in another
/// than the initial one may be a process of an outer opm's incarnation, and that would lose sight.
pub fn can_make() -> bool {
    let initial = is_initial();
    let capable = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
    initial && capable
}

/// Whether this process is in the time namespace that a machine begins with.
pub fn is_initial() -> bool {
    let own = inode(rustix::process::getpid().as_raw_nonzero().get());
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

/// The inode of a process's time namespace. Its first thread may have exited and be in none any
/// more: then any other thread's is the same.
///
/// # Errors
/// EACCES: not ours to read. ENOENT: it is gone, or exiting. ESRCH.
pub fn inode(pid: Pid) -> Result<u64> {
    let of = |path: String| rustix::fs::stat(path).map(|stat| stat.st_ino);
    let first = of(format!("/proc/{pid}/ns/time"));
    if first != Err(Errno::NOENT) {
        return first;
    }
    let threads = super::procfs::numbers(&format!("/proc/{pid}/task"))?.into_iter();
    let mut others = threads.filter(|thread| *thread != pid);
    let found = others.find_map(|thread| of(format!("/proc/{pid}/task/{thread}/ns/time")).ok());
    found.ok_or(Errno::NOENT)
}

/// Our own time namespace; none where it can't be told. For a child between fork and exec, too:
/// it allocates nothing.
pub fn of_self() -> Namespace {
    let mut handle = Handle { bytes: HANDLE_BYTES, kind: 0, id: [0; 2], ns_type: 0, inode: 0 };
    let mut mount: c_int = 0;
    // SAFETY: the path is a NUL-terminated literal, `handle` has room for the bytes that it says,
    // and `mount` is writable.
    let named = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            c"/proc/self/ns/time".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    if named == 0 && handle.kind == FILEID_NSFS && handle.bytes == HANDLE_BYTES {
        let id = u64::from(handle.id[1]) << 32 | u64::from(handle.id[0]);
        return Namespace { id, inode: u64::from(handle.inode) };
    }
    let inode = rustix::fs::stat(c"/proc/self/ns/time").map_or(0, |stat| stat.st_ino);
    Namespace { id: 0, inode }
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

/// Puts this process into a time namespace of its own where clone3(2) could not: before Linux 6.3.
/// unshare(2) alone would leave the program unable to start threads (copy_process() refuses
/// CLONE_VM where the namespace of children is another). False: it stays where it was.
pub fn enter_new() -> bool {
    // SAFETY: unshare has no memory arguments.
    if unsafe { libc::unshare(CLONE_NEWTIME as c_int) } != 0 {
        return false;
    }
    // In a child that shares our memory: nothing here allocates.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(c"/proc/self/ns/time_for_children", flags, Mode::empty())
        .is_ok_and(|fd| enter(fd.as_raw_fd()))
}

/// Ancestors that may be in the initial namespace.
const ANCESTORS_MAX: usize = 64;

/// The time namespace outside of every service: PID 1's. It may have more capabilities than we, and
/// then is not ours to read: but one of our ancestors is the daemon of the service that we are in.
pub fn outermost() -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = |pid: Pid| rustix::fs::open(format!("/proc/{pid}/ns/time"), flags, Mode::empty());
    let is_initial = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_ino == INITIAL);
    let parent = |pid: &Pid| super::procfs::stat(*pid).ok().map(|stat| stat.ppid);
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let ancestors = std::iter::successors(parent(&own), parent).take(ANCESTORS_MAX);
    let find = || ancestors.filter_map(|pid| open(pid).ok()).find(is_initial);
    open(1).ok().or_else(find)
}

/// Puts this process into a time namespace: what leaves a service on purpose is no part of its
/// tree. False: it may not.
pub fn enter(namespace: RawFd) -> bool {
    // SAFETY: plain numbers; a descriptor that isn't open is EBADF.
    unsafe { libc::setns(namespace, CLONE_NEWTIME as c_int) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_names_its_own_namespace_in_two_ways() {
        let own = of_self();
        assert_ne!(own.inode, 0);
        assert_eq!(inode(rustix::process::getpid().as_raw_nonzero().get()), Ok(own.inode));
        if own.id != 0 {
            assert_eq!(is_alive(own), Some(true));
            assert_eq!(is_alive(Namespace { id: u64::MAX / 2, ..own }), Some(false));
        }
    }
}
