//! System calls by the instruction itself, past the C library.
//!
//! A child that shares the daemon's memory also shares what the library keeps for the daemon's
//! thread: errno, the allocator, its locks. So nothing here or in [`child`](super::child) calls
//! the library, allocates or panics (a panic would run the daemon's hook, and re-exec it). A test
//! of `tests/cost` reads the binary's instructions for that.
use std::ffi::{CStr, c_int, c_long, c_uint};

/// An errno is the error: what [`super::Errno`] asserts of its number could panic.
pub type Result<T> = std::result::Result<T, c_int>;

/// Whether a child can be given a stack of its own: for this architecture there is [`clone`].
pub const HAS_CLONE: bool =
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"));

/// What a child does, to its end.
pub type Entry<T> = extern "C" fn(*mut T) -> !;

/// # Safety
/// As the system call's.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn syscall(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel changes rax, rcx and r11 alone; the caller answers for the rest.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// # Safety
/// As the system call's.
#[cfg(target_arch = "aarch64")]
#[inline]
unsafe fn syscall(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel changes x0 alone; the caller answers for the rest.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}

/// # Safety
/// As the system call's.
#[cfg(target_arch = "riscv64")]
#[inline]
unsafe fn syscall(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel changes a0 alone; the caller answers for the rest.
    unsafe {
        std::arch::asm!(
            "ecall",
            in("a7") number,
            inlateout("a0") a => result,
            in("a1") b, in("a2") c, in("a3") d, in("a4") e, in("a5") f,
            options(nostack),
        );
    }
    result
}

/// By the library, where children have a copy of the memory.
///
/// # Safety
/// As the system call's.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
unsafe fn syscall(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    // SAFETY: the caller answers for it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    // SAFETY: errno's location is always valid.
    if result == -1 { -(unsafe { *libc::__errno_location() } as isize) } else { result as isize }
}

fn checked(result: isize) -> Result<usize> {
    if (-4095..0).contains(&result) {
        Err(result.wrapping_neg() as c_int)
    } else {
        Ok(result as usize)
    }
}

/// # Safety
/// As the system call's.
#[inline]
unsafe fn call(number: c_long, args: [usize; 6]) -> Result<usize> {
    // SAFETY: the caller answers for it.
    checked(unsafe { syscall(number, args) })
}

/// clone3(2) of a child that runs `entry` with `argument` on the stack that `args` names.
///
/// # Safety
/// The stack is writable and nobody else's. With CLONE_VM `entry` does what this module's head
/// allows, and neither stack nor argument is touched before the child has exec'd or ended.
pub unsafe fn clone<T>(
    args: &mut libc::clone_args,
    entry: Entry<T>,
    argument: *mut T,
) -> Result<c_int> {
    let (args, size) = (&raw mut *args, size_of::<libc::clone_args>());
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: in the parent as `syscall`; the child never comes back from `entry`.
    unsafe {
        std::arch::asm!(
            "syscall", "test rax, rax", "jnz 2f",
            "xor ebp, ebp", "mov rdi, r9", "call r8", "ud2", "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") args, in("rsi") size, in("r8") entry, in("r9") argument,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: in the parent as `syscall`; the child never comes back from `entry`.
    unsafe {
        std::arch::asm!(
            "svc 0", "cbnz x0, 2f",
            "mov x29, xzr", "mov x30, xzr", "mov x0, x3", "blr x2", "brk #1", "2:",
            in("x8") libc::SYS_clone3, inlateout("x0") args => result,
            in("x1") size, in("x2") entry, in("x3") argument, lateout("x30") _,
        );
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: in the parent as `syscall`; the child never comes back from `entry`.
    unsafe {
        std::arch::asm!(
            "ecall", "bnez a0, 2f",
            "mv s0, zero", "mv a0, a3", "jalr a2", "ebreak", "2:",
            in("a7") libc::SYS_clone3, inlateout("a0") args => result,
            in("a1") size, in("a2") entry, in("a3") argument, lateout("ra") _,
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    {
        let _ = (args, size, entry, argument);
        result = -(libc::ENOSYS as isize);
    }
    checked(result).map(|pid| pid as c_int)
}

/// exit_group(2).
pub fn exit(code: c_int) -> ! {
    loop {
        // SAFETY: ends the process; no destructor of the daemon's runs.
        unsafe { syscall(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

/// A call whose arguments are numbers, which can at worst be refused.
pub fn numbers(number: c_long, args: [usize; 3]) -> Result<usize> {
    let [a, b, c] = args;
    // SAFETY: no memory is read or written. Descriptors are of the child's own table.
    unsafe { call(number, [a, b, c, 0, 0, 0]) }
}

/// prctl(2) of what takes numbers.
pub fn prctl([option, a, b]: [c_int; 3]) -> Result<usize> {
    numbers(libc::SYS_prctl, [option as usize, a as usize, b as usize])
}

/// A call that takes a path after AT_FDCWD, and numbers.
fn at(number: c_long, path: &CStr, flags: c_int, mode: c_uint) -> Result<usize> {
    let (cwd, path) = (libc::AT_FDCWD as usize, path.as_ptr() as usize);
    // SAFETY: the path ends in a NUL; the kernel only reads it.
    unsafe { call(number, [cwd, path, flags as usize, mode as usize, 0, 0]) }
}

/// openat(2), close-on-exec.
pub fn open(path: &CStr, flags: c_int, mode: c_uint) -> Result<c_int> {
    at(libc::SYS_openat, path, flags | libc::O_CLOEXEC, mode).map(|fd| fd as c_int)
}

/// mkdirat(2).
pub fn mkdir(path: &CStr, mode: c_int) -> Result<usize> {
    at(libc::SYS_mkdirat, path, mode, 0)
}

/// Whether there is something of this name, in access(2)'s opinion.
pub fn exists(path: &CStr) -> bool {
    at(libc::SYS_faccessat, path, libc::F_OK, 0).is_ok()
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Result<usize> {
    // SAFETY: the path ends in a NUL; the kernel only reads it.
    unsafe { call(libc::SYS_chdir, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }
}

/// dup3(2) without close-on-exec; nothing to do where they are the same.
pub fn dup_onto(fd: c_int, onto: c_int) -> Result<usize> {
    numbers(libc::SYS_dup3, [fd as usize, onto as usize, 0])
}

/// A copy of a descriptor, close-on-exec, whose number is not below `least`.
pub fn dup_above(fd: c_int, least: usize) -> Result<c_int> {
    let args = [fd as usize, libc::F_DUPFD_CLOEXEC as usize, least];
    numbers(libc::SYS_fcntl, args).map(|fd| fd as c_int)
}

/// close_range(2).
pub fn close_range(first: u32, last: u32, flags: c_uint) -> Result<usize> {
    numbers(libc::SYS_close_range, [first as usize, last as usize, flags as usize])
}

/// close(2).
pub fn close(fd: c_int) {
    let _closed = numbers(libc::SYS_close, [fd as usize, 0, 0]);
}

/// read(2).
pub fn read(fd: c_int, into: &mut [u8]) -> Result<usize> {
    let (start, length) = (into.as_mut_ptr() as usize, into.len());
    // SAFETY: writes at most the slice's length into it.
    unsafe { call(libc::SYS_read, [fd as usize, start, length, 0, 0, 0]) }
}

/// write(2).
pub fn write(fd: c_int, bytes: &[u8]) -> Result<usize> {
    // SAFETY: reads the slice.
    unsafe { call(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) }
}

/// pwrite64(2).
pub fn write_at(fd: c_int, bytes: &[u8], offset: u64) -> Result<usize> {
    let (start, offset) = (bytes.as_ptr() as usize, offset as usize);
    // SAFETY: reads the slice.
    unsafe { call(libc::SYS_pwrite64, [fd as usize, start, bytes.len(), offset, 0, 0]) }
}

/// Inode and mode of a path, or with an empty one those of a descriptor; 0 if it can't be read.
pub fn status(fd: c_int, path: &CStr) -> (u64, c_uint) {
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let (path, into) = (path.as_ptr() as usize, found.as_mut_ptr() as usize);
    let flags = libc::AT_EMPTY_PATH as usize;
    let mask = (libc::STATX_INO | libc::STATX_TYPE) as usize;
    // SAFETY: the path ends in a NUL, and `found` has room for what is written.
    let result = unsafe { call(libc::SYS_statx, [fd as usize, path, flags, mask, into, 0]) };
    // SAFETY: statx is a plain C struct, for which zero is valid.
    let found = unsafe { found.assume_init() };
    if result.is_ok() { (found.stx_ino, c_uint::from(found.stx_mode)) } else { (0, 0) }
}

/// Milliseconds on CLOCK_BOOTTIME; 0 if it can't be read.
pub fn boottime() -> u64 {
    let mut at = [0u64; 2];
    let args = [libc::CLOCK_BOOTTIME as usize, at.as_mut_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: a struct timespec of these architectures is two words of 64 bits.
    let _read = unsafe { call(libc::SYS_clock_gettime, args) };
    let [seconds, nanoseconds] = at;
    seconds.wrapping_mul(1_000).wrapping_add(nanoseconds / 1_000_000)
}

/// setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<usize> {
    let (count, list) = (groups.len(), groups.as_ptr() as usize);
    // SAFETY: reads the slice.
    unsafe { call(libc::SYS_setgroups, [count, list, 0, 0, 0, 0]) }
}

/// sched_setaffinity(2) of this process.
pub fn set_affinity(cpus: &[u64]) -> Result<usize> {
    let (bytes, set) = (size_of_val(cpus), cpus.as_ptr() as usize);
    // SAFETY: reads the slice.
    unsafe { call(libc::SYS_sched_setaffinity, [0, bytes, set, 0, 0, 0]) }
}

/// The capabilities of this process: effective, permitted and inheritable ones, as capset(2) has
/// them in its two structs.
pub type Sets = [u32; 6];

/// _LINUX_CAPABILITY_VERSION_3, and this process.
const SETS_HEADER: [u32; 2] = [0x2008_0522, 0];

/// capget(2).
pub fn capabilities() -> Result<Sets> {
    let mut sets: Sets = [0; 6];
    let (mut header, into) = (SETS_HEADER, sets.as_mut_ptr() as usize);
    // SAFETY: both structs are as long as this version of them is.
    unsafe { call(libc::SYS_capget, [header.as_mut_ptr() as usize, into, 0, 0, 0, 0]) }?;
    Ok(sets)
}

/// capset(2).
pub fn set_capabilities(sets: &Sets) -> Result<usize> {
    let (mut header, sets) = (SETS_HEADER, sets.as_ptr() as usize);
    // SAFETY: as above.
    unsafe { call(libc::SYS_capset, [header.as_mut_ptr() as usize, sets, 0, 0, 0, 0]) }
}

/// name_to_handle_at(2) of a path, followed where it is a link, or with an empty one of a
/// descriptor.
///
/// # Safety
/// `handle` is a struct file_handle that has room for the bytes that it says.
pub unsafe fn handle<T>(fd: c_int, path: &CStr, handle: &mut T) -> Result<usize> {
    let mut mount: c_int = 0;
    let flags = (libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) as usize;
    let (path, into) = (path.as_ptr() as usize, (&raw mut *handle) as usize);
    let args = [fd as usize, path, into, (&raw mut mount) as usize, flags, 0];
    // SAFETY: the path ends in a NUL, `mount` is writable, and the caller answers for `handle`.
    unsafe { call(libc::SYS_name_to_handle_at, args) }
}

/// Sets a soft and a hard limit of this process; gives those before.
pub fn limit(resource: u32, limit: Option<&[u64; 2]>) -> Result<[u64; 2]> {
    let mut before = [0u64; 2];
    let new = limit.map_or(0, |limit| limit.as_ptr() as usize);
    let old = before.as_mut_ptr() as usize;
    // SAFETY: struct rlimit64 is two u64; one is read, the other written.
    unsafe { call(libc::SYS_prlimit64, [0, resource as usize, new, old, 0, 0]) }?;
    Ok(before)
}

/// Of a kernel's set of 64 signals.
const SET_BYTES: usize = 8;

/// Makes a signal's disposition the default: struct sigaction of the kernel is four words at most,
/// and all zero is SIG_DFL.
pub fn default_disposition(signal: c_int) {
    let default = [0usize; 4];
    let args = [signal as usize, default.as_ptr() as usize, 0, SET_BYTES, 0, 0];
    // SAFETY: reads the struct. EINVAL for KILL and STOP does no harm.
    let _set = unsafe { call(libc::SYS_rt_sigaction, args) };
}

/// Takes a signal away that is blocked and pending.
pub fn take_signal(signal: c_int) {
    let set = 1u64.wrapping_shl(signal.wrapping_sub(1).unsigned_abs());
    let at_once = [0u64; 2];
    let (set, time) = ((&raw const set) as usize, at_once.as_ptr() as usize);
    // SAFETY: reads the set and a struct timespec, which is two words at most.
    let _taken = unsafe { call(libc::SYS_rt_sigtimedwait, [set, 0, time, SET_BYTES, 0, 0]) };
}

/// Blocks no signal any more.
pub fn unblock_signals() -> Result<usize> {
    let none = 0u64;
    let args = [libc::SIG_SETMASK as usize, (&raw const none) as usize, 0, SET_BYTES, 0, 0];
    // SAFETY: reads the set.
    unsafe { call(libc::SYS_rt_sigprocmask, args) }
}

/// execve(2): comes back only with why not.
///
/// # Safety
/// Both arrays end in NULL, and what they point to in NUL.
pub unsafe fn exec(
    program: &CStr,
    argv: *const *const std::ffi::c_char,
    env: *const *const std::ffi::c_char,
) -> c_int {
    let args = [program.as_ptr() as usize, argv as usize, env as usize, 0, 0, 0];
    // SAFETY: the kernel reads what the caller answers for.
    unsafe { call(libc::SYS_execve, args) }.err().unwrap_or(libc::EIO)
}
