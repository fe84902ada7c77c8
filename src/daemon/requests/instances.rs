//! Groups of instances: how many there are, and one after the other into a new incarnation.
use super::*;
use crate::mutant::mutant;
use crate::process::journal_format::State;
use crate::service::instances::{INSTANCES_MAX, instance};
use crate::service::machine::Goal;
use crate::service::spec::{Definition, Spec};
use crate::sys::write_all_at;
use crate::wire::Scale;
use std::collections::BTreeMap;

/// Who is to be reloaded, by id, and its generation before: for the next daemon, if this one dies.
const ROLLS: &str = "rolls.json";
/// The same as it is written, until it is whole.
const FRESH: &str = "rolls.new";
/// No client has this number.
const NOBODY: ClientId = ClientId::MAX;

impl<K: Kernel> Daemon<K> {
    /// The instances of a group by their number; a service alone is a group of one.
    fn instances(&self, group: &str) -> Vec<(u32, Id)> {
        let of_it = self
            .services
            .iter()
            .filter(|service| service.definition.spec.group() == group && !service.removing);
        let number = |spec: &Spec| spec.instance().unwrap_or(0);
        let mut found: Vec<_> = of_it.map(|s| (number(&s.definition.spec), s.id)).collect();
        found.sort_unstable();
        found
    }

    /// No name is that of a service and of a group.
    pub(super) fn check_groups(&self, specs: &[Spec]) -> Result<(), Failure> {
        let known = self.services.iter().map(|service| &service.definition.spec);
        let groups: BTreeSet<&str> =
            known.filter_map(|spec| spec.held.instance_of.as_deref()).collect();
        let is_taken = |spec: &&Spec| {
            let group = spec.group();
            let named = self.services.named(group);
            spec.held.instance_of.is_none() && groups.contains(group)
                || named.is_some_and(|other| other.definition.spec.group() != group)
                || spec.held.instance_of.is_some()
                    && named.is_some_and(|it| it.definition.spec.held.instance_of.is_none())
        };
        specs.iter().find(is_taken).map_or(Ok(()), |spec| {
            let advice = "choose another with --name, or 'opm scale' it";
            let group = spec.group();
            let text = format!("{group}: the name is taken by a service or a group ({advice})");
            Err(Failure::plain(text))
        })
    }

    /// More or fewer instances; those with the highest numbers go.
    pub(super) fn scale(
        &mut self,
        group: &str,
        to: Scale,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        let instances = self.instances(group);
        let Some((_, first)) = instances.first().copied() else {
            let named = self.services.named(group);
            let of = named.and_then(|it| it.definition.spec.held.instance_of.as_deref());
            let text = match of {
                Some(of) => format!("{group}: is an instance (try 'opm scale {of}')"),
                None => format!("no such service: {group} (try 'opm ls')"),
            };
            return Err(Failure::new(code::NO_SUCH, text));
        };
        let count = u32::try_from(instances.len()).unwrap_or(INSTANCES_MAX);
        let wanted = match to {
            Scale::To(wanted) => Some(wanted),
            Scale::More(more) => count.checked_add(more),
            Scale::Fewer(fewer) => count.checked_sub(fewer),
        };
        let wanted = wanted.filter(|wanted| (1..=INSTANCES_MAX).contains(wanted));
        let wanted = wanted.ok_or_else(|| {
            Failure::usage(format!(
                "{group}: can have 1 to {INSTANCES_MAX} instances (it has {count})"
            ))
        })?;
        if wanted > count {
            return self.add_instances(first, &instances, wanted, pending);
        }
        let surplus = instances.into_iter().skip(wanted as usize).map(|(_, id)| id);
        self.remove_all(&surplus.collect::<Vec<_>>(), pending);
        if wanted == count {
            pending.say(NO_SERVICE, done(format!("{group}: has {count} instances already")));
        }
        Ok(())
    }

    fn add_instances(
        &mut self,
        first: Id,
        there: &[(u32, Id)],
        wanted: u32,
        pending: &mut Pending,
    ) -> Result<(), Failure> {
        let Some(service) = self.services.get(first) else { return Ok(()) };
        let Definition { spec, base } = service.definition.clone();
        let line = service.record.definition;
        let taken: BTreeSet<u32> = there.iter().map(|(number, _)| *number).collect();
        let free = (0..).filter(|number| !taken.contains(number));
        let fresh = free.take(wanted as usize - there.len());
        let fresh: Vec<Spec> = fresh.map(|number| instance(&spec, number)).collect();
        let mut candidates = Candidates::new(false);
        for spec in &fresh {
            spec.check().map_err(Failure::usage)?;
            check_granted(&mut self.kernel, &self.home, spec, &mut candidates)?;
            self.claim_sockets(spec)?;
            if let Some(id) = self.services.id_of(&spec.name) {
                let text = format!("{}: the name is taken by id {id}", spec.name);
                return Err(Failure::plain(text));
            }
        }
        if spec.held.instance_of.is_none() {
            // It was alone: from now on it is the first of several, under its own name.
            let mut spec = spec.clone();
            spec.held.instance_of = Some(spec.name.clone());
            self.replace_definitions(vec![(line, first, Definition { spec, base: base.clone() })])?;
        }
        let fresh = fresh.into_iter().map(|spec| (None, Definition { spec, base: base.clone() }));
        for id in self.define(fresh.collect())? {
            pending.wait(id, Condition::Up(self.before_start(id)));
            self.wake_up(id, Input::Start, pending);
        }
        Ok(())
    }

    /// One after the other, each ready before the next is stopped, when nothing else is waited for.
    pub(super) fn roll(&mut self, ids: Vec<Id>, pending: &mut Pending) {
        let all = ids.iter().filter_map(|id| self.services.get(*id));
        let before = |it: &Service| {
            // One without a process yet is fresh when it has one: nothing of it is to be replaced.
            let is_fresh = it.is_live() && self.trees.get(it.id).is_none();
            if is_fresh { it.record.emptied } else { it.record.generation }
        };
        let all = all.filter(|it| !it.record.halted).map(|it| (it.id, before(it)));
        self.waiters.rolls.extend(all);
        self.note_rolls();
        pending.on_done = OnDone::Roll;
        let is_changed = |it: &&Service| self.launches.former.contains_key(&it.id);
        let changed = ids.iter().filter_map(|id| self.services.get(*id)).filter(is_changed);
        pending.defined = changed.map(|it| (it.id, it.definition.spec.clone())).collect();
        pending.roll = ids.into();
        self.roll_on(pending);
    }

    fn note_rolls(&mut self) {
        let text = serde_json::to_vec(&self.waiters.rolls).unwrap_or_default();
        let file = self.kernel.open(FRESH, Mode::Fresh);
        let written = file.and_then(|file| write_all_at(&mut self.kernel, &file, 0, &text));
        if let Err(errno) = written.and_then(|()| self.kernel.rename(FRESH, ROLLS)) {
            self.log.push(format!("{ROLLS}: {}: a reload ends with this daemon", describe(errno)));
        }
    }

    /// These are rolled, or are not to be any more; but for what another roll still has to do.
    pub(super) fn end_roll(&mut self, ids: impl Iterator<Item = Id>) {
        for id in ids {
            if !self.waiters.is_rolling(id) {
                self.waiters.rolls.remove(&id);
            }
        }
        self.note_rolls();
    }

    /// Goes on with what an earlier daemon has left. Who has a later generation is rolled.
    pub(in crate::daemon) fn resume_rolls(&mut self) {
        let text = self.kernel.load(ROLLS).ok().flatten().unwrap_or_default();
        let mut rolls: BTreeMap<Id, u64> = serde_json::from_slice(&text).unwrap_or_default();
        let (mut left, mut pending) = (Vec::new(), Pending::new(NOBODY));
        let is_noted = !rolls.is_empty();
        rolls.retain(|id, before| {
            // Not what was stopped meanwhile, or ended with the machine.
            let is_wanted = |it: &&Service| it.machine.goal() == Goal::Up && !it.record.halted;
            let Some(service) = self.services.get(*id).filter(is_wanted) else { return false };
            let State { generation, emptied, .. } = service.record;
            if generation == *before {
                left.push(*id);
            } else {
                // What is to be launched again was on its way already.
                let after = if service.is_live() { *before } else { emptied.max(*before) };
                pending.wait(*id, Condition::Ready(Generation(after)));
            }
            true
        });
        if left.is_empty() {
            // An entry could be true again of a later incarnation.
            if is_noted {
                self.note_rolls();
            }
            return;
        }
        self.waiters.rolls = rolls;
        let name = |id: &Id| self.services.get(*id).map(|service| service.name());
        let names: Vec<&str> = left.iter().filter_map(name).collect();
        self.log.push(format!("a reload goes on with {}", names.join(", ")));
        self.roll(left, &mut pending);
        self.wait_for(pending);
    }

    /// Begins with the next ones of a roll, until one is to be waited for.
    pub(super) fn roll_on(&mut self, pending: &mut Pending) {
        while pending.conditions.is_empty() || mutant("roll_at_once") {
            let Some(id) = pending.roll.pop_front() else { return };
            // What was down when this was asked for, and was started since, is fresh.
            let is_up = |it: &Service| it.is_live() && !it.record.halted;
            let is_fresh = self.services.get(id).is_some_and(is_up);
            if is_fresh && !self.waiters.rolls.contains_key(&id) {
                pending.wait(id, Condition::Up(self.before_start(id)));
            } else {
                self.bring_up(id, Input::Restart, &mut Candidates::new(false), pending);
            }
            pending.wait_ready(true);
            if pending.conditions.is_empty() {
                self.stop_roll(id, pending);
            }
        }
    }

    /// The rest of its group is not rolled, and has the definition again that it runs under.
    pub(super) fn stop_roll(&mut self, id: Id, pending: &mut Pending) {
        let group_of = |daemon: &Self, id: Id| {
            let service = daemon.services.get(id);
            service.map(|service| service.definition.spec.group().to_owned())
        };
        let name_of = |daemon: &Self, id: Id| {
            daemon.services.get(id).map_or(String::new(), |s| s.name().to_owned())
        };
        let (group, name) = (group_of(self, id), name_of(self, id));
        let (rest, others): (Vec<Id>, _) = std::mem::take(&mut pending.roll)
            .into_iter()
            .partition(|id| group_of(self, *id) == group);
        pending.roll = others.into();
        self.end_roll(rest.iter().copied());
        for id in rest {
            // Not in place of what another request has made of it since.
            let now = self.services.get(id).map(|service| &service.definition.spec);
            let is_its = now.is_some() && pending.defined.get(&id) == now;
            let former = self.launches.former.get(&id).filter(|_| is_its).cloned();
            let line = self.services.get(id).map(|service| service.record.definition);
            let back = former.zip(line).map(|(former, line)| (line, id, former));
            let back = back.map(|back| match mutant("keep_new") {
                true => Ok(()),
                // Others may depend on it by now.
                false => self
                    .check_order(&[&back.2.spec])
                    .and_then(|()| self.replace_definitions(vec![back])),
            });
            let says = match back {
                None => "it goes on as it is".to_owned(),
                Some(Ok(())) => {
                    self.launches.former.remove(&id);
                    "it goes on, and has its old definition again".to_owned()
                }
                Some(Err(failure)) => format!("it goes on; {}", failure.text),
            };
            let text = format!(
                "{}: not reloaded, for {name} did not become ready; {says}",
                name_of(self, id)
            );
            pending.say(id, failed(code::FAILED, text));
        }
    }
}
