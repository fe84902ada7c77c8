//! The law: nothing of a service starts before the kernel has confirmed that nothing of it lives.
//!
//! [`Trees`] turns wake-ups into [`Fact`]s, and orders into spawns and signals. It alone touches
//! pids; it knows no request, no event, no policy and no monitor. Every wake-up is a hint: whoever
//! handles it looks for itself.
//!
//! A file calls none but those that follow it here: drain, unrecorded, lead, proof, sweep,
//! launch, reap, owner, signal, marks, tree.
mod drain;
mod launch;
mod lead;
mod marks;
mod owner;
mod proof;
mod reap;
mod signal;
mod sweep;
mod tree;
mod unrecorded;

pub(crate) use marks::{Departed, Marks};
pub(crate) use tree::{Cx, Fact, Kept, Kill, LOOK_AGAIN_MS, Tree, Trees, Ways};
pub(crate) use unrecorded::{Loss, Lost};

use crate::mutant::mutant;
use crate::process::journal_format::DEPARTED_MAX;
use crate::process::{Exit, Identity, Namespace, Pid};
use crate::service::machine::{Generation, Time};
use crate::service::spec::{Id, StopReach};
use crate::sys::{Errno, Kernel, Reach, Wake, identity};
use signal::Aim;
use std::collections::BTreeSet;
use tree::{Birth, Owner, Stop};

impl<K: Kernel> Trees<K> {
    /// What the wake-ups hint at, looked at for ourselves. `child_signal`: SIGCHLD came.
    pub(crate) fn gather(
        &mut self,
        cx: &mut Cx<'_, K>,
        wakes: &[Wake],
        child_signal: bool,
        facts: &mut Vec<Fact>,
    ) {
        self.counted = false;
        let mut leaders: BTreeSet<Id> = BTreeSet::default();
        let mut changed = child_signal;
        for wake in wakes {
            match *wake {
                Wake::Launch(id) => self.check_launch(cx, id, false, facts),
                Wake::Leader(_) if mutant("drop_wake") => {}
                Wake::Leader(id) => drop(leaders.insert(id)),
                Wake::Member(pid) => {
                    self.dead_orphans.push(pid);
                    changed = true;
                }
            }
        }
        if child_signal {
            leaders.append(&mut self.traced);
            let unwatched = self.orphans.iter().filter(|(_, orphan)| !orphan.watched);
            self.dead_orphans.extend(unwatched.map(|(pid, _)| *pid));
        }
        if self.look_again_at.is_some_and(|at| at <= cx.now) {
            self.look_again_at = None;
            self.ask_orphans(cx, |orphan| orphan.mute);
            leaders.append(&mut self.traced);
            for id in std::mem::take(&mut self.unwatched) {
                self.watch(cx, id);
                self.check_launch(cx, id, false, facts);
                leaders.insert(id);
            }
            changed = true;
        }
        self.look_at_leaders(cx, leaders, changed, facts);
        self.walk(cx);
        let probed = self.probed.drain(..);
        facts.extend(probed.map(|(pid, exit)| Fact::Probed { pid, exit }));
    }

    /// What lives of what earlier daemons started is watched, and the dead are dead: their trees
    /// must drain like any other. Gives those whose leader lives.
    pub(crate) fn adopt(&mut self, cx: &mut Cx<'_, K>, facts: &mut Vec<Fact>) {
        // All of them before our children are counted: none is an orphan.
        let ours = self.live.iter().filter(|(_, tree)| tree.child);
        self.leaders = ours.map(|(id, tree)| (tree.leader.pid, *id)).collect();
        let mut all = BTreeSet::default();
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            self.watch(cx, id);
            all.insert(id);
        }
        self.look_at_leaders(cx, all, true, facts);
    }

    /// Counts our children once, after all deaths, and before any of them is reaped.
    fn look_at_leaders(
        &mut self,
        cx: &mut Cx<'_, K>,
        ids: BTreeSet<Id>,
        changed: bool,
        facts: &mut Vec<Fact>,
    ) {
        let mut dead = Vec::new();
        for id in ids {
            let exit = self.look_at_lead(cx, id, facts);
            dead.extend(exit.map(|exit| (id, exit)));
        }
        if changed || !dead.is_empty() {
            self.count_children(cx);
        }
        for (id, exit) in dead {
            self.leader_exited(cx, id, exit, facts);
        }
        self.check_gates(cx, facts);
    }

    fn leader_exited(&mut self, cx: &mut Cx<'_, K>, id: Id, exit: Exit, facts: &mut Vec<Fact>) {
        self.check_launch(cx, id, true, facts);
        let Some(tree) = self.get_mut(id).filter(|tree| tree.exit.is_none()) else { return };
        tree.exit = Some(exit);
        let walk_at = tree.stop.as_ref().and_then(|stop| stop.walk_at);
        if !matches!(tree.birth, Birth::Failed(..)) {
            let asked = tree.stop.as_ref().is_some_and(|stop| stop.signal == libc::SIGKILL);
            let by_opm = (tree.kills > 0 || asked) && exit == Exit::Signal(libc::SIGKILL);
            let (generation, pid) = (tree.generation, tree.lead().0.pid);
            let lived = cx.now.saturating_sub(tree.since);
            facts.push(Fact::Exited { id, generation, pid, exit, by_opm, lived });
            // It was stopping already: what is left has not been asked yet.
            self.signal_rest(cx, id);
        }
        if let Some(at) = walk_at {
            self.unwalked.remove(&(at, id));
        }
        self.gates.insert(id);
    }

    /// When something has to be looked at.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let walk_at = self.unwalked.first().map(|(at, _)| *at);
        self.look_again_at.into_iter().chain(walk_at).min()
    }

    /// Wake-ups were lost: everything is looked at in the next turn.
    pub(crate) fn look_at_all(&mut self, now: Time) {
        for id in self.live.keys() {
            self.unwatched.insert(*id);
        }
        self.dead_orphans.extend(self.orphans.keys().copied());
        self.look_again(now);
    }

    /// A tree without a leader that we could hold: it has to drain.
    pub(crate) fn drain(&mut self, id: Id, tree: Tree<K>) {
        self.insert(id, Tree { exit: Some(Exit::Unknown), ..tree });
        self.gates.insert(id);
    }

    /// The stop signal for the whole incarnation, or for its leader first. Whoever turns up later
    /// gets it, too.
    pub(crate) fn end(&mut self, cx: &mut Cx<'_, K>, id: Id, signal: i32, reach: StopReach) {
        self.count_silent(cx);
        self.let_go(cx, id);
        let now = cx.now;
        let Some(tree) = self.get_mut(id) else { return };
        let stop =
            Stop { at: now, signal, reach, group: None, walk_at: None, seen: BTreeSet::default() };
        tree.stop.get_or_insert(Box::new(stop));
        if tree.exit.is_none() {
            self.signal_living(cx, id, signal, Aim::Stop);
        }
        self.signal_rest(cx, id);
    }

    /// SIGKILL for all of it. Gives what did not end in time, the first time.
    pub(crate) fn kill(&mut self, cx: &mut Cx<'_, K>, id: Id) -> Option<Kill> {
        self.let_go(cx, id);
        let now = cx.now;
        let tree = self.get_mut(id)?;
        tree.kills += 1;
        let leader = tree.exit.is_none();
        let after = tree.stop.as_ref().map_or(0, |stop| now.saturating_sub(stop.at));
        let kill = Kill { generation: tree.generation, after, leader };
        let is_first = tree.kills == 1;
        self.kill_living(cx, id);
        if !leader {
            // Where no event comes (somebody else's zombie, a lost edge), the round itself looks.
            self.look_again(now);
        }
        is_first.then_some(kill)
    }

    /// A signal of an operator's for who leads it, or for all that is seen of its tree. Errors: it
    /// does not run (ESRCH), or what pidfd_send_signal(2) says.
    pub(crate) fn signal(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        signal: i32,
        tree: bool,
    ) -> Result<(), Errno> {
        let living = self.get(id).filter(|tree| tree.exit.is_none());
        let pidfd = living.and_then(|tree| tree.lead().1).ok_or(Errno::SRCH)?;
        if !tree {
            return cx.kernel.signal(pidfd, signal, Reach::Process);
        }
        self.count_silent(cx);
        self.signal_living(cx, id, signal, Aim::Operator);
        Ok(())
    }

    /// An orphan that still lives comes to us in silence.
    fn count_silent(&mut self, cx: &mut Cx<'_, K>) {
        if !self.counted {
            self.count_children(cx);
        }
    }

    /// SIGKILL for all our children that are no leaders.
    pub(crate) fn kill_orphans(&self, cx: &mut Cx<'_, K>) {
        for orphan in self.orphans.values() {
            // Gone already, at worst.
            cx.kernel.signal(&orphan.pidfd, libc::SIGKILL, Reach::Process).ok();
        }
    }

    /// Asks those of our children to end that no service owns. They arrive silently, so this looks
    /// for itself.
    pub(crate) fn dismiss_orphans(&mut self, cx: &mut Cx<'_, K>) {
        self.count_children(cx);
        self.ask_ownerless(cx);
    }

    /// A daemon that was started from inside one of our services, and left it on purpose. Gives the
    /// homes of all that left, if that is news. A leader is its service, whatever it says.
    pub(crate) fn note_departure(
        &mut self,
        cx: &mut Cx<'_, K>,
        pid: Pid,
        home_key: Option<u64>,
    ) -> Option<[u64; DEPARTED_MAX]> {
        if self.leaders.contains_key(&pid) {
            return None;
        }
        let identity = marks::identity_of(cx.kernel, pid)?;
        let orphans = &self.orphans;
        self.marks.departed.daemons.retain(|known| orphans.contains_key(&known.pid));
        self.marks.departed.daemons.push(identity);
        let news = home_key.and_then(|key| self.marks.note_home(key));
        self.ask_orphans(cx, |orphan| orphan.owner != Owner::Foreign);
        news
    }

    /// Whether this is a leader of ours.
    pub(crate) fn is_leader(&self, pid: Pid) -> bool {
        self.leaders.contains_key(&pid)
    }

    /// Whether the end of its leader is still a tracer's to tell.
    pub(crate) fn is_traced(&self, id: Id) -> bool {
        self.traced.contains(&id)
    }

    /// How many children we have that are no leaders.
    pub(crate) fn count_orphans(&self) -> usize {
        self.orphans.len()
    }

    /// Children of which nobody can say whose they are.
    pub(crate) fn unknown_orphans(&self) -> impl Iterator<Item = Pid> {
        let unknown = self.orphans.iter().filter(|(_, orphan)| orphan.owner == Owner::Unknown);
        unknown.map(|(pid, _)| *pid)
    }

    /// Who leads a tree that lives, with what can still be read of it.
    pub(crate) fn identity(&mut self, cx: &mut Cx<'_, K>, id: Id) -> Option<Identity> {
        let tree = self.get_mut(id).filter(|tree| tree.exit.is_none())?;
        if let Some(main) = &tree.succession.main {
            return Some(main.who);
        }
        let pidfd = tree.pidfd.as_ref()?;
        let leader = tree.leader;
        let known = |number: u64| number != 0;
        if !known(leader.inode) || !known(leader.start_time) {
            let seen = identity(cx.kernel, leader.pid, pidfd);
            tree.leader.inode = if known(leader.inode) { leader.inode } else { seen.inode };
            // Read of the right process only if that still lives.
            if !known(leader.start_time) && cx.kernel.is_dead(pidfd) == Ok(false) {
                tree.leader.start_time = seen.start_time;
            }
        }
        Some(tree.leader)
    }

    /// Children that have not exec'd yet and did not sign in this journal: who they are, and their
    /// time namespace.
    pub(crate) fn launching(
        &self,
        cx: &mut Cx<'_, K>,
    ) -> Vec<(Id, Generation, Identity, Namespace)> {
        let own = self.marks.own_namespace;
        let mut found = Vec::new();
        for (id, tree) in self.iter().filter(|(_, tree)| matches!(tree.birth, Birth::Launched(_))) {
            let Some(pidfd) = &tree.pidfd else { continue };
            if cx.signature(id).is_some_and(|signed| signed.generation == tree.generation.0) {
                continue;
            }
            let leader = identity(cx.kernel, tree.leader.pid, pidfd);
            let inode =
                if own == 0 { 0 } else { cx.kernel.time_namespace(leader.pid).unwrap_or(0) };
            let namespace = Namespace { id: 0, inode: if inode == own { 0 } else { inode } };
            found.push((id, tree.generation, leader, namespace));
        }
        found
    }
}
