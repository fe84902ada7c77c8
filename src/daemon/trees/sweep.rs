//! Passes over /proc, for trees whose orphans went elsewhere: those that an earlier daemon
//! started. One pass serves every gate that waits in the same turn.
use super::drain::{LOOK_AGAIN_MS, readable};
use super::owner::{Occupant, env_marks};
use super::{Member, Owner};
use crate::daemon::Daemon;
use crate::daemon::server::predecessor::INITIAL_PID_NAMESPACE;
use crate::daemon::vecmap::{VecMap, VecSet};
use crate::mutant::mutant;
use crate::process::mark::{EnvMark, LimitMark};
use crate::process::{Identity, Namespace, Pid};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Wake, describe, identity};

/// The parent of all kernel threads, where they are seen: outside of PID namespaces.
const KTHREADD: Pid = 2;

/// What one reading of /proc has shown.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    pub(crate) found: Vec<Sighting>,
    /// A process was listed and gone before its mark could be read: it may have left a child
    /// behind that the listing had passed already.
    pub(crate) vanished: bool,
    /// Zombies, and processes that are about to be, of which nobody can tell any more whose they
    /// were: their environment is gone, and their limit is one that a process of ours may have.
    pub(crate) corpses: Vec<Pid>,
    /// What bears a mark of this home and can't have it from here.
    pub(crate) forged: Vec<Pid>,
    /// Processes that were listed.
    pub(crate) listed: usize,
    /// The generation that is in each time namespace.
    owners: VecMap<u64, Occupant>,
    /// The time namespaces of another home's services.
    others: VecSet<u64>,
}

/// A process that may be one of ours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sighting {
    pub(crate) pid: Pid,
    /// What its limit says, in part.
    pub(crate) part: Option<u64>,
    /// What its environment says.
    pub(crate) mark: Option<EnvMark>,
    /// The inode of its time namespace; 0: not known, or of no meaning.
    pub(crate) namespace: u64,
    /// Its time namespace was read, which decides for all that have one.
    told: bool,
    /// Its environment can't be read, for its memory does not answer, and might bear a mark.
    pub(crate) mute: bool,
    /// It is a service's of another home, or in the time namespace of one.
    pub(crate) is_others: bool,
    sid: Pid,
    pgid: Pid,
}

/// What one process has shown.
enum Look {
    Nothing,
    Seen(Sighting),
    /// See [`Pass::corpses`].
    Corpse,
    /// See [`Pass::forged`].
    Forged,
}

/// What a pass looks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search<'a> {
    /// Numbers of dead leaders, whose group or session may live on.
    pub(crate) numbers: &'a [Pid],
    /// Marks count: of some incarnation the time namespace is not known.
    pub(crate) marks: bool,
    /// Nothing is in the time namespaces in question any more.
    pub(crate) gone: bool,
}

impl Search<'_> {
    /// Everything that might be one of ours.
    pub(crate) const ALL: Self = Self { numbers: &[], marks: true, gone: false };
}

impl Sighting {
    fn of_leader(pid: Pid, generation: u64, namespace: u64) -> Self {
        let part = Some(LimitMark::part_of(generation));
        Self { pid, part, namespace, ..Self::default() }
    }

    /// What a limit says, or would say, of its generation.
    pub(crate) fn part(&self) -> Option<u64> {
        let marked = self.mark.map(|mark| LimitMark::part_of(mark.generation));
        self.part.or(marked)
    }

    /// It bears a mark, or nobody can say.
    pub(crate) fn may_be_ours(&self) -> bool {
        self.is_marked() || self.mute || self.namespace != 0
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.part.is_some() || self.mark.is_some()
    }

    /// Whether its marks name this generation.
    pub(crate) fn names(&self, generation: u64) -> bool {
        self.part.is_some_and(|part| LimitMark::names(part, generation))
            || self.mark.is_some_and(|mark| mark.generation == generation)
    }
}

impl Pass {
    /// Whether a process is of an incarnation that is in this time namespace. That is the kernel's
    /// word, where there is one; a process in our own can't come from there, whatever it bears.
    pub(crate) fn is_of(&self, seen: &Sighting, generation: u64, namespace: Namespace) -> bool {
        let found = self.owners.get(&seen.namespace);
        let owner = found.map(|owner| owner.generation);
        let told = seen.namespace != 0 && namespace.inode != 0;
        let is_within = told && seen.namespace == namespace.inode && owner == Some(generation);
        if is_within && !self.others.contains(&seen.namespace) {
            return true;
        }
        // Of another incarnation, by the kernel's word; where that can't be asked, the number may
        // have been given again.
        let is_others = told && found.is_some_and(|o| o.certain && o.generation != generation);
        !is_others && seen.names(generation)
    }

    /// Which time namespaces are another home's, by what was seen in them: all that is in one
    /// descends from one leader. Where the kernel's word is missing, the inode of one of ours that
    /// has ended may have been given to it.
    fn tell_others(&mut self) {
        for seen in self.found.iter().filter(|seen| seen.namespace != 0 && seen.is_others) {
            self.others.insert(seen.namespace);
        }
        for seen in &self.found {
            let owner = self.owners.get(&seen.namespace);
            if owner.is_some_and(|owner| owner.certain || seen.names(owner.generation)) {
                self.others.remove(&seen.namespace);
            }
        }
        for seen in &mut self.found {
            seen.is_others = self.others.contains(&seen.namespace);
        }
    }
}

impl<K: Kernel> Daemon<K> {
    /// Every live process that may be of ours, or whose group or session is asked for. None: /proc
    /// could not be read whole.
    pub(crate) fn sightings(&mut self, search: Search<'_>) -> Option<Pass> {
        let leaders = self.leaders_alive();
        let mut pass = Pass { owners: self.namespace_owners(), ..Pass::default() };
        let mut pids = Vec::new();
        self.kernel.processes(0, &mut pids).ok()?;
        while let Some(last) = pids.last().copied() {
            pass.listed += pids.len();
            for pid in pids.drain(..) {
                if pid == self.own.pid {
                    continue;
                }
                if let Some((generation, namespace)) = leaders.get(&pid) {
                    // It is held and lives, so that the number is its own: its marks are known.
                    pass.found.push(Sighting::of_leader(pid, *generation, *namespace));
                    continue;
                }
                match self.sight(pid, search) {
                    Ok(Look::Nothing) => {}
                    Ok(Look::Seen(sighting)) => pass.found.push(sighting),
                    Ok(Look::Corpse) => pass.corpses.push(pid),
                    Ok(Look::Forged) => pass.forged.push(pid),
                    // IO: what was read was cut off by its end.
                    Err(Errno::SRCH | Errno::NOENT | Errno::IO) => pass.vanished = true,
                    // Neither seen nor known to be gone: then the pass proves nothing.
                    Err(errno) => {
                        let why = describe(errno);
                        self.ledger.disk_error = Some(format!("cannot read /proc/{pid}: {why}"));
                        return None;
                    }
                }
            }
            self.kernel.processes(last, &mut pids).ok()?;
        }
        pass.vanished |= pass.found.iter().any(|seen| self.has_past_owner(&pass.owners, seen));
        pass.tell_others();
        Some(pass)
    }

    /// Whether a process may be in another time namespace than one of ours with this number, which
    /// has ended since it was asked for its owner: the next one that anybody makes has its number.
    fn has_past_owner(&mut self, owners: &VecMap<u64, Occupant>, seen: &Sighting) -> bool {
        let owner = owners.get(&seen.namespace).filter(|owner| !seen.names(owner.generation));
        let owner = owner.filter(|owner| owner.certain && !mutant("believe_owners"));
        owner.is_some_and(|owner| self.kernel.is_namespace_alive(owner.namespace) != Some(true))
    }

    fn sight(&mut self, pid: Pid, search: Search<'_>) -> Result<Look, Errno> {
        let mut seen = Sighting { pid, ..Sighting::default() };
        let (mut is_outside, mut is_exiting) = (false, false);
        if self.trees.own_namespace != 0 {
            match self.kernel.time_namespace(pid) {
                Ok(inode) => {
                    seen.told = true;
                    is_outside = inode == self.trees.own_namespace;
                    seen.namespace = if is_outside { 0 } else { inode };
                }
                Err(Errno::NOENT | Errno::SRCH) => is_exiting = true,
                Err(Errno::ACCESS | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
            if is_outside && !search.marks && search.numbers.is_empty() {
                return Ok(Look::Nothing);
            }
        }
        let limit = self.kernel.locks_limit(pid)?;
        if self.is_departed(pid, Some(limit)) {
            return Ok(Look::Nothing);
        }
        seen.part = LimitMark::generation_of(limit, self.header.home_key);
        let is_beside = |own: LimitMark| own.is_beside(limit);
        seen.is_others = seen.part.is_none() && self.mark.is_some_and(is_beside);
        if seen.part.is_none() && is_exiting {
            return self.look_of_exiting(pid, limit, search.gone);
        }
        if seen.part.is_none() && self.may_bear_a_mark(limit) {
            match self.mark_in_memory(pid)? {
                Memory::Read(mark) => seen.mark = mark,
                Memory::Mute => seen.mute = true,
                Memory::Gone => return self.look_of_exiting(pid, limit, search.gone),
            }
        }
        if seen.is_marked() && !self.can_be_ours(pid)? {
            return Ok(Look::Forged);
        }
        let told = self.is_told_by_namespace(&seen);
        if seen.is_marked() && is_outside && told {
            return Ok(Look::Forged);
        }
        if !seen.is_marked() && !search.numbers.is_empty() {
            let stat = self.kernel.stat(pid)?;
            if stat.is_zombie() {
                return Ok(self.look_of_zombie(limit, search.gone));
            }
            (seen.sid, seen.pgid) = (stat.sid, stat.pgid);
        }
        let is_near = |number: &Pid| [seen.sid, seen.pgid].contains(number);
        let asked = search.numbers.iter().any(is_near);
        Ok(match seen.is_marked() || seen.namespace != 0 || seen.mute || asked {
            true => Look::Seen(seen),
            false => Look::Nothing,
        })
    }

    /// Whether every incarnation that these marks can name is known by its time namespace, or by
    /// the lack of one, which then decides. What is on no record had one, as all that we start.
    fn is_told_by_namespace(&mut self, seen: &Sighting) -> bool {
        let services = self.services.iter();
        let runs = services.filter_map(|service| service.run.as_ref());
        let mut named = runs.filter(|run| seen.names(run.generation.0));
        named.all(|run| run.namespace.is_some_and(|namespace| namespace.inode != 0))
    }

    /// Whether a limit that names none of ours can be that of a process of ours, whose environment
    /// then has to tell. A hard limit is lowered by anybody and raised by nobody: so it lies below
    /// what we give, and is no mark that another home gives beside us.
    fn may_bear_a_mark(&mut self, (soft, hard): (u64, u64)) -> bool {
        let Some(own) = self.mark else { return true };
        if hard > own.value() {
            return self.trees.own_namespace == 0 && self.kernel.may_raise_limits();
        }
        !own.is_beside((soft, hard))
    }

    fn mark_in_memory(&mut self, pid: Pid) -> Result<Memory, Errno> {
        match self.kernel.environ(pid) {
            Err(Errno::ACCESS | Errno::PERM) => Ok(Memory::Read(None)),
            Err(Errno::TIMEDOUT) if mutant("mute_is_clean") => Ok(Memory::Read(None)),
            Err(Errno::TIMEDOUT) => Ok(Memory::Mute),
            Err(Errno::SRCH | Errno::NOENT) => Ok(Memory::Gone),
            Err(errno) => Err(errno),
            // A zombie's reads as empty, too.
            Ok(environ) if environ.is_empty() && self.kernel.stat(pid)?.is_zombie() => {
                Ok(Memory::Gone)
            }
            Ok(environ) => {
                let key = self.header.home_key;
                Ok(Memory::Read(env_marks(&environ).find(|mark| mark.home_key == key)))
            }
        }
    }

    /// No memory: a kernel thread or a zombie never will have, and what is exiting has none any
    /// more. It forks no more, so that it is as good as a zombie.
    fn look_of_exiting(&mut self, pid: Pid, limit: (u64, u64), gone: bool) -> Result<Look, Errno> {
        let stat = self.kernel.stat(pid)?;
        let outside = self.header.pid_namespace == INITIAL_PID_NAMESPACE;
        let is_kernel_thread = outside && (pid == KTHREADD || stat.ppid == KTHREADD);
        Ok(if is_kernel_thread { Look::Nothing } else { self.look_of_zombie(limit, gone) })
    }

    /// Whether a process that bears a mark of ours can have it from us: it has our uid, or root's
    /// by a set-uid program. As root any can.
    pub(crate) fn can_be_ours(&mut self, pid: Pid) -> Result<bool, Errno> {
        let own = self.kernel.own_uid();
        if own == 0 || mutant("any_uid") {
            return Ok(true);
        }
        Ok(self.kernel.uids(pid)?.iter().any(|uid| [own, 0].contains(uid)))
    }

    /// The daemon before, which was just killed, is no corpse to worry about, nor is what can't
    /// have been ours.
    fn look_of_zombie(&mut self, limit: (u64, u64), gone: bool) -> Look {
        let own = self.mark.map(LimitMark::value);
        let is_daemon = own.is_some_and(|own| limit == (own, own));
        // One that had its limit raised can have been in a time namespace that is not gone.
        let was_told = !gone && self.kernel.may_raise_limits();
        let may_be_ours = self.may_bear_a_mark(limit) || was_told;
        if is_daemon || !may_be_ours { Look::Nothing } else { Look::Corpse }
    }

    /// Whether a dead leader is reaped as far as that is ours to do: it may be our child, by our
    /// fork or after an upgrade, or after a crash somebody else's. False while it is traced.
    pub(crate) fn reap_leader(&mut self, id: Id) -> bool {
        let Some(service) = self.services.get_mut(id) else {
            return false;
        };
        let Some(run) = service.run.as_mut() else {
            return false;
        };
        if !run.child {
            return true;
        }
        let reaped =
            run.pidfd.as_ref().is_none_or(|pidfd| self.kernel.wait(pidfd, true) != Ok(None));
        if reaped {
            run.child = false;
            self.trees.leaders.remove(&run.leader.pid);
        }
        reaped
    }

    pub(crate) fn are_members_dead(&mut self, id: Id) -> bool {
        let Some(service) = self.services.get_mut(id) else {
            return false;
        };
        let Some(run) = service.run.as_mut() else {
            return false;
        };
        run.members.retain(|_, member| {
            let dead = self.kernel.is_dead(&member.pidfd).unwrap_or(false);
            if dead {
                self.kernel.unwatch(&member.pidfd);
            }
            !dead
        });
        let generation = run.generation;
        let empty = run.members.is_empty();
        empty && !self.trees.orphans.values().any(|o| o.owner == Owner::Tree(id, generation))
    }

    /// Makes members of what a pass has seen of this service's tree. Says whether it has seen any.
    pub(crate) fn take_in_sightings(&mut self, id: Id, pass: &Pass) -> bool {
        let namespace = self.namespace_of(id);
        let Some(run) = self.run(id) else {
            return true;
        };
        let (generation, leader) = (run.generation.0, run.leader);
        let numbers_hold = namespace.inode == 0 && self.is_number_ours(leader);
        let mut any = false;
        for sighting in &pass.found {
            let certain = pass.is_of(sighting, generation, namespace);
            let near = sighting.sid == leader.pid || sighting.pgid == leader.pid;
            let unmarked = !sighting.is_marked();
            // Whoever is in our own time namespace is in none of theirs; what is in another may
            // have made it for itself.
            let is_outside = sighting.told && sighting.namespace == 0;
            let undecided = namespace.inode == 0 || !is_outside;
            if sighting.mute && undecided && !certain {
                any = true;
                self.wait_for_mute(id, sighting.pid);
                continue;
            }
            let possible = unmarked && numbers_hold && near;
            if !certain && !possible {
                continue;
            }
            any |= self.take_in_member(id, pass, sighting, certain);
        }
        any
    }

    /// Whether a dead leader's number can still name its group and session: not if another
    /// process has it, for the kernel gives no number out that a group or session still uses.
    /// Nor if it is not known: 0 is the session of whatever came into our PID namespace.
    fn is_number_ours(&mut self, leader: Identity) -> bool {
        if leader.pid == 0 {
            return false;
        }
        let Ok(pidfd) = self.kernel.pidfd_open(leader.pid) else {
            return true;
        };
        identity(&mut self.kernel, leader.pid, &pidfd).is_same(&leader)
    }

    /// One that may be of this tree, and whose memory will tell when it answers.
    fn wait_for_mute(&mut self, id: Id, pid: Pid) {
        self.trees.look_again_at.get_or_insert(self.now + self.trees.search_pause);
        if let Some(service) = self.services.get_mut(id) {
            service.note = Some(format!("process {pid} may be of it, and does not answer").into());
        }
    }

    fn take_in_member(&mut self, id: Id, pass: &Pass, seen: &Sighting, certain: bool) -> bool {
        let pid = seen.pid;
        let pidfd = match self.kernel.pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return false,
            Err(_) => {
                self.trees.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
                return true;
            }
        };
        // What was read of the pid was read of this process only if it still shows the same.
        let trusted = !certain || mutant("trust_numbers");
        let still = if trusted { Ok(true) } else { self.is_member(pid, id, pass) };
        let alive = self.kernel.is_dead(&pidfd).map(|dead| !dead);
        match still.and_then(|still| Ok(still && alive?)) {
            Ok(true) => {}
            Ok(false) => return false,
            // It can't be told who this is: then it is not gone.
            Err(_) => {
                self.trees.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
                return true;
            }
        }
        let watched = self.kernel.watch(&pidfd, Wake::Member(pid));
        if watched.is_err() {
            self.trees.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
        }
        let Some(service) = self.services.get_mut(id) else {
            return false;
        };
        let Some(run) = service.run.as_mut() else {
            return false;
        };
        if !certain {
            let text = format!("process {pid} of its old group or session still lives");
            service.note = Some(text.into());
        }
        run.members.insert(pid, Member { pidfd, certain, asked: false });
        self.terminate_rest(id);
        true
    }

    /// Whether the process of this pid, which the caller holds, is of that service's incarnation.
    fn is_member(&mut self, pid: Pid, id: Id, pass: &Pass) -> Result<bool, Errno> {
        let namespace = self.namespace_of(id);
        let run = self.run(id);
        let generation = run.map_or(0, |run| run.generation.0);
        match readable(self.sight(pid, Search::ALL))? {
            Some(Look::Seen(seen)) if self.has_past_owner(&pass.owners, &seen) => Err(Errno::AGAIN),
            Some(Look::Seen(seen)) if pass.is_of(&seen, generation, namespace) => Ok(true),
            Some(Look::Seen(seen)) if seen.mute => Err(Errno::TIMEDOUT),
            _ => Ok(false),
        }
    }

    /// Whether the process of this pid, which the caller holds, bears that incarnation's mark.
    ///
    /// # Errors
    /// It can't be told.
    pub(crate) fn bears(&mut self, pid: Pid, generation: u64) -> Result<bool, Errno> {
        match readable(self.sight(pid, Search::ALL))? {
            Some(Look::Seen(seen)) if seen.names(generation) => Ok(true),
            Some(Look::Seen(seen)) if seen.mute => Err(Errno::TIMEDOUT),
            _ => Ok(false),
        }
    }
}

/// What a process's memory says.
enum Memory {
    /// Its mark, if it bears one that we may read.
    Read(Option<EnvMark>),
    /// It does not answer.
    Mute,
    /// It has none.
    Gone,
}
