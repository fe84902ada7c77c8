//! Who stands between a command and its answer, and what can be done about it.
//!
//! Only looks: at the kernel's table of locks, and at what processes say of themselves.
use super::home;
use std::path::{Path, PathBuf};

/// Who holds the home's lock, or should answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A daemon, by its pid: serving, beginning, or hanging.
    Daemon(i32),
    /// Whoever made the socket and does not hold the lock: no daemon any more, or not yet.
    Listener(i32),
    /// Children of a daemon that is gone, forked and not yet exec'd, by the lock that they hold.
    Children(PathBuf),
}

impl Holder {
    /// Who holds the lock of `home`.
    pub(super) fn of_lock(home: &Path) -> Option<Self> {
        let pid = home::lock_holder(home)?;
        let lives = comm(pid).is_some();
        Some(if lives { Self::Daemon(pid) } else { Self::Children(home.join("lock")) })
    }

    /// The same where the kernel's table does not tell: in a PID namespace it leaves out the locks
    /// that a process took which is gone. A look at every process.
    pub(super) fn of_descriptors(home: &Path) -> Option<Self> {
        let lock = home.join("lock");
        let is_held = !holders_of(&lock).is_empty();
        is_held.then_some(Self::Children(lock))
    }

    /// What makes it the one.
    pub(super) fn reason(&self, home: &Path) -> String {
        match self {
            Self::Daemon(_) | Self::Children(_) => format!("holds {}/lock", home.display()),
            Self::Listener(_) => format!("made {}/opm.sock", home.display()),
        }
    }

    /// Whether nothing that it does brings an answer nearer.
    pub(super) fn is_stuck(&self) -> bool {
        !matches!(self, Self::Daemon(_))
    }

    /// `pid 7 (opm)`, or what there is to say.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Daemon(pid) | Self::Listener(pid) => {
                format!("pid {pid} ({})", comm(*pid).unwrap_or_else(|| "gone".to_owned()))
            }
            Self::Children(lock) => match holders_of(lock).first() {
                Some(pid) => format!("pid {pid}, started by a daemon that is gone, not yet exec'd"),
                None => "a child of a daemon that is gone".to_owned(),
            },
        }
    }

    /// What it is doing, and what to do.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::Daemon(pid) | Self::Listener(pid) => {
                let state = state(*pid);
                format!("{state} (end it: kill -9 {pid}; services live on)")
            }
            Self::Children(lock) => match holders_of(lock).first() {
                Some(pid) => {
                    let state = state(*pid);
                    format!("{state} (bring back its log or directory, or end it: kill {pid})")
                }
                None => "waiting (try again)".to_owned(),
            },
        }
    }
}

fn comm(pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim_end().to_owned())
}

/// What a process is doing, in words.
fn state(pid: i32) -> &'static str {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let letter = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    match letter {
        Some('T' | 't') => "stopped by a signal or a debugger",
        Some('D') => "hanging in the kernel",
        Some('R') => "running",
        Some('S' | 'I') => "waiting",
        _ => "ended",
    }
}

fn holders_of(lock: &Path) -> Vec<i32> {
    home::lock_sharers(&lock.to_string_lossy())
}
