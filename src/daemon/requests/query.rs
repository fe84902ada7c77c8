//! What is true now, for those who ask. Nothing is sampled while nobody does.
use super::*;
use crate::daemon::service::{Death, Usage};
use crate::process::command::pattern_of_argv;
use crate::process::mark::EnvMark;
use crate::process::stat::parse_cmdline;
use crate::service::environment::environment;
use crate::service::machine::Phase;
use crate::service::options::{OPTIONS, Opt};
use crate::service::spec::{Env, Spec, join};
use crate::service::time::rfc3339;
use crate::service::units::human_uptime;
use crate::wire::file::pm2::{self, PM2S};
use crate::wire::{
    Asked, Dependency, Health, Identity, Info, LastExit, LogFiles, Options, PROTOCOL, Process, Row,
    Why,
};

/// Ticks a second of process times (USER_HZ).
const TICKS: f64 = 100.0;
/// A shorter sample says more about the clock than about the process.
const SAMPLE_MS_MIN: u64 = 1_000;

/// What the options of a service are, and who set them.
fn options(spec: &Spec) -> Options {
    let mut pm2 = Spec::default();
    if spec.origin.of.starts_with(PM2S) {
        pm2::defaults(&mut pm2);
    }
    let of = |opt: &Opt| {
        let from = match &*spec.origin.of {
            _ if spec.origin.adjusted.iter().any(|key| key == opt.key) => "adjust",
            _ if opt.get(spec) == opt.get(&pm2) => "PM2's default",
            "" => "not on record",
            of => of,
        };
        (opt.key.to_owned(), from.to_owned())
    };
    let said = OPTIONS.iter().filter(|opt| !opt.is_default(spec));
    Options { policy: spec.options(), origins: said.map(of).collect() }
}

impl<K: Kernel> Daemon<K> {
    pub(super) fn list(&mut self, usage: bool) -> Reply {
        // Its whole size at once: a list that grows leaves the old ones behind in the heap.
        let mut rows = Vec::with_capacity(self.services.len());
        for id in self.services.ids() {
            let used = usage.then(|| self.usage(id)).flatten();
            rows.extend(self.row(id, used.as_ref()));
        }
        Reply::List(rows)
    }

    /// What there is to tell of each service of a target.
    pub(super) fn of_each<T>(
        &mut self,
        target: &str,
        all: impl FnOnce(Vec<T>) -> Reply,
        tell: impl Fn(&mut Self, Id) -> Option<T>,
    ) -> Result<Option<Reply>, Failure> {
        // A part of the target that names nothing is a refusal.
        let (ids, missing) = self.resolve(target)?;
        match missing.into_iter().next() {
            Some(outcome) => Err(Failure::new(outcome.code, outcome.text)),
            None => Ok(Some(all(ids.into_iter().filter_map(|id| tell(self, id)).collect()))),
        }
    }

    pub(super) fn named_env(&mut self, id: Id) -> Option<(String, Env)> {
        let service = self.services.get(id)?;
        Some((service.name().to_owned(), self.env_of(service)))
    }

    pub(super) fn spec(&mut self, id: Id) -> Option<Spec> {
        Some(self.services.get(id)?.definition.spec.clone())
    }

    pub(super) fn log_files(&mut self, id: Id) -> Option<LogFiles> {
        let service = self.services.get(id)?;
        let [out, error] = self.logs_of(service);
        Some(LogFiles { id, name: service.name().to_owned(), out, error })
    }

    /// The paths of a service's log files; none where its output is that of a foreground run.
    fn logs_of(&self, service: &Service) -> [Option<String>; 2] {
        let has_logs = !self.launches.foreground.contains_key(service.name());
        let paths = log_paths(&service.definition.spec);
        paths.map(|path| has_logs.then(|| in_home(&self.home, &path)))
    }

    /// Why what a live service writes can't be read in its log files, or has no bound, if so.
    pub(super) fn log_trouble(&self, service: &Service) -> Option<String> {
        self.trees
            .pid(service.id)
            .filter(|_| !self.launches.foreground.contains_key(service.name()))?;
        let lost = log_paths(&service.definition.spec).iter().find_map(|path| {
            let why = describe(self.kernel.log_trouble(path)?);
            let path = in_home(&self.home, path);
            Some(format!("what it writes is lost, for {path} can't be opened: {why}"))
        });
        lost.or_else(|| self.logs.trouble(service.id))
    }

    fn row(&mut self, id: Id, used: Option<&Usage>) -> Option<Row> {
        let (now, wall) = (self.now, self.kernel.wall());
        let page = rustix::param::page_size() as u64;
        let waits_for = self.waits_for(id);
        let service = self.services.get_mut(id)?;
        let phase = service.machine.phase();
        let up = matches!(phase, Phase::Up { .. } | Phase::Stopping { .. });
        let is_down = matches!(phase, Phase::Down(_) | Phase::Failed(_));
        let next = self.monitors.crons.next(id);
        let next_at = if let Phase::Cooldown { since, delay, .. } = phase {
            let left = since.saturating_add(*delay).saturating_sub(now);
            Some(rfc3339(wall.saturating_add(left)))
        } else {
            next.map(rfc3339)
        };
        let why = waits_for.or_else(|| service.why(now)).or_else(|| self.logs.full_disk(id));
        let due = |at: u64| format!("next in {}", human_uptime(at.saturating_sub(wall)));
        let tree = self.trees.get(id);
        let since = tree.filter(|tree| tree.exit.is_none() && up).map(|tree| tree.since);
        let adopted = tree.is_some_and(|tree| tree.adopted);
        let cpu_percent = used.map(|used| {
            let begin = since.unwrap_or(now);
            let earlier = service.sample.filter(|(at, ticks)| *at > begin && *ticks <= used.ticks);
            let (from, ticks) = earlier.unwrap_or((begin, 0));
            let span = now.saturating_sub(from);
            if span >= SAMPLE_MS_MIN {
                service.sample = Some((now, used.ticks));
            }
            let seconds = span.max(1) as f64 / 1000.0;
            let percent = (used.ticks - ticks) as f64 / TICKS / seconds * 100.0;
            (percent * 10.0).round() / 10.0
        });
        Some(Row {
            id,
            name: service.name().to_owned(),
            pid: self.trees.pid(service.id),
            uptime_ms: since.map(|since| now.saturating_sub(since)),
            restarts: service.machine.restarts(),
            status: service.status(),
            cpu_percent,
            memory_bytes: used.map(|used| used.pages * page),
            watching: self.monitors.watches.is_watching(id),
            processes: used.and_then(|used| u32::try_from(used.pids.len()).ok()),
            generation: service.record.generation,
            adopted,
            why: match (why, next.map(due)) {
                (Some(why), Some(due)) if is_down => Some(format!("{why}, {due}")),
                (why, due) => why.or(due),
            },
            ready: service.machine.is_ready(),
            next_at,
            command: service.definition.spec.command_line(),
            cwd: service.definition.spec.cwd.to_string(),
            instance_of: service.definition.spec.held.instance_of.clone(),
        })
    }

    pub(super) fn info(&mut self, id: Id) -> Option<Info> {
        let used = self.usage(id);
        let row = self.row(id, used.as_ref())?;
        let identity = self.identity(id);
        let cgroup = row.pid.and_then(|pid| self.kernel.cgroup(pid));
        let bounded = row.pid.filter(|_| self.monitors.memory.most(id).is_some());
        let memory_by = bounded.map(|pid| match self.kernel.proportional_memory(pid) {
            Some(_) => "pss".to_owned(),
            None => "rss".to_owned(),
        });
        let service = self.services.get(id)?;
        let (attributes, note) = (&service.definition.attributes(), self.note(id));
        let at = |ms: u64| (ms > 0).then(|| rfc3339(ms));
        let [log_out, log_error] = self.logs_of(service);
        let mut env_keys: Vec<String> =
            self.env_of(service).into_iter().map(|(key, _)| key).collect();
        env_keys.sort_unstable();
        Some(Info {
            pids: used.map_or_else(Vec::new, |used| used.pids),
            kept: self.trees.kept_of(id),
            started_at: row.pid.and_then(|_| at(service.record.started_at)),
            last_exit: service
                .last_death()
                .map(|death| LastExit { lived_ms: None, ..death.told() }),
            pattern: pattern_of_argv(&service.definition.spec.command),
            options: options(&service.definition.spec),
            attributes: self.kernel.unusual(attributes),
            log_out,
            log_error,
            identity,
            memory_by,
            failed_restarts: service.machine.deaths(),
            last_restart_at: at(service.record.restarted_at),
            env_keys,
            cgroup,
            done: service.is_done(),
            status_text: self.said(service),
            note,
            row,
        })
    }

    /// `opm why`: facts alone: what follows from them is said by the command.
    pub(super) fn why(&mut self, id: Id) -> Option<Why> {
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

    /// What there is to say of where it stands, and of what it lacks.
    pub(super) fn note(&self, id: Id) -> Option<String> {
        let service = self.services.get(id)?;
        let is_errored = service.status() == Status::Errored;
        let outlook = || service.outlook(self.now).filter(|_| is_errored);
        let note = self.waits_for(id).or_else(|| service.reason()).or_else(outlook);
        let note = note.or_else(|| self.log_trouble(service));
        let note = note.or_else(|| self.monitors.watches.trouble(id).map(str::to_owned));
        note.or_else(|| self.kernel.lacking(&service.definition.attributes()))
    }

    /// The environment of the running incarnation, or the next, whose pid is not known yet.
    pub(super) fn env_of(&self, service: &Service) -> Env {
        let next = (self.ledger.sequence.0 + 1, 0);
        let tree = self.trees.get(service.id).map(|tree| (tree.generation.0, tree.leader.pid));
        let (generation, pid) = tree.unwrap_or(next);
        let mark =
            EnvMark { home_key: self.ledger.header.home_key, id: service.id, generation, pid };
        let (mark, outer) = (mark.value(), self.launches.outer.as_deref());
        let account = self.kernel.who(&service.definition.spec.exec).unwrap_or_default().env;
        let env = environment(&service.definition, &account, &self.home, &mark, outer, pid);
        env.map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    }

    /// What a service said of itself last.
    fn said(&self, service: &Service) -> Option<String> {
        let said = self.monitors.said.get(&service.id).filter(|_| service.is_live());
        let said = said.filter(|(generation, _)| *generation == service.record.generation);
        said.map(|(_, text)| text.to_string()).filter(|text| !text.is_empty())
    }

    /// What the next incarnation waits for: the old one drains, or a dependency is not ready.
    pub(super) fn waits_for(&self, id: Id) -> Option<String> {
        self.drains(id).or_else(|| self.waits(id).map(|(why, _)| why))
    }

    fn drains(&self, id: Id) -> Option<String> {
        let tree = self.trees.get(id).filter(|tree| tree.exit.is_some())?;
        let killed = if tree.kills > 0 { ", killed already" } else { "" };
        let (ours, unsure) = self.rest(id);
        match (ours.is_empty(), unsure.is_empty()) {
            (false, _) => Some(format!("waits for pid {ours} of its old incarnation{killed}")),
            (true, false) => Some(format!("waits: {}", unsure_of(&unsure))),
            (true, true) => None,
        }
    }

    /// The pids of what is left of a tree and may be signalled, and of what only may be of it.
    pub(super) fn rest(&self, id: Id) -> (String, String) {
        let list = |pids: Vec<Pid>| pids.iter().map(Pid::to_string).collect::<Vec<_>>().join(", ");
        let (ours, unsure) = self.trees.members(id);
        (list(ours), list(unsure))
    }

    fn identity(&mut self, id: Id) -> Option<Identity> {
        let leader = self.with_trees(|trees, cx| trees.identity(cx, id))?;
        let known = |number: u64| (number != 0).then_some(number);
        Some(Identity {
            boot_id: uuid(self.ledger.header.boot),
            pid_namespace: self.ledger.header.pid_namespace,
            pid: leader.pid,
            start_time: known(leader.start_time),
            pidfd_inode: known(leader.inode),
        })
    }

    pub(super) fn health(&self) -> Health {
        Health {
            pid: self.ledger.header.daemon.pid,
            uptime_ms: self.now.saturating_sub(self.began),
            memory_bytes: self.kernel.own_memory(),
            services: self.services.len(),
            online: self.services.iter().filter(|s| s.status() == Status::Online).count(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            home: self.home.clone(),
            image: Some(self.began),
        }
    }
}

/// What keeps a gate closed and is never signalled.
pub(super) fn unsure_of(pids: &str) -> String {
    format!("pid {pids} may be of it, bears no mark and is not signalled (see 'opm doctor')")
}

fn uuid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
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
