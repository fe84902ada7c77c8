//! Signals for what is alive of an incarnation: by pidfd only, so never for a stranger.
//!
//! A process gets the stop signal once for one stop, for a second one means "now, hard" to many a
//! program. What of the tree can be seen gets it at the stop: the leader's group by one call,
//! the rest by a walk over the children of the leader and of our orphans. Later only those get it
//! that turn up without having had it. KILL goes to all, again and again.
use super::{Asked, Orphan, Owner};
use crate::daemon::Daemon;
use crate::daemon::service::Service;
use crate::daemon::services::Services;
use crate::daemon::vecmap::{VecMap, VecSet};
use crate::mutant::mutant;
use crate::process::Pid;
use crate::process::stat::TICK_MS;
use crate::service::spec::{Id, StopReach};
use crate::sys::{Kernel, Reach};

/// What a signal for a tree is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
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
    pgid: Pid,
    stopped: bool,
}

impl<K: Kernel> Daemon<K> {
    /// The stop signal for the whole incarnation, or for its leader first.
    pub(crate) fn terminate(&mut self, id: Id) {
        let now = self.now;
        self.count_silent();
        let Some(service) = self.services.get_mut(id) else {
            return;
        };
        let signal = service.machine.policy().stop_signal.number();
        let Some(run) = service.run.as_mut() else { return };
        run.asked.get_or_insert_with(|| Asked::new(now));
        if run.exit.is_none() {
            self.signal_living(id, signal, Aim::Stop);
        }
        self.terminate_rest(id);
    }

    /// A signal of an operator's for the whole tree of a live leader.
    pub(crate) fn signal_tree(&mut self, id: Id, signal: i32) {
        self.count_silent();
        self.signal_living(id, signal, Aim::Operator);
    }

    /// An orphan that still lives comes to us in silence.
    fn count_silent(&mut self) {
        if !self.trees.counted {
            self.count_children();
        }
    }

    /// A signal for a live leader, its group and the rest of its tree.
    fn signal_living(&mut self, id: Id, signal: i32, aim: Aim) {
        let Some(service) = self.services.get(id) else { return };
        let reach = service.machine.policy().stop_reach;
        let alone = aim == Aim::Stop && reach == StopReach::Leader;
        let Some(run) = service.run.as_ref() else { return };
        let leader = run.leader.pid;
        let mut tree = Vec::new();
        if alone {
            tree.extend(self.held_process(id, leader));
        } else {
            let mut known = VecSet::new();
            for root in std::iter::once(leader).chain(self.roots(id, |_| true)) {
                tree.append(&mut self.branch(id, root, &mut known));
            }
        }
        // Before the signal: whoever is born after it must not be taken for one that had it.
        let instant = (aim == Aim::Stop && !alone).then(|| self.instant()).flatten();
        let grouped = self.signal_leader(id, signal, !alone);
        if let Some(asked) = self.run_mut(id).and_then(|run| run.asked.as_mut()) {
            asked.group = instant.filter(|_| grouped).or(asked.group);
        }
        for process in tree {
            if process.pid != leader && !(grouped && process.pgid == leader) {
                self.send(id, &process, signal);
            }
            if aim == Aim::Stop {
                self.note_asked(id, &process);
            }
        }
    }

    /// Signals a live leader, with its group if that is wanted and the kernel can: says whether.
    fn signal_leader(&mut self, id: Id, signal: i32, group: bool) -> bool {
        let Some(service) = self.services.get_mut(id) else {
            return false;
        };
        let Some(pidfd) = service.run.as_ref().and_then(|run| run.pidfd.as_ref()) else {
            return false;
        };
        if group
            && self.kernel.features().pgroup_signal
            && self.kernel.signal(pidfd, signal, Reach::Group).is_ok()
        {
            return true;
        }
        // Not yet a group leader, between fork and setsid: then it is alone.
        if let Err(errno) = self.kernel.signal(pidfd, signal, Reach::Process) {
            self.log.push(format!("cannot signal {}: {errno}", service.definition.spec.name));
        }
        false
    }

    /// The stop signal for what turned up since it was sent: newcomers, and what it had not
    /// reached. Nothing while the leader alone is asked.
    pub(crate) fn terminate_rest(&mut self, id: Id) {
        let Some(service) = self.services.get(id) else { return };
        let policy = service.machine.policy();
        let (stop, reach) = (policy.stop_signal.number(), policy.stop_reach);
        let Some(run) = service.run.as_ref() else { return };
        let killing = run.kills > 0;
        let leads = reach == StopReach::Leader && run.exit.is_none();
        if run.asked.is_none() || leads && !killing {
            return;
        }
        let mut known = VecSet::new();
        for root in self.roots(id, |asked| !asked || killing) {
            let mut branch = self.branch(id, root, &mut known);
            if killing {
                branch.iter().for_each(|process| self.send(id, process, libc::SIGKILL));
                continue;
            }
            if branch.first().is_some_and(|root| self.has_had(id, root)) {
                // What is below it had it too, or was born since: that helps it to end, and is
                // asked when it has lost its parent.
                branch.truncate(1);
            }
            for process in branch {
                if !self.has_had(id, &process) {
                    self.send(id, &process, stop);
                }
                self.note_asked(id, &process);
            }
        }
    }

    fn has_had(&self, id: Id, process: &Seen<K>) -> bool {
        let run = self.run(id);
        run.is_some_and(|run| run.has_had_stop(process.identity(), process.pgid))
            && !mutant("ask_twice")
    }

    /// Remembers that a process has had the stop signal. It would not see it while it is stopped.
    fn note_asked(&mut self, id: Id, process: &Seen<K>) {
        let identity = process.identity();
        if process.stopped {
            self.send(id, process, libc::SIGCONT);
        }
        if let Some(orphan) = self.trees.orphans.get_mut(&process.pid) {
            orphan.asked = true;
        }
        let Some(run) = self.run_mut(id) else { return };
        if let Some(member) = run.members.get_mut(&process.pid) {
            member.asked = true;
        }
        if let Some(asked) = run.asked.as_mut() {
            asked.seen.insert(identity);
        }
    }

    /// SIGKILL for all of it: the group at once, then whoever left the group.
    pub(crate) fn kill_tree(&mut self, id: Id) {
        let Some(run) = self.run_mut(id) else { return };
        run.kills += 1;
        let (first, leads) = (run.kills == 1, run.exit.is_none());
        if first {
            self.note_kill(id);
        }
        let groups = self.kernel.features().pgroup_signal;
        let roots = self.roots(id, |_| true);
        if let Some(run) = self.services.get(id).and_then(|service| service.run.as_ref()) {
            let leader = run.pidfd.iter().filter(|_| leads || groups);
            let orphans = roots.iter().filter_map(|pid| Some(&self.trees.orphans.get(pid)?.pidfd));
            for pidfd in leader.chain(orphans) {
                let reach = if groups { Reach::Group } else { Reach::Process };
                if self.kernel.signal(pidfd, libc::SIGKILL, reach).is_err() {
                    // Leads no group, or is gone already.
                    self.kernel.signal(pidfd, libc::SIGKILL, Reach::Process).ok();
                }
            }
        }
        let mut known = VecSet::new();
        let leader = self.services.get(id).and_then(Service::pid);
        for root in leader.into_iter().chain(roots) {
            for process in self.branch(id, root, &mut known) {
                self.send(id, &process, libc::SIGKILL);
            }
        }
        if !leads {
            // Where no event comes (somebody else's zombie, a lost edge), the round itself looks.
            self.trees.look_again_at.get_or_insert(self.now);
        }
    }

    /// The orphans and certain members of this tree, by whether they were asked to end.
    fn roots(&self, id: Id, which: impl Fn(bool) -> bool) -> Vec<Pid> {
        let Some(run) = self.run(id) else {
            return Vec::new();
        };
        let mine = Owner::Tree(id, run.generation);
        let orphans = self.trees.orphans.iter().filter(|(_, o)| o.owner == mine && which(o.asked));
        let members = run.members.iter().filter(|(_, m)| m.certain && which(m.asked));
        orphans.map(|(pid, _)| *pid).chain(members.map(|(pid, _)| *pid)).collect()
    }

    /// The processes of a tree that we hold and know to be of it.
    pub(crate) fn may_be_signalled(&self, id: Id) -> Vec<Pid> {
        let leader = self.services.get(id).and_then(Service::pid);
        leader.into_iter().chain(self.roots(id, |_| true)).collect()
    }

    /// One of the tree that lives although its leader is gone, and is known.
    pub(crate) fn survivor(&mut self, id: Id) -> Option<Pid> {
        let mut rest = self.roots(id, |_| true).into_iter();
        rest.find(|pid| self.held_process(id, *pid).is_some())
    }

    /// A process that we hold, as it is now.
    fn held_process(&mut self, id: Id, pid: Pid) -> Option<Seen<K>> {
        let seen = match self.kernel.stat(pid) {
            Ok(stat) => Seen {
                pid,
                pidfd: None,
                start_time: stat.start_time,
                pgid: stat.pgid,
                stopped: stat.state == b'T',
            },
            // It can't be told: then it is signalled and continued rather than not.
            Err(_) => Seen { pid, pidfd: None, start_time: 0, pgid: 0, stopped: true },
        };
        self.lives(id, &seen).then_some(seen)
    }

    /// A process that we hold, and its live descendants but for those that are `known`. May miss
    /// some while they change, and names no stranger: a number is believed only while what we hold
    /// of it lives, for then it has not passed to another process.
    fn branch(&mut self, id: Id, root: Pid, known: &mut VecSet<Pid>) -> Vec<Seen<K>> {
        known.insert(self.own.pid);
        if !known.insert(root) {
            return Vec::new();
        }
        let mut found: Vec<Seen<K>> = self.held_process(id, root).into_iter().collect();
        let mut at = 0;
        while let Some(parent) = found.get(at).map(|parent| parent.pid) {
            let mut children = Vec::new();
            // Gone, or it can't be read: then they come to us, or a later round finds them.
            self.kernel.children(parent, &mut children).ok();
            for pid in children.into_iter().filter(|pid| known.insert(*pid)) {
                let Ok(pidfd) = self.kernel.pidfd_open(pid) else {
                    continue;
                };
                let stat = self.kernel.stat(pid).ok();
                let Some(stat) = stat.filter(|stat| stat.ppid == parent) else {
                    continue;
                };
                let trusted = at == 0 && mutant("trust_numbers");
                if (trusted || self.lives(id, &found[at]))
                    && self.kernel.is_dead(&pidfd) == Ok(false)
                {
                    found.push(Seen {
                        pid,
                        pidfd: Some(pidfd),
                        start_time: stat.start_time,
                        pgid: stat.pgid,
                        stopped: stat.state == b'T',
                    });
                }
            }
            at += 1;
        }
        found
    }

    /// Now, on the clock of start times, and the last pid that was given out.
    fn instant(&mut self) -> Option<(u64, Pid)> {
        let last = self.kernel.last_pid()?;
        Some((self.kernel.now() / TICK_MS, last))
    }

    fn lives(&mut self, id: Id, process: &Seen<K>) -> bool {
        let held = held(&self.services, &self.trees.orphans, id, process);
        held.is_some_and(|pidfd| self.kernel.is_dead(pidfd) == Ok(false))
    }

    fn send(&mut self, id: Id, process: &Seen<K>, signal: i32) {
        if let Some(pidfd) = held(&self.services, &self.trees.orphans, id, process) {
            // Gone already, at worst.
            self.kernel.signal(pidfd, signal, Reach::Process).ok();
        }
    }
}

impl<K: Kernel> Seen<K> {
    fn identity(&self) -> (Pid, u64) {
        (self.pid, self.start_time)
    }
}

/// The pidfd of a process of this service: its own, or the one that we hold anyway.
fn held<'a, K: Kernel>(
    services: &'a Services<K>,
    orphans: &'a VecMap<Pid, Orphan<K>>,
    id: Id,
    process: &'a Seen<K>,
) -> Option<&'a K::Pidfd> {
    let run = services.get(id).and_then(|service| service.run.as_ref());
    let member = || Some(&run?.members.get(&process.pid)?.pidfd);
    let orphan = || Some(&orphans.get(&process.pid)?.pidfd);
    // Last: the number of a leader that was reaped may be a member's now.
    let leader = || run.filter(|run| run.leader.pid == process.pid)?.pidfd.as_ref();
    process.pidfd.as_ref().or_else(member).or_else(orphan).or_else(leader)
}
