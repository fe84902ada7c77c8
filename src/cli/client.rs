//! One request to the daemon and its replies, and a daemon where there must be one.
//!
//! The daemon answers on its socket only when adoption is complete, so the first answer is
//! true; whoever connects earlier waits. Only the owner's and root's daemons are believed:
//! requests carry environments.
use super::holder::Holder;
use super::home;
use super::launched::{Child, last_line, own_program, parting_word};
use super::output::{Failure, Progress, complain, why};
use crate::sys::attributes;
use crate::sys::peer::peer;
use crate::wire::frame::{self, Inbox, REPLY_BYTES_MAX};
use crate::wire::{Reply, Request, code};
use rustix::fs::{Mode, OFlags};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a daemon that was started may take to answer, while nobody holds the lock.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// The same while a daemon holds the home's lock, which may have much to adopt.
const LOCKED_TIME_MAX: Duration = Duration::from_secs(60);
/// The same while only children hold it that have not exec'd: they may never.
const STUCK_TIME_MAX: Duration = Duration::from_secs(8);
/// After this long without an answer it is asked whether somebody is there at all.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long that may take where a daemon holds the lock. Where none does, as long as the first.
const SIGN_TIME_MAX: Duration = Duration::from_secs(8);
/// How often a daemon is launched where others hold the lock and leave without answering.
const LAUNCHES_MAX: u32 = 3;
/// How often a request is sent again where daemons leave without having read it.
const ASKS_MAX: u32 = 5;
/// When to say what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries to connect: from the first to the longest.
const RETRY_MIN: Duration = Duration::from_micros(500);
const RETRY_MAX: Duration = Duration::from_millis(20);
/// Longest path of a Unix socket, without the NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const READ_BYTES: usize = 64 << 10;

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
}

impl Client {
    /// A connection, or `None` where there is no daemon and `need` doesn't ask for one.
    pub(crate) fn connect(&self, need: Need) -> Result<Option<Connection>, Failure> {
        if let Some(connection) = self.try_connect()? {
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
        self.start().map(Some)
    }

    /// The final reply to `request`; `None` as in [`Client::connect`].
    pub(crate) fn ask(&self, need: Need, request: &Request) -> Result<Option<Reply>, Failure> {
        for _ in 0..ASKS_MAX {
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
        Err(self.cut_off())
    }

    /// The answer to `request` from a daemon that is started if need be.
    pub(crate) fn demand(&self, request: &Request) -> Result<Reply, Failure> {
        self.ask(Need::Daemon, request)?.ok_or_else(|| self.away())
    }

    /// The contract's exit code 4.
    pub(crate) fn away(&self) -> Failure {
        let home = self.home.display();
        let text = format!("daemon: not running in {home} (try 'opm daemon start')");
        Failure::new(code::UNREACHABLE, text)
    }

    fn cut_off(&self) -> Failure {
        let log = self.home.join("daemon.log");
        let text = format!("daemon: left before it answered (see {})", log.display());
        Failure::new(code::UNREACHABLE, text)
    }

    fn unreachable(&self, reason: &str) -> Failure {
        let path = self.home.join("opm.sock");
        Failure::new(code::UNREACHABLE, format!("daemon: {}: {reason}", path.display()))
    }

    /// A connection if somebody listens.
    pub(crate) fn try_connect(&self) -> Result<Option<Connection>, Failure> {
        match open_socket(&self.home) {
            Ok(stream) => {
                self.check_peer(&stream)?;
                let (inbox, home) = (Inbox::default(), self.home.clone());
                Ok(Some(Connection { stream, inbox, unread: false, home: Some(home) }))
            }
            Err(e) if is_nobody(&e) => Ok(None),
            Err(e) => Err(self.unreachable(&why(e))),
        }
    }

    /// In a user's home root is that user by now.
    fn check_peer(&self, stream: &UnixStream) -> Result<(), Failure> {
        let peer = peer(stream).map_err(|e| self.unreachable(&why(e)))?;
        let own = rustix::process::geteuid().as_raw();
        if [own, 0].contains(&peer.uid) {
            return Ok(());
        }
        Err(self.unreachable(&format!("it belongs to uid {}, not to you", peer.uid)))
    }

    /// Starts a daemon and waits until it, or another one that was faster, answers.
    pub(crate) fn start(&self) -> Result<Connection, Failure> {
        self.start_with(&[])
    }

    /// The same with more options of `daemon start`.
    pub(crate) fn start_with(&self, more: &[&str]) -> Result<Connection, Failure> {
        // A umask such as 277 would make a home that its own daemon can't use.
        attributes::privately(|| self.start_privately(more))
    }

    /// How much was said in daemon.log, in bytes.
    pub(super) fn log_length(&self) -> u64 {
        std::fs::metadata(self.home.join("daemon.log")).map_or(0, |log| log.len())
    }

    fn start_privately(&self, more: &[&str]) -> Result<Connection, Failure> {
        if !Path::new("/proc/self").exists() {
            let text = "daemon: cannot supervise without /proc (mount it; 'opm init' does without)";
            return Err(Failure::new(code::UNREACHABLE, text));
        }
        home::create(&self.home)?;
        let told = self.log_length();
        let program = own_program();
        let words = [&["opm", "daemon", "start", "--foreground"], more].concat();
        for _ in 0..LAUNCHES_MAX {
            let contested = home::lock_holder(&self.home).is_some();
            let pid = crate::sys::daemonize::launch(&program, &words, &self.home).map_err(|e| {
                let reason = why(e);
                let text = format!("daemon: cannot start it in {}: {reason}", self.home.display());
                Failure::new(code::UNREACHABLE, text)
            })?;
            if let Some(connection) = self.wait_for(&Child::of(pid), told, contested)? {
                return Ok(connection);
            }
        }
        Err(self.start_failed(told, true))
    }

    /// Waits for an answer. `None`: the daemon gave way to another one that held the lock
    /// (`contested`), and that one has left, too.
    fn wait_for(
        &self,
        child: &Child,
        told: u64,
        mut contested: bool,
    ) -> Result<Option<Connection>, Failure> {
        let began = Instant::now();
        let mut pause = RETRY_MIN;
        let (mut said, mut looked) = (false, Duration::ZERO);
        loop {
            // Before the connect: a daemon that dies in between has not bound the socket.
            let gone = child.is_gone();
            let waited = began.elapsed();
            // Another daemon may have won the race, and not answer yet: it holds the lock.
            // Looked for before the connect, too: one that lets go has answered or failed.
            let look = gone || waited > PATIENCE;
            let mut holder = if look { Holder::of_lock(&self.home) } else { None };
            if holder.is_none() && waited > looked + PATIENCE {
                holder = Holder::of_descriptors(&self.home);
                looked = waited;
            }
            if let Some(connection) = self.try_connect()? {
                return Ok(Some(connection));
            }
            let bound = match &holder {
                Some(holder) if holder.is_stuck() => STUCK_TIME_MAX,
                Some(_) => LOCKED_TIME_MAX,
                None => ANSWER_TIME_MAX,
            };
            if gone && holder.is_none() && contested {
                return Ok(None);
            }
            if waited > bound {
                // Else each command would leave one more behind that waits for the lock.
                child.dismiss();
            }
            match holder {
                None if gone || waited > bound => return Err(self.start_failed(told, gone)),
                Some(holder) if waited > bound => return Err(self.in_the_way(&holder)),
                _ => {}
            }
            contested |= holder.is_some() && gone;
            if let (Some(holder), false) = (&holder, said)
                && waited > PATIENCE
            {
                let lock = self.home.join("lock");
                let name = holder.name();
                complain(&format!("waiting for {}, held by {name}", lock.display()));
                said = true;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn in_the_way(&self, holder: &Holder) -> Failure {
        let (name, reason, advice) = (holder.name(), holder.reason(&self.home), holder.advice());
        let text = format!("daemon: no answer; {name} {reason}: {advice}");
        Failure::new(code::UNREACHABLE, text)
    }

    fn start_failed(&self, told: u64, gone: bool) -> Failure {
        let log = self.home.join("daemon.log");
        let last = last_line(&log, told);
        let what = if gone { "ended before it answered" } else { "doesn't answer" };
        let text = match last.as_deref().map(parting_word) {
            // It says itself why it won't serve, and with which code.
            Some((Some(code), line)) => return Failure::new(code, line.to_owned()),
            Some((None, line)) => format!("daemon: {what}: {line}"),
            // Then it could not even say so.
            None if home::is_full(&self.home) => {
                format!("daemon: {what}: no space left in {}", self.home.display())
            }
            None => format!("daemon: {what} (see {})", log.display()),
        };
        Failure::new(code::UNREACHABLE, text)
    }
}

fn is_nobody(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// A path that is too long for a socket's address is reached through the directory.
fn open_socket(home: &Path) -> std::io::Result<UnixStream> {
    let path = home.join("opm.sock");
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return UnixStream::connect(path);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(home, flags, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/opm.sock", directory.as_raw_fd()))
}

/// One conversation.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    /// The daemon left before it had read the request.
    unread: bool,
    /// Where it is, until it has said anything.
    home: Option<PathBuf>,
}

impl Connection {
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
    fn last(&mut self) -> Result<Option<Reply>, Failure> {
        let mut progress = Progress::new();
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
            let body = body.map_err(|e| strange(&format!("{e:?}")))?;
            if let Some(body) = body {
                let reply = serde_json::from_slice(&body).map_err(|e| strange(&e.to_string()))?;
                return Ok(Some(reply));
            }
            if let Some(home) = self.home.clone().filter(|_| !is_ready(&self.stream, SILENCE_MAX)) {
                if !self.is_answered(&home)? {
                    return Ok(None);
                }
                self.home = None;
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
        let client = Client { home: home.to_owned(), may_start: false };
        let Some(mut other) = client.try_connect()? else {
            return Ok(false);
        };
        other.home = None;
        other.send(&Request::Health)?;
        let listener = peer(&other.stream).map_or(0, |peer| peer.pid);
        let holder = Holder::of_lock(home).or_else(|| Holder::of_descriptors(home));
        let holder = holder.unwrap_or(Holder::Listener(listener));
        let most = if holder.is_stuck() { SILENCE_MAX } else { SIGN_TIME_MAX };
        if is_ready(&other.stream, most) || is_ready(&self.stream, Duration::ZERO) {
            return Ok(true);
        }
        Err(client.in_the_way(&holder))
    }

    /// Waits until the daemon has closed the connection, as an exec does, or for `most`. Whether
    /// it has.
    pub(crate) fn wait_for_close(mut self, most: Duration) -> bool {
        // Where it can't be set nothing is waited for.
        if self.stream.set_read_timeout(Some(most)).is_err() {
            return false;
        }
        loop {
            match self.next() {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Whether [`Connection::next`] may return without reading.
    pub(crate) fn has_reply(&self) -> bool {
        self.inbox.pending() > 0
    }

    /// What to poll while waiting for the next reply.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Whether there is something to read, or comes within the time.
fn is_ready(stream: &UnixStream, most: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let seconds = i64::try_from(most.as_secs()).unwrap_or(i64::MAX);
    let most = Timespec { tv_sec: seconds, tv_nsec: 0 };
    // An error is for the read to tell.
    poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&most)) != Ok(0)
}

fn lost(error: std::io::Error) -> Failure {
    Failure::new(code::UNREACHABLE, format!("daemon: connection lost: {}", why(error)))
}

fn strange(reason: &str) -> Failure {
    let text = format!("daemon: it speaks another language (try 'opm daemon upgrade'): {reason}");
    Failure::new(code::UNREACHABLE, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};
    use std::os::unix::net::UnixListener;

    /// A home of one test, and a daemon in it that was launched and is dead.
    struct Scratch(Client);

    impl Scratch {
        fn new(name: &str) -> Self {
            let home = std::env::temp_dir().join(format!("opm-{name}-{}", std::process::id()));
            home::create(&home).unwrap();
            std::fs::write(home.join("daemon.log"), "old\nopm: no room\n\n").unwrap();
            Self(Client { home, may_start: true })
        }

        /// Holds the home's lock until it is dropped.
        fn lock(&self) -> std::fs::File {
            let file = std::fs::File::create(self.0.home.join("lock")).unwrap();
            flock(&file, FlockOperation::LockExclusive).unwrap();
            file
        }

        fn wait(&self, told: u64, contested: bool) -> Result<Option<Connection>, Failure> {
            self.0.wait_for(&Child(Err(rustix::io::Errno::SRCH)), told, contested)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0.home).unwrap();
        }
    }

    #[test]
    fn a_daemon_that_died_is_reported_with_the_last_line_of_its_log() {
        let scratch = Scratch::new("died");
        let failure = scratch.wait(4, false).unwrap_err();
        assert_eq!(failure.text, "daemon: ended before it answered: no room");
        assert_eq!(failure.code, code::UNREACHABLE);
        let silent = scratch.wait(18, false).unwrap_err().text;
        std::fs::write(scratch.0.home.join("daemon.log"), "at opm: exit 5: no: not here\n")
            .unwrap();
        let refused = scratch.wait(0, false).unwrap_err();
        assert_eq!((refused.code, refused.text.as_str()), (5, "no: not here"));
        assert!(silent.starts_with("daemon: ended before it answered (see "), "{silent}");
    }

    #[test]
    fn while_another_daemon_holds_the_lock_its_answer_is_waited_for() {
        let scratch = Scratch::new("locked");
        let _lock = scratch.lock();
        let socket = scratch.0.home.join("opm.sock");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| scratch.wait(0, false).unwrap().is_some());
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiter.is_finished(), "the lock is held and nobody answers");
            let _listener = UnixListener::bind(socket).unwrap();
            assert!(waiter.join().unwrap());
        });
    }

    #[test]
    fn when_the_holder_of_the_lock_leaves_a_daemon_is_launched_again() {
        let scratch = Scratch::new("left");
        let lock = scratch.lock();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| scratch.wait(0, true).unwrap().is_none());
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiter.is_finished());
            drop(lock);
            assert!(waiter.join().unwrap(), "none: launch again");
        });
    }
}
