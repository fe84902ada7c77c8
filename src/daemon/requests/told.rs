//! What services say of themselves, by the protocol of sd_notify(3): lines of `NAME=VALUE`. And
//! what is run beside them to ask.
use super::*;
use crate::daemon::monitors::Told;
use crate::process::Exit;
use crate::service::machine::Phase;
use crate::service::probe::Question;
use crate::sys::Wake;

/// So much of a status text is kept.
const STATUS_CHARS_MAX: usize = 200;

fn is_reloading((_, said): &(u64, Box<str>)) -> bool {
    &**said == "reloading"
}

impl<K: Kernel> Daemon<K> {
    /// Runs a line for a shell beside a service, as the service is run, for a question.
    pub(in crate::daemon) fn probe(
        &mut self,
        id: Id,
        generation: Generation,
        question: Question,
        line: &str,
    ) {
        let words = ["/bin/sh", "-c", line].map(str::to_owned);
        match self.spawn(id, generation, Some(&words)) {
            Ok(Some(pid)) => drop(self.launches.probes.insert(pid, (id, generation, question))),
            _ => self.with_monitors(id, |monitors, cx, _| {
                monitors.checks.probed(cx, question, id, Exit::Unknown);
            }),
        }
    }

    pub(in crate::daemon) fn probed(&mut self, pid: Pid, exit: Exit) {
        let Some((id, generation, question)) = self.launches.probes.remove(&pid) else { return };
        if self.services.get(id).is_some_and(|service| service.record.generation == generation.0) {
            self.with_monitors(id, |monitors, cx, _| {
                monitors.checks.probed(cx, question, id, exit)
            });
        }
    }

    pub(in crate::daemon) fn end_probe(&mut self, id: Id, question: Question) {
        let its = |(of, _, asked): &(Id, Generation, Question)| (*of, *asked) == (id, question);
        let found = self.launches.probes.iter().find(|(_, probe)| its(probe));
        let Some(pid) = found.map(|(pid, _)| *pid) else { return };
        self.launches.probes.remove(&pid);
        self.with_trees(|trees, cx| trees.end_beside(cx, pid));
    }

    /// Takes up what a process has said. Only a process of a service's tree is heard.
    pub fn told(&mut self, pid: Pid, text: &str) {
        let Some(id) = self.with_trees(|trees, cx| trees.service_of(cx, pid)) else {
            self.log.push(format!("notify: pid {pid} is no process of a service; not heard"));
            return;
        };
        let Some(service) = self.services.get(id) else { return };
        if matches!(service.machine.phase(), Phase::Starting { .. }) {
            // It could not speak before its exec, of which we may not have heard yet.
            self.gather(&[Wake::Launch(id)], false);
        }
        let Some(service) = self.services.get(id) else { return };
        let (name, generation) = (service.name().to_owned(), service.record.generation);
        let mut said = None;
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let told = match (key, value) {
                ("READY", "1") => Told::Ready,
                ("WATCHDOG", "1") => Told::Alive,
                ("WATCHDOG", "trigger") => Told::Trouble,
                ("EXTEND_TIMEOUT_USEC", _) => Told::Extend(value.parse().unwrap_or(0) / 1_000),
                ("STATUS", _) => {
                    said = Some(value.chars().take(STATUS_CHARS_MAX).collect::<String>());
                    continue;
                }
                ("RELOADING" | "STOPPING", "1") => {
                    said.get_or_insert_with(|| key.to_lowercase());
                    continue;
                }
                ("MAINPID", pid) => {
                    self.name_main(id, pid);
                    continue;
                }
                ("FDSTORE", "1") => {
                    self.log.push(format!("{name}: FDSTORE: opm keeps no descriptors of services"));
                    continue;
                }
                _ => continue,
            };
            if told == Told::Ready && self.monitors.said.get(&id).is_some_and(is_reloading) {
                self.monitors.said.remove(&id);
            }
            self.with_monitors(id, |monitors, cx, _| monitors.checks.tell(cx, id, told));
        }
        if let Some(said) = said {
            self.monitors.said.insert(id, (generation, said.into()));
        }
    }

    fn name_main(&mut self, id: Id, text: &str) {
        let pid: Pid = text.parse().unwrap_or(0);
        if self.trees.pid(id) == Some(pid) {
            return;
        }
        match self.with_trees(|trees, cx| trees.lead_by(cx, id, pid)) {
            Ok(fact) => self.learn(vec![fact]),
            Err(why) => {
                let name = self.services.get(id).map_or("", |service| service.name());
                self.log.push(format!("{name}: MAINPID={pid}: {why}; not heard"));
            }
        }
    }
}
