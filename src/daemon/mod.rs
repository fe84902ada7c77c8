//! One turn of the loop: gather, decide, act, answer.
//!
//! Facts first (what exited, which orphans came), then requests, then the tick. Every wake-up is
//! a hint: whoever handles it looks for itself. Actions never feed the machine from within; what
//! they bring comes back as an input. Nothing here reads a clock, a socket or /proc but through
//! [`Kernel`], so that the simulator runs all of it.
//!
//! Rooms: [`trees`] is the law, what lives of each incarnation; [`ledger`] what is on record;
//! [`requests`] what is asked, and what waits; [`monitors`] advise; [`server`] is the event loop.
//! `learn` is where facts and advice become inputs of the machines, and orders leave them.
pub mod adopt;
mod departure;
pub mod events;
pub mod launch;
mod learn;
pub mod ledger;
pub mod log;
pub mod logs;
pub mod monitors;
pub mod requests;
pub mod server;
pub mod service;
pub(crate) mod services;
mod timers;
pub(crate) mod trees;

pub use server::startup::{can_take_over, self_check, serve, serve_with};

use crate::process::Pid;
use crate::process::stat::Stat;
use crate::service::environment::{in_home, log_paths};
use crate::service::machine::{Generation, Input, Time};
use crate::service::probe::Question;
use crate::service::spec::Id;
use crate::sys::{Kernel, Wake};
use crate::wire::Reply;
use events::Events;
use launch::Launches;
use ledger::Ledger;
use logs::Logs;
use monitors::Monitors;
use requests::wait::Waiters;
use service::Service;
use services::Services;
use timers::{Timer, Timers};
use trees::{Cx, Trees};

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
    pub(crate) trees: Trees<K>,
    pub(crate) services: Services,
    pub(crate) now: Time,
    /// When this daemon began, on the loop's clock.
    pub(crate) began: Time,
    pub(crate) timers: Timers,
    monitors: Monitors,
    pub(crate) launches: Launches,
    pub(crate) ledger: Ledger<K>,
    pub(crate) events: Events,
    pub(crate) logs: Logs,
    pub(crate) waiters: Waiters,
    pub outbox: Vec<(ClientId, Reply)>,
    pub leave: Option<Leave>,
    /// For daemon.log.
    pub log: Vec<String>,
}

impl<K: Kernel> Daemon<K> {
    /// Facts: what the wake-ups hint at, looked at for ourselves. `child_signal`: SIGCHLD came.
    pub fn gather(&mut self, wakes: &[Wake], child_signal: bool) {
        self.now = self.kernel.now();
        let mut facts = Vec::new();
        self.with_trees(|trees, cx| trees.gather(cx, wakes, child_signal, &mut facts));
        self.learn(facts);
    }

    /// What is due, what is to be launched, what is to be written down, who is to be answered.
    pub fn tick(&mut self) {
        self.now = self.kernel.now();
        let mut late = Vec::new();
        while let Some(timer) = self.timers.pop(self.now) {
            match timer {
                Timer::Machine(id) => self.due(id),
                Timer::Cron(id) => self.ask(id, |monitors, cx, of| monitors.crons.due(cx, of)),
                Timer::Watch(id) => self.ask(id, |monitors, cx, of| monitors.watches.due(cx, of)),
                Timer::Memory(id) => self.measure(id),
                Timer::Check(question, id) => self.question(question, id),
                Timer::Request(number) => late.push(number),
                Timer::Log(id) => self.look_at_logs(id),
                Timer::Settling(id) => drop(self.waiters.changed.insert(id)),
                // What is dirty is written in every turn.
                Timer::Ledger => {}
            }
        }
        self.take_advice();
        while let Some(id) = self.launches.stops_due.pop() {
            self.feed(id, Input::Stop);
        }
        let mut facts = Vec::new();
        self.with_trees(|trees, cx| trees.check_gates(cx, &mut facts));
        self.learn(facts);
        self.run_launches();
        for number in late {
            self.expire(number);
        }
        self.answer_changed();
        if self.ledger.write_changes(&mut self.kernel, &self.services) {
            self.timers.set(Timer::Ledger, None);
        } else if !self.timers.is_set(Timer::Ledger) {
            // Not in each turn: it looks at every log.
            self.log.extend(logs::room::give_way(&self.home));
            self.timers.set(Timer::Ledger, Some(self.now + trees::LOOK_AGAIN_MS));
        }
    }

    /// When the next tick or look has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let is_launching = !self.launches.queue.is_empty() && !self.launches.home_lost;
        if is_launching || !self.launches.stops_due.is_empty() {
            return Some(self.now);
        }
        if self.logs.is_busy() {
            return Some(self.now);
        }
        self.timers.next().into_iter().chain(self.trees.deadline()).min()
    }

    /// From here on logs are looked at; those of what was adopted soon.
    pub(crate) fn follow_logs(&mut self, registry: &mio::Registry) {
        if let Err(error) = self.logs.open(registry, &self.home) {
            self.log.push(format!("logs are not watched, and not rotated: {error}"));
        }
        for service in self.services.iter() {
            self.logs.follow(service.id, self.now, &mut self.timers);
            let spec = &service.definition.spec;
            if service.is_live() && !self.launches.foreground.contains_key(&spec.name) {
                self.logs.carry(service.id, spec, &self.home);
            }
        }
    }

    fn look_at_logs(&mut self, id: Id) {
        let Some(service) = self.services.get(id) else { return };
        let spec = &service.definition.spec;
        if !self.launches.foreground.contains_key(&spec.name) {
            let paths = log_paths(spec).map(|path| in_home(&self.home, &path));
            let times = (self.now, self.kernel.wall());
            let next = self.logs.look(id, &spec.log, &paths, times, &self.home);
            self.timers.set(Timer::Log(id), next);
        }
    }

    /// One step of what is to be done with logs, and what came of it. Not in a tick: what that has
    /// answered leaves first.
    pub(crate) fn tend_logs(&mut self) {
        if self.logs.is_busy() {
            self.logs.work(&self.home, self.kernel.wall());
        }
        for pid in std::mem::take(&mut self.logs.compressing) {
            self.with_trees(|trees, cx| trees.note_departure(cx, pid, None));
        }
        for (id, text) in std::mem::take(&mut self.logs.news) {
            let generation = self.services.get(id).map_or(0, |service| service.record.generation);
            self.emit(id, Generation(generation), "log", |event| event.reason = Some(text));
        }
    }

    /// Wake-ups were lost: everything is looked at in the next turn.
    pub fn look_at_all(&mut self) {
        self.trees.look_at_all(self.now);
    }

    /// The trees, with what they are looked at with.
    pub(crate) fn with_trees<T>(
        &mut self,
        look: impl FnOnce(&mut Trees<K>, &mut Cx<'_, K>) -> T,
    ) -> T {
        let mut cx = context(&mut self.kernel, &mut self.ledger, self.now, &mut self.log);
        look(&mut self.trees, &mut cx)
    }

    /// Looks what has become of a question to a service.
    pub(crate) fn question(&mut self, question: Question, id: Id) {
        self.with_monitors(id, |monitors, cx, _| monitors.checks.look(cx, question, id));
    }

    /// The monitors, with what they look with, and a service, if there is one of this id.
    pub(crate) fn with_monitors(
        &mut self,
        id: Id,
        look: impl FnOnce(&mut Monitors, &mut monitors::Cx<'_>, Option<&Service>),
    ) {
        let mut advice = std::mem::take(&mut self.monitors.advice);
        let mut cx = monitors::Cx {
            now: self.now,
            wall: self.kernel.wall(),
            home: &self.home,
            timers: &mut self.timers,
            registry: self.kernel.registry(),
            advice: &mut advice,
        };
        look(&mut self.monitors, &mut cx, self.services.get(id));
        self.monitors.advice = advice;
    }

    /// The same, for a service.
    pub(crate) fn ask(
        &mut self,
        id: Id,
        look: impl FnOnce(&mut Monitors, &mut monitors::Cx<'_>, &Service),
    ) {
        self.with_monitors(id, |monitors, cx, service| {
            if let Some(service) = service {
                look(monitors, cx, service);
            }
        });
    }

    /// The wall clock was set, or files of these services have changed.
    pub(crate) fn look_around(&mut self, clock: bool, changed: &[Id]) {
        for id in changed {
            self.with_monitors(*id, |monitors, cx, _| monitors.watches.look(cx, *id));
        }
        if clock {
            self.with_monitors(0, |monitors, cx, _| monitors.crons.clock_changed(cx));
        }
    }

    /// Looks how much memory a service has. What it shares is counted only where it matters.
    fn measure(&mut self, id: Id) {
        let Some(most) = self.monitors.memory.most(id) else { return };
        let used = self.usage(id).unwrap_or_default();
        let page = rustix::param::page_size() as u64;
        let mut bytes = used.pages * page;
        if bytes > most.0 {
            let kernel = &mut self.kernel;
            let of = |pid: &Pid| {
                let resident = |stat: Stat| stat.rss_pages * page;
                let parts = kernel.proportional_memory(*pid);
                parts.unwrap_or_else(|| kernel.stat(*pid).map_or(0, resident))
            };
            bytes = used.pids.iter().map(of).sum();
        }
        self.ask(id, |monitors, cx, of| monitors.memory.measured(cx, of, bytes));
    }

    /// Every service, by id.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }
}

/// What trees are looked at with, where only some of the daemon's fields are free.
fn context<'a, K: Kernel>(
    kernel: &'a mut K,
    ledger: &'a mut Ledger<K>,
    now: Time,
    log: &'a mut Vec<String>,
) -> Cx<'a, K> {
    let (journal, trouble) = (&ledger.journal, &mut ledger.disk_error);
    Cx { kernel, journal, now, log, trouble }
}
