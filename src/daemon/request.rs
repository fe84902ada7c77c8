//! What each request does. A reply goes out when its effect is true ([`super::answer`]).
use super::adopt::Stray;
use super::answer::{Pending, Then, Wish, done, failed};
use super::lookalike::{Likeness, Passer};
use super::unit::Unit;
use super::{ClientId, Daemon, Leave};
use crate::process::Pid;
use crate::service::machine::{Generation, Goal, Input, Machine, Past};
use crate::service::spec::{Definition, Env, Id, Spec};
use crate::service::target::Target;
use crate::sys::{Kernel, Reach, describe};
use crate::wire::{Outcome, Reply, Request, Status, Until, code};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Most services of one daemon.
pub const SERVICES_MAX: usize = 16_384;

/// A refusal of the request as a whole: exit code and line.
pub(crate) type Refusal = (u8, String);

impl<K: Kernel> Daemon<K> {
    /// Takes up a request; its replies appear in the outbox, now or in a later turn.
    ///
    /// `asker` is the pid of the command that asks, 0 if unknown: it mentions what it starts, and
    /// is no look-alike of it.
    pub fn request(&mut self, client: ClientId, asker: Pid, request: Request) {
        self.asker = asker;
        if let Err((code, text)) = self.handle(client, request) {
            self.outbox.push((client, Reply::Failed { code, text }));
        }
    }

    fn handle(&mut self, client: ClientId, request: Request) -> Result<(), Refusal> {
        match request {
            Request::Start { target, force } => self.start(client, &target, force)?,
            Request::Define {
                specs,
                base,
                force,
                keep,
            } => {
                self.define_and_start(client, specs, base, force, keep)?;
            }
            Request::Stop { target } => self.stop(client, &target)?,
            Request::Restart { target } => self.restart(client, &target)?,
            Request::Remove { target } => self.remove(client, &target)?,
            Request::Signal {
                target,
                signal,
                tree,
            } => {
                self.signal_services(client, &target, signal, tree)?;
            }
            Request::Reset { target } => self.reset(client, &target)?,
            Request::Wait {
                target,
                until,
                timeout_ms,
            } => {
                self.wait_status(client, &target, until, timeout_ms)?;
            }
            Request::Flush { target } => self.flush(client, &target)?,
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
                    self.outbox
                        .push((client, Reply::Events(self.events.past())));
                }
            }
            Request::List { .. }
            | Request::Info { .. }
            | Request::Env { .. }
            | Request::Logs { .. }
            | Request::Health
            | Request::Doctor => {
                let reply = self.report(request)?;
                self.outbox.push((client, reply));
            }
        }
        Ok(())
    }

    /// The ids that a target names, and an error outcome for each part of it that names none.
    pub(crate) fn resolve(&self, target: &str) -> Result<(Vec<Id>, Vec<Outcome>), Refusal> {
        let target = Target::parse(target).map_err(|text| (code::USAGE, text))?;
        let mut ids = Vec::new();
        let mut missing = Vec::new();
        for part in target.parts() {
            let before = ids.len();
            let named = self
                .all_units()
                .filter(|unit| part.matches(unit.id, unit.name()));
            ids.extend(named.map(|unit| unit.id));
            if ids.len() == before && !part.is_all() {
                let text = format!("no such service: {} (try 'opm ls')", part.text());
                missing.push(failed(code::NO_SUCH, text));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() && missing.len() == 1 {
            return Err((code::NO_SUCH, missing.remove(0).text));
        }
        Ok((ids, missing))
    }

    /// Waits for `wishes`; `said` is what is known already.
    pub(crate) fn await_all(
        &mut self,
        client: ClientId,
        wishes: BTreeMap<Id, Wish>,
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

    fn said_missing(missing: Vec<Outcome>) -> Vec<(Id, Outcome)> {
        missing
            .into_iter()
            .map(|outcome| (Id::MAX, outcome))
            .collect()
    }

    fn start(&mut self, client: ClientId, target: &str, force: bool) -> Result<(), Refusal> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        let mut wishes = BTreeMap::new();
        let idle = |unit: &Unit<K>| unit.run.is_none() && unit.machine.generation().is_none();
        let any_idle = ids.iter().any(|id| self.unit(*id).is_some_and(idle));
        let passers = if any_idle { self.passers() } else { Vec::new() };
        for id in ids {
            let Some(unit) = self.unit(id) else { continue };
            if unit.removing {
                let text = format!("{}: is being removed", unit.name());
                said.push((id, failed(code::FAILED, text)));
                continue;
            }
            if unit.status() == Status::Online {
                let pid = unit.pid().unwrap_or(0);
                let name = unit.name();
                said.push((
                    id,
                    done(format!("{name}: already online (id {id}, pid {pid})")),
                ));
                // Online with the goal down can't be: the goal is up already.
                continue;
            }
            if idle(unit) {
                match self.stands_in_the_way(id, &passers, force) {
                    Err(outcome) => {
                        said.push((id, outcome));
                        continue;
                    }
                    Ok(warnings) if warnings.is_empty() => {}
                    Ok(warnings) => said.push((
                        id,
                        Outcome {
                            warnings,
                            ..done(String::new())
                        },
                    )),
                }
            }
            let after = self.unit(id).map_or(0, |unit| unit.emptied);
            wishes.insert(id, Wish::Up(Generation(after)));
            self.wake_up(id, Input::Start);
        }
        self.await_all(client, wishes, said, Then::Answer);
        Ok(())
    }

    /// Starts or restarts by the operator's wish: a note of the past is past.
    pub(crate) fn wake_up(&mut self, id: Id, input: Input) {
        if let Some(unit) = self.unit_mut(id) {
            unit.note = None;
        }
        self.feed(id, input);
    }

    /// Look-alikes of a service that is about to start. Err: it must not.
    pub(crate) fn stands_in_the_way(
        &mut self,
        id: Id,
        passers: &[Passer],
        force: bool,
    ) -> Result<Vec<String>, Outcome> {
        let Some(unit) = self.unit(id) else {
            return Ok(Vec::new());
        };
        let spec = unit.definition.spec.clone();
        self.check_likeness(&spec, passers, force)
            .inspect_err(|outcome| {
                let reason = outcome.text.clone();
                let generation = Generation(self.unit(id).map_or(0, |unit| unit.generation));
                self.announce(id, generation, "refused", |event| {
                    event.reason = Some(reason)
                });
            })
    }

    fn check_likeness(
        &mut self,
        spec: &Spec,
        passers: &[Passer],
        force: bool,
    ) -> Result<Vec<String>, Outcome> {
        if let [pid, ..] = self.nameless()[..] {
            let text = format!(
                "{}: process {pid} bears this home's mark, but its record is lost: it could be \
                 this service's (end it first)",
                spec.name
            );
            return Err(failed(code::REFUSED, text));
        }
        match self.likeness(spec, passers) {
            None => Ok(Vec::new()),
            Some(Likeness::Same(pid)) if !force => {
                let text = format!(
                    "{}: process {pid} runs the same command in the same directory and is not \
                     ours (stop it, or start with --force)",
                    spec.name
                );
                Err(failed(code::REFUSED, text))
            }
            Some(Likeness::Same(pid)) => Ok(vec![format!(
                "{}: process {pid} runs the same command in the same directory",
                spec.name
            )]),
            Some(Likeness::Near(pid, pattern)) => Ok(vec![format!(
                "{}: process {pid} runs {pattern} in the same directory too",
                spec.name
            )]),
        }
    }

    fn define_and_start(
        &mut self,
        client: ClientId,
        specs: Vec<Spec>,
        base: Env,
        force: bool,
        keep: bool,
    ) -> Result<(), Refusal> {
        for spec in &specs {
            spec.check().map_err(|text| (code::USAGE, text))?;
        }
        let mut fresh = Vec::new();
        let mut known = Vec::new();
        for spec in specs {
            match self.names.get(&spec.name).copied() {
                None => fresh.push(spec),
                // An import that is repeated makes up what is there already.
                Some(id) if keep && self.unit(id).is_some_and(|u| u.definition.spec == spec) => {
                    known.push(id);
                }
                Some(id) => {
                    let text = format!(
                        "{}: the name is taken by id {id} (choose another with --name)",
                        spec.name
                    );
                    return Err((code::FAILED, text));
                }
            }
        }
        let passers = self.passers();
        let mut said = Vec::new();
        let mut allowed = Vec::new();
        for spec in fresh {
            match self.check_likeness(&spec, &passers, force) {
                Err(outcome) if keep => said.push((Id::MAX, outcome)),
                Err(outcome) => return Err((outcome.code, outcome.text)),
                Ok(warnings) => allowed.push((spec, warnings)),
            }
        }
        let base = self.store.intern(base);
        let (specs, warnings): (Vec<_>, Vec<_>) = allowed.into_iter().unzip();
        let ids = self.define(specs, &base)?;
        let mut wishes = BTreeMap::new();
        for (id, warnings) in ids.into_iter().zip(warnings) {
            if !warnings.is_empty() {
                said.push((
                    id,
                    Outcome {
                        warnings,
                        ..done(String::new())
                    },
                ));
            }
            if let Some(unit) = self.unit_mut(id) {
                unit.provisional = !keep;
            }
            known.push(id);
        }
        for id in known {
            let after = self.unit(id).map_or(0, |unit| unit.emptied);
            wishes.insert(id, Wish::Up(Generation(after)));
            self.wake_up(id, Input::Start);
        }
        self.await_all(client, wishes, said, Then::Answer);
        Ok(())
    }

    /// Puts services on record, all or none.
    pub(crate) fn define(&mut self, specs: Vec<Spec>, base: &Rc<Env>) -> Result<Vec<Id>, Refusal> {
        let wanted = specs.into_iter().map(|spec| {
            (
                None,
                Definition {
                    spec,
                    base: base.clone(),
                },
            )
        });
        self.define_all(wanted.collect())
    }

    /// As [`Daemon::define`], with wished ids: a wish that is taken gives the lowest free one.
    pub(crate) fn define_all(
        &mut self,
        wanted: Vec<(Option<Id>, Definition)>,
    ) -> Result<Vec<Id>, Refusal> {
        if self.names.len() + wanted.len() > SERVICES_MAX {
            return Err((code::FAILED, format!("more than {SERVICES_MAX} services")));
        }
        let mut definitions: Vec<(Id, Definition)> = Vec::new();
        let mut given = BTreeSet::new();
        let mut lowest = 0;
        for (wish, definition) in wanted {
            let is_free = |id: Id| self.unit(id).is_none() && !given.contains(&id);
            let wish = wish.filter(|id| (*id as usize) < SERVICES_MAX && is_free(*id));
            let id = wish.unwrap_or_else(|| {
                while !is_free(lowest) {
                    lowest += 1;
                }
                lowest
            });
            given.insert(id);
            definitions.push((id, definition));
        }
        let cannot = |what: &str, errno| {
            (
                code::FAILED,
                format!(
                    "cannot write {what}: {} (nothing was changed)",
                    describe(errno)
                ),
            )
        };
        let journal = format!("{}/journal", self.home);
        for (id, _) in &definitions {
            let reserved = self.journal.reserve(&mut self.kernel, *id);
            reserved.map_err(|errno| cannot(&journal, errno))?;
        }
        let lines: Vec<_> = definitions
            .iter()
            .map(|(id, definition)| (*id, definition))
            .collect();
        let lines = self.store.append(&mut self.kernel, &lines);
        let lines = lines.map_err(|errno| cannot(&format!("{}/services", self.home), errno))?;
        let mut ids = Vec::new();
        for ((id, definition), line) in definitions.into_iter().zip(lines) {
            self.insert_new(id, definition, line);
            ids.push(id);
        }
        Ok(ids)
    }

    fn insert_new(&mut self, id: Id, definition: Definition, line: u64) {
        let machine = Machine::new(definition.spec.policy);
        let mut unit = Unit {
            id,
            definition,
            line,
            machine,
            run: None,
            emptied: 0,
            generation: 0,
            started_at: 0,
            exited_at: 0,
            restarted_at: 0,
            exit: None,
            removing: false,
            provisional: false,
            halted: false,
            launch_error: None,
            note: None,
            deadline: None,
            sample: None,
            announced: Status::Stopped,
        };
        if let Some(stray) = self.take_stray(&unit) {
            let Stray { run, .. } = stray;
            let generation = run.generation;
            let past = Past::Alive {
                generation,
                since: self.now,
            };
            let policy = unit.definition.spec.policy;
            unit.machine = Machine::resume(policy, Goal::Up, 0, 0, past, self.now);
            unit.generation = generation.0;
            unit.run = Some(run);
            unit.announced = Status::Online;
            self.insert(unit);
            self.stray_leader_is_dead(id, generation);
            return;
        }
        self.insert(unit);
    }

    pub(crate) fn insert(&mut self, unit: Unit<K>) {
        let id = unit.id;
        let index = id as usize;
        if self.units.len() <= index {
            self.units.resize_with(index + 1, || None);
        }
        self.names.insert(unit.name().to_owned(), id);
        self.units[index] = Some(Box::new(unit));
        self.dirty.insert(id);
    }

    /// Forgets a service of which nothing lives.
    pub(crate) fn forget(&mut self, id: Id) {
        let Some(unit) = self.units.get_mut(id as usize).and_then(Option::take) else {
            return;
        };
        self.answer_forgotten(id, unit.name());
        self.names.remove(unit.name());
        self.touched.insert(id);
        self.dirty.remove(&id);
        // The generation stays, for no generation is ever given twice.
        let state = crate::process::record::State {
            generation: unit.generation,
            emptied: unit.emptied,
            ..Default::default()
        };
        let written = self.journal.write(&mut self.kernel, id, &state);
        // A full disk must not stop a removal: the journal has it already.
        let noted = self.store.remove(&mut self.kernel, unit.line);
        if let Err(errno) = written.and(noted) {
            self.trouble = Some(format!(
                "cannot note the removal of {}: {errno}",
                unit.name()
            ));
        }
    }

    fn wish_down(&self, id: Id) -> Wish {
        Wish::Down(Generation(self.unit(id).map_or(0, |unit| unit.generation)))
    }

    fn stop(&mut self, client: ClientId, target: &str) -> Result<(), Refusal> {
        let (ids, missing) = self.resolve(target)?;
        let mut wishes = BTreeMap::new();
        for id in ids {
            wishes.insert(id, self.wish_down(id));
            self.feed(id, Input::Stop);
        }
        self.await_all(client, wishes, Self::said_missing(missing), Then::Answer);
        Ok(())
    }

    fn restart(&mut self, client: ClientId, target: &str) -> Result<(), Refusal> {
        let (ids, missing) = self.resolve(target)?;
        let mut wishes = BTreeMap::new();
        let mut said = Self::said_missing(missing);
        for id in ids {
            let Some(unit) = self.unit(id) else { continue };
            if unit.removing {
                let text = format!("{}: is being removed", unit.name());
                said.push((id, failed(code::FAILED, text)));
                continue;
            }
            // One that is starting is not stopped for a restart: its exec is the fresh one.
            let starting = unit.status() == Status::Starting;
            let after = unit.generation.saturating_sub(u64::from(starting));
            wishes.insert(id, Wish::Up(Generation(after)));
            self.wake_up(id, Input::Restart);
        }
        self.await_all(client, wishes, said, Then::Answer);
        Ok(())
    }

    fn remove(&mut self, client: ClientId, target: &str) -> Result<(), Refusal> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        let mut wishes = BTreeMap::new();
        for id in ids {
            let Some(unit) = self.unit_mut(id) else {
                continue;
            };
            unit.removing = true;
            let name = unit.name().to_owned();
            self.feed(id, Input::Stop);
            if self.unit(id).is_some() {
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
    ) -> Result<(), Refusal> {
        if !(1..=64).contains(&signal) {
            return Err((code::USAGE, format!("{signal}: no such signal")));
        }
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        for id in ids {
            let Some(unit) = self.units.get(id as usize).and_then(Option::as_deref) else {
                continue;
            };
            let name = unit.name().to_owned();
            let pidfd = unit.run.as_ref().filter(|run| run.exit.is_none());
            let Some(pidfd) = pidfd.and_then(|run| run.pidfd.as_ref()) else {
                said.push((id, failed(code::FAILED, format!("{name}: is not running"))));
                continue;
            };
            let sent = if tree {
                Ok(())
            } else {
                self.kernel.signal(pidfd, signal, Reach::Process)
            };
            if tree {
                self.signal_tree(id, signal);
            }
            said.push((
                id,
                match sent {
                    Ok(()) => done(format!("{name}: sent signal {signal}")),
                    Err(errno) => failed(code::FAILED, format!("{name}: {}", describe(errno))),
                },
            ));
        }
        self.await_all(client, BTreeMap::new(), said, Then::Answer);
        Ok(())
    }

    fn reset(&mut self, client: ClientId, target: &str) -> Result<(), Refusal> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        for id in ids {
            let Some(unit) = self.unit_mut(id) else {
                continue;
            };
            unit.machine.reset();
            said.push((id, done(format!("{}: counters are 0", unit.name()))));
            self.dirty.insert(id);
        }
        self.await_all(client, BTreeMap::new(), said, Then::Answer);
        Ok(())
    }

    fn wait_status(
        &mut self,
        client: ClientId,
        target: &str,
        until: Until,
        timeout_ms: Option<u64>,
    ) -> Result<(), Refusal> {
        let (ids, missing) = self.resolve(target)?;
        let waiting: BTreeMap<Id, Wish> = ids
            .into_iter()
            .map(|id| (id, Wish::Status(until)))
            .collect();
        let deadline = timeout_ms.map(|ms| self.now.saturating_add(ms));
        let total = waiting.len();
        let outcomes = Self::said_missing(missing);
        let then = Then::Answer;
        self.wait_for(Pending {
            client,
            waiting,
            outcomes,
            deadline,
            then,
            total,
            told: 0,
        });
        Ok(())
    }

    fn flush(&mut self, client: ClientId, target: &str) -> Result<(), Refusal> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        for id in ids {
            let Some(unit) = self.unit(id) else { continue };
            let name = unit.name().to_owned();
            let (out, error) = super::launch::log_paths(&self.home, &name);
            let prefix = format!("{}/", self.home);
            let mut result = Ok(());
            for path in [out, error] {
                let Some(file) = path.strip_prefix(&prefix) else {
                    continue;
                };
                // Emptied in place: the service appends to the same file.
                result = result.and(self.kernel.open(file, crate::sys::Mode::Fresh).map(drop));
            }
            said.push((
                id,
                match result {
                    Ok(()) => done(format!("{name}: logs are empty")),
                    Err(errno) => failed(code::FAILED, format!("{name}: {}", describe(errno))),
                },
            ));
        }
        self.await_all(client, BTreeMap::new(), said, Then::Answer);
        Ok(())
    }

    fn leave(&mut self, client: ClientId, services: bool) {
        // Nothing survives PID 1, so that leaving without them would be a kill.
        let services = services || self.own.pid == 1;
        let alive: Vec<Id> = self
            .all_units()
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
            self.outbox.push((
                client,
                Reply::Outcomes {
                    outcomes,
                    summary: None,
                },
            ));
            self.leave = Some(Leave::Quit);
            return;
        }
        let mut wishes = BTreeMap::new();
        let ids: Vec<Id> = self.all_units().map(|unit| unit.id).collect();
        for id in ids {
            if alive.contains(&id) {
                wishes.insert(id, self.wish_down(id));
            }
            self.feed(id, Input::Stop);
        }
        self.await_all(client, wishes, Vec::new(), Then::Leave);
    }
}
