//! What proves that a tree whose orphans went elsewhere is empty.
//!
//! Sweeps of /proc ([`super::sweep`]) look for whatever is in the tree's time namespace or bears
//! its marks. Where the kernel has file handles of namespaces, it is asked, too: once that of the
//! tree is gone nobody is in it, and what is left to look for has made itself another one, and
//! bears a mark, or is on its way out: the kernel takes the namespace from a process before it
//! closes its files (exit_task_work() of do_exit()).
//!
//! # Why a sweep can prove that a tree is empty
//!
//! /proc lists in the order of pids, and pids grow until they wrap around. A chain of forks
//! (each forks and exits: a comet) has at every instant a newest live member, whose pid only
//! grows; the listing can't get past that member without listing it. What was listed is then
//! either read, and its mark seen, or it vanished before or became a zombie, and the sweep proves
//! nothing. A wrap around can break one sweep; two in a row would need two of them, and from one
//! to the next every free pid is given out. So two clean sweeps are enough if less was forked
//! during them than there are free pids, and one is if nothing was.
use super::sweep::{Search, Sighting, Sweep};
use super::tree::{Cx, Fact, LOOK_AGAIN_MS, Member, Owner, Trees};
use crate::mutant::mutant;
use crate::process::{Identity, Pid};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Wake, identity};
use std::collections::{BTreeMap, BTreeSet};

/// Sweeps of one turn. On a machine that forks all the time each may meet one that vanishes.
const SWEEPS_MAX: u32 = 8;
/// The longest pause between turns of sweeps that proved nothing; the first is [`LOOK_AGAIN_MS`].
const SEARCH_PAUSE_MAX_MS: u64 = 5_000;

/// The sweeps so far, towards a proof.
#[derive(Debug, Default)]
struct Proof {
    /// Of the last sweep, if it was clean: how much had been forked before it, where that is
    /// counted.
    last: Option<Option<u64>>,
    /// Who was a zombie before the next sweep begins.
    zombies: Vec<Identity>,
}

impl<K: Kernel> Trees<K> {
    /// Of draining trees that can have members which are no descendants of our children, those that
    /// are confirmed empty.
    pub(super) fn confirm_by_search(
        &mut self,
        cx: &mut Cx<'_, K>,
        ids: Vec<Id>,
        facts: &mut Vec<Fact>,
    ) -> Vec<Id> {
        let mut empty = Vec::new();
        let mut gone = true;
        for id in ids {
            if self.are_members_dead(cx, id) {
                let namespace = self.namespace_of(cx, id);
                // Held open by somebody, it is there with nothing in it.
                gone &= cx.kernel.is_namespace_alive(namespace) == Some(false);
                empty.push(id);
            }
        }
        let waiting = empty.clone();
        if self.sweep_until_clean(cx, &mut empty, gone, facts) {
            self.search_pause = LOOK_AGAIN_MS;
        } else {
            empty.clear();
            // Later, and later each time.
            self.look_again(cx.now + self.search_pause);
            self.search_pause = (self.search_pause * 2).min(SEARCH_PAUSE_MAX_MS);
            let why = "waits for a look at /proc that proves its end: processes of others come \
                       and go";
            facts.extend(waiting.into_iter().map(|id| Fact::Waits { id, why: why.to_owned() }));
        }
        // Not the group's own word: zombies of somebody else's count as members there until they
        // are reaped (1.3 s late by some inits), and the sweeps have seen that none of it lives.
        empty.retain(|id| self.reap_leader(cx, *id));
        empty
    }

    /// Sweeps until what is left of `ready` is proved to be empty, or too many proved nothing.
    /// `gone`: nothing is left in their time namespaces.
    fn sweep_until_clean(
        &mut self,
        cx: &mut Cx<'_, K>,
        ready: &mut Vec<Id>,
        gone: bool,
        facts: &mut Vec<Fact>,
    ) -> bool {
        let mut proof = Proof::default();
        for _ in 0..SWEEPS_MAX {
            if ready.is_empty() {
                return true;
            }
            let (mut numbers, mut marks, mut waiting) = (Vec::new(), false, Vec::new());
            for id in ready.iter() {
                let namespace = self.namespace_of(cx, *id);
                let Some(tree) = self.get(*id) else { continue };
                waiting.push((tree.generation.0, namespace));
                marks |= namespace.inode == 0;
                if namespace.inode == 0 || tree.keeps.is_some() {
                    // Not of a lost leader, whose number nobody knows; 0 is a session of others.
                    numbers.extend(Some(tree.leader.pid).filter(|pid| *pid != 0));
                }
            }
            let search = Search { numbers: &numbers, marks, gone };
            let proved = self.prove(cx, &mut proof, search, |trees, cx, sweep| {
                ready.retain(|id| !trees.take_in_sightings(cx, *id, sweep, facts));
                let is_waited_for =
                    |seen: &&Sighting| waiting.iter().any(|(g, n)| sweep.is_of(seen, *g, *n));
                sweep.found.iter().filter(is_waited_for).map(|seen| seen.pid).collect()
            });
            match proved {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
        false
    }

    /// All that bears a mark of ours and lives, of sweeps until one is clean; whether one was; and
    /// what bears a mark that it can't have from us.
    pub(super) fn search(&mut self, cx: &mut Cx<'_, K>) -> (Vec<Sighting>, bool, BTreeSet<Pid>) {
        let mut found: BTreeMap<Pid, Sighting> = BTreeMap::default();
        let (mut proof, mut whole, mut forged) = (Proof::default(), false, BTreeSet::default());
        for _ in 0..SWEEPS_MAX {
            let proved = self.prove(cx, &mut proof, Search::ALL, |_, _, sweep| {
                for seen in &sweep.found {
                    found.insert(seen.pid, *seen);
                }
                for pid in &sweep.forged {
                    forged.insert(*pid);
                }
                sweep.found.iter().map(|seen| seen.pid).collect()
            });
            whole = proved == Some(true);
            if whole {
                break;
            }
            if proved.is_none() {
                proof = Proof { last: None, ..proof };
            }
        }
        let mut found: Vec<Sighting> = found.values().copied().collect();
        if whole {
            leave_out_zombies(cx, &mut found, &proof.zombies);
        }
        (found, whole, forged)
    }

    /// Sweeps once, and says whether that, or it and the sweep before, prove that nothing was
    /// missed. `take` deals with what was seen, and gives those whose end the proof is about. None:
    /// /proc could not be read whole.
    fn prove(
        &mut self,
        cx: &mut Cx<'_, K>,
        proof: &mut Proof,
        search: Search<'_>,
        take: impl FnOnce(&mut Self, &mut Cx<'_, K>, &Sweep) -> Vec<Pid>,
    ) -> Option<bool> {
        let before = cx.kernel.forks();
        let sweep = self.sweep(cx, search)?;
        let concerned = take(self, cx, &sweep);
        // Last: one that was seen alive and has died since may have left a child behind.
        let dead = sweep.zombies.iter().chain(&concerned);
        let is_new = self.has_new_zombie(cx, dead, &mut proof.zombies);
        if (sweep.vanished || is_new) && !mutant("ignore_vanished") {
            proof.last = None;
            return Some(false);
        }
        let forks = cx.kernel.forks();
        let quiet = before.is_some() && before == forks;
        let first = proof.last.replace(before);
        if quiet || mutant("one_pass") {
            return Some(true);
        }
        let Some(first) = first else { return Some(false) };
        // Numbers of dead leaders whose group or session lives are not free either: two for each
        // process at most.
        let held = 2 * sweep.listed as u64;
        Some(match (first, forks, cx.kernel.free_pids()) {
            (Some(first), Some(forks), Some(free)) => {
                forks.saturating_sub(first) < free.saturating_sub(held)
            }
            // Nobody counts: more can't be had.
            _ => true,
        })
    }

    /// Two sweeps, where no more is to be proved than that what was marked is dead. None: /proc
    /// could not be read whole.
    pub(super) fn sweep_twice(&mut self, cx: &mut Cx<'_, K>) -> Option<Vec<Sighting>> {
        let mut found = self.sweep(cx, Search::ALL)?.found;
        let seen: Vec<Pid> = found.iter().map(|sighting| sighting.pid).collect();
        let mut zombies = Vec::new();
        self.has_new_zombie(cx, seen.iter(), &mut zombies);
        found.extend(self.sweep(cx, Search::ALL)?.found);
        leave_out_zombies(cx, &mut found, &zombies);
        Some(found)
    }

    /// A zombie, marked or not to be read any more, may have been alive when it was listed, and
    /// have left a child behind that the listing had passed; one that was a zombie before the
    /// sweep has not.
    fn has_new_zombie<'a>(
        &self,
        cx: &mut Cx<'_, K>,
        seen: impl Iterator<Item = &'a Pid>,
        zombies: &mut Vec<Identity>,
    ) -> bool {
        let alive = self.leaders_alive(cx);
        let mut any = false;
        for pid in seen.filter(|pid| !alive.contains_key(pid)) {
            match zombie(cx, *pid) {
                Ok(None) => {}
                Ok(Some(zombie)) if zombies.iter().any(|known| known.is_same(&zombie)) => {}
                Ok(Some(zombie)) => {
                    zombies.push(zombie);
                    any = true;
                }
                Err(_) => any = true,
            }
        }
        any
    }
}

/// What was a zombie before the last sweep began has left no child that this sweep can't see, and
/// is nothing but a number that its parent has yet to wait for: some inits never do.
fn leave_out_zombies<K: Kernel>(
    cx: &mut Cx<'_, K>,
    found: &mut Vec<Sighting>,
    zombies: &[Identity],
) {
    if zombies.is_empty() {
        return;
    }
    found.retain(|sighting| {
        let zombie = zombie(cx, sighting.pid).ok().flatten();
        !zombie.is_some_and(|zombie| zombies.iter().any(|known| known.is_same(&zombie)))
    });
}

/// What is left of a process that died and that nobody has reaped; none if it lives.
fn zombie<K: Kernel>(cx: &mut Cx<'_, K>, pid: Pid) -> Result<Option<Identity>, Errno> {
    let pidfd = cx.kernel.pidfd_open(pid)?;
    if !cx.kernel.is_dead(&pidfd)? {
        return Ok(None);
    }
    Ok(Some(identity(cx.kernel, pid, &pidfd)))
}

impl<K: Kernel> Trees<K> {
    /// Whether nothing that is known to be of this tree lives, but for its leader.
    pub(super) fn are_members_dead(&mut self, cx: &mut Cx<'_, K>, id: Id) -> bool {
        let Some(tree) = self.live.get_mut(&id) else { return false };
        tree.members.retain(|_, member| {
            let dead = cx.kernel.is_dead(&member.pidfd).unwrap_or(false);
            if dead {
                cx.kernel.unwatch(&member.pidfd);
            }
            !dead
        });
        let mine = Owner::Tree(id, tree.generation);
        tree.members.is_empty() && !self.orphans.values().any(|orphan| orphan.owner == mine)
    }

    /// Whether something is left in the cgroup of an incarnation, if it has one, that no other
    /// witness has shown. It is of the tree, and a member from now on.
    pub(super) fn lives_in_leaf(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        facts: &mut Vec<Fact>,
    ) -> bool {
        let Some(tree) = self.get(id).filter(|tree| tree.keeps.is_none()) else { return false };
        let leaf = (id, tree.generation.0);
        let seen = cx.kernel.leaf_pids(leaf);
        if seen.is_empty() || seen.contains(&self.marks.own.pid) {
            return false;
        }
        let held = seen.into_iter().map(|pid| (pid, cx.kernel.pidfd_open(pid)));
        let mut held: BTreeMap<Pid, _> = held.collect();
        // What is there once more was there when it was held.
        let mut there = cx.kernel.leaf_pids(leaf);
        there.retain(|pid| {
            let limit = cx.kernel.locks_limit(*pid).ok();
            !self.marks.is_departed(cx.kernel, *pid, limit)
        });
        let Some(first) = there.first() else { return false };
        facts.push(Fact::Waits { id, why: format!("process {first} is in its cgroup still") });
        for pid in there {
            let Some(tree) = self.live.get_mut(&id) else { return false };
            let known = tree.members.get(&pid).map(|member| cx.kernel.is_dead(&member.pidfd));
            if known == Some(Ok(false)) {
                continue;
            }
            let mut is_watched = false;
            // Not held: of another PID namespace, or there since.
            if let Some(Ok(pidfd)) = held.remove(&pid) {
                is_watched = cx.kernel.watch(&pidfd, Wake::Member(pid)).is_ok();
                let member = Member { pidfd, certain: true, asked: false };
                if let Some(dead) = tree.members.insert(pid, member) {
                    cx.kernel.unwatch(&dead.pidfd);
                }
            }
            if !is_watched {
                self.look_again(cx.now + LOOK_AGAIN_MS);
            }
        }
        self.signal_rest(cx, id);
        true
    }

    /// Makes members of what a sweep has seen of this tree. Says whether it has seen any.
    pub(super) fn take_in_sightings(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        sweep: &Sweep,
        facts: &mut Vec<Fact>,
    ) -> bool {
        let namespace = self.namespace_of(cx, id);
        let Some(tree) = self.get(id) else { return true };
        let (generation, leader) = (tree.generation.0, tree.leader);
        // A leader that is lost has no session that could be told.
        let keep = tree.keeps.is_some() && leader.pid != 0;
        let numbers_hold = (keep || namespace.inode == 0) && is_number_ours(cx, leader);
        let (mut any, mut has_kept) = (false, false);
        for seen in &sweep.found {
            let near = numbers_hold && (seen.sid == leader.pid || seen.pgid == leader.pid);
            let certain = sweep.is_of(seen, generation, namespace);
            if keep && !near {
                has_kept |= certain;
                continue;
            }
            // Whoever is in our own time namespace is in none of theirs; what is in another may
            // have made it for itself.
            let undecided = namespace.inode == 0 || !seen.is_outside();
            if seen.mute && undecided && !certain {
                any = true;
                self.look_again(cx.now + self.search_pause);
                let why = format!("process {} may be of it, and does not answer", seen.pid);
                facts.push(Fact::Waits { id, why });
                continue;
            }
            if certain || !seen.is_marked() && near {
                any |= self.take_in_member(cx, id, sweep, seen, certain, facts);
            }
        }
        if has_kept && let Some(tree) = self.get_mut(id) {
            tree.keeps = Some(true);
        }
        any
    }

    fn take_in_member(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        sweep: &Sweep,
        seen: &Sighting,
        certain: bool,
        facts: &mut Vec<Fact>,
    ) -> bool {
        let pid = seen.pid;
        let pidfd = match cx.kernel.pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return false,
            Err(_) => {
                self.look_again(cx.now + LOOK_AGAIN_MS);
                return true;
            }
        };
        // What was read of the pid was read of this process only if it still shows the same.
        let trusted = !certain || mutant("trust_numbers");
        let still = if trusted { Ok(true) } else { self.is_member(cx, pid, id, sweep) };
        let alive = cx.kernel.is_dead(&pidfd).map(|dead| !dead);
        match still.and_then(|still| Ok(still && alive?)) {
            Ok(true) => {}
            Ok(false) => return false,
            // It can't be told who this is: then it is not gone.
            Err(_) => {
                self.look_again(cx.now + LOOK_AGAIN_MS);
                return true;
            }
        }
        if cx.kernel.watch(&pidfd, Wake::Member(pid)).is_err() {
            self.look_again(cx.now + LOOK_AGAIN_MS);
        }
        let Some(tree) = self.get_mut(id) else { return false };
        tree.members.insert(pid, Member { pidfd, certain, asked: false });
        if !certain {
            let why = format!("process {pid} of its old group or session still lives");
            facts.push(Fact::Waits { id, why });
        }
        self.signal_rest(cx, id);
        true
    }

    /// Whether the process of this pid, which the caller holds, is of that tree.
    pub(super) fn is_member(
        &mut self,
        cx: &mut Cx<'_, K>,
        pid: Pid,
        id: Id,
        sweep: &Sweep,
    ) -> Result<bool, Errno> {
        let namespace = self.namespace_of(cx, id);
        let generation = self.get(id).map_or(0, |tree| tree.generation.0);
        self.confirms(cx, pid, |cx, seen| match sweep.has_past_owner(cx, seen) {
            true => Err(Errno::AGAIN),
            false => Ok(sweep.is_of(seen, generation, namespace)),
        })
    }
}

/// Whether a dead leader's number can still name its group and session: not if another process has
/// it, for the kernel gives no number out that a group or session still uses. Nor if it is not
/// known: 0 is the session of whatever came into our PID namespace.
fn is_number_ours<K: Kernel>(cx: &mut Cx<'_, K>, leader: Identity) -> bool {
    if leader.pid == 0 {
        return false;
    }
    let Ok(pidfd) = cx.kernel.pidfd_open(leader.pid) else { return true };
    identity(cx.kernel, leader.pid, &pidfd).is_same(&leader)
}
