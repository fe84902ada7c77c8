//! The gate: nothing of a service starts before the kernel has confirmed that nothing of it lives.
//!
//! For a tree whose every orphan came to us (we forked its leader and are its subreaper) the
//! proof is our own list of children, read whole after the leader's death and before any reap:
//! each live descendant hangs off an orphan in that list, and only we take orphans off it. A
//! dead orphan may have left its own children to us after the list was read, so that after each
//! reap the list is read again. Then the leader is reaped, and its group asked once more.
//!
//! What was put into another PID namespace is not in that list, and of an adopted tree orphans
//! went elsewhere: there [`super::proof`] asks the kernel whether the tree's time namespace is
//! empty, or looks for it and for marks.
use super::owner::Attribution;
use super::{Orphan, Owner};
use crate::daemon::Daemon;
use crate::mutant::mutant;
use crate::process::{Namespace, Pid};
use crate::service::machine::{Generation, Input};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Reach, Wake};

/// Times that the list of children is read in one turn while orphans keep dying.
const COUNTS_MAX: usize = 16;
/// Orphans that are watched by a descriptor each, as far as they take no more than a quarter of
/// them: what is looked at in /proc, and who asks, need some too.
const ORPHANS_WATCHED_MAX: usize = 256;
/// When something could not be looked at (EMFILE, no /proc for a moment), look again then.
pub(crate) const LOOK_AGAIN_MS: u64 = 200;

impl<K: Kernel> Daemon<K> {
    /// Reads our own children, takes in what is new, reaps what is dead, until nothing changes.
    pub(crate) fn count_children(&mut self) {
        for _ in 0..COUNTS_MAX {
            let mut changed = self.reap_dead_orphans();
            let mut list = std::mem::take(&mut self.trees.children);
            list.clear();
            let mut whole = self.list_children(&mut list).is_ok();
            for pid in list.iter().copied() {
                if self.trees.leaders.contains_key(&pid) || self.trees.orphans.contains_key(&pid) {
                    continue;
                }
                match self.take_in(pid) {
                    Ok(alive) => changed |= !alive,
                    Err(_) => whole = false,
                }
            }
            self.trees.children = list;
            if !whole {
                self.trees.look_again_at = Some(self.now + LOOK_AGAIN_MS);
                return;
            }
            if !changed || mutant("count_once") {
                self.trees.counted = true;
                return;
            }
        }
        // They die faster than we count: let others have a turn.
        self.trees.look_again_at = Some(self.now);
    }

    /// Our children: all that we don't know yet, and any that we do.
    ///
    /// All that are known are in the list. So where it is as long as they are many, it holds
    /// nobody else, and the end of it tells.
    fn list_children(&mut self, list: &mut Vec<Pid>) -> Result<(), Errno> {
        let known = self.trees.leaders.len() + self.trees.orphans.len();
        let place = self.kernel.own_children(known, list)?;
        if place == 0 || place + list.len() == known || mutant("believe_the_tail") {
            return Ok(());
        }
        list.clear();
        self.kernel.own_children(0, list).map(drop)
    }

    fn reap_dead_orphans(&mut self) -> bool {
        let mut any = false;
        for pid in std::mem::take(&mut self.trees.dead_orphans) {
            let Some(orphan) = self.trees.orphans.get(&pid) else {
                continue;
            };
            if self.kernel.is_dead(&orphan.pidfd).unwrap_or(false) {
                // None: traced. It stays, and SIGCHLD brings us here again.
                if self.kernel.wait(&orphan.pidfd, true) == Ok(None) {
                    self.trees.dead_orphans.push(pid);
                    continue;
                }
                self.kernel.unwatch(&orphan.pidfd);
                self.trees.orphans.remove(&pid);
                any = true;
            }
        }
        any
    }

    /// A child that we did not start: reaped if dead (false), else attributed and watched.
    fn take_in(&mut self, pid: Pid) -> Result<bool, Errno> {
        let (pidfd, watched) = self.hold(pid)?;
        if self.kernel.is_dead(&pidfd)? && self.kernel.wait(&pidfd, true)?.is_some() {
            return Ok(false);
        }
        let Attribution { mut owner, born, mute } = self.owner_of(pid)?;
        if self.kernel.is_dead(&pidfd)? {
            // Its environment may have been read as it died; and what it left behind came to us
            // after the list was read.
            if self.kernel.wait(&pidfd, true)?.is_some() {
                return Ok(false);
            }
            owner = Owner::Unknown;
        }
        if watched {
            self.kernel.watch(&pidfd, Wake::Member(pid))?;
        }
        if mutant("forget_escapees") {
            return Ok(true);
        }
        self.trees.orphans.insert(pid, Orphan { watched, pidfd, owner, born, mute, asked: false });
        self.meet(owner);
        Ok(true)
    }

    /// Holds a child that we did not start, and says whether it is to be watched: not one of very
    /// many, or that there is no descriptor for. A service that leaves thousands behind must not
    /// take from the others what they need.
    fn hold(&mut self, pid: Pid) -> Result<(K::Pidfd, bool), Errno> {
        if self.trees.orphans.len() >= self.trees.orphans_watched_max {
            return Ok((self.kernel.child(pid), false));
        }
        match self.kernel.pidfd_open(pid) {
            Ok(pidfd) => Ok((pidfd, true)),
            Err(Errno::MFILE | Errno::NFILE) => Ok((self.kernel.child(pid), false)),
            Err(errno) => Err(errno),
        }
    }

    /// Somebody turned up: if its tree is to go, it is told.
    pub(crate) fn meet(&mut self, owner: Owner) {
        let Owner::Tree(id, _) = owner else { return };
        self.waiters.changed.insert(id);
        self.terminate_rest(id);
    }

    /// Opens what gates can be opened.
    pub(crate) fn check_gates(&mut self) {
        if self.trees.gates.is_empty() {
            return;
        }
        let (mut searched, mut childless) = (Vec::new(), Vec::new());
        for id in self.trees.gates.iter().copied().collect::<Vec<_>>() {
            let Some(run) = self.run(id) else {
                self.trees.gates.remove(&id);
                continue;
            };
            if let Some((stage, errno)) = run.failure {
                self.end_failed_launch(id, stage, errno);
            } else if !run.lineage {
                searched.push(id);
            } else if self.is_own_tree_empty(id) {
                childless.push(id);
            }
        }
        // Only now: what none of a tree is left to do, none of it does.
        let mut others = None;
        for id in childless {
            if self.may_live_elsewhere(id, &mut others) {
                searched.push(id);
            } else {
                self.emptied(id);
            }
        }
        for id in self.confirm_by_search(searched) {
            self.emptied(id);
        }
    }

    /// A child that never exec'd has no tree: its own death is all there is to wait for.
    fn end_failed_launch(&mut self, id: Id, stage: crate::sys::Stage, errno: Errno) {
        if let Some(generation) = self.end_run(id) {
            self.launch_failed(id, generation, stage, errno);
        }
    }

    fn is_own_tree_empty(&mut self, id: Id) -> bool {
        let Some(run) = self.run(id) else {
            return false;
        };
        if mutant("leader_is_tree") {
            return true;
        }
        if !self.trees.counted {
            return false;
        }
        let blocked = self.trees.orphans.values().any(|orphan| match orphan.owner {
            Owner::Tree(owner, generation) => owner == id && generation == run.generation,
            Owner::Unknown => run.may_have_forked(orphan.born) && !mutant("ignore_unknown"),
            Owner::Foreign => false,
        });
        if blocked {
            if self.trees.orphans.values().any(|orphan| orphan.mute) {
                self.trees.look_again_at.get_or_insert(self.now + self.trees.search_pause);
            }
            return false;
        }
        self.reap_leader(id) && self.is_group_empty(id)
    }

    /// Whether something of a tree may live where our list of children can't show it. What was
    /// put into another PID namespace (nsenter(1), `docker exec`) goes to the init of that one when
    /// its parent ends, not to us. `others`: whether there are other namespaces, once it is known.
    fn may_live_elsewhere(&mut self, id: Id, others: &mut Option<bool>) -> bool {
        if mutant("lineage_is_all") {
            return false;
        }
        let namespace = self.namespace_of(id);
        match self.kernel.is_namespace_alive(namespace) {
            Some(alive) => alive,
            None => *others.get_or_insert_with(|| self.are_there_other_pid_namespaces()),
        }
    }

    /// The time namespace of an incarnation's tree, as its leader signed it; none if namespaces
    /// tell us nothing, whatever they told an earlier daemon.
    pub(crate) fn namespace_of(&mut self, id: Id) -> Namespace {
        if self.trees.own_namespace == 0 {
            return Namespace::default();
        }
        let Some(run) = self.services.get_mut(id).and_then(|service| service.run.as_mut()) else {
            return Namespace::default();
        };
        if run.namespace.is_none() {
            // Of a child that has not signed yet there is none to be known, either.
            let signature = self.ledger.journal.signature(&mut self.kernel, id);
            let its = signature.filter(|signed| signed.generation == run.generation.0);
            run.namespace = its.map(|signed| signed.namespace);
        }
        run.namespace.unwrap_or_default()
    }

    /// Whether anything that we see is in a PID namespace below ours: without one nothing can be
    /// put into one. One that can't be looked at any more may have been.
    fn are_there_other_pid_namespaces(&mut self) -> bool {
        let mut pids = Vec::new();
        let mut any = self.kernel.processes(0, &mut pids).is_err();
        while let Some(last) = pids.last().copied().filter(|_| !any) {
            let own = self.header.pid_namespace;
            // Of another user's, which can't be read, none of ours enters.
            any = pids.drain(..).any(|pid| {
                let known =
                    self.trees.leaders.contains_key(&pid) || self.trees.orphans.contains_key(&pid);
                !known
                    && match self.kernel.pid_namespace(pid) {
                        Ok(its) => its != own,
                        Err(errno) => !matches!(errno, Errno::ACCESS | Errno::PERM),
                    }
            });
            any |= self.kernel.processes(last, &mut pids).is_err();
        }
        any
    }

    /// The kernel's own word on the leader's process group, race-free: the pidfd names that very
    /// group, even if the number has a new owner. True where the kernel can't be asked.
    pub(crate) fn is_group_empty(&mut self, id: Id) -> bool {
        let Some(service) = self.services.get_mut(id) else {
            return false;
        };
        let Some(pidfd) = service.run.as_ref().and_then(|run| run.pidfd.as_ref()) else {
            return true;
        };
        if !self.kernel.features().pgroup_signal {
            return true;
        }
        let empty = self.kernel.signal(pidfd, 0, Reach::Group) == Err(Errno::SRCH);
        if !empty {
            // Zombies of somebody else's count as members until they are reaped; nobody tells us.
            self.trees.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
        }
        empty
    }

    /// The gate is open.
    fn emptied(&mut self, id: Id) {
        if let Some(generation) = self.end_run(id) {
            self.announce_drained(id, generation);
            self.feed(id, Input::Emptied(generation));
        }
    }

    /// Lets go of an incarnation of which nothing lives.
    fn end_run(&mut self, id: Id) -> Option<Generation> {
        self.trees.gates.remove(&id);
        let service = self.services.get_mut(id)?;
        let run = service.run.take()?;
        if let Some(pidfd) = &run.pidfd {
            if run.child {
                // A failed launch: nothing reaped it yet. An error means that it is gone already.
                self.kernel.wait(pidfd, true).ok();
            }
            self.kernel.unwatch(pidfd);
        }
        for member in run.members.values() {
            self.kernel.unwatch(&member.pidfd);
        }
        if self.trees.leaders.get(&run.leader.pid) == Some(&id) {
            self.trees.leaders.remove(&run.leader.pid);
        }
        service.emptied = service.emptied.max(run.generation.0);
        Some(run.generation)
    }
}

/// How many orphans are watched by a descriptor each.
pub(crate) fn orphans_watched_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let quarter = usize::try_from(limit.current.unwrap_or(u64::MAX) / 4);
    quarter.map_or(ORPHANS_WATCHED_MAX, |quarter| quarter.min(ORPHANS_WATCHED_MAX))
}

/// None: it is not there, or not ours to read.
pub(crate) fn readable<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}
