//! Marked processes that no record names: the journal was deleted, or half of the home is lost.
//!
//! A leader that says itself who it is becomes its service again. What has only a name left
//! drains before a service of that name starts. Where not even a name is left, nothing starts.
use super::Tree;
use super::drain::readable;
use super::owner::{Occupant, env_marks};
use super::sweep::{Pass, Sighting};
use crate::daemon::Daemon;
use crate::daemon::service::Service;
use crate::daemon::vecmap::{VecMap, VecSet};
use crate::mutant::mutant;
use crate::process::journal_format::Signature;
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::stat::{TICK_MS, environ_value, parse_cmdline};
use crate::process::{Exit, Identity, Namespace, Pid};
use crate::service::machine::{Ending, Generation, Goal, Input, Machine, Past};
use crate::service::spec::{Definition, Id, Spec};
use crate::sys::{Errno, Kernel};
use std::rc::Rc;

/// A live incarnation of a service that nobody knows any more: it has to drain before a
/// service of its name starts.
#[derive(Debug)]
pub struct Stray<K: Kernel> {
    pub(crate) name: Option<String>,
    pub(crate) run: Tree<K>,
    held: Vec<(Pid, Option<K::Pidfd>)>,
    /// The time namespaces that it was seen in.
    namespaces: VecSet<u64>,
}

/// A marked process that no record names: what its environment says, as far as it can be read.
struct Lost {
    pid: Pid,
    mark: Option<EnvMark>,
    name: Option<String>,
    namespace: u64,
}

/// In place of the generation of what may be of any.
const UNMARKED: u64 = 0;

/// How far ahead of an old copy of the home its services may be.
const AHEAD_MAX: u64 = 256;

/// What of the home's record is missing.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    /// The journal is lost, or an old copy of it, or it has services whose definitions are:
    /// generations may live that nothing on record is known of.
    pub(crate) record: bool,
    /// The home's key is lost, too, and was taken from what bears it.
    pub(crate) key: bool,
}

impl Loss {
    /// Whether a mark that no record names is believed. The full key is known to those alone who
    /// may read our services' environments; the limit to everybody, so that it counts only where
    /// the record is known to be incomplete, or where its process is in a time namespace as only
    /// ours are: the whole of a home may be an old copy, which nothing in it tells. What lies far
    /// above all that were `given` is forged; a little above, an old copy was put back.
    fn believes(&self, seen: &Sighting, environ: &[u8], home_key: u64, given: u64) -> bool {
        let agrees = |mark: EnvMark| {
            let named = seen.part.is_none_or(|part| LimitMark::names(part, mark.generation));
            mark.home_key == home_key && named && mark.generation <= given + AHEAD_MAX
        };
        let is_told = seen.namespace != 0 || env_marks(environ).any(agrees);
        self.record || mutant("believe_numbers") || is_told
    }
}

/// The generations on record, by what a process shows of its own.
#[derive(Debug, Default)]
struct Recorded {
    owners: VecMap<u64, Occupant>,
    by_part: VecMap<u64, Vec<u64>>,
}

impl Recorded {
    fn generation_of(&self, seen: &Sighting) -> Option<u64> {
        let owner = self.owners.get(&seen.namespace).map(|owner| owner.generation);
        let Some(part) = seen.part() else { return owner };
        let alike = self.by_part.get(&part).into_iter().flatten();
        let named = alike.copied().find(|known| seen.names(*known));
        // A namespace's number is given again: where the marks name what is not on record, the
        // namespace is not that of its recorded owner any more.
        named.and(owner).or(named)
    }
}

impl<K: Kernel> Daemon<K> {
    /// Marked processes of incarnations that no record names. False: /proc could not be read
    /// whole, and some may have been missed.
    ///
    /// # Errors
    /// One that was found could not be looked at for want of descriptors or memory.
    pub(crate) fn find_strays(&mut self, loss: &Loss) -> Result<bool, Errno> {
        let (found, whole, forged) = self.search();
        self.trees.forged = forged;
        if !whole {
            self.log.push("cannot read /proc whole: marked processes may be missed".to_owned());
        }
        let mut living: VecSet<u64> = VecSet::new();
        let mut lost: VecMap<u64, Vec<Lost>> = VecMap::new();
        let recorded = self.recorded();
        for sighting in found.into_iter().filter(|sighting| !sighting.is_others) {
            if let Some(generation) = recorded.generation_of(&sighting) {
                living.insert(generation);
                continue;
            }
            if sighting.part().is_none() {
                // It bears no mark, but its memory does not answer, or it is in a time namespace
                // that is not ours: the journal that is lost could have named it.
                if loss.record && readable(self.can_be_ours(sighting.pid))? == Some(true) {
                    let (pid, namespace) = (sighting.pid, sighting.namespace);
                    lost.entry_or_default(UNMARKED).push(Lost {
                        pid,
                        mark: None,
                        name: None,
                        namespace,
                    });
                }
                continue;
            }
            let environ = match self.kernel.environ(sighting.pid) {
                Err(Errno::TIMEDOUT) => Vec::new(),
                other => readable(other)?.unwrap_or_default(),
            };
            let given = self.ledger.sequence.0;
            if !loss.believes(&sighting, &environ, self.header.home_key, given) {
                self.trees.forged.insert(sighting.pid);
                continue;
            }
            let mark = environ_value(&environ, MARK_VARIABLE).and_then(EnvMark::parse);
            let mark = mark.filter(|mark| mark.home_key == self.header.home_key);
            // With another home's mark the name is that of the service inside ours.
            let name = environ_value(&environ, "OPM_NAME").filter(|_| mark.is_some());
            let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
            let generation =
                mark.or(sighting.mark).map(|mark| mark.generation).or(sighting.part).unwrap_or(0);
            let (pid, namespace) = (sighting.pid, sighting.namespace);
            lost.entry_or_default(generation).push(Lost { pid, mark, name, namespace });
        }
        self.warn_of_forged();
        for (generation, members) in lost {
            self.take_in_lost(Generation(generation), &members, &living, loss)?;
            living.insert(generation);
        }
        Ok(whole)
    }

    fn recorded(&mut self) -> Recorded {
        let mut recorded = Recorded { owners: self.namespace_owners(), ..Recorded::default() };
        for run in self.services.iter().filter_map(|service| service.run.as_ref()) {
            let generation = run.generation.0;
            recorded.by_part.entry_or_default(LimitMark::part_of(generation)).push(generation);
        }
        recorded
    }

    /// Whoever bears a mark that can't come from us is named, and nothing else.
    fn warn_of_forged(&mut self) {
        let mut pids: Vec<Pid> = self.trees.forged.iter().copied().collect();
        self.retain_living(&mut pids);
        if !pids.is_empty() {
            let text = "bears a mark of this home that no service of it has: copied or forged";
            self.log.push(format!("pid {pids:?}: {text}"));
        }
    }

    /// What bears a mark that can't come from us, and lives: what this pass has ruled out, and what
    /// was not believed when we began.
    pub(crate) fn forged_of(&mut self, pass: &Pass) -> Vec<Pid> {
        let disbelieved = pass.found.iter().filter(|seen| seen.is_marked()).map(|seen| seen.pid);
        let disbelieved = disbelieved.filter(|pid| self.trees.forged.contains(pid));
        let mut pids: Vec<Pid> = pass.forged.iter().copied().chain(disbelieved).collect();
        self.retain_living(&mut pids);
        pids
    }

    fn retain_living(&mut self, pids: &mut Vec<Pid>) {
        pids.retain(|pid| self.kernel.stat(*pid).is_ok_and(|stat| !stat.is_zombie()));
    }

    /// `living`: generations of which a process was seen.
    fn take_in_lost(
        &mut self,
        generation: Generation,
        members: &[Lost],
        living: &VecSet<u64>,
        loss: &Loss,
    ) -> Result<(), Errno> {
        let mark = members.iter().find_map(|lost| lost.mark);
        if loss.record && mark.is_some() {
            // Of a lost record this is all that is left. What follows must be told from it.
            self.ledger.sequence.0 = self.ledger.sequence.0.max(generation.0);
        }
        let name = members.iter().find_map(|lost| lost.name.clone());
        let leader =
            mark.map(|mark| mark.pid).filter(|pid| members.iter().any(|lost| lost.pid == *pid));
        let namespace = members.iter().map(|lost| lost.namespace).find(|inode| *inode != 0);
        let run = self.run_of_lost(generation, leader, namespace.unwrap_or(0))?;
        let leads = run.pidfd.is_some();
        let known = name.as_ref().and_then(|name| self.services.id_of(name));
        // A later one would not be there if all of the recorded one were not confirmed gone: the
        // record is an old copy.
        let is_past =
            |run: &Tree<K>| run.generation < generation && !living.contains(&run.generation.0);
        let is_free = |service: &Service<K>| service.run.as_ref().is_none_or(is_past);
        let id = match (known, leader, &name, mark) {
            (Some(id), ..) if self.services.get(id).is_some_and(is_free) => Some(id),
            (None, Some(leader), Some(name), Some(mark))
                if leads && self.may_define(leader, loss) =>
            {
                self.recover_definition(leader, name, mark.id)
            }
            _ => None,
        };
        let Some(id) = id else {
            self.note_stray(name, run, members);
            return Ok(());
        };
        let (now, since) = (self.now, run.since);
        let Some(service) = self.services.get_mut(id) else {
            return Ok(());
        };
        let goal = if leads { Goal::Up } else { service.machine.goal() };
        let (deaths, restarts) = (service.machine.deaths(), service.machine.restarts());
        let policy = service.definition.spec.policy;
        let past = Past::Alive { generation, since };
        service.machine = Machine::resume(policy, goal, deaths, restarts, past, now);
        service.run = Some(run);
        service.generation = service.generation.max(generation.0);
        service.emptied = service.emptied.min(generation.0.saturating_sub(1));
        service.announced = service.status();
        self.ledger.dirty.insert(id);
        self.sign_for(id);
        self.after_step(id);
        Ok(())
    }

    /// Whether a process may say which program its service is. Where the key is its own word, too,
    /// it must be one of our user's: else anybody could have us run what they like.
    fn may_define(&mut self, leader: Pid, loss: &Loss) -> bool {
        let own = self.kernel.own_uid();
        !loss.key || self.kernel.uids(leader).is_ok_and(|uids| uids == [own; 3])
    }

    /// Puts an incarnation on record again that signed in a journal that is lost: the next daemon
    /// may be unable to search for marks.
    fn sign_for(&mut self, id: Id) {
        let Some(run) = self.run(id) else {
            return;
        };
        let signature = Signature {
            generation: run.generation.0,
            leader: run.leader,
            parent: Identity::default(),
            namespace: run.namespace.unwrap_or_default(),
        };
        let signed = self.ledger.journal.sign(&mut self.kernel, id, &signature);
        if let Err(errno) = signed.and_then(|()| match self.write_slot(id) {
            true => Ok(()),
            false => Err(Errno::IO),
        }) {
            self.ledger.disk_error = Some(format!("cannot write {}/journal: {errno}", self.home));
        }
    }

    /// Nothing can take these in now: a service of their name does when it is defined, and where
    /// not even a name is left, nothing starts while they live.
    fn note_stray(&mut self, name: Option<String>, run: Tree<K>, members: &[Lost]) {
        let pids: Vec<Pid> = members.iter().map(|lost| lost.pid).collect();
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
        let mut namespaces = VecSet::new();
        for lost in members.iter().filter(|lost| lost.namespace != 0) {
            namespaces.insert(lost.namespace);
        }
        self.trees.strays.push(Stray { name, run, held, namespaces });
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
        if mutant("forget_nameless") || !self.trees.strays.iter().any(is_asked) {
            return Vec::new();
        }
        for stray in self.trees.strays.iter_mut().filter(|stray| is_asked(stray)) {
            stray.held.retain(|(_, pidfd)| match pidfd {
                Some(pidfd) => !self.kernel.is_dead(pidfd).unwrap_or(false),
                None => false,
            });
        }
        // What they forked since bears their mark, and so does what could not be held.
        let Some(found) = self.two_passes() else {
            return self.trees.strays.iter().map(|stray| stray.run.leader.pid).collect();
        };
        let recorded = self.recorded();
        let mut alive = Vec::new();
        self.trees.strays.retain(|stray| {
            if !is_asked(stray) {
                return true;
            }
            let generation = stray.run.generation.0;
            let before = alive.len();
            // One that did not answer is no stray once it has, and bears no mark of ours; what it
            // forked until then, which bears one, is.
            let is_open = |seen: &Sighting| {
                !seen.is_others && seen.may_be_ours() && recorded.generation_of(seen).is_none()
            };
            let held = stray.held.iter().map(|(pid, _)| *pid);
            alive.extend(held.filter(|_| generation != UNMARKED));
            let is_its = |seen: &&Sighting| match generation {
                UNMARKED => is_open(seen),
                _ => {
                    let is_in = stray.namespaces.contains(&seen.namespace);
                    seen.names(generation) || is_in || seen.mute
                }
            };
            alive.extend(found.iter().filter(is_its).map(|seen| seen.pid));
            alive.len() > before
        });
        alive
    }

    /// The stray that must drain before this service starts.
    pub(crate) fn take_stray(&mut self, service: &Service<K>) -> Option<Stray<K>> {
        let mine = |stray: &Stray<K>| stray.name.as_deref() == Some(service.name());
        let at = self.trees.strays.iter().position(mine)?;
        Some(self.trees.strays.swap_remove(at))
    }

    /// A stray that a new service of its name takes in: it drains first.
    pub(crate) fn stray_leader_is_dead(&mut self, id: Id, generation: Generation) {
        if let Some(run) = self.services.get_mut(id).and_then(|service| service.run.as_mut()) {
            run.exit = Some(Exit::Unknown);
        }
        self.trees.gates.insert(id);
        self.feed(id, Input::LeaderExited(generation, Ending::Failure));
    }

    fn run_of_lost(
        &mut self,
        generation: Generation,
        leader: Option<Pid>,
        namespace: u64,
    ) -> Result<Tree<K>, Errno> {
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
        Ok(Tree {
            generation,
            leader: Identity { pid, start_time, inode },
            pidfd,
            launch: None,
            exit: None,
            child,
            lineage: false,
            adopted: true,
            since: if start_time > 0 { start_time * TICK_MS } else { self.now },
            born: start_time * TICK_MS,
            namespace: Some(Namespace { id: 0, inode: namespace }),
            kills: 0,
            asked: None,
            failure: None,
            members: VecMap::new(),
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
        let spec = Spec::new(name.to_owned(), command, cwd);
        spec.check().ok()?;
        let ids = self.define_all(vec![(Some(id), Definition { spec, base })]);
        let id = ids.ok()?.first().copied()?;
        self.log.push(format!("{name}: its record was lost; recovered from pid {leader}"));
        if let Some(service) = self.services.get_mut(id) {
            service.note = Some("its record was lost; recovered from the running process".into());
        }
        Some(id)
    }
}
