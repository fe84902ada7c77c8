//! What the daemon has of its own: the limits that it raises for itself and marks itself with, and
//! what its allocator keeps.
use super::Result;
use rustix::mm::{Advice, madvise};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::atomic::{AtomicU64, Ordering};

/// Lowers RLIMIT_LOCKS to `value`, soft and hard. Errors: EPERM: it would raise the hard limit.
pub fn set_locks_limit(value: u64) -> Result<()> {
    setrlimit(Resource::Locks, Rlimit { current: Some(value), maximum: Some(value) })
}

/// The hard RLIMIT_LOCKS that we have; `u64::MAX` is none.
pub fn locks_limit() -> u64 {
    getrlimit(Resource::Locks).maximum.unwrap_or(u64::MAX)
}

/// How many descriptors this process may have.
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// So many, but no more than this part of our descriptors.
pub fn within_open_files(most: usize, part: u64) -> usize {
    usize::try_from(open_files() / part).map_or(most, |room| room.min(most))
}

/// The soft limit of open files that we were started with; 0: not raised.
static NOFILE_BEFORE: AtomicU64 = AtomicU64::new(0);

/// Raises our soft limit of open files to the hard one, and gives back the soft one that services
/// should start with. None if it is at its top already.
pub fn raise_nofile() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.filter(|_| limit.current != limit.maximum)?;
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok()?;
    NOFILE_BEFORE.store(before, Ordering::Relaxed);
    Some(before)
}

/// Undoes [`raise_nofile`] for the next image of this process, which could not tell otherwise what
/// services should start with. Descriptors above the limit stay. Async-signal-safe.
pub fn lower_nofile() {
    let before = NOFILE_BEFORE.load(Ordering::Relaxed);
    if before != 0 {
        let limit = Rlimit { current: Some(before), ..getrlimit(Resource::Nofile) };
        // Failing leaves the raised one.
        setrlimit(Resource::Nofile, limit).ok();
    }
}

/// Keeps large requests and replies out of the heap: each is a mapping of its own, and gone when
/// it is freed. (glibc raises the bound to the largest one that it has seen, unless it is set.)
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator, before anything large was allocated.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10)
    };
}

/// Gives what the heap has free back to the kernel.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: releases pages that hold nothing.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Lets go of our code for as long as nothing happens. Each fault maps the 16 pages around the one
/// that it needs, so that one request maps most of 2 MB, which counts as used (PSS) and is
/// reclaimed late. What is used again is one minor fault for each 64 kB.
pub fn unmap_code() {
    // SAFETY: `unmap` reads what it is given, during the call.
    unsafe { libc::dl_iterate_phdr(Some(unmap), std::ptr::null_mut()) };
}

/// For [`libc::dl_iterate_phdr`], which begins with the program itself; others share libraries'
/// pages with us anyway.
unsafe extern "C" fn unmap(
    info: *mut libc::dl_phdr_info,
    _: usize,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr(3) passes a valid one.
    let info = unsafe { &*info };
    // SAFETY: its headers are mapped for as long as the program.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let is_read_only =
        |it: &&libc::Elf64_Phdr| it.p_type == libc::PT_LOAD && it.p_flags & libc::PF_W == 0;
    let page = rustix::param::page_size() as u64;
    for it in headers.iter().filter(is_read_only) {
        // Whole pages of its own.
        let start = (info.dlpi_addr + it.p_vaddr).next_multiple_of(page);
        let length = (info.dlpi_addr + it.p_vaddr + it.p_memsz).saturating_sub(start) / page * page;
        let start = std::ptr::with_exposed_provenance_mut(start as usize);
        // SAFETY: nobody can have written to this segment, so that the file has what it holds.
        // Failing leaves it mapped.
        unsafe { madvise(start, length as usize, Advice::LinuxDontNeed) }.ok();
    }
    1
}
