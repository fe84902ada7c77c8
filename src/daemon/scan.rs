//! Passes over /proc, for trees whose orphans went elsewhere: those that an earlier daemon
//! started. One pass serves every gate that waits in the same turn.
use super::Daemon;
use super::door::INITIAL_PID_NAMESPACE;
use super::gate::{LOOK_AGAIN_MS, readable};
use super::unit::{Member, Owner, unit_in};
use crate::mutant::mutant;
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::stat::environ_value;
use crate::process::{Identity, Pid};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel, Wake, describe};

/// The parent of all kernel threads, where they are seen: outside of PID namespaces.
const KTHREADD: Pid = 2;

/// What one reading of /proc has shown.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) found: Vec<Sighting>,
    /// A process was listed and gone before its mark could be read: it may have left a child
    /// behind that the listing had passed already.
    pub(crate) vanished: bool,
    /// Zombies of which nobody can tell any more whose they were: their environment is gone, and
    /// their limit says nothing of ours.
    pub(crate) corpses: Vec<Pid>,
    /// Processes that were listed.
    pub(crate) listed: usize,
}

/// A process that bears a mark of this home, or sits in a group or session that we ask about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting {
    pub(crate) pid: Pid,
    /// What its limit says, in part.
    pub(crate) part: Option<u64>,
    /// What its environment says.
    pub(crate) mark: Option<EnvMark>,
    sid: Pid,
    pgid: Pid,
}

/// What one process has shown.
enum Look {
    Nothing,
    Seen(Sighting),
    /// See [`Pass::corpses`].
    Corpse,
}

impl Sighting {
    fn of_leader(pid: Pid, generation: u64) -> Self {
        Self { pid, part: Some(LimitMark::part_of(generation)), mark: None, sid: 0, pgid: 0 }
    }

    /// What a limit says, or would say, of its generation.
    pub(crate) fn part(&self) -> Option<u64> {
        let marked = self.mark.map(|mark| LimitMark::part_of(mark.generation));
        self.part.or(marked)
    }

    pub(crate) fn names(&self, generation: u64) -> bool {
        self.part.is_some_and(|part| LimitMark::names(part, generation))
            || self.mark.is_some_and(|mark| mark.generation == generation)
    }
}

impl<K: Kernel> Daemon<K> {
    /// Every live process with a mark of ours, or whose group or session is one of `numbers`.
    /// None: /proc could not be read whole.
    pub(crate) fn sightings(&mut self, numbers: &[Pid]) -> Option<Pass> {
        let mut pids = Vec::new();
        self.kernel.processes(&mut pids).ok()?;
        let mut pass =
            Pass { found: Vec::new(), vanished: false, corpses: Vec::new(), listed: pids.len() };
        let leaders = self.leaders_alive();
        for pid in pids {
            if pid == self.own.pid {
                continue;
            }
            if let Some(generation) = leaders.get(&pid) {
                // It is held and lives, so that the number is its own: its marks are known.
                pass.found.push(Sighting::of_leader(pid, *generation));
                continue;
            }
            match self.sight(pid, numbers) {
                Ok(Look::Nothing) => {}
                Ok(Look::Seen(sighting)) => pass.found.push(sighting),
                Ok(Look::Corpse) => pass.corpses.push(pid),
                // IO: what was read was cut off by its end.
                Err(Errno::SRCH | Errno::NOENT | Errno::IO) => pass.vanished = true,
                // Neither seen nor known to be gone: then the pass proves nothing.
                Err(errno) => {
                    self.trouble = Some(format!("cannot read /proc/{pid}: {}", describe(errno)));
                    return None;
                }
            }
        }
        Some(pass)
    }

    fn sight(&mut self, pid: Pid, numbers: &[Pid]) -> Result<Look, Errno> {
        let key = self.header.home_key;
        let limit = self.kernel.locks_limit(pid)?;
        let part = LimitMark::generation_of(limit, key);
        let mut mark = None;
        if part.is_none() {
            // Of a daemon inside one of our services too: its services name us as the outer one.
            let environ = match self.kernel.environ(pid) {
                Err(Errno::ACCESS | Errno::PERM) => Vec::new(),
                // No memory: a kernel thread or a zombie never will have, else it is exiting now.
                Err(errno @ (Errno::SRCH | Errno::NOENT)) => {
                    let stat = self.kernel.stat(pid)?;
                    let outside = self.header.pid_namespace == INITIAL_PID_NAMESPACE;
                    let kernel_thread = outside && (pid == KTHREADD || stat.ppid == KTHREADD);
                    return match kernel_thread {
                        true => Ok(Look::Nothing),
                        false if stat.is_zombie() => Ok(self.look_of_zombie(limit)),
                        false => Err(errno),
                    };
                }
                other => other?,
            };
            let names = [MARK_VARIABLE, "OPM_OUTER"];
            let values = names.iter().filter_map(|name| environ_value(&environ, name));
            let parts = values.flat_map(|value| value.split(|b| *b == b','));
            mark = parts.filter_map(EnvMark::parse).find(|mark| mark.home_key == key);
        }
        let marked = part.is_some() || mark.is_some();
        let (mut sid, mut pgid) = (0, 0);
        if !marked {
            let stat = self.kernel.stat(pid)?;
            if stat.is_zombie() {
                return Ok(self.look_of_zombie(limit));
            }
            if LimitMark::is_mark(limit) {
                // Another home's, or a daemon.
                return Ok(Look::Nothing);
            }
            (sid, pgid) = (stat.sid, stat.pgid);
        }
        let asked = numbers.contains(&sid) || numbers.contains(&pgid);
        let sighting = Sighting { pid, part, mark, sid, pgid };
        Ok(match marked || asked {
            true => Look::Seen(sighting),
            false => Look::Nothing,
        })
    }

    /// The daemon before, which was just killed, is no corpse to worry about.
    fn look_of_zombie(&self, limit: (u64, u64)) -> Look {
        let own = self.mark.map(LimitMark::value);
        match own.is_some_and(|own| limit == (own, own)) {
            true => Look::Nothing,
            false => Look::Corpse,
        }
    }

    /// Whether a dead leader is reaped as far as that is ours to do: it may be our child, by our
    /// fork or after an upgrade, or after a crash somebody else's. False while it is traced.
    pub(crate) fn reap_leader(&mut self, id: Id) -> bool {
        let Some(unit) = unit_in(&mut self.units, id) else {
            return false;
        };
        let Some(run) = unit.run.as_mut() else {
            return false;
        };
        if !run.child {
            return true;
        }
        let reaped =
            run.pidfd.as_ref().is_none_or(|pidfd| self.kernel.wait(pidfd, true) != Ok(None));
        if reaped {
            run.child = false;
            self.leaders.remove(&run.leader.pid);
        }
        reaped
    }

    pub(crate) fn are_members_dead(&mut self, id: Id) -> bool {
        let Some(unit) = unit_in(&mut self.units, id) else {
            return false;
        };
        let Some(run) = unit.run.as_mut() else {
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
        empty && !self.orphans.values().any(|o| o.owner == Owner::Run(id, generation))
    }

    /// Makes members of what a pass has seen of this unit's tree. Says whether it has seen any.
    pub(crate) fn take_in_sightings(&mut self, id: Id, found: &[Sighting]) -> bool {
        let Some(unit) = self.unit(id) else {
            return true;
        };
        let Some(run) = unit.run.as_ref() else {
            return true;
        };
        let (generation, leader) = (run.generation.0, run.leader);
        let numbers_hold = self.is_number_ours(leader);
        let mut any = false;
        for sighting in found {
            let certain = sighting.names(generation);
            let near = sighting.sid == leader.pid || sighting.pgid == leader.pid;
            let unmarked = sighting.part.is_none() && sighting.mark.is_none();
            let possible = numbers_hold && near && unmarked;
            if !certain && !possible {
                continue;
            }
            any |= self.take_in_member(id, generation, sighting.pid, certain);
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
        let inode = self.kernel.inode(&pidfd).unwrap_or(0);
        let start_time = self.kernel.stat(leader.pid).map_or(0, |stat| stat.start_time);
        Identity { pid: leader.pid, start_time, inode }.is_same(&leader)
    }

    fn take_in_member(&mut self, id: Id, generation: u64, pid: Pid, certain: bool) -> bool {
        let pidfd = match self.kernel.pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return false,
            Err(_) => {
                self.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
                return true;
            }
        };
        // What was read of the pid was read of this process only if its mark is still there.
        let trusted = !certain || mutant("trust_numbers");
        let still = if trusted { Ok(true) } else { self.bears(pid, generation) };
        let alive = self.kernel.is_dead(&pidfd).map(|dead| !dead);
        match still.and_then(|still| Ok(still && alive?)) {
            Ok(true) => {}
            Ok(false) => return false,
            // It can't be told who this is: then it is not gone.
            Err(_) => {
                self.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
                return true;
            }
        }
        let watched = self.kernel.watch(&pidfd, Wake::Member(pid));
        if watched.is_err() {
            self.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
        }
        let Some(unit) = unit_in(&mut self.units, id) else {
            return false;
        };
        let Some(run) = unit.run.as_mut() else {
            return false;
        };
        if !certain {
            let text = format!("process {pid} of its old group or session still lives");
            unit.note = Some(text.into());
        }
        run.members.insert(pid, Member { pidfd, certain, asked: false });
        self.terminate_rest(id);
        true
    }

    /// Whether the process of this pid, which the caller holds, bears that incarnation's mark.
    ///
    /// # Errors
    /// It can't be told.
    pub(crate) fn bears(&mut self, pid: Pid, generation: u64) -> Result<bool, Errno> {
        let look = readable(self.sight(pid, &[]))?;
        Ok(matches!(look, Some(Look::Seen(seen)) if seen.names(generation)))
    }
}
