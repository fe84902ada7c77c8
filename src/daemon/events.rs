//! What happened, as people and scripts follow it: a short memory, and those who listen.
use super::{ClientId, Daemon};
use crate::process::{Exit, Pid};
use crate::service::machine::{Generation, Phase};
use crate::service::policy::restart_cooldown_remaining_secs;
use crate::service::signal::Signal;
use crate::service::spec::Id;
use crate::sys::Kernel;
use crate::wire::{Event, Reply, Status};
use std::collections::VecDeque;

/// Events remembered for `opm events`.
const EVENTS_MAX: usize = 256;

/// Who ended a process, where that was us.
pub(crate) const BY_OPM: &str = "opm";

/// One event, small: text is made only when somebody asks.
#[derive(Debug)]
pub(crate) struct Happening {
    at: u64,
    kind: &'static str,
    name: String,
    id: Id,
    generation: u64,
    pub(crate) pid: Option<Pid>,
    pub(crate) exit: Option<Exit>,
    pub(crate) by_opm: bool,
    pub(crate) reason: Option<String>,
}

/// The memory and the listeners.
#[derive(Debug, Default)]
pub(crate) struct Events {
    past: VecDeque<Happening>,
    pub(crate) followers: Vec<ClientId>,
}

impl Happening {
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
            by: self.by_opm.then(|| BY_OPM.to_owned()),
            reason: self.reason.clone(),
        }
    }
}

/// Code and signal name of an exit.
pub(crate) fn exit_parts(exit: Option<Exit>) -> (Option<i32>, Option<String>) {
    match exit {
        Some(Exit::Code(code)) => (Some(code), None),
        Some(Exit::Signal(signal)) => {
            let name = Signal::from_number(signal).map_or(signal.to_string(), Signal::name);
            (None, Some(name))
        }
        Some(Exit::Unknown) | None => (None, None),
    }
}

impl Events {
    pub(crate) fn past(&self) -> Vec<Event> {
        self.past.iter().map(Happening::event).collect()
    }
}

impl<K: Kernel> Daemon<K> {
    pub(crate) fn announce(
        &mut self,
        id: Id,
        generation: Generation,
        kind: &'static str,
        more: impl FnOnce(&mut Happening),
    ) {
        let Some(service) = self.services.get(id) else { return };
        let mut happening = Happening {
            at: self.kernel.wall(),
            kind,
            name: service.name().to_owned(),
            id,
            generation: generation.0,
            pid: None,
            exit: None,
            by_opm: false,
            reason: None,
        };
        more(&mut happening);
        for client in &self.events.followers {
            self.outbox.push((*client, Reply::Event(happening.event())));
        }
        if self.events.past.len() == EVENTS_MAX {
            self.events.past.pop_front();
        }
        self.events.past.push_back(happening);
    }

    pub(crate) fn announce_exit(&mut self, id: Id, generation: Generation, pid: Pid, exit: Exit) {
        let by_opm = self.services.get(id).is_some_and(|service| service.by_opm);
        self.announce(id, generation, "exited", |happening| {
            happening.by_opm = by_opm;
            happening.pid = (pid != 0).then_some(pid);
            happening.exit = Some(exit);
            happening.reason = (exit == Exit::Unknown).then(|| "status unknown".to_owned());
        });
    }

    pub(crate) fn announce_drained(&mut self, id: Id, generation: Generation) {
        let killed = self.services.get(id).and_then(|service| service.killed);
        let left = killed.filter(|killed| killed.generation == generation && !killed.leader);
        self.announce(id, generation, "drained", |happening| {
            happening.reason = left.map(|killed| killed.to_string());
        });
    }

    pub(crate) fn announce_status(&mut self, id: Id, status: Status) {
        let now = self.now;
        let Some(service) = self.services.get_mut(id) else {
            return;
        };
        let generation = Generation(service.generation);
        let (kind, reason) = match status {
            Status::Waiting => {
                let Phase::Cooldown { since, delay, .. } = service.machine.phase() else {
                    return;
                };
                let left = restart_cooldown_remaining_secs(Some(*since), *delay, now).unwrap_or(0);
                ("waiting", Some(format!("restart in {left}s")))
            }
            Status::Errored => {
                if service.note.is_none() {
                    service.note = Some(match service.machine.deaths() {
                        0 => "it failed, and its policy is not to restart it".into(),
                        deaths => format!("{deaths} quick deaths in a row").into(),
                    });
                }
                ("errored", service.reason())
            }
            Status::Stopped => ("stopped", None),
            Status::Online | Status::Starting | Status::Stopping => return,
        };
        self.announce(id, generation, kind, |happening| happening.reason = reason);
    }
}

/// Unix milliseconds as RFC 3339, UTC, with milliseconds. (Days to civil date after Howard
/// Hinnant's `civil_from_days`, for dates from 1970 on.)
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, milli) = (ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_date_1() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(rfc3339(1_795_340_442_000), "2026-11-22T09:40:42.000Z");
    }
}
