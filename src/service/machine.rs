//! One service: a pure, total state machine.
//!
//! It never reads a clock, a file or a process table. It is told what happened ([`Input`]) and
//! says what to do ([`Action`]).
//!
//! # At most one live incarnation
//!
//! A service owns exactly one token for its whole life: a [`Vacancy`] while no process of it can
//! exist, an [`Incarnation`] from the moment a spawn is asked for until the kernel has confirmed
//! that every process of that generation is gone. Neither can be cloned or made outside this
//! file; `spawn` is the only way from the one to the other, `settle` the only way back. Losing a
//! token leaves a service stuck, never doubled.
//!
//! | phase | transitions |
//! |---|---|
//! | Down, Cooldown, Failed | Start, Restart: spawn, tally cleared. Stop: Down. Tick when due: spawn |
//! | Starting | Spawned: Up. Stop: signal, Stopping. SpawnFailed: Failed if asked for, else settle |
//! | Up | Ready: ready. Stop, Restart, Fail, Renew: signal, Stopping. LeaderExited: Stopping, since the tree must drain; with 0: Lingering; for good: goal Down |
//! | Lingering | Emptied: settle. Daemonized, Tick when due, Start, Stop, Restart: signal, Stopping |
//! | Stopping | Tick at `kill_at`: KillTree, again at an interval. Only Emptied (or SpawnFailed) settles |
//! | settle | goal Down: Down. Asked for: spawn. Died: spawn, Cooldown, Failed or Down by policy |
mod step;

use super::shared::Shared;
use super::spec::Policy;
use crate::mutant::mutant;
use step::Step;

/// Milliseconds on a clock that never goes back (`CLOCK_BOOTTIME`).
pub type Time = u64;

/// Names one incarnation. One sequence for the whole home, never used twice, unlike a pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// The right to start: nothing of the service lives.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Vacancy(());

/// The duty to confirm the end of this generation before anything else starts.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(Generation);

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    Up,
    Down,
}

/// Why an incarnation is going away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// By stop or restart.
    Asked,
    /// By a monitor.
    Advised,
    /// By itself: how it ended, and whether it was young.
    Died { ending: Ending, quick: bool },
    /// It put itself into the background, where nothing can say which process it is.
    Daemonized,
    /// The machine had no room for a process; not the service's fault.
    Crowded,
}

/// How a leader ended, as far as the policy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Exit code 0.
    Clean,
    /// As its policy says that it may end for good.
    Final,
    /// Another code, a signal, or unknown.
    Failure,
}

/// Why a spawn failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The program, its directory or its log file.
    Program,
    /// Out of processes, memory, descriptors or disk.
    Machine,
}

/// What is true now.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing runs, nothing is due.
    Down(Vacancy),
    /// Nothing runs; a restart is due `delay` after `since`.
    Cooldown { vacancy: Vacancy, since: Time, delay: Time },
    /// Nothing runs; it needs the operator.
    Failed(Vacancy),
    /// A spawn was asked for and is not yet answered. `asked`: by the operator.
    Starting { run: Incarnation, asked: bool },
    /// The leader runs; and does its work, as far as a monitor can tell.
    Up { run: Incarnation, since: Time, ready: bool },
    /// The leader has ended well, and what it left behind may end by itself until then.
    Lingering { run: Incarnation, quick: bool, until: Time },
    /// The incarnation must go: it was asked, and is killed from `kill_at` on. Also the drain.
    Stopping { run: Incarnation, cause: Cause, kill_at: Time },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    Start,
    Stop,
    Restart,
    /// Time passed. Spurious ticks do nothing.
    Tick,
    /// What happened to an incarnation.
    News(Generation, News),
}

/// What happened to an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// The leader has exec'd.
    Spawned,
    /// A monitor says that it does its work.
    Ready,
    /// A monitor says that it does not.
    Fail,
    /// A monitor advises another incarnation in place of this one.
    Renew,
    SpawnFailed(Fault),
    LeaderExited(Ending),
    /// What a leader that has ended well left behind goes on living.
    Daemonized,
    /// The kernel confirmed that nothing of it lives. The last word on it.
    Emptied,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Start a leader.
    Spawn(Generation),
    /// Send the stop signal to the whole of it.
    Terminate(Generation),
    /// Kill the whole of it.
    KillTree(Generation),
}

/// Where generations come from; one for all services of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    fn next(&mut self) -> Generation {
        self.0 += 1;
        Generation(self.0)
    }
}

/// Where a service stands when a daemon takes it over from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Confirmed empty, and nothing is due.
    Down,
    /// Confirmed empty, after too many deaths.
    Failed,
    /// Confirmed empty, to be started `delay` from now.
    Due { delay: Time },
    /// Of this generation something may live: its leader, or what must drain.
    Alive { generation: Generation, since: Time, ready: bool },
}

/// One service's machine.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    policy: Shared<Policy>,
    goal: Goal,
    /// Quick deaths in a row.
    deaths: u32,
    restarts: u64,
    /// None only inside `step`.
    phase: Option<Phase>,
}

impl Machine {
    /// A service that never ran.
    pub fn new(policy: impl Into<Shared<Policy>>) -> Self {
        Self::resume(policy, Goal::Down, 0, 0, Past::Down, 0)
    }

    /// A service as an earlier daemon left it. Starts nothing by itself: the first `Tick` does.
    pub fn resume(
        policy: impl Into<Shared<Policy>>,
        goal: Goal,
        deaths: u32,
        restarts: u64,
        past: Past,
        now: Time,
    ) -> Self {
        let phase = match past {
            Past::Down => Phase::Down(Vacancy(())),
            Past::Failed => Phase::Failed(Vacancy(())),
            Past::Due { delay } => Phase::Cooldown { vacancy: Vacancy(()), since: now, delay },
            Past::Alive { generation, since, ready } => {
                Phase::Up { run: Incarnation(generation), since, ready }
            }
        };
        Self { policy: policy.into(), goal, deaths, restarts, phase: Some(phase) }
    }

    /// Advances the machine. Total: every input is legal in every phase.
    pub fn step(
        &mut self,
        now: Time,
        input: Input,
        sequence: &mut Sequence,
        out: &mut Vec<Action>,
    ) {
        match input {
            Input::News(generation, news) if self.is_stale(generation, news) => return,
            Input::Start | Input::Restart => self.goal = Goal::Up,
            Input::Stop => self.goal = Goal::Down,
            Input::Tick | Input::News(..) => {}
        }
        let Some(phase) = self.phase.take() else {
            return;
        };
        let mut step = Step { machine: self, now, sequence, out };
        let phase = match phase {
            Phase::Down(vacancy) => step.idle(vacancy, input, Phase::Down),
            Phase::Failed(vacancy) => step.idle(vacancy, input, Phase::Failed),
            Phase::Cooldown { vacancy, since, delay } => {
                step.cooldown(vacancy, since, delay, input)
            }
            Phase::Starting { run, asked } => step.starting(run, asked, input),
            Phase::Up { run, since, ready } => step.up(run, since, ready, input),
            Phase::Lingering { run, quick, until } => step.lingering(run, quick, until, input),
            Phase::Stopping { run, cause, kill_at } => step.stopping(run, cause, kill_at, input),
        };
        self.phase = Some(phase);
    }

    /// The next time at which a `Tick` does something.
    pub fn deadline(&self) -> Option<Time> {
        match self.phase.as_ref()? {
            Phase::Cooldown { since, delay, .. } => Some(since.saturating_add(*delay)),
            Phase::Stopping { kill_at, .. } => Some(*kill_at),
            Phase::Lingering { until, .. } => Some(*until),
            Phase::Down(_) | Phase::Failed(_) | Phase::Starting { .. } | Phase::Up { .. } => None,
        }
    }

    /// What is true now.
    pub fn phase(&self) -> &Phase {
        static LOST: Phase = Phase::Failed(Vacancy(()));
        self.phase.as_ref().unwrap_or(&LOST)
    }

    pub fn goal(&self) -> Goal {
        self.goal
    }

    /// Whether the incarnation does its work, as far as a monitor can tell.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase(), Phase::Up { ready: true, .. })
    }

    /// Quick deaths in a row.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// Restarts, automatic and asked for, since the last reset.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Sets both counters to 0.
    pub fn reset(&mut self) {
        self.deaths = 0;
        self.restarts = 0;
    }

    /// What the current incarnation was started under.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What the next incarnation is started under.
    pub fn set_policy(&mut self, policy: impl Into<Shared<Policy>>) {
        self.policy = policy.into();
    }

    /// Keeps it only once, if the other is equal.
    pub fn share_policy(&mut self, other: &Shared<Policy>) {
        self.policy.share(other);
    }

    /// The incarnation that may have live processes, if there is one.
    pub fn generation(&self) -> Option<Generation> {
        match self.phase() {
            Phase::Down(_) | Phase::Cooldown { .. } | Phase::Failed(_) => None,
            Phase::Starting { run, .. }
            | Phase::Up { run, .. }
            | Phase::Lingering { run, .. }
            | Phase::Stopping { run, .. } => Some(run.0),
        }
    }

    /// The one place where news of another generation is dropped.
    fn is_stale(&self, generation: Generation, news: News) -> bool {
        let is_advice = matches!(news, News::Ready | News::Fail | News::Renew);
        let is_believed = mutant("accept_stale") || is_advice && mutant("stale_advice");
        !is_believed && self.generation() != Some(generation)
    }
}

impl Vacancy {
    fn occupy(self, sequence: &mut Sequence) -> Incarnation {
        Incarnation(sequence.next())
    }
}

impl Incarnation {
    fn vacate(self) -> Vacancy {
        Vacancy(())
    }
}

/// For the exhaustive checker only: it copies machines, tokens included, and renumbers them so
/// that states repeat.
#[cfg(debug_assertions)]
#[doc(hidden)]
#[path = "../../tests/inner/service_machine.rs"]
pub mod model;
