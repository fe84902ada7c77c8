//! What the allocator keeps: numbers of glibc's, which other C libraries don't have.

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
