//! What the program left behind when it went.
//!
//! TERM to all of it, then wait, then KILL. For one stop each process is asked once: whoever was
//! in the program's group when a TERM was passed on to it has been, and to many a program a second
//! TERM means "now, and never mind the data". It must never signal what isn't ours: without being
//! PID 1 or a subreaper that is the program's group and nothing more.
use super::processes::{Moment, Process, children, drops, everybody};
use crate::process::Pid;
use crate::process::stat::Stat;
use crate::sys::{Errno, Reach, kill, kill_everybody, own_pid, pidfd};
use rustix::fd::OwnedFd;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// We are PID 1: all that the namespace holds.
    Everybody,
    /// We are a subreaper: the program's group, and our children, of whom deaths bring more.
    Children,
    /// Neither: the program's group.
    Group,
    /// Nobody asked for it.
    Nobody,
}

/// Those that are left, and who of them has been asked to stop.
#[derive(Debug)]
pub(super) struct Survivors {
    scope: Scope,
    /// The program, which led the group.
    leader: Pid,
    /// Of the leader; it reaches the group even when that is gone. None as PID 1, which keeps no
    /// descriptor and whose are all groups, whatever their numbers.
    pin: Option<OwnedFd>,
    /// When the group was last asked, and by which signal: TERM may have been rewritten.
    group_asked: Option<(Moment, i32)>,
    all_asked: Option<Moment>,
    /// Children whom there is nothing to say to any more.
    settled: BTreeSet<Pid>,
    /// Without /proc nobody can be told apart, so those outside the group wait until it is empty.
    defers: bool,
}

impl Survivors {
    /// The program must not have been reaped yet.
    pub(super) fn of(program: Pid, scope: Scope) -> Survivors {
        let is_pinned = matches!(scope, Scope::Children | Scope::Group);
        Survivors {
            scope,
            leader: program,
            pin: is_pinned.then(|| pidfd::open(program).ok()).flatten(),
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
            self.signal_group(libc::SIGTERM);
        }
        for process in all.into_iter().filter_map(Process::find) {
            if self.reaches(&process.stat) && now.is_after_birth(&process.stat) {
                self.ask_one(&process);
            }
        }
        self.all_asked = Some(now).filter(|_| self.scope == Scope::Everybody);
    }

    fn reaches(&self, process: &Stat) -> bool {
        let is_member = process.pgid == self.leader;
        match self.scope {
            Scope::Everybody => true,
            Scope::Children => is_member || process.ppid == own_pid(),
            Scope::Group => is_member,
            Scope::Nobody => false,
        }
    }

    fn ask_one(&mut self, process: &Process) {
        if process.stat.ppid == own_pid() && !self.settled.insert(process.stat.pid) {
            return;
        }
        if !self.has_asked(&process.stat) {
            process.signal(libc::SIGTERM);
        }
        if process.is_stopped() {
            process.signal(libc::SIGCONT);
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
        self.defers = self.scope == Scope::Everybody && self.group_asked.is_some();
        match (self.scope, self.group_asked) {
            (Scope::Everybody, None) => self.signal(libc::SIGTERM),
            (Scope::Children | Scope::Group, None) => {
                self.signal_group(libc::SIGTERM);
            }
            _ => {}
        }
        match self.defers {
            true => {
                self.signal_group(libc::SIGCONT);
            }
            false => self.signal(libc::SIGCONT),
        }
    }

    /// Asks those who became ours since: an orphan's own children, when it dies.
    pub(super) fn ask_newcomers(&mut self, is_last_call: bool) {
        if self.defers && (is_last_call || !self.signal_group(0)) {
            self.defers = false;
            self.signal(libc::SIGTERM);
            self.signal(libc::SIGCONT);
        }
        if !matches!(self.scope, Scope::Everybody | Scope::Children) {
            return;
        }
        for pid in children().unwrap_or_default() {
            if !self.settled.contains(&pid)
                && let Some(process) = Process::find(pid)
            {
                self.ask_one(&process);
            }
        }
    }

    /// This child is gone, and its number free for another.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.settled.remove(&pid);
    }

    /// Sends a signal to all that are left now, once to each.
    pub(super) fn signal(&self, signal: i32) {
        if self.scope == Scope::Everybody {
            kill_everybody(signal);
        }
        if self.scope == Scope::Children {
            let others = children().unwrap_or_default().into_iter().filter_map(Process::find);
            others
                .filter(|process| process.stat.pgid != self.leader)
                .for_each(|process| process.signal(signal));
        }
        if matches!(self.scope, Scope::Children | Scope::Group) {
            self.signal_group(signal);
        }
    }

    /// Signals the program's group (0 only asks). False once it has no member, zombies included.
    fn signal_group(&self, signal: i32) -> bool {
        let pinned = self.pin.as_ref().map(|pin| pidfd::signal(pin, signal, Reach::Group));
        let sent = match pinned {
            Some(sent @ (Ok(()) | Err(Errno::SRCH | Errno::PERM))) => sent,
            // EINVAL: before Linux 6.9; ENOSYS: a filter. A group with members keeps its number.
            _ => kill(self.leader, signal, Reach::Group),
        };
        matches!(sent, Ok(()) | Err(Errno::PERM))
    }

    /// Whether all are gone, given that we have no children any more, or some.
    pub(super) fn are_gone(&self, childless: bool) -> bool {
        match self.scope {
            Scope::Everybody | Scope::Children => childless,
            Scope::Group => !self.signal_group(0),
            Scope::Nobody => true,
        }
    }

    /// Whether what we wait for has to be looked for: nothing tells us of it.
    pub(super) fn are_silent(&self) -> bool {
        self.scope == Scope::Group || self.defers
    }
}
