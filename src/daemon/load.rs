//! From records to services: what each was, and whether the recorded leader is still that one.
use super::Daemon;
use super::journal::Found;
use super::sorted::Map;
use super::store::Loaded;
use super::unit::{Run, Unit};
use crate::mutant::mutant;
use crate::process::Identity;
use crate::process::record::{Signature, State};
use crate::service::machine::{Generation, Goal, Machine, Past};
use crate::service::policy::restart_cooldown_delay_ms;
use crate::service::spec::{Definition, Id, Policy};
use crate::sys::{Errno, Kernel, describe};
use crate::wire::Status;
use std::collections::HashMap;

/// Milliseconds of one tick of start times (USER_HZ is 100 on every Linux that we run on).
pub(crate) const TICK_MS: u64 = 10;

/// The highest generation that a slot knows of.
pub(super) fn highest(found: &Found, id: Id) -> u64 {
    let slot = found.slots.get(id as usize).copied();
    let (state, signature) = slot.unwrap_or_default();
    let state = state.map_or(0, |state| state.generation.max(state.emptied));
    state.max(signature.map_or(0, |signature| signature.generation))
}

impl<K: Kernel> Daemon<K> {
    pub(super) fn load_units(
        &mut self,
        found: &Found,
        mut loaded: Loaded,
        valid: bool,
    ) -> Result<(), Errno> {
        if loaded.damaged > 0 {
            let count = loaded.damaged;
            self.log.push(format!(
                "{}/services: {count} damaged lines were left out",
                self.home
            ));
        }
        if found.slots.is_empty() || (found.header.is_none() && !loaded.services.is_empty()) {
            // The journal is lost: the newest definition of each id and name is all there is.
            for (line, (id, definition)) in std::mem::take(&mut loaded.services) {
                let taken = self.id_of(&definition.spec.name);
                for old in taken.into_iter().chain([id]) {
                    if let Some(old) = self.units.get_mut(old as usize).and_then(Option::take) {
                        self.drop_name(old.name(), old.id);
                    }
                }
                let state = State {
                    generation: highest(found, id),
                    ..State::default()
                };
                self.load_unit(id, line, definition, state, None)?;
            }
            return Ok(());
        }
        let mut newest: HashMap<String, u64> = HashMap::new();
        for (state, _) in &found.slots {
            let line = state.map_or(0, |state| state.definition);
            if let Some((_, definition)) = loaded.services.get(&line) {
                let of_name = newest.entry(definition.spec.name.clone()).or_default();
                *of_name = line.max(*of_name);
            }
        }
        for (id, (state, signature)) in (0..).zip(&found.slots) {
            let Some(state) = state.filter(|state| state.definition != 0) else {
                continue;
            };
            // A removal that could not be written, and a new service of the name.
            let definition = loaded.services.get(&state.definition);
            let name = definition.map(|(_, definition)| definition.spec.name.as_str());
            if name.is_some_and(|name| newest.get(name) != Some(&state.definition)) {
                continue;
            }
            let Some((_, definition)) = loaded.services.remove(&state.definition) else {
                let text = format!("service {id}: its definition is lost");
                self.log.push(text);
                continue;
            };
            let signature = signature.filter(|_| valid);
            let past = State {
                goal_up: false,
                generation: highest(found, id),
                ..state
            };
            let known = if valid { state } else { past };
            self.load_unit(id, state.definition, definition, known, signature)?;
            if self.unit(id).is_some_and(|unit| unit.state() == state) {
                // The slot says so already.
                self.dirty.remove(&id);
            }
        }
        self.load_unrecorded(found, loaded, valid)
    }

    /// Definitions whose slot was never written: the daemon died in the turn that defined them,
    /// or while it made up for a lost journal. A removed service's slot is written, and free.
    fn load_unrecorded(&mut self, found: &Found, loaded: Loaded, valid: bool) -> Result<(), Errno> {
        let mut newest: Map<Id, (u64, Definition)> = Map::new();
        for (line, (id, definition)) in loaded.services {
            newest.insert(id, (line, definition));
        }
        for (id, (line, definition)) in newest {
            let slot = found.slots.get(id as usize).copied();
            let (state, signature) = slot.unwrap_or_default();
            // One that is free by the record, but signed in since: the state was never written.
            let signed = signature.map_or(0, |signature| signature.generation);
            let is_settled = |s: State| s.definition != 0 || signed <= s.generation.max(s.emptied);
            if state.is_some_and(is_settled) || self.id_of(&definition.spec.name).is_some() {
                continue;
            }
            let signature = signature.filter(|_| valid);
            let state = State {
                goal_up: signature.is_some(),
                // With a signature that is not ours to believe, that one is past.
                generation: signature.map_or(highest(found, id), |_| 0),
                emptied: state.map_or(0, |state| state.emptied),
                ..State::default()
            };
            self.load_unit(id, line, definition, state, signature)?;
        }
        Ok(())
    }

    fn load_unit(
        &mut self,
        id: Id,
        line: u64,
        definition: Definition,
        state: State,
        signature: Option<Signature>,
    ) -> Result<(), Errno> {
        let policy = definition.spec.policy;
        let goal = if state.goal_up { Goal::Up } else { Goal::Down };
        let alive = signature.filter(|signature| signature.generation > state.emptied);
        let (run, past) = match alive {
            Some(signature) => {
                let run = self.take_over(&signature, &state)?;
                let generation = Generation(signature.generation);
                let since = run.since;
                (Some(run), Past::Alive { generation, since })
            }
            None => (None, self.past_of(&state, &policy)),
        };
        let machine = Machine::resume(policy, goal, state.deaths, state.restarts, past, self.now);
        let generation = state.generation.max(alive.map_or(0, |s| s.generation));
        let mut unit = Unit {
            id,
            definition,
            line,
            machine,
            run,
            emptied: if alive.is_some() {
                state.emptied
            } else {
                generation.max(state.emptied)
            },
            generation,
            started_at: state.started_at,
            exited_at: state.exited_at,
            restarted_at: state.restarted_at,
            exit: state.exit,
            removing: false,
            provisional: false,
            halted: state.halted,
            launch_error: None,
            note: None,
            deadline: None,
            sample: None,
            announced: Status::Stopped,
        };
        unit.announced = unit.status();
        if let Err(errno) = self.journal.reserve(&mut self.kernel, id) {
            self.trouble = Some(format!("cannot extend the journal: {}", describe(errno)));
        }
        self.insert(unit);
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
        Past::Due {
            delay: delay.saturating_sub(waited),
        }
    }

    /// Opens a recorded leader. What is not exactly the recorded process is not it.
    fn take_over(&mut self, signature: &Signature, state: &State) -> Result<Run<K>, Errno> {
        let recorded = signature.leader;
        let pidfd = self.open_same(recorded)?;
        let child = pidfd
            .as_ref()
            .is_some_and(|pidfd| self.kernel.wait(pidfd, false).is_ok());
        let started = recorded.start_time.saturating_mul(TICK_MS);
        let age = self.kernel.wall().saturating_sub(state.started_at);
        let since = if started > 0 {
            started
        } else {
            self.now.saturating_sub(age)
        };
        Ok(Run {
            generation: Generation(signature.generation),
            leader: recorded,
            pidfd,
            launch: None,
            exit: None,
            child,
            lineage: signature.parent.is_same(&self.own),
            adopted: true,
            since: since.min(self.now),
            kills: 0,
            asked: false,
            failure: None,
            members: Map::new(),
        })
    }

    fn open_same(&mut self, recorded: Identity) -> Result<Option<K::Pidfd>, Errno> {
        // First the handle, then what it is: the other way round the pid could change hands.
        let pidfd = match self.kernel.pidfd_open(recorded.pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(_) if mutant("error_is_gone") => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let inode = self.kernel.inode(&pidfd).unwrap_or(0);
        // Inodes decide where there are any; the start time costs a file of /proc.
        let by_inode = inode != 0 && recorded.inode != 0;
        let start_time = match by_inode {
            true => 0,
            false => match self.kernel.stat(recorded.pid) {
                Ok(stat) => stat.start_time,
                // IO: it was cut off by the end of the process.
                Err(Errno::SRCH | Errno::NOENT | Errno::IO) => 0,
                Err(errno) => return Err(errno),
            },
        };
        let seen = Identity {
            pid: recorded.pid,
            start_time,
            inode,
        };
        Ok(seen.is_same(&recorded).then_some(pidfd))
    }
}
