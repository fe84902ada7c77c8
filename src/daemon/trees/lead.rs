//! Who leads a tree: its leader, or what the tree has named in its place.
//!
//! A server that replaces itself (USR2 of nginx or gunicorn) has its new master go on when the old
//! one ends. Such a main process was named by its own tree, by `MAINPID=` or a PID file, and bears
//! all that tells a member. It decides no more than when the service counts as dead: the drain is
//! about the leader's tree, as ever.
use super::sweep::Sweep;
use super::tree::{Birth, Cx, Fact, Main, Trees};
use crate::mutant::mutant;
use crate::process::{Exit, Pid};
use crate::service::spec::Id;
use crate::sys::{Kernel, identity};

/// How long after a leader that has put its service into the background its PID file is waited for.
const PID_FILE_MS: u64 = 2_000;

impl<K: Kernel> Trees<K> {
    /// How who led a tree has ended, once nobody leads it any more.
    pub(super) fn look_at_lead(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        facts: &mut Vec<Fact>,
    ) -> Option<Exit> {
        let leader = self.look_at_leader(cx, id);
        let is_dead = leader.is_some();
        let main = self.get(id)?.succession.main.is_some().then(|| self.look_at_main(cx, id));
        match (leader, main) {
            (None, None | Some(None)) => None,
            (Some(_), Some(None)) => {
                self.leader_left(cx, id);
                None
            }
            (None, Some(Some(_))) if !mutant("main_is_all") => {
                self.replace_main(cx, id, None);
                let who = self.get(id)?.leader;
                facts.push(Fact::Led { id, who, is_leader: true });
                None
            }
            (exit, None) | (_, Some(exit)) => {
                self.check_launch(cx, id, is_dead, facts);
                exit.filter(|exit| !self.has_successor(cx, id, *exit, facts))
            }
        }
    }

    fn look_at_main(&mut self, cx: &mut Cx<'_, K>, id: Id) -> Option<Exit> {
        let main = self.get(id)?.succession.main.as_ref()?;
        let (pidfd, pid) = (&main.pidfd, main.who.pid);
        if main.exit.is_some() || !cx.kernel.is_dead(pidfd).unwrap_or(false) {
            return main.exit;
        }
        match cx.kernel.wait(pidfd, false) {
            Ok(None) => {
                self.traced.insert(id);
                None
            }
            Ok(exit) => exit,
            Err(_) => Some(cx.kernel.exit_of_stranger(pidfd, pid)),
        }
    }

    /// The leader has ended, and somebody else leads. It is our child no more.
    fn leader_left(&mut self, cx: &mut Cx<'_, K>, id: Id) {
        let is_reaped = self.reap_leader(cx, id);
        if let Some(main) = self.get_mut(id).and_then(|tree| tree.succession.main.as_mut()) {
            main.is_alone |= is_reaped;
        }
    }

    /// Nobody leads any more: whether its PID file names one of the tree that lives, or may still
    /// do so, for one that has put itself into the background. Not of one that is to end.
    fn has_successor(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        exit: Exit,
        facts: &mut Vec<Fact>,
    ) -> bool {
        let Some(tree) = self.get(id) else { return false };
        let runs = matches!(tree.birth, Birth::Done) && tree.stop.is_none();
        let Some(path) = tree.succession.pid_file.clone().filter(|_| runs) else { return false };
        let (old, leader) = (tree.lead().0.pid, tree.leader.pid);
        match cx.kernel.pid_in(&path).map(|pid| (pid, self.lead_by(cx, id, pid))) {
            Some((_, Ok(fact))) => {
                facts.push(fact);
                self.leader_left(cx, id);
                return true;
            }
            Some((pid, Err(why))) if ![old, leader].contains(&pid) => {
                cx.log.push(format!("{path}: pid {pid}: {why}"));
            }
            Some(_) | None => {}
        }
        if !self.counted {
            self.count_children(cx);
        }
        let lives = !self.known(id, |_| true).is_empty();
        let Some(tree) = self.get_mut(id).filter(|_| lives && exit == Exit::Code(0)) else {
            return false;
        };
        let since = *tree.succession.left_at.get_or_insert(cx.now);
        let waits = cx.now < since + PID_FILE_MS;
        if waits {
            self.look_later(cx, id);
        }
        waits
    }

    /// Has a live process of a tree lead it from now on. Errors: why it can't.
    pub(crate) fn lead_by(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        pid: Pid,
    ) -> Result<Fact, &'static str> {
        // First the handle: what lives in the end was the same all the time.
        let pidfd = cx.kernel.pidfd_open(pid).map_err(|_| "there is no such process")?;
        let sweep = Sweep { owners: self.namespace_owners(cx), ..Sweep::default() };
        let is_member = mutant("believe_main") || self.is_member(cx, pid, id, &sweep) == Ok(true);
        let who = identity(cx.kernel, pid, &pidfd);
        if cx.kernel.is_dead(&pidfd) != Ok(false) {
            return Err("it does not live");
        }
        let stat = cx.kernel.stat(pid).map_err(|_| "it does not live")?;
        let tree = self.get(id).filter(|tree| tree.exit.is_none() && is_member);
        let tree = tree.ok_or("it is no process of the service")?;
        if tree.keeps.is_some() && ![stat.sid, stat.pgid].contains(&tree.leader.pid) {
            return Err("it has left the session, and is let go");
        }
        let lives = |pidfd| cx.kernel.is_dead(pidfd) == Ok(false);
        let is_leader = tree.leader.pid == pid && tree.pidfd.as_ref().is_some_and(lives);
        let is_alone = tree.succession.main.as_ref().is_some_and(|main| main.is_alone);
        let main = Main { who, pidfd, exit: None, is_alone };
        self.replace_main(cx, id, (!is_leader).then_some(main));
        Ok(Fact::Led { id, who, is_leader })
    }

    fn replace_main(&mut self, cx: &mut Cx<'_, K>, id: Id, main: Option<Main<K>>) {
        let Some(tree) = self.get_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut tree.succession.main, main.map(Box::new)) {
            cx.kernel.unwatch(&old.pidfd);
        }
        self.watch(cx, id);
    }
}
