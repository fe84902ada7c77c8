//! Starting the daemon from a command, so that nothing of the command clings to it.
//!
//! Two forks: the first child leads a new session, the second is nobody's child in the shell and
//! can't take a terminal. Never inherits a descriptor, a signal disposition or a directory.
//!
//! The command may run inside a service, perhaps of another home, and that one's daemon takes
//! orphans for members by their marks. So the second child puts off the limit and the namespace,
//! and its exec the environment, and only then the first leaves and makes an orphan of it.
use super::child::reset_signals;
use super::{Errno, attributes, home, limits, namespace, raw};
use crate::process::mark::{LimitMark, MARK_VARIABLE};
use crate::service::environment::HOME_VARIABLE;
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Tells the daemon that it was started from inside a service, and left it.
pub const DEPARTED_VARIABLE: &str = "OPM_DEPARTED";

/// What a supervisor tells the process that it started, which the daemon isn't: sd_notify(3),
/// sd_watchdog_enabled(3), sd_listen_fds(3).
const ANOTHERS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_"];

/// Runs `program` with `args` (the name it goes by first) as a daemon: own session, `/` as
/// its directory, stdin empty, output appended to `daemon.log` in `home`, no other
/// descriptor, no variable that is another's, no `OPM_*` one but `OPM_WITHOUT` and an `OPM_HOME`
/// that says `home`. Returns its pid once it has been exec'd. Errors: what the
/// kernel says about the log, the forks or the exec.
pub fn launch(program: &Path, args: &[&str], home: &Path) -> io::Result<u32> {
    let path = home.join("daemon.log");
    let log = open_log(&path).map_err(|errno| {
        io::Error::other(format!("{}: {}", path.display(), super::describe(errno)))
    })?;
    let (mut reader, pid) = io::pipe()?;
    let namespace = namespace::outermost();
    let plan = Plan {
        pid: pid.as_raw_fd(),
        limit_mark: LimitMark::before_daemon(limits::locks_limit()).map(LimitMark::value),
        namespace: namespace.as_ref().map_or(-1, AsRawFd::as_raw_fd),
    };
    let mut command = Command::new(program);
    command.arg0(args.first().unwrap_or(&"opm")).args(args.iter().skip(1));
    command.env_clear().envs(environment(home)).current_dir("/");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // SAFETY: the command has one thread, and the child makes system calls only.
    unsafe { command.pre_exec(move || plan.become_daemon()) };
    // Comes back when the second child has exec'd, or has told why not.
    let first = command.spawn();
    drop(pid);
    // ECHILD: SIGCHLD is inherited as ignored, and the kernel has reaped it already.
    first?.wait().ok();
    let mut said = [0; 4];
    let killed = |_| io::Error::other("the child that starts the daemon was killed");
    reader.read_exact(&mut said).map_err(killed)?;
    Ok(u32::from_ne_bytes(said))
}

/// Opens daemon.log, made if missing, whatever the caller's umask. Not through a link, and nothing
/// that could make us wait.
fn open_log(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
    let path = path.to_str().ok_or(Errno::INVAL)?;
    attributes::privately(|| home::open_regular(rustix::fs::CWD, path, flags))
}

fn environment(home: &Path) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &OsString| {
        let begins = |with: &str| name.as_encoded_bytes().starts_with(with.as_bytes());
        name == "OPM_WITHOUT" || !begins("OPM_") && !ANOTHERS.into_iter().any(begins)
    };
    let mut env: Vec<_> = std::env::vars_os().filter(|(name, _)| is_kept(name)).collect();
    if is_inside_service() {
        env.push((DEPARTED_VARIABLE.into(), "1".into()));
    }
    // The daemon's directory is `/`: a relative home would be another one there.
    env.push((HOME_VARIABLE.into(), home.into()));
    env
}

/// Whether this process bears a mark of an opm, which the daemon puts off.
fn is_inside_service() -> bool {
    let limit = limits::locks_limit();
    LimitMark::is_mark((limit, limit))
        || std::env::var_os(MARK_VARIABLE).is_some()
        || !namespace::is_initial()
}

/// What the children need. All of it are numbers: a child doesn't allocate.
struct Plan {
    /// Where the second child says its pid.
    pid: RawFd,
    limit_mark: Option<u64>,
    /// The time namespace outside of services; -1: it is not to be read.
    namespace: RawFd,
}

impl Plan {
    /// In the first child: begins a session without a terminal, and goes on in a second one.
    fn become_daemon(&self) -> io::Result<()> {
        rustix::process::setsid()?;
        // Ends with the second child's exec, or end.
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: the child makes system calls only, then execs.
        match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => std::mem::forget((reader, writer)),
            _ => {
                drop(writer);
                while rustix::io::read(&reader, &mut [0u8]) == Err(Errno::INTR) {}
                raw::exit(0)
            }
        }
        let pid = rustix::process::getpid().as_raw_pid().to_ne_bytes();
        // A pipe takes so few bytes whole.
        raw::write(self.pid, &pid).ok();
        // An exec keeps ignored signals ignored: `nohup` and shells that run jobs in the background
        // would otherwise make a daemon that no SIGINT reaches.
        reset_signals(true).ok();
        namespace::enter(self.namespace);
        if let Some(mark) = self.limit_mark {
            // Failing leaves it to the daemon.
            limits::set_locks_limit(mark).ok();
        }
        // Not closed: a pipe of the standard library's reports the exec.
        let range = [3, u32::MAX as usize, libc::CLOSE_RANGE_CLOEXEC as usize];
        raw::numbers(libc::SYS_close_range, range).ok();
        Ok(())
    }
}
