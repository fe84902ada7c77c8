//! A service as the daemon holds it: what was declared, its machine, and what of it may live.
use super::trees::{Kill, Ways};
use crate::process::journal_format::State;
use crate::process::{Exit, Pid};
use crate::service::machine::{Ending, Goal, Machine, Phase, Time};
use crate::service::options::{OPTIONS, Opt, text_of};
use crate::service::probe::Sign;
use crate::service::signal::Signal;
use crate::service::spec::{Definition, Escapees, Id, Restart, Spec};
use crate::service::time::rfc3339;
use crate::service::units::{Span, human_left};
use crate::sys::{Errno, Stage, describe};
use crate::wire::{LastExit, Status};

/// Who ended a process, where that was us.
pub(crate) const BY_OPM: &str = "opm";

/// Code and signal name of an exit.
pub(crate) fn exit_parts(exit: Option<Exit>) -> (Option<i32>, Option<String>) {
    match exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => {
            let name = Signal::from_number(signal).map_or(signal.to_string(), Signal::name);
            (None, Some(name))
        }
        Some(Exit::Unknown) | None => (None, None),
    }
}

/// What a service says of its tree.
pub(crate) fn ways(spec: &Spec) -> Ways {
    let absolute = |path: &String| {
        let path = std::path::Path::new(spec.cwd.as_str()).join(path);
        path.to_string_lossy().into_owned()
    };
    Ways {
        keep: spec.policy.escapees == Escapees::Keep,
        pid_file: spec.care.pid_file.as_ref().map(absolute),
    }
}

/// One service.
#[derive(Debug)]
pub struct Service {
    pub id: Id,
    pub definition: Definition,
    /// What of it is on record, but for what its machine knows: see [`Service::state`].
    pub record: State,
    pub machine: Machine,
    /// The leader of the newest incarnation that exec'd.
    pub pid: Pid,
    /// The last deaths that this daemon saw, the newest last.
    pub past: Vec<Death>,
    /// Why a monitor has the next incarnation started.
    pub advised: Option<Box<str>>,
    /// The last incarnation that had to be killed, until an operator asks for something else.
    pub(crate) killed: Option<Kill>,
    /// To be forgotten as soon as it is down.
    pub removing: bool,
    /// Its first exec is not yet confirmed and nobody wants it kept if that fails.
    pub provisional: bool,
    /// Why its last launch failed, if it did.
    pub launch_error: Option<(Stage, Errno)>,
    /// Why it is where it is.
    pub note: Option<Box<str>>,
    /// When usage was last asked for, and the tree's ticks then.
    pub sample: Option<(Time, u64)>,
    /// What it used then.
    pub(crate) used: Option<Box<Usage>>,
    /// What was last announced of it.
    pub announced: Announced,
    /// It is launched when this one is ready.
    pub(crate) waits_for: Option<Id>,
}

/// What the processes of a tree use.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub(crate) pids: Vec<Pid>,
    /// Of processor time, at `USER_HZ`.
    pub(crate) ticks: u64,
    /// Resident.
    pub(crate) pages: u64,
    /// When it was read.
    pub(crate) at: Time,
    /// Nanoseconds that all had run before: who has run no more has neither other memory nor other
    /// children. None: not every one's is known.
    pub(crate) ran: Option<u64>,
}

/// What was announced of a service.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    pub status: Status,
    pub is_ready: bool,
    /// When this daemon saw that status begin, as Unix milliseconds; 0: it did not.
    pub at: u64,
}

/// Deaths that are remembered of each service.
const DEATHS_MAX: usize = 5;

/// How an incarnation ended.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// Unix milliseconds; 0: not known.
    pub at: u64,
    pub exit: Exit,
    /// By our SIGKILL.
    pub by_opm: bool,
    /// By the kernel, for want of memory.
    pub oom: bool,
    /// How long it had lived, in milliseconds, if that is known.
    pub lived: Option<u64>,
}

impl Death {
    /// As it is told.
    pub fn told(&self) -> LastExit {
        let (code, signal) = exit_parts(Some(self.exit));
        let by = self.by_opm.then(|| BY_OPM.to_owned());
        let at = (self.at > 0).then(|| rfc3339(self.at));
        LastExit { code, signal, by, oom: self.oom, at, lived_ms: self.lived }
    }
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
            record: State { definition: line, ..State::default() },
            machine,
            pid: 0,
            past: Vec::new(),
            advised: None,
            killed: None,
            removing: false,
            provisional: false,
            launch_error: None,
            note: None,
            sample: None,
            used: None,
            announced: Announced { status: Status::Stopped, is_ready: false, at: 0 },
            waits_for: None,
        };
        service.note_announced();
        service
    }

    /// Takes up why it is errored, where how it ended does not tell.
    pub(crate) fn errored(&mut self, home: &str, launch: u64) {
        if launch == 0 {
            let daemonized = self.record.exit == Some(Exit::Code(0)) && self.record.deaths == 0;
            self.note = daemonized.then(|| daemonizes("something").into());
            return;
        }
        let stage = match Stage::from_number((launch as u32).wrapping_sub(1)) {
            // To an older opm it may have been another option's number.
            Stage::Option(_) => Stage::Setup,
            stage => stage,
        };
        self.launch_failed(home, stage, Errno::from_raw_os_error((launch >> 32) as i32));
    }

    /// Nothing was exec'd.
    pub(crate) fn launch_failed(&mut self, home: &str, stage: Stage, errno: Errno) {
        self.note = Some(why_not(&self.definition.spec, home, stage, errno).into());
        self.launch_error = Some((stage, errno));
    }

    /// Takes note of a death.
    pub(crate) fn died(&mut self, death: Death) {
        let Death { at, exit, by_opm, .. } = death;
        self.record = State { exit: Some(exit), by_opm, exited_at: at, ..self.record };
        self.past.drain(..(self.past.len() + 1).saturating_sub(DEATHS_MAX));
        self.past.push(death);
    }

    /// The newest one, also of before this daemon.
    pub(crate) fn last_death(&self) -> Option<Death> {
        let (at, by_opm) = (self.record.exited_at, self.record.by_opm);
        let before = |exit| Death { at, exit, by_opm, oom: false, lived: None };
        self.past.last().copied().or_else(|| self.record.exit.map(before))
    }

    pub fn name(&self) -> &str {
        &self.definition.spec.name
    }

    /// Where it stands now needs no announcement.
    pub(crate) fn note_announced(&mut self) {
        let (status, is_ready) = (self.status(), self.machine.is_ready());
        self.announced = Announced { status, is_ready, at: self.announced.at };
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
        let State { emptied, generation, .. } = self.record;
        let launch = self.launch_error.map_or(0, |(stage, errno)| {
            let errno = u64::from(errno.raw_os_error().cast_unsigned());
            u64::from(stage.number() + 1) | (errno << 32)
        });
        State {
            goal_up: self.machine.goal() == Goal::Up,
            failed: matches!(self.machine.phase(), Phase::Failed(_)).then_some(launch),
            // What waits for another has not been given to anything yet.
            generation: if self.waits_for.is_some() { emptied } else { generation },
            restarts: self.machine.restarts(),
            deaths: self.machine.deaths(),
            ready: self.machine.is_ready(),
            ..self.record
        }
    }

    /// What it means that its leader ended so. A shell's 128+n is a signal's code here, too.
    pub(crate) fn ending(&self, exit: Exit) -> Ending {
        let is_known = exit != Exit::Unknown;
        match exit {
            _ if is_known && self.definition.spec.care.stop_exit_codes.contains(&exit.code()) => {
                Ending::Final
            }
            Exit::Code(0) => Ending::Clean,
            Exit::Code(_) | Exit::Signal(_) | Exit::Unknown => Ending::Failure,
        }
    }

    /// Whether it has ended, and its policy has it so: nobody stopped it, and it did its work.
    pub fn is_done(&self) -> bool {
        let is_final = match self.record.exit.map(|exit| self.ending(exit)) {
            Some(Ending::Clean) => self.machine.policy().restart != Restart::Always,
            Some(Ending::Final) => true,
            Some(Ending::Failure) | None => false,
        };
        self.status() == Status::Stopped && !self.record.halted && is_final
    }

    /// Whether something of it lives, or is launched already.
    pub(crate) fn runs(&self) -> bool {
        self.is_live() && self.waits_for.is_none()
    }

    /// Itself, unless those that depend on it may start: it is ready; or it has one thing to do,
    /// and that is done.
    pub(crate) fn unless_ready_for_others(&self) -> Option<Id> {
        let Spec { policy, checks, .. } = &self.definition.spec;
        let is_job = policy.restart == Restart::Never && checks.ready == Sign::Exec;
        let is_done = self.is_done() && policy.restart != Restart::Always;
        let is_ready = is_done || self.machine.is_ready() && !is_job;
        (!is_ready).then_some(self.id)
    }

    /// What had to be killed of its newest incarnation, in parentheses, or nothing.
    pub(crate) fn kill_words(&self) -> String {
        let killed = self.killed.filter(|killed| killed.generation.0 == self.record.generation);
        killed.map_or(String::new(), |killed| format!(" ({killed})"))
    }

    /// A copy of the note, to be told.
    pub fn reason(&self) -> Option<String> {
        self.note.as_deref().map(str::to_owned)
    }

    /// Why it is not plainly online. What one that is stopping waits for, its tree knows better.
    pub fn why(&self, now: Time) -> Option<String> {
        let is_down = match self.machine.phase() {
            Phase::Up { ready: true, .. } => return None,
            Phase::Up { .. } => return self.reason().or_else(|| Some("not ready".to_owned())),
            Phase::Down(_) if self.record.halted => return None,
            Phase::Down(_) if self.is_done() => return Some("has done its work".to_owned()),
            phase => {
                matches!(phase, Phase::Cooldown { .. } | Phase::Failed(_)) && self.note.is_none()
            }
        };
        let exit = self.record.exit.filter(|_| is_down).map(|exit| match exit_parts(Some(exit)) {
            (Some(code), _) => format!("exit {code}, "),
            (None, Some(signal)) => format!("signal {signal}, "),
            (None, None) => "exit unknown, ".to_owned(),
        });
        self.outlook(now).map(|outlook| exit.unwrap_or_default() + &outlook)
    }

    /// What comes of it, for events: they have said how it ended.
    pub fn outlook(&self, now: Time) -> Option<String> {
        match self.machine.phase() {
            Phase::Cooldown { since, delay, .. } => {
                let left = since.saturating_add(*delay).saturating_sub(now);
                let why = self.reason().map_or(String::new(), |why| why + ", ");
                Some(format!("{why}restart in {}", human_left(left)))
            }
            Phase::Failed(_) => self.reason().or_else(|| match self.machine.deaths() {
                0 => Some("not restarted".to_owned()),
                1 => Some("1 quick death".to_owned()),
                deaths => Some(format!("{deaths} quick deaths")),
            }),
            _ => self.reason(),
        }
    }

    /// Whether something of it may live, or is about to.
    pub fn is_live(&self) -> bool {
        self.machine.generation().is_some()
    }
}

/// Why one is errored that put itself into the background.
pub(crate) fn daemonizes(left: &str) -> String {
    format!("it daemonizes: it exited with 0 and left {left} behind; run it in the foreground")
}

/// Why nothing of a service is exec'd.
pub(crate) fn why_not(spec: &Spec, home: &str, stage: Stage, errno: Errno) -> String {
    let program = spec.command.first().map_or("", String::as_str);
    let what = match stage {
        Stage::Fork => "cannot create a process".to_owned(),
        Stage::Sign => format!("cannot sign {home}/journal"),
        Stage::Setup => "cannot set up the process".to_owned(),
        Stage::Cgroup => "cannot enter its cgroup".to_owned(),
        Stage::Option(at) => {
            let opt = OPTIONS.get(usize::from(at));
            let value = |opt: &Opt| format!("cannot set {} {}", opt.label, text_of(&opt.get(spec)));
            let text = opt.map_or(String::new(), value);
            if errno == Errno::NOENT {
                return text + ": no such name";
            }
            text
        }
        Stage::Directory => format!("cannot enter {}", *spec.cwd),
        Stage::Log => format!("cannot open its log in {home}/logs"),
        Stage::Exec => format!("cannot execute {program}"),
        Stage::Killed => return format!("killed before it could execute {program}"),
        Stage::Interpreter => format!("cannot execute {program}: its interpreter"),
    };
    format!("{what}: {}", describe(errno))
}
