//! Starting a daemon, and what it said when it left instead.
//!
//! The daemon answers on its socket only when adoption is complete, so the first answer is
//! true; whoever connects earlier waits.
use super::client::Connection;
use super::holder::{Holder, lock_holder};
use super::home;
use super::output::{Failure, error, reason};
use super::poll::{drain, is_any_readable, is_readable};
use crate::sys::home::open_regular;
use crate::sys::{Reach, attributes, daemonize, pidfd};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a daemon that was started may take to answer, while nobody holds the lock.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// The same while a daemon holds the home's lock, which may have much to adopt.
const LOCKED_TIME_MAX: Duration = Duration::from_secs(60);
/// The same while only children hold it that have not exec'd: they may never.
const STUCK_TIME_MAX: Duration = Duration::from_secs(8);
/// How often a daemon is launched where others hold the lock and leave without answering.
const LAUNCHES_MAX: u32 = 3;
/// When to say what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a daemon that was told to end is waited for.
const DISMISSAL: Duration = Duration::from_secs(1);
/// Between two tries to connect: from the first to the longest.
const RETRY_MIN: Duration = Duration::from_micros(500);
const RETRY_MAX: Duration = Duration::from_millis(100);
/// The end of a log that is looked at for its last line.
const TAIL_BYTES_MAX: u64 = 4096;

/// Starts a daemon, with `more` options, and waits until it, or one that was faster, answers.
pub(super) fn start(home: &Path, more: &[&str]) -> Result<Connection, Failure> {
    // A umask such as 277 would make a home that its own daemon can't use.
    attributes::privately(|| start_privately(home, more))
}

fn start_privately(home: &Path, more: &[&str]) -> Result<Connection, Failure> {
    if !Path::new("/proc/self").exists() {
        let text = "daemon: cannot supervise without /proc (mount it; 'opm init' does without)";
        return Err(Failure::unreachable(text));
    }
    home::create(home)?;
    let told = log_length(home);
    let program = own_program();
    let words = [&["opm", "daemon", "start", "--foreground"], more].concat();
    for _ in 0..LAUNCHES_MAX {
        let contested = lock_holder(home).is_some();
        let pid = daemonize::launch(&program, &words, home).map_err(|e| {
            let (home, reason) = (home.display(), reason(e));
            Failure::unreachable(format!("daemon: cannot start it in {home}: {reason}"))
        })?;
        // Nobody's child here, so a pidfd says whether it lives.
        let daemon = i32::try_from(pid).ok().and_then(|pid| pidfd::open(pid).ok());
        if let Some(connection) = wait_for(home, daemon.as_ref(), told, contested)? {
            return Ok(connection);
        }
    }
    Err(start_failed(home, told, true))
}

/// Waits for an answer. `None`: the `daemon` gave way to another one that held the lock
/// (`contested`), and that one has left, too.
fn wait_for(
    home: &Path,
    daemon: Option<&OwnedFd>,
    told: u64,
    mut contested: bool,
) -> Result<Option<Connection>, Failure> {
    let began = Instant::now();
    let watch = watch(home);
    let mut pause = RETRY_MIN;
    let (mut said, mut looked) = (false, Duration::ZERO);
    loop {
        // Before the connect: a daemon that dies in between has not bound the socket.
        let gone = daemon.is_none_or(|daemon| is_readable(daemon, Duration::ZERO));
        let waited = began.elapsed();
        // Another daemon may have won the race, and not answer yet: it holds the lock.
        // Looked for before the connect, too: one that lets go has answered or failed.
        let look = gone || waited > PATIENCE;
        let mut holder = if look { Holder::of_lock(home) } else { None };
        if holder.is_none() && waited > looked + PATIENCE {
            holder = Holder::of_descriptors(home);
            looked = waited;
        }
        if let Some(connection) = Connection::open(home)? {
            return Ok(Some(connection));
        }
        if gone && holder.is_none() {
            return if contested { Ok(None) } else { Err(start_failed(home, told, true)) };
        }
        let bound = match &holder {
            Some(holder) if holder.is_stuck() => STUCK_TIME_MAX,
            Some(_) => LOCKED_TIME_MAX,
            None => ANSWER_TIME_MAX,
        };
        if waited > bound {
            // Else each command would leave one more that waits for the lock.
            if let Some(daemon) = daemon
                && pidfd::signal(daemon, libc::SIGTERM, Reach::Process).is_ok()
            {
                is_readable(daemon, DISMISSAL);
            }
            return Err(holder
                .map_or_else(|| start_failed(home, told, gone), |holder| holder.in_the_way(home)));
        }
        contested |= gone;
        if let (Some(holder), false) = (&holder, said || waited <= PATIENCE) {
            let lock = home.join("lock");
            error(&format!("waiting for {}, held by {}", lock.display(), holder.name(home)));
            said = true;
        }
        let living = daemon.filter(|_| !gone);
        let sources: Vec<_> = living.into_iter().chain(&watch).map(AsFd::as_fd).collect();
        pause = match is_any_readable(&sources, pause) {
            true => RETRY_MIN,
            false => (pause * 2).min(RETRY_MAX),
        };
        watch.as_ref().map(drain);
    }
}

/// Becomes readable when something is made or closed in the home: a socket is bound, the lock is
/// let go of. What is waited for comes an instant later, and the kernel may have no watch left: so
/// there are pauses all the same.
fn watch(home: &Path) -> Option<OwnedFd> {
    use inotify::{CreateFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let signs = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&watch, home, signs).ok().map(|_| watch)
}

fn start_failed(home: &Path, told: u64, gone: bool) -> Failure {
    let last = last_line(home, told);
    let what = if gone { "ended before it answered" } else { "doesn't answer" };
    let text = match last.as_deref().map(parting_word) {
        // It says itself why it won't serve, and with which code.
        Some((Some(code), line)) => return Failure::new(code, line),
        Some((None, line)) => format!("daemon: {what}: {line}"),
        // Then it could not even say so.
        None if home::is_full(home) => {
            format!("daemon: {what}: no space left in {}", home.display())
        }
        None => format!("daemon: {what} (see {})", home.join("daemon.log").display()),
    };
    Failure::unreachable(text)
}

/// This program's file. `/proc/self/exe` when an upgrade has replaced it; else by its name,
/// so that the daemon is called `opm` in ps and not `exe`.
pub(super) fn own_program() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    match std::env::current_exe() {
        Ok(path) if identity(&path).is_some() && identity(&path) == identity(&link) => path,
        _ => link,
    }
}

pub(super) fn log_length(home: &Path) -> u64 {
    std::fs::metadata(home.join("daemon.log")).map_or(0, |log| log.len())
}

/// The last line that daemon.log got after its first `told` bytes.
pub(super) fn last_line(home: &Path, told: u64) -> Option<String> {
    lines_of(&home.join("daemon.log"), told).pop()
}

/// The end of a log, without its first `told` bytes. None: it can't be read.
fn tail(path: &Path, told: u64) -> Option<String> {
    let file = open_regular(rustix::fs::CWD, path.to_str()?, rustix::fs::OFlags::RDONLY).ok()?;
    let file = std::fs::File::from(file);
    let end = file.metadata().ok()?.len();
    let begin = told.min(end).max(end.saturating_sub(TAIL_BYTES_MAX));
    let mut tail = vec![0; usize::try_from(end - begin).ok()?];
    file.read_exact_at(&mut tail, begin).ok()?;
    Some(String::from_utf8_lossy(&tail).into_owned())
}

/// The last lines of a log with something in them; none if it can't be read.
pub(super) fn last_lines(path: &str, most: usize) -> Vec<String> {
    let mut lines = lines_of(Path::new(path), 0);
    lines.split_off(lines.len().saturating_sub(most))
}

fn lines_of(path: &Path, told: u64) -> Vec<String> {
    let text = tail(path, told).unwrap_or_default();
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// Exit code and reason of a daemon's last line, `TIME opm: exit CODE: REASON`; else the line.
fn parting_word(line: &str) -> (Option<u8>, &str) {
    let Some((_, said)) = line.split_once("opm: ") else {
        return (None, line);
    };
    let coded = said.strip_prefix("exit ").and_then(|rest| rest.split_once(": "));
    match coded.map(|(code, reason)| (code.parse(), reason)) {
        Some((Ok(code), reason)) => (Some(code), reason),
        _ => (None, said),
    }
}

#[cfg(test)]
#[path = "../../tests/inner/cli_launch.rs"]
mod tests;
