//! What /proc tells of other processes: who there is, whom a signal has reached, who drops it.
//!
//! Looked at only once a stop has begun. A /proc that isn't there, or that speaks of a PID
//! namespace outside of ours, is `None`: it must never be taken for "nobody".

use rustix::fd::OwnedFd;

use super::process::{own_pid, signal_one};
use crate::process::stat::{Stat, parse_children};
use crate::sys::{Errno, Reach, pidfd, procfs};

/// Whether /proc is there and speaks of our PID namespace, not of one outside.
fn proc_is_ours() -> bool {
    procfs::link("/proc/self").is_ok_and(|link| link == own_pid().to_string())
}

/// Every process that we see but ourselves.
pub fn everybody() -> Option<Vec<i32>> {
    let mut all = proc_is_ours().then(procfs::processes)?.ok()?;
    all.retain(|pid| *pid != own_pid());
    Some(all)
}

/// Our direct children, living and dead.
pub fn children() -> Option<Vec<i32>> {
    if !proc_is_ours() {
        return None;
    }
    let pid = own_pid();
    let text = procfs::read(&format!("/proc/self/task/{pid}/children")).ok()?;
    let mut pids = Vec::new();
    parse_children(&text, &mut pids).then_some(pids)
}

/// Whether a child provably drops this signal: it ignores it, and doesn't read it from a
/// signalfd, for which it would have to be blocked. To be blocked alone proves nothing: shells
/// and posix_spawn(3) block everything from their fork to the exec. Descriptors that may not be
/// read count as none. `None` if /proc can't tell.
pub fn drops(pid: i32, signal: i32) -> Option<bool> {
    if !proc_is_ours() {
        return None;
    }
    let text = procfs::read(&format!("/proc/{pid}/status")).ok()?;
    let is_blocked = has_signal(&text, "SigBlk:", signal)?;
    Some(has_signal(&text, "SigIgn:", signal)? && !(is_blocked && has_signalfd(pid, signal)))
}

/// Whether the set that follows the field's name holds the signal.
fn has_signal(text: &[u8], field: &str, signal: i32) -> Option<bool> {
    let text = String::from_utf8_lossy(text);
    let set = text.lines().find_map(|line| line.strip_prefix(field))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set >> (signal - 1) & 1 == 1)
}

fn has_signalfd(pid: i32, signal: i32) -> bool {
    let descriptors = procfs::numbers(&format!("/proc/{pid}/fdinfo")).unwrap_or_default();
    descriptors.iter().any(|fd| {
        let text = procfs::read(&format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        has_signal(&text, "sigmask:", signal) == Some(true)
    })
}

/// An instant that births are told before or after.
///
/// /proc gives the birth in ticks of 10 ms, but what a signal's handler starts is there within
/// one; so within the tick the numbers decide, which the kernel gives out in rising order. (Where
/// they begin anew in just this tick, a birth counts as before.)
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    tick: u64,
    /// The number given out last; `i32::MAX` if /proc doesn't tell.
    last: i32,
}

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let part = now.tv_nsec.unsigned_abs() / (1_000_000_000 / per_second).max(1);
        Moment {
            tick: now.tv_sec.unsigned_abs() * per_second + part,
            last: procfs::last_pid().filter(|number| *number > 0).unwrap_or(i32::MAX),
        }
    }

    /// Whether the process was there already.
    pub fn is_after_birth(&self, process: &Stat) -> bool {
        process.start_time < self.tick
            || (process.start_time == self.tick && process.pid <= self.last)
    }
}

/// A process that is looked at, and that no other can be taken for.
#[derive(Debug)]
pub struct Other {
    /// What /proc says of it.
    pub stat: Stat,
    pin: Option<OwnedFd>,
}

impl Other {
    /// `None`: it is gone, or nothing but a zombie.
    pub fn find(pid: i32) -> Option<Other> {
        // First: a number that is given to somebody else now has a dead pin.
        let pin = pidfd::open(pid).ok();
        let stat = procfs::stat(pid).ok().filter(|stat| !stat.is_zombie())?;
        Some(Other { stat, pin })
    }

    /// Whether it is stopped, and will see no signal until it is continued.
    pub fn is_stopped(&self) -> bool {
        self.stat.state == b'T'
    }

    /// Signals it.
    pub fn signal(&self, signal: i32) {
        let is_done = self.pin.as_ref().is_some_and(|pin| {
            matches!(pidfd::signal(pin, signal, Reach::Process), Ok(()) | Err(Errno::SRCH))
        });
        // Kernels before 5.3 have no pins, and a filter may forbid them. A PID 1 has nobody but
        // its own about it, and a child keeps its number until we reap it; any other number may
        // be a stranger's by now.
        if !is_done && (own_pid() == 1 || self.stat.ppid == own_pid()) {
            signal_one(self.stat.pid, signal);
        }
    }
}
