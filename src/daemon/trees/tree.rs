//! What is held of each incarnation that may live, and of the orphans that came to us.
use super::marks::Marks;
use crate::process::stat::TICK_MS;
use crate::process::{Exit, Identity, Namespace, Pid};
use crate::service::machine::{Generation, Time};
use crate::service::spec::{Id, StopReach};
use crate::sys::{Errno, Kernel, Stage, limits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// When something could not be looked at (EMFILE, no /proc for a moment), look again then.
pub(crate) const LOOK_AGAIN_MS: u64 = 200;

/// Orphans that are watched by a descriptor each, as far as they take no more than a quarter of
/// them: what is looked at in /proc, and who asks, need some too.
const ORPHANS_WATCHED_MAX: usize = 256;

/// What lives of all incarnations.
#[derive(Debug)]
pub(crate) struct Trees<K: Kernel> {
    /// By the id of their services.
    pub(super) live: BTreeMap<Id, Box<Tree<K>>>,
    pub(crate) marks: Marks,
    /// Leaders that are our unreaped children, and no others: with `orphans` all our children.
    pub(super) leaders: HashMap<Pid, Id>,
    /// Our other children that live, as far as we have looked.
    pub(super) orphans: BTreeMap<Pid, Orphan<K>>,
    pub(super) dead_orphans: Vec<Pid>,
    /// Orphans beyond so many are held by number.
    pub(super) orphans_watched_max: usize,
    /// Our own children were read whole in this turn, after the deaths that it handles.
    pub(super) counted: bool,
    /// How processes beside a leader ended.
    pub(super) probed: Vec<(Pid, Exit)>,
    /// Services whose leader is dead and whose tree isn't confirmed empty.
    pub(super) gates: BTreeSet<Id>,
    /// Leaders that are dead but whose status is not ours yet: traced.
    pub(super) traced: BTreeSet<Id>,
    /// Trees that the loop had no room to watch: they are looked at by the clock.
    pub(super) unwatched: BTreeSet<Id>,
    /// When the descendants of whose leader are looked for that is being stopped.
    pub(super) unwalked: BTreeSet<(Time, Id)>,
    pub(super) unrecorded: Vec<Unrecorded<K>>,
    /// Incarnations that have ended, and of which something was let go.
    pub(crate) kept: Vec<Kept>,
    /// Something could not be looked at, or was too much for one turn: look then.
    pub(super) look_again_at: Option<Time>,
    /// Until sweeps are tried again that proved nothing.
    pub(super) search_pause: u64,
}

/// What trees are looked at with.
pub(crate) struct Cx<'a, K: Kernel> {
    pub(crate) kernel: &'a mut K,
    /// The journal, where leaders sign.
    pub(crate) journal: &'a K::File,
    pub(crate) now: Time,
    pub(crate) log: &'a mut Vec<String>,
    /// For `opm doctor`.
    pub(crate) trouble: &'a mut Option<String>,
}

/// What the kernel has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The program runs.
    Execed { id: Id, generation: Generation, pid: Pid },
    /// Nothing was exec'd, and the child is gone.
    LaunchFailed { id: Id, generation: Generation, stage: Stage, errno: Errno },
    /// The leader has exited. `by_opm`: by our SIGKILL. `lived`: how long it ran, in milliseconds.
    Exited { id: Id, generation: Generation, pid: Pid, exit: Exit, by_opm: bool, lived: u64 },
    /// Somebody else of it leads it now.
    Led { id: Id, who: Identity, is_leader: bool },
    /// Nothing of it lives. The last word on it.
    Emptied { id: Id, generation: Generation },
    /// Why a tree is not confirmed empty.
    Waits { id: Id, why: String },
    /// A process beside a leader has ended.
    Probed { pid: Pid, exit: Exit },
}

/// What of an incarnation has to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) generation: Generation,
    /// How long it had had.
    pub(crate) after: Time,
    /// Its leader, or what that had left.
    pub(crate) leader: bool,
}

/// An incarnation that may live.
#[derive(Debug)]
pub(crate) struct Tree<K: Kernel> {
    pub(crate) generation: Generation,
    /// The number of a leader that is not known is 0.
    pub(crate) leader: Identity,
    /// None: the leader was gone before we could open it, so its number means nothing.
    pub(crate) pidfd: Option<K::Pidfd>,
    pub(super) birth: Birth<K::Launch>,
    pub(super) succession: Succession<K>,
    /// How it ended, once neither leader nor main process lives.
    pub(crate) exit: Option<Exit>,
    /// The leader is our child and not yet reaped.
    pub(crate) child: bool,
    /// Every orphan of it came, or will come, to us.
    pub(crate) lineage: bool,
    pub(crate) adopted: bool,
    /// When it exec'd, on the loop's clock.
    pub(crate) since: Time,
    /// When it was forked: nothing that began before can descend from it.
    pub(crate) born: Time,
    /// What has left the leader's session and group is let go; and whether a search saw some.
    pub(crate) keeps: Option<bool>,
    /// The time namespace of its tree. None: the leader's signature was not read yet.
    pub(crate) namespace: Option<Namespace>,
    /// SIGKILL rounds so far.
    pub(crate) kills: u32,
    pub(crate) stop: Option<Box<Stop>>,
    /// Members beyond the leader and our own orphans: found by marks, in the drain only.
    pub(crate) members: BTreeMap<Pid, Member<K>>,
}

/// Whether a leader has exec'd.
#[derive(Debug)]
pub(super) enum Birth<L> {
    /// Its launch is not decided yet.
    Launched(L),
    Done,
    /// Nothing was exec'd, and why.
    Failed(Stage, Errno),
}

/// Who leads a tree in its leader's place.
#[derive(Debug)]
pub(super) struct Succession<K: Kernel> {
    pub(super) main: Option<Box<Main<K>>>,
    /// Where it may say at its leader's end who leads now; and when that was looked for first.
    pub(super) pid_file: Option<String>,
    pub(super) left_at: Option<Time>,
}

/// A process of a tree that leads it in its leader's place, as a server's new master does: it said
/// so itself. The proof of the tree's end is still about the leader's number and its tree.
#[derive(Debug)]
pub(super) struct Main<K: Kernel> {
    pub(super) who: Identity,
    pub(super) pidfd: K::Pidfd,
    /// How it ended, if it was reaped with other orphans.
    pub(super) exit: Option<Exit>,
    /// The leader has ended.
    pub(super) is_alone: bool,
}

/// What its service says of a tree.
#[derive(Debug)]
pub(crate) struct Ways {
    /// What has left the leader's session is let go.
    pub(crate) keep: bool,
    pub(crate) pid_file: Option<String>,
}

/// A stop of an incarnation: who of it has had the stop signal.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) at: Time,
    pub(crate) signal: i32,
    pub(crate) reach: StopReach,
    /// When the leader's group had it, on the clock of start times, and the last pid that had been
    /// given out.
    pub(crate) group: Option<(u64, Pid)>,
    /// When its descendants are looked for that are not of the group. Where the leader ends before,
    /// they come to us, and what is below them is looked at then.
    pub(crate) walk_at: Option<Time>,
    /// Who was seen then, or had it since: pid and start time.
    pub(crate) seen: BTreeSet<(Pid, u64)>,
}

/// A process of a tree that is not its leader.
#[derive(Debug)]
pub(crate) struct Member<K: Kernel> {
    pub(crate) pidfd: K::Pidfd,
    /// It bears a mark, so it may be signalled; else it only keeps the gate closed.
    pub(crate) certain: bool,
    pub(crate) asked: bool,
}

/// A child of ours that we did not start: an orphan of some tree.
#[derive(Debug)]
pub(crate) struct Orphan<K: Kernel> {
    /// The loop is woken at its end; else it is looked at with each SIGCHLD.
    pub(crate) watched: bool,
    pub(crate) pidfd: K::Pidfd,
    pub(crate) owner: Owner,
    /// When it was forked, to a tick of start times; 0: not known.
    pub(crate) born: Time,
    /// Its memory did not answer, and may tell later whose it is.
    pub(crate) mute: bool,
    /// It has had the stop signal.
    pub(crate) asked: bool,
    /// It was started beside the leader: its end is told.
    pub(crate) is_probe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Tree(Id, Generation),
    /// It left its service on purpose and is on record for it, or it entered our PID namespace
    /// from outside: no gate waits for it.
    Foreign,
    /// It left the session of this incarnation's leader, and is let go: no gate waits for it.
    Kept(Id, Generation),
    /// Some service's, for it descends from one, and nobody can say whose: every gate of our own
    /// children that it can concern waits for it, nobody signals it.
    Unknown,
}

/// An incarnation that has ended, and what of it was let go may live.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) id: Id,
    pub(super) generation: u64,
    pub(super) namespace: [u64; 2],
}

impl Kept {
    pub(super) fn namespace(&self) -> Namespace {
        let [id, inode] = self.namespace;
        Namespace { id, inode }
    }
}

/// A live incarnation of a service that nobody knows any more: it has to drain before a
/// service of its name starts.
#[derive(Debug)]
pub(crate) struct Unrecorded<K: Kernel> {
    pub(crate) name: Option<String>,
    pub(super) tree: Tree<K>,
    pub(super) held: Vec<(Pid, Option<K::Pidfd>)>,
    /// The time namespaces that it was seen in.
    pub(super) namespaces: BTreeSet<u64>,
}

impl<K: Kernel> Tree<K> {
    /// One that begins now, with a child that was just forked or a leader that was found.
    pub(crate) fn new(
        generation: Generation,
        leader: Identity,
        pidfd: Option<K::Pidfd>,
        now: Time,
    ) -> Self {
        Self {
            generation,
            leader,
            pidfd,
            birth: Birth::Done,
            succession: Succession { main: None, pid_file: None, left_at: None },
            exit: None,
            child: false,
            lineage: false,
            adopted: false,
            since: now,
            born: now,
            keeps: None,
            namespace: None,
            kills: 0,
            stop: None,
            members: BTreeMap::default(),
        }
    }

    /// Whose something of it is that is neither in its leader's session nor in its group.
    pub(super) fn owner(&self, id: Id) -> Owner {
        match self.keeps {
            Some(_) => Owner::Kept(id, self.generation),
            None => Owner::Tree(id, self.generation),
        }
    }

    /// Who leads it, dead or alive, and its handle.
    pub(crate) fn lead(&self) -> (Identity, Option<&K::Pidfd>) {
        match &self.succession.main {
            Some(main) => (main.who, Some(&main.pidfd)),
            None => (self.leader, self.pidfd.as_ref()),
        }
    }

    /// The pid of who leads it while it lives.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.exit.is_none().then_some(self.lead().0.pid)
    }

    /// The same, and the leader's while it lives beside that.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        let main = self.succession.main.as_ref();
        let beside = main.filter(|main| !main.is_alone).map(|_| self.leader.pid);
        self.pid().into_iter().chain(beside.filter(|_| self.exit.is_none()))
    }

    /// Whether an orphan that was forked then (0: not known) may descend from the leader: if that
    /// was forked before.
    pub(super) fn may_have_forked(&self, born: Time) -> bool {
        self.lineage && (born == 0 || self.born < born + TICK_MS)
    }

    /// Whether a process (pid and start time) of this group has had the stop signal already.
    pub(super) fn has_had_stop(&self, identity: (Pid, u64), pgid: Pid) -> bool {
        let Some(stop) = &self.stop else { return false };
        // One that could not be looked at when it was asked is known by its number alone.
        stop.seen.contains(&identity)
            || stop.seen.contains(&(identity.0, 0))
            || pgid == self.leader.pid && stop.was_there(identity)
    }
}

impl Stop {
    /// Whether this process (pid and start time) was there when the leader's group had the signal.
    /// Within one tick of the clock the pids tell: they are given out in rising order.
    pub(super) fn was_there(&self, (pid, start_time): (Pid, u64)) -> bool {
        self.group.is_some_and(|(tick, last)| (start_time, pid) <= (tick, last))
    }
}

impl<K: Kernel> Trees<K> {
    pub(crate) fn new(marks: Marks) -> Self {
        Self {
            live: BTreeMap::default(),
            marks,
            leaders: HashMap::new(),
            orphans: BTreeMap::default(),
            dead_orphans: Vec::new(),
            orphans_watched_max: limits::within_open_files(ORPHANS_WATCHED_MAX, 4),
            counted: false,
            probed: Vec::new(),
            gates: BTreeSet::default(),
            traced: BTreeSet::default(),
            unwatched: BTreeSet::default(),
            unwalked: BTreeSet::default(),
            unrecorded: Vec::new(),
            kept: Vec::new(),
            look_again_at: None,
            search_pause: LOOK_AGAIN_MS,
        }
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Tree<K>> {
        self.live.get(&id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Tree<K>> {
        self.live.get_mut(&id).map(Box::as_mut)
    }

    /// Every tree, by the id of its service.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &Tree<K>)> {
        self.live.iter().map(|(id, tree)| (*id, tree.as_ref()))
    }

    pub(crate) fn insert(&mut self, id: Id, tree: Tree<K>) {
        self.live.insert(id, Box::new(tree));
    }

    /// The pid of who leads it while it lives.
    pub(crate) fn pid(&self, id: Id) -> Option<Pid> {
        self.get(id)?.pid()
    }

    /// Something can't be seen now and nothing will tell: everything is looked at by then.
    pub(crate) fn look_again(&mut self, at: Time) {
        self.look_again_at = Some(self.look_again_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// The orphans and certain members of a tree, by whether they were asked to end.
    pub(super) fn known(&self, id: Id, which: impl Fn(bool) -> bool) -> Vec<Pid> {
        let Some(tree) = self.get(id) else { return Vec::new() };
        let mine = Owner::Tree(id, tree.generation);
        let orphans = self.orphans.iter().filter(|(_, o)| o.owner == mine && which(o.asked));
        let members = tree.members.iter().filter(|(_, m)| m.certain && which(m.asked));
        orphans.map(|(pid, _)| *pid).chain(members.map(|(pid, _)| *pid)).collect()
    }

    /// A service is no more: what was let go of it is nobody's.
    pub(crate) fn forget(&mut self, id: Id) {
        self.kept.iter_mut().filter(|kept| kept.id == id).for_each(|kept| kept.id = Id::MAX);
        for (_, orphan) in self.orphans.iter_mut() {
            if matches!(orphan.owner, Owner::Kept(of, _) if of == id) {
                orphan.owner = Owner::Foreign;
            }
        }
    }

    /// Children of ours that incarnations of this service left behind and that were let go.
    pub(crate) fn kept_of(&self, id: Id) -> Vec<Pid> {
        let now = self.get(id).map(|tree| tree.generation);
        let is_past = |owner| matches!(owner, Owner::Kept(of, g) if of == id && Some(g) != now);
        let orphans = self.orphans.iter().filter(|(_, orphan)| is_past(orphan.owner));
        orphans.map(|(pid, _)| *pid).collect()
    }

    /// The live processes of a tree that we hold: those that are known to be of it, and those that
    /// only may be, keep its gate closed, and are not signalled.
    pub(crate) fn members(&self, id: Id) -> (Vec<Pid>, Vec<Pid>) {
        let Some(tree) = self.get(id) else { return (Vec::new(), Vec::new()) };
        let mut ours: Vec<Pid> = tree.pids().chain(self.known(id, |_| true)).collect();
        let uncertain = tree.members.iter().filter(|(_, member)| !member.certain);
        let unknown = self.orphans.iter().filter(|(_, orphan)| orphan.owner == Owner::Unknown);
        let unknown = unknown.filter(|_| tree.exit.is_some());
        let mut unsure: Vec<Pid> =
            uncertain.map(|(pid, _)| *pid).chain(unknown.map(|(pid, _)| *pid)).collect();
        for pids in [&mut ours, &mut unsure] {
            pids.sort_unstable();
            pids.dedup();
        }
        (ours, unsure)
    }
}
