//! A process that we can signal and wait for without mistaking another for it.
use super::{Errno, Reach, Result, pidfd};
use crate::process::{Exit, Pid};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::WaitId;

/// What pins a process.
#[derive(Debug)]
pub enum Held {
    /// Any process.
    Pidfd(OwnedFd),
    /// A child of ours that nobody has waited for: its number stays its own, and that of its group,
    /// until we reap it (credentials(7)). For those that are more than there are descriptors.
    Child(Pid),
}

impl Held {
    pub fn pidfd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Pidfd(pidfd) => Some(pidfd),
            Self::Child(_) => None,
        }
    }

    pub fn is_dead(&self) -> Result<bool> {
        match self {
            Self::Pidfd(pidfd) => pidfd::is_dead(pidfd),
            Self::Child(_) => match self.wait(false) {
                Err(Errno::CHILD) => Ok(true),
                found => found.map(|exit| exit.is_some()),
            },
        }
    }

    pub fn signal(&self, signal: i32, reach: Reach) -> Result<()> {
        match self {
            Self::Pidfd(pidfd) => pidfd::signal(pidfd, signal, reach),
            Self::Child(pid) => super::kill(*pid, signal, reach),
        }
    }

    /// Errors: ECHILD: no child of ours.
    pub fn wait(&self, reap: bool) -> Result<Option<Exit>> {
        match self {
            Self::Pidfd(pidfd) => pidfd::wait(WaitId::PidFd(pidfd.as_fd()), reap),
            Self::Child(pid) => {
                let pid = rustix::process::Pid::from_raw(*pid).ok_or(Errno::CHILD)?;
                pidfd::wait(WaitId::Pid(pid), reap)
            }
        }
    }
}
