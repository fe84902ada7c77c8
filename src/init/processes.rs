//! What /proc tells of other processes: who there is, whom a signal has reached, who drops it.
//!
//! Looked at only once a stop has begun. A /proc that isn't there, or that speaks of a PID
//! namespace outside of ours, is `None`: it must never be taken for "nobody".
use crate::process::Pid;
use crate::process::stat::{Stat, TICK_MS, status_field};
use crate::sys::linux::milliseconds_of;
use crate::sys::{Errno, Reach, kill, own_pid, pidfd, procfs};
use rustix::fd::OwnedFd;

/// Whether /proc is there and speaks of our PID namespace, not of one outside.
fn proc_is_ours() -> bool {
    procfs::link("/proc/self").is_ok_and(|link| link == own_pid().to_string())
}

/// Every process that we see but ourselves.
pub(super) fn everybody() -> Option<Vec<Pid>> {
    let mut all = proc_is_ours().then(procfs::processes)?.ok()?;
    all.retain(|pid| *pid != own_pid());
    Some(all)
}

/// Our direct children, living and dead.
pub(super) fn children() -> Option<Vec<Pid>> {
    let mut pids = Vec::new();
    let known = proc_is_ours() && procfs::children(own_pid(), &mut pids).is_ok();
    known.then_some(pids)
}

/// Whether a child provably drops this signal: it ignores it, and doesn't read it from a
/// signalfd, for which it would have to be blocked. To be blocked alone proves nothing: shells
/// and posix_spawn(3) block everything from their fork to the exec. Descriptors that may not be
/// read count as none. `None` if /proc can't tell.
pub(super) fn drops(pid: Pid, signal: i32) -> Option<bool> {
    let text = proc_is_ours().then(|| procfs::read(&format!("/proc/{pid}/status")))?.ok()?;
    let is_blocked = has_signal(&text, "SigBlk:", signal)?;
    Some(has_signal(&text, "SigIgn:", signal)? && !(is_blocked && has_signalfd(pid, signal)))
}

/// Whether the set in the field of that name holds the signal.
fn has_signal(text: &[u8], name: &str, signal: i32) -> Option<bool> {
    let set = std::str::from_utf8(status_field(text, name)?).ok()?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set >> (signal - 1) & 1 == 1)
}

fn has_signalfd(pid: Pid, signal: i32) -> bool {
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
pub(super) struct Moment {
    tick: u64,
    /// The number given out last; `Pid::MAX` if /proc doesn't tell.
    last: Pid,
}

impl Moment {
    pub(super) fn now() -> Moment {
        let last = procfs::open_load().ok().and_then(|load| procfs::last_pid(&load));
        let last = last.filter(|number| *number > 0).unwrap_or(Pid::MAX);
        Moment { tick: milliseconds_of(rustix::time::ClockId::Boottime) / TICK_MS, last }
    }

    /// Whether the process was there already.
    pub(super) fn is_after_birth(self, process: &Stat) -> bool {
        (process.start_time, process.pid) <= (self.tick, self.last)
    }
}

/// A process that is looked at, and that no other can be taken for.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) stat: Stat,
    pin: Option<OwnedFd>,
}

impl Process {
    /// `None`: it is gone, or nothing but a zombie.
    pub(super) fn find(pid: Pid) -> Option<Process> {
        // First: a number that is given to somebody else now has a dead pin.
        let pin = pidfd::open(pid).ok();
        let stat = procfs::stat(pid).ok().filter(|stat| !stat.is_zombie())?;
        Some(Process { stat, pin })
    }

    /// Whether it is stopped, and will see no signal until it is continued.
    pub(super) fn is_stopped(&self) -> bool {
        self.stat.state == b'T'
    }

    pub(super) fn signal(&self, signal: i32) {
        let sent = self.pin.as_ref().map(|pin| pidfd::signal(pin, signal, Reach::Process));
        // Without a pin, or where a filter forbids its use: a PID 1 has nobody but its own about
        // it, and a child keeps its number until we reap it; any other number may be a stranger's
        // by now.
        if !matches!(sent, Some(Ok(()) | Err(Errno::SRCH)))
            && (own_pid() == 1 || self.stat.ppid == own_pid())
        {
            kill(self.stat.pid, signal, Reach::Process).ok();
        }
    }
}
