//! One turn of the loop: gather, decide, act, answer.
//!
//! Facts first (what exited, which orphans came), then requests, then the tick. Every wake-up is
//! a hint: whoever handles it looks for itself. Actions never feed the machine from within; what
//! they bring comes back as an input. Nothing here reads a clock, a socket or /proc but through
//! [`Kernel`], so that the simulator runs all of it.
pub mod adopt;
mod departure;
pub mod events;
pub mod generations;
pub mod launch;
pub mod ledger;
pub mod log;
mod recovery;
mod relocate;
pub mod requests;
pub mod server;
pub mod service;
pub(crate) mod services;
pub mod trees;
pub mod vecmap;

pub use server::startup::{can_take_over, self_check, serve, serve_with};

use crate::mutant::mutant;
use crate::process::journal_format::Header;
use crate::process::mark::LimitMark;
use crate::process::stat::parse_cmdline;
use crate::process::{Exit, Identity, Pid};
use crate::service::machine::{Action, Ending, Generation, Input, Phase, Time};
use crate::service::spec::{Id, join};
use crate::sys::{Kernel, Streams, Wake};
use crate::wire::{Reply, Status};
use events::Events;
use ledger::Ledger;
use requests::wait::Waiters;
use service::Service;
use services::Services;
use std::collections::{HashMap, VecDeque};
use trees::{Tree, Trees};
use vecmap::VecSet;

/// Who asked; the loop's own numbering.
pub type ClientId = u64;

/// Why the loop should end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Services stay.
    Quit,
    /// Become this program.
    Exec(String),
}

/// The daemon without its sockets.
#[derive(Debug)]
pub struct Daemon<K: Kernel> {
    pub kernel: K,
    /// Absolute path of the home.
    pub home: String,
    pub(crate) header: Header,
    pub(crate) own: Identity,
    pub(crate) mark: Option<LimitMark>,
    /// Marks that this daemon was itself started under, to hand on to its services.
    pub(crate) outer: Option<String>,
    pub(crate) trees: Trees<K>,
    pub(crate) services: Services<K>,
    pub(crate) now: Time,
    /// When this daemon began, on the loop's clock.
    pub(crate) began: Time,
    deadlines: VecSet<(Time, Id)>,
    pub(crate) launches: VecDeque<(Id, Generation)>,
    actions: Vec<Action>,
    pub(crate) ledger: Ledger<K::File>,
    pub(crate) events: Events,
    pub(crate) waiters: Waiters,
    /// Who sent the request at hand.
    pub(crate) asker: Pid,
    pub outbox: Vec<(ClientId, Reply)>,
    pub leave: Option<Leave>,
    /// The home's path leads elsewhere: nothing is launched until it is found again.
    pub(crate) home_lost: bool,
    /// Nothing was on record when this daemon began.
    pub(crate) home_is_new: bool,
    /// For daemon.log.
    pub log: Vec<String>,
    /// By name: whose output does not go to log files.
    pub(crate) foreground: HashMap<String, Streams>,
}

/// So much of a command is told where it is not asked for.
const COMMAND_CHARS_MAX: usize = 80;
/// So many leaders that died in one turn are not the last ones.
const DEATHS_MANY: usize = 8;
/// How long deaths are gathered for one count.
const COUNT_DELAY_MS: u64 = 3;

impl<K: Kernel> Daemon<K> {
    /// Facts: what the wake-ups hint at, looked at for ourselves. `child_signal`: SIGCHLD came.
    pub fn gather(&mut self, wakes: &[Wake], child_signal: bool) {
        self.now = self.kernel.now();
        self.trees.counted = false;
        let mut leaders: VecSet<Id> = VecSet::new();
        let mut changed = child_signal;
        for wake in wakes {
            match *wake {
                Wake::Launch(id) => self.check_launch(id),
                Wake::Leader(_) if mutant("drop_wake") => {}
                Wake::Leader(id) => drop(leaders.insert(id)),
                Wake::Member(pid) => {
                    self.trees.dead_orphans.push(pid);
                    changed = true;
                }
            }
        }
        if child_signal {
            leaders.append(&mut self.trees.traced);
            let unwatched = self.trees.orphans.iter().filter(|(_, orphan)| !orphan.watched);
            self.trees.dead_orphans.extend(unwatched.map(|(pid, _)| *pid));
        }
        if self.trees.look_again_at.is_some_and(|at| at <= self.now) {
            self.trees.look_again_at = None;
            self.ask_mute_orphans();
            leaders.append(&mut self.trees.traced);
            for id in std::mem::take(&mut self.trees.unwatched) {
                self.watch_run(id);
                self.check_launch(id);
                leaders.insert(id);
            }
            changed = true;
        }
        for id in leaders {
            let exit = self.look_at_leader(id);
            self.trees.dead.extend(exit.map(|exit| (id, exit)));
        }
        self.trees.uncounted |= changed;
        if self.awaits_more_deaths() {
            return;
        }
        self.trees.count_at = None;
        let dead = std::mem::take(&mut self.trees.dead);
        if std::mem::take(&mut self.trees.uncounted) || !dead.is_empty() {
            self.count_children();
        }
        for (id, exit) in dead {
            self.leader_exited(id, exit);
        }
        self.check_gates();
    }

    /// Counting reads all our children, and one count serves every death before it: when many die
    /// at once, by a stop of all or by somebody's hand, a few milliseconds of them are counted
    /// together. A single death never waits.
    fn awaits_more_deaths(&mut self) -> bool {
        if self.trees.dead.len() < DEATHS_MANY {
            return false;
        }
        let until = *self.trees.count_at.get_or_insert(self.now + COUNT_DELAY_MS);
        self.now < until
    }

    /// What is due, what is to be launched, what is to be written down, who is to be answered.
    pub fn tick(&mut self) {
        self.now = self.kernel.now();
        while let Some((at, id)) = self.deadlines.first().copied() {
            if at > self.now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(service) = self.services.get_mut(id) {
                service.deadline = None;
            }
            let daemonized = self.daemonized(id).map(Input::Daemonized);
            self.feed(id, daemonized.unwrap_or(Input::Tick));
        }
        self.check_gates();
        self.run_launches();
        self.expire_pending();
        self.answer_touched();
        self.write_dirty();
    }

    /// When the next tick or look has something to do.
    pub fn deadline(&self) -> Option<Time> {
        if !self.launches.is_empty() && !self.home_lost {
            return Some(self.now);
        }
        let services = self.deadlines.first().map(|(at, _)| *at);
        let requests = self.waiters.pending.values().filter_map(|pending| pending.deadline).min();
        services
            .into_iter()
            .chain(requests)
            .chain(self.trees.look_again_at)
            .chain(self.trees.count_at)
            .min()
    }

    /// Wake-ups were lost: everything is looked at in the next turn.
    pub fn look_at_all(&mut self) {
        let live = self.services.iter();
        for service in live.filter(|service| service.run.is_some()) {
            self.trees.unwatched.insert(service.id);
        }
        self.trees.dead_orphans.extend(self.trees.orphans.keys().copied());
        self.trees.look_again_at = Some(self.now);
    }

    pub(crate) fn run(&self, id: Id) -> Option<&Tree<K>> {
        self.services.get(id)?.run.as_ref()
    }

    pub(crate) fn run_mut(&mut self, id: Id) -> Option<&mut Tree<K>> {
        self.services.get_mut(id)?.run.as_mut()
    }

    /// Every service, by id.
    pub fn all_services(&self) -> impl Iterator<Item = &Service<K>> {
        self.services.iter()
    }

    /// Whether a leader has really exited, and how. None: not yet, or not to be known yet.
    fn look_at_leader(&mut self, id: Id) -> Option<Exit> {
        let service = self.services.get_mut(id)?;
        let run = service.run.as_mut().filter(|run| run.exit.is_none())?;
        let pidfd = run.pidfd.as_ref()?;
        if !run.child {
            let dead = self.kernel.is_dead(pidfd).unwrap_or(false);
            return dead.then(|| self.kernel.exit_of_stranger(pidfd, run.leader.pid));
        }
        match self.kernel.wait(pidfd, false) {
            Ok(Some(exit)) => Some(exit),
            // Alive; or traced: then the status is the tracer's until it lets go, and mio's edge
            // is spent.
            Ok(None) => {
                if self.kernel.is_dead(pidfd).unwrap_or(false) {
                    self.trees.traced.insert(id);
                }
                None
            }
            Err(_) => {
                run.child = false;
                self.trees.leaders.remove(&run.leader.pid);
                Some(self.kernel.exit_of_stranger(pidfd, run.leader.pid))
            }
        }
    }

    fn leader_exited(&mut self, id: Id, exit: Exit) {
        self.check_launch(id);
        let wall = self.kernel.wall();
        let Some(service) = self.services.get_mut(id) else {
            return;
        };
        let Some(run) = service.run.as_mut().filter(|run| run.exit.is_none()) else {
            return;
        };
        run.exit = Some(exit);
        let generation = run.generation;
        self.trees.gates.insert(id);
        if run.failure.is_some() {
            return;
        }
        let ending = if exit == Exit::Code(0) { Ending::Clean } else { Ending::Failure };
        let kills = service.machine.policy().stop_signal.number() == libc::SIGKILL;
        let killed = run.kills > 0 || kills && run.asked.is_some();
        service.exit = Some(exit);
        service.by_opm = killed && exit == Exit::Signal(libc::SIGKILL);
        service.exited_at = wall;
        service.note = None;
        let pid = run.leader.pid;
        self.announce_exit(id, generation, pid, exit);
        self.feed(id, Input::LeaderExited(generation, ending));
        // It was stopping already: what is left has not been asked yet.
        self.terminate_rest(id);
    }

    /// Steps a machine and does what it says.
    pub(crate) fn feed(&mut self, id: Id, input: Input) {
        let mut actions = std::mem::take(&mut self.actions);
        let Some(service) = self.services.get_mut(id) else {
            return;
        };
        self.ledger.sequence.0 = generations::skipped(self.ledger.sequence.0, &self.trees.strays);
        let restarts = service.machine.restarts();
        if service.run.is_none() && matches!(input, Input::Start | Input::Stop | Input::Restart) {
            service.killed = None;
        }
        match input {
            Input::Stop => service.halted = true,
            Input::Start | Input::Restart => service.halted = false,
            Input::Spawned(_)
            | Input::SpawnFailed(..)
            | Input::LeaderExited(..)
            | Input::Daemonized(_)
            | Input::Emptied(_)
            | Input::Tick => {}
        }
        service.machine.step(self.now, input, &mut self.ledger.sequence, &mut actions);
        if service.machine.restarts() > restarts {
            service.restarted_at = self.kernel.wall();
        }
        // The operator's word is on record before the signal goes out: whoever kills us in
        // between, the next daemon goes on stopping.
        let is_written = input == Input::Stop && !actions.is_empty() && self.write_slot(id);
        for action in actions.drain(..) {
            match action {
                Action::Spawn(generation) => self.queue_launch(id, generation),
                Action::Terminate(_) => self.terminate(id),
                Action::KillTree(_) => self.kill_tree(id),
            }
        }
        self.actions = actions;
        // An exec changes nothing that the launch has not written down, a signal nothing at all.
        if !is_written && !matches!(input, Input::Spawned(_)) {
            self.ledger.dirty.insert(id);
        }
        self.after_step(id);
    }

    /// Announces what changed, and keeps timer, journal and waiters up to date.
    pub(crate) fn after_step(&mut self, id: Id) {
        let Some(service) = self.services.get_mut(id) else {
            return;
        };
        let deadline = service.machine.deadline();
        if deadline != service.deadline {
            if let Some(old) = service.deadline {
                self.deadlines.remove(&(old, id));
            }
            if let Some(new) = deadline {
                self.deadlines.insert((new, id));
            }
            service.deadline = deadline;
        }
        self.waiters.changed.insert(id);
        let (before, status) = (service.announced, service.status());
        service.announced = status;
        if before != status {
            self.announce_status(id, status);
        }
        let gone = matches!(status, Status::Stopped | Status::Errored);
        if gone
            && self
                .services
                .get(id)
                .is_some_and(|service| service.removing && service.run.is_none())
        {
            self.forget(id);
        }
    }

    /// Writes down what changed. What can't be written is tried again at the next change.
    fn write_dirty(&mut self) {
        if mutant("forget_state") {
            self.ledger.dirty.clear();
        }
        let mut failed = VecSet::new();
        for id in std::mem::take(&mut self.ledger.dirty) {
            if !self.write_slot(id) {
                failed.insert(id);
            }
        }
        self.ledger.dirty = failed;
        for (id, state) in std::mem::take(&mut self.ledger.removed_slots) {
            let taken = self.services.get(id).is_some();
            if !taken && self.ledger.journal.write(&mut self.kernel, id, &state).is_err() {
                self.ledger.removed_slots.push((id, state));
            }
        }
        if !self.ledger.dirty.is_empty() || !self.ledger.removed_slots.is_empty() {
            self.trees.look_again_at.get_or_insert(self.now + trees::drain::LOOK_AGAIN_MS);
        }
        if self.ledger.definitions.wants_compaction() {
            let services = self.services.iter();
            let lines = services.map(|service| (service.line, service.id, &service.definition));
            if let Err(errno) = self.ledger.definitions.compact(&mut self.kernel, lines) {
                self.ledger.disk_error =
                    Some(format!("cannot rewrite {}/services: {errno}", self.home));
            }
        }
    }

    /// Writes the daemon's half of a slot; whether that went well.
    pub(crate) fn write_slot(&mut self, id: Id) -> bool {
        let Some(state) = self.services.get(id).map(Service::state) else {
            return true;
        };
        match self.ledger.journal.write(&mut self.kernel, id, &state) {
            Ok(()) => true,
            Err(errno) => {
                self.ledger.disk_error =
                    Some(format!("cannot write {}/journal: {errno}", self.home));
                false
            }
        }
    }

    /// A leader ended well, and what it left behind lives on: notes who, and gives its generation.
    fn daemonized(&mut self, id: Id) -> Option<Generation> {
        let service = self.services.get(id)?;
        let Phase::Lingering { .. } = service.machine.phase() else {
            return None;
        };
        let generation = service.run.as_ref()?.generation;
        let pid = self.survivor(id)?;
        let words = self.kernel.cmdline(pid).map(|text| parse_cmdline(&text)).unwrap_or_default();
        let command: String = join(&words).chars().take(COMMAND_CHARS_MAX).collect();
        let text = format!(
            "it daemonizes: it exited with 0 and left pid {pid} ({command}) behind; run it in the \
             foreground"
        );
        self.services.get_mut(id)?.note = Some(text.into());
        Some(generation)
    }
}

#[cfg(test)]
mod tests;
