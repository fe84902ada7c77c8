//! Who stands between a command and its answer, and what can be done about it.
//!
//! Only looks: at the kernel's table of locks, and at what processes say of themselves.
use super::output::Failure;
use crate::sys::home::lock_sharers;
use crate::sys::procfs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Who holds the home's lock, or should answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder {
    /// A daemon, by its pid: serving, beginning, or hanging.
    Daemon(i32),
    /// Whoever made the socket and does not hold the lock: no daemon any more, or not yet.
    Listener(i32),
    /// Children of a daemon that is gone, forked and not yet exec'd.
    Children,
}

impl Holder {
    /// Who holds the lock of `home`.
    pub(super) fn of_lock(home: &Path) -> Option<Self> {
        let pid = lock_holder(home)?;
        Some(if comm(pid).is_some() { Self::Daemon(pid) } else { Self::Children })
    }

    /// The same where the kernel's table does not tell: in a PID namespace it leaves out the locks
    /// that a process took which is gone. A look at every process.
    pub(super) fn of_descriptors(home: &Path) -> Option<Self> {
        first_sharer(home).map(|_| Self::Children)
    }

    /// Whether nothing that it does brings an answer nearer.
    pub(super) fn is_stuck(self) -> bool {
        !matches!(self, Self::Daemon(_))
    }

    /// `pid 7 (opm)`, or what there is to say.
    pub(super) fn name(self, home: &Path) -> String {
        match self {
            Self::Daemon(pid) | Self::Listener(pid) => {
                format!("pid {pid} ({})", comm(pid).unwrap_or_else(|| "gone".to_owned()))
            }
            Self::Children => match first_sharer(home) {
                Some(pid) => format!("pid {pid}, started by a daemon that is gone, not yet exec'd"),
                None => "a child of a daemon that is gone".to_owned(),
            },
        }
    }

    /// That there is no answer because of it, what it is doing, and what to do.
    pub(super) fn in_the_way(self, home: &Path) -> Failure {
        let what = match self {
            Self::Daemon(_) | Self::Children => format!("holds {}/lock", home.display()),
            Self::Listener(_) => format!("made {}/opm.sock", home.display()),
        };
        let advice = match self {
            Self::Daemon(pid) | Self::Listener(pid) => {
                format!("{} (end it: kill -9 {pid}; services live on)", state(pid))
            }
            Self::Children => match first_sharer(home) {
                Some(pid) => {
                    let state = state(pid);
                    format!("{state} (bring back its log or directory, or end it: kill {pid})")
                }
                None => "waiting (try again)".to_owned(),
            },
        };
        Failure::unreachable(format!("daemon: no answer; {} {what}: {advice}", self.name(home)))
    }
}

/// The pid that took the home's lock; a child that has not exec'd yet may hold it for one that is
/// gone. Read from /proc/locks: a try of the lock would look like another daemon to a daemon.
pub(super) fn lock_holder(home: &Path) -> Option<i32> {
    let lock = std::fs::metadata(home.join("lock")).ok()?;
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, lock.ino())
}

/// The device is not compared: for btrfs and overlayfs stat(2) says another one than the
/// kernel's table does. A stranger's lock with the same inode number only makes us wait.
fn holder_in(locks: &str, inode: u64) -> Option<i32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        (words.next()? == "FLOCK").then_some(())?;
        let pid = words.nth(2)?.parse().ok()?;
        let found = words.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
        (found == inode).then_some(pid)
    })
}

fn first_sharer(home: &Path) -> Option<i32> {
    lock_sharers(&home.join("lock").to_string_lossy()).first().copied()
}

fn comm(pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim_end().to_owned())
}

fn state(pid: i32) -> &'static str {
    match procfs::stat(pid).map_or(0, |stat| stat.state) {
        b'T' | b't' => "stopped by a signal or a debugger",
        b'D' => "hanging in the kernel",
        b'R' => "running",
        b'S' | b'I' => "waiting",
        _ => "ended",
    }
}

#[cfg(test)]
#[path = "../../tests/inner/cli_holder.rs"]
mod tests;
