//! What each request does. A reply goes out when its effect is true ([`self::wait`]).
mod adjust;
pub(crate) mod define;
pub(crate) mod lookalike;
pub(crate) mod query;
mod restore;
mod upgrade;
pub(crate) mod wait;

use self::wait::{Pending, Then, Wish, done, failed, told, warned};
use crate::daemon::service::Service;
use crate::daemon::vecmap::{VecMap, VecSet};
use crate::daemon::{ClientId, Daemon, Leave};
use crate::process::Pid;
use crate::service::machine::{Generation, Input};
use crate::service::selector::Selector;
use crate::service::signal::Signal;
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel};
use crate::wire::{Failure, Outcome, Reply, Request, Status, Until, code};

impl<K: Kernel> Daemon<K> {
    /// Takes up a request; its replies appear in the outbox, now or in a later turn.
    ///
    /// `asker` is the pid of the command that asks, 0 if unknown: it mentions what it starts, and
    /// is no look-alike of it.
    pub fn request(&mut self, client: ClientId, asker: Pid, request: Request) {
        self.waiters.asker = asker;
        if let Err(failure) = self.handle(client, request) {
            self.outbox.push((client, failure.into()));
        }
    }

    fn handle(&mut self, client: ClientId, request: Request) -> Result<(), Failure> {
        match request {
            Request::Start { target, force } => self.start(client, &target, force)?,
            Request::Define { specs, base, force, keep } => {
                self.define_and_start(client, specs, *base, force, keep)?;
            }
            Request::Update { services, env } => self.update(client, services, &env)?,
            Request::Adjust { target, change } => self.adjust(client, &target, &change)?,
            Request::Stop { target } => self.stop(client, &target)?,
            Request::Restart { target } => self.restart(client, &target)?,
            Request::Remove { target } => self.remove(client, &target)?,
            Request::Signal { target, signal, tree } => {
                self.signal_services(client, &target, signal, tree)?;
            }
            Request::Reset { target } => self.reset(client, &target)?,
            Request::Wait { target, until, timeout_ms } => {
                self.wait_status(client, &target, until, timeout_ms)?;
            }
            Request::Flush { target } => self.flush(client, &target)?,
            Request::Depart { home_key } => self.depart(client, home_key),
            Request::Save => self.save(client)?,
            Request::Restore { force } => self.restore(client, force)?,
            Request::Leave { services } => self.leave(client, services),
            Request::Upgrade { binary } => self.upgrade(client, binary)?,
            Request::Events { follow } => {
                if follow {
                    for event in self.events.past() {
                        self.outbox.push((client, Reply::Event(event)));
                    }
                    self.events.followers.push(client);
                } else {
                    self.outbox.push((client, Reply::Events(self.events.past())));
                }
            }
            Request::List { usage } => {
                let reply = self.list(usage);
                self.outbox.push((client, reply));
            }
            Request::Info { target } => {
                let reply = self.infos(&target)?;
                self.outbox.push((client, reply));
            }
            Request::Env { target } => self.outbox.push((client, self.envs(&target)?)),
            Request::Logs { target } => self.outbox.push((client, self.log_files(&target)?)),
            Request::Health => self.outbox.push((client, Reply::Health(self.health()))),
            Request::Doctor => {
                let reply = Reply::Doctor(self.doctor());
                self.outbox.push((client, reply));
            }
        }
        Ok(())
    }

    /// The ids that a target names, and an error outcome for each part of it that names none.
    pub(crate) fn resolve(&self, target: &str) -> Result<(Vec<Id>, Vec<Outcome>), Failure> {
        let target = Selector::parse(target).map_err(Failure::usage)?;
        let mut ids = VecSet::new();
        let mut missing = Vec::new();
        for part in target.parts() {
            let chosen =
                part.choose(self.services.iter().map(|service| (service.id, service.name())));
            if chosen.is_empty() && !part.is_all() {
                let text = format!("no such service: {} (try 'opm ls')", part.text());
                missing.push(failed(code::NO_SUCH, text));
            }
            for id in chosen {
                ids.insert(id);
            }
        }
        if ids.is_empty() && missing.len() == 1 {
            return Err(Failure::new(code::NO_SUCH, missing.remove(0).text));
        }
        Ok((ids.into_iter().collect(), missing))
    }

    /// Waits for `wishes`; `said` is what is known already.
    pub(crate) fn await_all(
        &mut self,
        client: ClientId,
        wishes: VecMap<Id, Wish>,
        said: Vec<(Id, Outcome)>,
        then: Then,
    ) {
        let total = wishes.len();
        let pending = Pending {
            client,
            waiting: wishes,
            outcomes: said,
            deadline: None,
            then,
            total,
            told: 0,
        };
        self.wait_for(pending);
    }

    pub(crate) fn said_missing(missing: Vec<Outcome>) -> Vec<(Id, Outcome)> {
        missing.into_iter().map(|outcome| (Id::MAX, outcome)).collect()
    }

    fn start(&mut self, client: ClientId, target: &str, force: bool) -> Result<(), Failure> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        let mut wishes = VecMap::new();
        let idle = |service: &Service| !service.is_live();
        let any_idle = ids.iter().any(|id| self.services.get(*id).is_some_and(idle));
        let passers = if any_idle { self.passers() } else { Vec::new() };
        for id in ids {
            let Some(service) = self.services.get(id) else { continue };
            if service.removing {
                let text = format!("{}: is being removed", service.name());
                said.push((id, failed(code::FAILED, text)));
                continue;
            }
            if service.status() == Status::Online {
                let pid = self.trees.pid(id).unwrap_or(0);
                let name = service.name();
                said.push((id, done(format!("{name}: already online (id {id}, pid {pid})"))));
                // What was adopted while its end was a tracer's can be on its way down.
                self.feed(id, Input::Start);
                continue;
            }
            if idle(service) {
                match self.stands_in_the_way(id, &passers, force) {
                    Err(outcome) => {
                        said.push((id, outcome));
                        continue;
                    }
                    Ok(warnings) if warnings.is_empty() => {}
                    Ok(warnings) => said.push((id, warned(warnings))),
                }
            }
            let after = self.services.get(id).map_or(0, |service| service.emptied);
            wishes.insert(id, Wish::Up(Generation(after)));
            self.wake_up(id, Input::Start);
        }
        self.await_all(client, wishes, said, Then::Answer);
        Ok(())
    }

    /// Starts or restarts by the operator's wish: a note of the past is past.
    pub(crate) fn wake_up(&mut self, id: Id, input: Input) {
        if let Some(service) = self.services.get_mut(id) {
            service.note = None;
        }
        self.feed(id, input);
    }

    fn wish_down(&self, id: Id) -> Wish {
        Wish::Down(Generation(self.services.get(id).map_or(0, |service| service.generation)))
    }

    fn stop(&mut self, client: ClientId, target: &str) -> Result<(), Failure> {
        let (ids, missing) = self.resolve(target)?;
        let mut wishes = VecMap::new();
        for id in ids {
            wishes.insert(id, self.wish_down(id));
            self.feed(id, Input::Stop);
        }
        self.await_all(client, wishes, Self::said_missing(missing), Then::Answer);
        Ok(())
    }

    fn restart(&mut self, client: ClientId, target: &str) -> Result<(), Failure> {
        let (ids, missing) = self.resolve(target)?;
        let mut wishes = VecMap::new();
        let mut said = Self::said_missing(missing);
        let mut passers = None;
        for id in ids {
            let Some(service) = self.services.get(id) else { continue };
            if service.removing {
                let text = format!("{}: is being removed", service.name());
                said.push((id, failed(code::FAILED, text)));
                continue;
            }
            if let Err(refused) = self.check_granted(&service.definition.spec) {
                said.push((id, failed(refused.code, refused.text)));
                continue;
            }
            // A restart of what is down is a start.
            if !service.is_live() {
                let passers = passers.get_or_insert_with(|| self.passers());
                match self.stands_in_the_way(id, passers, false) {
                    Err(outcome) => {
                        said.push((id, outcome));
                        continue;
                    }
                    Ok(warnings) if warnings.is_empty() => {}
                    Ok(warnings) => said.push((id, warned(warnings))),
                }
            }
            let Some(service) = self.services.get(id) else { continue };
            // One that is starting is not stopped for a restart: its exec is the fresh one.
            let starting = service.status() == Status::Starting;
            let after = service.generation.saturating_sub(u64::from(starting));
            wishes.insert(id, Wish::Up(Generation(after)));
            self.wake_up(id, Input::Restart);
        }
        self.await_all(client, wishes, said, Then::Answer);
        Ok(())
    }

    fn remove(&mut self, client: ClientId, target: &str) -> Result<(), Failure> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        let mut wishes = VecMap::new();
        for id in ids {
            let Some(service) = self.services.get_mut(id) else {
                continue;
            };
            service.removing = true;
            let name = service.name().to_owned();
            self.feed(id, Input::Stop);
            if self.services.get(id).is_some() {
                wishes.insert(id, Wish::Gone);
            } else {
                said.push((id, done(format!("{name}: removed"))));
            }
        }
        self.await_all(client, wishes, said, Then::Answer);
        Ok(())
    }

    fn signal_services(
        &mut self,
        client: ClientId,
        target: &str,
        signal: i32,
        tree: bool,
    ) -> Result<(), Failure> {
        if !(1..=64).contains(&signal) {
            return Err(Failure::usage(format!("{signal}: no such signal")));
        }
        let (ids, missing) = self.resolve(target)?;
        let word = Signal::from_number(signal).map_or(signal.to_string(), Signal::name);
        let mut said = Self::said_missing(missing);
        for id in ids {
            let Some(service) = self.services.get(id) else {
                continue;
            };
            let name = service.name().to_owned();
            let sent = self.with_trees(|trees, cx| trees.signal(cx, id, signal, tree));
            if sent == Err(Errno::SRCH) {
                said.push((id, failed(code::FAILED, format!("{name}: is not running"))));
                continue;
            }
            said.push((id, told(&name, sent, format!("{name}: sent signal {word}"))));
        }
        self.await_all(client, VecMap::new(), said, Then::Answer);
        Ok(())
    }

    fn reset(&mut self, client: ClientId, target: &str) -> Result<(), Failure> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        for id in ids {
            let Some(service) = self.services.get_mut(id) else {
                continue;
            };
            service.machine.reset();
            said.push((id, done(format!("{}: counters are 0", service.name()))));
            self.ledger.dirty.insert(id);
        }
        self.await_all(client, VecMap::new(), said, Then::Answer);
        Ok(())
    }

    fn wait_status(
        &mut self,
        client: ClientId,
        target: &str,
        until: Until,
        timeout_ms: Option<u64>,
    ) -> Result<(), Failure> {
        let (ids, missing) = self.resolve(target)?;
        let mut waiting = VecMap::new();
        for id in ids {
            waiting.insert(id, Wish::Status(until));
        }
        let deadline = timeout_ms.map(|ms| self.now.saturating_add(ms));
        let total = waiting.len();
        let outcomes = Self::said_missing(missing);
        let then = Then::Answer;
        self.wait_for(Pending { client, waiting, outcomes, deadline, then, total, told: 0 });
        Ok(())
    }

    fn flush(&mut self, client: ClientId, target: &str) -> Result<(), Failure> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        for id in ids {
            let Some(service) = self.services.get(id) else { continue };
            let name = service.name().to_owned();
            let (out, error) = crate::daemon::launch::log_paths(&self.home, &name);
            let prefix = format!("{}/", self.home);
            let mut result = Ok(());
            for path in [out, error] {
                let Some(file) = path.strip_prefix(&prefix) else {
                    continue;
                };
                // Emptied in place: the service appends to the same file.
                result = result.and(self.kernel.open(file, crate::sys::Mode::Fresh).map(drop));
            }
            said.push((id, told(&name, result, format!("{name}: logs are empty"))));
        }
        self.await_all(client, VecMap::new(), said, Then::Answer);
        Ok(())
    }

    fn leave(&mut self, client: ClientId, services: bool) {
        // Nothing survives PID 1, so that leaving without them would be a kill.
        let services = services || self.ledger.header.daemon.pid == 1;
        let alive: Vec<Id> = self
            .services
            .iter()
            .filter(|u| u.machine.generation().is_some())
            .map(|u| u.id)
            .collect();
        if !services {
            let running = alive.len();
            let text = match running {
                0 => "daemon stopped; no service was running".to_owned(),
                1 => "daemon stopped; 1 service keeps running".to_owned(),
                n => format!("daemon stopped; {n} services keep running"),
            };
            let outcomes = vec![done(text)];
            self.outbox.push((client, Reply::Outcomes { outcomes, summary: None }));
            self.leave = Some(Leave::Quit);
            return;
        }
        let mut wishes = VecMap::new();
        let ids: Vec<Id> = self.services.iter().map(|service| service.id).collect();
        for id in ids {
            if alive.contains(&id) {
                wishes.insert(id, self.wish_down(id));
            }
            self.feed(id, Input::Stop);
        }
        self.await_all(client, wishes, Vec::new(), Then::Leave);
    }
}
