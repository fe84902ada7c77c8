//! Marked processes that no record names: the journal was deleted, or half of the home is lost.
//!
//! A leader that says itself who it is becomes its service again. What has only a name left
//! drains before a service of that name starts. Where not even a name is left, nothing starts.
use super::Daemon;
use super::gate::readable;
use super::load::TICK_MS;
use super::scan::Sighting;
use super::sorted::{Map, Set};
use super::unit::{Run, Unit};
use crate::mutant::mutant;
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::record::Signature;
use crate::process::stat::{environ_value, parse_cmdline};
use crate::process::{Exit, Identity, Pid};
use crate::service::machine::{Ending, Generation, Goal, Input, Machine, Past};
use crate::service::spec::{Definition, Id, Policy, Spec};
use crate::sys::{Errno, Kernel};
use std::rc::Rc;

/// A live incarnation of a service that nobody knows any more: it has to drain before a
/// service of its name starts.
#[derive(Debug)]
pub struct Stray<K: Kernel> {
    pub(crate) name: Option<String>,
    pub(crate) run: Run<K>,
    held: Vec<(Pid, Option<K::Pidfd>)>,
}

/// A marked process that no record names: what its environment says, as far as it can be read.
type Lost = (Pid, Option<EnvMark>, Option<String>);

impl<K: Kernel> Daemon<K> {
    /// Marked processes of incarnations that no record names. False: /proc could not be read
    /// whole, and some may have been missed.
    ///
    /// # Errors
    /// One that was found could not be looked at for want of descriptors or memory.
    pub(crate) fn find_strays(&mut self) -> Result<bool, Errno> {
        let (found, whole) = self.search();
        if !whole {
            self.log.push("cannot read /proc whole: marked processes may be missed".to_owned());
        }
        let mut recorded: Map<u64, Vec<u64>> = Map::new();
        for run in self.all_units().filter_map(|unit| unit.run.as_ref()) {
            let generation = run.generation.0;
            let part = LimitMark::part_of(generation);
            recorded.or_default(part).push(generation);
        }
        let known = |sighting: &Sighting| {
            let alike = recorded.get(&sighting.part()?)?;
            alike.iter().copied().find(|known| sighting.names(*known))
        };
        let mut lost: Map<u64, Vec<Lost>> = Map::new();
        let mut living: Set<u64> = Set::new();
        for sighting in found {
            if let Some(generation) = known(&sighting) {
                living.insert(generation);
                continue;
            }
            let environ = readable(self.kernel.environ(sighting.pid))?.unwrap_or_default();
            let mark = environ_value(&environ, MARK_VARIABLE).and_then(EnvMark::parse);
            let mark = mark.filter(|mark| mark.home_key == self.header.home_key);
            // With another home's mark the name is that of the service inside ours.
            let name = environ_value(&environ, "OPM_NAME").filter(|_| mark.is_some());
            let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
            let generation =
                mark.or(sighting.mark).map(|mark| mark.generation).or(sighting.part).unwrap_or(0);
            lost.or_default(generation).push((sighting.pid, mark, name));
        }
        for (generation, members) in lost {
            self.sequence.0 = self.sequence.0.max(generation);
            self.take_in_lost(Generation(generation), &members, &living)?;
            living.insert(generation);
        }
        Ok(whole)
    }

    /// `living`: generations of which a process was seen.
    fn take_in_lost(
        &mut self,
        generation: Generation,
        members: &[Lost],
        living: &Set<u64>,
    ) -> Result<(), Errno> {
        let mark = members.iter().find_map(|(_, mark, _)| *mark);
        let name = members.iter().find_map(|(_, _, name)| name.clone());
        let leader = mark.map(|mark| mark.pid).filter(|pid| members.iter().any(|m| m.0 == *pid));
        let run = self.run_of_lost(generation, leader)?;
        let leads = run.pidfd.is_some();
        let known = name.as_ref().and_then(|name| self.id_of(name));
        // A later one would not be there if all of the recorded one were not confirmed gone: the
        // record is an old copy.
        let is_past =
            |run: &Run<K>| run.generation < generation && !living.contains(&run.generation.0);
        let is_free = |unit: &Unit<K>| unit.run.as_ref().is_none_or(is_past);
        let id = match (known, leader, &name, mark) {
            (Some(id), ..) if self.unit(id).is_some_and(is_free) => Some(id),
            (None, Some(leader), Some(name), Some(mark)) if leads => {
                self.recover_definition(leader, name, mark.id)
            }
            _ => None,
        };
        let Some(id) = id else {
            self.note_stray(name, run, members);
            return Ok(());
        };
        let (now, since) = (self.now, run.since);
        let Some(unit) = self.unit_mut(id) else {
            return Ok(());
        };
        let goal = if leads { Goal::Up } else { unit.machine.goal() };
        let (deaths, restarts) = (unit.machine.deaths(), unit.machine.restarts());
        let policy = unit.definition.spec.policy;
        let past = Past::Alive { generation, since };
        unit.machine = Machine::resume(policy, goal, deaths, restarts, past, now);
        unit.run = Some(run);
        unit.generation = unit.generation.max(generation.0);
        unit.emptied = unit.emptied.min(generation.0.saturating_sub(1));
        unit.announced = unit.status();
        self.dirty.insert(id);
        self.sign_for(id);
        self.after_step(id);
        Ok(())
    }

    /// Puts an incarnation on record again that signed in a journal that is lost: the next daemon
    /// may be unable to search for marks.
    fn sign_for(&mut self, id: Id) {
        let Some(run) = self.unit(id).and_then(|unit| unit.run.as_ref()) else {
            return;
        };
        let signature = Signature {
            generation: run.generation.0,
            leader: run.leader,
            parent: Identity::default(),
        };
        let signed = self.journal.sign(&mut self.kernel, id, &signature);
        if let Err(errno) = signed.and_then(|()| match self.write_slot(id) {
            true => Ok(()),
            false => Err(Errno::IO),
        }) {
            self.trouble = Some(format!("cannot write {}/journal: {errno}", self.home));
        }
    }

    /// Nothing can take these in now: a service of their name does when it is defined, and where
    /// not even a name is left, nothing starts while they live.
    fn note_stray(&mut self, name: Option<String>, run: Run<K>, members: &[Lost]) {
        let pids: Vec<Pid> = members.iter().map(|member| member.0).collect();
        let whose = name.clone().unwrap_or_else(|| "an unknown service".to_owned());
        self.log.push(format!("pid {pids:?} of {whose} has no record"));
        let mut held = Vec::new();
        for pid in pids {
            // One that can't be opened is gone, or (EMFILE) held by its number: then it blocks
            // for too long rather than too short.
            let pidfd = self.kernel.pidfd_open(pid);
            if pidfd.as_ref().is_err_and(|errno| *errno == Errno::SRCH) {
                continue;
            }
            held.push((pid, pidfd.ok()));
        }
        self.strays.push(Stray { name, run, held });
    }

    /// Live processes of lost incarnations of which not even the service's name is known: any
    /// service could be theirs.
    pub(crate) fn nameless(&mut self) -> Vec<Pid> {
        self.living_strays(|name| name.is_none())
    }

    /// The same, and those of this name.
    pub(crate) fn strays_of(&mut self, name: &str) -> Vec<Pid> {
        self.living_strays(|of| of.is_none_or(|of| of == name))
    }

    /// Those that are gone are forgotten.
    fn living_strays(&mut self, is_asked: impl Fn(Option<&str>) -> bool) -> Vec<Pid> {
        let is_asked = |stray: &Stray<K>| is_asked(stray.name.as_deref());
        if mutant("forget_nameless") || !self.strays.iter().any(is_asked) {
            return Vec::new();
        }
        for stray in self.strays.iter_mut().filter(|stray| is_asked(stray)) {
            stray.held.retain(|(_, pidfd)| match pidfd {
                Some(pidfd) => !self.kernel.is_dead(pidfd).unwrap_or(false),
                None => false,
            });
        }
        // What they forked since bears their mark, and so does what could not be held.
        let Some(found) = self.two_passes() else {
            return self.strays.iter().map(|stray| stray.run.leader.pid).collect();
        };
        let mut alive = Vec::new();
        self.strays.retain(|stray| {
            if !is_asked(stray) {
                return true;
            }
            let generation = stray.run.generation.0;
            let before = alive.len();
            alive.extend(stray.held.iter().map(|(pid, _)| *pid));
            let named = found.iter().filter(|sighting| sighting.names(generation));
            alive.extend(named.map(|sighting| sighting.pid));
            alive.len() > before
        });
        alive
    }

    /// The stray that must drain before this service starts.
    pub(crate) fn take_stray(&mut self, unit: &Unit<K>) -> Option<Stray<K>> {
        let mine = |stray: &Stray<K>| stray.name.as_deref() == Some(unit.name());
        let at = self.strays.iter().position(mine)?;
        Some(self.strays.swap_remove(at))
    }

    /// A stray that a new service of its name takes in: it drains first.
    pub(crate) fn stray_leader_is_dead(&mut self, id: Id, generation: Generation) {
        if let Some(run) = self.unit_mut(id).and_then(|unit| unit.run.as_mut()) {
            run.exit = Some(Exit::Unknown);
        }
        self.gates.insert(id);
        self.feed(id, Input::LeaderExited(generation, Ending::Failure));
    }

    fn run_of_lost(
        &mut self,
        generation: Generation,
        leader: Option<Pid>,
    ) -> Result<Run<K>, Errno> {
        let mut pidfd = None;
        if let Some(pid) = leader {
            pidfd = readable(self.kernel.pidfd_open(pid))?;
            // The mark was read before the pidfd was open: it must be there still.
            if !self.bears(pid, generation.0)? {
                pidfd = None;
            }
        }
        let inode = pidfd.as_ref().and_then(|pidfd| self.kernel.inode(pidfd)).unwrap_or(0);
        let pid = leader.unwrap_or(0);
        let start_time =
            leader.and_then(|pid| self.kernel.stat(pid).ok()).map_or(0, |stat| stat.start_time);
        let child = pidfd.as_ref().is_some_and(|pidfd| self.kernel.wait(pidfd, false).is_ok());
        Ok(Run {
            generation,
            leader: Identity { pid, start_time, inode },
            pidfd,
            launch: None,
            exit: None,
            child,
            lineage: false,
            adopted: true,
            since: if start_time > 0 { start_time * TICK_MS } else { self.now },
            kills: 0,
            asked: false,
            failure: None,
            members: Map::new(),
        })
    }

    /// A definition from what the leader itself says: good enough to list, stop and restart it.
    fn recover_definition(&mut self, leader: Pid, name: &str, id: Id) -> Option<Id> {
        let command = parse_cmdline(&self.kernel.cmdline(leader).ok()?);
        let cwd = self.kernel.cwd(leader).ok()?;
        let environ = self.kernel.environ(leader).ok()?;
        let pairs = environ.split(|b| *b == 0).filter_map(|entry| {
            let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            (!key.is_empty() && !key.starts_with("OPM_"))
                .then(|| (key.to_owned(), value.to_owned()))
        });
        let base = Rc::new(pairs.collect::<Vec<_>>().into());
        let policy = Policy::default();
        let spec = Spec {
            name: name.to_owned(),
            command,
            cwd,
            env: vec![],
            dotenv: vec![],
            critical: false,
            policy,
        };
        spec.check().ok()?;
        let ids = self.define_all(vec![(Some(id), Definition { spec, base })]);
        let id = ids.ok()?.first().copied()?;
        self.log.push(format!("{name}: its record was lost; recovered from pid {leader}"));
        if let Some(unit) = self.unit_mut(id) {
            unit.note = Some("its record was lost; recovered from the running process".into());
        }
        Some(id)
    }
}
