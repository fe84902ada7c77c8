//! Signals for what is alive of an incarnation: by pidfd only, so never for a stranger.
use super::Daemon;
use super::sorted::Set;
use super::unit::{Owner, unit_in};
use crate::mutant::mutant;
use crate::process::Pid;
use crate::service::spec::Id;
use crate::sys::{Kernel, Reach};

impl<K: Kernel> Daemon<K> {
    /// The stop signal for the whole incarnation.
    pub(crate) fn terminate(&mut self, id: Id) {
        let Some(unit) = unit_in(&mut self.units, id) else {
            return;
        };
        let signal = unit.definition.spec.policy.stop_signal.number();
        let Some(run) = unit.run.as_mut() else { return };
        run.asked = true;
        if run.exit.is_none()
            && let Some(pidfd) = &run.pidfd
            && self.kernel.tiers().pgroup_signal
        {
            // A stopped process would see the signal only when continued.
            for signal in [signal, libc::SIGCONT] {
                if let Err(errno) = self.kernel.signal(pidfd, signal, Reach::Group) {
                    // Not yet a group leader: between fork and setsid. Then it is alone.
                    let alone = self.kernel.signal(pidfd, signal, Reach::Process);
                    if alone.is_err() {
                        self.log
                            .push(format!("cannot signal {}: {errno}", unit.definition.spec.name));
                    }
                }
            }
            return;
        }
        self.terminate_rest(id);
        if self.unit(id).is_some_and(|unit| unit.run.as_ref().is_some_and(|run| run.exit.is_none()))
        {
            self.signal_tree(id, signal);
            self.signal_tree(id, libc::SIGCONT);
        }
    }

    /// The stop signal for every live member that has not had it.
    pub(crate) fn terminate_rest(&mut self, id: Id) {
        let Some(unit) = self.unit(id) else { return };
        let signal = unit.definition.spec.policy.stop_signal.number();
        let Some(run) = unit.run.as_ref() else { return };
        let (generation, killing) = (run.generation, run.kills > 0);
        let signal = if killing { libc::SIGKILL } else { signal };
        let mine = |owner: Owner| owner == Owner::Run(id, generation);
        let mut roots = Vec::new();
        for (pid, orphan) in self.orphans.iter_mut() {
            if mine(orphan.owner) && (!orphan.asked || killing) {
                orphan.asked = true;
                roots.push(*pid);
            }
        }
        for pid in roots {
            self.signal_branch(id, pid, signal);
        }
    }

    /// SIGKILL for all of it: the group at once, then whoever left the group.
    pub(crate) fn kill_tree(&mut self, id: Id) {
        if let Some(run) = self.unit_mut(id).and_then(|unit| unit.run.as_mut()) {
            run.kills += 1;
        }
        self.signal_tree(id, libc::SIGKILL);
        if self.unit(id).and_then(|unit| unit.run.as_ref()).is_some_and(|run| run.exit.is_some()) {
            // Where no event comes (somebody else's zombie, a lost edge), the round itself looks.
            self.look_again_at.get_or_insert(self.now);
        }
    }

    /// A signal for the whole tree: the leader's group, descendants, orphans, marked members.
    pub(crate) fn signal_tree(&mut self, id: Id, signal: i32) {
        let Some(unit) = unit_in(&mut self.units, id) else {
            return;
        };
        let Some(run) = unit.run.as_ref() else { return };
        let generation = run.generation;
        let leader = run.exit.is_none().then_some(run.leader.pid);
        let mut grouped = false;
        if let Some(pidfd) = &run.pidfd {
            grouped = self.kernel.tiers().pgroup_signal
                && self.kernel.signal(pidfd, signal, Reach::Group).is_ok();
            if !grouped && leader.is_some() {
                self.kernel.signal(pidfd, signal, Reach::Process).ok();
            }
        }
        for member in run.members.values().filter(|member| member.certain) {
            self.kernel.signal(&member.pidfd, signal, Reach::Process).ok();
        }
        let members: Vec<Pid> =
            run.members.iter().filter(|(_, m)| m.certain).map(|(pid, _)| *pid).collect();
        let orphans = self.orphans.iter();
        let mine = orphans.filter(|(_, orphan)| orphan.owner == Owner::Run(id, generation));
        let roots: Vec<Pid> = mine.map(|(pid, _)| *pid).collect();
        for pid in roots {
            self.signal_branch(id, pid, signal);
        }
        if let Some(pid) = leader {
            self.signal_descendants(id, pid, signal, grouped);
        }
        for pid in members {
            self.signal_descendants(id, pid, signal, false);
        }
    }

    /// For an orphan and what is below it, once for each: a second signal means something else to
    /// many a program.
    fn signal_branch(&mut self, id: Id, pid: Pid, signal: i32) {
        let mut grouped = false;
        if let Some(orphan) = self.orphans.get(&pid) {
            let group = self.kernel.tiers().pgroup_signal;
            for signal in [signal, libc::SIGCONT] {
                let pidfd = &orphan.pidfd;
                grouped = group && self.kernel.signal(pidfd, signal, Reach::Group).is_ok();
                if !grouped {
                    self.kernel.signal(pidfd, signal, Reach::Process).ok();
                }
            }
        }
        self.signal_descendants(id, pid, signal, grouped);
    }

    /// Walks down from a process that we hold. `grouped`: the group that it leads has had the
    /// signal.
    fn signal_descendants(&mut self, id: Id, root: Pid, signal: i32, grouped: bool) {
        for below in self.descendants(id, root) {
            if grouped && below.pgid == root && signal != libc::SIGKILL {
                continue;
            }
            let pidfd = &below.pidfd;
            self.kernel.signal(pidfd, signal, Reach::Process).ok();
            if signal != libc::SIGKILL {
                self.kernel.signal(pidfd, libc::SIGCONT, Reach::Process).ok();
            }
        }
    }

    /// The live descendants of a leader, member or orphan that we hold. May miss some while they
    /// change, and names no stranger: a number is believed only while what we hold of it lives,
    /// for then it has not passed to another process.
    fn descendants(&mut self, id: Id, root: Pid) -> Vec<Descendant<K>> {
        let mut found: Vec<Descendant<K>> = Vec::new();
        let mut queue: Vec<(Pid, Option<usize>)> = vec![(root, None)];
        let mut seen = Set::new();
        seen.insert(root);
        seen.insert(self.own.pid);
        while let Some((parent, at)) = queue.pop() {
            let mut children = Vec::new();
            if self.kernel.children(parent, &mut children).is_err() {
                continue;
            }
            for pid in children.into_iter().filter(|pid| seen.insert(*pid)) {
                let Ok(pidfd) = self.kernel.pidfd_open(pid) else {
                    continue;
                };
                let stat = self.kernel.stat(pid).ok();
                let Some(stat) = stat.filter(|stat| stat.ppid == parent) else {
                    continue;
                };
                let parent_lives = match at {
                    None => mutant("trust_numbers") || self.holds_alive(id, root),
                    Some(at) => self.kernel.is_dead(&found[at].pidfd) == Ok(false),
                };
                if parent_lives && self.kernel.is_dead(&pidfd) == Ok(false) {
                    queue.push((pid, Some(found.len())));
                    let pgid = stat.pgid;
                    found.push(Descendant { pidfd, pgid });
                }
            }
        }
        found
    }

    /// Whether what we hold of this number, of this service, is alive.
    fn holds_alive(&mut self, id: Id, pid: Pid) -> bool {
        let run = self.units.get(id as usize).and_then(Option::as_deref);
        let run = run.and_then(|unit| unit.run.as_ref());
        let leader = run.filter(|run| run.leader.pid == pid);
        let held = leader.and_then(|run| run.pidfd.as_ref());
        let held = held.or_else(|| run.and_then(|run| Some(&run.members.get(&pid)?.pidfd)));
        let held = held.or_else(|| self.orphans.get(&pid).map(|orphan| &orphan.pidfd));
        held.is_some_and(|pidfd| self.kernel.is_dead(pidfd) == Ok(false))
    }
}

/// A process below one that we hold.
struct Descendant<K: Kernel> {
    pidfd: K::Pidfd,
    pgid: Pid,
}
