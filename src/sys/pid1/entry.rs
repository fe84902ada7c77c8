//! The first instant: signals are held before `main`, even before Rust's own start-up.
//!
//! Two facts force this. A PID 1 loses every signal that it neither blocks nor handles, and the
//! start-up of the standard library sets SIGPIPE to ignored without keeping what it was, and
//! aborts when descriptor 0, 1 or 2 is closed and there is no `/dev/null`. So a function in
//! `.init_array` blocks everything and writes down what it found. It must never allocate, and
//! does nothing at all unless the first argument is the word `init`.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::signal;

static HELD: AtomicBool = AtomicBool::new(false);
static MASK: AtomicU64 = AtomicU64::new(0);
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);
static CHLD_IGNORED: AtomicBool = AtomicBool::new(false);

/// What init was started with, to be handed on to the program exactly.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The signals that were blocked, bit N-1 for signal N.
    pub(super) mask: u64,
    pub(super) pipe_ignored: bool,
    pub(super) chld_ignored: bool,
}

impl Entry {
    /// Everything is blocked from here on; SIGCHLD has its default action, without which the
    /// kernel reaps by itself and no status ever arrives.
    pub fn hold() -> Entry {
        hold();
        signal::set_default(libc::SIGCHLD);
        Entry {
            mask: MASK.load(Relaxed),
            pipe_ignored: PIPE_IGNORED.load(Relaxed),
            chld_ignored: CHLD_IGNORED.load(Relaxed),
        }
    }
}

fn hold() {
    if HELD.swap(true, Relaxed) {
        return;
    }
    MASK.store(signal::block_all(), Relaxed);
    PIPE_IGNORED.store(signal::is_ignored(libc::SIGPIPE), Relaxed);
    CHLD_IGNORED.store(signal::is_ignored(libc::SIGCHLD), Relaxed);
}

/// Fills the holes among 0, 1 and 2 with something that the program won't inherit, so that no
/// descriptor of our own becomes its stdin, and so that the program finds them as closed as they
/// were. The root directory is the one thing that is there in every container.
fn fill_standard_descriptors() {
    for fd in 0..=2 {
        // SAFETY: F_GETFD reads a flag of a number, which need not be open.
        let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        if !is_open {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
            // SAFETY: the path is a C string; the kernel gives the lowest free number, which is
            // `fd`, since all below it are open by now.
            unsafe { libc::open(c"/".as_ptr(), flags) };
        }
    }
}

/// Belongs into `.init_array` of the program, which the macro `first_instant!` does.
///
/// # Safety
///
/// The arguments must be those of `main`.
pub unsafe extern "C" fn first_instant(argc: c_int, argv: *const *const c_char) {
    if argc < 2 || argv.is_null() {
        return;
    }
    // SAFETY: glibc calls the functions of .init_array with main's arguments, and argc says that
    // there are at least two.
    let word = unsafe { *argv.add(1) };
    // SAFETY: both are C strings: argv's by the ABI, ours by the literal.
    if word.is_null() || unsafe { libc::strcmp(word, c"init".as_ptr()) } != 0 {
        return;
    }
    hold();
    fill_standard_descriptors();
}

/// Puts [`first_instant`] before `main` of the program that names it, and of no other: a test
/// binary that links the library and is given the filter `init` must keep its signals.
#[macro_export]
macro_rules! first_instant {
    () => {
        // SAFETY: an .init_array entry is a function pointer of exactly this type.
        #[used]
        #[unsafe(link_section = ".init_array")]
        static FIRST_INSTANT: unsafe extern "C" fn(
            ::std::ffi::c_int,
            *const *const ::std::ffi::c_char,
        ) = $crate::sys::pid1::first_instant;
    };
}
