//! A daemon that was started from inside a service of another home and left it on purpose.
//!
//! A command that needs the daemon of its home starts it, wherever it runs itself: in a terminal
//! multiplexer or a deploy hook that is a service of another opm. That one is the nearest
//! subreaper, so that the new daemon becomes its child, as every orphan of that service does; and
//! no mark can tell the two apart that a program could not forge. So the new daemon says itself
//! what it is, over the other one's socket, which vouches for who speaks (SO_PEERCRED), and from
//! then on it is on record. Its own services carry its home's key, for when they lose it.
use super::server::socket;
use super::trees::Owner;
use super::{ClientId, Daemon};
use crate::process::journal_format::DEPARTED_MAX;
use crate::process::mark::LimitMark;
use crate::process::stat::environ_value;
use crate::process::{Identity, Pid};
use crate::sys::daemonize::DEPARTED_VARIABLE;
use crate::sys::peer::peer;
use crate::sys::{Kernel, identity, procfs};
use crate::wire::{Reply, Request, frame};
use std::io::{Read, Write};
use std::time::Duration;

/// Ancestors that may be daemons.
const ANCESTORS_MAX: usize = 64;
/// How long another daemon may take to take note.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Who left.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    daemons: Vec<Identity>,
    /// What the marks of their homes have in common ([`LimitMark::home_word`]).
    homes: Vec<u64>,
}

impl Departed {
    pub(crate) fn of(record: &[u64]) -> Self {
        let homes = record.iter().copied().filter(|home| *home != 0).collect();
        Self { daemons: Vec::new(), homes }
    }

    fn note_home(&mut self, home: u64) {
        self.homes.retain(|known| *known != home);
        self.homes.push(home);
        // The oldest is past, most likely; if not, its services are some service's again.
        let surplus = self.homes.len().saturating_sub(DEPARTED_MAX);
        self.homes.drain(..surplus);
    }

    fn record(&self) -> [u64; DEPARTED_MAX] {
        std::array::from_fn(|at| self.homes.get(at).copied().unwrap_or(0))
    }
}

/// Tells every daemon that is an ancestor of ours that we are none of its services, if we were
/// started from inside one. One that does not answer takes us for a member.
pub(super) fn announce(home_key: Option<u64>) {
    if std::env::var_os(DEPARTED_VARIABLE).is_none() {
        return;
    }
    let mut pid = rustix::process::getpid().as_raw_nonzero().get();
    for _ in 0..ANCESTORS_MAX {
        pid = procfs::stat(pid).map_or(0, |stat| stat.ppid);
        if pid <= 0 {
            return;
        }
        for home in homes_of(pid) {
            if tell(&home, pid, home_key).is_some() {
                break;
            }
        }
    }
}

/// Where a daemon may have its home: by its environment, and where it would have it else.
fn homes_of(pid: Pid) -> Vec<String> {
    let environ = procfs::environ(pid).unwrap_or_default();
    let value = |name: &str| {
        let value = std::str::from_utf8(environ_value(&environ, name)?).ok()?;
        value.starts_with('/').then(|| value.to_owned())
    };
    let uid = rustix::process::geteuid().as_raw();
    let usual = ["/run/opm".to_owned(), format!("/tmp/opm-{uid}")];
    let own = value("HOME").map(|home| format!("{home}/.opm"));
    value("OPM_HOME").into_iter().chain(own).chain(usual).collect()
}

/// None: it is no daemon of that home, or does not answer.
fn tell(home: &str, pid: Pid, home_key: Option<u64>) -> Option<()> {
    let mut stream = socket::connect_elsewhere(home, ANSWER_TIME).ok()?;
    if peer(&stream).ok()?.pid != pid {
        return None;
    }
    let request = frame::encode(&Request::Depart { home_key }).ok()?;
    stream.write_all(&request).ok()?;
    stream.read_exact(&mut [0]).ok()
}

impl<K: Kernel> Daemon<K> {
    pub(crate) fn depart(&mut self, client: ClientId, home_key: Option<u64>) {
        let pid = self.asker;
        // A leader is its service, whatever it says.
        if !self.trees.leaders.contains_key(&pid)
            && let Some(identity) = self.identity_of(pid)
        {
            self.note_departure(identity, home_key);
        }
        self.outbox.push((client, Reply::Outcomes { outcomes: Vec::new(), summary: None }));
    }

    /// None: it is gone, or dead.
    fn identity_of(&mut self, pid: Pid) -> Option<Identity> {
        let pidfd = self.kernel.pidfd_open(pid).ok()?;
        let identity = identity(&mut self.kernel, pid, &pidfd);
        let lives = self.kernel.is_dead(&pidfd) == Ok(false);
        lives.then_some(identity)
    }

    fn note_departure(&mut self, identity: Identity, home_key: Option<u64>) {
        let orphans = &self.trees.orphans;
        self.trees.departed.daemons.retain(|known| orphans.contains_key(&known.pid));
        self.trees.departed.daemons.push(identity);
        // Our own key, as a copy of our home has it until its daemon begins, says nothing.
        let own = LimitMark::home_word(self.header.home_key);
        if let Some(home) = home_key.map(LimitMark::home_word).filter(|home| *home != own) {
            self.trees.departed.note_home(home);
            self.header.departed = self.trees.departed.record();
            if let Err(errno) = self.ledger.journal.claim(&mut self.kernel, &self.header) {
                self.ledger.disk_error =
                    Some(format!("cannot write {}/journal: {errno}", self.home));
            }
        }
        self.ask_orphans(|orphan| orphan.owner != Owner::Foreign);
    }

    /// Whether a child of ours is a daemon that left, or was started by one.
    pub(crate) fn is_departed(&mut self, pid: Pid, limit: Option<(u64, u64)>) -> bool {
        let home = limit.and_then(LimitMark::home_word_of);
        if home.is_some_and(|home| self.trees.departed.homes.contains(&home)) {
            return true;
        }
        let known = self.trees.departed.daemons.iter().find(|known| known.pid == pid).copied();
        let Some(known) = known else { return false };
        self.identity_of(pid).is_some_and(|identity| identity.is_same(&known))
    }
}
