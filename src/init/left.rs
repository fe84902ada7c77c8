//! What the program left behind when it went.
//!
//! TERM to all of it, then wait, then KILL. For one stop each process is asked once: whoever was
//! in the program's group when a TERM was passed on to it has been, and to many a program a second
//! TERM means "now, and never mind the data". It must never signal what isn't ours: without being
//! PID 1 or a subreaper that is the program's group and nothing more.

use std::collections::BTreeSet;

use crate::process::stat::Stat;
use crate::sys::pid1::{
    Group, Moment, Other, children, drops, everybody, own_pid, signal_everyone,
};

/// Whom we can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// We are PID 1: all that the namespace holds.
    Everyone,
    /// We are a subreaper: the program's group, and our children, whom every death among them
    /// adds to.
    Children,
    /// Neither: the program's group.
    Members,
    /// Nobody asked for it.
    Nobody,
}

/// Those that are left, and who of them has been asked to stop.
#[derive(Debug)]
pub(super) struct Left {
    scope: Scope,
    leader: i32,
    group: Group,
    /// When the group was last asked, and by which signal: TERM may have been rewritten.
    group_asked: Option<(Moment, i32)>,
    /// When everyone had been asked.
    all_asked: Option<Moment>,
    /// Children whom there is nothing to say to any more.
    settled: BTreeSet<i32>,
    /// Without /proc nobody can be told apart, so those outside the group wait until it is empty.
    defers: bool,
}

impl Left {
    /// The program must not have been reaped yet.
    pub(super) fn of(program: i32, scope: Scope) -> Left {
        let group = match scope {
            // As PID 1 we keep no descriptor. All groups are ours, whatever their numbers.
            Scope::Everyone | Scope::Nobody => Group::unpinned(program),
            Scope::Children | Scope::Members => Group::of(program),
        };
        Left {
            scope,
            leader: program,
            group,
            group_asked: None,
            all_asked: None,
            settled: BTreeSet::new(),
            defers: false,
        }
    }

    /// The group is about to be sent this, and so has been asked to stop.
    pub(super) fn note_asked(&mut self, signal: i32) {
        if self.scope != Scope::Nobody {
            self.group_asked = Some((Moment::now(), signal));
        }
    }

    /// Asks all who haven't been asked. What is stopped is continued, or it would not see it.
    pub(super) fn ask(&mut self) {
        if self.scope == Scope::Nobody {
            return;
        }
        // Who is born from here on is asked when it becomes our child.
        let now = Moment::now();
        let Some(all) = everybody() else {
            self.ask_blindly();
            return;
        };
        if self.group_asked.is_none() {
            self.note_asked(libc::SIGTERM);
            self.group.signal(libc::SIGTERM);
        }
        for other in all.into_iter().filter_map(Other::find) {
            if self.reaches(&other.stat) && now.is_after_birth(&other.stat) {
                self.ask_one(&other);
            }
        }
        self.all_asked = Some(now).filter(|_| self.scope == Scope::Everyone);
    }

    fn reaches(&self, process: &Stat) -> bool {
        let is_member = process.pgid == self.leader;
        match self.scope {
            Scope::Everyone => true,
            Scope::Children => is_member || process.ppid == own_pid(),
            Scope::Members => is_member,
            Scope::Nobody => false,
        }
    }

    fn ask_one(&mut self, other: &Other) {
        if other.stat.ppid == own_pid() && !self.settled.insert(other.stat.pid) {
            return;
        }
        if !self.has_asked(&other.stat) {
            other.signal(libc::SIGTERM);
        }
        if other.is_stopped() {
            other.signal(libc::SIGCONT);
        }
    }

    fn has_asked(&self, process: &Stat) -> bool {
        let was_there = |moment: Moment| moment.is_after_birth(process);
        if self.all_asked.is_some_and(was_there) {
            return true;
        }
        match self.group_asked {
            Some((moment, signal)) if process.pgid == self.leader && was_there(moment) => {
                // A shell's background job ignores INT and QUIT.
                signal == libc::SIGTERM || drops(process.pid, signal) != Some(true)
            }
            _ => false,
        }
    }

    /// Without /proc. Those in the group, and only they, have been asked if a TERM was passed on.
    fn ask_blindly(&mut self) {
        let is_asked = self.group_asked.is_some();
        match self.scope {
            Scope::Everyone if !is_asked => self.signal(libc::SIGTERM),
            Scope::Everyone => self.defers = true,
            Scope::Children | Scope::Members if !is_asked => {
                self.group.signal(libc::SIGTERM);
            }
            Scope::Children | Scope::Members | Scope::Nobody => {}
        }
        match self.defers {
            true => {
                self.group.signal(libc::SIGCONT);
            }
            false => self.signal(libc::SIGCONT),
        }
    }

    /// Asks those who became ours since: an orphan's own children, when it dies.
    pub(super) fn ask_newcomers(&mut self, is_last_call: bool) {
        if self.defers && (is_last_call || !self.group.signal(0)) {
            self.defers = false;
            self.signal(libc::SIGTERM);
            self.signal(libc::SIGCONT);
        }
        if !matches!(self.scope, Scope::Everyone | Scope::Children) {
            return;
        }
        for pid in children().unwrap_or_default() {
            if !self.settled.contains(&pid)
                && let Some(other) = Other::find(pid)
            {
                self.ask_one(&other);
            }
        }
    }

    /// This child is gone, and its number free for another.
    pub(super) fn forget(&mut self, pid: i32) {
        self.settled.remove(&pid);
    }

    /// Sends a signal to all that are left now, once to each.
    pub(super) fn signal(&self, signal: i32) {
        match self.scope {
            Scope::Everyone => signal_everyone(signal),
            Scope::Children => {
                let others = children().unwrap_or_default();
                for other in others.into_iter().filter_map(Other::find) {
                    if other.stat.pgid != self.leader {
                        other.signal(signal);
                    }
                }
                self.group.signal(signal);
            }
            Scope::Members => {
                self.group.signal(signal);
            }
            Scope::Nobody => {}
        }
    }

    /// Whether all are gone, given that we have no children any more, or some.
    pub(super) fn is_gone(&self, childless: bool) -> bool {
        match self.scope {
            Scope::Everyone | Scope::Children => childless,
            Scope::Members => !self.group.signal(0),
            Scope::Nobody => true,
        }
    }

    /// Whether what we wait for has to be looked for: nothing tells us of it.
    pub(super) fn is_silent(&self) -> bool {
        self.scope == Scope::Members || self.defers
    }
}
