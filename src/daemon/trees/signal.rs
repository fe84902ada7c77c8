//! Signals for what is alive of an incarnation: by pidfd only, so never for a stranger.
//!
//! A process gets the stop signal once for one stop, for a second one means "now, hard" to many a
//! program. What of the tree can be seen gets it at the stop: the leader's group by one call, the
//! rest by a walk over the children of the leader and of our orphans. Later only those get it that
//! turn up without having had it. KILL goes to all, again and again.
//!
//! The walk looks into /proc, which costs the kernel as much again when the process ends. Most
//! leaders end within milliseconds, and what they leave comes to us then: so the walk waits for
//! [`WALK_MS`] where nothing can be lost by that, and is made only for those that still live.
use super::tree::{Cx, Owner, Trees};
use crate::mutant::mutant;
use crate::process::Pid;
use crate::process::stat::{Stat, TICK_MS};
use crate::service::spec::{Id, StopReach};
use crate::sys::{Kernel, Reach};
use std::collections::BTreeSet;

/// So long has a leader to end before its descendants are looked for.
const WALK_MS: u64 = 50;

/// What a signal for a tree is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// That it ends: nobody has it twice, and what is stopped is continued, or it would not see it.
    Stop,
    /// An operator's: nothing but this signal, to all that are seen now.
    Operator,
}

/// A live process of a tree.
struct Seen<K: Kernel> {
    pid: Pid,
    /// None: it is held as the leader, an orphan or a member.
    pidfd: Option<K::Pidfd>,
    start_time: u64,
    sid: Pid,
    pgid: Pid,
    stopped: bool,
}

impl<K: Kernel> Seen<K> {
    fn of(stat: &Stat, pidfd: Option<K::Pidfd>) -> Self {
        let Stat { pid, start_time, sid, pgid, state, .. } = *stat;
        Self { pid, pidfd, start_time, sid, pgid, stopped: state == b'T' }
    }

    fn identity(&self) -> (Pid, u64) {
        (self.pid, self.start_time)
    }
}

impl<K: Kernel> Trees<K> {
    /// A signal for who leads a tree, the leader's group and the rest of it.
    pub(super) fn signal_living(&mut self, cx: &mut Cx<'_, K>, id: Id, signal: i32, aim: Aim) {
        let Some(tree) = self.get(id) else { return };
        let (leader, lead) = (tree.leader.pid, tree.lead().0.pid);
        let reach = tree.stop.as_ref().map(|stop| stop.reach);
        let alone = aim == Aim::Stop && reach == Some(StopReach::Leader);
        // Before the signal: whoever is born after it must not be taken for one that had it.
        let instant = (aim == Aim::Stop && !alone).then(|| cx.instant()).flatten();
        let leads = tree.succession.main.is_none();
        let may_wait = instant.is_some() && tree.lineage && tree.keeps.is_none() && leads;
        let mut all = Vec::new();
        if alone {
            all.extend(self.held_process(cx, id, lead));
        } else if !may_wait {
            all = self.living(cx, id);
        }
        let grouped = self.signal_leader(cx, id, signal, !alone);
        let walk_at = (may_wait && grouped).then_some(cx.now + WALK_MS);
        if may_wait && !grouped {
            all = self.living(cx, id);
        }
        if let Some(at) = walk_at {
            self.unwalked.insert((at, id));
        }
        if let Some(stop) = self.get_mut(id).and_then(|tree| tree.stop.as_mut()) {
            stop.group = instant.filter(|_| grouped).or(stop.group);
            stop.walk_at = walk_at;
        }
        for process in all {
            let has_had = match grouped {
                true => [process.pid, process.pgid].contains(&leader),
                false => process.pid == lead,
            };
            if !has_had {
                self.send(cx, id, &process, signal);
            }
            if aim == Aim::Stop {
                self.note_asked(cx, id, &process);
            }
        }
    }

    /// What lives of a tree that somebody leads, as far as it is seen.
    fn living(&self, cx: &mut Cx<'_, K>, id: Id) -> Vec<Seen<K>> {
        let (mut all, mut known) = (Vec::new(), BTreeSet::default());
        let leads = self.get(id).into_iter().flat_map(|tree| tree.pids());
        for root in leads.chain(self.known(id, |_| true)) {
            all.append(&mut self.branch(cx, id, root, &mut known));
        }
        all
    }

    /// The walks that are due: the stop signal for who was there when the group had it, but was
    /// not of it.
    pub(super) fn walk(&mut self, cx: &mut Cx<'_, K>) {
        while let Some((at, id)) = self.unwalked.first().copied().filter(|(at, _)| *at <= cx.now) {
            self.unwalked.remove(&(at, id));
            let stop = self.get_mut(id).and_then(|tree| tree.stop.as_mut());
            let Some(stop) = stop.filter(|stop| stop.walk_at == Some(at)) else { continue };
            stop.walk_at = None;
            let signal = stop.signal;
            for process in self.living(cx, id) {
                self.ask_who_was_there(cx, id, &process, signal);
            }
        }
    }

    fn ask_who_was_there(&mut self, cx: &mut Cx<'_, K>, id: Id, process: &Seen<K>, signal: i32) {
        if !self.has_had(id, process) {
            let stop = self.get(id).and_then(|tree| tree.stop.as_ref());
            if !stop.is_some_and(|stop| stop.was_there(process.identity())) {
                return;
            }
            self.send(cx, id, process, signal);
        }
        self.note_asked(cx, id, process);
    }

    /// Signals the leader's group, if that is wanted and the kernel can: says whether. Else who
    /// leads.
    fn signal_leader(&self, cx: &mut Cx<'_, K>, id: Id, signal: i32, group: bool) -> bool {
        let Some(tree) = self.get(id) else { return false };
        if group
            && let Some(pidfd) = &tree.pidfd
            && cx.kernel.features().pgroup_signal
            && cx.kernel.signal(pidfd, signal, Reach::Group).is_ok()
        {
            return true;
        }
        let (who, pidfd) = tree.lead();
        // Not yet a group leader, between fork and setsid: then it is alone.
        let sent = pidfd.map_or(Ok(()), |it| cx.kernel.signal(it, signal, Reach::Process));
        if let Err(errno) = sent {
            cx.log.push(format!("cannot signal pid {}: {errno}", who.pid));
        }
        false
    }

    /// The stop signal for what turned up since it was sent: newcomers, and what it had not
    /// reached. Nothing while the leader alone is asked.
    pub(super) fn signal_rest(&mut self, cx: &mut Cx<'_, K>, id: Id) {
        let Some(tree) = self.get(id) else { return };
        let Some(stop) = &tree.stop else { return };
        let (signal, killing, unwalked) = (stop.signal, tree.kills > 0, stop.walk_at.is_some());
        if stop.reach == StopReach::Leader && tree.exit.is_none() && !killing {
            return;
        }
        let mut known = BTreeSet::default();
        for root in self.known(id, |asked| !asked || killing) {
            let mut branch = self.branch(cx, id, root, &mut known);
            if killing {
                branch.iter().for_each(|process| self.send(cx, id, process, libc::SIGKILL));
                continue;
            }
            if branch.first().is_some_and(|root| self.has_had(id, root)) {
                // What is below it and was born since helps it to end, and is asked when it has
                // lost its parent. The rest had it too, but where the walk was not made.
                let below = branch.split_off(1);
                if unwalked {
                    below.iter().for_each(|it| self.ask_who_was_there(cx, id, it, signal));
                }
            }
            for process in branch {
                if !self.has_had(id, &process) {
                    self.send(cx, id, &process, signal);
                }
                self.note_asked(cx, id, &process);
            }
        }
    }

    fn has_had(&self, id: Id, process: &Seen<K>) -> bool {
        let tree = self.get(id);
        tree.is_some_and(|tree| tree.has_had_stop(process.identity(), process.pgid))
            && !mutant("ask_twice")
    }

    /// Remembers that a process has had the stop signal. It would not see it while it is stopped.
    fn note_asked(&mut self, cx: &mut Cx<'_, K>, id: Id, process: &Seen<K>) {
        if process.stopped {
            self.send(cx, id, process, libc::SIGCONT);
        }
        if let Some(orphan) = self.orphans.get_mut(&process.pid) {
            orphan.asked = true;
        }
        let Some(tree) = self.get_mut(id) else { return };
        if let Some(member) = tree.members.get_mut(&process.pid) {
            member.asked = true;
        }
        if let Some(stop) = tree.stop.as_mut() {
            stop.seen.insert(process.identity());
        }
    }

    /// SIGKILL for all of a tree: the group at once, then whoever left the group.
    pub(super) fn kill_living(&self, cx: &mut Cx<'_, K>, id: Id) {
        let Some(tree) = self.get(id) else { return };
        let groups = cx.kernel.features().pgroup_signal;
        let roots = self.known(id, |_| true);
        let leader = tree.pidfd.iter().filter(|_| tree.exit.is_none() || groups);
        let orphans = roots.iter().filter_map(|pid| Some(&self.orphans.get(pid)?.pidfd));
        for pidfd in leader.chain(orphans) {
            let reach = if groups { Reach::Group } else { Reach::Process };
            if cx.kernel.signal(pidfd, libc::SIGKILL, reach).is_err() {
                // Leads no group, or is gone already.
                cx.kernel.signal(pidfd, libc::SIGKILL, Reach::Process).ok();
            }
        }
        let mut known = BTreeSet::default();
        for root in tree.pids().chain(roots) {
            for process in self.branch(cx, id, root, &mut known) {
                self.send(cx, id, &process, libc::SIGKILL);
            }
        }
    }

    /// TERM to those of our children that no service owns: they came from elsewhere (`docker
    /// exec`) or hide their origin.
    pub(super) fn ask_ownerless(&mut self, cx: &mut Cx<'_, K>) {
        for (pid, orphan) in self.orphans.iter_mut() {
            if orphan.asked || matches!(orphan.owner, Owner::Tree(..)) {
                continue;
            }
            orphan.asked = true;
            let stopped = cx.kernel.stat(*pid).is_ok_and(|stat| stat.state == b'T');
            for signal in [libc::SIGTERM].into_iter().chain(stopped.then_some(libc::SIGCONT)) {
                // Gone already, at worst.
                cx.kernel.signal(&orphan.pidfd, signal, Reach::Process).ok();
            }
        }
    }

    /// One of the tree that lives although its leader is gone, and is known.
    pub(crate) fn survivor(&self, cx: &mut Cx<'_, K>, id: Id) -> Option<Pid> {
        let mut rest = self.known(id, |_| true).into_iter();
        rest.find(|pid| self.held_process(cx, id, *pid).is_some())
    }

    /// A process that we hold, as it is now.
    fn held_process(&self, cx: &mut Cx<'_, K>, id: Id, pid: Pid) -> Option<Seen<K>> {
        let seen = match cx.kernel.stat(pid) {
            Ok(stat) => Seen::of(&stat, None),
            // It can't be told: then it is signalled and continued rather than not.
            Err(_) => Seen { pid, pidfd: None, start_time: 0, sid: 0, pgid: 0, stopped: true },
        };
        self.lives(cx, id, &seen).then_some(seen)
    }

    /// A process that we hold, and its live descendants but for those that are `known`, and those
    /// that are to be let go. May miss
    /// some while they change, and names no stranger: a number is believed only while what we hold
    /// of it lives, for then it has not passed to another process.
    fn branch(
        &self,
        cx: &mut Cx<'_, K>,
        id: Id,
        root: Pid,
        known: &mut BTreeSet<Pid>,
    ) -> Vec<Seen<K>> {
        known.insert(self.marks.own.pid);
        if !known.insert(root) {
            return Vec::new();
        }
        let mut found: Vec<Seen<K>> = self.held_process(cx, id, root).into_iter().collect();
        let mut at = 0;
        while let Some(parent) = found.get(at).map(|parent| parent.pid) {
            let mut children = Vec::new();
            // Gone, or it can't be read: then they come to us, or a later round finds them.
            cx.kernel.children(parent, &mut children).ok();
            for pid in children.into_iter().filter(|pid| known.insert(*pid)) {
                let Ok(pidfd) = cx.kernel.pidfd_open(pid) else { continue };
                let stat = cx.kernel.stat(pid).ok().filter(|stat| stat.ppid == parent);
                let Some(stat) = stat else { continue };
                let trusted = at == 0 && mutant("trust_numbers");
                if (trusted || self.lives(cx, id, &found[at]))
                    && cx.kernel.is_dead(&pidfd) == Ok(false)
                {
                    found.push(Seen::of(&stat, Some(pidfd)));
                }
            }
            at += 1;
        }
        if let Some(tree) = self.get(id).filter(|tree| tree.keeps.is_some()) {
            // All were asked for their children: one that was forked before its parent left.
            found.retain(|it| [it.pid, it.sid, it.pgid].contains(&tree.leader.pid));
        }
        found
    }

    fn lives(&self, cx: &mut Cx<'_, K>, id: Id, process: &Seen<K>) -> bool {
        self.held(id, process).is_some_and(|pidfd| cx.kernel.is_dead(pidfd) == Ok(false))
    }

    fn send(&self, cx: &mut Cx<'_, K>, id: Id, process: &Seen<K>, signal: i32) {
        if let Some(pidfd) = self.held(id, process) {
            // Gone already, at worst.
            cx.kernel.signal(pidfd, signal, Reach::Process).ok();
        }
    }

    /// The pidfd of a process of this service: its own, or the one that we hold anyway.
    fn held<'a>(&'a self, id: Id, process: &'a Seen<K>) -> Option<&'a K::Pidfd> {
        let tree = self.get(id);
        let member = || Some(&tree?.members.get(&process.pid)?.pidfd);
        let orphan = || Some(&self.orphans.get(&process.pid)?.pidfd);
        let main =
            || Some(&tree?.succession.main.as_ref().filter(|it| it.who.pid == process.pid)?.pidfd);
        // Last: the number of a leader that was reaped may be a member's now.
        let leader = || tree.filter(|tree| tree.leader.pid == process.pid)?.pidfd.as_ref();
        process.pidfd.as_ref().or_else(member).or_else(orphan).or_else(main).or_else(leader)
    }
}

impl<K: Kernel> Cx<'_, K> {
    /// Now, on the clock of start times, and the last pid that was given out.
    fn instant(&mut self) -> Option<(u64, Pid)> {
        let last = self.kernel.last_pid()?;
        Some((self.kernel.now() / TICK_MS, last))
    }
}
