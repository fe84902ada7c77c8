//! `opm doctor`: what this kernel, this home and this daemon have that an operator should know.
use super::lookalike::Likeness;
use super::*;
use crate::daemon::logs::room;
use crate::service::units::human_bytes;
use crate::sys::limits;
use crate::wire::Finding;

/// Descriptors of a daemon without services and orphans, about.
const OWN_FILES: u64 = 32;

#[derive(Default)]
struct Findings(Vec<Finding>);

impl<K: Kernel> Daemon<K> {
    pub(super) fn doctor(&mut self) -> Vec<Finding> {
        let is_root = self.kernel.own_uid() == 0;
        let features = self.kernel.features().each();
        let mut findings = Findings::default();
        features.iter().for_each(|(name, has)| findings.feature(name, *has, is_root));
        let forged = self.with_trees(|trees, cx| trees.forged(cx));
        // With hidepid=2 those of others are not even listed: PID 1 is always there.
        if self.kernel.stat(1).is_ok() && forged.is_some() {
            findings.add("ok", "/proc", "shows every process".to_owned(), "");
        } else {
            let advice = "mount /proc without hidepid: until then nothing that was adopted can be \
                          confirmed to be gone, and it is not restarted";
            findings.add("problem", "/proc", "hides processes".to_owned(), advice);
        }
        if self.trees.marks.mark.is_none() {
            let advice = "services of this daemon bear one mark only";
            findings.add("note", "marks", "nested too deep".to_owned(), advice);
        }
        match self.kernel.limits_offered() {
            Ok(text) => findings.add("ok", "cgroup", text, ""),
            Err(reason) => {
                let text = format!("no --memory-max, --cpu-max or --pids-max: {reason}");
                let advice = "run the daemon from the unit of 'opm daemon setup'";
                findings.add("note", "cgroup", text, advice);
            }
        }
        let most = limits::open_files();
        let used = (self.services.len() + self.trees.count_orphans()) as u64 + OWN_FILES;
        let (level, advice) = match used * 2 > most {
            true => ("note", "raise the hard limit of open files (one for each service)"),
            false => ("ok", ""),
        };
        findings.add(level, "open files", format!("limit {most}"), advice);
        let mut candidates = Candidates::new(false);
        for id in self.services.ids() {
            let Some(service) = self.services.get(id) else { continue };
            let spec = service.definition.spec.clone();
            if let Some(Likeness::Same(pid)) = self.likeness(&spec, &mut candidates) {
                let name = &spec.name;
                let text = format!(
                    "pid {pid} runs the command of {name} in the same directory and is not \
                     ours"
                );
                let advice = "stop it, or start the service with --force";
                findings.add("note", "look-alike", text, advice);
            }
        }
        self.strange_processes(forged.unwrap_or_default(), &mut findings);
        for service in self.services.iter() {
            if let Some(trouble) = self.log_trouble(service) {
                let text = format!("{}: {trouble}", service.name());
                let advice = match self.logs.full_disk(service.id) {
                    Some(full) if full == trouble => "make room (opm logs --stats, opm flush)",
                    _ => "see to that, then restart it",
                };
                findings.add("problem", "log", text, advice);
            }
        }
        self.abandoned_logs(&mut findings);
        if let Err(trouble) = room::said(&self.home) {
            findings.add("problem", "log", trouble, "correct it: the usual bound counts meanwhile");
        }
        if let Some(error) = self.ledger.disk_error.clone() {
            findings.add("problem", "disk", error, "make room, then change anything");
        }
        findings.0
    }

    /// What services that were removed have left in the home.
    fn abandoned_logs(&self, findings: &mut Findings) {
        let specs = self.services.iter().map(|service| &service.definition.spec);
        let known = specs
            .flat_map(log_paths)
            .filter_map(|path| path.rsplit_once('/').map(|(_, name)| name.to_owned()));
        if let (files @ 1.., bytes) = room::of_nobody(&self.home, &known.collect()) {
            let text = format!(
                "{files} files ({}) in {}/logs are of services that are gone",
                human_bytes(bytes),
                self.home
            );
            findings.add("note", "log", text, "remove those that nobody needs");
        }
    }

    /// Processes that keep services from starting, or bear marks that they can't have from us.
    fn strange_processes(&mut self, forged: Vec<Pid>, findings: &mut Findings) {
        for pid in self.trees.unknown_orphans() {
            let text = format!("pid {pid} is an orphan that bears no mark");
            let advice = "no service is restarted while it lives: end it if it is not needed";
            findings.add("problem", "orphan", text, advice);
        }
        for pid in self.with_trees(|trees, cx| trees.unrecorded_of(cx, None)) {
            let text = format!("pid {pid} bears this home's mark, but its record is lost");
            let advice = "nothing starts while it lives, for it could be any service's: end it";
            findings.add("problem", "stray", text, advice);
        }
        for pid in forged {
            let text = format!(
                "process {pid} bears a mark of this home that no service of it has: copied or \
                 forged"
            );
            findings.add("note", "mark", text, "end it if it is not yours: nothing waits for it");
        }
        for name in self.trees.unrecorded_names() {
            let text = format!("something of {name} still runs, but its record is lost");
            findings.add("problem", "stray", text, "start it again: what is left drains first");
        }
    }
}

impl Findings {
    fn add(&mut self, level: &str, subject: &str, text: String, advice: &str) {
        let [level, subject, advice] = [level, subject, advice].map(str::to_owned);
        self.0.push(Finding { level, subject, text, advice });
    }

    /// A feature of the kernel, used or not.
    fn feature(&mut self, name: &str, has: bool, is_root: bool) {
        if has {
            return self.add("ok", name, "in use".to_owned(), "");
        }
        let (text, advice) = match name {
            "pidfd-inode" => {
                let text = "identity is pid and start time, whose tick is 10 ms; a pid reused \
                            within one tick can't be told apart";
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
        self.add("note", name, format!("not there: {text}"), advice);
    }
}
