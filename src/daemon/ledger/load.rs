//! From records to services: what each was, and whether the recorded leader is still that one.
//!
//! The journal is one file of fixed slots, written in place, so that what lives is on record
//! whatever dies, and a full disk can't stop a stop. It has to outlive the daemon, not the machine:
//! nothing of it is synced. The daemon's half of a slot is written once at the end of a turn,
//! however often it changed; the children write theirs.
use super::definitions::Loaded;
use crate::daemon::Daemon;
use crate::daemon::service::{Service, ways};
use crate::process::journal_format::{HEADER_BYTES, Header, SLOT_BYTES, Signature, State};
use crate::service::machine::{Generation, Goal, Machine, Past};
use crate::service::policy::restart_cooldown_delay_ms;
use crate::service::probe::Sign;
use crate::service::spec::{Definition, Id};
use crate::sys::{self, Errno, Kernel};
use std::collections::{BTreeMap, HashMap};

/// A service as the records have it.
#[derive(Debug)]
pub(in crate::daemon) struct Recorded {
    id: Id,
    /// Its line in the definitions.
    line: u64,
    definition: Definition,
    /// What its slot says now; none if it can't be read, or was never written.
    written: Option<State>,
    is_damaged: bool,
    /// What counts of the slot.
    state: State,
    /// Of what may live.
    signature: Option<Signature>,
}

/// By id: line and definition.
pub type Newest = BTreeMap<Id, (u64, Definition)>;

/// The highest generation that a slot knows of.
pub(super) fn highest(slot: &Slot) -> u64 {
    let given = slot.0.map_or(0, |state| state.generation);
    given.max(emptied(slot)).max(signed(slot))
}

fn slot_of(slots: &[Slot], id: Id) -> Slot {
    slots.get(id as usize).copied().unwrap_or_default()
}

/// The definition of each id: the newest that was not removed since. One that is newer than its
/// slot was defined by a daemon that could not write the slot any more; where several have a name,
/// the removal of all but the last could not be written.
pub fn newest_of(slots: &[Slot], loaded: Loaded) -> Newest {
    let mut newest = Newest::default();
    let mut by_name: HashMap<String, Id> = HashMap::new();
    for (line, (id, definition)) in loaded.services {
        let state = slot_of(slots, id).0.unwrap_or_default();
        if line < state.definition || line == state.definition && state.removed {
            continue;
        }
        let name = &definition.spec.name;
        if let Some(old) = by_name.insert(name.clone(), id)
            && newest.get(&old).is_some_and(|(_, older)| older.spec.name == *name)
        {
            newest.remove(&old);
        }
        newest.insert(id, (line, definition));
    }
    newest
}

/// What a slot says of a service that it was not written for: what was signed in since is its own,
/// and is to be up. What was not confirmed gone may be, too: an old copy of the journal is from
/// before the service was defined anew, whose incarnation went on. Who signed tells.
pub fn unrecorded(
    written: Option<State>,
    signature: Option<Signature>,
    highest: u64,
) -> (State, Option<Signature>) {
    let (past, gone) = (self::highest(&(written, None)), emptied(&(written, None)));
    let signature = signature.filter(|signature| signature.generation > gone);
    let was_up = written.is_some_and(|state| state.goal_up && !state.removed);
    let state = State {
        goal_up: signature.is_some_and(|signature| signature.generation > past || was_up),
        // With a signature that is not ours to believe, that one is past.
        generation: signature.map_or(highest, |_| 0),
        emptied: if signature.is_some() { gone } else { past },
        ..State::default()
    };
    (state, signature)
}

/// The services on record, and what to log. `valid`: the slots speak of processes that we see.
pub(in crate::daemon) fn recorded(
    found: &Found,
    loaded: Loaded,
    valid: bool,
) -> (Vec<Recorded>, Vec<String>) {
    let mut log = Vec::new();
    if loaded.damaged > 0 {
        log.push(format!("{} damaged lines of services were left out", loaded.damaged));
    }
    // Without its header a journal is lost: the definitions are all there is.
    let is_lost = found.header.is_none() && !loaded.services.is_empty();
    let slots = if is_lost { &[][..] } else { &found.slots[..] };
    if is_lost {
        let text = "the journal was lost or is damaged: what lives is found by its marks, and how \
                    the others ended is not known";
        log.push(text.to_owned());
    }
    for (id, slot) in (0..).zip(slots) {
        let is_its = |line| loaded.services.get(&line).is_some_and(|(of, _)| *of == id);
        let line = slot.0.filter(|state| !state.removed).map_or(0, |state| state.definition);
        if line != 0 && !is_its(line) {
            log.push(format!("service {id}: its definition is lost"));
        }
    }
    let mut all = Vec::new();
    for (id, (line, definition)) in newest_of(slots, loaded) {
        let (written, signature) = slot_of(slots, id);
        let highest = highest(&slot_of(&found.slots, id));
        let (state, signature) = match written {
            Some(state) if state.definition == line && valid => (state, signature),
            Some(state) if state.definition == line => {
                // What was up was cut off: how it ended before says nothing of that.
                let exit = state.exit.filter(|_| !state.goal_up);
                (State { goal_up: false, generation: highest, exit, ..state }, None)
            }
            written => unrecorded(written, signature.filter(|_| valid), highest),
        };
        let is_damaged = written.is_none() && (id as usize) < slots.len();
        if is_damaged {
            log.push(format!(
                "{}: its record is damaged: up if it lives, else down until it is started",
                definition.spec.name
            ));
        }
        all.push(Recorded { id, line, definition, written, is_damaged, state, signature });
    }
    (all, log)
}

impl Recorded {
    /// How the machine goes on where nothing may live.
    fn past(&self, wall: u64) -> Past {
        let (state, policy) = (&self.state, &self.definition.spec.policy);
        if state.failed.is_some() {
            return Past::Failed;
        }
        if !state.goal_up || state.halted {
            return Past::Down;
        }
        let delay = match state.deaths {
            0 => 0,
            deaths => restart_cooldown_delay_ms(policy.restart_delay, deaths),
        };
        Past::Due { delay: delay.saturating_sub(wall.saturating_sub(state.exited_at)) }
    }
}

impl<K: Kernel> Daemon<K> {
    pub(in crate::daemon) fn load_service(&mut self, recorded: Recorded) -> Result<(), Errno> {
        let Recorded { id, state, .. } = recorded;
        // What was to be up and is halted was to be stopped after others.
        let mut goal = if state.goal_up && !state.halted { Goal::Up } else { Goal::Down };
        let alive = recorded.signature.filter(|signed| signed.generation > state.emptied);
        let past = match alive {
            Some(signature) => {
                let age = self.kernel.wall().saturating_sub(state.started_at);
                let started = self.now.saturating_sub(age);
                let ways = ways(&recorded.definition.spec);
                let main = state.main.filter(|_| state.generation == signature.generation);
                self.with_trees(|trees, cx| {
                    trees.take_over(cx, id, &signature, main, started, ways)
                })?;
                let tree = self.trees.get(id);
                if recorded.is_damaged && tree.is_some_and(|tree| tree.lead().1.is_none()) {
                    // Nobody knows whether an operator had stopped it: then nothing starts.
                    goal = Goal::Down;
                }
                let since = tree.map_or(started, |tree| tree.since);
                let is_told = recorded.definition.spec.checks.ready != Sign::Exec;
                let ready = state.ready || !is_told;
                Past::Alive { generation: Generation(signature.generation), since, ready }
            }
            None => recorded.past(self.kernel.wall()),
        };
        let Recorded { line, definition, written, .. } = recorded;
        let policy = definition.spec.policy.clone();
        let machine = Machine::resume(policy, goal, state.deaths, state.restarts, past, self.now);
        let generation = state.generation.max(alive.map_or(0, |signed| signed.generation));
        let emptied = if alive.is_some() { state.emptied } else { generation.max(state.emptied) };
        let record = State { definition: line, removed: false, emptied, generation, ..state };
        let pid = self.trees.get(id).map_or(0, |tree| tree.lead().0.pid);
        let mut service = Service { pid, record, ..Service::new(id, definition, line, machine) };
        state.failed.into_iter().for_each(|launch| service.errored(&self.home, launch));
        // A full disk is said by `doctor`, and keeps the service from starting.
        self.ledger.reserve(&mut self.kernel, id).ok();
        let is_written = written == Some(service.state());
        self.insert(service);
        self.after_step(id);
        if is_written {
            self.ledger.dirty.remove(&id);
        }
        Ok(())
    }
}

/// The file's name in the home.
pub const JOURNAL: &str = "journal";

/// A slot's halves. One is none if it was never written or is torn.
pub type Slot = (Option<State>, Option<Signature>);

/// The generation that signed in a slot; 0: none.
pub fn signed((_, signature): &Slot) -> u64 {
    signature.map_or(0, |signature| signature.generation)
}

/// The highest generation of a slot that is confirmed gone; 0: none.
pub fn emptied((state, _): &Slot) -> u64 {
    state.map_or(0, |state| state.emptied)
}

/// Whether who signed in a slot is not confirmed gone.
pub fn may_live(slot: &Slot) -> bool {
    signed(slot) > emptied(slot)
}

/// What an earlier daemon and its children left behind.
#[derive(Debug)]
pub struct Found {
    /// None: no journal, or a damaged header.
    pub header: Option<Header>,
    /// By id.
    pub slots: Vec<Slot>,
}

/// Reads what is there, changing nothing.
pub fn load_journal<K: Kernel>(kernel: &mut K) -> sys::Result<Found> {
    let bytes = kernel.load(JOURNAL)?.unwrap_or_default();
    let header = Header::decode(&bytes);
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let slots = body.chunks_exact(SLOT_BYTES).map(|s| (State::decode(s), Signature::in_slot(s)));
    Ok(Found { header, slots: slots.collect() })
}
