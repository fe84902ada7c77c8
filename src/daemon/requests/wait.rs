//! Requests that wait: a reply is sent when its effect is true.
use super::query::unsure_of;
use crate::daemon::service::Service;
use crate::daemon::timers::Timer;
use crate::daemon::vecmap::{VecMap, VecSet};
use crate::daemon::{ClientId, Daemon, Leave};
use crate::mutant::mutant;
use crate::process::Pid;
use crate::service::machine::{Generation, Goal, Time};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, describe};
use crate::wire::{Outcome, Reply, Status, Until, code};
use std::collections::HashMap;

/// SIGKILL rounds after which a stop is answered with the name of what resists.
const KILLS_MAX: u32 = 5;

/// What a request waits for, of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Exec'd, in an incarnation after this one.
    Up(Generation),
    /// Every incarnation up to this one is confirmed gone.
    Down(Generation),
    /// Forgotten.
    Gone,
    /// A status, whoever brings it about.
    Status(Until),
}

/// What to do when every wish is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Answer,
    /// Restore: report progress, and a summary with what was running already.
    Summarize {
        running: usize,
    },
    /// `daemon stop --services`.
    Leave,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) pending: VecMap<u64, Pending>,
    by_service: HashMap<Id, VecSet<u64>>,
    /// The number that was given last.
    last: u64,
    /// Services that changed in this turn.
    pub(crate) changed: VecSet<Id>,
    /// The pid of the command that sent the request at hand; 0: not known.
    pub(crate) asker: Pid,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) client: ClientId,
    pub(crate) waiting: VecMap<Id, Wish>,
    pub(crate) outcomes: Vec<(Id, Outcome)>,
    pub(crate) deadline: Option<Time>,
    pub(crate) then: Then,
    pub(crate) total: usize,
    /// Progress in percent when it was last told.
    pub(crate) told: usize,
}

/// A target that is as it was asked to be.
pub(crate) fn done(text: String) -> Outcome {
    Outcome { code: code::DONE, text, warnings: Vec::new() }
}

/// What became of something that is done at once, or the kernel's reason why it could not be.
pub(crate) fn told(name: &str, result: Result<(), Errno>, text: String) -> Outcome {
    match result {
        Ok(()) => done(text),
        Err(errno) => failed(code::FAILED, format!("{name}: {}", describe(errno))),
    }
}

/// Warnings of a target of which nothing else is known yet.
pub(crate) fn warned(warnings: Vec<String>) -> Outcome {
    Outcome { warnings, ..done(String::new()) }
}

/// A target that is not.
pub(crate) fn failed(code: u8, text: String) -> Outcome {
    Outcome { code, text, warnings: Vec::new() }
}

impl<K: Kernel> Daemon<K> {
    /// Registers a request; whatever is true already is answered in this turn.
    pub(crate) fn wait_for(&mut self, pending: Pending) {
        self.waiters.last += 1;
        let number = self.waiters.last;
        for id in pending.waiting.keys() {
            self.waiters.by_service.entry(*id).or_default().insert(number);
            self.waiters.changed.insert(*id);
        }
        self.timers.set(Timer::Request(number), pending.deadline);
        let is_idle = pending.waiting.is_empty();
        self.waiters.pending.insert(number, pending);
        if is_idle {
            self.finish(number);
        }
    }

    /// Looks at the wishes of all services that changed in this turn.
    pub(crate) fn answer_touched(&mut self) {
        for id in std::mem::take(&mut self.waiters.changed) {
            let Some(numbers) = self.waiters.by_service.get(&id).cloned() else {
                continue;
            };
            for number in numbers {
                let wish =
                    self.waiters.pending.get(&number).and_then(|p| p.waiting.get(&id)).copied();
                if let Some(outcome) = wish.and_then(|wish| self.verdict(id, wish)) {
                    self.fulfil(number, id, outcome);
                }
            }
        }
    }

    /// Answers whoever waits for a service that is forgotten now.
    pub(crate) fn answer_forgotten(&mut self, id: Id, service: &Service) {
        for number in self.waiters.by_service.get(&id).cloned().unwrap_or_default() {
            let wish = self.waiters.pending.get(&number).and_then(|p| p.waiting.get(&id)).copied();
            let text = format!("{}: removed{}", service.name(), service.kill_words());
            match wish {
                Some(
                    Wish::Gone | Wish::Down(_) | Wish::Status(Until::Stopped | Until::Removed),
                ) => {
                    self.fulfil(number, id, done(text));
                }
                Some(Wish::Up(_) | Wish::Status(_)) => {
                    self.fulfil(number, id, failed(code::FAILED, text));
                }
                None => {}
            }
        }
    }

    fn fulfil(&mut self, number: u64, id: Id, mut outcome: Outcome) {
        if let Some(numbers) = self.waiters.by_service.get_mut(&id) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.waiters.by_service.remove(&id);
            }
        }
        let Some(pending) = self.waiters.pending.get_mut(&number) else {
            return;
        };
        pending.waiting.remove(&id);
        // What was said before of this target were its warnings.
        if let Some((_, earlier)) = pending.outcomes.iter_mut().find(|(of, _)| *of == id) {
            outcome.warnings.append(&mut earlier.warnings);
            *earlier = outcome;
        } else {
            pending.outcomes.push((id, outcome));
        }
        if pending.waiting.is_empty() {
            return self.finish(number);
        }
        if let Then::Summarize { .. } = pending.then {
            let done = pending.total - pending.waiting.len();
            let percent = done * 100 / pending.total.max(1);
            if percent > pending.told {
                pending.told = percent;
                let reply = Reply::Progress { done, total: pending.total };
                self.outbox.push((pending.client, reply));
            }
        }
    }

    fn finish(&mut self, number: u64) {
        self.timers.set(Timer::Request(number), None);
        let Some(mut pending) = self.waiters.pending.remove(&number) else {
            return;
        };
        if pending.then == Then::Leave {
            self.note_who_came_back(&mut pending.outcomes);
        }
        pending.outcomes.sort_by_key(|(id, _)| *id);
        let outcomes: Vec<Outcome> = pending.outcomes.into_iter().map(|(_, o)| o).collect();
        let good = outcomes.iter().filter(|outcome| outcome.code == code::DONE).count();
        let summary = match pending.then {
            Then::Answer => None,
            Then::Summarize { running } => {
                // What has no text is only warnings: of the dump, or of what stays as it is.
                let warned = outcomes.iter().filter(|outcome| outcome.text.is_empty());
                let good = good.saturating_sub(warned.count());
                Some(format!(
                    "restored {good}: {running} already running, {} started",
                    good.saturating_sub(running)
                ))
            }
            // What could not be stopped is not left alone.
            Then::Leave if good < outcomes.len() => None,
            Then::Leave => {
                self.leave = Some(Leave::Quit);
                Some("daemon stopped; its services are stopped".to_owned())
            }
        };
        self.outbox.push((pending.client, Reply::Outcomes { outcomes, summary }));
    }

    /// Of those that were to be stopped, some may have been started while others still were.
    fn note_who_came_back(&self, outcomes: &mut Vec<(Id, Outcome)>) {
        for service in self.services.iter() {
            let resists =
                |(of, outcome): &(Id, Outcome)| *of == service.id && outcome.code != code::DONE;
            if service.machine.generation().is_none() || outcomes.iter().any(resists) {
                continue;
            }
            let text = format!("{}: was started meanwhile; the daemon stays", service.name());
            outcomes.retain(|(of, _)| *of != service.id);
            outcomes.push((service.id, failed(code::FAILED, text)));
        }
    }

    /// A client has gone: nobody waits any more. What it asked for goes on.
    pub fn forget_client(&mut self, client: ClientId) {
        self.events.followers.retain(|follower| *follower != client);
        let gone = self
            .waiters
            .pending
            .iter()
            .filter(|(_, p)| p.client == client && p.then != Then::Leave);
        for number in gone.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.timers.set(Timer::Request(number), None);
            let Some(pending) = self.waiters.pending.remove(&number) else {
                continue;
            };
            for id in pending.waiting.keys() {
                if let Some(numbers) = self.waiters.by_service.get_mut(id) {
                    numbers.remove(&number);
                }
            }
        }
    }

    /// Answers a request that has waited long enough.
    pub(in crate::daemon) fn expire(&mut self, number: u64) {
        let waiting = self.waiters.pending.get(&number).map(|pending| &pending.waiting);
        let ids: Vec<Id> = waiting.map_or(vec![], |waiting| waiting.keys().copied().collect());
        for id in ids {
            let status = self.services.get(id).map_or("gone", |service| service.status().word());
            let name =
                self.services.get(id).map_or_else(|| id.to_string(), |u| u.name().to_owned());
            let text = format!("{name}: timed out waiting; it is {status}");
            self.fulfil(number, id, failed(code::TIMED_OUT, text));
        }
    }

    /// Whether a wish is fulfilled, or can't be.
    fn verdict(&self, id: Id, wish: Wish) -> Option<Outcome> {
        let service = self.services.get(id)?;
        let name = service.name();
        let status = service.status();
        let resists = self.trees.get(id).is_some_and(|tree| tree.kills >= KILLS_MAX);
        if status == Status::Stopping && resists && !matches!(wish, Wish::Status(_)) {
            return Some(failed(code::REFUSED, self.resistance(id)));
        }
        if mutant("early_reply") && matches!(wish, Wish::Down(_)) {
            return Some(done(format!("{name}: stopped")));
        }
        let note = || service.reason().unwrap_or_else(|| format!("it is {}", status.word()));
        let fail = || Some(failed(code::FAILED, format!("{name}: {}", note())));
        match (wish, status) {
            (Wish::Up(after), Status::Online) => {
                let again = service.machine.generation()? > after || mutant("early_reply");
                let killed = service.killed.filter(|killed| killed.generation >= after);
                let text = |killed| format!("{name}: was stopped first ({killed})");
                again.then(|| Outcome {
                    warnings: killed.map(text).into_iter().collect(),
                    ..done(format!("{name}: online (id {id}, pid {})", service.pid))
                })
            }
            (Wish::Up(after), Status::Errored) if service.generation > after.0 => fail(),
            (Wish::Up(_), Status::Errored | Status::Stopped) => fail(),
            (Wish::Up(after), Status::Waiting) if service.generation > after.0 => fail(),
            (Wish::Down(_), Status::Stopped | Status::Errored) => {
                Some(done(format!("{name}: stopped{}", service.kill_words())))
            }
            (Wish::Down(of), _) if service.emptied >= of.0 && of.0 > 0 => {
                Some(done(format!("{name}: stopped, and started again since")))
            }
            // It was to be up again before the stop had begun.
            (Wish::Down(_), Status::Online | Status::Starting | Status::Waiting)
                if service.machine.goal() == Goal::Up =>
            {
                Some(failed(
                    code::FAILED,
                    format!("{name}: it was started again before it was stopped"),
                ))
            }
            (Wish::Status(Until::Online), Status::Online)
            | (Wish::Status(Until::Stopped), Status::Stopped)
            | (Wish::Status(Until::Errored), Status::Errored) => {
                Some(done(format!("{name}: {}", status.word())))
            }
            (Wish::Status(Until::Ready), _) if service.machine.is_ready() => {
                Some(done(format!("{name}: {}", status.word())))
            }
            (Wish::Up(_) | Wish::Down(_) | Wish::Gone | Wish::Status(_), _) => None,
        }
    }

    /// Who of a tree survived SIGKILL.
    fn resistance(&self, id: Id) -> String {
        let Some(service) = self.services.get(id) else {
            return String::new();
        };
        let (ours, unsure) = self.rest(id);
        let what = match (ours.is_empty(), unsure.is_empty()) {
            (false, _) => format!("what is left of it survives SIGKILL (pid {ours})"),
            (true, false) => unsure_of(&unsure),
            (true, true) => {
                "it can't be confirmed that all of it is gone (see 'opm doctor')".to_owned()
            }
        };
        format!("{}: {what}; it stays stopping and is not started", service.name())
    }
}
