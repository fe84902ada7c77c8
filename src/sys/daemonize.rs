//! Starting the daemon from a command, so that nothing of the command clings to it.
//!
//! Two forks: the first child leads a new session, the second is nobody's child in the shell and
//! can't take a terminal. Never inherits a descriptor, a signal disposition or a directory.
//!
//! The command may run inside a service, perhaps of another home, and that one's daemon takes
//! orphans for members by their marks. So the second child puts off both marks with its exec, and
//! only then the first leaves and makes an orphan of it.
use super::{Errno, attributes, home, limits, namespace};
use crate::process::mark::{LimitMark, MARK_VARIABLE};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Highest descriptor closed one by one where the kernel has no `close_range` (5.9).
const DESCRIPTORS_MAX: RawFd = 65_536;
/// Highest signal number whose disposition is reset.
const SIGNAL_MAX: libc::c_int = 64;

/// Tells the daemon that it was started from inside a service, and left it.
pub const DEPARTED_VARIABLE: &str = "OPM_DEPARTED";

/// Everything the children need, made before the first fork.
struct Plan {
    program: CString,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    null: RawFd,
    log: RawFd,
    report: RawFd,
    /// Both ends of a pipe that ends with the exec.
    exec: [RawFd; 2],
    limit_mark: Option<u64>,
    /// The time namespace outside of services; -1: it is not to be read.
    namespace: RawFd,
}

/// Runs `program` with `args` (the name it goes by first) as a daemon: own session, `/` as
/// its directory, stdin empty, output appended to `daemon.log` in `home`, no other
/// descriptor, no `OPM_*` variable but `OPM_WITHOUT` and an `OPM_HOME` that says `home`.
/// Returns its pid once it has been exec'd.
///
/// # Errors
/// What the kernel says about the log, the forks or the exec.
pub fn launch(program: &Path, args: &[&str], home: &Path) -> io::Result<u32> {
    let null = std::fs::OpenOptions::new().read(true).open("/dev/null")?;
    let path = home.join("daemon.log");
    let log = open_log(&path).map_err(|errno| {
        io::Error::other(format!("{}: {}", path.display(), super::describe(errno)))
    })?;
    let (mut reader, report) = io::pipe()?;
    let (before_exec, until_exec) = io::pipe()?;
    let words = args.iter().map(|a| CString::new(*a)).collect::<Result<Vec<_>, _>>()?;
    let env = environment(home)?;
    let pointers = |list: &[CString]| {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let namespace = namespace::outermost();
    let plan = Plan {
        program: CString::new(program.as_os_str().as_bytes())?,
        args: pointers(&words),
        env: pointers(&env),
        null: null.as_raw_fd(),
        log: log.as_raw_fd(),
        report: report.as_raw_fd(),
        exec: [before_exec.as_raw_fd(), until_exec.as_raw_fd()],
        limit_mark: LimitMark::before_daemon(limits::locks_limit()).map(LimitMark::value),
        namespace: namespace.as_ref().map_or(-1, AsRawFd::as_raw_fd),
    };
    // SAFETY: the command has one thread, and the child calls only what signal-safety(7)
    // lists, on memory that was made before the fork, then execs or `_exit`s.
    let first = unsafe { libc::fork() };
    if first < 0 {
        return Err(io::Error::last_os_error());
    }
    if first == 0 {
        lead(&plan);
    }
    drop((report, until_exec));
    reap(first);
    let mut said = Vec::new();
    reader.read_to_end(&mut said)?;
    outcome(&said)
}

/// Opens daemon.log, made if missing, whatever the caller's umask. Not through a link, and nothing
/// that could make us wait.
fn open_log(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    let path = path.to_str().ok_or(Errno::INVAL)?;
    attributes::privately(|| home::open_regular(rustix::fs::CWD, path, flags))
}

/// What the children reported: a pid (tag 0), then an errno (tag 1) if the exec failed.
fn outcome(said: &[u8]) -> io::Result<u32> {
    let mut pid = None;
    for record in said.as_chunks::<8>().0 {
        let [tag, _, _, _, value @ ..] = *record;
        let value = u32::from_ne_bytes(value);
        if tag == 1 {
            return Err(io::Error::from_raw_os_error(value.cast_signed()));
        }
        pid = Some(value);
    }
    pid.ok_or_else(|| io::Error::other("the child that starts the daemon was killed"))
}

fn environment(home: &Path) -> io::Result<Vec<CString>> {
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"OPM_") && name != "OPM_WITHOUT" {
            continue;
        }
        env.push(pair(name, &value.into_vec())?);
    }
    if is_inside_service() {
        env.push(pair(DEPARTED_VARIABLE.into(), b"1")?);
    }
    // The daemon's directory is `/`: a relative home would be another one there.
    env.push(pair("OPM_HOME".into(), home.as_os_str().as_bytes())?);
    Ok(env)
}

/// Whether this process bears a mark of an opm, which the daemon puts off.
fn is_inside_service() -> bool {
    let limit = limits::locks_limit();
    LimitMark::is_mark((limit, limit))
        || std::env::var_os(MARK_VARIABLE).is_some()
        || !namespace::is_initial()
}

fn pair(name: OsString, value: &[u8]) -> io::Result<CString> {
    let mut bytes = name.into_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    Ok(CString::new(bytes)?)
}

fn reap(child: libc::pid_t) {
    loop {
        // SAFETY: no status is asked for, so the kernel writes nothing.
        let found = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        // ECHILD: SIGCHLD is inherited as ignored, and the kernel has reaped it already.
        if found >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return;
        }
    }
}

/// The first child: a session without a terminal, then the fork that the daemon lives in.
fn lead(plan: &Plan) -> ! {
    // SAFETY: async-signal-safe calls only, see `launch`.
    let second = unsafe {
        libc::setsid();
        libc::fork()
    };
    match second {
        0 => become_daemon(plan),
        pid if pid > 0 => {
            say(plan.report, 0, pid);
            wait_for_exec(plan);
        }
        _ => say(plan.report, 1, errno()),
    }
    // SAFETY: `_exit` runs nothing of the parent's (no destructors, no buffers).
    unsafe { libc::_exit(0) }
}

/// Until the second child has exec'd, or is gone.
fn wait_for_exec(plan: &Plan) {
    let [reader, writer] = plan.exec;
    let mut byte = 0u8;
    // SAFETY: our own copy of the writing end, and a byte to read into. Nobody writes: the read
    // ends with the last copy of the other end.
    unsafe {
        libc::close(writer);
        while libc::read(reader, (&raw mut byte).cast(), 1) == -1 && errno() == libc::EINTR {}
    }
}

fn become_daemon(plan: &Plan) -> ! {
    reset_signals();
    namespace::enter(plan.namespace);
    if let Some(mark) = plan.limit_mark {
        // Failing leaves it to the daemon.
        limits::set_locks_limit(mark).ok();
    }
    // SAFETY: plain system calls on descriptors that the plan keeps open; `args` and `env`
    // end with a null pointer and point into strings that live in `launch`'s frame.
    unsafe {
        libc::dup2(plan.null, 0);
        libc::dup2(plan.log, 1);
        libc::dup2(plan.log, 2);
        close_on_exec();
        libc::chdir(c"/".as_ptr());
        libc::execve(plan.program.as_ptr(), plan.args.as_ptr(), plan.env.as_ptr());
    }
    say(plan.report, 1, errno());
    // SAFETY: as in `lead`.
    unsafe { libc::_exit(127) }
}

/// Marks everything above stderr: closing it here would lose the pipe that reports the exec.
fn close_on_exec() {
    // SAFETY: the calls take numbers only, and a number that isn't open is EBADF.
    unsafe {
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        if libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, flags) == 0 {
            return;
        }
        for fd in 3..DESCRIPTORS_MAX {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// An exec keeps ignored signals ignored and blocked ones blocked: `nohup` and shells that
/// run jobs in the background would otherwise make a daemon that no SIGINT reaches. By the
/// system call, because the C library refuses to touch 32 and 33, which can be inherited, too.
fn reset_signals() {
    // The kernel's struct is at most four words, and all zero is SIG_DFL.
    let default = [0u64; 4];
    // SAFETY: the sets and structs are read only, as long as said (8 bytes of mask) or longer;
    // a signal that can't be changed (KILL, STOP) is EINVAL.
    unsafe {
        let none: *mut u64 = std::ptr::null_mut();
        for signal in 1..=SIGNAL_MAX {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8usize);
        }
        let how = libc::SIG_SETMASK;
        libc::syscall(libc::SYS_rt_sigprocmask, how, default.as_ptr(), none, 8usize);
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn say(report: RawFd, tag: u8, value: i32) {
    let mut record = [tag, 0, 0, 0, 0, 0, 0, 0];
    record[4..].copy_from_slice(&value.to_ne_bytes());
    // SAFETY: the pointer and the length are of `record`. Eight bytes go in whole (PIPE_BUF).
    unsafe {
        libc::write(report, record.as_ptr().cast(), record.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_that_failed_is_reported_whatever_the_order_of_the_records() {
        let pid = [0, 0, 0, 0, 7, 0, 0, 0];
        let errno = [1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(outcome(&pid).unwrap(), 7);
        for said in [[pid, errno].concat(), [errno, pid].concat()] {
            assert_eq!(outcome(&said).unwrap_err().raw_os_error(), Some(2));
        }
        outcome(&[]).unwrap_err();
    }
}
