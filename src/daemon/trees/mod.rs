//! What lives of each incarnation, and the law: nothing of a service starts before the kernel has
//! confirmed that nothing of it lives.
pub(crate) mod drain;
pub(crate) mod owner;
mod proof;
mod signal;
pub(crate) mod sweep;
pub mod unrecorded;

use super::departure::Departed;
use super::vecmap::{VecMap, VecSet};
use crate::process::stat::TICK_MS;
use crate::process::{Exit, Identity, Namespace, Pid};
use crate::service::machine::{Generation, Time};
use crate::service::spec::Id;
use crate::sys::{Child, Errno, Kernel, Stage};
use std::collections::HashMap;
use unrecorded::Stray;

/// What lives of all incarnations.
#[derive(Debug)]
pub(crate) struct Trees<K: Kernel> {
    /// Leaders that are our unreaped children, and no others: with `orphans` it counts them.
    pub(crate) leaders: HashMap<Pid, Id>,
    /// Our other children that live, as far as we have looked.
    pub(crate) orphans: VecMap<Pid, Orphan<K>>,
    pub(crate) dead_orphans: Vec<Pid>,
    /// Leaders whose end was seen and not yet counted for, and until when more are awaited.
    pub(crate) dead: Vec<(Id, Exit)>,
    pub(crate) count_at: Option<Time>,
    /// Children came or went since the last count.
    pub(crate) uncounted: bool,
    /// Services whose leader is dead and whose tree isn't confirmed empty.
    pub(crate) gates: VecSet<Id>,
    /// Leaders that are dead but whose status is not ours yet: traced.
    pub(crate) traced: VecSet<Id>,
    /// Trees that the loop had no room to watch: they are looked at by the clock.
    pub(crate) unwatched: VecSet<Id>,
    /// Our own children were read whole in this turn, after the deaths that it handles.
    pub(crate) counted: bool,
    /// Something could not be looked at, or was too much for one turn: look then.
    pub(crate) look_again_at: Option<Time>,
    pub(crate) children: Vec<Pid>,
    pub(crate) strays: Vec<Stray<K>>,
    /// The inode of our own time namespace, if incarnations get others; else 0.
    pub(crate) own_namespace: u64,
    /// Orphans beyond so many are held by number.
    pub(crate) orphans_watched_max: usize,
    /// Until passes are tried again that proved nothing.
    pub(crate) search_pause: u64,
    /// Daemons that were started from inside our services, and left them.
    pub(crate) departed: Departed,
    /// Children of ours may be nobody's we know: as PID 1, and where a program with children of its
    /// own became us by an exec.
    pub(crate) has_strangers: bool,
    /// Processes that bear a mark of this home and can't have it from us.
    pub(crate) forged: VecSet<Pid>,
}

impl<K: Kernel> Trees<K> {
    pub(crate) fn new(own_namespace: u64, departed: Departed, has_strangers: bool) -> Self {
        Self {
            leaders: HashMap::new(),
            orphans: VecMap::new(),
            dead_orphans: Vec::new(),
            dead: Vec::new(),
            count_at: None,
            uncounted: false,
            gates: VecSet::new(),
            traced: VecSet::new(),
            unwatched: VecSet::new(),
            counted: false,
            look_again_at: None,
            children: Vec::new(),
            strays: Vec::new(),
            own_namespace,
            orphans_watched_max: drain::orphans_watched_max(),
            search_pause: drain::LOOK_AGAIN_MS,
            departed,
            has_strangers,
            forged: VecSet::new(),
        }
    }
}

/// An incarnation that may live.
#[derive(Debug)]
pub struct Tree<K: Kernel> {
    pub generation: Generation,
    pub leader: Identity,
    /// None: the leader was gone before we could open it, so its number means nothing.
    pub pidfd: Option<K::Pidfd>,
    /// Until the launch is decided.
    pub launch: Option<K::Launch>,
    /// How the leader ended, once it has.
    pub exit: Option<Exit>,
    /// It is our child and not yet reaped.
    pub child: bool,
    /// Every orphan of it came, or will come, to us.
    pub lineage: bool,
    pub adopted: bool,
    /// When it exec'd, on the loop's clock.
    pub since: Time,
    /// When it was forked: nothing that began before can descend from it.
    pub born: Time,
    /// The time namespace of its tree. None: the leader's signature was not read yet.
    pub namespace: Option<Namespace>,
    /// SIGKILL rounds so far.
    pub kills: u32,
    /// The stop that it is in.
    pub asked: Option<Asked>,
    /// Why it was not exec'd.
    pub failure: Option<(Stage, Errno)>,
    /// Members beyond the leader and our own orphans: found by marks, in the drain only.
    pub members: VecMap<Pid, Member<K>>,
}

/// A stop of an incarnation: who of it has had the stop signal.
#[derive(Debug)]
pub struct Asked {
    /// When it began.
    pub at: Time,
    /// When the leader's group had it, on the clock of start times, and the last pid that had been
    /// given out.
    pub group: Option<(u64, Pid)>,
    /// Who was seen then, or had it since: pid and start time.
    pub seen: VecSet<(Pid, u64)>,
}

/// A process of a tree that is not its leader.
#[derive(Debug)]
pub struct Member<K: Kernel> {
    pub pidfd: K::Pidfd,
    /// It bears a mark, so it may be signalled; else it only keeps the gate closed.
    pub certain: bool,
    pub asked: bool,
}

/// A child of ours that we did not start: an orphan of some tree.
#[derive(Debug)]
pub struct Orphan<K: Kernel> {
    /// The loop is woken at its end; else it is looked at with each SIGCHLD.
    pub watched: bool,
    pub pidfd: K::Pidfd,
    pub owner: Owner,
    /// When it was forked, to a tick of start times; 0: not known.
    pub born: Time,
    /// Its memory did not answer, and may tell later whose it is.
    pub mute: bool,
    pub asked: bool,
}

/// Whose an orphan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Tree(Id, Generation),
    /// It left its service on purpose and is on record for it, or it entered our PID namespace
    /// from outside: no gate waits for it.
    Foreign,
    /// Some service's, for it descends from one, and nobody can say whose: every gate of our own
    /// children that it can concern waits for it, nobody signals it.
    Unknown,
}

impl Asked {
    /// One that begins.
    pub fn new(at: Time) -> Self {
        Self { at, group: None, seen: VecSet::new() }
    }
}

impl<K: Kernel> Tree<K> {
    /// Of a child that was just forked.
    pub fn launched(generation: Generation, child: Child<K::Pidfd, K::Launch>, now: Time) -> Self {
        Self {
            generation,
            leader: Identity { pid: child.pid, ..Identity::default() },
            pidfd: Some(child.pidfd),
            launch: Some(child.launch),
            exit: None,
            child: true,
            lineage: true,
            adopted: false,
            since: now,
            born: now,
            namespace: None,
            kills: 0,
            asked: None,
            failure: None,
            members: VecMap::new(),
        }
    }

    /// Whether an orphan that was forked then (0: not known) may descend from the leader: if that
    /// was forked before.
    pub fn may_have_forked(&self, born: Time) -> bool {
        self.lineage && (born == 0 || self.born < born + TICK_MS)
    }

    /// Whether a process (pid and start time) of this group has had the stop signal already. Within
    /// one tick of the clock the pids tell who was there: they are given out in rising order.
    pub fn has_had_stop(&self, identity: (Pid, u64), pgid: Pid) -> bool {
        let Some(asked) = &self.asked else {
            return false;
        };
        let (pid, start_time) = identity;
        let was_there = |(tick, last)| (start_time, pid) <= (tick, last);
        // One that could not be looked at when it was asked is known by its number alone.
        asked.seen.contains(&identity)
            || asked.seen.contains(&(pid, 0))
            || pgid == self.leader.pid && asked.group.is_some_and(was_there)
    }
}
