//! From a bare process to a daemon with its home, and out again.
use super::event_loop::Server;
use super::lock::{self, LOCK, SOCKET, Waiter, read_key, wait_for_lock, write_key};
use super::predecessor;
use super::role::{Background, Role, Watchdog};
use crate::daemon::adopt::Place;
use crate::daemon::log::log;
use crate::daemon::{Daemon, Leave, departure};
use crate::process::mark::MARK_VARIABLE;
use crate::service::environment::OUTER_VARIABLE;
use crate::sys::home::Home;
use crate::sys::linux::{self, Linux};
use crate::sys::{
    Errno, Mode, attributes, describe, fds, limits, own_pid, procfs, reexec, signals,
};
use crate::wire::{Failure, PROTOCOL, code};
use mio::Poll;
use mio::net::UnixListener;
use rustix::fd::{AsRawFd, OwnedFd};
use std::io::Write;
use std::path::Path;

const PID_FILE: &str = "opm.pid";
/// A daemon with fewer descriptors than this could not hear anybody, let alone start something.
const DESCRIPTORS_MIN: u64 = 32;
/// What this build can take over: journal and definitions of this format.
pub const FORMAT: &str = "journal 2";
const PROTOCOL_WORD: &str = "protocol";

/// Runs the daemon of `home` as one of the background. The exit code of the command.
/// `forgets_elsewhere`: see [`Place`].
pub fn serve(home: &Path, forgets_elsewhere: bool) -> u8 {
    let mut role = Background { forgets_elsewhere, watchdog: Watchdog::of_environment() };
    serve_with(home, &mut role).unwrap_or_else(|Failure { code, text }| {
        // Whoever launched us reads the code and the reason from here.
        log(&format!("opm: exit {code}: {text}"));
        code
    })
}

/// `opm daemon self-check`: says what this binary can take over. The exit code.
pub fn self_check() -> u8 {
    let line = format!("opm {} {PROTOCOL_WORD} {PROTOCOL} {FORMAT}\n", env!("CARGO_PKG_VERSION"));
    u8::from(std::io::stdout().write_all(line.as_bytes()).is_err())
}

/// Whether the output of another binary's self-check says that it can take over from us: that it
/// understands all that we may have written.
pub fn can_take_over(self_check: &str) -> bool {
    let mut words = self_check.split_whitespace().skip_while(|word| *word != PROTOCOL_WORD).skip(1);
    let protocol = words.next().and_then(|number| number.parse::<u32>().ok());
    self_check.starts_with("opm ")
        && self_check.trim_end().ends_with(FORMAT)
        && protocol.is_some_and(|protocol| protocol >= PROTOCOL)
}

/// Runs the daemon of `home` in this role. The exit code of the command. Errors: why nothing can be
/// served.
pub fn serve_with(home: &Path, role: &mut dyn Role) -> Result<u8, Failure> {
    let path = home.to_str().filter(|path| path.starts_with('/')).ok_or_else(|| {
        Failure::usage(format!("{}: the home is no absolute UTF-8 path", home.display()))
    })?;
    let (listener, alive, sockets) = prepare_process()?;
    // Before anything that may take long: whom we came from must not take us for a service.
    departure::announce(None);
    let nofile = limits::raise_nofile();
    check_descriptors()?;
    let cannot = |what: &str, errno| {
        Failure::unreachable(format!("cannot use {path}{what}: {}", describe(errno)))
    };
    let home = Home::open(path).map_err(|e| Failure::unreachable(Home::refusal(path, e)))?;
    let lock = home.open_file(LOCK, Mode::InPlace).map_err(|errno| cannot("/lock", errno))?;
    let follows = listener.is_some();
    if !wait_for_lock(&home, &lock, Waiter { follows, yields: role.yields() })? {
        if role.yields() {
            return Ok(code::DONE);
        }
        let text = format!("a daemon serves {path} already (stop it, or use another OPM_HOME)");
        return Err(Failure::plain(text));
    }
    if let Err(errno) = home.make_dir("logs") {
        log(&cannot("/logs", errno).text);
    }
    let place = place(&home, &lock, role.forgets_elsewhere()).map_err(|errno| cannot("", errno))?;
    if place.pid_namespace == 0 {
        let text = "cannot supervise without /proc (mount it; 'opm init' does without)";
        return Err(Failure::unreachable(text));
    }
    let alive = predecessor::hold_alive(&home, alive)?;
    predecessor::wait_for_namespace(&home, &place, alive.as_ref());
    let cannot_poll = |e: std::io::Error| Failure::unreachable(format!("cannot poll: {e}"));
    let poll = Poll::new().map_err(cannot_poll)?;
    let registry = poll.registry().try_clone().map_err(cannot_poll)?;
    let without = std::env::var("OPM_WITHOUT").unwrap_or_default();
    let mut kernel = Linux::new(registry, home, lock, nofile, &without);
    kernel.sockets.inherited = sockets;
    kernel.listener = listener.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    if kernel.own_children.is_none() {
        let text = "this kernel does not list children (CONFIG_PROC_CHILDREN): nothing could be \
                    confirmed to be gone";
        return Err(Failure::unreachable(text));
    }
    let (inherited, device_inode) = (place.inherited_limit, place.device_inode);
    let mut daemon = Daemon::begin(kernel, place)?;
    departure::announce(Some(daemon.home_key()));
    write_key(&daemon.kernel.lock, daemon.home_key(), device_inode);
    if let Some(limit) = daemon.own_limit().filter(|limit| *limit < inherited) {
        // From here on we bear no service's mark, even if we were started from inside one.
        limits::set_locks_limit(limit).ok();
    }
    write_pid(&daemon.kernel.home);
    let listener = match listener {
        Some(listener) if lock::is_listened_by_us(&daemon.kernel.home) => listener,
        _ => lock::bind(&daemon.kernel.home)?,
    };
    daemon.kernel.listener = listener.as_raw_fd();
    let mut server = Server::new(poll, listener, &daemon.kernel.home).map_err(cannot_poll)?;
    daemon.follow_logs(server.poll.registry());
    reexec::arm(&server.listener);
    role.begin(&mut daemon, follows)?;
    turn(&mut server, &mut daemon, role);
    [SOCKET, PID_FILE].iter().for_each(|name| daemon.kernel.home.remove(name).unwrap_or(()));
    let code = role.end(&mut daemon);
    // A child that is still to exec may share our descriptors: closed here, the lock would be lost
    // to it. The end of the process leaves them to it.
    std::mem::forget(daemon);
    Ok(code)
}

fn check_descriptors() -> Result<(), Failure> {
    let limit = limits::open_files();
    if limit >= DESCRIPTORS_MIN {
        return Ok(());
    }
    Err(Failure::unreachable(format!(
        "the limit of open files is {limit}, too low for a daemon (raise it to \
         {DESCRIPTORS_MIN}: ulimit -n)"
    )))
}

/// Until it leaves for good. An exec that works does not come back.
fn turn(server: &mut Server, daemon: &mut Daemon<Linux>, role: &mut dyn Role) {
    while let Leave::Exec(binary) = server.run(daemon, role) {
        log(&format!("becoming {binary}"));
        let errno = reexec::become_image(&binary, &server.listener);
        let why = describe(errno);
        log(&format!("cannot execute {binary}: {why}; staying"));
        daemon.leave = None;
        // Saying farewell took the wake-ups of its time.
        daemon.look_at_all();
    }
}

/// Of an earlier image: the listener, what says that PID 1 lives, and the services' sockets.
type Inherited = (Option<UnixListener>, Option<OwnedFd>, Vec<OwnedFd>);

/// Signals, descriptors, directory, subreaper.
fn prepare_process() -> Result<Inherited, Failure> {
    // First of all: PID 1 loses a signal that comes while it is neither blocked nor handled.
    signals::hold(&linux::SIGNALS);
    signals::reset_dispositions();
    attributes::neutral();
    limits::keep_small();
    let inherited = [reexec::LISTENER_VARIABLE, reexec::ALIVE_VARIABLE].map(|name| {
        let fd = std::env::var(name).ok();
        fd.and_then(|fd| fd.parse::<u32>().ok()).filter(|fd| *fd >= 3)
    });
    let kept: Vec<u32> = inherited.into_iter().flatten().collect();
    let mut sockets = if inherited[0].is_some() { fds::listening() } else { Vec::new() };
    sockets.retain(|fd| !kept.contains(fd));
    fds::close_inherited(&[&kept[..], &sockets].concat());
    let sockets = sockets.into_iter().filter_map(|fd| fds::inherited(fd.cast_signed())).collect();
    let [listener, alive] = inherited.map(|fd| fd.and_then(|fd| fds::inherited(fd.cast_signed())));
    drop(std::env::set_current_dir("/"));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| Failure::unreachable(format!("no subreaper: {}", describe(e))))?;
    let listener = listener.map(|fd| {
        let listener = std::os::unix::net::UnixListener::from(fd);
        drop(listener.set_nonblocking(true));
        UnixListener::from_std(listener)
    });
    Ok((listener, alive, sockets))
}

fn place(home: &Home, lock: &OwnedFd, forgets_elsewhere: bool) -> Result<Place, Errno> {
    let device_inode = home.place;
    let outer = [OUTER_VARIABLE, MARK_VARIABLE].map(|name| std::env::var(name).unwrap_or_default());
    let outer = outer.into_iter().filter(|value| !value.is_empty()).collect::<Vec<_>>();
    Ok(Place {
        home: home.path.clone(),
        device_inode,
        machine: procfs::machine_id(),
        boot: procfs::boot_id(),
        pid_namespace: procfs::pid_namespace(),
        key: read_key(lock, device_inode)?,
        inherited_limit: limits::locks_limit(),
        outer: (!outer.is_empty()).then(|| outer.join(",")),
        forgets_elsewhere,
        is_namespace_gone: predecessor::is_gone,
    })
}

/// For people only: whatever is odd there is no reason not to serve.
pub(crate) fn write_pid(home: &Home) {
    let text = format!("{}\n", own_pid());
    // What has the name may be a link, or worse.
    home.remove(PID_FILE).ok();
    let file = home.open_file(PID_FILE, Mode::Fresh);
    if let Err(errno) = file.and_then(|file| rustix::io::write(&file, text.as_bytes())) {
        log(&format!("{}/{PID_FILE}: {}", home.path, describe(errno)));
    }
}
