//! A service as the daemon holds it: what was declared, its machine, and what of it may live.
use super::load::TICK_MS;
use super::sorted::{Map, Set};
use crate::process::record::State;
use crate::process::{Exit, Identity, Namespace, Pid};
use crate::service::machine::{Generation, Goal, Machine, Phase, Time};
use crate::service::spec::{Definition, Id, Restart};
use crate::service::units::format_span;
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
    /// That was our SIGKILL.
    pub by_opm: bool,
    /// The last incarnation that had to be killed, until an operator asks for something else.
    pub killed: Option<Killed>,
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

/// What of an incarnation did not end in time.
#[derive(Clone, Copy, Debug)]
pub struct Killed {
    pub generation: Generation,
    /// How long it had had.
    pub after: Time,
    /// Its leader, or what that had left.
    pub leader: bool,
}

impl std::fmt::Display for Killed {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.leader { "" } else { "what it left was " };
        write!(to, "{what}killed after {}", format_span(self.after))
    }
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
    /// The stop that it is in.
    pub asked: Option<Asked>,
    /// Why it was not exec'd.
    pub failure: Option<(Stage, Errno)>,
    /// Members beyond the leader and our own orphans: found by marks, in the drain only.
    pub members: Map<Pid, Member<K>>,
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
    pub seen: Set<(Pid, u64)>,
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

impl Asked {
    /// One that begins.
    pub fn new(at: Time) -> Self {
        Self { at, group: None, seen: Set::new() }
    }
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
            Phase::Lingering { .. } | Phase::Stopping { .. } => Status::Stopping,
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
            by_opm: self.by_opm,
        }
    }

    /// Whether it has ended, and its policy has it so: nobody stopped it, and it did its work.
    pub fn is_done(&self) -> bool {
        self.status() == Status::Stopped
            && !self.halted
            && self.exit == Some(Exit::Code(0))
            && self.definition.spec.policy.restart != Restart::Always
    }

    /// What had to be killed of its newest incarnation, in parentheses, or nothing.
    pub fn kill_words(&self) -> String {
        let killed = self.killed.filter(|killed| killed.generation.0 == self.generation);
        killed.map_or(String::new(), |killed| format!(" ({killed})"))
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
            asked: None,
            failure: None,
            members: Map::new(),
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
