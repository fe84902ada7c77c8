//! Who starts after whom, and is stopped before whom.
//!
//! A start is withheld at the very last, before the fork, under the first dependency that is not
//! ready; that one's word brings it back. So no start of whatever kind goes past it, and the work
//! is proportional to what becomes ready. A stop is withheld while dependants that are stopped with
//! it live.
use super::*;
use crate::daemon::launch::Launches;
use crate::mutant::mutant;
use crate::service::order::circle;
use crate::service::spec::Spec;
use std::collections::BTreeMap;

/// In place of the id of a dependency that is no service.
pub(super) const NOBODY: Id = Id::MAX;

impl<K: Kernel> Daemon<K> {
    /// The first dependency of a service that is not ready.
    pub(in crate::daemon) fn unready(&self, id: Id) -> Option<Id> {
        let names = &self.services.get(id)?.definition.spec.checks.depends_on;
        let names = if mutant("unordered") { &[] } else { &names[..] };
        names.iter().find_map(|name| match &self.services.called(name)[..] {
            [] => Some(NOBODY),
            all => all.iter().find_map(|one| one.unless_ready_for_others()),
        })
    }

    /// Withholds the launch of a service.
    pub(in crate::daemon) fn hold(&mut self, id: Id, dependency: Id) {
        self.launches.held.insert((dependency, id));
        self.services.get_mut(id).into_iter().for_each(|it| it.waits_for = Some(dependency));
        self.ledger.dirty.insert(id);
        self.tell_held(id);
    }

    /// Queues a launch that was withheld again.
    pub(in crate::daemon) fn unhold(&mut self, id: Id) {
        let Some(service) = self.services.get_mut(id) else { return };
        let Some(dependency) = service.waits_for.take() else { return };
        self.launches.held.remove(&(dependency, id));
        if let Some(generation) = service.machine.generation() {
            self.launches.queue.push_back((id, generation));
        }
    }

    /// The same for all that wait for this one: it is ready now, or gone.
    pub(in crate::daemon) fn unhold_dependants(&mut self, id: Id) {
        if mutant("forget_held") {
            return;
        }
        for dependant in self.held_under(id) {
            self.unhold(dependant);
        }
    }

    fn held_under(&self, id: Id) -> Vec<Id> {
        let under = self.launches.held.range((id, 0)..=(id, Id::MAX));
        under.map(|(_, dependant)| *dependant).collect()
    }

    /// Whoever waits for this service, or for one that waits for it, may wait in vain now.
    pub(in crate::daemon) fn tell_held(&mut self, id: Id) {
        let (mut queue, mut seen) = (vec![id], BTreeSet::default());
        while let Some(id) = queue.pop() {
            if seen.insert(id) {
                self.waiters.changed.insert(id);
                queue.extend(self.held_under(id));
            }
        }
    }

    /// What a service waits for before it is launched, and whether anything comes of that.
    pub(super) fn waits(&self, id: Id) -> Option<(String, bool)> {
        let mut at = id;
        let mut first = None;
        for _ in 0..self.services.len() {
            let service = self.services.get(at)?;
            let Some(dependency) = service.waits_for else { return Some((first?, false)) };
            let Some(it) = self.services.get(dependency) else {
                let names = &service.definition.spec.checks.depends_on;
                let missing = names.iter().find(|name| self.services.called(name).is_empty())?;
                return Some((format!("waits for {missing}, and there is no such service"), true));
            };
            let text = format!("waits for {}", it.name());
            if let status @ (Status::Stopped | Status::Errored) = it.status() {
                return Some((format!("{text}, which is {}", status.word()), true));
            }
            first.get_or_insert(text);
            at = dependency;
        }
        // What a dump brings back may be one.
        Some((format!("{}, in a circle", first?), true))
    }

    /// Refuses services that depend on what is not there, or on themselves.
    pub(super) fn check_order(&self, specs: &[&Spec]) -> Result<(), Failure> {
        let mut fresh: BTreeMap<&str, Vec<&Spec>> = BTreeMap::new();
        for spec in specs {
            let names = BTreeSet::from([spec.group(), &spec.name]);
            names.into_iter().for_each(|name| fresh.entry(name).or_default().push(spec));
        }
        for spec in specs {
            let is_there =
                |name: &str| fresh.contains_key(name) || !self.services.called(name).is_empty();
            let missing = spec.checks.depends_on.iter().find(|name| !is_there(name));
            if let Some(missing) = missing {
                let text = format!("{}: depends_on: no such service: {missing}", spec.name);
                return Err(Failure::usage(format!("{text} (start that one first)")));
            }
        }
        let of = |name: &str| {
            let is_old = |it: &&Service| !fresh.contains_key(it.name());
            let old = self.services.called(name).into_iter().filter(is_old);
            let old = old.map(|service| &service.definition.spec);
            let all = fresh.get(name).into_iter().flatten().copied().chain(old);
            all.flat_map(|spec| spec.checks.depends_on.iter()).map(String::as_str).collect()
        };
        match circle(specs.iter().map(|spec| spec.name.as_str()), of) {
            Some(around) => {
                let (name, around) = (around[0], around.join(" -> "));
                Err(Failure::usage(format!("{name}: depends_on: a circle: {around}")))
            }
            None => Ok(()),
        }
    }

    /// Stops services, each when those of them that depend on it have gone.
    pub(in crate::daemon) fn stop_in_order(&mut self, ids: &[Id]) {
        for service in ids.iter().filter_map(|id| self.services.get(*id)) {
            self.waiters.leave_out(service.id, service.name());
        }
        let runs = |id: &Id| self.services.get(*id).is_some_and(Service::runs);
        let names = ids.iter().filter_map(|id| Some(self.services.get(*id)?.name()));
        let blockers = match circle(names, |name| self.services.dependencies(name)) {
            Some(_) => BTreeMap::new(),
            None => self.dependants(ids.iter().copied().filter(runs)),
        };
        for id in ids {
            let waits_for: BTreeSet<Id> = blockers.get(id).into_iter().flatten().copied().collect();
            let is_free = waits_for.is_empty() || mutant("stop_at_once");
            if is_free || !self.services.get(*id).is_some_and(Service::is_live) {
                self.feed(*id, Input::Stop);
            } else {
                self.launches.stops.insert(*id, waits_for);
                // On record at once: whoever kills us, the next daemon goes on.
                self.services.get_mut(*id).into_iter().for_each(|it| it.record.halted = true);
                self.ledger.dirty.insert(*id);
            }
        }
    }

    /// Which of these depend on each service, by its id.
    fn dependants(&self, ids: impl Iterator<Item = Id>) -> BTreeMap<Id, Vec<Id>> {
        let mut found: BTreeMap<Id, Vec<Id>> = BTreeMap::new();
        for service in ids.filter_map(|id| self.services.get(id)) {
            for name in service.definition.spec.checks.depends_on.iter() {
                for dependency in self.services.called(name) {
                    found.entry(dependency.id).or_default().push(service.id);
                }
            }
        }
        found
    }

    /// An incarnation of a service has ended: what was to be stopped after it is stopped now, and
    /// so is the service itself if its stop waits, before it is started again.
    pub(in crate::daemon) fn note_gone(&mut self, id: Id, generation: Generation) {
        self.kernel.remove_leaf((id, generation.0));
        let Launches { stops, stops_due, .. } = &mut self.launches;
        stops.retain(|stopped, blockers| {
            let is_due = *stopped == id || blockers.remove(&id) && blockers.is_empty();
            stops_due.extend(is_due.then_some(*stopped));
            !is_due
        });
    }

    /// All that run and depend on one of these, or on one that does; what is named is not among
    /// them. Without leave to stop them, too, nothing of what they depend on is.
    pub(super) fn with_dependants(
        &self,
        ids: Vec<Id>,
        is_granted: bool,
        pending: &mut Pending,
    ) -> Vec<Id> {
        let runs = |id: &Id| self.services.get(*id).is_some_and(Service::runs);
        let of = self.dependants(self.services.ids().into_iter().filter(runs));
        if of.is_empty() {
            return ids;
        }
        let mut all: BTreeSet<Id> = ids.iter().copied().collect();
        let mut queue = ids.clone();
        while let Some(id) = queue.pop() {
            let found = of.get(&id).into_iter().flatten().copied();
            queue.extend(found.filter(|dependant| all.insert(*dependant)).collect::<Vec<_>>());
        }
        if is_granted || all.len() == ids.len() {
            return all.into_iter().collect();
        }
        // What goes on: that was not named, and what this needs in its turn.
        ids.iter().for_each(|id| _ = all.remove(id));
        let name = |id: Id| self.services.get(id).map_or("", Service::name);
        let mut ids = ids;
        let mut before = usize::MAX;
        while ids.len() < before {
            before = ids.len();
            ids.retain(|id| {
                let others = of.get(id).into_iter().flatten().filter(|it| all.contains(it));
                let others = others.map(|id| name(*id)).collect::<Vec<_>>().join(", ");
                if others.is_empty() || !runs(id) {
                    return true;
                }
                let text = format!("{}: not stopped, for {others} depends on it", name(*id));
                let advice = "stop that too: --with-dependants";
                pending.say(*id, failed(code::FAILED, format!("{text} ({advice})")));
                all.insert(*id);
                false
            });
        }
        ids
    }
}
