//! Becoming another image of this process: on purpose (upgrade), or after a panic or a fatal
//! signal. Children stay children, and the new image adopts from the journal.
//!
//! All that a signal handler needs is made beforehand, and kept for the life of the process.
use super::linux::milliseconds_of;
use super::{Errno, last_errno, limits, raw, signals};
use crate::service::environment::HOME_VARIABLE;
use rustix::fd::{AsRawFd, RawFd};
use rustix::process::WaitOptions;
use std::ffi::{CStr, CString, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Tells the new image which descriptor is its listener.
pub const LISTENER_VARIABLE: &str = "OPM_LISTENER";
/// Tells the new image which descriptor holds the lock that says that PID 1 lives.
pub const ALIVE_VARIABLE: &str = "OPM_ALIVE";
/// Tells the new image where the first one was called, for the daemon itself is at the root.
pub const DIRECTORY_VARIABLE: &str = "OPM_CALLED_IN";
/// Tells the new image to carry out what its process file says now.
const RELOAD_VARIABLE: &str = "OPM_RELOAD";
/// Tells the new image when the one before crashed: milliseconds of CLOCK_BOOTTIME.
const CRASHED_VARIABLE: &str = "OPM_CRASHED_AT";
/// A second crash within this time ends the daemon: services are untouched. PID 1 can't end
/// without them, so it waits a little and goes on.
const CRASH_LOOP_MS: u64 = 60_000;
/// What PID 1 waits after a second crash.
const CRASH_PAUSE: Duration = Duration::from_secs(1);
/// Each with what is said of it.
const FATAL: [(c_int, &str); 6] = [
    (libc::SIGSEGV, "opm: fatal signal SEGV\n"),
    (libc::SIGBUS, "opm: fatal signal BUS\n"),
    (libc::SIGILL, "opm: fatal signal ILL\n"),
    (libc::SIGFPE, "opm: fatal signal FPE\n"),
    (libc::SIGABRT, "opm: fatal signal ABRT\n"),
    (libc::SIGSYS, "opm: fatal signal SYS\n"),
];
/// Ten times what the handler and the kernel's frame for a processor with wide registers need.
const HANDLER_STACK_BYTES: usize = 128 << 10;
/// More sockets than this do not outlive a daemon by an exec, but by those that have them.
const SOCKETS_MAX: usize = 256;
/// The digits of [`CRASHED_VARIABLE`], written over in place.
const DIGITS: usize = 20;

struct Image {
    program: CString,
    argv: Vec<*const c_char>,
    env: Vec<*mut c_char>,
    crashed_digits: *mut u8,
}

static LISTENER: AtomicI32 = AtomicI32::new(-1);
static ALIVE: AtomicI32 = AtomicI32::new(-1);
static RELOAD: AtomicBool = AtomicBool::new(false);
/// Sockets that are held for services: later images find them by what they are.
static SOCKETS: [AtomicI32; SOCKETS_MAX] = [const { AtomicI32::new(-1) }; SOCKETS_MAX];
static HOME: Mutex<Option<String>> = Mutex::new(None);
static DIRECTORY: OnceLock<String> = OnceLock::new();
static WORDS: OnceLock<Vec<CString>> = OnceLock::new();
static IMAGE: AtomicPtr<Image> = AtomicPtr::new(std::ptr::null_mut());
static CRASHED_AT: AtomicU64 = AtomicU64::new(0);

impl Image {
    fn new(program: &str, listener: c_int) -> Option<Self> {
        let alive = ALIVE.load(Ordering::Relaxed);
        let home = HOME.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let own = [
            (LISTENER_VARIABLE, Some(listener.to_string())),
            (HOME_VARIABLE, home.or_else(|| std::env::var(HOME_VARIABLE).ok())),
            (DIRECTORY_VARIABLE, DIRECTORY.get().cloned()),
            (ALIVE_VARIABLE, (alive != -1).then(|| alive.to_string())),
            (RELOAD_VARIABLE, RELOAD.load(Ordering::Relaxed).then(|| "1".to_owned())),
            (CRASHED_VARIABLE, Some(format!("{:0DIGITS$}", 0))),
        ];
        let is_anothers = |name: &OsString| own.iter().all(|(own, _)| name != own);
        let inherited = std::env::vars_os().filter(|(name, _)| is_anothers(name));
        // Any bytes: one name that is no UTF-8 must not cost the daemon its next image.
        let inherited =
            inherited.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
        let said = own.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?)));
        let said = said.map(|(name, value)| format!("{name}={value}").into_bytes());
        let entries = inherited.chain(said).map(|entry| Some(CString::new(entry).ok()?.into_raw()));
        let mut env = entries.collect::<Option<Vec<*mut c_char>>>()?;
        let crashed = env.last().copied()?;
        env.push(std::ptr::null_mut());
        let usual = [c"opm", c"daemon", c"start", c"--foreground"].map(CStr::as_ptr);
        let mut argv = match WORDS.get() {
            Some(words) => words.iter().map(|word| word.as_ptr()).collect(),
            None => usual.to_vec(),
        };
        argv.push(std::ptr::null());
        Some(Self {
            program: CString::new(program).ok()?,
            argv,
            env,
            crashed_digits: crashed.wrapping_add(CRASHED_VARIABLE.len() + 1).cast(),
        })
    }

    /// Async-signal-safe. Comes back only if it failed.
    fn exec(&self, crashed_at: u64) -> Errno {
        let mut rest = crashed_at;
        for place in (0..DIGITS).rev() {
            let digit = b'0' + (rest % 10) as u8;
            // SAFETY: the entry was made with DIGITS digits at this place and is never freed.
            unsafe { self.crashed_digits.add(place).write(digit) };
            rest /= 10;
        }
        let keep = |flags: c_int| {
            let kept = [&LISTENER, &ALIVE].into_iter().chain(&SOCKETS);
            for fd in kept.map(|fd| fd.load(Ordering::Relaxed)).filter(|fd| *fd != -1) {
                let args = [fd, libc::F_SETFD, flags].map(|number| number as usize);
                raw::numbers(libc::SYS_fcntl, args).ok();
            }
        };
        keep(0);
        limits::lower_nofile();
        let env = self.env.as_ptr().cast::<*const c_char>();
        // SAFETY: program, argv and environment are NUL-terminated and end in NULL.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), env) };
        let errno = last_errno();
        limits::raise_nofile();
        // We go on, and our children must not get them.
        keep(libc::FD_CLOEXEC);
        errno
    }
}

/// Later images get these words, program first, instead of the daemon's own, and this home; for
/// them they are called in this directory.
pub fn call_by(words: &[String], home: &str, directory: Option<&str>) {
    *HOME.lock().unwrap_or_else(PoisonError::into_inner) = Some(home.to_owned());
    if let Some(directory) = directory {
        DIRECTORY.set(directory.to_owned()).ok();
    }
    let words: Option<Vec<CString>> = words.iter().map(|w| CString::new(w.as_str()).ok()).collect();
    if let Some(words) = words {
        WORDS.set(words).ok();
    }
}

/// Later images serve this home: ours was moved.
pub fn move_to(home: &str) {
    *HOME.lock().unwrap_or_else(PoisonError::into_inner) = Some(home.to_owned());
    prepare_image();
}

/// The next image is to carry out what its process file says then.
pub fn reload_next() {
    RELOAD.store(true, Ordering::Relaxed);
}

/// Whether this image is to.
pub fn is_reload() -> bool {
    std::env::var_os(RELOAD_VARIABLE).is_some()
}

/// Later images inherit this descriptor, by [`ALIVE_VARIABLE`].
pub fn keep_alive(fd: &impl AsRawFd) {
    ALIVE.store(fd.as_raw_fd(), Ordering::Relaxed);
}

/// Later images inherit these.
pub fn keep_sockets(numbers: impl Iterator<Item = RawFd>) {
    for (kept, number) in SOCKETS.iter().zip(numbers.chain(std::iter::repeat(-1))) {
        kept.store(number, Ordering::Relaxed);
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

/// Becomes this program again, with the words that it was called with and the signals as at a
/// start. Comes back only if that failed.
pub fn become_again() -> Errno {
    // Not std::env::args_os, which knows nothing with musl and a `main` of our own.
    let words = match super::procfs::read("/proc/self/cmdline") {
        Ok(words) => words,
        Err(errno) => return errno,
    };
    let ends = words.split_inclusive(|byte| *byte == 0).map(|word| word.as_ptr().cast::<c_char>());
    let argv: Vec<*const c_char> = ends.chain([std::ptr::null()]).collect();
    signals::set_mask(0);
    // SAFETY: each of the words ends in NUL, and lives here; `argv` ends in NULL.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::execv(c"/proc/self/exe".as_ptr(), argv.as_ptr());
    }
    last_errno()
}

/// From now on a panic or a fatal signal leaves a report and re-execs this program, once.
pub fn arm(listener: &impl AsRawFd) {
    LISTENER.store(listener.as_raw_fd(), Ordering::Relaxed);
    let crashed = std::env::var(CRASHED_VARIABLE).ok().and_then(|ms| ms.parse().ok());
    CRASHED_AT.store(crashed.unwrap_or(0), Ordering::Relaxed);
    if !prepare_image() {
        return;
    }
    std::panic::set_hook(Box::new(|panic| {
        report(&format!("opm: {panic}\n"));
        recover();
    }));
    // A stack overflow leaves a handler no stack. What of this one is not used takes no memory.
    let stack = Box::leak(vec![0u8; HANDLER_STACK_BYTES].into_boxed_slice());
    let (ss_sp, ss_size) = (stack.as_mut_ptr().cast(), stack.len());
    let stack = libc::stack_t { ss_sp, ss_flags: 0, ss_size };
    // SAFETY: the stack is as long as said, and stays for ever.
    unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
    for (signal, _) in FATAL {
        // SAFETY: sigaction is a plain C struct, for which zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fatal as extern "C" fn(c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_NODEFER | libc::SA_ONSTACK;
        // SAFETY: the handler calls async-signal-safe functions only.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// Makes what a crash will become. The one before stays: a handler may hold it.
fn prepare_image() -> bool {
    let program = std::env::current_exe().unwrap_or_default();
    let listener = LISTENER.load(Ordering::Relaxed);
    let Some(image) = program.to_str().and_then(|p| Image::new(p, listener)) else {
        return false;
    };
    IMAGE.store(Box::into_raw(Box::new(image)), Ordering::Release);
    true
}

fn report(text: &str) {
    raw::write(2, text.as_bytes()).ok();
}

extern "C" fn on_fatal(signal: c_int) {
    FATAL.iter().filter(|(known, _)| *known == signal).for_each(|(_, text)| report(text));
    recover();
}

/// Re-execs once; a second crash within a minute ends the process, services untouched.
fn recover() {
    let now = milliseconds_of(rustix::time::ClockId::Boottime);
    let before = CRASHED_AT.load(Ordering::Relaxed);
    let is_init = rustix::process::getpid().is_init();
    let again = before != 0 && now.saturating_sub(before) < CRASH_LOOP_MS;
    if again && !is_init {
        report("opm: crashed twice within a minute; leaving, services are untouched\n");
    } else {
        if again {
            std::thread::sleep(CRASH_PAUSE);
        }
        // SAFETY: set once by `arm`, never freed.
        if let Some(image) = unsafe { IMAGE.load(Ordering::Acquire).as_ref() } {
            report("opm: re-executing; services are untouched\n");
            image.exec(now);
            report("opm: cannot re-execute; services are untouched\n");
        }
        if is_init {
            reap_for_ever();
        }
    }
    raw::exit(1)
}

/// All that is left to PID 1 without a program: its end would kill the services, so it stays
/// until the last of them is gone.
fn reap_for_ever() {
    let one = || rustix::process::wait(WaitOptions::empty());
    while matches!(one(), Ok(_) | Err(Errno::INTR)) {}
}
