//! What `opm run` says of its services on stderr: each exit, restart and kill, and what comes of
//! it, in one line as long as that is known at once. Pure: events in, lines out.
use crate::wire::Event;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Messages {
    /// How a service ended, not said yet: what comes of it is not known.
    exits: BTreeMap<String, String>,
    /// Services that have ended at least once: the next that comes up is a restart.
    ended: BTreeSet<String>,
    lines: Vec<String>,
    /// The incarnation of each service of whose kill it was said last.
    killed: BTreeMap<String, u64>,
}

impl Messages {
    /// Takes up what happened. `ours`: of its end for good it is said elsewhere.
    pub(super) fn hear(&mut self, event: Event, ours: bool) {
        let name = event.service;
        match event.event.as_str() {
            "exited" => {
                let how = match (event.signal, event.code) {
                    (Some(signal), _) => format!("exited with signal {signal}"),
                    (None, Some(code)) => format!("exited with code {code}"),
                    (None, None) => "exited, status unknown".to_owned(),
                };
                self.ended.insert(name.clone());
                self.exits.insert(name, how);
            }
            "waiting" => {
                let when = event.reason.unwrap_or_default();
                self.say(&name, &when.replacen("restart in", "restarting in", 1));
            }
            "spawned" if self.ended.contains(&name) => {
                let pid = event.pid.unwrap_or(0);
                self.say(&name, &format!("restarted (pid {pid})"));
            }
            "errored" if !ours => {
                let why = event.reason.map_or(String::new(), |why| format!(": {why}"));
                self.say(&name, &format!("errored{why}"));
            }
            _ => {}
        }
    }

    /// Says `what` of a service, behind how it ended if that was not said yet.
    pub(super) fn say(&mut self, name: &str, what: &str) {
        self.lines.push(match self.exits.remove(name) {
            Some(how) => format!("{name}: {how}, {what}"),
            None => format!("{name}: {what}"),
        });
    }

    /// Says that a service has ended for good, with its exit code: so not how it exited with one.
    pub(super) fn say_end(&mut self, name: &str, what: &str) {
        if self.exits.get(name).is_some_and(|how| how.contains("code")) {
            self.exits.remove(name);
        }
        self.say(name, what);
    }

    /// What is known by now, at the end of a turn. `killing`: see `Daemon::killing`.
    pub(super) fn lines<'a>(
        &mut self,
        killing: impl Iterator<Item = (u64, &'a str)>,
    ) -> Vec<String> {
        for (generation, name) in killing {
            if self.killed.insert(name.to_owned(), generation) != Some(generation) {
                self.lines.push(format!("{name}: did not end in time, killing it"));
            }
        }
        let exits = std::mem::take(&mut self.exits);
        self.lines.extend(exits.into_iter().map(|(name, how)| format!("{name}: {how}")));
        std::mem::take(&mut self.lines)
    }
}

#[cfg(test)]
#[path = "../../tests/inner/run_messages.rs"]
mod tests;
