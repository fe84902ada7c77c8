//! The gate: nothing of a service starts before the kernel has confirmed that nothing of it lives.
//!
//! For a tree whose every orphan came to us (we forked its leader and are its subreaper) the
//! proof is our own list of children, read whole after the leader's death and before any reap:
//! each live descendant hangs off an orphan in that list, and only we take orphans off it. Then
//! the leader is reaped, and its group asked once more.
//!
//! What was put into another PID namespace is not in that list, and of an adopted tree orphans
//! went elsewhere: there [`super::proof`] asks the kernel whether the tree's time namespace is
//! empty, or looks for it and for marks.
use super::tree::{Birth, Cx, Fact, Kept, LOOK_AGAIN_MS, Owner, Trees};
use crate::mutant::mutant;
use crate::service::machine::Generation;
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Processes, Reach};

/// Incarnations that are remembered for what was let go of them.
const KEPT_MAX: usize = 256;

impl<K: Kernel> Trees<K> {
    pub(crate) fn check_gates(&mut self, cx: &mut Cx<'_, K>, facts: &mut Vec<Fact>) {
        let (mut searched, mut childless) = (Vec::new(), Vec::new());
        for id in self.gates.iter().copied().collect::<Vec<_>>() {
            self.let_go(cx, id);
            let Some(tree) = self.get(id) else {
                self.gates.remove(&id);
                continue;
            };
            if let Birth::Failed(stage, errno) = tree.birth {
                // A child that never exec'd has no tree: its own death is all to wait for.
                let ended = self.end_tree(cx, id);
                let failed = |generation| Fact::LaunchFailed { id, generation, stage, errno };
                facts.extend(ended.map(failed));
            } else if !tree.lineage {
                searched.push(id);
            } else if self.is_own_tree_empty(cx, id) {
                childless.push(id);
            }
        }
        // Only now: what none of a tree is left to do, none of it does.
        let mut others = None;
        let mut empty = Vec::new();
        for id in childless {
            // Below what was let go there may be what was forked before that left the session.
            let may_live = self.has_kept(id) || self.may_live_elsewhere(cx, id, &mut others);
            if may_live { searched.push(id) } else { empty.push(id) }
        }
        if !searched.is_empty() {
            empty.append(&mut self.confirm_by_search(cx, searched, facts));
        }
        for id in empty {
            if self.lives_in_leaf(cx, id, facts) {
                continue;
            }
            let ended = self.end_tree(cx, id);
            facts.extend(ended.map(|generation| Fact::Emptied { id, generation }));
        }
    }

    fn is_own_tree_empty(&mut self, cx: &mut Cx<'_, K>, id: Id) -> bool {
        let Some(tree) = self.get(id) else { return false };
        if mutant("leader_is_tree") {
            return true;
        }
        if !self.counted {
            return false;
        }
        let mine = Owner::Tree(id, tree.generation);
        let blocked = self.orphans.values().any(|orphan| match orphan.owner {
            Owner::Unknown => tree.may_have_forked(orphan.born) && !mutant("ignore_unknown"),
            owner => owner == mine,
        });
        if blocked {
            if self.orphans.values().any(|orphan| orphan.mute) {
                self.look_again(cx.now + self.search_pause);
            }
            return false;
        }
        // What was let go may never wait for what died in the group: then a search has to tell.
        self.reap_leader(cx, id) && (self.has_kept(id) || self.is_group_empty(cx, id))
    }

    /// Whether something of a tree may live where our list of children can't show it. What was
    /// put into another PID namespace (nsenter(1), `docker exec`) goes to the init of that one when
    /// its parent ends, not to us. `others`: whether there are other namespaces, once it is known.
    fn may_live_elsewhere(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        others: &mut Option<bool>,
    ) -> bool {
        if mutant("lineage_is_all") {
            return false;
        }
        let namespace = self.namespace_of(cx, id);
        let is_alive = cx.kernel.is_namespace_alive(namespace);
        is_alive.unwrap_or_else(|| {
            *others.get_or_insert_with(|| self.are_there_other_pid_namespaces(cx))
        })
    }

    /// Whether anything that we see is in a PID namespace below ours: without one nothing can be
    /// put into one. One that can't be looked at any more may have been.
    fn are_there_other_pid_namespaces(&self, cx: &mut Cx<'_, K>) -> bool {
        let mut all = Processes::default();
        while let Ok(next) = all.next(cx.kernel) {
            let Some(pid) = next else { return false };
            if self.leaders.contains_key(&pid) || self.orphans.contains_key(&pid) {
                continue;
            }
            match cx.kernel.pid_namespace(pid) {
                Ok(its) if its == self.marks.pid_namespace => {}
                // Of another user's, which can't be read, none of ours enters.
                Err(Errno::ACCESS | Errno::PERM) => {}
                Ok(_) | Err(_) => return true,
            }
        }
        true
    }

    /// The kernel's own word on the leader's process group, race-free: the pidfd names that very
    /// group, even if the number has a new owner. True where the kernel can't be asked.
    fn is_group_empty(&mut self, cx: &mut Cx<'_, K>, id: Id) -> bool {
        let pidfd = self.get(id).and_then(|tree| tree.pidfd.as_ref());
        let Some(pidfd) = pidfd.filter(|_| cx.kernel.features().pgroup_signal) else { return true };
        let empty = cx.kernel.signal(pidfd, 0, Reach::Group) == Err(Errno::SRCH);
        if !empty {
            // Zombies of somebody else's count as members until they are reaped; nobody tells us.
            self.look_again(cx.now + LOOK_AGAIN_MS);
        }
        empty
    }

    /// Whether something of an incarnation was let go.
    fn has_kept(&self, id: Id) -> bool {
        let Some((tree, has_kept)) = self.get(id).and_then(|tree| Some((tree, tree.keeps?))) else {
            return false;
        };
        let kept = Owner::Kept(id, tree.generation);
        has_kept || self.orphans.values().any(|orphan| orphan.owner == kept)
    }

    /// What was let go of an incarnation that ends now is known by it from now on.
    fn note_kept(&mut self, cx: &mut Cx<'_, K>, id: Id) {
        if !self.has_kept(id) {
            return;
        }
        let (namespace, generation) =
            (self.namespace_of(cx, id), self.get(id).map_or(0, |it| it.generation.0));
        self.kept.retain(|kept| cx.kernel.is_namespace_alive(kept.namespace()) != Some(false));
        self.kept.push(Kept { id, generation, namespace: [namespace.id, namespace.inode] });
        // The oldest is past, most likely.
        self.kept.drain(..self.kept.len().saturating_sub(KEPT_MAX));
    }

    /// Lets go of an incarnation of which nothing lives.
    fn end_tree(&mut self, cx: &mut Cx<'_, K>, id: Id) -> Option<Generation> {
        self.note_kept(cx, id);
        self.gates.remove(&id);
        let tree = self.live.remove(&id)?;
        if let Some(pidfd) = &tree.pidfd {
            if tree.child {
                // A failed launch: nothing reaped it yet. An error means that it is gone already.
                cx.kernel.wait(pidfd, true).ok();
            }
            cx.kernel.unwatch(pidfd);
        }
        let members = tree.members.values().map(|member| &member.pidfd);
        for pidfd in members.chain(tree.succession.main.as_ref().map(|main| &main.pidfd)) {
            cx.kernel.unwatch(pidfd);
        }
        if self.leaders.get(&tree.leader.pid) == Some(&id) {
            self.leaders.remove(&tree.leader.pid);
        }
        Some(tree.generation)
    }
}
