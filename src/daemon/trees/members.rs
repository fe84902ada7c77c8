//! Members of draining trees that are not our children: what a sweep has found.
use super::sweep::{Sighting, Sweep};
use super::tree::{Cx, Fact, LOOK_AGAIN_MS, Member, Owner, Trees};
use crate::mutant::mutant;
use crate::process::{Identity, Pid};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Wake, identity};

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
    fn is_member(
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
