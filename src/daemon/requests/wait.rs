//! Requests that wait: a reply is sent when its effect is true.
use super::query::unsure_of;
use super::*;
use crate::mutant::mutant;
use crate::service::machine::{Goal, Phase, Time};
use crate::service::probe::Sign;
use crate::service::spec::Spec;
use crate::wire::Until;
use std::collections::{BTreeMap, VecDeque};

/// What ends sooner after its exec was never up, to whoever started it.
const SETTLE_MS: Time = 50;
/// SIGKILL rounds after which a stop is answered with the name of what resists.
const KILLS_MAX: u32 = 5;

/// Stands in for the id where an outcome is of no service.
pub(super) const NO_SERVICE: Id = Id::MAX;

/// What a request waits for, of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Exec'd, in an incarnation after this one.
    Up(Generation),
    /// As `Up`, and ready; no later incarnation than the first of them counts.
    Ready(Generation),
    /// Every incarnation up to this one is confirmed gone.
    Down(Generation),
    Gone,
    /// A status, whoever brings it about.
    Status(Until),
}

/// What to do when every condition is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OnDone {
    #[default]
    Answer,
    /// Restore: report progress, and a summary with what was running already.
    Summarize { running: usize },
    /// `daemon stop --services`.
    Leave,
    /// `reload`: the next of the roll, as long as each is ready.
    Roll,
}

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pending: BTreeMap<u64, Pending>,
    last: u64,
    /// Services that changed in this turn.
    pub(crate) changed: BTreeSet<Id>,
    /// Who is being rolled, and its generation before.
    pub(super) rolls: BTreeMap<Id, u64>,
    /// The pid of the command that sent the request at hand; 0: not known.
    pub(crate) asker: Pid,
}

/// A request that waits, and what is known already of its services.
#[derive(Debug, Default)]
pub(super) struct Pending {
    client: ClientId,
    pub(super) conditions: BTreeMap<Id, Condition>,
    /// Those whose turn is still to come.
    pub(super) roll: VecDeque<Id>,
    /// What they were defined as when it began, of those that have run under another definition.
    pub(super) defined: BTreeMap<Id, Spec>,
    outcomes: Vec<(Id, Outcome)>,
    pub(super) deadline: Option<Time>,
    pub(super) on_done: OnDone,
    total: usize,
    /// Percent of the services that the last report of progress said are done.
    reported: usize,
}

pub(super) fn done(text: String) -> Outcome {
    Outcome { code: code::DONE, text, warnings: Vec::new() }
}

pub(super) fn failed(code: u8, text: String) -> Outcome {
    Outcome { code, text, warnings: Vec::new() }
}

/// What became of something that is done at once, or the kernel's reason why it could not be.
pub(super) fn outcome_of(name: &str, result: Result<(), Errno>, text: &str) -> Outcome {
    match result {
        Ok(()) => done(format!("{name}: {text}")),
        Err(errno) => failed(code::FAILED, format!("{name}: {}", describe(errno))),
    }
}

impl Pending {
    pub(super) fn new(client: ClientId) -> Self {
        Self { client, ..Self::default() }
    }

    /// What became of a service, behind what was said of it before.
    pub(super) fn say(&mut self, id: Id, mut outcome: Outcome) {
        let earlier = self.outcomes.iter_mut().find(|(of, _)| *of == id && id != NO_SERVICE);
        match earlier {
            Some((_, earlier)) => {
                outcome.warnings.append(&mut earlier.warnings);
                if !earlier.text.is_empty() {
                    outcome.text = format!("{}; {}", earlier.text, outcome.text);
                }
                *earlier = outcome;
            }
            None => self.outcomes.push((id, outcome)),
        }
    }

    /// Warnings of a service of which nothing else is known yet.
    pub(super) fn warn(&mut self, id: Id, warnings: Vec<String>) {
        if !warnings.is_empty() {
            self.say(id, Outcome { warnings, ..done(String::new()) });
        }
    }

    /// Whoever is to be up is to be ready, too.
    pub(super) fn wait_ready(&mut self, wait: bool) {
        for (_, condition) in self.conditions.iter_mut() {
            if let (Condition::Up(after), true) = (*condition, wait) {
                *condition = Condition::Ready(after);
            }
        }
    }

    pub(super) fn wait(&mut self, id: Id, condition: Condition) {
        self.conditions.insert(id, condition);
    }
}

impl Waiters {
    /// Who waits for this service, and for what.
    fn of(&self, id: Id) -> Vec<(u64, Condition)> {
        let pending = self.pending.iter();
        pending.filter_map(|(number, p)| Some((*number, *p.conditions.get(&id)?))).collect()
    }

    /// Whether a reload is to replace this service, or waits for it.
    pub(super) fn is_rolling(&self, id: Id) -> bool {
        let mut rolls = self.pending.values().filter(|p| p.on_done == OnDone::Roll);
        rolls.any(|p| p.roll.contains(&id) || p.conditions.contains_key(&id))
    }

    /// A service is to be stopped: a reload that has not come to it leaves it out.
    pub(super) fn leave_out(&mut self, id: Id, name: &str) {
        for pending in self.pending.values_mut().filter(|p| p.roll.contains(&id)) {
            pending.roll.retain(|rolled| *rolled != id);
            let text = format!("{name}: not reloaded, for it was stopped meanwhile");
            pending.say(id, failed(code::FAILED, text));
        }
    }

    /// A client has gone; what it asked for goes on. Gives the numbers of its requests.
    pub(super) fn forget_client(&mut self, client: ClientId) -> Vec<u64> {
        let mut gone = Vec::new();
        self.pending.retain(|number, p| {
            let stays = p.client != client || matches!(p.on_done, OnDone::Leave | OnDone::Roll);
            gone.extend((!stays).then_some(*number));
            stays
        });
        gone
    }
}

impl<K: Kernel> Daemon<K> {
    /// Registers a request; whatever is true already is answered in this turn.
    pub(super) fn wait_for(&mut self, mut pending: Pending) {
        pending.total = pending.conditions.len();
        if pending.total == 0 {
            return self.finish(pending);
        }
        let ids: Vec<Id> = pending.conditions.keys().copied().collect();
        self.waiters.last += 1;
        self.timers.set(Timer::Request(self.waiters.last), pending.deadline);
        self.waiters.pending.insert(self.waiters.last, pending);
        for id in ids {
            self.waiters.changed.insert(id);
            self.await_settling(id);
        }
    }

    /// Answers what the services that changed in this turn have made true; what that changes, too.
    pub(crate) fn answer_changed(&mut self) {
        while let Some(id) = self.waiters.changed.pop_first() {
            for (number, condition) in self.waiters.of(id) {
                if let Some(outcome) = self.verdict(id, condition) {
                    self.settle(number, id, outcome);
                }
            }
        }
    }

    /// Answers whoever waits for a service that is forgotten now.
    pub(super) fn answer_forgotten(&mut self, id: Id, service: &Service) {
        for (number, condition) in self.waiters.of(id) {
            let text = format!("{}: removed{}", service.name(), service.kill_words());
            let outcome = match condition {
                Condition::Gone
                | Condition::Down(_)
                | Condition::Status(Until::Stopped | Until::Removed) => done(text),
                Condition::Up(_) | Condition::Ready(_) | Condition::Status(_) => {
                    failed(code::FAILED, text)
                }
            };
            self.settle(number, id, outcome);
        }
    }

    pub(in crate::daemon) fn expire(&mut self, number: u64) {
        let pending = self.waiters.pending.get(&number);
        let ids = pending.map_or(vec![], |p| p.conditions.keys().copied().collect());
        for id in ids {
            let service = self.services.get(id);
            let status = service.map_or("gone", |service| service.status().word());
            let name = service.map_or(id.to_string(), |service| service.name().to_owned());
            let text = format!("{name}: timed out waiting; it is {status}");
            self.settle(number, id, failed(code::TIMED_OUT, text));
        }
    }

    fn settle(&mut self, number: u64, id: Id, outcome: Outcome) {
        let Some(pending) = self.waiters.pending.get_mut(&number) else { return };
        pending.conditions.remove(&id);
        let is_good = outcome.code == code::DONE;
        pending.say(id, outcome);
        if pending.on_done == OnDone::Roll {
            let pending = self.waiters.pending.remove(&number);
            return pending.into_iter().for_each(|mut pending| {
                if !is_good && !mutant("roll_on") {
                    self.stop_roll(id, &mut pending);
                }
                self.roll_on(&mut pending);
                self.wait_for(pending);
            });
        }
        let (total, left) = (pending.total, pending.conditions.len());
        if left == 0 {
            self.timers.set(Timer::Request(number), None);
            let pending = self.waiters.pending.remove(&number);
            return pending.into_iter().for_each(|pending| self.finish(pending));
        }
        let percent = (total - left) * 100 / total;
        if matches!(pending.on_done, OnDone::Summarize { .. }) && percent > pending.reported {
            pending.reported = percent;
            self.outbox.push((pending.client, Reply::Progress { done: total - left, total }));
        }
    }

    fn finish(&mut self, mut pending: Pending) {
        match pending.on_done {
            OnDone::Leave => self.note_who_came_back(&mut pending.outcomes),
            OnDone::Roll => self.end_roll(pending.outcomes.iter().map(|(id, _)| *id)),
            OnDone::Answer | OnDone::Summarize { .. } => {}
        }
        pending.outcomes.sort_by_key(|(id, _)| *id);
        let outcomes: Vec<Outcome> = pending.outcomes.into_iter().map(|(_, o)| o).collect();
        let good = outcomes.iter().filter(|outcome| outcome.code == code::DONE).count();
        let summary = match pending.on_done {
            OnDone::Answer | OnDone::Roll => None,
            OnDone::Summarize { running } => {
                // What has no text is only warnings: of the dump, or of what stays as it is.
                let warned = outcomes.iter().filter(|outcome| outcome.text.is_empty());
                let good = good.saturating_sub(warned.count());
                let started = good.saturating_sub(running);
                Some(format!("restored {good}: {running} already running, {started} started"))
            }
            // What could not be stopped is not left alone.
            OnDone::Leave if good < outcomes.len() => None,
            OnDone::Leave => {
                self.leave = Some(Leave::Quit);
                Some("daemon stopped; its services are stopped".to_owned())
            }
        };
        self.outbox.push((pending.client, Reply::Outcomes { outcomes, summary }));
    }

    /// Of those that were to be stopped, some may have been started while others still were.
    fn note_who_came_back(&self, outcomes: &mut Vec<(Id, Outcome)>) {
        for service in self.services.iter().filter(|s| s.is_live()) {
            if outcomes.iter().any(|(of, o)| *of == service.id && o.code != code::DONE) {
                continue;
            }
            let text = format!("{}: was started meanwhile; the daemon stays", service.name());
            outcomes.retain(|(of, _)| *of != service.id);
            outcomes.push((service.id, failed(code::FAILED, text)));
        }
    }

    /// Whether a condition is true, or can't become so.
    fn verdict(&self, id: Id, condition: Condition) -> Option<Outcome> {
        let service = self.services.get(id)?;
        let (name, status) = (service.name(), service.status());
        let resists = self.resists(id);
        if status == Status::Stopping && resists && !matches!(condition, Condition::Status(_)) {
            return Some(failed(code::REFUSED, self.resistance(service)));
        }
        if mutant("early_reply") && matches!(condition, Condition::Down(_)) {
            return Some(done(format!("{name}: stopped")));
        }
        let say = |text: &str| Some(done(format!("{name}: {text}")));
        let fail = |text: &str| Some(failed(code::FAILED, format!("{name}: {text}")));
        let is_it = || format!("it is {}", status.word());
        let why = || fail(&service.why(self.now).unwrap_or_else(is_it));
        let goal = service.machine.goal();
        match (condition, status) {
            (Condition::Up(after), _) => self.verdict_up(service, after),
            (Condition::Ready(after), _)
                if service.machine.is_ready()
                    && service.record.generation > after.0
                    && self.has_settled(service) =>
            {
                say(&format!("ready (id {id}, pid {})", service.pid))
            }
            (Condition::Ready(after), Status::Stopped)
                if service.record.generation > after.0 && service.is_done() =>
            {
                say("has done its work")
            }
            (Condition::Ready(after), _) if service.record.emptied > after.0 => why(),
            (Condition::Ready(_), Status::Starting) => self.verdict_held(id),
            (Condition::Ready(_), Status::Errored | Status::Stopped) => why(),
            (Condition::Down(_) | Condition::Gone, _) if self.launches.stops.contains_key(&id) => {
                self.blocked_stop(id)
            }
            (Condition::Down(_), Status::Stopped | Status::Errored) => {
                say(&format!("stopped{}", service.kill_words()))
            }
            (Condition::Down(of), _) if service.record.emptied >= of.0 && of.0 > 0 => {
                say("stopped, and started again since")
            }
            // It was to be up again before the stop had begun.
            (Condition::Down(_), Status::Online | Status::Starting | Status::Waiting)
                if goal == Goal::Up =>
            {
                fail("it was started again before it was stopped")
            }
            (Condition::Status(Until::Online), Status::Online)
            | (Condition::Status(Until::Stopped), Status::Stopped)
            | (Condition::Status(Until::Errored), Status::Errored) => say(status.word()),
            (Condition::Status(Until::Ready), _) if service.machine.is_ready() => say("ready"),
            (
                Condition::Ready(_) | Condition::Down(_) | Condition::Gone | Condition::Status(_),
                _,
            ) => None,
        }
    }

    /// Whether one that was started is up, or has ended since, or can't be started.
    fn verdict_up(&self, service: &Service, after: Generation) -> Option<Outcome> {
        let (id, name, status) = (service.id, service.name(), service.status());
        let is_new = service.machine.generation().is_some_and(|live| live > after);
        let has_exited = is_new && self.trees.get(id).is_some_and(|tree| tree.exit.is_some());
        let has_ended = service.record.emptied > after.0 || has_exited;
        let why = || self.waits_for(id).or_else(|| service.why(self.now));
        if has_ended && !service.record.halted && service.launch_error.is_none() {
            let why = why().unwrap_or_else(|| "it ended at once, and is started again".to_owned());
            return Some(done(format!("{name}: {} (id {id}): {why}", status.word())));
        }
        match (status, service.machine.phase()) {
            (Status::Online, Phase::Up { since, .. }) => {
                let is_settled = self.now >= since.saturating_add(SETTLE_MS);
                let killed = service.killed.filter(|killed| killed.generation >= after);
                let text = |killed| format!("{name}: was stopped first ({killed})");
                (is_new && is_settled || mutant("early_reply")).then(|| Outcome {
                    warnings: killed.map(text).into_iter().collect(),
                    ..done(format!("{name}: online (id {id}, pid {})", service.pid))
                })
            }
            (Status::Waiting, _) if service.record.generation <= after.0 => None,
            (Status::Errored | Status::Stopped | Status::Waiting, _) => {
                let why = why().unwrap_or_else(|| format!("it is {}", status.word()));
                Some(failed(code::FAILED, format!("{name}: {why}")))
            }
            (Status::Starting, _) => self.verdict_held(id),
            (Status::Online | Status::Stopping, _) => None,
        }
    }

    /// Whether one that is ready may be said to be: by its exec alone nobody is yet.
    fn has_settled(&self, service: &Service) -> bool {
        let Phase::Up { since, .. } = service.machine.phase() else { return true };
        service.definition.spec.checks.ready != Sign::Exec
            || self.now >= since.saturating_add(SETTLE_MS)
    }

    /// Sees to it that whoever waits for a start is answered when it has settled.
    pub(in crate::daemon) fn await_settling(&mut self, id: Id) {
        let is_up = self.services.get(id).is_some_and(|s| s.status() == Status::Online);
        let is_start = |(_, condition): &(u64, Condition)| {
            matches!(condition, Condition::Up(_) | Condition::Ready(_))
        };
        if is_up && self.waiters.of(id).iter().any(is_start) {
            self.timers.set(Timer::Settling(id), Some(self.now + SETTLE_MS));
        }
    }

    /// Whether one that is to start waits in vain.
    fn verdict_held(&self, id: Id) -> Option<Outcome> {
        let (why, is_vain) = self.waits(id)?;
        let name = self.services.get(id)?.name();
        let text = format!("{name}: {why} (it starts when that is ready)");
        is_vain.then(|| failed(code::FAILED, text))
    }

    fn resists(&self, id: Id) -> bool {
        self.trees.get(id).is_some_and(|tree| tree.kills >= KILLS_MAX)
    }

    /// A stop that waits for dependants, one of which can't be ended.
    fn blocked_stop(&self, id: Id) -> Option<Outcome> {
        let (mut queue, mut seen, mut who) = (vec![id], BTreeSet::default(), None);
        while let Some(stopped) = queue.pop().filter(|_| who.is_none()) {
            let fresh = |id: &&Id| seen.insert(**id);
            let blockers = self.launches.stops.get(&stopped).into_iter().flat_map(|of| of.iter());
            queue.extend(blockers.filter(fresh).copied());
            who = queue.iter().copied().find(|id| self.resists(*id));
        }
        let who = self.services.get(who?)?.name();
        let name = self.services.get(id)?.name();
        let text = format!("{name}: not stopped yet, for {who} depends on it and does not end");
        Some(failed(code::REFUSED, text))
    }

    /// Who of a tree survived SIGKILL.
    fn resistance(&self, service: &Service) -> String {
        let (ours, unsure) = self.rest(service.id);
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
