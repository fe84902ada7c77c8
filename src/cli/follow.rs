//! Waiting for the removal of services, whichever daemon is there.
use super::client::Connection;
use super::poll::is_readable;
use crate::service::selector::Selector;
use crate::wire::{Reply, Request, Until, code};
use rustix::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// While no daemon is there, from one look to the next.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    pub(super) fn is_complete(&mut self, home: &Path) -> bool {
        if self.connection.is_none() && self.look_at.is_some_and(|at| at <= Instant::now()) {
            self.connection = self.ask(home);
            self.look_at = Some(Instant::now() + LOOK_AGAIN);
        }
        let is_answered =
            |connection: &mut _| is_readable(Connection::fd(connection), Duration::ZERO);
        let Some(mut connection) = self.connection.take_if(is_answered) else {
            return false;
        };
        match connection.next() {
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

    fn ask(&self, home: &Path) -> Option<Connection> {
        let mut connection = Connection::open(home).ok()??;
        let (target, until) = (self.target.clone(), Until::Removed);
        connection.send(&Request::Wait { target, until, timeout_ms: None }).ok()?;
        Some(connection)
    }
}
