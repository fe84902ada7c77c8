//! What the program left behind when it went.
//!
//! TERM to all of it, then wait, then KILL. It must never signal what isn't ours: without being
//! PID 1 or a subreaper that is the program's group and nothing more.

use crate::sys::pid1::{Group, children, signal_everyone, signal_one};

/// Those that are left, by what lets us reach them.
#[derive(Debug)]
pub(super) enum Left {
    /// We are PID 1: all that the namespace holds.
    Everyone,
    /// We are a subreaper: the program's group, and our children, whom every death among them
    /// adds to. Those that have had the present signal are remembered.
    Children(Group, Vec<i32>),
    /// Neither: the program's group.
    Members(Group),
    /// Nobody asked for it.
    Unwatched,
}

impl Left {
    /// Sends a signal to all that are left now.
    pub(super) fn signal(&mut self, signal: i32) {
        match self {
            Left::Everyone => signal_everyone(signal),
            Left::Children(group, reached) => {
                group.signal(signal);
                reached.clear();
                signal_children(reached, signal);
            }
            Left::Members(group) => {
                group.signal(signal);
            }
            Left::Unwatched => {}
        }
    }

    /// Sends it to those who became ours since: an orphan's own children, when it dies.
    pub(super) fn signal_new(&mut self, signal: i32) {
        if let Left::Children(_, reached) = self {
            signal_children(reached, signal);
        }
    }

    /// Whether all are gone, given that we have no children any more, or some.
    pub(super) fn is_gone(&self, childless: bool) -> bool {
        match self {
            Left::Everyone | Left::Children(..) => childless,
            Left::Members(group) => !group.signal(0),
            Left::Unwatched => true,
        }
    }

    /// Whether their end has to be looked for: not our children, so nothing tells us.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Left::Members(_))
    }
}

/// A child's number can't be given away before we reap it, so these are signalled by number. The
/// members of the group among them get it twice, which TERM, CONT and KILL bear.
fn signal_children(reached: &mut Vec<i32>, signal: i32) {
    let Some(now) = children() else { return };
    for pid in now.iter().filter(|pid| !reached.contains(pid)) {
        signal_one(*pid, signal);
    }
    *reached = now;
}
