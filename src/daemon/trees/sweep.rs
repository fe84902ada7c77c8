//! Sweeps of /proc, for trees whose orphans went elsewhere: those that an earlier daemon started.
//! One sweep serves every gate that waits in the same turn.
use super::marks::{Limit, Marks, Memory, readable};
use super::owner::Occupant;
use super::tree::{Cx, Trees};
use crate::mutant::mutant;
use crate::process::mark::{EnvMark, LimitMark};
use crate::process::{INITIAL_PID_NAMESPACE, Namespace, Pid};
use crate::sys::{Errno, Kernel, Processes, describe};
use std::collections::{BTreeMap, BTreeSet};

/// The parent of all kernel threads, where they are seen: outside of PID namespaces.
const KTHREADD: Pid = 2;

/// What one reading of /proc has shown.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    pub(super) found: Vec<Sighting>,
    /// A process was listed and gone before its mark could be read: it may have left a child
    /// behind that the listing had passed already.
    pub(super) vanished: bool,
    /// Zombies, and processes that are about to be, of which nobody can tell any more whose they
    /// were: their environment is gone, and their limit is one that a process of ours may have.
    pub(super) zombies: Vec<Pid>,
    /// What bears a mark of this home and can't have it from here.
    pub(super) forged: Vec<Pid>,
    pub(super) listed: usize,
    /// The generation that is in each time namespace.
    pub(super) owners: BTreeMap<u64, Occupant>,
    /// The time namespaces of another home's services.
    pub(super) others: BTreeSet<u64>,
}

/// A process that may be one of ours.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sighting {
    pub(super) pid: Pid,
    /// What its limit says, in part.
    pub(super) part: Option<u64>,
    /// What its environment says.
    pub(super) mark: Option<EnvMark>,
    /// The inode of its time namespace; 0: not known, or of no meaning.
    pub(super) namespace: u64,
    /// Its time namespace was read, which decides for all that have one.
    told: bool,
    /// Its environment can't be read, for its memory does not answer, and might bear a mark.
    pub(super) mute: bool,
    /// It is a service's of another home, or in the time namespace of one.
    pub(super) is_others: bool,
    pub(super) sid: Pid,
    pub(super) pgid: Pid,
}

pub(super) enum Look {
    Nothing,
    Seen(Sighting),
    /// See [`Sweep::zombies`].
    Zombie,
    /// See [`Sweep::forged`].
    Forged,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    /// Numbers of dead leaders, whose group or session may live on.
    pub(super) numbers: &'a [Pid],
    /// Marks count: of some incarnation the time namespace is not known.
    pub(super) marks: bool,
    /// Nothing is in the time namespaces in question any more.
    pub(super) gone: bool,
}

impl Search<'_> {
    /// Everything that might be one of ours.
    pub(super) const ALL: Self = Self { numbers: &[], marks: true, gone: false };
}

impl Sighting {
    /// What a limit says, or would say, of its generation.
    pub(super) fn part(&self) -> Option<u64> {
        let marked = self.mark.map(|mark| LimitMark::part_of(mark.generation));
        self.part.or(marked)
    }

    /// It bears a mark, or nobody can say.
    pub(super) fn may_be_ours(&self) -> bool {
        self.is_marked() || self.mute || self.namespace != 0
    }

    pub(super) fn is_marked(&self) -> bool {
        self.part.is_some() || self.mark.is_some()
    }

    /// It is in our own time namespace, so in none of a service of ours.
    pub(super) fn is_outside(&self) -> bool {
        self.told && self.namespace == 0
    }

    pub(super) fn names(&self, generation: u64) -> bool {
        self.part.is_some_and(|part| LimitMark::names(part, generation))
            || self.mark.is_some_and(|mark| mark.generation == generation)
    }
}

impl Sweep {
    /// Whether a process is of an incarnation that is in this time namespace. That is the kernel's
    /// word, where there is one; a process in our own can't come from there, whatever it bears.
    pub(super) fn is_of(&self, seen: &Sighting, generation: u64, namespace: Namespace) -> bool {
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

    /// Whether a process may be in another time namespace than one of ours with this number, which
    /// has ended since it was asked for its owner: the next one that anybody makes has its number.
    pub(super) fn has_past_owner<K: Kernel>(&self, cx: &mut Cx<'_, K>, seen: &Sighting) -> bool {
        let owner = self.owners.get(&seen.namespace).filter(|owner| !seen.names(owner.generation));
        let owner = owner.filter(|owner| owner.certain && !mutant("believe_owners"));
        owner.is_some_and(|owner| cx.kernel.is_namespace_alive(owner.namespace) != Some(true))
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

impl<K: Kernel> Trees<K> {
    /// Every live process that may be of ours, or whose group or session is asked for. None: /proc
    /// could not be read whole.
    pub(super) fn sweep(&mut self, cx: &mut Cx<'_, K>, search: Search<'_>) -> Option<Sweep> {
        let leaders = self.leaders_alive(cx);
        let mut sweep = Sweep { owners: self.namespace_owners(cx), ..Sweep::default() };
        let mut all = Processes::default();
        while let Some(pid) = all.next(cx.kernel).ok()? {
            sweep.listed += 1;
            if pid == self.marks.own.pid {
                continue;
            }
            if let Some((generation, namespace)) = leaders.get(&pid) {
                // It is held and lives, so that the number is its own: its marks are known.
                let (part, namespace) = (Some(LimitMark::part_of(*generation)), *namespace);
                sweep.found.push(Sighting { pid, part, namespace, ..Sighting::default() });
                continue;
            }
            match self.sight(cx, pid, search) {
                Ok(Look::Nothing) => {}
                Ok(Look::Seen(sighting)) => sweep.found.push(sighting),
                Ok(Look::Zombie) => sweep.zombies.push(pid),
                Ok(Look::Forged) => sweep.forged.push(pid),
                // IO: what was read was cut off by its end.
                Err(Errno::SRCH | Errno::NOENT | Errno::IO) => sweep.vanished = true,
                // Neither seen nor known to be gone: then the sweep proves nothing.
                Err(errno) => {
                    let why = describe(errno);
                    *cx.trouble = Some(format!("cannot read /proc/{pid}: {why}"));
                    return None;
                }
            }
        }
        sweep.vanished |= sweep.found.iter().any(|seen| sweep.has_past_owner(cx, seen));
        sweep.tell_others();
        Some(sweep)
    }

    /// Generation and time namespace of each leader that lives, by the pidfds that we hold anyway.
    pub(super) fn leaders_alive(&self, cx: &mut Cx<'_, K>) -> BTreeMap<Pid, (u64, u64)> {
        let mut alive = BTreeMap::default();
        for (_, tree) in self.iter() {
            let lives = |pidfd| cx.kernel.is_dead(pidfd) == Ok(false);
            if tree.pidfd.as_ref().is_some_and(lives) {
                let namespace = tree.namespace.map_or(0, |namespace| namespace.inode);
                alive.insert(tree.leader.pid, (tree.generation.0, namespace));
            }
        }
        alive
    }

    pub(super) fn sight(
        &self,
        cx: &mut Cx<'_, K>,
        pid: Pid,
        search: Search<'_>,
    ) -> Result<Look, Errno> {
        let mut seen = Sighting { pid, ..Sighting::default() };
        let mut is_exiting = false;
        if self.marks.own_namespace != 0 {
            match cx.kernel.time_namespace(pid) {
                Ok(inode) => {
                    seen.told = true;
                    let is_outside = inode == self.marks.own_namespace;
                    seen.namespace = if is_outside { 0 } else { inode };
                }
                Err(Errno::NOENT | Errno::SRCH) => is_exiting = true,
                Err(Errno::ACCESS | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
            if seen.is_outside() && !search.marks && search.numbers.is_empty() {
                return Ok(Look::Nothing);
            }
        }
        let limit = cx.kernel.locks_limit(pid)?;
        if self.marks.is_departed(cx.kernel, pid, Some(limit)) {
            return Ok(Look::Nothing);
        }
        seen.part = self.marks.part(limit);
        if seen.part.is_none() {
            seen.is_others = self.marks.mark.is_some_and(|own| own.is_beside(limit));
            if is_exiting {
                return self.look_of_exiting(cx, pid, limit, search.gone);
            }
            if self.marks.may_be_ours(cx.kernel, limit) {
                match self.marks.read(cx.kernel, pid)? {
                    Memory::Read(mark) => seen.mark = mark,
                    Memory::Mute => seen.mute = true,
                    Memory::Gone => return self.look_of_exiting(cx, pid, limit, search.gone),
                }
            }
        }
        if seen.is_marked()
            && (!Marks::can_bear(cx.kernel, pid)?
                || seen.is_outside() && self.is_told_by_namespace(&seen))
        {
            return Ok(Look::Forged);
        }
        if !search.numbers.is_empty() {
            let stat = cx.kernel.stat(pid)?;
            if stat.is_zombie() && !seen.is_marked() {
                return Ok(self.look_of_zombie(cx, limit, search.gone));
            }
            (seen.sid, seen.pgid) = (stat.sid, stat.pgid);
        }
        let is_near = |number: &Pid| [seen.sid, seen.pgid].contains(number);
        let is_asked = search.numbers.iter().any(is_near);
        Ok(if seen.may_be_ours() || is_asked { Look::Seen(seen) } else { Look::Nothing })
    }

    /// Whether the process of this pid, which the caller holds, `is` what it may be taken for.
    pub(super) fn confirms(
        &self,
        cx: &mut Cx<'_, K>,
        pid: Pid,
        is: impl FnOnce(&mut Cx<'_, K>, &Sighting) -> Result<bool, Errno>,
    ) -> Result<bool, Errno> {
        match readable(self.sight(cx, pid, Search::ALL))? {
            Some(Look::Seen(seen)) => match is(cx, &seen)? {
                false if seen.mute => Err(Errno::TIMEDOUT),
                is => Ok(is),
            },
            _ => Ok(false),
        }
    }

    /// Whether every incarnation that these marks can name is known by its time namespace, or by
    /// the lack of one, which then decides. What is on no record had one, as all that we start.
    fn is_told_by_namespace(&self, seen: &Sighting) -> bool {
        let mut named = self.iter().filter(|(_, tree)| seen.names(tree.generation.0));
        named.all(|(_, tree)| tree.namespace.is_some_and(|namespace| namespace.inode != 0))
    }

    /// No memory: a kernel thread or a zombie never will have, and what is exiting has none any
    /// more. It forks no more, so that it is as good as a zombie.
    fn look_of_exiting(
        &self,
        cx: &mut Cx<'_, K>,
        pid: Pid,
        limit: Limit,
        gone: bool,
    ) -> Result<Look, Errno> {
        let stat = cx.kernel.stat(pid)?;
        let outside = self.marks.pid_namespace == INITIAL_PID_NAMESPACE;
        let is_kernel_thread = outside && (pid == KTHREADD || stat.ppid == KTHREADD);
        Ok(if is_kernel_thread { Look::Nothing } else { self.look_of_zombie(cx, limit, gone) })
    }

    /// The daemon before, which was just killed, is no zombie to worry about, nor is what can't
    /// have been ours.
    fn look_of_zombie(&self, cx: &mut Cx<'_, K>, limit: Limit, gone: bool) -> Look {
        let own = self.marks.mark.map(LimitMark::value);
        let is_daemon = own.is_some_and(|own| limit == (own, own));
        // One that had its limit raised can have been in a time namespace that is not gone.
        let was_told = !gone && cx.kernel.may_raise_limits();
        let may_be_ours = self.marks.may_be_ours(cx.kernel, limit) || was_told;
        if is_daemon || !may_be_ours { Look::Nothing } else { Look::Zombie }
    }
}
