//! What a PID namespace that has ended may leave of itself for an instant, and how to wait for
//! the end of that instant.
//!
//! A container that was killed is started again on the same home: its records speak of another
//! PID namespace. Where that namespace's PID 1 was the recorded daemon, the kernel kills all of
//! it with PID 1, and nothing that PID 1 started can have left it. But PID 1 lets go of its
//! locks before it kills, so that a free lock is no proof (99 of 100 rounds had live ones).
//! Proof is what the last of them lets go of:
//!
//! - `alive`, locked by PID 1 through every exec of itself: free means that PID 1 is ending, not
//!   becoming another image;
//! - FIFOs that the services hold open: those that carry output, and one that each gets for this
//!   alone. The kernel tells whether anybody has them, in whatever namespace (ENXIO);
//! - the cgroup, if it was that container's alone: it lists processes of other namespaces as 0.
//!
//! What nobody in a container can see: a process that closed all of these, in a cgroup that was
//! made anew; and any on a file system that was mounted anew, where locks and FIFOs are others;
//! each only in the moment between SIGKILL and its death. There the runtime's order stands in:
//! it starts a container again after it has reaped its PID 1, and the kernel lets PID 1 be
//! reaped only after everything in its namespace is. (File handles of namespaces, Linux 6.18,
//! say ESTALE of live ones too for want of privilege: no proof.)
use crate::daemon::adopt::Place;
use crate::daemon::launch::LIVING;
use crate::daemon::ledger::load::JOURNAL;
use crate::daemon::log::log;
use crate::process::INITIAL_PID_NAMESPACE;
use crate::process::journal_format::{HEADER_BYTES, Header};
use crate::sys::home::{Home, try_lock};
use crate::sys::{Errno, Mode, describe, fifo, procfs, reexec};
use crate::wire::Failure;
use rustix::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The lock file of PID 1.
const ALIVE: &str = "alive";
/// From one look to the next.
const RETRY: Duration = Duration::from_millis(10);
/// After this the records stand, and the daemon refuses to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// The PID namespace that is proven gone; 0 is none.
static GONE: AtomicU64 = AtomicU64::new(0);

/// Whether a namespace ended: it was waited for, or seen from the initial one it has nobody.
pub(super) fn is_gone(namespace: u64) -> bool {
    if namespace != 0 && GONE.load(Ordering::Relaxed) == namespace {
        return true;
    }
    if procfs::pid_namespace() != INITIAL_PID_NAMESPACE {
        return false;
    }
    let Ok(pids) = procfs::processes() else {
        return false;
    };
    pids.into_iter().all(|pid| match rustix::fs::stat(format!("/proc/{pid}/ns/pid")) {
        Ok(stat) => stat.st_ino != namespace,
        Err(Errno::NOENT | Errno::SRCH) => true,
        Err(_) => false,
    })
}

/// PID 1 holds `alive` for its whole life. None: we are not PID 1.
pub(crate) fn hold_alive(
    home: &Home,
    inherited: Option<OwnedFd>,
) -> Result<Option<OwnedFd>, Failure> {
    if !rustix::process::getpid().is_init() {
        return Ok(None);
    }
    let cannot = |errno: Errno| {
        Failure::unreachable(format!("cannot use {}/{ALIVE}: {}", home.path, describe(errno)))
    };
    let file = match inherited {
        Some(file) => file,
        None => home.open_file(ALIVE, Mode::InPlace).map_err(cannot)?,
    };
    // The FIFO has to exist: services open it themselves, and no descriptor of ours may hold it.
    drop(fifo::open(&home.path_by_descriptor(LIVING)).map_err(cannot)?);
    match try_lock(&file) {
        // Somebody else's: it may be about to end.
        Ok(()) | Err(Errno::WOULDBLOCK) => {}
        Err(errno) => return Err(cannot(errno)),
    }
    // Kept by number: the same lock, closed by the end of this process alone.
    let own = rustix::io::fcntl_dupfd_cloexec(&file, 3).map_err(cannot)?;
    reexec::keep_alive(&own);
    std::mem::forget(own);
    Ok(Some(file))
}

/// Waits for the end of the namespace that the journal speaks of, if it is one whose PID 1 was
/// a daemon of this home, and we are the PID 1 of the next.
pub(super) fn wait_for_namespace(home: &Home, place: &Place, alive: Option<&OwnedFd>) {
    let Some(alive) = alive else { return };
    let bytes = home.load(JOURNAL).ok().flatten().unwrap_or_default();
    let Some(header) = bytes.get(..HEADER_BYTES).and_then(Header::decode) else {
        return;
    };
    let other = header.pid_namespace != place.pid_namespace;
    if !other || !header.init || header.boot != place.boot {
        return;
    }
    let began = Instant::now();
    while let Some(left) = what_is_left(home, alive, header) {
        if began.elapsed() > PATIENCE {
            log(&format!("the container before has not ended: {left}"));
            return;
        }
        std::thread::sleep(RETRY);
    }
    GONE.store(header.pid_namespace, Ordering::Relaxed);
}

fn what_is_left(home: &Home, alive: &OwnedFd, header: Header) -> Option<String> {
    if try_lock(alive).is_err() {
        return Some(format!("its PID 1 holds {}/{ALIVE}", home.path));
    }
    let logs = std::fs::read_dir(format!("{}/logs", home.path));
    for entry in logs.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".fifo")) else {
            continue;
        };
        let name = format!("logs/{name}");
        if fifo::is_held(home, &name) {
            return Some(format!("a process of it holds {}/{name}", home.path));
        }
    }
    (header.alone && procfs::strangers_in_cgroup() == Some(true))
        .then(|| "a process of it is in this cgroup".to_owned())
}
