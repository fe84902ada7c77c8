//! Waiting without end for something to read, while somebody still reads what we write; and for
//! the removal of services, whichever daemon is there.
use super::client::{Client, Connection};
use super::output::{Failure, why};
use crate::service::selector::Selector;
use crate::wire::{Reply, Request, Until, code};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// While no daemon is there, from one look to the next.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Waits until one of `sources` can be read or the time is over (true), or until nobody reads our
/// stdout any more (false): a pipe's writer learns that only from poll, or from its next write.
pub(super) fn wait(sources: &[impl AsFd], most: Option<Duration>) -> Result<bool, Failure> {
    let out = rustix::stdio::stdout();
    let most = most.and_then(|most| Timespec::try_from(most).ok());
    loop {
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
        // No events asked for: ERR (a pipe without readers) and HUP are always reported.
        fds.push(PollFd::new(&out, PollFlags::empty()));
        let ready = match poll(&mut fds, most.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(Failure::plain(format!("poll: {}", why(e)))),
        };
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if fds.last().is_some_and(|out| out.revents().intersects(gone)) {
            return Ok(false);
        }
        if ready == 0 || fds[..sources.len()].iter().any(|fd| !fd.revents().is_empty()) {
            return Ok(true);
        }
    }
}

/// Hears when the last of some services is removed.
pub(super) struct Removal {
    target: String,
    connection: Option<Connection>,
    /// When a daemon is looked for again; none: never.
    look_at: Option<Instant>,
}

impl Removal {
    pub(super) fn of(names: &[String]) -> Self {
        let names: Vec<String> = names.iter().map(|name| Selector::exactly(name)).collect();
        Self { target: names.join(","), connection: None, look_at: Some(Instant::now()) }
    }

    /// What to poll, and until when at most.
    pub(super) fn source(&self) -> (Option<BorrowedFd<'_>>, Option<Duration>) {
        let left = self.look_at.map(|at| at.saturating_duration_since(Instant::now()));
        match &self.connection {
            Some(connection) => (Some(connection.fd()), None),
            None => (None, left),
        }
    }

    /// Whether all are removed. Waits for nothing.
    pub(super) fn is_complete(&mut self, client: &Client) -> bool {
        if self.connection.is_none() && self.look_at.is_some_and(|at| at <= Instant::now()) {
            self.connection = self.ask(client);
            self.look_at = Some(Instant::now() + LOOK_AGAIN);
        }
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let ready = poll(
            &mut [PollFd::from_borrowed_fd(connection.fd(), PollFlags::IN)],
            Some(&Timespec::default()),
        );
        if ready != Ok(1) {
            return false;
        }
        let reply = connection.next();
        self.connection = None;
        match reply {
            Ok(Some(Reply::Outcomes { outcomes, .. })) => {
                outcomes.iter().all(|one| [code::DONE, code::NO_SUCH].contains(&one.code))
            }
            Ok(Some(Reply::Failed { code: code::NO_SUCH, .. })) => true,
            // It left: its successor is asked.
            Ok(None) | Err(_) => false,
            // One that does not know the question will not know it later.
            Ok(Some(_)) => {
                self.look_at = None;
                false
            }
        }
    }

    fn ask(&self, client: &Client) -> Option<Connection> {
        let mut connection = client.try_connect().ok()??;
        let (target, until) = (self.target.clone(), Until::Removed);
        connection.send(&Request::Wait { target, until, timeout_ms: None }).ok()?;
        Some(connection)
    }
}
