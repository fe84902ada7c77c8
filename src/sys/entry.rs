//! The first instant of the process, in place of the standard library's start-up.
//!
//! A PID 1 loses every signal that it neither blocks nor handles, so all are blocked first of all.
//! The start-up comes before that, and besides sets SIGPIPE to ignored without keeping what it
//! was, aborts when descriptor 0, 1 or 2 is closed and there is no `/dev/null`, and reads
//! /proc/self/maps. `opm init` can have none of these; every other command is given what it
//! would have had ([`begin`]), but for the alternate stack of [`super::reexec`], which has its own.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{stderr, stdin, stdout};

use super::mask::{self, Mask};

/// What `opm init` was started with, to be handed on to its program exactly.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    mask: Mask,
    is_child_ignored: bool,
}

impl Inherited {
    /// Between fork and exec: what is pending now is to meet what the caller meant for it, so the
    /// disposition comes before the mask.
    pub(super) fn restore(self) {
        if self.is_child_ignored {
            set_disposition(libc::SIGCHLD, libc::SIG_IGN);
        }
        mask::set(self.mask);
    }
}

/// Blocks every signal, and gives what was blocked before.
pub fn hold() -> Mask {
    mask::set(mask::ALL)
}

/// The words after the program's name.
///
/// # Safety
/// `argv` must hold `argc` pointers to C strings.
pub unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    let word = |n| {
        // SAFETY: n is below argc, and so this is a C string, by the caller's promise.
        let word = unsafe { CStr::from_ptr(*argv.add(n)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    };
    (1..usize::try_from(argc).unwrap_or(0)).map(word).collect()
}

/// Begins what is not `opm init`, as the standard library's start-up does.
pub fn begin(before: Mask) {
    fill_standard_descriptors(c"/dev/null", OFlags::RDWR);
    set_disposition(libc::SIGPIPE, libc::SIG_IGN);
    mask::set(before);
}

/// Begins `opm init`: everything stays blocked; SIGCHLD gets its default action, without which the
/// kernel reaps by itself and no status ever arrives.
pub fn begin_init(before: Mask) -> Inherited {
    // Something that the program won't inherit, so that it finds these descriptors as closed as
    // they were. The root directory is the one thing that is there in every container.
    fill_standard_descriptors(c"/", OFlags::DIRECTORY | OFlags::CLOEXEC);
    let is_child_ignored = set_disposition(libc::SIGCHLD, libc::SIG_DFL);
    Inherited { mask: before, is_child_ignored }
}

/// Opens what is closed of 0, 1 and 2, so that no descriptor of our own gets such a number: the
/// kernel gives the lowest that is free.
fn fill_standard_descriptors(path: &CStr, flags: OFlags) {
    for fd in [stdin(), stdout(), stderr()] {
        if rustix::io::fcntl_getfd(fd).is_err()
            && let Ok(filling) = open(path, flags, Mode::empty())
        {
            let _number = filling.into_raw_fd();
        }
    }
}

/// Whether the signal was ignored before.
fn set_disposition(signal: c_int, action: libc::sighandler_t) -> bool {
    // SAFETY: the action is SIG_DFL or SIG_IGN, so no handler of ours can run.
    unsafe { libc::signal(signal, action) == libc::SIG_IGN }
}
