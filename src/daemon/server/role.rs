//! What the daemon is: a service of the background, or the foreground of `opm run`.
//!
//! A role sees what the daemon knows and asks for what an operator could ask for. It never
//! spawns, signals or reaps past the daemon.
//!
//! What a supervisor of ours is told goes by the protocol of sd_notify(3). Nobody may be listening,
//! and nothing depends on it: what can't be sent is dropped.
use crate::daemon::log::log;
use crate::daemon::service::Service;
use crate::daemon::{ClientId, Daemon, Leave};
use crate::service::machine::Time;
use crate::sys::linux::Linux;
use crate::sys::{Kernel, own_pid};
use crate::wire::{Failure, Reply, Request, code};
use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The client that a role is; no connection gets this number.
pub const ROLE: ClientId = 0;

/// What the event loop asks of it.
pub trait Role {
    /// Whether it leaves the home to another daemon.
    fn yields(&self) -> bool;
    /// See [`Place`](crate::daemon::adopt::Place).
    fn forgets_elsewhere(&self) -> bool {
        false
    }
    /// Adoption is complete; `again`: in an earlier image already. Errors: why it can't begin.
    fn begin(&mut self, daemon: &mut Daemon<Linux>, again: bool) -> Result<(), Failure>;
    /// The home was removed, and made anew: there is nothing in it that the daemon doesn't know.
    fn home_is_new(&mut self, _daemon: &mut Daemon<Linux>) {}
    /// A signal came, but SIGCHLD.
    fn signal(&mut self, signal: i32, daemon: &mut Daemon<Linux>);
    /// The last thing in each turn, with what was answered to the role's requests. True: it asked
    /// for something.
    fn turn(&mut self, _daemon: &mut Daemon<Linux>, _replies: Vec<Reply>) -> bool {
        false
    }
    /// When the next turn is due.
    fn deadline(&self) -> Option<Time> {
        None
    }
    /// The daemon has left. The exit code.
    fn end(&mut self, daemon: &mut Daemon<Linux>) -> u8;
}

/// A daemon in the background: signals make it leave, services stay.
#[derive(Debug)]
pub struct Background {
    pub(super) forgets_elsewhere: bool,
    pub(super) watchdog: Watchdog,
}

impl Role for Background {
    fn yields(&self) -> bool {
        true
    }

    fn forgets_elsewhere(&self) -> bool {
        self.forgets_elsewhere
    }

    fn begin(&mut self, daemon: &mut Daemon<Linux>, _: bool) -> Result<(), Failure> {
        let services = daemon.services.iter().count();
        let pid = own_pid();
        let (version, home) = (env!("CARGO_PKG_VERSION"), &daemon.home);
        log(&format!("opm {version} serves {home} (pid {pid}, {services} services)"));
        notify("READY=1");
        Ok(())
    }

    fn signal(&mut self, signal: i32, daemon: &mut Daemon<Linux>) {
        if signal != libc::SIGHUP && daemon.leave != Some(Leave::Quit) {
            daemon.request(ROLE, 0, Request::Leave { services: false });
        }
    }

    fn turn(&mut self, daemon: &mut Daemon<Linux>, _: Vec<Reply>) -> bool {
        self.watchdog.turn(daemon.kernel.now());
        false
    }

    fn deadline(&self) -> Option<Time> {
        self.watchdog.due()
    }

    fn end(&mut self, daemon: &mut Daemon<Linux>) -> u8 {
        notify("STOPPING=1");
        let alive = daemon.services.iter().any(|service| service.machine.generation().is_some());
        log(if alive { "left; services keep running" } else { "left; nothing runs" });
        code::DONE
    }
}

/// What only a role asks for.
impl<K: Kernel> Daemon<K> {
    /// SIGKILL for everything that is left.
    pub fn kill_all(&mut self) {
        self.launches.stops_due.extend(self.launches.stops.keys());
        self.launches.stops = BTreeMap::default();
        for id in self.trees.iter().map(|(id, _)| id).collect::<Vec<_>>() {
            self.kill_tree(id);
        }
        self.with_trees(|trees, cx| trees.kill_orphans(cx));
    }

    /// Asks those of our children to end that no service owns.
    pub fn dismiss_orphans(&mut self) {
        self.with_trees(|trees, cx| trees.dismiss_orphans(cx));
    }

    /// Services that SIGKILL was needed for and of which something still lives, by generation.
    pub fn killing(&self) -> impl Iterator<Item = (u64, &str)> {
        let killed = self.trees.iter().filter(|(_, tree)| tree.kills > 0);
        let killed = killed.filter_map(|(id, _)| self.services.get(id));
        killed.map(|service| (service.record.generation, service.name()))
    }

    /// Nothing lives: no service and no child.
    pub fn is_quiet(&self) -> bool {
        self.trees.count_orphans() == 0 && !self.services.iter().any(Service::is_live)
    }
}

const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";
const WATCHDOG_PID_VARIABLE: &str = "WATCHDOG_PID";

pub(super) fn notify(state: &str) {
    let Some(path) = std::env::var_os(SOCKET_VARIABLE) else { return };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let socket = UnixDatagram::unbound();
    if let (Ok(address), Ok(socket)) = (address, socket) {
        // A listener that is stuck must not hold the daemon.
        socket.set_nonblocking(true).ok();
        socket.send_to_addr(state.as_bytes(), &address).ok();
    }
}

/// Says at the distance that was asked for that the loop turns.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// Milliseconds between words: half of what is allowed, as sd_watchdog_enabled(3) has it.
    distance: Option<u64>,
    due: Time,
}

impl Watchdog {
    pub(super) fn of_environment() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let pid = number(WATCHDOG_PID_VARIABLE);
        let is_ours = pid.is_none_or(|pid| i64::try_from(pid) == Ok(own_pid().into()));
        let allowed = number(WATCHDOG_VARIABLE).filter(|_| is_ours);
        Self { distance: allowed.map(|us| (us / 2000).max(1)), due: 0 }
    }

    /// When the next word is due.
    pub(super) fn due(&self) -> Option<Time> {
        self.distance.map(|_| self.due)
    }

    pub(super) fn turn(&mut self, now: Time) {
        if let Some(distance) = self.distance.filter(|_| now >= self.due) {
            notify("WATCHDOG=1");
            self.due = now + distance;
        }
    }
}
