//! A process that we can signal and wait for without mistaking another for it.
use super::{Errno, Reach, Result, pidfd};
use crate::process::{Exit, Pid};
use rustix::fd::OwnedFd;

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

    /// # Errors
    /// What poll(2) or waitid(2) says.
    pub fn is_dead(&self) -> Result<bool> {
        match self {
            Self::Pidfd(pidfd) => pidfd::is_dead(pidfd),
            Self::Child(_) => match self.wait(false) {
                Err(Errno::CHILD) => Ok(true),
                found => found.map(|exit| exit.is_some()),
            },
        }
    }

    /// # Errors
    /// What pidfd_send_signal(2) or kill(2) says.
    pub fn signal(&self, signal: i32, reach: Reach) -> Result<()> {
        match self {
            Self::Pidfd(pidfd) => pidfd::signal(pidfd, signal, reach),
            Self::Child(pid) => super::kill(*pid, signal, reach),
        }
    }

    /// # Errors
    /// ECHILD: no child of ours.
    pub fn wait(&self, reap: bool) -> Result<Option<Exit>> {
        match self {
            Self::Pidfd(pidfd) => pidfd::wait(pidfd, reap),
            Self::Child(pid) => pidfd::wait_child(*pid, reap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_held_by_its_number_until_it_is_reaped() {
        let mut command = std::process::Command::new("sleep");
        #[expect(clippy::zombie_processes, reason = "it is waited for by its number")]
        let child = command.arg("1000").spawn().unwrap();
        let held = Held::Child(child.id().cast_signed());
        assert_eq!((held.is_dead(), held.wait(true)), (Ok(false), Ok(None)));
        held.signal(libc::SIGKILL, Reach::Process).unwrap();
        while held.is_dead() == Ok(false) {
            std::thread::yield_now();
        }
        assert_eq!(held.wait(false), Ok(Some(Exit::Signal(libc::SIGKILL))));
        assert_eq!(held.wait(true), Ok(Some(Exit::Signal(libc::SIGKILL))));
        assert_eq!(held.wait(true), Err(Errno::CHILD));
    }
}
