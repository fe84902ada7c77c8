//! A service as the daemon holds it: what was declared, its machine, and what of it may live.
use super::trees::Kill;
use crate::process::journal_format::State;
use crate::process::{Exit, Pid};
use crate::service::machine::{Goal, Machine, Phase, Time};
use crate::service::spec::{Definition, Id, Restart};
use crate::service::units::Span;
use crate::sys::Errno;
use crate::wire::Status;

/// One service.
#[derive(Debug)]
pub struct Service {
    pub id: Id,
    pub definition: Definition,
    /// Its line in the store.
    pub line: u64,
    pub machine: Machine,
    /// The leader of the newest incarnation that exec'd.
    pub pid: Pid,
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
    pub(crate) killed: Option<Kill>,
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
    /// When usage was last asked for, and the tree's ticks then.
    pub sample: Option<(Time, u64)>,
    /// Its status when it was last announced.
    pub announced: Status,
    /// Whether it was ready then.
    pub ready: bool,
}

impl std::fmt::Display for Kill {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.leader { "" } else { "what it left was " };
        write!(to, "{what}killed after {}", Span { ms: self.after })
    }
}

impl Service {
    /// One that never ran, or that stands where `machine` says.
    pub(crate) fn new(id: Id, definition: Definition, line: u64, machine: Machine) -> Self {
        let mut service = Self {
            id,
            definition,
            line,
            machine,
            pid: 0,
            emptied: 0,
            generation: 0,
            started_at: 0,
            exited_at: 0,
            restarted_at: 0,
            exit: None,
            by_opm: false,
            killed: None,
            removing: false,
            provisional: false,
            halted: false,
            launch_error: None,
            note: None,
            sample: None,
            announced: Status::Stopped,
            ready: false,
        };
        service.note_announced();
        service
    }

    pub fn name(&self) -> &str {
        &self.definition.spec.name
    }

    /// Where it stands now needs no announcement.
    pub(crate) fn note_announced(&mut self) {
        (self.announced, self.ready) = (self.status(), self.machine.is_ready());
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
            && self.machine.policy().restart != Restart::Always
    }

    /// What had to be killed of its newest incarnation, in parentheses, or nothing.
    pub(crate) fn kill_words(&self) -> String {
        let killed = self.killed.filter(|killed| killed.generation.0 == self.generation);
        killed.map_or(String::new(), |killed| format!(" ({killed})"))
    }

    /// A copy of the note, to be told.
    pub fn reason(&self) -> Option<String> {
        self.note.as_deref().map(str::to_owned)
    }

    /// Whether something of it may live, or is about to.
    pub fn is_live(&self) -> bool {
        self.machine.generation().is_some()
    }
}
