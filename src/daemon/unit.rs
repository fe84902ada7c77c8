//! A service as the daemon holds it: what was declared, its machine, and what of it may live.
use super::load::TICK_MS;
use super::sorted::Map;
use crate::process::record::State;
use crate::process::{Exit, Identity, Namespace, Pid};
use crate::service::machine::{Generation, Goal, Machine, Phase, Time};
use crate::service::spec::{Definition, Id, Restart};
use crate::sys::{Child, Errno, Kernel, Stage};
use crate::wire::Status;

/// One service.
#[derive(Debug)]
pub struct Unit<K: Kernel> {
    pub id: Id,
    pub definition: Definition,
    /// Its line in the store.
    pub line: u64,
    pub machine: Machine,
    pub run: Option<Run<K>>,
    /// The highest generation of which the kernel confirmed that nothing lives.
    pub emptied: u64,
    /// The highest generation given to it.
    pub generation: u64,
    /// Unix milliseconds; 0 if never.
    pub started_at: u64,
    pub exited_at: u64,
    pub restarted_at: u64,
    pub exit: Option<Exit>,
    /// To be forgotten as soon as it is down.
    pub removing: bool,
    /// Its first exec is not yet confirmed and nobody wants it kept if that fails.
    pub provisional: bool,
    /// An operator stopped it, and has not started it since.
    pub halted: bool,
    /// Why its last launch failed, if it did.
    pub launch_error: Option<Errno>,
    /// Why it is where it is.
    pub note: Option<Box<str>>,
    /// What the loop's timer has for it.
    pub deadline: Option<Time>,
    /// When usage was last asked for, and the tree's ticks then.
    pub sample: Option<(Time, u64)>,
    /// Its status when it was last announced.
    pub announced: Status,
}

/// An incarnation that may live.
#[derive(Debug)]
pub struct Run<K: Kernel> {
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
    /// The stop signal was sent to the group.
    pub asked: bool,
    /// Why it was not exec'd.
    pub failure: Option<(Stage, Errno)>,
    /// Members beyond the leader and our own orphans: found by marks, in the drain only.
    pub members: Map<Pid, Member<K>>,
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
    Run(Id, Generation),
    /// It left its service on purpose and is on record for it, or it entered our PID namespace
    /// from outside: no gate waits for it.
    Foreign,
    /// Some service's, for it descends from one, and nobody can say whose: every gate of our own
    /// children that it can concern waits for it, nobody signals it.
    Unknown,
}

/// The unit of this id. Borrows the units alone, so that the kernel can be asked about it.
pub(crate) fn unit_in<K: Kernel>(
    units: &mut [Option<Box<Unit<K>>>],
    id: Id,
) -> Option<&mut Unit<K>> {
    units.get_mut(id as usize)?.as_deref_mut()
}

impl<K: Kernel> Unit<K> {
    pub fn name(&self) -> &str {
        &self.definition.spec.name
    }

    /// The status word.
    pub fn status(&self) -> Status {
        match self.machine.phase() {
            Phase::Down(_) => Status::Stopped,
            Phase::Failed(_) => Status::Errored,
            Phase::Cooldown { .. } => Status::Waiting,
            Phase::Starting { .. } => Status::Starting,
            Phase::Up { .. } => Status::Online,
            Phase::Stopping { .. } => Status::Stopping,
        }
    }

    /// The daemon's half of its slot.
    pub fn state(&self) -> State {
        State {
            definition: self.line,
            removed: false,
            goal_up: self.machine.goal() == Goal::Up,
            failed: matches!(self.machine.phase(), Phase::Failed(_)),
            halted: self.halted,
            generation: self.generation,
            emptied: self.emptied,
            restarts: self.machine.restarts(),
            deaths: self.machine.deaths(),
            started_at: self.started_at,
            exited_at: self.exited_at,
            restarted_at: self.restarted_at,
            exit: self.exit,
        }
    }

    /// Whether it has ended, and its policy has it so: nobody stopped it, and it did its work.
    pub fn is_done(&self) -> bool {
        self.status() == Status::Stopped
            && !self.halted
            && self.exit == Some(Exit::Code(0))
            && self.definition.spec.policy.restart != Restart::Always
    }

    /// A copy of the note, to be told.
    pub fn reason(&self) -> Option<String> {
        self.note.as_deref().map(str::to_owned)
    }

    /// The leader's pid while it lives.
    pub fn pid(&self) -> Option<Pid> {
        self.run.as_ref().filter(|run| run.exit.is_none()).map(|run| run.leader.pid)
    }
}

impl<K: Kernel> Orphan<K> {
    /// Whether it may descend from this run's leader: if that was forked before.
    pub fn may_be_of(&self, run: &Run<K>) -> bool {
        run.lineage && (self.born == 0 || run.born < self.born + TICK_MS)
    }
}

impl<K: Kernel> Run<K> {
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
            asked: false,
            failure: None,
            members: Map::new(),
        }
    }

    /// The leader is dead and confirmed so; what is left must drain.
    pub fn is_draining(&self) -> bool {
        self.exit.is_some() || self.failure.is_some()
    }
}
