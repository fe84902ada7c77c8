//! What a supervisor of the daemon is told, by the protocol of sd_notify(3): a datagram of
//! `NAME=value` lines to the socket in `NOTIFY_SOCKET`.
//!
//! Nobody may be listening, and nothing depends on it: what can't be sent is dropped.
use crate::service::machine::Time;
use crate::sys::own_pid;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

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
    /// Milliseconds from one word to the next: half of what is allowed, as sd_watchdog_enabled(3)
    /// advises. `None`: nobody asked.
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
