//! The loop: one thread, one poll, and the clients' sockets.
//!
//! A client that is slow, silent, hostile or gone costs its own buffer, bounded, and nothing
//! else. No request is taken from another user.
use super::connection::Connection;
use super::relocate::Removal;
use super::role::{ROLE, Role};
use crate::daemon::log::log;
use crate::daemon::{ClientId, Daemon, Leave};
use crate::service::machine::Time;
use crate::service::probe::Question;
use crate::sys::home::Home;
use crate::sys::linux::{self, Linux};
use crate::sys::notify::NotifySocket;
use crate::sys::sockets::peer;
use crate::sys::token::Token;
use crate::sys::{Kernel, describe, limits, signals};
use crate::wire::frame::{self, REQUEST_BYTES_MAX};
use mio::net::UnixListener;
use mio::{Events, Interest, Poll};
use rustix::fd::OwnedFd;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::time::Duration;

/// Connections at once, as far as they take no more than half of the descriptors: services need
/// some, too. For one more, the one that has been idle for longest is closed, or else itself.
const CONNECTIONS_MAX: usize = 4_096;
/// A client that lets more than this pile up is cut off: one answer is never more.
const BACKLOG_BYTES_MAX: usize = 80 << 20;
/// The same for a follower, whose answer has no end.
const FOLLOWED_BYTES_MAX: usize = 8 << 20;
/// What clients may have sent that is not taken up; beyond it the longest silent is closed.
const UNREAD_BYTES_MAX: usize = 64 << 20;
/// Less than this of one client is not counted.
const UNREAD_BYTES_MIN: usize = 16 << 10;
const EVENTS_MAX: usize = 1_024;
/// Messages of services in one turn.
const MESSAGES_MAX: usize = 64;
/// When accept(2) had no descriptor left, try again then.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long nothing has happened when our code is let go of: commands and deaths come in bursts.
const REST_MS: u64 = 1_000;
/// At the end, how long replies may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// The loop's own state.
pub struct Server {
    pub(crate) poll: Poll,
    pub(crate) listener: UnixListener,
    signalfd: OwnedFd,
    /// Never read, only held: see [`linux::clock_changes`].
    _clock: Option<OwnedFd>,
    /// Says when something in the home is removed.
    pub(crate) removals: Option<OwnedFd>,
    pub(super) removal: Option<Removal>,
    /// What services tell of themselves. Without it they are not heard.
    notify: Vec<NotifySocket>,
    /// There may be more of that.
    told_more: bool,
    connections: BTreeMap<ClientId, Connection>,
    connections_max: usize,
    next_client: u32,
    accept_again: bool,
    /// Who may have sent another request behind the one that was answered.
    unread: BTreeSet<ClientId>,
    uid: u32,
    /// When our code is let go of, if nothing happens before.
    rest_at: Option<Time>,
}

impl Server {
    pub fn new(poll: Poll, mut listener: UnixListener, home: &Home) -> std::io::Result<Self> {
        poll.registry().register(&mut listener, Token::Listener.into(), Interest::READABLE)?;
        let signalfd = signals::signalfd(&linux::SIGNALS)?;
        let (clock, removals) = (linux::clock_changes().ok(), home.watch_removals().ok());
        let watched = [(Token::Clock, &clock), (Token::Removals, &removals)];
        let watched = watched.into_iter().filter_map(|(token, fd)| Some((token, fd.as_ref()?)));
        for (token, fd) in watched.chain([(Token::Signals, &signalfd)]) {
            token.watch(poll.registry(), fd)?;
        }
        let mut server = Self {
            connections_max: limits::within_open_files(CONNECTIONS_MAX, 2),
            removals,
            removal: None,
            notify: Vec::new(),
            told_more: false,
            poll,
            listener,
            signalfd,
            _clock: clock,
            connections: BTreeMap::default(),
            next_client: 1,
            accept_again: false,
            unread: BTreeSet::default(),
            uid: rustix::process::geteuid().as_raw(),
            rest_at: None,
        };
        server.bind_notify(home);
        Ok(server)
    }

    /// Services that speak while it is bound anew are not heard.
    pub(super) fn bind_notify(&mut self, home: &Home) {
        // A new one gives events of its own.
        self.told_more = false;
        let registry = self.poll.registry();
        // Where the earlier one is open its name is taken.
        self.notify.clear();
        let others = (self.uid == 0).then(|| NotifySocket::bind_for_others(&home.path));
        if let Some(Err(errno)) = &others {
            let why = describe(*errno);
            log(&format!("what services of other users tell of themselves is not heard: {why}"));
        }
        let bound = [Some(NotifySocket::bind(home)), others].into_iter().flatten().flatten();
        self.notify = bound.filter(|it| Token::Notify.watch(registry, it).is_ok()).collect();
    }

    /// Hears what services answer, and what they tell of themselves.
    fn hear(&mut self, daemon: &mut Daemon<Linux>, answers: Vec<(Question, u32)>) {
        answers.into_iter().for_each(|(question, id)| daemon.question(question, id));
        if !std::mem::take(&mut self.told_more) {
            return;
        }
        for socket in &self.notify {
            let told = std::iter::from_fn(|| socket.receive().ok()).take(MESSAGES_MAX);
            let heard = told.map(|(pid, text)| daemon.told(pid, &text)).count();
            self.told_more |= heard == MESSAGES_MAX;
        }
    }

    /// Turns until the daemon leaves.
    pub fn run(&mut self, daemon: &mut Daemon<Linux>, role: &mut dyn Role) -> Leave {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut wakes = Vec::new();
        // What was due at the start, and who was queued before we listened.
        let mut ready: Vec<ClientId> = Vec::new();
        settle(daemon, role);
        self.accept(&mut ready, daemon);
        loop {
            self.flush(daemon);
            if let Some(leave) = leaving(daemon) {
                self.farewell();
                return leave;
            }
            daemon.tend_logs();
            let timeout = self.timeout(daemon, role);
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => daemon.log.push(format!("poll: {error}")),
            }
            self.put_off_rest(daemon.kernel.now(), !events.is_empty());
            wakes.clear();
            let (mut asked, mut answers, mut changed) = (Vec::new(), Vec::new(), Vec::new());
            let (mut child_signal, mut removed, mut clock) = (false, false, false);
            let mut connecting = std::mem::take(&mut self.accept_again);
            for event in &events {
                match Token::of(event.token()) {
                    Some(Token::Signals) => signals::drain(&self.signalfd, |signal| match signal {
                        libc::SIGCHLD => child_signal = true,
                        signal => asked.push(signal),
                    }),
                    Some(Token::Listener) => connecting = true,
                    Some(Token::Removals) => removed = true,
                    Some(Token::Logs) => daemon.logs.woken(daemon.now, &mut daemon.timers),
                    Some(Token::Notify) => self.told_more = true,
                    Some(Token::Check(question, id)) => answers.push((question, id)),
                    Some(Token::Pump(number)) => daemon.logs.pump.woken(number),
                    Some(Token::Clock) => clock = true,
                    Some(Token::Files(id)) => changed.push(id),
                    Some(Token::Client(id))
                        if event.is_readable() || event.is_read_closed() || event.is_error() =>
                    {
                        ready.push(id.into());
                    }
                    // That one can be written to, `flush` finds out by itself.
                    Some(Token::Client(_)) | None => {}
                    Some(Token::Wake(wake)) => wakes.push(wake),
                }
            }
            ready.extend(std::mem::take(&mut self.unread));
            daemon.gather(&wakes, child_signal);
            daemon.look_around(clock, &changed);
            self.hear(daemon, answers);
            if removed {
                self.note_removal(daemon.kernel.now());
            }
            self.look_after_home(daemon, role);
            if connecting {
                self.accept(&mut ready, daemon);
            }
            for client in ready.drain(..) {
                if !self.read_request(client, daemon) {
                    self.unread.insert(client);
                }
                self.limit_unread(client, daemon);
            }
            asked.into_iter().for_each(|signal| role.signal(signal, daemon));
            settle(daemon, role);
        }
    }

    /// A turn that was not for the rest alone.
    fn put_off_rest(&mut self, now: Time, woken: bool) {
        if woken || self.rest_at.is_none_or(|at| now < at) {
            self.rest_at = Some(now.saturating_add(REST_MS));
        }
    }

    /// How long nothing is due. For a long rest, lets go of what the loop does without.
    fn timeout(&mut self, daemon: &Daemon<Linux>, role: &dyn Role) -> Option<Duration> {
        if self.rest_at.take_if(|at| *at <= daemon.kernel.now()).is_some() {
            limits::unmap_code();
            limits::trim();
        }
        let lost = daemon.launches.home_lost.then_some(0);
        let look = self.removal.map(|removal| removal.next).or(lost);
        let due = daemon.deadline().into_iter().chain(role.deadline()).chain(look);
        let due = due.chain(self.rest_at).min();
        let due = due.map(|at| Duration::from_millis(at.saturating_sub(daemon.kernel.now())));
        let accept = self.accept_again.then_some(ACCEPT_AGAIN);
        let answered = |id| self.connections.get(id).is_none_or(|client| client.backlog() == 0);
        let unread = self.told_more || self.unread.iter().any(answered);
        let unread = (unread || !daemon.outbox.is_empty()).then_some(Duration::ZERO);
        due.into_iter().chain(accept).chain(unread).min()
    }

    fn accept(&mut self, ready: &mut Vec<ClientId>, daemon: &mut Daemon<Linux>) {
        loop {
            let full = self.connections.len() >= self.connections_max;
            let full = full && !self.close_idle(daemon, |_| true);
            if full && !ready.is_empty() {
                // Of those that have just connected, some may turn out to be idle.
                self.accept_again = true;
                return;
            }
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // EMFILE, ENFILE.
                Err(_) if self.close_idle(daemon, |_| true) => continue,
                Err(_) => {
                    // The edge is spent, so look again by the clock.
                    self.accept_again = true;
                    return;
                }
            };
            let peer = peer(&stream);
            let is_friend = peer.is_ok_and(|peer| [self.uid, 0].contains(&peer.uid));
            let pid = peer.map_or(0, |peer| peer.pid);
            if !is_friend || full {
                continue;
            }
            let id = self.next_client;
            // Never 0, which is the role.
            self.next_client = id.checked_add(1).unwrap_or(1);
            let (token, both) = (Token::Client(id), Interest::READABLE | Interest::WRITABLE);
            if self.poll.registry().register(&mut stream, token.into(), both).is_ok() {
                self.connections.insert(id.into(), Connection::new(stream, pid));
                ready.push(id.into());
            }
        }
    }

    /// Closes the connection that has been idle for longest. A command of ours that was just slow
    /// asks again, since nobody has taken up its request.
    fn close_idle(
        &mut self,
        daemon: &mut Daemon<Linux>,
        may_be: impl Fn(&Connection) -> bool,
    ) -> bool {
        let idle = self.connections.iter().find(|(_, client)| client.is_idle() && may_be(client));
        let Some(id) = idle.map(|(id, _)| *id) else {
            return false;
        };
        self.close(id, daemon);
        true
    }

    /// After this client was read: keeps what all together have sent within its bound.
    fn limit_unread(&mut self, id: ClientId, daemon: &mut Daemon<Linux>) {
        let unread = |client: &Connection| client.inbox.pending();
        if self.connections.get(&id).is_none_or(|client| unread(client) < UNREAD_BYTES_MIN) {
            return;
        }
        while self.connections.values().map(unread).sum::<usize>() > UNREAD_BYTES_MAX
            && self.close_idle(daemon, |client| unread(client) > 0)
        {}
    }

    /// Takes up a client's request, or reads on. One a turn, and none while the one before is
    /// not answered, or the answer has not left: a client that only ever asks would keep the
    /// loop, and what it asked for the memory. False: there may be more.
    fn read_request(&mut self, id: ClientId, daemon: &mut Daemon<Linux>) -> bool {
        let Some(client) = self.connections.get_mut(&id) else {
            return true;
        };
        let mut buffer = [0u8; 16 << 10];
        let mut ended = false;
        loop {
            if !client.closing && client.backlog() > 0 {
                return false;
            }
            match client.next_request() {
                Ok(Some(request)) => {
                    client.asking = true;
                    daemon.request(id, client.pid, request);
                    return false;
                }
                Ok(None) => client.heard = true,
                Err(failure) => {
                    daemon.outbox.push((id, failure.into()));
                    client.closing = true;
                }
            }
            match client.stream.read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(_) if client.closing => {}
                // A client that waits for an answer and sends on and on.
                Ok(_) if client.asking && client.inbox.pending() > REQUEST_BYTES_MAX => {
                    ended = true
                }
                Ok(length) => {
                    client.inbox.push(&buffer[..length]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => ended = true,
            }
            break;
        }
        if ended {
            // Nobody reads the replies any more, but what was asked for goes on.
            self.close(id, daemon);
        }
        true
    }

    fn close(&mut self, id: ClientId, daemon: &mut Daemon<Linux>) {
        if let Some(mut client) = self.connections.remove(&id) {
            // Failing means that it was not registered.
            drop(self.poll.registry().deregister(&mut client.stream));
            daemon.forget_client(id);
        }
    }

    /// Hands replies to their clients, and lines to the log.
    fn flush(&mut self, daemon: &mut Daemon<Linux>) {
        for line in daemon.log.drain(..) {
            log(&line);
        }
        for (id, reply) in std::mem::take(&mut daemon.outbox) {
            let Some(client) = self.connections.get_mut(&id) else {
                continue;
            };
            if reply.is_final() {
                client.asking = false;
                if client.inbox.pending() > 0 {
                    self.unread.insert(id);
                }
            }
            match frame::encode(&reply) {
                Ok(frame) => client.queue(frame),
                Err(text) => log(&format!("cannot encode a reply: {text}")),
            }
        }
        let waiting = self.connections.iter().filter(|(_, client)| client.backlog() > 0);
        for id in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(client) = self.connections.get_mut(&id) else {
                continue;
            };
            let alive = client.write_out();
            // The answer of a request that goes on is what it follows.
            let most = if client.asking { FOLLOWED_BYTES_MAX } else { BACKLOG_BYTES_MAX };
            if !alive || client.backlog() > most {
                self.close(id, daemon);
            }
        }
    }

    /// The last replies go out before we do, if their readers read.
    fn farewell(&mut self) {
        let until = std::time::Instant::now() + FAREWELL;
        let mut events = Events::with_capacity(16);
        self.connections.retain(|_, client| client.backlog() > 0 && client.write_out());
        while self.connections.values().any(|client| client.backlog() > 0) {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.poll.poll(&mut events, Some(left)).is_err() {
                return;
            }
            self.connections.retain(|_, client| client.backlog() > 0 && client.write_out());
        }
    }
}

/// What is due, until the role asks for nothing more.
fn settle(daemon: &mut Daemon<Linux>, role: &mut dyn Role) {
    loop {
        daemon.tick();
        let replies = daemon.outbox.extract_if(.., |(client, _)| *client == ROLE);
        let replies = replies.map(|(_, reply)| reply).collect();
        if !role.turn(daemon, replies) {
            return;
        }
    }
}

/// Whether it is time to leave. For an exec not while anything is launched: the successor could
/// not begin before that has exec'd, and till then nobody would look after the others.
fn leaving(daemon: &Daemon<Linux>) -> Option<Leave> {
    let waits = matches!(daemon.leave, Some(Leave::Exec(_))) && daemon.is_launching();
    daemon.leave.clone().filter(|_| !waits)
}
