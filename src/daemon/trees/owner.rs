//! Whose an orphan is that has come to us.
//!
//! It is our unreaped child, so it descends from a leader that we forked: it is some service's,
//! whatever marks it bears, has lost or has forged. Which service, is told by what is hardest to
//! change: session and group of a leader that is not reaped yet, whose numbers nobody else can
//! have; the time namespace; then marks. What is left belongs to the only service that can own it,
//! or to nobody that can be named.
use super::drain::readable;
use super::{Orphan, Owner};
use crate::daemon::Daemon;
use crate::daemon::vecmap::VecMap;
use crate::mutant::mutant;
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::stat::{Stat, TICK_MS, environ_value};
use crate::process::{Namespace, Pid};
use crate::service::machine::Time;
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel};

/// What is known of an orphan.
pub(crate) struct Attribution {
    pub(crate) owner: Owner,
    /// When it was forked; 0 if not known.
    pub(crate) born: Time,
    /// Its memory did not answer.
    pub(crate) mute: bool,
}

/// Whose a time namespace is, by its recorded inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occupant {
    pub(crate) generation: u64,
    pub(crate) namespace: Namespace,
    /// By the kernel's word. Else the inode may have been given again, to somebody else's.
    pub(crate) certain: bool,
}

impl<K: Kernel> Daemon<K> {
    /// Whose a live child is that we did not start.
    ///
    /// # Errors
    /// It could not be looked at for want of descriptors or memory: that is no answer.
    pub(crate) fn owner_of(&mut self, pid: Pid) -> Result<Attribution, Errno> {
        let stat = readable(self.kernel.stat(pid))?;
        let born = stat.map_or(0, |stat| stat.start_time * TICK_MS);
        let told = |owner| Ok(Attribution { owner, born, mute: false });
        let limit = readable(self.kernel.locks_limit(pid))?;
        if self.is_departed(pid, limit) {
            return told(Owner::Foreign);
        }
        if let Some(owner) = stat.and_then(|stat| self.owner_by_numbers(&stat)) {
            return told(owner);
        }
        let mut mute = false;
        let marked = self.owner_by_marks(pid, limit, &mut mute)?;
        let namespace = self.namespace_if_told(pid)?;
        let owner = match namespace {
            Some(inode) if marked.is_none_or(|owner| !self.is_in(owner, inode)) => {
                self.owner_by_namespace(inode).or(marked)
            }
            _ => marked,
        };
        if let Some(owner) = owner {
            return told(owner);
        }
        let is_outer = |stat: Stat| stat.sid == 0 || stat.pgid == 0;
        let is_foreign = stat.is_some_and(is_outer) || self.has_entered(limit, namespace);
        if self.trees.has_strangers && is_foreign {
            return told(Owner::Foreign);
        }
        // Then a child may be a stranger where nothing tells the two apart.
        let may_be_stranger = self.trees.has_strangers && namespace.is_none();
        let owner = if may_be_stranger && self.kernel.may_raise_limits() {
            Owner::Unknown
        } else {
            self.only_candidate(born)
        };
        Ok(Attribution { owner, born, mute })
    }

    /// Asks those again that did not answer.
    pub(crate) fn ask_mute_orphans(&mut self) {
        self.ask_orphans(|orphan| orphan.mute);
    }

    /// Looks anew whose these are.
    pub(crate) fn ask_orphans(&mut self, is_asked: impl Fn(&Orphan<K>) -> bool) {
        let asked = self.trees.orphans.iter().filter(|(_, orphan)| is_asked(orphan));
        for pid in asked.map(|(pid, _)| *pid).collect::<Vec<_>>() {
            let Ok(found) = self.owner_of(pid) else { continue };
            if let Some(orphan) = self.trees.orphans.get_mut(&pid) {
                (orphan.owner, orphan.mute) = (found.owner, found.mute);
            }
            self.meet(found.owner);
        }
    }

    /// By session and group: they are inherited alone, and pinned while our leader is not reaped.
    fn owner_by_numbers(&self, stat: &Stat) -> Option<Owner> {
        let leads = |number: &Pid| self.trees.leaders.get(number).copied();
        let id = [stat.sid, stat.pgid].iter().find_map(leads)?;
        let run = self.run(id)?;
        Some(Owner::Tree(id, run.generation))
    }

    fn owner_by_marks(
        &mut self,
        pid: Pid,
        limit: Option<(u64, u64)>,
        mute: &mut bool,
    ) -> Result<Option<Owner>, Errno> {
        let key = self.header.home_key;
        if let Some(part) = limit.and_then(|limit| LimitMark::generation_of(limit, key)) {
            return Ok(self.owner_of_generation(|generation| LimitMark::names(part, generation)));
        }
        if mutant("foreign_marks") && limit.is_some_and(LimitMark::is_mark) {
            return Ok(Some(Owner::Foreign));
        }
        let environ = match self.kernel.environ(pid) {
            Err(Errno::TIMEDOUT) => {
                *mute = true;
                Vec::new()
            }
            other => readable(other)?.unwrap_or_default(),
        };
        let marks = env_marks(&environ).filter(|mark| mark.home_key == key);
        let generations: Vec<u64> = marks.map(|mark| mark.generation).collect();
        Ok(self.owner_of_generation(|generation| generations.contains(&generation)))
    }

    /// The live incarnation, recorded or not, of a generation.
    fn owner_of_generation(&self, is: impl Fn(u64) -> bool) -> Option<Owner> {
        let found = self.services.iter().find_map(|service| {
            let generation = service.run.as_ref()?.generation;
            is(generation.0).then_some(Owner::Tree(service.id, generation))
        });
        // What has no record is looked for by its marks before its service starts.
        let is_stray = || self.trees.strays.iter().any(|stray| is(stray.run.generation.0));
        found.or_else(|| is_stray().then_some(Owner::Foreign))
    }

    /// The inode of its time namespace, where that tells anything.
    fn namespace_if_told(&mut self, pid: Pid) -> Result<Option<u64>, Errno> {
        if self.trees.own_namespace == 0 {
            return Ok(None);
        }
        readable(self.kernel.time_namespace(pid))
    }

    fn is_in(&mut self, owner: Owner, inode: u64) -> bool {
        match owner {
            Owner::Tree(id, _) => self.namespace_of(id).inode == inode,
            Owner::Foreign | Owner::Unknown => false,
        }
    }

    fn owner_by_namespace(&mut self, inode: u64) -> Option<Owner> {
        let owner = self.namespace_owners().get(&inode)?.generation;
        self.owner_of_generation(|generation| generation == owner)
    }

    /// The generation that is in each time namespace. An inode whose namespace has ended is given
    /// again, so that the newest of its owners is the one.
    pub(crate) fn namespace_owners(&mut self) -> VecMap<u64, Occupant> {
        let mut owners = VecMap::new();
        if self.trees.own_namespace == 0 {
            return owners;
        }
        let runs =
            self.services.iter().filter_map(|service| Some((service.id, service.run.as_ref()?)));
        let runs = runs.map(|(id, run)| (id, run.generation.0));
        for (id, generation) in runs.collect::<Vec<(Id, u64)>>() {
            let namespace = self.namespace_of(id);
            let is_alive = self.kernel.is_namespace_alive(namespace);
            if is_alive == Some(false) {
                continue;
            }
            let inode = namespace.inode;
            let certain = is_alive.is_some();
            let is_older = |other: &Occupant| other.generation < generation;
            if inode != 0 && owners.get(&inode).is_none_or(is_older) {
                owners.insert(inode, Occupant { generation, namespace, certain });
            }
        }
        owners
    }

    /// Whether it came into our PID namespace from outside (`docker exec`), or descends from what
    /// a shell had started that then became us: it has a higher limit than what we start, and that
    /// nobody could raise who descends from it.
    fn has_entered(&mut self, limit: Option<(u64, u64)>, namespace: Option<u64>) -> bool {
        let own = self.mark.map_or(u64::MAX, LimitMark::value);
        let is_above = limit.is_some_and(|(_, hard)| hard > own);
        let is_outside =
            self.trees.own_namespace != 0 && namespace == Some(self.trees.own_namespace);
        is_above && (is_outside || !self.kernel.may_raise_limits())
    }

    /// The only incarnation that a child forked then can descend from; else nobody knows.
    fn only_candidate(&self, born: Time) -> Owner {
        let runs =
            self.services.iter().filter_map(|service| Some((service.id, service.run.as_ref()?)));
        let mut candidates = runs.filter(|(_, run)| run.may_have_forked(born));
        match (candidates.next(), candidates.next()) {
            (Some((id, run)), None) if !mutant("ignore_unknown") => Owner::Tree(id, run.generation),
            _ => Owner::Unknown,
        }
    }
}

/// The marks that an environment bears: a service's own, and those of services around it.
pub(crate) fn env_marks(environ: &[u8]) -> impl Iterator<Item = EnvMark> {
    [MARK_VARIABLE, "OPM_OUTER"]
        .into_iter()
        .filter_map(|name| environ_value(environ, name))
        .flat_map(|value| value.split(|b| *b == b','))
        .filter_map(EnvMark::parse)
}
