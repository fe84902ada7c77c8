//! What each request does. A reply goes out when its effect is true ([`wait`]). The files of this
//! room import what this one does.
mod define;
mod doctor;
mod instances;
pub(crate) mod lookalike;
mod order;
mod query;
pub(super) mod sockets;
mod told;
mod usage;
pub(crate) mod wait;

use super::service::Service;
use super::timers::Timer;
use super::{ClientId, Daemon, Leave};
use crate::process::Pid;
use crate::service::environment::{NULL, in_home, is_piped, log_paths};
use crate::service::machine::{Generation, Goal, Input};
use crate::service::selector::Selector;
use crate::service::signal::Signal;
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Mode, describe};
use crate::wire::{Existing, Failure, Outcome, Reply, Request, Status, code};
use define::check_granted;
use lookalike::Candidates;
use std::collections::BTreeSet;
use wait::{Condition, NO_SERVICE, OnDone, Pending, done, failed, outcome_of};

/// Ancestors of a process that are looked at.
const ANCESTORS_MAX: usize = 64;

impl<K: Kernel> Daemon<K> {
    /// Takes up a request; its replies appear in the outbox, now or in a later turn.
    ///
    /// `asker` is the pid of the command that asks, 0 if unknown: it mentions what it starts, and
    /// is no look-alike of it.
    pub fn request(&mut self, client: ClientId, asker: Pid, request: Request) {
        self.waiters.asker = asker;
        match self.handle(client, request) {
            Ok(Some(reply)) => self.outbox.push((client, reply)),
            Ok(None) => {}
            Err(failure) => {
                self.close_sockets();
                self.outbox.push((client, failure.into()));
            }
        }
    }

    /// The reply, where it is known at once.
    fn handle(&mut self, client: ClientId, request: Request) -> Result<Option<Reply>, Failure> {
        let mut wanted = Pending::new(client);
        let pending = &mut wanted;
        match request {
            Request::Start { target, force, wait } => {
                self.bring_up_all(&target, Input::Start, force, pending)?;
                pending.wait_ready(wait);
            }
            Request::Define { specs, force, existing: Existing::Checked, .. } => {
                self.check_all(&specs, &mut Candidates::new(force))?;
            }
            Request::Define { specs, base, force, existing, wait } => {
                self.define_and_start(specs, *base, force, existing, pending)?;
                pending.wait_ready(wait);
            }
            Request::Update { services, env } => self.update(services, &env)?,
            Request::Adjust { target, change, now } => {
                self.adjust(&target, &change, now, pending)?;
            }
            Request::Stop { target, dependants } => {
                let ids = self.named(&target, pending)?;
                let ids = self.with_dependants(ids, dependants, pending);
                self.stop_all(&ids, &ids, pending);
            }
            Request::Restart { target } => {
                self.bring_up_all(&target, Input::Restart, false, pending)?;
            }
            Request::Reload { target } => {
                let ids = self.named(&target, pending)?;
                self.roll(ids, pending);
            }
            Request::Scale { group, to } => self.scale(&group, to, pending)?,
            Request::Remove { target } => {
                let ids = self.named(&target, pending)?;
                self.remove_all(&ids, pending);
            }
            Request::Signal { target, signal, tree } => {
                self.signal_services(&target, signal, tree, pending)?;
            }
            Request::Reset { target } => self.each(&target, pending, |daemon, id, name| {
                daemon.services.get_mut(id).into_iter().for_each(|s| s.machine.reset());
                daemon.ledger.dirty.insert(id);
                done(format!("{name}: counters are 0"))
            })?,
            Request::Wait { target, until, timeout_ms } => {
                let ids = self.named(&target, pending)?;
                ids.into_iter().for_each(|id| pending.wait(id, Condition::Status(until)));
                pending.deadline = timeout_ms.map(|ms| self.now.saturating_add(ms));
            }
            Request::Flush { target } => self.each(&target, pending, Self::flush)?,
            Request::Save => self.save(pending)?,
            Request::Restore { force } => self.restore(force, pending)?,
            Request::Leave { services } => self.leave(services, pending),
            Request::Upgrade { binary } => self.upgrade(binary, pending)?,
            Request::Depart { home_key } => self.depart(home_key),
            Request::Events { follow } => return Ok(self.events(client, follow)),
            Request::List { usage } => return Ok(Some(self.list(usage))),
            Request::Info { target } => return self.of_each(&target, Reply::Info, Self::info),
            Request::Why { target } => return self.of_each(&target, Reply::Why, Self::why),
            Request::Env { target } => return self.of_each(&target, Reply::Env, Self::named_env),
            Request::Export { target } => return self.of_each(&target, Reply::Specs, Self::spec),
            Request::Logs { target } => return self.of_each(&target, Reply::Logs, Self::log_files),
            Request::Health => return Ok(Some(Reply::Health(self.health()))),
            Request::Doctor => return Ok(Some(Reply::Doctor(self.doctor()))),
        }
        self.wait_for(wanted);
        Ok(None)
    }

    /// What has happened; to one that follows also what will, piece by piece.
    fn events(&mut self, client: ClientId, follow: bool) -> Option<Reply> {
        let past = self.events.past.iter().cloned();
        if !follow {
            return Some(Reply::Events(past.collect()));
        }
        self.outbox.extend(past.map(|event| (client, Reply::Event(event))));
        self.events.followers.push(client);
        None
    }

    /// A client has gone: nobody waits any more. What it asked for goes on.
    pub fn forget_client(&mut self, client: ClientId) {
        self.events.followers.retain(|follower| *follower != client);
        for number in self.waiters.forget_client(client) {
            self.timers.set(Timer::Request(number), None);
        }
    }

    /// The ids that a target names, and an error outcome for each part of it that names none.
    fn resolve(&mut self, target: &str) -> Result<(Vec<Id>, Vec<Outcome>), Failure> {
        let target = Selector::parse(target).map_err(Failure::usage)?;
        let mut ids = BTreeSet::new();
        let mut missing = Vec::new();
        for part in target.parts() {
            let mut chosen = part.choose(self.services.iter().map(|s| {
                let (spec, held) = (&s.definition.spec, &s.definition.spec.held);
                let [group, namespace] = [&held.instance_of, &held.namespace]
                    .map(|name| name.as_deref().unwrap_or_default());
                (s.id, spec.name.as_str(), group, namespace)
            }));
            if let (true, Some(pid)) = (chosen.is_empty(), part.pid()) {
                chosen.extend(self.service_of(pid));
            }
            if chosen.is_empty() && !part.is_all() {
                let text = format!("no such service: {} (try 'opm ls')", part.text());
                missing.push(failed(code::NO_SUCH, text));
            }
            ids.extend(chosen);
        }
        if ids.is_empty() && missing.len() == 1 {
            return Err(Failure::new(code::NO_SUCH, missing.remove(0).text));
        }
        Ok((ids.into_iter().collect(), missing))
    }

    /// Whose a process is: its own witnesses say so, or those of what it descends from.
    fn service_of(&mut self, pid: Pid) -> Option<Id> {
        let line = self.ancestors(pid);
        line.into_iter().find_map(|pid| self.with_trees(|trees, cx| trees.service_of(cx, pid)))
    }

    /// A process, its parent and so on, as far as PID 1.
    fn ancestors(&mut self, mut pid: Pid) -> Vec<Pid> {
        let mut line = Vec::new();
        while pid > 1 && line.len() < ANCESTORS_MAX && !line.contains(&pid) {
            line.push(pid);
            pid = self.kernel.stat(pid).map_or(0, |stat| stat.ppid);
        }
        line
    }

    /// The ids that a target names; what is named in vain is said.
    fn named(&mut self, target: &str, pending: &mut Pending) -> Result<Vec<Id>, Failure> {
        let (ids, missing) = self.resolve(target)?;
        missing.into_iter().for_each(|outcome| pending.say(NO_SERVICE, outcome));
        Ok(ids)
    }

    /// Does something to each service of a target that is done at once.
    fn each(
        &mut self,
        target: &str,
        pending: &mut Pending,
        act: impl Fn(&mut Self, Id, &str) -> Outcome,
    ) -> Result<(), Failure> {
        for id in self.named(target, pending)? {
            let name = self.services.get(id).map_or(String::new(), |s| s.name().to_owned());
            pending.say(id, act(self, id, &name));
        }
        Ok(())
    }

    fn bring_up_all(
        &mut self,
        target: &str,
        input: Input,
        force: bool,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        let mut candidates = Candidates::new(force);
        for id in self.named(target, pending)? {
            self.bring_up(id, input, &mut candidates, pending);
        }
        Ok(())
    }

    /// Starts or restarts a service by the operator's wish, unless something stands in its way.
    fn bring_up(
        &mut self,
        id: Id,
        input: Input,
        candidates: &mut Candidates,
        pending: &mut Pending,
    ) {
        let Some(service) = self.services.get(id) else { return };
        let name = service.name();
        if service.removing {
            return pending.say(id, failed(code::FAILED, format!("{name}: is being removed")));
        }
        let status = service.status();
        if input == Input::Start && status == Status::Online {
            let word = match &mut pending.on_done {
                OnDone::Summarize { running } => {
                    *running += 1;
                    "running"
                }
                OnDone::Answer | OnDone::Leave | OnDone::Roll => "online",
            };
            let pid = self.trees.pid(service.id).unwrap_or(0);
            pending.say(id, done(format!("{name}: already {word} (id {id}, pid {pid})")));
            // What was adopted while its end was a tracer's can be on its way down.
            return self.feed(id, Input::Start);
        }
        if input == Input::Restart {
            let spec = &service.definition.spec;
            let granted = check_granted(&mut self.kernel, &self.home, spec, candidates);
            if let Err(refused) = granted {
                return pending.say(id, failed(refused.code, refused.text));
            }
        }
        // One that is starting is not stopped for a restart: its exec is the fresh one, unless it
        // was forked under another definition.
        let is_starting = input == Input::Restart && status == Status::Starting;
        let is_former = self.trees.get(id).is_some() && self.launches.former.contains_key(&id);
        let is_outdated = is_starting && is_former;
        let fresh = u64::from(is_starting && !is_outdated);
        let after = match input {
            Input::Restart => Generation(service.record.generation.saturating_sub(fresh)),
            _ => self.before_start(id),
        };
        if !service.is_live() {
            let spec = service.definition.spec.clone();
            if let Err(Failure { code, text }) = self.claim_sockets(&spec) {
                return pending.say(id, failed(code, text));
            }
            match self.check(id, candidates) {
                Err(outcome) => return pending.say(id, outcome),
                Ok(warnings) => pending.warn(id, warnings),
            }
        }
        pending.wait(id, Condition::Up(after));
        self.launches.outdated.extend(is_outdated.then_some(id));
        if matches!(pending.on_done, OnDone::Summarize { .. }) {
            self.services.get_mut(id).into_iter().for_each(|service| service.machine.reset());
        }
        self.wake_up(id, input, pending);
    }

    /// A child has exec'd, or could not: if it was forked under another definition than it was to
    /// be restarted under, it is restarted now.
    pub(super) fn renew(&mut self, id: Id) {
        let is_outdated =
            self.launches.outdated.remove(&id) && self.launches.former.contains_key(&id);
        let is_wanted = |it: &Service| it.machine.goal() == Goal::Up;
        if is_outdated && self.services.get(id).is_some_and(is_wanted) {
            self.feed(id, Input::Restart);
        }
    }

    /// The last incarnation that is not what a start asks for.
    fn before_start(&self, id: Id) -> Generation {
        let of = |service: &Service| match service.status() {
            Status::Stopping => service.record.generation,
            _ => service.record.emptied,
        };
        Generation(self.services.get(id).map_or(0, of))
    }

    /// By the operator's wish: a note of the past is past. Says if its files can't be watched.
    fn wake_up(&mut self, id: Id, input: Input, pending: &mut Pending) {
        if let Some(service) = self.services.get_mut(id) {
            service.note = None;
        }
        self.feed(id, input);
        let name = self.services.get(id).map_or("", Service::name);
        if let Some(trouble) = self.monitors.watches.trouble(id) {
            pending.warn(id, vec![format!("{name}: {trouble}")]);
        }
    }

    /// Stops `ids`, and waits for those of which `awaited` are.
    fn stop_all(&mut self, awaited: &[Id], ids: &[Id], pending: &mut Pending) {
        for id in awaited {
            let newest = self.services.get(*id).map_or(0, |service| service.record.generation);
            pending.wait(*id, Condition::Down(Generation(newest)));
        }
        self.stop_in_order(ids);
    }

    fn remove_all(&mut self, ids: &[Id], pending: &mut Pending) {
        let mut names = Vec::new();
        for id in ids {
            let Some(service) = self.services.get_mut(*id) else { continue };
            service.removing = true;
            names.push((*id, service.name().to_owned()));
        }
        self.stop_in_order(ids);
        for (id, name) in names {
            match self.services.get(id) {
                Some(_) => pending.wait(id, Condition::Gone),
                None => pending.say(id, done(format!("{name}: removed"))),
            }
        }
    }

    fn signal_services(
        &mut self,
        target: &str,
        signal: i32,
        tree: bool,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        if !(1..=64).contains(&signal) {
            return Err(Failure::usage(format!("{signal}: no such signal")));
        }
        let word = Signal::from_number(signal).map_or(signal.to_string(), Signal::name);
        self.each(target, pending, |daemon, id, name| {
            let sent = daemon.with_trees(|trees, cx| trees.signal(cx, id, signal, tree));
            if sent == Err(Errno::SRCH) {
                return failed(code::FAILED, format!("{name}: is not running"));
            }
            outcome_of(name, sent, &format!("sent signal {word}"))
        })
    }

    /// Empties log files in place: the service appends to the same ones. Archives go.
    fn flush(&mut self, id: Id, name: &str) -> Outcome {
        let Some(service) = self.services.get(id) else { return done(String::new()) };
        let paths = log_paths(&service.definition.spec);
        let emptied = paths.iter().filter(|path| *path != NULL).try_for_each(|path| {
            self.logs.drop_archives(&in_home(&self.home, path));
            self.kernel.open(path, Mode::Fresh).map(drop)
        });
        outcome_of(name, emptied, "logs are empty")
    }

    fn leave(&mut self, services: bool, pending: &mut Pending) {
        let is_alive = |service: &&Service| service.is_live();
        let alive: Vec<Id> = self.services.iter().filter(is_alive).map(|s| s.id).collect();
        // Nothing survives PID 1, so that leaving without them would be a kill.
        if !services && self.ledger.header.daemon.pid != 1 {
            let mut text = match alive.len() {
                0 => "daemon stopped; no service was running".to_owned(),
                1 => "daemon stopped; 1 service keeps running".to_owned(),
                n => format!("daemon stopped; {n} services keep running"),
            };
            let services = alive.iter().filter_map(|id| self.services.get(*id));
            let count = services.filter(|it| is_piped(&it.definition.spec.log)).count();
            if count > 0 {
                text += &format!("; {count} of them waits for a daemon once its pipes are full");
            }
            pending.say(NO_SERVICE, done(text));
            self.leave = Some(Leave::Quit);
            return;
        }
        self.stop_all(&alive, &self.services.ids(), pending);
        pending.on_done = OnDone::Leave;
    }

    /// Whether some child has not exec'd yet, or is about to be forked.
    pub(crate) fn is_launching(&self) -> bool {
        !self.launches.queue.is_empty() || self.trees.is_launching()
    }

    /// `daemon restart` and `daemon upgrade`: the daemon becomes another image, which adopts from
    /// the journal as after any death. There is no second hand-over format.
    fn upgrade(&mut self, binary: Option<String>, pending: &mut Pending) -> Result<(), Failure> {
        let cannot =
            |errno| Failure::plain(format!("cannot tell which program I am: {}", describe(errno)));
        let binary = binary.map_or_else(|| self.kernel.own_program(), Ok).map_err(cannot)?;
        if !binary.starts_with('/') {
            return Err(Failure::usage(format!("{binary}: is not an absolute path")));
        }
        pending.say(NO_SERVICE, done(format!("replacing the daemon by {binary}")));
        self.leave = Some(Leave::Exec(binary));
        Ok(())
    }
}
