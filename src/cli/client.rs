//! One request to the daemon and its reply, from a daemon that is started where there must be
//! one.
use super::connection::Connection;
use super::output::Failure;
use super::{home, launch};
use crate::wire::{Reply, Request};
use std::path::PathBuf;

/// How often a request is sent again where daemons leave without having read it.
const REQUESTS_MAX: u32 = 5;

/// Whether a request may, or must, bring a daemon to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It makes something: start a daemon.
    Daemon,
    /// It speaks of what is on record: start a daemon if there is a record.
    Record,
    /// It speaks of the daemon: never start one.
    Running,
}

/// Where the daemon is and whether it may be started.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) home: PathBuf,
    /// False after `--no-daemon-start`.
    pub(crate) may_start: bool,
    /// What PM2 means by a command is meant.
    pub(crate) is_pm2: bool,
}

impl Client {
    /// A connection, or `None` where there is no daemon and `need` doesn't ask for one.
    pub(crate) fn connect(&self, need: Need) -> Result<Option<Connection>, Failure> {
        if let Some(connection) = Connection::open(&self.home)? {
            return Ok(Some(connection));
        }
        match need {
            Need::Running => return Ok(None),
            Need::Record if !home::is_on_record(&self.home) => return Ok(None),
            Need::Record | Need::Daemon => {}
        }
        if !self.may_start {
            return Err(self.away());
        }
        launch::start(&self.home, &[]).map(Some)
    }

    /// The final reply to `request`; `None` as in [`Client::connect`].
    pub(crate) fn request(&self, need: Need, request: &Request) -> Result<Option<Reply>, Failure> {
        for _ in 0..REQUESTS_MAX {
            let Some(mut connection) = self.connect(need)? else {
                return Ok(None);
            };
            connection.send(request)?;
            if let Some(reply) = connection.last()? {
                return Ok(Some(reply));
            }
            // A daemon that left with requests unread: nobody did it, so the next one may. One that
            // replaced itself knows nothing of who waited: they ask the new one, if asking twice
            // does no more than asking once.
            if !connection.unread && !request.may_be_repeated() {
                break;
            }
        }
        let log = self.home.join("daemon.log");
        let text = format!("daemon: left before it answered (see {})", log.display());
        Err(Failure::unreachable(text))
    }

    /// The answer to `request` from a daemon that is started if need be.
    pub(crate) fn demand(&self, request: &Request) -> Result<Reply, Failure> {
        self.request(Need::Daemon, request)?.ok_or_else(|| self.away())
    }

    /// The contract's exit code 4.
    pub(crate) fn away(&self) -> Failure {
        let home = self.home.display();
        Failure::unreachable(format!("daemon: not running in {home} (try 'opm daemon start')"))
    }
}
