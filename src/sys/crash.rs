//! Becoming another image of this process: on purpose (upgrade), or after a panic or a fatal
//! signal. Children stay children, and the new image adopts from the journal.
//!
//! All that a signal handler needs is made beforehand, and kept for the life of the process.
use super::Errno;
use rustix::fd::AsRawFd;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, Ordering};

/// Tells the new image which descriptor is its listener.
pub const LISTENER_VARIABLE: &str = "OPM_LISTENER";
/// Tells the new image when the one before crashed: milliseconds of CLOCK_BOOTTIME.
const CRASHED_VARIABLE: &str = "OPM_CRASHED_AT";
/// A second crash within this time ends the daemon: services are untouched.
const CRASH_LOOP_MS: u64 = 60_000;
const FATAL: [c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGSYS,
];
/// The digits of [`CRASHED_VARIABLE`], written over in place.
const DIGITS: usize = 20;

struct Image {
    program: CString,
    argv: [*const c_char; 5],
    env: Vec<*mut c_char>,
    crashed_digits: *mut c_char,
}

static LISTENER: AtomicI32 = AtomicI32::new(-1);
static IMAGE: AtomicPtr<Image> = AtomicPtr::new(std::ptr::null_mut());
static CRASHED_AT: AtomicU64 = AtomicU64::new(0);

impl Image {
    fn new(program: &str, listener: c_int) -> Option<Self> {
        let mut env: Vec<*mut c_char> = Vec::new();
        for (name, value) in std::env::vars_os() {
            let name = name.to_str()?.to_owned();
            if name == LISTENER_VARIABLE || name == CRASHED_VARIABLE {
                continue;
            }
            let mut entry = name.into_bytes();
            entry.push(b'=');
            entry.extend_from_slice(std::os::unix::ffi::OsStrExt::as_bytes(value.as_os_str()));
            env.push(CString::new(entry).ok()?.into_raw());
        }
        env.push(
            CString::new(format!("{LISTENER_VARIABLE}={listener}"))
                .ok()?
                .into_raw(),
        );
        let crashed = CString::new(format!("{CRASHED_VARIABLE}={:0DIGITS$}", 0))
            .ok()?
            .into_raw();
        env.push(crashed);
        env.push(std::ptr::null_mut());
        let argv = [c"opm", c"daemon", c"start", c"--foreground"].map(CStr::as_ptr);
        Some(Self {
            program: CString::new(program).ok()?,
            argv: [argv[0], argv[1], argv[2], argv[3], std::ptr::null()],
            env,
            crashed_digits: crashed.wrapping_add(CRASHED_VARIABLE.len() + 1),
        })
    }

    /// Async-signal-safe. Comes back only if it failed.
    fn exec(&self, crashed_at: u64) -> Errno {
        let mut rest = crashed_at;
        for place in (0..DIGITS).rev() {
            let digit = b'0' + (rest % 10) as u8;
            // SAFETY: the entry was made with DIGITS digits at this place and is never freed.
            unsafe { self.crashed_digits.add(place).write(digit.cast_signed()) };
            rest /= 10;
        }
        let listener = LISTENER.load(Ordering::Relaxed);
        // SAFETY: clears a descriptor's close-on-exec flag.
        unsafe { libc::fcntl(listener, libc::F_SETFD, 0) };
        let env = self.env.as_ptr().cast::<*const c_char>();
        // SAFETY: program, argv and environment are NUL-terminated and end in NULL.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), env) };
        let error = std::io::Error::last_os_error();
        // SAFETY: sets it again: we go on, and our children must not get the listener.
        unsafe { libc::fcntl(listener, libc::F_SETFD, libc::FD_CLOEXEC) };
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    }
}

/// Becomes `program` as the daemon of this home. Comes back only if that failed.
pub fn become_image(program: &str, listener: &impl AsRawFd) -> Errno {
    LISTENER.store(listener.as_raw_fd(), Ordering::Relaxed);
    match Image::new(program, listener.as_raw_fd()) {
        Some(image) => image.exec(0),
        None => Errno::INVAL,
    }
}

/// From now on a panic or a fatal signal leaves a report and re-execs this program, once.
pub fn arm(listener: &impl AsRawFd) {
    LISTENER.store(listener.as_raw_fd(), Ordering::Relaxed);
    let crashed = std::env::var(CRASHED_VARIABLE)
        .ok()
        .and_then(|ms| ms.parse().ok());
    CRASHED_AT.store(crashed.unwrap_or(0), Ordering::Relaxed);
    let program = std::env::current_exe().unwrap_or_default();
    let fd = listener.as_raw_fd();
    let Some(image) = program.to_str().and_then(|p| Image::new(p, fd)) else {
        return;
    };
    IMAGE.store(Box::into_raw(Box::new(image)), Ordering::Release);
    std::panic::set_hook(Box::new(|panic| {
        report(&format!("opm: {panic}\n"));
        recover();
    }));
    for signal in FATAL {
        // SAFETY: sigaction is a plain C struct, for which zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fatal as extern "C" fn(c_int) as libc::sighandler_t;
        // ONSTACK: a stack overflow has no stack left; std set an alternate one up.
        action.sa_flags = libc::SA_NODEFER | libc::SA_ONSTACK;
        // SAFETY: the handler calls async-signal-safe functions only.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

fn report(text: &str) {
    // SAFETY: writes the text's bytes.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

extern "C" fn on_fatal(signal: c_int) {
    let text = match signal {
        libc::SIGSEGV => "opm: fatal signal SEGV\n",
        libc::SIGBUS => "opm: fatal signal BUS\n",
        libc::SIGILL => "opm: fatal signal ILL\n",
        libc::SIGFPE => "opm: fatal signal FPE\n",
        libc::SIGABRT => "opm: fatal signal ABRT\n",
        _ => "opm: fatal signal SYS\n",
    };
    report(text);
    recover();
}

/// Re-execs once; a second crash within a minute ends the process, services untouched.
fn recover() {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is writable; clock_gettime is async-signal-safe.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    let now = now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000;
    let before = CRASHED_AT.load(Ordering::Relaxed);
    if before != 0 && now.saturating_sub(before) < CRASH_LOOP_MS {
        report("opm: crashed twice within a minute; leaving, services are untouched\n");
    } else {
        // SAFETY: set once by `arm`, never freed.
        if let Some(image) = unsafe { IMAGE.load(Ordering::Acquire).as_ref() } {
            report("opm: re-executing; services are untouched\n");
            image.exec(now);
            report("opm: cannot re-execute; leaving, services are untouched\n");
        }
    }
    // SAFETY: _exit is async-signal-safe.
    unsafe { libc::_exit(1) };
}
