//! From fork to exec.
//!
//! Signals stay blocked across the fork: the child would else run, for a moment, with signals
//! open that nobody meant for it. The group is set on both sides, so that whoever comes second
//! finds it done; the foreground by the child alone: when we come second, a shell may have given
//! it to a job. It must never return in the child.
//!
//! fork and not vfork: on idle cores vfork saves 0.07 ms, but on busy ones the program started
//! 2 ms later, and no signal would be forwarded while an exec hangs.

use std::env;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::entry::Entry;
use super::process::{last_errno, own_pid};
use super::say::say;
use super::signal;
use super::terminal::Terminal;
use super::words::Words;
use crate::sys::{Errno, Result, describe};

/// Where the program stands towards the terminal.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A group of its own in our session, in the foreground if a terminal is handed over.
    Group(Option<&'a Terminal>),
    /// A session of its own: there is no terminal to share.
    Session,
}

/// The code that a shell gives for a program that could not be exec'd.
pub fn exit_code_of(errno: i32) -> u8 {
    match errno {
        libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG => 127,
        _ => 126,
    }
}

/// Moves to `/`, so that no file system stays busy because of us, and starts the program where we
/// were. Its exec's failure is its exit code.
pub fn spawn(program: &Words, entry: &Entry, place: Place<'_>) -> Result<i32> {
    let listens = env::var_os("LISTEN_PID").is_some_and(|pid| *pid == *own_pid().to_string());
    let here = leave_directory();
    // SAFETY: the process has one thread, so the child may do whatever we may.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Errno::from_raw_os_error(last_errno())),
        0 => {
            take_place(place);
            if let Some(here) = &here {
                // SAFETY: an open descriptor of a directory. A failure leaves the child in `/`.
                unsafe { libc::fchdir(here.as_raw_fd()) };
            }
            if listens {
                inherit_sockets();
            }
            exec(program, entry)
        }
        _ => {
            if let Place::Group(_) = place {
                // SAFETY: integers only. EACCES: it has exec'd, so it has done this itself. Never
                // for a session: a group leader could not begin one.
                unsafe { libc::setpgid(pid, pid) };
            }
            Ok(pid)
        }
    }
}

/// Opens the working directory, by O_PATH since it need not be readable, and leaves it.
fn leave_directory() -> Option<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(c".".as_ptr(), flags) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the path is a C string.
    unsafe { libc::chdir(c"/".as_ptr()) };
    // SAFETY: the kernel has just made this descriptor for us.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn take_place(place: Place<'_>) {
    match place {
        Place::Group(terminal) => {
            // SAFETY: integers only.
            unsafe { libc::setpgid(0, 0) };
            if let Some(terminal) = terminal {
                terminal.give_to(own_pid());
            }
        }
        Place::Session => {
            // SAFETY: takes nothing. A freshly forked child leads no group, so it can't fail.
            unsafe { libc::setsid() };
            // A terminal on stdin that is nobody's becomes ours: a console, `setsid opm init sh`.
            // SAFETY: TIOCSCTTY takes an integer; 0 never takes a terminal from somebody.
            unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        }
    }
}

/// Socket activation checks that the sockets are meant for the process that reads them.
fn inherit_sockets() {
    // SAFETY: the process has one thread, and nobody holds a reference into the environment.
    unsafe { env::set_var("LISTEN_PID", own_pid().to_string()) };
    // The newer check, by pidfd inode, which is ours and can't be known beforehand.
    // SAFETY: as above.
    unsafe { env::remove_var("LISTEN_PIDFDID") };
}

fn exec(program: &Words, entry: &Entry) -> ! {
    // Dispositions before the mask: what is pending is to meet what the caller meant for it.
    match entry.pipe_ignored {
        true => signal::set_ignored(libc::SIGPIPE),
        false => signal::set_default(libc::SIGPIPE),
    }
    if entry.chld_ignored {
        signal::set_ignored(libc::SIGCHLD);
    }
    signal::set_mask(entry.mask);
    let argv = program.argv();
    // SAFETY: there is a program, so the first is a C string.
    let file = unsafe { *argv };
    // SAFETY: argv ends with a null pointer. execvp also runs a script that has no interpreter
    // line by /bin/sh.
    unsafe { libc::execvp(file, argv) };
    let errno = last_errno();
    let reason = describe(Errno::from_raw_os_error(errno));
    say(format_args!("cannot start {}: {reason}", program.name()));
    // SAFETY: ends the child without running what the parent registered.
    unsafe { libc::_exit(i32::from(exit_code_of(errno))) }
}
