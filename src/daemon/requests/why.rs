//! `opm why`: where a service stands, since when, and what is known of the reason. Facts alone:
//! what follows from them is said by the command.
use crate::daemon::Daemon;
use crate::daemon::service::{Death, Service};
use crate::process::stat::parse_cmdline;
use crate::service::spec::{Id, join};
use crate::service::time::rfc3339;
use crate::sys::Kernel;
use crate::wire::{Asked, Dependency, Failure, Process, Reply, Status, Why};

impl<K: Kernel> Daemon<K> {
    pub(super) fn whys(&mut self, target: &str) -> Result<Reply, Failure> {
        let ids = self.resolve_all(target)?;
        Ok(Reply::Why(ids.into_iter().filter_map(|id| self.why(id)).collect()))
    }

    fn why(&mut self, id: Id) -> Option<Why> {
        let info = self.info(id)?;
        let by_cron = info.row.status != Status::Waiting;
        let probe = self.monitors.checks.unanswered(id).map(|(question, probe, answer)| Asked {
            question: format!("{question:?}").to_lowercase(),
            probe: probe.to_string(),
            answer: Some(answer.to_owned()).filter(|answer| !answer.is_empty()),
        });
        let is_stopping = info.row.status == Status::Stopping;
        let (ours, unsure) = if is_stopping { self.trees.members(id) } else { Default::default() };
        let of_it = ours.into_iter().map(|pid| (pid, true));
        let all = of_it.chain(unsure.into_iter().map(|pid| (pid, false)));
        let waits_for = all.map(|(pid, is_sure)| {
            let words = self.kernel.cmdline(pid).map(|text| parse_cmdline(&text));
            Process { pid, command: join(&words.unwrap_or_default()), is_sure }
        });
        let (waits_for, wall) = (waits_for.collect(), self.kernel.wall());
        let service = self.services.get(id)?;
        let port = self.env_of(service).into_iter().find(|(name, _)| name == "PORT");
        let since = Some(since(service)).filter(|since| *since > 0);
        // Of those before this daemon the newest alone is on record.
        let last = service.last_death();
        let deaths = if service.past.is_empty() { last.as_slice() } else { &service.past };
        Some(Why {
            info,
            since: since.map(rfc3339),
            for_ms: since.map(|since| wall.saturating_sub(since)),
            halted: service.record.halted,
            deaths: deaths.iter().map(Death::told).collect(),
            waits_for,
            dependency: self.dependency(service),
            probe,
            by_cron: by_cron && self.monitors.crons.next(id).is_some(),
            port: port.and_then(|(_, value)| value.parse().ok()),
        })
    }

    /// The service that one waits for before it is launched, and where that stands.
    fn dependency(&self, service: &Service) -> Option<Dependency> {
        let Some(it) = self.services.get(service.waits_for?) else {
            let names = &service.definition.spec.checks.depends_on;
            let name = names.iter().find(|name| self.services.called(name).is_empty())?.clone();
            return Some(Dependency { name, status: None, why: None });
        };
        let why = self.waits_for(it.id).or_else(|| it.why(self.now));
        Some(Dependency { name: it.name().to_owned(), status: Some(it.status()), why })
    }
}

/// Since when it is where it is, as Unix milliseconds; 0: not known. Of what an earlier daemon saw
/// there is on record when it was started, and when it ended.
fn since(service: &Service) -> u64 {
    match (service.announced.at, service.status()) {
        (0, Status::Online | Status::Starting) => service.record.started_at,
        (0, _) => service.record.exited_at,
        (at, _) => at,
    }
}
