//! From a spawn to the kernel's word that the program runs; and what earlier daemons launched.
use super::tree::{
    Birth, Cx, Fact, LOOK_AGAIN_MS, Main, Orphan, Owner, Succession, Tree, Trees, Ways,
};
use crate::mutant::mutant;
use crate::process::journal_format::Signature;
use crate::process::stat::TICK_MS;
use crate::process::{Identity, Pid};
use crate::service::machine::{Generation, Time};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Launch, Plan, Reach, Stage, Wake};

impl<K: Kernel> Trees<K> {
    /// Forks the leader of an incarnation. What becomes of it is a [`Fact`] of a later turn.
    /// Errors: No child came to be.
    pub(crate) fn launch(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        generation: Generation,
        plan: &Plan<'_>,
        ways: Ways,
    ) -> Result<(), Errno> {
        let child = cx.kernel.spawn(plan, cx.journal)?;
        self.leaders.insert(child.pid, id);
        let leader = Identity { pid: child.pid, ..Identity::default() };
        let tree = Tree::new(generation, leader, Some(child.pidfd), cx.now);
        let tree = Tree {
            birth: Birth::Launched(child.launch),
            child: true,
            lineage: true,
            keeps: ways.keep.then_some(false),
            succession: Succession { pid_file: ways.pid_file, ..tree.succession },
            ..tree
        };
        self.insert(id, tree);
        self.watch(cx, id);
        Ok(())
    }

    /// Forks a process beside a live leader, that bears the marks of its tree: to the gate it is a
    /// member like any other. How it ends is a [`Fact`] of a later turn. Errors: the leader does
    /// not live (ESRCH), or no child came to be.
    pub(crate) fn launch_beside(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        plan: &Plan<'_>,
    ) -> Result<Pid, Errno> {
        let tree = self.get(id).filter(|tree| tree.exit.is_none()).ok_or(Errno::SRCH)?;
        let owner = Owner::Tree(id, tree.generation);
        let child = cx.kernel.spawn(plan, cx.journal)?;
        let (pid, pidfd) = (child.pid, child.pidfd);
        let watched = cx.kernel.watch(&pidfd, Wake::Member(pid)).is_ok();
        let (born, mute, asked, is_probe) = (0, false, false, true);
        self.orphans.insert(pid, Orphan { watched, pidfd, owner, born, mute, asked, is_probe });
        Ok(pid)
    }

    /// SIGKILL for a process that was started beside a leader, and for its group.
    pub(crate) fn end_beside(&mut self, cx: &mut Cx<'_, K>, pid: Pid) {
        let Some(orphan) = self.orphans.get(&pid).filter(|orphan| orphan.is_probe) else { return };
        for reach in [Reach::Group, Reach::Process] {
            // Before 6.9 there is no signal for a group by a descriptor: its leader's end is enough
            // to ask again.
            cx.kernel.signal(&orphan.pidfd, libc::SIGKILL, reach).ok();
        }
    }

    /// Watches the leader, and its launch while that is not decided. Without room in the loop
    /// (max_user_watches, ENOMEM) they are looked at by the clock, until there is room.
    pub(super) fn watch(&mut self, cx: &mut Cx<'_, K>, id: Id) {
        let Some(tree) = self.get(id).filter(|tree| tree.exit.is_none()) else { return };
        // What is watched already is watched.
        let is_watched = |watched| matches!(watched, Ok(()) | Err(Errno::EXIST));
        let launch = match &tree.birth {
            Birth::Launched(pipe) => Some(cx.kernel.watch_launch(pipe, Wake::Launch(id))),
            Birth::Done | Birth::Failed(..) => None,
        };
        let main = tree.succession.main.as_ref().map(|main| &main.pidfd);
        let leads = tree.pidfd.iter().chain(main).map(|it| cx.kernel.watch(it, Wake::Leader(id)));
        if !launch.into_iter().chain(leads).all(is_watched) {
            self.look_later(cx, id);
        }
    }

    /// The loop does not wake for this one: it is looked at by the clock.
    pub(super) fn look_later(&mut self, cx: &mut Cx<'_, K>, id: Id) {
        self.unwatched.insert(id);
        self.look_again(cx.now + LOOK_AGAIN_MS);
    }

    /// `is_dead`: so says the leader's handle.
    pub(super) fn check_launch(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        is_dead: bool,
        facts: &mut Vec<Fact>,
    ) {
        let Some(tree) = self.live.get_mut(&id).filter(|tree| tree.exit.is_none()) else { return };
        let Birth::Launched(pipe) = &mut tree.birth else { return };
        let mut fate = cx.kernel.launch(pipe);
        if fate == Launch::Done || fate == Launch::Pending && is_dead {
            // The pipe ends with an exec and with a death.
            fate = match cx.kernel.has_execed(pipe, tree.pidfd.as_ref(), tree.leader.pid) {
                Ok(true) => Launch::Done,
                Ok(false) => Launch::Failed(Stage::Killed, Errno::INTR),
                Err(_) => return self.look_later(cx, id),
            };
        }
        let birth = match fate {
            Launch::Pending => return,
            Launch::Done => {
                tree.since = cx.now;
                let (generation, pid) = (tree.generation, tree.leader.pid);
                facts.push(Fact::Execed { id, generation, pid });
                Birth::Done
            }
            Launch::Failed(stage, errno) => {
                // The child is about to exit: that is what is told, when it has.
                self.look_again_at = Some(cx.now);
                Birth::Failed(stage, errno)
            }
        };
        cx.kernel.unwatch_launch(pipe);
        tree.birth = birth;
    }

    /// Whether some child has not exec'd yet.
    pub(crate) fn is_launching(&self) -> bool {
        self.iter().any(|(_, tree)| matches!(tree.birth, Birth::Launched(_)))
    }

    /// Takes over what an earlier daemon has on record. `main`: what led it in its leader's place.
    /// `started`: on the loop's clock, as far as the record tells. Errors: one of them could not be
    /// looked at, so that nobody knows whether it lives.
    pub(crate) fn take_over(
        &mut self,
        cx: &mut Cx<'_, K>,
        id: Id,
        signature: &Signature,
        main: Option<Identity>,
        started: Time,
        ways: Ways,
    ) -> Result<(), Errno> {
        let leader = signature.leader;
        let pidfd = open_same(cx, leader)?;
        let open_main = |who| Ok(open_same(cx, who)?.map(|pidfd| (who, pidfd)));
        let main = main.map_or(Ok(None), open_main)?;
        let is_alone = pidfd.is_none();
        let main = main.map(|(who, pidfd)| Main { who, pidfd, exit: None, is_alone });
        let child = pidfd.as_ref().is_some_and(|pidfd| cx.kernel.wait(pidfd, false).is_ok());
        let born = leader.start_time.saturating_mul(TICK_MS);
        let since = if born > 0 { born } else { started };
        let tree = Tree {
            child,
            lineage: signature.parent.is_same(&self.marks.own),
            adopted: true,
            succession: Succession {
                main: main.map(Box::new),
                pid_file: ways.pid_file,
                left_at: None,
            },
            keeps: ways.keep.then_some(false),
            since: since.min(cx.now),
            born,
            namespace: Some(signature.namespace),
            ..Tree::new(Generation(signature.generation), leader, pidfd, cx.now)
        };
        self.insert(id, tree);
        Ok(())
    }
}

/// Opens a recorded process. What is not exactly the recorded one is not it.
fn open_same<K: Kernel>(cx: &mut Cx<'_, K>, recorded: Identity) -> Result<Option<K::Pidfd>, Errno> {
    // First the handle, then what it is: the other way round the pid could change hands.
    let pidfd = match cx.kernel.pidfd_open(recorded.pid) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        Err(_) if mutant("error_is_gone") => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let inode = cx.kernel.inode(&pidfd).unwrap_or(0);
    // Inodes decide where there are any; the start time costs a file of /proc.
    let by_inode = inode != 0 && recorded.inode != 0;
    let start_time = match by_inode {
        true => 0,
        false => match cx.kernel.stat(recorded.pid) {
            Ok(stat) => stat.start_time,
            // IO: it was cut off by the end of the process.
            Err(Errno::SRCH | Errno::NOENT | Errno::IO) => 0,
            Err(errno) => return Err(errno),
        },
    };
    let seen = Identity { pid: recorded.pid, start_time, inode };
    Ok(seen.is_same(&recorded).then_some(pidfd))
}
