//! What happened, as people and scripts follow it: a short memory, and those who listen.
use super::service::{BY_OPM, exit_parts};
use super::{ClientId, Daemon};
use crate::process::{Exit, Pid};
use crate::service::machine::Generation;
use crate::service::spec::Id;
use crate::service::time::rfc3339;
use crate::sys::Kernel;
use crate::wire::{Event, Reply, Status};
use std::collections::VecDeque;

/// Events remembered for `opm events`.
const EVENTS_MAX: usize = 256;

/// One event, small: text is made only when somebody asks.
#[derive(Debug)]
pub(crate) struct EventRecord {
    at: u64,
    kind: &'static str,
    name: String,
    id: Id,
    generation: u64,
    pub(crate) pid: Option<Pid>,
    pub(crate) exit: Option<Exit>,
    pub(crate) by_opm: bool,
    pub(crate) oom: bool,
    pub(crate) reason: Option<String>,
}

/// The memory and the listeners.
#[derive(Debug, Default)]
pub(crate) struct Events {
    past: VecDeque<EventRecord>,
    pub(crate) followers: Vec<ClientId>,
}

impl EventRecord {
    fn event(&self) -> Event {
        let (code, signal) = exit_parts(self.exit);
        Event {
            at: rfc3339(self.at),
            event: self.kind.to_owned(),
            service: self.name.clone(),
            id: self.id,
            generation: self.generation,
            pid: self.pid,
            code,
            signal,
            oom: self.oom,
            by: self.by_opm.then(|| BY_OPM.to_owned()),
            reason: self.reason.clone(),
        }
    }
}

impl Events {
    pub(crate) fn past(&self) -> Vec<Event> {
        self.past.iter().map(EventRecord::event).collect()
    }
}

impl<K: Kernel> Daemon<K> {
    pub(crate) fn emit(
        &mut self,
        id: Id,
        generation: Generation,
        kind: &'static str,
        more: impl FnOnce(&mut EventRecord),
    ) {
        let Some(service) = self.services.get(id) else { return };
        let mut event = EventRecord {
            at: self.kernel.wall(),
            kind,
            name: service.name().to_owned(),
            id,
            generation: generation.0,
            pid: None,
            exit: None,
            by_opm: false,
            oom: false,
            reason: None,
        };
        more(&mut event);
        for client in &self.events.followers {
            self.outbox.push((*client, Reply::Event(event.event())));
        }
        if self.events.past.len() == EVENTS_MAX {
            self.events.past.pop_front();
        }
        self.events.past.push_back(event);
    }

    pub(crate) fn emit_exit(&mut self, id: Id, generation: Generation, pid: Pid, exit: Exit) {
        let Some(service) = self.services.get(id) else { return };
        let by_opm = service.by_opm;
        let oom = service.last_death().is_some_and(|death| death.oom);
        let why = service.advised.as_deref().or(service.note.as_deref()).map(str::to_owned);
        self.emit(id, generation, "exited", |event| {
            (event.by_opm, event.oom) = (by_opm, oom);
            event.pid = (pid != 0).then_some(pid);
            event.exit = Some(exit);
            event.reason = (exit == Exit::Unknown).then(|| "status unknown".to_owned()).or(why);
        });
    }

    pub(crate) fn emit_drained(&mut self, id: Id, generation: Generation) {
        let killed = self.services.get(id).and_then(|service| service.killed);
        let left = killed.filter(|killed| killed.generation == generation && !killed.leader);
        self.emit(id, generation, "drained", |event| {
            event.reason = left.map(|killed| killed.to_string());
        });
    }

    pub(crate) fn emit_status(&mut self, id: Id, status: Status) {
        let Some(service) = self.services.get(id) else { return };
        let generation = Generation(service.generation);
        let reason = match status {
            Status::Waiting | Status::Errored => service.outlook(self.now),
            Status::Stopped => None,
            Status::Online | Status::Starting | Status::Stopping => return,
        };
        self.emit(id, generation, status.word(), |event| event.reason = reason);
    }
}
