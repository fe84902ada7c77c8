//! One request to the daemon and its reply, from a daemon that is started where there must be
//! one. Only the owner's and root's daemons are believed: requests carry environments.
use super::holder::Holder;
use super::output::{Failure, Progress, reason};
use super::poll::is_readable;
use super::{home, launch};
use crate::sys::sockets::peer;
use crate::sys::{home as place, pidfd};
use crate::wire::frame::{self, Inbox, REPLY_BYTES_MAX};
use crate::wire::{Reply, Request};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
            // replaced itself lost those that wait: they ask anew, if twice does no more than once.
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

    pub(crate) fn away(&self) -> Failure {
        let home = self.home.display();
        Failure::unreachable(format!("daemon: not running in {home} (try 'opm daemon start')"))
    }
}

/// After this long without an answer it is asked whether somebody is there at all.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long that may take where a daemon holds the lock. Where none does, as long as the first.
const SIGN_TIME_MAX: Duration = Duration::from_secs(8);
const READ_BYTES: usize = 64 << 10;

/// A socket with a daemon at its other end.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    /// The daemon left before it had read the request.
    pub(super) unread: bool,
    /// Where it is, until it has said anything.
    home: Option<PathBuf>,
}

impl Connection {
    /// A connection if somebody listens.
    pub(crate) fn open(home: &Path) -> Result<Option<Self>, Failure> {
        let wrong = |what: String| {
            let path = home.join(place::SOCKET);
            Failure::unreachable(format!("daemon: {}: {what}", path.display()))
        };
        let stream = match place::connect(home) {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(e) => return Err(wrong(reason(e))),
        };
        let uid = peer(&stream).map_err(|errno| wrong(reason(errno)))?.uid;
        // In a user's home root is that user by now.
        if ![rustix::process::geteuid().as_raw(), 0].contains(&uid) {
            return Err(wrong(format!("it belongs to uid {uid}, not to you")));
        }
        let home = Some(home.to_owned());
        Ok(Some(Self { stream, inbox: Inbox::default(), unread: false, home }))
    }

    /// The daemon's process, if it is in our PID namespace or below.
    pub(crate) fn process(&self) -> Option<OwnedFd> {
        let pid = peer(&self.stream).ok()?.pid;
        (pid > 0).then(|| pidfd::open(pid).ok())?
    }

    pub(crate) fn send(&mut self, request: &Request) -> Result<(), Failure> {
        let frame = frame::encode(request).map_err(Failure::plain)?;
        if frame.len() > 4 + frame::REQUEST_BYTES_MAX {
            let most = frame::REQUEST_BYTES_MAX >> 20;
            return Err(Failure::plain(format!("the request is over {most} MB (split it)")));
        }
        match self.stream.write_all(&frame) {
            // Refused before it was read whole: the reply says why.
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.unread = true;
                Ok(())
            }
            sent => sent.map_err(lost),
        }
    }

    /// The final reply, or `None` when the daemon has closed the connection without one.
    pub(super) fn last(&mut self) -> Result<Option<Reply>, Failure> {
        let mut progress = Progress::default();
        loop {
            match self.next()? {
                Some(Reply::Progress { done, total }) => progress.show(done, total),
                Some(Reply::Failed { code, text }) => return Err(Failure::new(code, text)),
                Some(reply) if !reply.is_final() => {}
                last => return Ok(last),
            }
        }
    }

    /// The next reply, or `None` when the daemon has closed the connection.
    pub(crate) fn next(&mut self) -> Result<Option<Reply>, Failure> {
        loop {
            let body = self.inbox.next_frame(REPLY_BYTES_MAX);
            if let Some(body) = body.map_err(|n| strange(&format!("{n} bytes")))? {
                let reply = serde_json::from_slice(&body).map_err(|e| strange(&e.to_string()))?;
                return Ok(Some(reply));
            }
            if let Some(home) = self.home.take_if(|_| !is_readable(&self.stream, SILENCE_MAX))
                && !self.is_answered(&home)?
            {
                return Ok(None);
            }
            let mut bytes = vec![0; READ_BYTES];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(n) => {
                    self.home = None;
                    self.inbox.push(&bytes[..n]);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // How a Unix socket is closed with bytes in it that nobody has read.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                    self.unread = true;
                    return Ok(None);
                }
                Err(e) => return Err(lost(e)),
            }
        }
    }

    /// Whether the daemon answers others: then ours just takes its time. False: there is none any
    /// more, and somebody keeps the connection open.
    fn is_answered(&self, home: &Path) -> Result<bool, Failure> {
        let Some(mut other) = Self::open(home)? else {
            return Ok(false);
        };
        other.send(&Request::Health)?;
        let listener = peer(&other.stream).map_or(0, |peer| peer.pid);
        let holder = Holder::of_lock(home).or_else(|| Holder::of_descriptors(home));
        let holder = holder.unwrap_or(Holder::Listener(listener));
        let most = if holder.is_stuck() { SILENCE_MAX } else { SIGN_TIME_MAX };
        if is_readable(&other.stream, most) || is_readable(&self.stream, Duration::ZERO) {
            return Ok(true);
        }
        Err(holder.in_the_way(home))
    }

    /// Whether the daemon has closed the connection, as an exec does, within `most`.
    pub(crate) fn wait_for_close(mut self, most: Duration) -> bool {
        // Where it can't be set nothing is waited for.
        if self.stream.set_read_timeout(Some(most)).is_err() {
            return false;
        }
        loop {
            match self.next() {
                Ok(Some(_)) => {}
                last => return last.is_ok(),
            }
        }
    }

    /// Whether [`Connection::next`] may return without reading.
    pub(crate) fn has_reply(&self) -> bool {
        self.inbox.pending() > 0
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn lost(error: std::io::Error) -> Failure {
    Failure::unreachable(format!("daemon: connection lost: {}", reason(error)))
}

fn strange(what: &str) -> Failure {
    let text = "daemon: it speaks another language (try 'opm daemon upgrade')";
    Failure::unreachable(format!("{text}: {what}"))
}
