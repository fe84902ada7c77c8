//! Services come and go: put on record before anything of them runs, forgotten when nothing does.
use super::wait::{Then, Wish, warned};
use crate::daemon::ledger::definitions::Change;
use crate::daemon::service::Service;
use crate::daemon::vecmap::{VecMap, VecSet};
use crate::daemon::{ClientId, Daemon};
use crate::service::context::Context;
use crate::service::machine::{Ending, Generation, Goal, Input, Machine, Past};
use crate::service::spec::{Definition, Env, Id, Spec};
use crate::sys::{Kernel, describe};
use crate::wire::{Failure, code};
use std::rc::Rc;

/// Most services of one daemon.
const SERVICES_MAX: usize = 16_384;

/// Most keys that are named in one line.
const KEYS_NAMED_MAX: usize = 8;

/// In a file (`keep`) the name stands for the service, and its definition has changed.
fn taken(name: &str, id: Id, keep: bool, differ: &[String]) -> Failure {
    let mut keys = differ.iter().take(KEYS_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if differ.len() > KEYS_NAMED_MAX {
        keys.push_str(&format!(" and {} more", differ.len() - KEYS_NAMED_MAX));
    }
    let file_alone = differ.iter().all(|key| key.starts_with(".env:"));
    let advice = match (differ, keep) {
        ([], _) => format!("try 'opm start {name}'"),
        (_, true) if file_alone => {
            format!("it differs in {keys}; try 'opm restart {name} --update-env'")
        }
        (_, true) => format!("it differs in {keys}; 'opm remove {name}' first"),
        (_, false) => format!("it differs in {keys}; choose another with --name"),
    };
    Failure::plain(format!("{name}: the name is taken by id {id} ({advice})"))
}

impl<K: Kernel> Daemon<K> {
    pub(crate) fn define_and_start(
        &mut self,
        client: ClientId,
        specs: Vec<Spec>,
        base: Context,
        force: bool,
        keep: bool,
    ) -> Result<(), Failure> {
        for spec in &specs {
            spec.check().map_err(Failure::usage)?;
            self.check_granted(spec)?;
        }
        let mut fresh = Vec::new();
        let mut known = Vec::new();
        for spec in specs {
            let Some(service) = self.services.named(&spec.name) else {
                fresh.push(spec);
                continue;
            };
            if service.removing {
                // Made up now it would come up to be forgotten at its next stop.
                return Err(Failure::plain(format!("{}: is being removed", spec.name)));
            }
            let differ = service.definition.spec.differences(&spec);
            if !keep || !differ.is_empty() {
                return Err(taken(&spec.name, service.id, keep, &differ));
            }
            // An import that is repeated makes up what is there already.
            known.push(service.id);
        }
        let passers = self.passers();
        let mut said = Vec::new();
        let mut allowed = Vec::new();
        for spec in fresh {
            match self.check_likeness(&spec, &passers, force) {
                Err(outcome) if keep => said.push((Id::MAX, outcome)),
                Err(outcome) => return Err(Failure::new(outcome.code, outcome.text)),
                Ok(warnings) => allowed.push((spec, warnings)),
            }
        }
        let base = self.ledger.definitions.intern(base);
        let (specs, warnings): (Vec<_>, Vec<_>) = allowed.into_iter().unzip();
        let ids = self.define(specs, &base)?;
        let mut wishes = VecMap::new();
        for (id, mut warnings) in ids.into_iter().zip(warnings) {
            warnings.extend(self.note_lacking(id));
            if !warnings.is_empty() {
                said.push((id, warned(warnings)));
            }
            if let Some(service) = self.services.get_mut(id) {
                service.provisional = !keep;
            }
            known.push(id);
        }
        for id in known {
            let after = self.services.get(id).map_or(0, |service| service.emptied);
            wishes.insert(id, Wish::Up(Generation(after)));
            self.wake_up(id, Input::Start);
        }
        self.await_all(client, wishes, said, Then::Answer);
        Ok(())
    }

    /// What a service gets less of than its definer had.
    fn note_lacking(&mut self, id: Id) -> Option<String> {
        let service = self.services.get(id)?;
        let lacking = self.kernel.lacking(&service.definition.attributes())?;
        let text = format!(
            "{}: it gets {lacking} (more than the daemon may give: start that where the limits \
             are higher)",
            service.name()
        );
        self.log.push(text.clone());
        Some(text)
    }

    /// Puts services on record, all or none.
    pub(crate) fn define(
        &mut self,
        specs: Vec<Spec>,
        base: &Rc<Context>,
    ) -> Result<Vec<Id>, Failure> {
        let wanted = specs.into_iter().map(|spec| (None, Definition { spec, base: base.clone() }));
        self.define_all(wanted.collect())
    }

    /// As [`Daemon::define`], with wished ids: a wish that is taken gives the lowest free one.
    pub(crate) fn define_all(
        &mut self,
        wanted: Vec<(Option<Id>, Definition)>,
    ) -> Result<Vec<Id>, Failure> {
        if self.services.len() + wanted.len() > SERVICES_MAX {
            return Err(Failure::plain(format!("more than {SERVICES_MAX} services")));
        }
        let mut names: Vec<&str> = wanted.iter().map(|(_, d)| d.spec.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Failure::usage(format!("{}: the name is there twice", twice[0])));
        }
        let mut definitions: Vec<(Id, Definition)> = Vec::new();
        let mut given = VecSet::new();
        let mut lowest = 0;
        for (wish, definition) in wanted {
            let is_free = |id: Id| self.services.get(id).is_none() && !given.contains(&id);
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
            Failure::plain(format!(
                "cannot write {what}: {} (nothing was changed)",
                describe(errno)
            ))
        };
        let journal = format!("{}/journal", self.home);
        for (id, _) in &definitions {
            let reserved = self.ledger.journal.reserve(&mut self.kernel, *id);
            reserved.map_err(|errno| cannot(&journal, errno))?;
        }
        let lines: Vec<_> = definitions.iter().map(|(id, definition)| (*id, definition)).collect();
        let lines = self.ledger.definitions.append(&mut self.kernel, &lines);
        let lines = lines.map_err(|errno| cannot(&format!("{}/services", self.home), errno))?;
        let mut ids = Vec::new();
        for ((id, definition), line) in definitions.into_iter().zip(lines) {
            self.insert_new(id, definition, line);
            ids.push(id);
        }
        Ok(ids)
    }

    /// Changes the environment that services get from their next start on, all or none. What was
    /// given by hand stays.
    pub(crate) fn update(
        &mut self,
        client: ClientId,
        services: Vec<(String, Env)>,
        env: &Env,
    ) -> Result<(), Failure> {
        let mut bases: Vec<Rc<Context>> = Vec::new();
        let mut changed: Vec<Change> = Vec::new();
        for (name, dotenv) in services {
            let Some(service) = self.services.named(&name) else {
                return Err(Failure::new(
                    code::NO_SUCH,
                    format!("no such service: {name} (try 'opm ls')"),
                ));
            };
            let (line, id, old) = (service.line, service.id, service.definition.clone());
            let attributes = old.base.attributes;
            let spec = Spec { dotenv, ..old.spec.clone() };
            spec.check().map_err(Failure::usage)?;
            let known = bases.iter().find(|base| base.attributes == attributes).cloned();
            let base = known.unwrap_or_else(|| {
                let base = self.ledger.definitions.intern(Context { env: env.clone(), attributes });
                bases.push(base.clone());
                base
            });
            changed.push(Change { line, id, new: Definition { spec, base }, old });
        }
        self.replace_definitions(changed)?;
        self.await_all(client, VecMap::new(), Vec::new(), Then::Answer);
        Ok(())
    }

    fn insert_new(&mut self, id: Id, definition: Definition, line: u64) {
        let machine = Machine::new(definition.spec.policy);
        let mut service = Service::new(id, definition, line, machine);
        // What its slot was used for before is past.
        service.emptied = self.ledger.sequence.0;
        let Some(tree) = self.trees.take_unrecorded(service.name()) else {
            return self.insert(service);
        };
        // What is left of its name drains first.
        let generation = tree.generation;
        let past = Past::Alive { generation, since: self.now };
        let policy = service.definition.spec.policy;
        service.machine = Machine::resume(policy, Goal::Up, 0, 0, past, self.now);
        service.generation = generation.0;
        service.emptied = generation.0.saturating_sub(1);
        service.note_announced();
        self.insert(service);
        self.trees.drain(id, tree);
        self.feed(id, Input::LeaderExited(generation, Ending::Failure));
    }

    pub(crate) fn insert(&mut self, service: Service) {
        self.ledger.dirty.insert(service.id);
        self.services.insert(service);
    }

    /// Forgets a service of which nothing lives.
    pub(crate) fn forget(&mut self, id: Id) {
        let Some(service) = self.services.remove(id) else {
            return;
        };
        self.answer_forgotten(id, &service);
        self.waiters.changed.insert(id);
        self.ledger.dirty.remove(&id);
        // The generation stays, for no generation is ever given twice.
        let state = crate::process::journal_format::State {
            definition: service.line,
            removed: true,
            generation: service.generation,
            emptied: service.emptied,
            ..Default::default()
        };
        let written = self.ledger.journal.write(&mut self.kernel, id, &state);
        if written.is_err() {
            // Else the next daemon would bring it back, beside a new one of its name.
            self.ledger.removed_slots.push((id, state));
        }
        // A full disk must not stop a removal: the journal has it already.
        let noted =
            self.ledger.definitions.remove(&mut self.kernel, service.line, &service.definition);
        if let Err(errno) = written.and(noted) {
            self.ledger.disk_error =
                Some(format!("cannot note the removal of {}: {errno}", service.name()));
        }
    }
}
