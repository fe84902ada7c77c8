//! Walks every reachable state of one service's machine in front of a hostile kernel.
//!
//! Safety is asserted on every move, liveness from every state. The kernel may be as mean as it
//! likes within its rules: stubborn leaders, forking descendants, an escapee in each kill round,
//! facts that come late, twice or out of order, ticks that mean nothing, a daemon that dies. The
//! mutants say that the walk would see a wrong machine.
#![allow(clippy::unwrap_used)]

use opm::service::machine::*;
use opm::service::spec::{Forgiven, Policy, Restart};
use opm::service::units::{Delay, Span};
use std::collections::{HashSet, VecDeque};

/// The machine's own constants are whole seconds, so that is the step of this clock.
const STEP: Time = 1_000;
const UPTIME: Time = 2 * STEP;
const INBOX_MAX: usize = 2;
const PROCS_MAX: usize = 3;
/// Fair rounds until the goal must be reached.
const ROUNDS: usize = 24;

fn policy(restart: Restart) -> Policy {
    Policy {
        restart,
        max_restarts: Forgiven(1),
        min_uptime: Span { ms: UPTIME },
        restart_delay: Delay { min_ms: STEP, max_ms: STEP },
        stop_timeout: Span { ms: STEP },
        ..Policy::default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Proc {
    generation: Generation,
    leader: bool,
    /// Ignores the stop signal.
    stubborn: bool,
    /// A fatal signal is on its way.
    doomed: bool,
}

/// A generation that the daemon looks after, and whether it has told of the leader's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Watched {
    generation: Generation,
    told: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct World {
    now: Time,
    machine: Machine,
    sequence: Sequence,
    spawning: Option<Generation>,
    procs: Vec<Proc>,
    inbox: Vec<Input>,
    watched: Vec<Watched>,
    /// A monitor has said that the newest incarnation does its work.
    ready: bool,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Operator(Input),
    SpawnOk {
        stubborn: bool,
    },
    SpawnFails(Fault),
    Fork {
        stubborn: bool,
    },
    Exit(usize),
    /// The daemon looks at the kernel and queues what it sees.
    Sweep(Ending),
    /// It sees that a leader has left something behind that lives.
    Judge,
    /// A monitor looks at the newest incarnation: it does its work, or another one is better.
    Advise(News),
    Deliver(usize),
    Double(usize),
    Elapse,
    SpuriousTick,
    Wait,
    /// The daemon dies; the next one resumes from the journal. A child that had not exec'd yet
    /// does so before, or never will.
    Resume {
        landed: bool,
    },
}

/// What only a sort needs; inputs have no order of their own.
fn rank(input: &Input) -> (u8, u64, u8) {
    let (generation, news) = match *input {
        Input::Start => return (0, 0, 0),
        Input::Stop => return (1, 0, 0),
        Input::Restart => return (2, 0, 0),
        Input::Tick => return (3, 0, 0),
        Input::News(generation, news) => (generation.0, news),
    };
    let (news, more) = match news {
        News::Spawned => (4, 0),
        News::SpawnFailed(fault) => (5, u8::from(fault == Fault::Machine)),
        News::LeaderExited(ending) => (6, ending as u8),
        News::Daemonized => (7, 0),
        News::Emptied => (8, 0),
        News::Ready => (9, 0),
        News::Renew => (10, 0),
        News::Fail => (11, 0),
    };
    (news, generation, more)
}

impl World {
    fn new(restart: Restart) -> Self {
        Self {
            now: UPTIME,
            machine: Machine::new(policy(restart)),
            sequence: Sequence(0),
            spawning: None,
            procs: vec![],
            inbox: vec![],
            watched: vec![],
            ready: false,
        }
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = vec![
            Move::Operator(Input::Start),
            Move::Operator(Input::Stop),
            Move::Operator(Input::Restart),
            Move::SpuriousTick,
            Move::Wait,
            Move::Resume { landed: false },
        ];
        if self.spawning.is_some() {
            moves.push(Move::Resume { landed: true });
            moves.extend([false, true].map(|stubborn| Move::SpawnOk { stubborn }));
            moves.extend([Fault::Program, Fault::Machine].map(Move::SpawnFails));
        }
        if !self.procs.is_empty() && self.procs.len() < PROCS_MAX {
            moves.extend([false, true].map(|stubborn| Move::Fork { stubborn }));
        }
        moves.extend((0..self.procs.len()).map(Move::Exit));
        if self.inbox.len() < INBOX_MAX {
            moves.extend([Ending::Clean, Ending::Final, Ending::Failure].map(Move::Sweep));
            moves.push(Move::Judge);
            if !self.watched.is_empty() && self.inbox.is_empty() {
                moves.extend([News::Ready, News::Renew, News::Fail].map(Move::Advise));
            }
            moves.extend((0..self.inbox.len()).map(Move::Double));
        }
        moves.extend((0..self.inbox.len()).map(Move::Deliver));
        if self.machine.deadline().is_some_and(|at| at != Time::MAX) {
            moves.push(Move::Elapse);
        }
        moves
    }

    fn apply(&mut self, a_move: Move) {
        match a_move {
            Move::Operator(input) => self.feed(input),
            Move::SpawnOk { stubborn } => self.spawn_ok(stubborn),
            Move::SpawnFails(fault) => {
                let generation = self.spawning.take().unwrap();
                self.inbox.push(Input::News(generation, News::SpawnFailed(fault)));
            }
            Move::Fork { stubborn } => {
                let parent = *self.procs.last().unwrap();
                self.procs.push(Proc { leader: false, stubborn, doomed: false, ..parent });
            }
            Move::Exit(index) => drop(self.procs.remove(index)),
            Move::Sweep(ending) => self.sweep(ending),
            Move::Judge => {
                let left = self.procs.iter().find(|p| !p.leader).map(|p| p.generation);
                self.inbox.extend(left.map(|it| Input::News(it, News::Daemonized)));
            }
            Move::Advise(advice) => {
                let newest = self.watched.iter().map(|watched| watched.generation).max().unwrap();
                self.ready |= advice == News::Ready;
                self.inbox.push(Input::News(newest, advice));
            }
            Move::Deliver(index) => {
                let input = self.inbox.remove(index);
                self.feed(input);
            }
            Move::Double(index) => self.inbox.push(self.inbox[index]),
            Move::Elapse => {
                self.now = self.now.max(self.machine.deadline().unwrap());
                self.feed(Input::Tick);
            }
            Move::SpuriousTick => self.feed(Input::Tick),
            Move::Wait => self.now += STEP,
            Move::Resume { landed } => self.resume(landed),
        }
        self.check_safety();
    }

    fn spawn_ok(&mut self, stubborn: bool) {
        let generation = self.spawning.take().unwrap();
        self.procs.push(Proc { generation, leader: true, stubborn, doomed: false });
        self.watched.push(Watched { generation, told: false });
        self.ready = false;
        self.inbox.push(Input::News(generation, News::Spawned));
    }

    fn sweep(&mut self, ending: Ending) {
        let (procs, inbox) = (&self.procs, &mut self.inbox);
        self.watched.retain_mut(|watched| {
            let of = |p: &&Proc| p.generation == watched.generation;
            if !watched.told && !procs.iter().filter(of).any(|p| p.leader) {
                inbox.push(Input::News(watched.generation, News::LeaderExited(ending)));
                watched.told = true;
            }
            let any = procs.iter().filter(of).count() > 0;
            if !any {
                inbox.push(Input::News(watched.generation, News::Emptied));
            }
            any
        });
    }

    /// What the journal says is all that the next daemon knows: goal and counters, and whether
    /// the last generation signed in without having been confirmed gone.
    fn resume(&mut self, landed: bool) {
        if landed {
            self.spawn_ok(false);
        }
        let spawning = self.spawning.take();
        let alive = self.machine.generation().filter(|g| Some(*g) != spawning);
        let past = match (alive, self.machine.phase()) {
            (Some(generation), _) => Past::Alive { generation, since: self.now, ready: self.ready },
            (None, Phase::Failed(_)) => Past::Failed,
            _ if self.machine.goal() == Goal::Up => Past::Due { delay: 0 },
            _ => Past::Down,
        };
        let (goal, deaths) = (self.machine.goal(), self.machine.deaths());
        let policy = *self.machine.policy();
        self.machine = Machine::resume(policy, goal, deaths, 0, past, self.now);
        self.inbox.clear();
        self.watched = alive.map_or(vec![], |generation| vec![Watched { generation, told: false }]);
        self.ready &= alive.is_some();
        if alive.is_some() && goal == Goal::Down {
            self.feed(Input::Stop);
        }
        self.feed(Input::Tick);
    }

    fn feed(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.machine.step(self.now, input, &mut self.sequence, &mut actions);
        for action in actions {
            match action {
                Action::Spawn(generation) => {
                    assert!(self.procs.is_empty(), "spawn beside a live process");
                    assert!(self.spawning.is_none(), "spawn beside a pending spawn");
                    self.spawning = Some(generation);
                }
                Action::Terminate(generation) => {
                    let mine = |p: &&mut Proc| p.leader && p.generation == generation;
                    for leader in self.procs.iter_mut().filter(mine) {
                        leader.doomed |= !leader.stubborn;
                    }
                }
                Action::KillTree(generation) => {
                    // One that is forked during the walk escapes this round: the last one stays
                    // unless it is alone.
                    let last = self.procs.len() - usize::from(!self.procs.is_empty());
                    for (at, p) in self.procs.iter_mut().enumerate() {
                        p.doomed |= p.generation == generation && (at < last || last == 0);
                    }
                }
            }
        }
    }

    fn check_safety(&self) {
        let live = self.procs.iter().map(|p| p.generation);
        let mut live: Vec<_> = live.chain(self.spawning).collect();
        live.dedup();
        assert!(live.len() <= 1, "two live incarnations: {live:?}");
        assert!(self.ready || !self.machine.is_ready(), "ready, and nobody said so");
    }

    /// Under a fair kernel and a silent operator the goal is reached.
    fn check_liveness(mut self) {
        for _ in 0..ROUNDS {
            if self.spawning.is_some() {
                self.apply(Move::SpawnOk { stubborn: false });
            }
            self.procs.retain(|p| !p.doomed);
            self.sweep(Ending::Failure);
            while !self.inbox.is_empty() {
                self.apply(Move::Deliver(0));
            }
            if self.machine.deadline().is_some_and(|at| at != Time::MAX) {
                self.apply(Move::Elapse);
            }
        }
        let reached = match (self.machine.goal(), self.machine.phase()) {
            (Goal::Down, Phase::Down(_)) | (Goal::Up, Phase::Failed(_)) => self.procs.is_empty(),
            (Goal::Up, Phase::Up { .. }) => self.procs.iter().any(|p| p.leader),
            _ => false,
        };
        assert!(reached, "goal not reached: {self:?}");
    }

    /// A copy with time and generations renumbered, so that states repeat: the newest
    /// generation is 1, all before it are 0, and now is always the same.
    fn canonical(&self) -> World {
        let newest = self.sequence.0;
        let g = |n: Generation| Generation(u64::from(n.0 == newest && newest > 0));
        let t = |time: Time| (time + UPTIME).saturating_sub(self.now);
        let mut procs: Vec<_> = self.procs.clone();
        procs.iter_mut().for_each(|p| p.generation = g(p.generation));
        let mut inbox: Vec<_> = self.inbox.iter().map(|input| renumber(*input, g)).collect();
        inbox.sort_by_key(rank);
        World {
            now: UPTIME,
            machine: model::copy(&self.machine, t, g),
            sequence: Sequence(u64::from(newest > 0)),
            spawning: self.spawning.map(g),
            ready: self.ready,
            procs,
            inbox,
            watched: self
                .watched
                .iter()
                .map(|w| Watched { generation: g(w.generation), ..*w })
                .collect(),
        }
    }
}

fn renumber(input: Input, g: impl Fn(Generation) -> Generation) -> Input {
    match input {
        Input::News(generation, news) => Input::News(g(generation), news),
        Input::Start | Input::Stop | Input::Restart | Input::Tick => input,
    }
}

fn explore(restart: Restart) -> usize {
    let first = World::new(restart).canonical();
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([first]);
    while let Some(world) = queue.pop_front() {
        if seen.contains(&world) {
            continue;
        }
        world.canonical().check_liveness();
        for a_move in world.moves() {
            let mut next = world.canonical();
            next.apply(a_move);
            let next = next.canonical();
            if !seen.contains(&next) {
                queue.push_back(next);
            }
        }
        seen.insert(world);
    }
    eprintln!("{restart:?}: {} states", seen.len());
    seen.len()
}

#[test]
fn a_service_that_always_restarts_is_safe_and_live_from_every_state() {
    assert!(explore(Restart::Always) > 10_000);
}

#[test]
fn a_service_that_restarts_on_failure_is_safe_and_live_from_every_state() {
    assert!(explore(Restart::OnFailure) > 10_000);
}

#[test]
fn a_service_that_never_restarts_is_safe_and_live_from_every_state() {
    assert!(explore(Restart::Never) > 1_000);
}

/// What the walk says of a wrong machine.
#[cfg(debug_assertions)]
fn verdict(mutant: &'static str) -> String {
    let wrong = std::thread::spawn(move || {
        opm::mutant::set_mutant(mutant);
        explore(Restart::Always)
    });
    let Err(panic) = wrong.join() else {
        return "not caught".to_owned();
    };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

#[cfg(debug_assertions)]
macro_rules! is_caught {
    ($($claim:ident: $mutant:literal, by $words:literal;)*) => {$(
        #[test]
        fn $claim() {
            let verdict = verdict($mutant);
            assert!(verdict.starts_with($words), "{}: {verdict}", $mutant);
        }
    )*};
}

#[cfg(debug_assertions)]
is_caught! {
    settling_without_a_drain_is_caught: "skip_drain", by "spawn beside";
    taking_the_leader_for_the_tree_is_caught: "leader_is_all", by "goal not reached";
    restarting_before_the_end_is_caught: "eager_restart", by "spawn beside";
    believing_news_of_the_past_is_caught: "accept_stale", by "goal not reached";
    believing_advice_on_the_past_is_caught: "stale_advice", by "ready, and nobody said so";
    forgetting_a_stop_during_a_spawn_is_caught: "forget_stop", by "goal not reached";
    killing_only_once_is_caught: "kill_once", by "goal not reached";
    waiting_for_ever_for_what_is_left_is_caught: "linger", by "goal not reached";
}
