//! Services come, change and go: put on record before anything of them runs, forgotten when nothing
//! does. `adjust` is in effect from the next start on; `restore` brings back what `save` has kept.
use super::order::NOBODY;
use super::*;
use crate::daemon::ledger::dump;
use crate::daemon::service::why_not;
use crate::mutant::mutant;
use crate::service::context::Context;
use crate::service::cron::Cron;
use crate::service::machine::{Ending, Goal, Machine, News, Past};
use crate::service::options::find;
use crate::service::spec::{Change, Definition, Env, Spec};
use crate::sys::zone;
use std::rc::Rc;

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
    pub(super) fn check_all(
        &mut self,
        specs: &[Spec],
        candidates: &mut Candidates,
    ) -> Result<(), Failure> {
        for spec in specs {
            spec.check().map_err(Failure::usage)?;
            check_granted(&mut self.kernel, &self.home, spec, candidates)?;
        }
        self.check_order(&specs.iter().collect::<Vec<_>>())?;
        self.check_groups(specs)
    }

    pub(super) fn define_and_start(
        &mut self,
        specs: Vec<Spec>,
        base: Context,
        force: bool,
        existing: Existing,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        let keep = existing != Existing::Refused;
        let mut candidates = Candidates::new(force);
        self.check_all(&specs, &mut candidates)?;
        let (mut fresh, mut ids, mut replaced) = (vec![], vec![], vec![]);
        for spec in specs {
            let Some(service) = self.services.named(&spec.name) else {
                fresh.push(spec);
                continue;
            };
            if service.removing {
                // Started now it would run only to be forgotten at its next stop.
                return Err(Failure::plain(format!("{}: is being removed", spec.name)));
            }
            if matches!(existing, Existing::Replace | Existing::Roll) {
                let base = service.definition.base.clone();
                replaced.push((service.record.definition, service.id, Definition { spec, base }));
                continue;
            }
            let differ = service.definition.spec.differences(&spec);
            if !keep || !differ.is_empty() {
                return Err(taken(&spec.name, service.id, keep, &differ));
            }
            if existing == Existing::Stopped {
                pending.say(service.id, done(format!("{}: is there already", spec.name)));
                continue;
            }
            // An import that is repeated starts what is there already.
            ids.push(service.id);
        }
        let allowed = self.allowed(fresh, keep, &mut candidates, pending)?;
        let base = self.ledger.definitions.intern(base);
        let (wanted, warnings): (Vec<_>, Vec<_>) = allowed
            .into_iter()
            .map(|(spec, warnings)| ((None, Definition { spec, base: base.clone() }), warnings))
            .unzip();
        for (id, mut warnings) in self.define(wanted)?.into_iter().zip(warnings) {
            ids.push(id);
            self.services.get_mut(id).into_iter().for_each(|s| s.provisional = !keep);
            warnings.extend(self.lacking(id));
            pending.warn(id, warnings);
        }
        if existing == Existing::Stopped {
            self.stop_all(&ids, &ids, pending);
            return Ok(());
        }
        for id in ids {
            pending.wait(id, Condition::Up(self.before_start(id)));
            self.wake_up(id, Input::Start, pending);
        }
        let replaced_ids: Vec<Id> = replaced.iter().map(|(_, id, _)| *id).collect();
        self.replace_definitions(replaced)?;
        if existing == Existing::Roll {
            self.roll(replaced_ids, pending);
            return Ok(());
        }
        for id in replaced_ids {
            self.bring_up(id, self.up_again(id), &mut candidates, pending);
        }
        Ok(())
    }

    /// How a service is to run anew: to bring up what is down is no restart.
    fn up_again(&self, id: Id) -> Input {
        match self.services.get(id).map(|service| service.status()) {
            Some(Status::Stopped | Status::Errored) => Input::Start,
            _ => Input::Restart,
        }
    }

    /// Those that no look-alike stands in the way of, with warnings; they get their sockets.
    fn allowed(
        &mut self,
        fresh: Vec<Spec>,
        keep: bool,
        candidates: &mut Candidates,
        pending: &mut Pending,
    ) -> Result<Vec<(Spec, Vec<String>)>, Failure> {
        let mut allowed = Vec::new();
        for spec in fresh {
            match self.check_spec(&spec, candidates) {
                Err(outcome) if keep => pending.say(NO_SERVICE, outcome),
                Err(outcome) => return Err(Failure::new(outcome.code, outcome.text)),
                Ok(warnings) => allowed.push((spec, warnings)),
            }
        }
        allowed.iter().try_for_each(|(spec, _)| self.claim_sockets(spec))?;
        Ok(allowed)
    }

    /// What the daemon can't give a new service; it is in its log, too.
    fn lacking(&mut self, id: Id) -> Option<String> {
        let service = self.services.get(id)?;
        let lacking = self.kernel.lacking(&service.definition.attributes())?;
        let advice = "more than the daemon may give: start that where the limits are higher";
        let text = format!("{}: it gets {lacking} ({advice})", service.name());
        self.log.push(text.clone());
        Some(text)
    }

    /// Puts services on record, all or none; for a wished id that is taken, the lowest free one.
    pub(crate) fn define(
        &mut self,
        wanted: Vec<(Option<Id>, Definition)>,
    ) -> Result<Vec<Id>, Failure> {
        if self.services.len() + wanted.len() > SERVICES_MAX {
            return Err(Failure::plain(format!("more than {SERVICES_MAX} services")));
        }
        let mut names = BTreeSet::new();
        if let Some((_, twice)) = wanted.iter().find(|(_, d)| !names.insert(&d.spec.name)) {
            let name = &twice.spec.name;
            return Err(Failure::usage(format!("{name}: the name is there twice")));
        }
        let (mut ids, mut given, mut lowest) = (Vec::new(), BTreeSet::new(), 0);
        for (wish, _) in &wanted {
            let is_lost = |id: Id| self.ledger.lost.contains_key(&id);
            let is_free =
                |id: Id| self.services.get(id).is_none() && !given.contains(&id) && !is_lost(id);
            let wish = wish.filter(|id| (*id as usize) < SERVICES_MAX && is_free(*id));
            let id = wish.unwrap_or_else(|| {
                while !is_free(lowest) {
                    lowest += 1;
                }
                lowest
            });
            given.insert(id);
            ids.push(id);
        }
        let home = &self.home;
        let cannot = |file: &str, errno| cannot_write(home, file, errno);
        if let Some(highest) = ids.iter().max() {
            let reserved = self.ledger.reserve(&mut self.kernel, *highest);
            reserved.map_err(|errno| cannot("journal", errno))?;
        }
        let definitions = ids.iter().copied().zip(wanted.iter().map(|(_, definition)| definition));
        let lines = self.ledger.definitions.append(&mut self.kernel, definitions);
        let lines = lines.map_err(|errno| cannot("services", errno))?;
        for ((id, (_, definition)), line) in ids.iter().zip(wanted).zip(lines) {
            self.insert_new(*id, definition, line);
        }
        Ok(ids)
    }

    /// Changes the environment from the next start on, all or none; what was given by hand stays.
    pub(super) fn update(
        &mut self,
        services: Vec<(String, Env)>,
        env: &Env,
    ) -> Result<(), Failure> {
        let mut bases: Vec<Rc<Context>> = Vec::new();
        let mut changed: Vec<(u64, Id, Definition)> = Vec::new();
        for (name, dotenv) in services {
            let Some(service) = self.services.named(&name) else {
                return Err(Failure::new(
                    code::NO_SUCH,
                    format!("no such service: {name} (try 'opm ls')"),
                ));
            };
            let Definition { spec, base } = &service.definition;
            let spec = Spec { dotenv: dotenv.into(), ..spec.clone() };
            spec.check().map_err(Failure::usage)?;
            let attributes = base.attributes;
            let known = bases.iter().find(|base| base.attributes == attributes).cloned();
            let base = known.unwrap_or_else(|| {
                let context = Context { env: env.clone(), attributes };
                let base = self.ledger.definitions.intern(context);
                bases.push(base.clone());
                base
            });
            changed.push((service.record.definition, service.id, Definition { spec, base }));
        }
        self.replace_definitions(changed)
    }

    fn insert_new(&mut self, id: Id, definition: Definition, line: u64) {
        let policy = definition.spec.policy.clone();
        let mut service = Service::new(id, definition, line, Machine::new(policy.clone()));
        // What its slot was used for before is past.
        service.record.emptied = self.ledger.sequence.0;
        let Some(tree) = self.trees.take_unrecorded(service.name()) else {
            return self.insert(service);
        };
        // What is left of its name drains first.
        let generation = tree.generation;
        let past = Past::Alive { generation, since: self.now, ready: true };
        service.machine = Machine::resume(policy, Goal::Up, 0, 0, past, self.now);
        service.record.generation = generation.0;
        service.record.emptied = generation.0.saturating_sub(1);
        service.note_announced();
        self.insert(service);
        self.trees.drain(id, tree);
        self.feed(id, Input::News(generation, News::LeaderExited(Ending::Failure)));
    }

    pub(crate) fn insert(&mut self, service: Service) {
        self.ledger.dirty.insert(service.id);
        self.services.insert(service);
        self.unhold_dependants(NOBODY);
    }

    /// Forgets a service of which nothing lives.
    pub(crate) fn forget(&mut self, id: Id) {
        self.with_monitors(id, |monitors, cx, _| monitors.forget(cx, id));
        let Some(service) = self.services.remove(id) else { return };
        self.trees.forget(id);
        let former = self.launches.former.remove(&id);
        let listens = |it: &Definition| !it.spec.held.listen.is_empty();
        let has_listened = listens(&service.definition) || former.as_ref().is_some_and(listens);
        self.answer_forgotten(id, &service);
        self.waiters.changed.insert(id);
        self.logs.forget(id, &mut self.timers);
        self.unhold_dependants(id);
        self.ledger.remove(&mut self.kernel, &service);
        if has_listened {
            self.close_sockets();
        }
    }

    /// Changes the definitions of services, all or none.
    pub(super) fn adjust(
        &mut self,
        target: &str,
        change: &Change,
        now: bool,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        let ids = self.named(target, pending)?;
        let mut candidates = Candidates::new(true);
        let mut changed = Vec::new();
        for id in ids {
            let Some(service) = self.services.get(id) else { continue };
            let (line, Definition { spec: old, base }) =
                (service.record.definition, &service.definition);
            let (name, lives) = (&old.name, service.is_live());
            let at = |text| Failure::usage(format!("{name}: {text}"));
            if service.removing {
                return Err(Failure::plain(format!("{name}: is being removed")));
            }
            let mut spec = change.apply(old).map_err(at)?;
            spec.check().map_err(Failure::usage)?;
            if spec.held.instances.is_some() {
                return Err(at("another number of instances: opm scale".to_owned()));
            }
            if spec.name != *name {
                self.check_rename(name, &spec.name, lives)?;
            }
            let (keys, name, base) = (old.differences(&spec), name.clone(), base.clone());
            check_granted(&mut self.kernel, &self.home, &spec, &mut candidates)?;
            if keys.is_empty() {
                pending.say(id, done(format!("{name}: nothing changes")));
                continue;
            }
            let when = if lives && !now { " (from its next start on)" } else { "" };
            pending.say(id, done(format!("{name}: changed {}{when}", keys.join(", "))));
            let adjusted = &mut spec.origin.adjusted;
            let is_new = |key: &String| find(key).is_some() && !adjusted.contains(key);
            let new: Vec<String> = keys.into_iter().filter(is_new).collect();
            adjusted.extend(new);
            changed.push((line, id, Definition { spec, base }));
        }
        let specs: Vec<&Spec> = changed.iter().map(|(_, _, it)| &it.spec).collect();
        let checked = self.check_order(&specs);
        if !mutant("change_refused") {
            checked?;
        }
        let ids: Vec<Id> = changed.iter().map(|(_, id, _)| *id).collect();
        self.replace_definitions(changed)?;
        for id in ids {
            if now && self.services.get(id).is_some_and(|service| service.is_live()) {
                let input = if mutant("change_later") { Input::Start } else { Input::Restart };
                self.bring_up(id, input, &mut candidates, pending);
            }
        }
        Ok(())
    }

    /// What lives is told from others by the name that it was started with.
    fn check_rename(&self, old: &str, new: &str, lives: bool) -> Result<(), Failure> {
        let refuse = |reason: String| Err(Failure::plain(format!("{old}: {reason}")));
        if let Some(id) = self.services.id_of(new) {
            return refuse(format!("the name {new} is taken by id {id}"));
        }
        if lives || self.launches.foreground.contains_key(old) {
            return refuse(format!("it has a live incarnation (opm stop {old} first)"));
        }
        Ok(())
    }

    /// Puts other definitions in the place of those that there are, all or none.
    pub(super) fn replace_definitions(
        &mut self,
        changed: Vec<(u64, Id, Definition)>,
    ) -> Result<(), Failure> {
        let lines = changed.iter().map(|(line, id, definition)| (*line, *id, definition));
        let lines = lines.filter(|_| !mutant("change_in_memory"));
        let written = self.ledger.definitions.put(&mut self.kernel, lines);
        written.map_err(|errno| cannot_write(&self.home, "services", errno))?;
        for (_, id, definition) in changed {
            // Out and in again: it may have another name.
            if let Some(mut service) = self.services.remove(id) {
                let former = std::mem::replace(&mut service.definition, definition);
                if service.is_live() && !self.launches.former.contains_key(&id) {
                    self.launches.former.insert(id, former);
                }
                self.services.insert(*service);
                // That it is ready goes without saying only as long as its exec says so.
                self.ledger.dirty.insert(id);
                self.ask(id, |monitors, cx, of| monitors.follow(cx, of));
                self.unhold(id);
                self.unhold_dependants(id);
            }
        }
        self.unhold_dependants(NOBODY);
        self.close_sockets();
        Ok(())
    }

    pub(super) fn save(&mut self, pending: &mut Pending) -> Result<(), Failure> {
        let saved = dump::save(&mut self.kernel, &self.home, &self.services);
        saved.map_err(Failure::plain)?;
        let count = self.services.len();
        let services = if count == 1 { "service" } else { "services" };
        let text = format!("saved {count} {services} to {}/{}", self.home, dump::FILE);
        pending.say(NO_SERVICE, done(text));
        Ok(())
    }

    pub(super) fn restore(&mut self, force: bool, pending: &mut Pending) -> Result<(), Failure> {
        let loaded = dump::load(&mut self.kernel, &self.home);
        let (dump, warnings) = loaded.map_err(Failure::plain)?;
        pending.on_done = OnDone::Summarize { running: 0 };
        pending.warn(NO_SERVICE, warnings);
        let intern =
            |context: Rc<Context>| self.ledger.definitions.intern(Rc::unwrap_or_clone(context));
        let environments: Vec<Rc<Context>> = dump.environments.into_iter().map(intern).collect();
        let (mut up, mut fresh, mut fresh_up) = (Vec::new(), Vec::new(), Vec::new());
        for saved in dump.services {
            let Some(service) = self.services.named(&saved.spec.name) else {
                // It is there: the dump was checked when it was read.
                let base = environments.get(saved.environment).cloned();
                let definition = Definition { spec: saved.spec, base: base.unwrap_or_default() };
                fresh.push((Some(saved.id), definition));
                fresh_up.push((saved.up, saved.halted));
                continue;
            };
            let spec = &service.definition.spec;
            if spec.command != saved.spec.command || spec.cwd != saved.spec.cwd {
                let name = &saved.spec.name;
                let text =
                    format!("{name}: the name stands for another command now; it stays as it is");
                pending.warn(service.id, vec![text]);
            } else if saved.up {
                up.push(service.id);
            }
        }
        for (id, (is_up, halted)) in self.define(fresh)?.into_iter().zip(fresh_up) {
            up.extend(is_up.then_some(id));
            self.services.get_mut(id).into_iter().for_each(|it| it.record.halted = halted);
            self.ask(id, |monitors, cx, of| monitors.follow(cx, of));
        }
        let mut candidates = Candidates::new(force);
        for id in up {
            self.bring_up(id, Input::Start, &mut candidates, pending);
        }
        Ok(())
    }
}

pub(super) fn cannot_write(home: &str, file: &str, errno: Errno) -> Failure {
    let reason = describe(errno);
    Failure::plain(format!("cannot write {home}/{file}: {reason} (nothing was changed)"))
}

/// Refuses what was asked for by name and the kernel would refuse a child of this daemon, while
/// what runs can still go on. Of those of a kind in one request one is tried out.
pub(super) fn check_granted<K: Kernel>(
    kernel: &mut K,
    home: &str,
    spec: &Spec,
    candidates: &mut Candidates,
) -> Result<(), Failure> {
    if let Some(zone) = spec.care.cron.as_ref().and_then(Cron::zone)
        && !zone::is_known(zone)
    {
        let text = format!("{}: cron: {zone:?} is no time zone of this machine", spec.name);
        return Err(Failure::usage(text));
    }
    if candidates.granted.as_ref() == Some(&spec.exec) {
        return Ok(());
    }
    let who = kernel.who(&spec.exec);
    who.and_then(|who| kernel.try_out(&who.orders, &spec.exec)).map_err(|(stage, errno)| {
        let text = why_not(spec, home, stage, errno);
        let advice = match errno {
            Errno::PERM | Errno::ACCESS => " (start the daemon where it may do that)".to_owned(),
            // No cgroup of ours has such a limit.
            Errno::OPNOTSUPP => format!(
                " ({}; run the daemon from the unit of 'opm daemon setup')",
                kernel.limits_offered().err().unwrap_or("its controller is not on")
            ),
            _ => String::new(),
        };
        Failure::plain(format!("{}: {text}{advice}", spec.name))
    })?;
    candidates.granted = Some(spec.exec.clone());
    Ok(())
}
