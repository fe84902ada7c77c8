//! The first instant of the process, in place of the standard library's start-up.
//!
//! A PID 1 loses every signal that it neither blocks nor handles, so all are blocked first of all.
//! The start-up comes before that, and besides sets SIGPIPE to ignored without keeping what it
//! was, aborts when descriptor 0, 1 or 2 is closed and there is no `/dev/null`, and reads
//! /proc/self/maps. `opm init` can have none of these; every other command is given what it
//! would have had ([`begin`]), but for the alternate stack of [`super::reexec`], which has its own.
use super::Result;
use super::signals::{Mask, set_mask};
use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{stderr, stdin, stdout};
use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

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
        set_mask(self.mask);
    }
}

/// The program's name and the words after it.
///
/// # Safety
/// `argv` must hold `argc` pointers to C strings.
pub unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    let word = |n| {
        // SAFETY: n is below argc, and so this is a C string, by the caller's promise.
        let word = unsafe { CStr::from_ptr(*argv.add(n)) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    };
    (0..usize::try_from(argc).unwrap_or(0)).map(word).collect()
}

/// Begins what is not `opm init`, as the standard library's start-up does; the signals stay
/// blocked.
pub fn begin() {
    let null = || open(c"/dev/null", OFlags::RDWR, Mode::empty());
    fill_standard_descriptors(|| null().or_else(|_| open_root()));
    set_disposition(libc::SIGPIPE, libc::SIG_IGN);
}

/// Begins `opm init`: everything stays blocked; SIGCHLD gets its default action, without which the
/// kernel reaps by itself and no status ever arrives.
pub fn begin_init(before: Mask) -> Inherited {
    // By what the program won't inherit: it finds these descriptors as closed as they were.
    fill_standard_descriptors(open_root);
    let is_child_ignored = set_disposition(libc::SIGCHLD, libc::SIG_DFL);
    Inherited { mask: before, is_child_ignored }
}

/// Opens what is closed of 0, 1 and 2, so that no descriptor of our own gets such a number (the
/// kernel gives the lowest that is free), and what is for people goes into no file of ours.
fn fill_standard_descriptors(filling: impl Fn() -> Result<OwnedFd>) {
    for fd in [stdin(), stdout(), stderr()] {
        if rustix::io::fcntl_getfd(fd).is_err() {
            filling().map(IntoRawFd::into_raw_fd).ok();
        }
    }
}

/// The one thing that is there in every container. What is written to it is EBADF.
fn open_root() -> Result<OwnedFd> {
    open(c"/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether the signal was ignored before.
fn set_disposition(signal: c_int, action: libc::sighandler_t) -> bool {
    // SAFETY: the action is SIG_DFL or SIG_IGN, so no handler of ours can run.
    unsafe { libc::signal(signal, action) == libc::SIG_IGN }
}
