//! Look-alikes: before an operator's start or restore, a process of the same user in the same
//! directory that bears no mark of ours and runs the same command.
//!
//! It decides nothing about what is ours, and never kills: it refuses, or warns.
use super::*;
use crate::process::command::{mark_remover, pattern_of_argv};
use crate::process::mark::LimitMark;
use crate::process::stat::{environ_value, parse_cmdline};
use crate::service::environment::{HOME_VARIABLE, NAME_VARIABLE};
use crate::service::options::{Exec, LookAlike};
use crate::service::shared::Shared;
use crate::service::spec::Spec;
use crate::sys::Processes;
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// A process of a service's user that is no leader of ours.
#[derive(Debug)]
struct Candidate {
    pid: Pid,
    cwd: String,
    /// It bears a mark of a home that was here before this one.
    is_of_lost: bool,
    /// Read when a service in its directory is to start, for it costs several times the calls of
    /// the rest. None: it is one of ours, or gone.
    looks: OnceCell<Option<Looks>>,
}

/// What a process that bears no mark of ours says of itself.
#[derive(Debug)]
struct Looks {
    argv: Vec<String>,
    /// By its mark a service of this home's path, before all that was in it was lost.
    name: Option<String>,
}

/// One look at /proc for all services of a request, taken when it is first needed.
#[derive(Debug)]
pub(super) struct Candidates {
    /// The operator's `--force`: the same command is a warning only.
    force: bool,
    /// By their user.
    lists: BTreeMap<u32, Vec<Candidate>>,
    /// What the kernel has granted a child last.
    pub(super) granted: Option<Shared<Exec>>,
    /// The directory of the last service, and where it really is.
    directory: (String, String),
}

/// What stands in the way of a start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// The same words: refuse.
    Same(Pid),
    /// About the same thing: warn.
    Near(Pid, String),
}

impl Candidates {
    pub(super) fn new(force: bool) -> Self {
        Self { force, lists: BTreeMap::new(), granted: None, directory: Default::default() }
    }
}

impl<K: Kernel> Daemon<K> {
    fn candidates(&mut self, uid: u32) -> Vec<Candidate> {
        // The command that asks, and those that it was called from: a deploy script that is named
        // after what it starts is no second one of it.
        let (askers, mut all) = (self.ancestors(self.waiters.asker), Processes::default());
        let (mut candidates, is_new) = (Vec::new(), self.ledger.is_new);
        while let Ok(Some(pid)) = all.next(&mut self.kernel) {
            if pid == self.ledger.header.daemon.pid
                || self.trees.is_leader(pid)
                || askers.contains(&pid)
                || !self.kernel.uids(pid).is_ok_and(|uids| uids.contains(&uid))
            {
                continue;
            }
            if let Ok(cwd) = self.kernel.cwd(pid) {
                // The daemon of a home that was removed may still live for a moment.
                let limit = if is_new { self.kernel.locks_limit(pid).ok() } else { None };
                let lost = limit.and_then(|limit| LimitMark::lost_home(limit, &self.home));
                let (is_of_lost, looks) = (lost.is_some(), OnceCell::new());
                candidates.push(Candidate { pid, cwd, is_of_lost, looks });
            }
        }
        candidates
    }

    /// None: it bears a mark of ours, or is gone.
    fn looks_of(&mut self, pid: Pid) -> Option<Looks> {
        let cmdline = self.kernel.cmdline(pid).ok().filter(|cmdline| !cmdline.is_empty())?;
        let limit = self.kernel.locks_limit(pid).ok();
        let is_ours =
            |limit| LimitMark::generation_of(limit, self.ledger.header.home_key).is_some();
        if limit.is_some_and(is_ours) {
            return None;
        }
        let mut name = None;
        if limit.is_some_and(LimitMark::is_mark) {
            let environ = self.kernel.environ(pid).unwrap_or_default();
            let is_here = environ_value(&environ, HOME_VARIABLE) == Some(self.home.as_bytes());
            let value = environ_value(&environ, NAME_VARIABLE).filter(|_| is_here);
            name = value.map(|value| String::from_utf8_lossy(value).into_owned());
        }
        Some(Looks { argv: parse_cmdline(&cmdline), name })
    }

    /// The look-alike of a spec, the same argv before the same pattern.
    pub(super) fn likeness(
        &mut self,
        spec: &Spec,
        candidates: &mut Candidates,
    ) -> Option<Likeness> {
        if spec.policy.look_alike == LookAlike::Ignore {
            return None;
        }
        let who = self.kernel.who(&spec.exec).unwrap_or_default();
        let uid = who.orders.uid().unwrap_or(self.kernel.own_uid());
        let list = candidates.lists.entry(uid).or_insert_with(|| self.candidates(uid));
        if list.is_empty() {
            return None;
        }
        let (given, cwd) = &mut candidates.directory;
        if *given != *spec.cwd {
            *cwd = self.kernel.real_path(&spec.cwd).unwrap_or_else(|_| spec.cwd.to_string());
            given.clone_from(&spec.cwd);
        }
        let has_name = |looks: &Looks| looks.name.as_ref() == Some(&spec.name);
        let mut near = Vec::new();
        for candidate in list.iter().filter(|c| c.is_of_lost || c.cwd == *cwd) {
            let looks = candidate.looks.get_or_init(|| self.looks_of(candidate.pid)).as_ref();
            match looks {
                Some(looks) if candidate.is_of_lost && has_name(looks) => {
                    return Some(Likeness::Same(candidate.pid));
                }
                Some(looks) if candidate.cwd == *cwd => near.push((candidate.pid, looks)),
                _ => {}
            }
        }
        let is_same = |looks: &Looks| looks.argv == spec.command || has_name(looks);
        if let Some((pid, _)) = near.iter().find(|(_, looks)| is_same(looks)) {
            return Some(Likeness::Same(*pid));
        }
        if near.is_empty() {
            return None;
        }
        let pattern = pattern_of_argv(&spec.command);
        // What the other is about, not what it mentions: the command that asks us mentions it too.
        let alike = near.iter().find(|(_, looks)| pattern_of_argv(&looks.argv) == pattern)?;
        Some(Likeness::Near(alike.0, pattern))
    }

    /// Look-alikes of a service that is about to start. Err: it must not.
    pub(super) fn check(
        &mut self,
        id: Id,
        candidates: &mut Candidates,
    ) -> Result<Vec<String>, Outcome> {
        let Some(service) = self.services.get(id) else { return Ok(Vec::new()) };
        let (spec, generation) = (service.definition.spec.clone(), service.record.generation);
        self.check_spec(&spec, candidates).inspect_err(|outcome| {
            let reason = outcome.text.clone();
            self.emit(id, Generation(generation), "refused", |event| event.reason = Some(reason));
        })
    }

    /// As [`Daemon::check`], of a service that is not yet defined.
    pub(super) fn check_spec(
        &mut self,
        spec: &Spec,
        candidates: &mut Candidates,
    ) -> Result<Vec<String>, Outcome> {
        let name = &spec.name;
        // For all that its marks say, such a process could be this service's.
        if let [pid, ..] = self.with_trees(|trees, cx| trees.unrecorded_of(cx, None))[..] {
            let text = format!(
                "{name}: process {pid} bears this home's mark, but its record is lost: it could \
                 be this service's (end it first)"
            );
            return Err(failed(code::REFUSED, text));
        }
        let mut warnings: Vec<String> = self.warning_of_marks(spec).into_iter().collect();
        match self.likeness(spec, candidates) {
            None => {}
            Some(Likeness::Same(pid)) => {
                let same =
                    format!("{name}: process {pid} runs the same command in the same directory");
                if !candidates.force && spec.policy.look_alike == LookAlike::Refuse {
                    let text = format!("{same} and is not ours (stop it, or start with --force)");
                    return Err(failed(code::REFUSED, text));
                }
                warnings.push(same);
            }
            Some(Likeness::Near(pid, pattern)) => warnings
                .push(format!("{name}: process {pid} runs {pattern} in the same directory too")),
        }
        Ok(warnings)
    }

    /// That both marks of a service will be lost without another witness. PID 1 takes all with it.
    fn warning_of_marks(&self, spec: &Spec) -> Option<String> {
        if self.trees.marks.own_namespace != 0 || self.ledger.header.daemon.pid == 1 {
            return None;
        }
        let program = mark_remover(&spec.command)?;
        let advice = match self.kernel.own_uid() {
            0 => "use --user USER",
            _ => "run opm as root, and there use --user USER",
        };
        Some(format!(
            "{}: {program} takes opm's marks off what it starts: after the daemon's death that \
             can't be told from a stranger ({advice})",
            spec.name
        ))
    }
}
