//! A daemon that was started from inside a service of another home and left it on purpose.
//!
//! A command that needs the daemon of its home starts it, wherever it runs itself: in a terminal
//! multiplexer or a deploy hook that is a service of another opm. That one is the nearest
//! subreaper, so that the new daemon becomes its child, as every orphan of that service does; and
//! no mark can tell the two apart that a program could not forge. So the new daemon says itself
//! what it is, over the other one's socket, which vouches for who speaks (SO_PEERCRED), and from
//! then on it is on record. Its own services carry its home's key, for when they lose it.
use super::Daemon;
use crate::process::Pid;
use crate::process::stat::environ_value;
use crate::service::environment::HOME_VARIABLE;
use crate::sys::daemonize::DEPARTED_VARIABLE;
use crate::sys::sockets::peer;
use crate::sys::{Kernel, cgroup, home, procfs};
use crate::wire::{Request, frame};
use std::io::{Read, Write};
use std::time::Duration;

/// How long another daemon may take to take note.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Tells every daemon that is an ancestor of ours that we are none of its services, if we were
/// started from inside one. One that does not answer takes us for a member.
pub(super) fn announce(home_key: Option<u64>) {
    if std::env::var_os(DEPARTED_VARIABLE).is_none() {
        return;
    }
    cgroup::leave_leaf();
    for pid in procfs::ancestors() {
        homes_of(pid).iter().find(|home| tell(home, pid, home_key).is_some());
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
    value(HOME_VARIABLE).into_iter().chain(own).chain(usual).collect()
}

/// None: it is no daemon of that home, or does not answer.
fn tell(home: &str, pid: Pid, home_key: Option<u64>) -> Option<()> {
    let mut stream = home::connect(home.as_ref()).ok()?;
    stream.set_read_timeout(Some(ANSWER_TIME)).ok()?;
    stream.set_write_timeout(Some(ANSWER_TIME)).ok()?;
    if peer(&stream).ok()?.pid != pid {
        return None;
    }
    let request = frame::encode(&Request::Depart { home_key }).ok()?;
    stream.write_all(&request).ok()?;
    stream.read_exact(&mut [0]).ok()
}

impl<K: Kernel> Daemon<K> {
    pub(crate) fn depart(&mut self, home_key: Option<u64>) {
        let pid = self.waiters.asker;
        let news = self.with_trees(|trees, cx| trees.note_departure(cx, pid, home_key));
        if let Some(departed) = news {
            self.ledger.header.departed = departed;
            // What can't be written is said by `doctor`.
            self.ledger.claim(&mut self.kernel).ok();
        }
    }
}
