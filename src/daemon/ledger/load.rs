//! From records to services: what each was, and whether the recorded leader is still that one.
use super::definitions::Loaded;
use super::journal::Found;
use crate::daemon::Daemon;
use crate::daemon::service::Service;
use crate::daemon::vecmap::VecMap;
use crate::process::journal_format::{Signature, State};
use crate::service::machine::{Generation, Goal, Machine, Past};
use crate::service::policy::restart_cooldown_delay_ms;
use crate::service::spec::{Definition, Id, Policy};
use crate::sys::{Errno, Kernel, describe};
use std::collections::HashMap;

/// The highest generation that a slot knows of.
pub(in crate::daemon) fn highest(found: &Found, id: Id) -> u64 {
    let slot = found.slots.get(id as usize).copied();
    let (state, signature) = slot.unwrap_or_default();
    let state = state.map_or(0, |state| state.generation.max(state.emptied));
    state.max(signature.map_or(0, |signature| signature.generation))
}

/// The definition of each id: the newest that was not removed since. One that is newer than its
/// slot was defined by a daemon that could not write the slot any more; where several have a name,
/// the removal of all but the last could not be written.
fn newest_of(found: &Found, loaded: Loaded) -> VecMap<Id, (u64, Definition)> {
    let mut newest: VecMap<Id, (u64, Definition)> = VecMap::new();
    for (line, (id, definition)) in loaded.services {
        let slot = found.slots.get(id as usize);
        let state = slot.and_then(|slot| slot.0).unwrap_or_default();
        if line > state.definition || line == state.definition && !state.removed {
            newest.insert(id, (line, definition));
        }
    }
    let mut of_name: HashMap<String, u64> = HashMap::new();
    for (line, definition) in newest.values() {
        let last = of_name.entry(definition.spec.name.clone()).or_default();
        *last = (*line).max(*last);
    }
    newest.retain(|_, (line, definition)| of_name.get(&definition.spec.name) == Some(line));
    newest
}

/// What a slot says of a service that it was not written for: only what was signed in since is
/// its own. Whether that is to be up is known by its being so.
fn unrecorded(
    slot: Option<State>,
    signature: Option<Signature>,
    highest: u64,
) -> (State, Option<Signature>) {
    let past = slot.map_or(0, |slot| slot.generation.max(slot.emptied));
    let signature = signature.filter(|signature| signature.generation > past);
    let state = State {
        goal_up: signature.is_some(),
        // With a signature that is not ours to believe, that one is past.
        generation: signature.map_or(highest, |_| 0),
        emptied: past,
        ..State::default()
    };
    (state, signature)
}

impl<K: Kernel> Daemon<K> {
    pub(in crate::daemon) fn load_services(
        &mut self,
        found: &Found,
        mut loaded: Loaded,
        valid: bool,
    ) -> Result<(), Errno> {
        if loaded.damaged > 0 {
            let count = loaded.damaged;
            self.log.push(format!("{}/services: {count} damaged lines were left out", self.home));
        }
        if found.slots.is_empty() || (found.header.is_none() && !loaded.services.is_empty()) {
            // The journal is lost: the newest definition of each id and name is all there is.
            for (line, (id, definition)) in std::mem::take(&mut loaded.services) {
                let taken = self.services.id_of(&definition.spec.name);
                for old in taken.into_iter().chain([id]) {
                    self.services.remove(old);
                }
                let state = State { generation: highest(found, id), ..State::default() };
                self.load_service(id, line, definition, (state, false), None)?;
            }
            return Ok(());
        }
        for (id, (state, _)) in (0..).zip(&found.slots) {
            let Some(state) = state.filter(|state| state.definition != 0 && !state.removed) else {
                continue;
            };
            let is_its = |(of, _): &(Id, Definition)| *of == id;
            if !loaded.services.get(&state.definition).is_some_and(is_its) {
                self.log.push(format!("service {id}: its definition is lost"));
            }
        }
        for (id, (line, definition)) in newest_of(found, loaded) {
            let slot = found.slots.get(id as usize).copied();
            let (state, signature) = slot.unwrap_or_default();
            let signature = signature.filter(|_| valid);
            let (state, signature) = match state {
                Some(state) if state.definition == line && valid => (state, signature),
                Some(state) if state.definition == line => {
                    let generation = highest(found, id);
                    let goal_up = false;
                    let past = State { goal_up, generation, ..state };
                    (past, None)
                }
                state => unrecorded(state, signature, highest(found, id)),
            };
            let is_damaged = slot.is_some_and(|slot| slot.0.is_none());
            if is_damaged {
                let name = &definition.spec.name;
                self.log.push(format!(
                    "{name}: its record is damaged: up if it lives, else down until it is started"
                ));
            }
            self.load_service(id, line, definition, (state, is_damaged), signature)?;
            if slot.is_some_and(|(state, _)| state == self.services.get(id).map(Service::state)) {
                // It says so already.
                self.ledger.dirty.remove(&id);
            }
        }
        Ok(())
    }

    fn load_service(
        &mut self,
        id: Id,
        line: u64,
        definition: Definition,
        (state, is_damaged): (State, bool),
        signature: Option<Signature>,
    ) -> Result<(), Errno> {
        let policy = definition.spec.policy;
        let mut goal = if state.goal_up { Goal::Up } else { Goal::Down };
        let alive = signature.filter(|signature| signature.generation > state.emptied);
        let past = match alive {
            Some(signature) => {
                let age = self.kernel.wall().saturating_sub(state.started_at);
                let started = self.now.saturating_sub(age);
                self.with_trees(|trees, cx| trees.take_over(cx, id, &signature, started))?;
                let tree = self.trees.get(id);
                if is_damaged && tree.is_some_and(|tree| tree.pidfd.is_none()) {
                    // Nobody knows whether an operator had stopped it: then nothing starts.
                    goal = Goal::Down;
                }
                let since = tree.map_or(started, |tree| tree.since);
                Past::Alive { generation: Generation(signature.generation), since }
            }
            None => self.past_of(&state, &policy),
        };
        let machine = Machine::resume(policy, goal, state.deaths, state.restarts, past, self.now);
        let generation = state.generation.max(alive.map_or(0, |s| s.generation));
        let service = Service {
            pid: alive.map_or(0, |signature| signature.leader.pid),
            emptied: if alive.is_some() { state.emptied } else { generation.max(state.emptied) },
            generation,
            started_at: state.started_at,
            exited_at: state.exited_at,
            restarted_at: state.restarted_at,
            exit: state.exit,
            by_opm: state.by_opm,
            halted: state.halted,
            ..Service::new(id, definition, line, machine)
        };
        if let Err(errno) = self.ledger.journal.reserve(&mut self.kernel, id) {
            self.ledger.disk_error =
                Some(format!("cannot extend the journal: {}", describe(errno)));
        }
        self.insert(service);
        self.after_step(id);
        Ok(())
    }

    fn past_of(&mut self, state: &State, policy: &Policy) -> Past {
        if state.failed {
            return Past::Failed;
        }
        if !state.goal_up {
            return Past::Down;
        }
        let delay = match state.deaths {
            0 => 0,
            deaths => restart_cooldown_delay_ms(policy.restart_delay, deaths),
        };
        let waited = self.kernel.wall().saturating_sub(state.exited_at);
        Past::Due { delay: delay.saturating_sub(waited) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::spec::Spec;
    use std::rc::Rc;

    fn lines(all: &[(u64, Id, &str)]) -> Loaded {
        let definition = |name: &str| Definition {
            spec: Spec::new(name.to_owned(), vec!["/bin/true".to_owned()], "/".to_owned()),
            base: Rc::default(),
        };
        let services = all.iter().map(|(line, id, name)| (*line, (*id, definition(name))));
        Loaded { services: services.collect(), ..Loaded::default() }
    }

    fn slot(definition: u64, removed: bool) -> (Option<State>, Option<Signature>) {
        let state = State { definition, removed, generation: 4, emptied: 4, ..State::default() };
        (Some(state), None)
    }

    fn named(slots: Vec<(Option<State>, Option<Signature>)>, loaded: Loaded) -> Vec<(Id, String)> {
        let header = None;
        let newest = newest_of(&Found { header, slots }, loaded);
        let of =
            |(id, (_, definition)): (&Id, &(u64, Definition))| (*id, definition.spec.name.clone());
        newest.iter().map(of).collect()
    }

    #[test]
    fn a_definition_whose_slot_could_not_be_written_is_not_lost() {
        let web = vec![(0, "web".to_owned())];
        let freed = vec![slot(5, true)];
        assert_eq!(named(freed, lines(&[(6, 0, "web")])), web);
        let not_even_freed = vec![slot(5, false)];
        let both = lines(&[(5, 0, "old"), (6, 0, "web")]);
        assert_eq!(named(not_even_freed, both), web);
        assert_eq!(named(vec![(None, None)], lines(&[(6, 0, "web")])), web);
    }

    #[test]
    fn what_was_removed_stays_so_though_its_line_is_there() {
        assert_eq!(named(vec![slot(5, true)], lines(&[(5, 0, "web")])), []);
        let renewed = vec![slot(5, false), slot(6, false)];
        let both = lines(&[(5, 0, "web"), (6, 1, "web")]);
        assert_eq!(named(renewed, both), [(1, "web".to_owned())]);
    }

    #[test]
    fn a_line_of_another_id_is_no_slots_definition() {
        let slots = vec![slot(5, false), slot(4, false)];
        assert_eq!(named(slots, lines(&[(5, 1, "web")])), [(1, "web".to_owned())]);
    }

    #[test]
    fn only_what_signed_since_belongs_to_an_unrecorded_definition() {
        let signed = |generation| Some(Signature { generation, ..Signature::default() });
        let (state, _) = slot(5, true);
        let (past, none) = unrecorded(state, signed(4), 4);
        assert_eq!((past.goal_up, past.generation, none), (false, 4, None));
        let (live, some) = unrecorded(state, signed(7), 7);
        assert_eq!((live.goal_up, live.emptied, some), (true, 4, signed(7)));
    }
}
