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

#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) past: VecDeque<Event>,
    pub(crate) followers: Vec<ClientId>,
}

impl<K: Kernel> Daemon<K> {
    pub(crate) fn emit(
        &mut self,
        id: Id,
        generation: Generation,
        kind: &str,
        more: impl FnOnce(&mut Event),
    ) {
        let Some(service) = self.services.get(id) else { return };
        let mut event = Event {
            at: rfc3339(self.kernel.wall()),
            event: kind.to_owned(),
            service: service.name().to_owned(),
            id,
            generation: generation.0,
            ..Event::default()
        };
        more(&mut event);
        for client in &self.events.followers {
            self.outbox.push((*client, Reply::Event(event.clone())));
        }
        if self.events.past.len() == EVENTS_MAX {
            self.events.past.pop_front();
        }
        self.events.past.push_back(event);
    }

    pub(crate) fn emit_exit(&mut self, id: Id, generation: Generation, pid: Pid, exit: Exit) {
        let Some(service) = self.services.get(id) else { return };
        let by = service.record.by_opm.then(|| BY_OPM.to_owned());
        let oom = service.last_death().is_some_and(|death| death.oom);
        let why = service.advised.as_deref().or(service.note.as_deref()).map(str::to_owned);
        self.emit(id, generation, "exited", |event| {
            (event.by, event.oom) = (by, oom);
            event.pid = (pid != 0).then_some(pid);
            (event.code, event.signal) = exit_parts(Some(exit));
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
        let generation = Generation(service.record.generation);
        let reason = match status {
            Status::Waiting | Status::Errored => service.outlook(self.now),
            Status::Stopped => None,
            Status::Online | Status::Starting | Status::Stopping => return,
        };
        self.emit(id, generation, status.word(), |event| event.reason = reason);
    }
}
