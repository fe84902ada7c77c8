//! What is true now, for those who ask. Nothing is sampled while nobody does.
use super::lookalike::Likeness;
use crate::daemon::Daemon;
use crate::daemon::events::{BY_OPM, exit_parts, rfc3339};
use crate::daemon::launch::{environment, log_paths};
use crate::daemon::service::Service;
use crate::daemon::vecmap::VecSet;
use crate::process::Pid;
use crate::process::command::pattern_of_argv;
use crate::process::mark::EnvMark;
use crate::service::machine::Phase;
use crate::service::spec::{Env, Id};
use crate::sys::{Kernel, procfs};
use crate::wire::{
    Failure, Finding, Health, Identity, Info, LastExit, LogFiles, PROTOCOL, Reply, Row, Status,
};

/// Ticks a second of process times (USER_HZ).
const TICKS: f64 = 100.0;
/// A shorter sample says more about the clock than about the process.
const SAMPLE_MS_MIN: u64 = 1_000;

#[derive(Default)]
struct Usage {
    pids: VecSet<Pid>,
    ticks: u64,
    pages: u64,
}

impl<K: Kernel> Daemon<K> {
    pub(crate) fn list(&mut self, usage: bool) -> Reply {
        let ids: Vec<Id> = self.services.iter().map(|service| service.id).collect();
        Reply::List(ids.into_iter().filter_map(|id| self.row(id, usage)).collect())
    }

    pub(crate) fn infos(&mut self, target: &str) -> Result<Reply, Failure> {
        let ids = self.one_or_more(target)?;
        Ok(Reply::Info(ids.into_iter().filter_map(|id| self.info(id)).collect()))
    }

    pub(crate) fn envs(&self, target: &str) -> Result<Reply, Failure> {
        let ids = self.one_or_more(target)?;
        let services = ids.into_iter().filter_map(|id| self.services.get(id));
        Ok(Reply::Env(services.map(|u| (u.name().to_owned(), self.env_of(u))).collect()))
    }

    pub(crate) fn log_files(&self, target: &str) -> Result<Reply, Failure> {
        let ids = self.one_or_more(target)?;
        let services = ids.into_iter().filter_map(|id| self.services.get(id));
        let files = services.map(|service| {
            let (out, error) = self.logs_of(service.name());
            LogFiles { id: service.id, name: service.name().to_owned(), out, error }
        });
        Ok(Reply::Logs(files.collect()))
    }

    /// The paths of a service's log files; none where its output is that of a foreground run.
    fn logs_of(&self, name: &str) -> (Option<String>, Option<String>) {
        if self.launches.foreground.contains_key(name) {
            return (None, None);
        }
        let (out, error) = log_paths(&self.home, name);
        (Some(out), Some(error))
    }

    /// Why what a live service writes can't be read in its log files, if so.
    fn log_trouble(&self, service: &Service) -> Option<String> {
        self.trees.pid(service.id)?;
        let (out, error) = self.logs_of(service.name());
        let home = format!("{}/", self.home);
        [out?, error?].iter().find_map(|path| {
            let errno = self.kernel.log_trouble(path.strip_prefix(&home)?)?;
            let why = crate::sys::describe(errno);
            Some(format!("what it writes is lost, for {path} can't be opened: {why}"))
        })
    }

    fn one_or_more(&self, target: &str) -> Result<Vec<Id>, Failure> {
        let (ids, missing) = self.resolve(target)?;
        match missing.into_iter().next() {
            Some(outcome) => Err(Failure::new(outcome.code, outcome.text)),
            None => Ok(ids),
        }
    }

    fn row(&mut self, id: Id, usage: bool) -> Option<Row> {
        let used = if usage { self.usage(id) } else { None };
        let now = self.now;
        let service = self.services.get_mut(id)?;
        let up = matches!(service.machine.phase(), Phase::Up { .. } | Phase::Stopping { .. });
        let since =
            self.trees.get(id).filter(|tree| tree.exit.is_none() && up).map(|tree| tree.since);
        let uptime_ms = since.map(|since| now.saturating_sub(since));
        let cpu_percent = used.as_ref().map(|used| {
            let begin = since.unwrap_or(now);
            let (from, ticks) = match service.sample {
                Some((at, ticks)) if at > begin && ticks <= used.ticks => (at, ticks),
                _ => (begin, 0),
            };
            let seconds = (now.saturating_sub(from)).max(1) as f64 / 1000.0;
            if now.saturating_sub(from) >= SAMPLE_MS_MIN {
                service.sample = Some((now, used.ticks));
            }
            let percent = (used.ticks - ticks) as f64 / TICKS / seconds * 100.0;
            (percent * 10.0).round() / 10.0
        });
        let wall = self.kernel.wall();
        let service = self.services.get(id)?;
        let next_at = match service.machine.phase() {
            Phase::Cooldown { since, delay, .. } => {
                let left = since.saturating_add(*delay).saturating_sub(now);
                Some(rfc3339(wall.saturating_add(left)))
            }
            Phase::Down(_)
            | Phase::Failed(_)
            | Phase::Starting { .. }
            | Phase::Up { .. }
            | Phase::Lingering { .. }
            | Phase::Stopping { .. } => None,
        };
        Some(Row {
            id,
            name: service.name().to_owned(),
            pid: self.trees.pid(id),
            uptime_ms,
            restarts: service.machine.restarts(),
            status: service.status(),
            cpu_percent,
            memory_bytes: used.as_ref().map(|used| used.pages * rustix::param::page_size() as u64),
            watching: false,
            processes: used.as_ref().and_then(|used| u32::try_from(used.pids.len()).ok()),
            generation: service.generation,
            adopted: self.trees.get(id).is_some_and(|tree| tree.adopted),
            command: service.definition.spec.command_line(),
            cwd: service.definition.spec.cwd.clone(),
            next_at,
        })
    }

    fn usage(&mut self, id: Id) -> Option<Usage> {
        let (mut queue, mut unsure) = self.trees.members(id);
        queue.append(&mut unsure);
        if queue.is_empty() {
            return None;
        }
        let mut usage = Usage::default();
        let mut seen = VecSet::new();
        for pid in &queue {
            seen.insert(*pid);
        }
        while let Some(pid) = queue.pop() {
            let Ok(stat) = self.kernel.stat(pid) else {
                continue;
            };
            usage.pids.insert(pid);
            usage.ticks += stat.utime + stat.stime;
            usage.pages += stat.rss_pages;
            let mut children = Vec::new();
            if self.kernel.children(pid, &mut children).is_ok() {
                queue.extend(children.into_iter().filter(|pid| seen.insert(*pid)));
            }
        }
        Some(usage)
    }

    fn info(&mut self, id: Id) -> Option<Info> {
        let row = self.row(id, true)?;
        let pids = self.usage(id).map(|usage| usage.pids);
        let identity = self.identity(id);
        let cgroup = row.pid.and_then(|pid| self.kernel.cgroup(pid));
        let service = self.services.get(id)?;
        let attributes = &service.definition.attributes();
        let note = self.stopping_note(id).or_else(|| service.reason());
        let note = note.or_else(|| self.log_trouble(service));
        let note = note.or_else(|| self.kernel.lacking(attributes));
        let at = |ms: u64| (ms > 0).then(|| rfc3339(ms));
        let (exit_code, signal) = exit_parts(service.exit);
        let (log_out, log_error) = self.logs_of(service.name());
        let env = self.env_of(service).into_iter();
        let mut env_keys: Vec<String> = env.map(|(key, _)| key).collect();
        env_keys.sort_unstable();
        Some(Info {
            pids: pids.unwrap_or_default().into_iter().collect(),
            started_at: if row.pid.is_some() { at(service.started_at) } else { None },
            last_exit: service.exit.map(|_| LastExit {
                code: exit_code,
                signal,
                by: service.by_opm.then(|| BY_OPM.to_owned()),
                at: at(service.exited_at),
            }),
            ready: service.machine.is_ready(),
            pattern: pattern_of_argv(&service.definition.spec.command),
            policy: service.definition.spec.options(),
            attributes: self.kernel.unusual(attributes),
            log_out,
            log_error,
            identity,
            failed_restarts: service.machine.deaths(),
            last_restart_at: at(service.restarted_at),
            env_keys,
            cgroup,
            done: service.is_done(),
            note,
            row,
        })
    }

    /// What the running incarnation of a service has in its environment, or the next one will,
    /// whose pid is not known yet.
    fn env_of(&self, service: &Service) -> Env {
        let next = self.ledger.sequence.0 + 1;
        let tree = self.trees.get(service.id).map(|tree| (tree.generation.0, tree.leader.pid));
        let (generation, pid) = tree.unwrap_or((next, 0));
        let mark =
            EnvMark { home_key: self.ledger.header.home_key, id: service.id, generation, pid };
        let env =
            environment(&service.definition, &self.home, &mark, self.launches.outer.as_deref());
        let pairs = env.iter().filter_map(|entry| {
            let (name, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        pairs.collect()
    }

    fn stopping_note(&self, id: Id) -> Option<String> {
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
    pub(crate) fn rest(&self, id: Id) -> (String, String) {
        let list = |pids: Vec<Pid>| {
            pids.into_iter().map(|pid| pid.to_string()).collect::<Vec<_>>().join(", ")
        };
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

    pub(crate) fn health(&self) -> Health {
        Health {
            pid: self.ledger.header.daemon.pid,
            uptime_ms: self.now.saturating_sub(self.began),
            memory_bytes: procfs::own_memory(),
            services: self.services.len(),
            online: self
                .services
                .iter()
                .filter(|service| service.status() == Status::Online)
                .count(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            home: self.home.clone(),
            image: Some(self.began),
        }
    }

    fn look_alikes(&mut self) -> Vec<Finding> {
        let passers = self.passers();
        let services = self.services.iter();
        let specs: Vec<_> = services.map(|service| service.definition.spec.clone()).collect();
        let mut findings = Vec::new();
        for spec in specs {
            if let Some(Likeness::Same(pid)) = self.likeness(&spec, &passers) {
                let text = format!(
                    "pid {pid} runs the command of {} in the same directory and is not ours",
                    spec.name
                );
                let advice = "stop it, or start the service with --force";
                findings.push(finding("note", "look-alike", text, advice));
            }
        }
        findings
    }

    pub(crate) fn doctor(&mut self) -> Vec<Finding> {
        let features = self.kernel.features().each();
        let is_root = self.kernel.own_uid() == 0;
        let mut findings: Vec<Finding> =
            features.map(|(name, has)| tier(name, has, is_root)).into();
        let forged = self.with_trees(|trees, cx| trees.forged(cx));
        // With hidepid=2 those of others are not even listed: PID 1 is always there.
        findings.push(if self.kernel.stat(1).is_ok() && forged.is_some() {
            finding("ok", "/proc", "shows every process".to_owned(), "")
        } else {
            let advice = "mount /proc without hidepid: until then nothing that was adopted can be \
                          confirmed to be gone, and it is not restarted";
            finding("problem", "/proc", "hides processes".to_owned(), advice)
        });
        if self.trees.marks.mark.is_none() {
            let advice = "services of this daemon bear one mark only";
            findings.push(finding("note", "marks", "nested too deep".to_owned(), advice));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let room = limit.current.unwrap_or(u64::MAX);
        let used = self.services.len() as u64 + self.trees.count_orphans() as u64 + 32;
        let (level, advice) = match used * 2 > room {
            true => ("note", "raise the hard limit of open files (one for each service)"),
            false => ("ok", ""),
        };
        findings.push(finding(level, "open files", format!("limit {room}"), advice));
        findings.extend(self.look_alikes());
        for pid in self.trees.unknown_orphans() {
            let text = format!("pid {pid} is an orphan that bears no mark");
            let advice = "no service is restarted while it lives: end it if it is not needed";
            findings.push(finding("problem", "orphan", text, advice));
        }
        for pid in self.with_trees(|trees, cx| trees.unrecorded_of(cx, None)) {
            let text = format!("pid {pid} bears this home's mark, but its record is lost");
            let advice = "nothing starts while it lives, for it could be any service's: end it";
            findings.push(finding("problem", "stray", text, advice));
        }
        for pid in forged.unwrap_or_default() {
            let text = format!(
                "process {pid} bears a mark of this home that no service of it has: copied or \
                 forged"
            );
            let advice = "end it if it is not yours: nothing waits for it";
            findings.push(finding("note", "mark", text, advice));
        }
        for name in self.trees.unrecorded_names() {
            let text = format!("something of {name} still runs, but its record is lost");
            let advice = "start it again: what is left drains first";
            findings.push(finding("problem", "stray", text, advice));
        }
        for service in self.services.iter() {
            if let Some(trouble) = self.log_trouble(service) {
                let text = format!("{}: {trouble}", service.name());
                findings.push(finding("problem", "log", text, "see to that, then restart it"));
            }
        }
        if let Some(trouble) = self.ledger.disk_error.clone() {
            findings.push(finding("problem", "disk", trouble, "make room, then change anything"));
        }
        findings
    }
}

/// What keeps a gate closed and is never signalled.
pub(crate) fn unsure_of(pids: &str) -> String {
    format!("pid {pids} may be of it, bears no mark and is not signalled (see 'opm doctor')")
}

fn finding(level: &str, subject: &str, text: String, advice: &str) -> Finding {
    Finding {
        level: level.to_owned(),
        subject: subject.to_owned(),
        text,
        advice: advice.to_owned(),
    }
}

fn tier(name: &str, has: bool, is_root: bool) -> Finding {
    if has {
        return finding("ok", name, "in use".to_owned(), "");
    }
    let (text, advice) = match name {
        "pidfd-inode" => {
            let text = "identity is pid and start time, whose tick is 10 ms; a pid reused within \
                        one tick can't be told apart";
            (text, "")
        }
        "pgroup-signal" => ("groups are signalled one by one", ""),
        "get-info" => ("how an adopted process ended may stay unknown", ""),
        "time-namespace" => {
            let text = "a tree that lost both marks can't be told after a daemon's death";
            (text, if is_root { "" } else { "run opm as root" })
        }
        "shared-memory" => ("a child has a copy of the daemon's memory until its exec", ""),
        "namespace-handle" => ("searches of /proc instead", ""),
        _ => ("fork instead", ""),
    };
    finding("note", name, format!("not there: {text}"), advice)
}

fn uuid(bits: u128) -> String {
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}
