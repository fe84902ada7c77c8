//! The first instant: `opm init` has no `main`, nor Rust's own start-up.
//!
//! Three facts force this. A PID 1 loses every signal that it neither blocks nor handles. The
//! start-up of the standard library sets SIGPIPE to ignored without keeping what it was, and
//! aborts when descriptor 0, 1 or 2 is closed and there is no `/dev/null`. And it reads
//! /proc/self/maps to guard a stack that is not used, for a fifth of all that `opm init` costs.
//! So a function in `.init_array` blocks everything, writes down what it found, and goes on from
//! there to the end of the process. It does nothing at all unless the first argument is the word
//! `init`.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::signal;
use super::words::Words;

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
    let mut fd = 0;
    // Not a range: in a binary made small those are functions elsewhere, each a page fault.
    while fd <= 2 {
        // SAFETY: F_GETFD reads a flag of a number, which need not be open.
        let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        if !is_open {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
            // SAFETY: the path is a C string; the kernel gives the lowest free number, which is
            // `fd`, since all below it are open by now.
            unsafe { libc::open(c"/".as_ptr(), flags) };
        }
        fd += 1;
    }
}

/// What [`first_instant`] runs: the words after `init`, and the exit code.
pub type Door = fn(Words) -> u8;

/// Belongs into `.init_array` of the program, which the macro `first_instant!` does.
///
/// # Safety
///
/// The arguments must be those of `main`.
pub unsafe fn first_instant(argc: c_int, argv: *const *const c_char, door: Door) {
    if argc < 2 || argv.is_null() {
        return;
    }
    // SAFETY: argc says that there are at least two.
    let word = unsafe { *argv.add(1) };
    // SAFETY: both are C strings: argv's by the ABI, ours by the literal.
    if unsafe { libc::strcmp(word, c"init".as_ptr()) } != 0 {
        return;
    }
    hold();
    fill_standard_descriptors();
    // SAFETY: at most one past the last, which is the null pointer.
    let rest = unsafe { argv.add(2) };
    // SAFETY: the kernel's own argv.
    let code = door(unsafe { Words::new(rest) });
    // SAFETY: ends the process. Nothing of ours is to run at its exit, and nothing is buffered.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Puts [`first_instant`] before `main` of the program that names it, and of no other: a test
/// binary that links the library and is given the filter `init` must keep its signals.
#[macro_export]
macro_rules! first_instant {
    ($door:path) => {
        // SAFETY: an .init_array entry is a function pointer of exactly this type.
        #[used]
        #[unsafe(link_section = ".init_array")]
        static FIRST_INSTANT: unsafe extern "C" fn(
            ::std::ffi::c_int,
            *const *const ::std::ffi::c_char,
        ) = {
            unsafe extern "C" fn first_instant(
                argc: ::std::ffi::c_int,
                argv: *const *const ::std::ffi::c_char,
            ) {
                // SAFETY: whoever runs .init_array gives main's arguments.
                unsafe { $crate::sys::pid1::first_instant(argc, argv, $door) }
            }
            first_instant
        };
    };
}
