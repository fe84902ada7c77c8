//! The program of a PID 1: from fork to exec, and the statuses of all children.
//!
//! Signals stay blocked across the fork: the child would else run, for a moment, with signals
//! open that nobody meant for it. The group is set on both sides, so that whoever comes second
//! finds it done; the foreground by the child alone: when we come second, a shell may have given
//! it to a job.
//!
//! fork and not vfork: on idle cores vfork saves 0.07 ms, but on busy ones the program started
//! 2 ms later, and no signal would be forwarded while an exec hangs.
use super::entry::Inherited;
use super::terminal::Terminal;
use super::{Errno, Result, last_errno, own_pid, raw};
use crate::process::{Exit, Pid};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::env;
use std::ffi::{CString, OsString, c_char};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

/// Where the program stands towards the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A session of its own: there is no terminal to share. Its group has nobody in its session
    /// who could resume it.
    Session,
    /// A group of its own in our session; it is given the foreground, or not.
    Group {
        /// Whether it is.
        foreground: bool,
    },
}

/// The code that a shell gives for a program that could not be exec'd.
pub fn exit_code_of(errno: Errno) -> u8 {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => 127,
        _ => 126,
    }
}

/// Asks for a signal when the parent dies. By hand, for rustix knows no real-time signals. Errors:
/// EINVAL: there is no such signal.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    let set = raw::prctl([libc::PR_SET_PDEATHSIG, signal, 0]);
    set.map(drop).map_err(Errno::from_raw_os_error)
}

/// Moves to `/`, so that no file system stays busy because of us, and starts the program where we
/// were. If it can't be exec'd, the child calls `complain` and exits with what that gives. Errors:
/// what fork(2) says. ENOENT: there are no words.
pub fn start(
    words: &[OsString],
    inherited: Inherited,
    place: Place,
    complain: impl FnOnce(Errno) -> u8,
) -> Result<Pid> {
    let words = words.iter().map(|word| CString::new(word.as_bytes()).map_err(|_| Errno::INVAL));
    let words = words.collect::<Result<Vec<CString>>>()?;
    let argv: Vec<_> = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
    let has_sockets = env::var_os("LISTEN_PID").is_some_and(|pid| *pid == *own_pid().to_string());
    let directory = leave_directory();
    // SAFETY: the process has one thread, so the child may do whatever we may.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => {
            take_place(place);
            if let Some(directory) = directory {
                // A failure leaves the child in `/`.
                rustix::process::fchdir(directory).ok();
            }
            if has_sockets {
                inherit_sockets();
            }
            inherited.restore();
            let code = complain(exec(&argv));
            // SAFETY: ends the child without running what the parent registered.
            unsafe { libc::_exit(i32::from(code)) }
        }
        pid => {
            if place != Place::Session {
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
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(c".", flags, Mode::empty()).ok()?;
    rustix::process::chdir(c"/").ok();
    Some(directory)
}

fn take_place(place: Place) {
    match place {
        Place::Session => {
            // A freshly forked child leads no group, so it can't fail.
            rustix::process::setsid().ok();
            // A terminal on stdin that is nobody's becomes ours: a console, `setsid opm init sh`.
            // It is never taken from somebody.
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).ok();
        }
        Place::Group { foreground } => {
            rustix::process::setpgid(None, None).ok();
            if let Some(terminal) = foreground.then(Terminal::find).flatten() {
                terminal.give_to(own_pid());
            }
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

fn exec(argv: &[*const c_char]) -> Errno {
    // execvp also runs a script that has no interpreter line by /bin/sh.
    // SAFETY: C strings and, at the end, a null pointer.
    unsafe { libc::execvp(argv[0], argv.as_ptr()) };
    last_errno()
}

/// What one look at the children found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// This child has gone, and its zombie with it: the number is free from now on.
    Exited(Pid, Exit),
    /// This child has been stopped by this signal.
    Stopped(Pid, i32),
    /// There are children, and nothing new of them.
    Quiet,
    /// There is no child at all.
    Childless,
}

/// Takes one status, without waiting. `__WALL`: what was cloned with another exit signal counts,
/// too. waitid(2) by hand, for rustix's doesn't say whose status it is.
pub fn reap() -> Reaped {
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::__WALL;
    // SAFETY: an all-zero siginfo is a valid value to be overwritten.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: the siginfo is writable and of the type that waitid fills.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } != 0 {
        return Reaped::Childless;
    }
    // SAFETY: waitid fills in pid and status, or leaves them 0.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    match (pid, info.si_code) {
        (0, _) => Reaped::Quiet,
        (_, libc::CLD_EXITED) => Reaped::Exited(pid, Exit::Code(status)),
        (_, libc::CLD_KILLED | libc::CLD_DUMPED) => Reaped::Exited(pid, Exit::Signal(status)),
        _ => Reaped::Stopped(pid, status),
    }
}
