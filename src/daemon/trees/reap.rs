//! Our own children: leaders that have exited, and orphans that came to us.
//!
//! The list of our children is read whole after a death and before any reap. A dead orphan may have
//! left its own children to us after the list was read, so that after each reap the list is read
//! again.
use super::owner::Attribution;
use super::tree::{Cx, LOOK_AGAIN_MS, Orphan, Owner, Trees};
use crate::mutant::mutant;
use crate::process::{Exit, Pid};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Wake};

/// Times that the list of children is read in one turn while orphans keep dying.
const COUNTS_MAX: usize = 16;

impl<K: Kernel> Trees<K> {
    /// Reads our own children, takes in what is new, reaps what is dead, until nothing changes.
    pub(super) fn count_children(&mut self, cx: &mut Cx<'_, K>) {
        for _ in 0..COUNTS_MAX {
            let mut changed = self.reap_dead_orphans(cx);
            let mut list = Vec::new();
            let mut whole = self.list_children(cx, &mut list).is_ok();
            for pid in list {
                if self.leaders.contains_key(&pid) || self.orphans.contains_key(&pid) {
                    continue;
                }
                match self.take_in(cx, pid) {
                    Ok(alive) => changed |= !alive,
                    Err(_) => whole = false,
                }
            }
            if !whole {
                return self.look_again(cx.now + LOOK_AGAIN_MS);
            }
            if !changed || mutant("count_once") {
                self.counted = true;
                return;
            }
        }
        // They die faster than we count: let others have a turn.
        self.look_again(cx.now);
    }

    /// Our children: all that we don't know yet, and any that we do.
    ///
    /// All that we know are in the kernel's list, which has newcomers at its end. So its end tells
    /// how long it is, and if it is no longer than they are many, nobody else is in it.
    fn list_children(&mut self, cx: &mut Cx<'_, K>, list: &mut Vec<Pid>) -> Result<(), Errno> {
        let known = self.leaders.len() + self.orphans.len();
        let place = cx.kernel.own_children(known, list)?;
        if place == 0 || place + list.len() == known || mutant("believe_the_tail") {
            return Ok(());
        }
        list.clear();
        cx.kernel.own_children(0, list).map(drop)
    }

    fn reap_dead_orphans(&mut self, cx: &mut Cx<'_, K>) -> bool {
        let mut any = false;
        for pid in std::mem::take(&mut self.dead_orphans) {
            let Some(orphan) = self.orphans.get(&pid) else { continue };
            if cx.kernel.is_dead(&orphan.pidfd).unwrap_or(false) {
                // None: traced. It stays, and SIGCHLD brings us here again.
                let ended = cx.kernel.wait(&orphan.pidfd, true);
                if ended == Ok(None) {
                    self.dead_orphans.push(pid);
                    continue;
                }
                let ended = ended.ok().flatten();
                if orphan.is_probe {
                    self.probed.push((pid, ended.unwrap_or(Exit::Unknown)));
                }
                if let Owner::Tree(id, _) = orphan.owner
                    && let Some(main) =
                        self.live.get_mut(&id).and_then(|it| it.succession.main.as_mut())
                    && main.who.pid == pid
                {
                    main.exit = ended;
                }
                cx.kernel.unwatch(&orphan.pidfd);
                self.orphans.remove(&pid);
                any = true;
            }
        }
        any
    }

    /// A child that we did not start: reaped if dead (false), else attributed and watched.
    fn take_in(&mut self, cx: &mut Cx<'_, K>, pid: Pid) -> Result<bool, Errno> {
        let (pidfd, watched) = self.hold(cx, pid)?;
        if cx.kernel.is_dead(&pidfd)? && cx.kernel.wait(&pidfd, true)?.is_some() {
            return Ok(false);
        }
        let Attribution { mut owner, born, mute } = self.owner_of(cx, pid)?;
        if cx.kernel.is_dead(&pidfd)? {
            // Its environment may have been read as it died; and what it left behind came to us
            // after the list was read.
            if cx.kernel.wait(&pidfd, true)?.is_some() {
                return Ok(false);
            }
            owner = Owner::Unknown;
        }
        if watched {
            cx.kernel.watch(&pidfd, Wake::Member(pid))?;
        }
        if mutant("forget_escapees") {
            return Ok(true);
        }
        let (asked, is_probe) = (false, false);
        self.orphans.insert(pid, Orphan { watched, pidfd, owner, born, mute, asked, is_probe });
        self.meet(cx, owner);
        Ok(true)
    }

    /// Holds a child that we did not start, and says whether it is to be watched: not one of very
    /// many, or that there is no descriptor for. A service that leaves thousands behind must not
    /// take from the others what they need.
    fn hold(&self, cx: &mut Cx<'_, K>, pid: Pid) -> Result<(K::Pidfd, bool), Errno> {
        if self.orphans.len() >= self.orphans_watched_max {
            return Ok((cx.kernel.child(pid), false));
        }
        match cx.kernel.pidfd_open(pid) {
            Ok(pidfd) => Ok((pidfd, true)),
            Err(Errno::MFILE | Errno::NFILE) => Ok((cx.kernel.child(pid), false)),
            Err(errno) => Err(errno),
        }
    }

    /// Somebody turned up: if its tree is to go, it is told.
    fn meet(&mut self, cx: &mut Cx<'_, K>, owner: Owner) {
        if let Owner::Tree(id, _) = owner {
            self.signal_rest(cx, id);
        }
    }

    /// Of an incarnation that keeps what escapes, what came to us before it left the session.
    pub(super) fn let_go(&mut self, cx: &mut Cx<'_, K>, id: Id) {
        if let Some(tree) = self.get(id).filter(|tree| tree.keeps.is_some()) {
            let mine = Owner::Tree(id, tree.generation);
            self.ask_orphans(cx, |orphan| orphan.owner == mine && !orphan.is_probe);
        }
    }

    /// Looks anew whose these are.
    pub(super) fn ask_orphans(
        &mut self,
        cx: &mut Cx<'_, K>,
        is_asked: impl Fn(&Orphan<K>) -> bool,
    ) {
        let asked = self.orphans.iter().filter(|(_, orphan)| is_asked(orphan));
        for pid in asked.map(|(pid, _)| *pid).collect::<Vec<_>>() {
            let Ok(found) = self.owner_of(cx, pid) else { continue };
            if let Some(orphan) = self.orphans.get_mut(&pid) {
                (orphan.owner, orphan.mute) = (found.owner, found.mute);
            }
            self.meet(cx, found.owner);
        }
    }

    /// Whether a leader has really exited, and how. None: not yet, or not to be known yet.
    pub(super) fn look_at_leader(&mut self, cx: &mut Cx<'_, K>, id: Id) -> Option<Exit> {
        let tree = self.live.get_mut(&id).filter(|tree| tree.exit.is_none())?;
        let Some(pidfd) = &tree.pidfd else { return Some(Exit::Unknown) };
        if !tree.child {
            let dead = cx.kernel.is_dead(pidfd).unwrap_or(false);
            return dead.then(|| cx.kernel.exit_of_stranger(pidfd, tree.leader.pid));
        }
        match cx.kernel.wait(pidfd, false) {
            Ok(Some(exit)) => Some(exit),
            // Alive; or traced: then the status is the tracer's until it lets go, and mio's edge
            // is spent.
            Ok(None) => {
                if cx.kernel.is_dead(pidfd).unwrap_or(false) {
                    self.traced.insert(id);
                }
                None
            }
            Err(_) => {
                tree.child = false;
                self.leaders.remove(&tree.leader.pid);
                Some(cx.kernel.exit_of_stranger(pidfd, tree.leader.pid))
            }
        }
    }

    /// Whether a dead leader is reaped as far as that is ours to do: it may be our child, by our
    /// fork or after an upgrade, or after a crash somebody else's. False while it is traced.
    pub(super) fn reap_leader(&mut self, cx: &mut Cx<'_, K>, id: Id) -> bool {
        let Some(tree) = self.live.get_mut(&id) else { return false };
        if !tree.child {
            return true;
        }
        let reaped =
            tree.pidfd.as_ref().is_none_or(|pidfd| cx.kernel.wait(pidfd, true) != Ok(None));
        if reaped {
            tree.child = false;
            self.leaders.remove(&tree.leader.pid);
        }
        reaped
    }
}
