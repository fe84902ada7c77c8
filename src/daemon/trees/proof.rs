//! What proves that a tree whose orphans went elsewhere is empty.
//!
//! Passes over /proc ([`super::sweep`]) look for whatever is in the tree's time namespace or bears
//! its marks. Where the kernel has file handles of namespaces, it is asked, too: once that of the
//! tree is gone nobody is in it, and what is left to look for has made itself another one, and
//! bears a mark, or is on its way out: the kernel takes the namespace from a process before it
//! closes its files (exit_task_work() of do_exit()).
//!
//! # Why a pass can prove that a tree is empty
//!
//! /proc lists in the order of pids, and pids grow until they wrap around. A chain of forks
//! (each forks and exits: a comet) has at every instant a newest live member, whose pid only
//! grows; the listing can't get past that member without listing it. What was listed is then
//! either read, and its mark seen, or it vanished before or became a zombie, and the pass proves
//! nothing. A wrap around can break one pass; two in a row would need two of them, and from one
//! to the next every free pid is given out. So two clean passes are enough if less was forked
//! during them than there are free pids, and one is if nothing was.
use super::drain::LOOK_AGAIN_MS;
use super::sweep::{Pass, Search, Sighting};
use crate::daemon::Daemon;
use crate::daemon::vecmap::{VecMap, VecSet};
use crate::mutant::mutant;
use crate::process::{Identity, Pid};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, identity};

/// Passes of one turn. On a machine that forks all the time each may meet one that vanishes.
const PASSES_MAX: u32 = 8;
/// The longest pause between turns of passes that proved nothing; the first is [`LOOK_AGAIN_MS`].
const SEARCH_PAUSE_MAX_MS: u64 = 5_000;

/// The passes so far, towards a proof.
#[derive(Debug, Default)]
struct Proof {
    /// How much had been forked before the last pass, if that was clean.
    last: Option<Option<u64>>,
}

impl<K: Kernel> Daemon<K> {
    /// Of draining trees that can have members which are no descendants of our children, those that
    /// are confirmed empty.
    pub(crate) fn confirm_by_search(&mut self, ids: Vec<Id>) -> Vec<Id> {
        let mut empty = Vec::new();
        let mut gone = true;
        for id in ids {
            if self.are_members_dead(id) {
                let namespace = self.namespace_of(id);
                // Held open by somebody, it is there with nothing in it.
                gone &= self.kernel.is_namespace_alive(namespace) == Some(false);
                empty.push(id);
            }
        }
        let waiting = empty.clone();
        if self.pass_until_clean(&mut empty, gone) {
            self.trees.search_pause = LOOK_AGAIN_MS;
        } else {
            self.search_later(&waiting);
            empty.clear();
        }
        // Not the group's own word: zombies of somebody else's count as members there until they
        // are reaped (1.3 s late by some inits), and the passes have seen that none of it lives.
        empty.retain(|id| self.reap_leader(*id));
        empty
    }

    /// Passes proved nothing: again later, and later each time.
    fn search_later(&mut self, ids: &[Id]) {
        self.trees.look_again_at.get_or_insert(self.now + self.trees.search_pause);
        self.trees.search_pause = (self.trees.search_pause * 2).min(SEARCH_PAUSE_MAX_MS);
        for id in ids {
            if let Some(service) = self.services.get_mut(*id) {
                let why = "waits for a look at /proc that proves its end: processes of others \
                           come and go";
                service.note = Some(why.into());
            }
        }
    }

    /// Passes until what is left of `ready` is proved to be empty, or too many proved nothing.
    /// `gone`: nothing is left in their time namespaces.
    fn pass_until_clean(&mut self, ready: &mut Vec<Id>, gone: bool) -> bool {
        let mut proof = Proof::default();
        let mut zombies: Vec<Identity> = Vec::new();
        for _ in 0..PASSES_MAX {
            if ready.is_empty() {
                return true;
            }
            let forks = self.kernel.forks();
            let (mut numbers, mut marks) = (Vec::new(), false);
            for id in ready.iter() {
                if self.namespace_of(*id).inode != 0 {
                    continue;
                }
                marks = true;
                let run = self.run(*id);
                // Not of a lost leader, whose number nobody knows; 0 is a session of others.
                numbers.extend(run.map(|run| run.leader.pid).filter(|pid| *pid != 0));
            }
            let Some(mut pass) = self.sightings(Search { numbers: &numbers, marks, gone }) else {
                return false;
            };
            let mut waiting = Vec::new();
            for id in ready.iter() {
                let run = self.run(*id);
                let Some(generation) = run.map(|run| run.generation.0) else { continue };
                waiting.push((generation, self.namespace_of(*id)));
            }
            ready.retain(|id| !self.take_in_sightings(*id, &pass));
            let is_waited_for =
                |seen: &&Sighting| waiting.iter().any(|(g, n)| pass.is_of(seen, *g, *n));
            let seen: Vec<Pid> = pass.found.iter().filter(is_waited_for).map(|s| s.pid).collect();
            let dead = pass.corpses.iter().chain(&seen);
            pass.vanished |= self.has_new_zombie(dead, &mut zombies);
            if self.proves(&mut proof, &pass, forks) {
                return true;
            }
        }
        false
    }

    /// All that bears a mark of ours and lives, of passes until one is clean; and whether one
    /// was.
    pub(crate) fn search(&mut self) -> (Vec<Sighting>, bool, VecSet<Pid>) {
        let mut found: VecMap<Pid, Sighting> = VecMap::new();
        let mut zombies: Vec<Identity> = Vec::new();
        let mut proof = Proof::default();
        let mut whole = false;
        let mut forged = VecSet::new();
        for _ in 0..PASSES_MAX {
            let forks = self.kernel.forks();
            let Some(mut pass) = self.sightings(Search::ALL) else {
                proof = Proof::default();
                continue;
            };
            let seen: Vec<Pid> = pass.found.iter().map(|sighting| sighting.pid).collect();
            let dead = pass.corpses.iter().chain(&seen);
            pass.vanished |= self.has_new_zombie(dead, &mut zombies);
            for sighting in &pass.found {
                found.insert(sighting.pid, *sighting);
            }
            for pid in &pass.forged {
                forged.insert(*pid);
            }
            whole = self.proves(&mut proof, &pass, forks);
            if whole {
                break;
            }
        }
        let mut found: Vec<Sighting> = found.values().copied().collect();
        if whole {
            self.leave_out_zombies(&mut found, &zombies);
        }
        (found, whole, forged)
    }

    /// Whether this pass, or it and the one before, prove that nothing was missed. `before`: what
    /// had been forked when it began.
    fn proves(&mut self, proof: &mut Proof, pass: &Pass, before: Option<u64>) -> bool {
        if pass.vanished && !mutant("ignore_vanished") {
            proof.last = None;
            return false;
        }
        let forks = self.kernel.forks();
        let quiet = before.is_some() && before == forks;
        let first = proof.last.replace(before);
        if quiet || mutant("one_pass") {
            return true;
        }
        let Some(first) = first else { return false };
        // Numbers of dead leaders whose group or session lives are not free either: two for each
        // process at most.
        let held = 2 * pass.listed as u64;
        match (first, forks, self.kernel.free_pids()) {
            (Some(first), Some(forks), Some(free)) => {
                forks.saturating_sub(first) < free.saturating_sub(held)
            }
            // Nobody counts: more can't be had.
            _ => true,
        }
    }

    /// Two passes, where no more is to be proved than that what was marked is dead. None: /proc
    /// could not be read whole.
    pub(crate) fn two_passes(&mut self) -> Option<Vec<Sighting>> {
        let mut found = self.sightings(Search::ALL)?.found;
        let seen: Vec<Pid> = found.iter().map(|sighting| sighting.pid).collect();
        let mut zombies = Vec::new();
        self.has_new_zombie(seen.iter(), &mut zombies);
        found.extend(self.sightings(Search::ALL)?.found);
        self.leave_out_zombies(&mut found, &zombies);
        Some(found)
    }

    /// What was a zombie before the last pass began has left no child that this pass can't see,
    /// and is nothing but a number that its parent has yet to wait for: some inits never do.
    fn leave_out_zombies(&mut self, found: &mut Vec<Sighting>, zombies: &[Identity]) {
        if zombies.is_empty() {
            return;
        }
        found.retain(|sighting| {
            let zombie = self.zombie(sighting.pid).ok().flatten();
            !zombie.is_some_and(|zombie| zombies.iter().any(|known| known.is_same(&zombie)))
        });
    }

    /// A zombie, marked or not to be read any more, may have been alive when it was listed, and
    /// have left a child behind that the listing had passed; one that was a zombie before the
    /// pass has not.
    fn has_new_zombie<'a>(
        &mut self,
        seen: impl Iterator<Item = &'a Pid>,
        zombies: &mut Vec<Identity>,
    ) -> bool {
        let alive = self.leaders_alive();
        let mut any = false;
        for pid in seen.filter(|pid| !alive.contains_key(pid)) {
            match self.zombie(*pid) {
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

    /// Generation and time namespace of each leader that lives, by the pidfds that we hold anyway.
    pub(crate) fn leaders_alive(&mut self) -> VecMap<Pid, (u64, u64)> {
        let mut alive = VecMap::new();
        let runs = self.services.iter();
        for run in runs.filter_map(|service| service.run.as_ref()) {
            let lives = |pidfd| self.kernel.is_dead(pidfd) == Ok(false);
            if run.pidfd.as_ref().is_some_and(lives) {
                let namespace = run.namespace.map_or(0, |namespace| namespace.inode);
                alive.insert(run.leader.pid, (run.generation.0, namespace));
            }
        }
        alive
    }

    /// What is left of a process that died and that nobody has reaped; none if it lives.
    fn zombie(&mut self, pid: Pid) -> Result<Option<Identity>, Errno> {
        let pidfd = self.kernel.pidfd_open(pid)?;
        if !self.kernel.is_dead(&pidfd)? {
            return Ok(None);
        }
        Ok(Some(identity(&mut self.kernel, pid, &pidfd)))
    }
}
