//! Marked processes that no record names: the journal was deleted, or half of the home is lost.
//!
//! What has only a name left drains before a service of that name starts. Where not even a name is
//! left, nothing starts.
use super::marks::{Marks, env_marks, readable};
use super::owner::Occupant;
use super::sweep::{Search, Sighting};
use super::tree::{Cx, Tree, Trees, Unrecorded};
use crate::mutant::mutant;
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::stat::TICK_MS;
use crate::process::stat::environ_value;
use crate::process::{Identity, Namespace, Pid};
use crate::service::machine::Generation;
use crate::sys::{Errno, Kernel};
use std::collections::{BTreeMap, BTreeSet};

/// What was found of an incarnation that no record names.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    pub(crate) generation: Generation,
    pub(crate) name: Option<String>,
    pub(crate) mark: Option<EnvMark>,
    pids: BTreeSet<Pid>,
    namespaces: BTreeSet<u64>,
}

/// All that bears a mark of ours and lives.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) lost: Vec<Lost>,
    /// Generations on record of which a process was seen.
    pub(crate) living: BTreeSet<u64>,
    /// /proc was read whole. Else some may have been missed.
    pub(crate) whole: bool,
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
    owners: BTreeMap<u64, Occupant>,
    by_part: BTreeMap<u64, Vec<u64>>,
    /// Those whose leaders live.
    led: BTreeSet<u64>,
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

    /// Whether more than a namespace's number says whose a process is: its marks, the kernel, or a
    /// leader that is in that namespace now. Else the number may have been given again, to what a
    /// newer journal had on record.
    fn is_told(&self, seen: &Sighting) -> bool {
        let is_sure = |owner: &Occupant| owner.certain || self.led.contains(&owner.generation);
        seen.is_marked() || self.owners.get(&seen.namespace).is_some_and(is_sure)
    }
}

impl Lost {
    /// The leader, if it is among those that were found.
    pub(crate) fn leader(&self) -> Option<Pid> {
        self.mark.map(|mark| mark.pid).filter(|pid| self.pids.contains(pid))
    }
}

impl<K: Kernel> Trees<K> {
    /// Marked processes of incarnations that no record names. `given`: the highest generation that
    /// is known to have been given. Errors: one that was found could not be looked at for want of
    /// descriptors or memory.
    pub(crate) fn find_unrecorded(
        &mut self,
        cx: &mut Cx<'_, K>,
        loss: &Loss,
        given: u64,
    ) -> Result<Found, Errno> {
        let (found, whole, forged) = self.search(cx);
        self.marks.forged = forged;
        if !whole {
            cx.log.push("cannot read /proc whole: marked processes may be missed".to_owned());
        }
        let mut living = BTreeSet::default();
        let mut lost: BTreeMap<u64, Lost> = BTreeMap::default();
        let recorded = self.recorded(cx);
        let home_key = self.marks.home_key;
        for seen in found.into_iter().filter(|seen| !seen.is_others) {
            if let Some(generation) = recorded.generation_of(&seen) {
                living.insert(generation);
                if !loss.record || recorded.is_told(&seen) {
                    continue;
                }
            }
            let (mut generation, mut mark, mut name) = (UNMARKED, None, None);
            if let Some(part) = seen.part() {
                let environ = match cx.kernel.environ(seen.pid) {
                    Err(Errno::TIMEDOUT) => Vec::new(),
                    other => readable(other)?.unwrap_or_default(),
                };
                if !loss.believes(&seen, &environ, home_key, given) {
                    self.marks.forged.insert(seen.pid);
                    continue;
                }
                mark = environ_value(&environ, MARK_VARIABLE).and_then(EnvMark::parse);
                mark = mark.filter(|mark| mark.home_key == home_key);
                // With another home's mark the name is that of the service inside ours.
                let said = environ_value(&environ, "OPM_NAME").filter(|_| mark.is_some());
                name = said.map(|name| String::from_utf8_lossy(name).into_owned());
                generation = mark.or(seen.mark).map_or(part, |mark| mark.generation);
            } else if !loss.record || readable(Marks::can_bear(cx.kernel, seen.pid))? != Some(true)
            {
                // It bears no mark, but its memory does not answer, or it is in a time namespace
                // that is not ours: only a journal that is lost could have named it.
                continue;
            }
            let of = lost.entry(generation).or_default();
            of.generation = Generation(generation);
            of.mark = of.mark.or(mark);
            of.name = of.name.take().or(name);
            of.pids.insert(seen.pid);
            if seen.namespace != 0 {
                of.namespaces.insert(seen.namespace);
            }
        }
        self.warn_of_forged(cx);
        Ok(Found { lost: lost.into_values().collect(), living, whole })
    }

    fn recorded(&mut self, cx: &mut Cx<'_, K>) -> Recorded {
        let led = self.leaders_alive(cx).into_values().map(|(generation, _)| generation).collect();
        let owners = self.namespace_owners(cx);
        let mut recorded = Recorded { owners, led, ..Recorded::default() };
        let kept = self.kept.iter().map(|kept| kept.generation);
        for generation in self.iter().map(|(_, tree)| tree.generation.0).chain(kept) {
            recorded.by_part.entry(LimitMark::part_of(generation)).or_default().push(generation);
        }
        recorded
    }

    /// Whoever bears a mark that can't come from us is named, and nothing else.
    fn warn_of_forged(&mut self, cx: &mut Cx<'_, K>) {
        let mut pids: Vec<Pid> = self.marks.forged.iter().copied().collect();
        retain_living(cx, &mut pids);
        if !pids.is_empty() {
            let text = "bears a mark of this home that no service of it has: copied or forged";
            cx.log.push(format!("pid {pids:?}: {text}"));
        }
    }

    /// What bears a mark that can't come from us, and lives: what a sweep rules out now, and what
    /// was not believed when we began. None: /proc can't be read whole.
    pub(crate) fn forged(&mut self, cx: &mut Cx<'_, K>) -> Option<Vec<Pid>> {
        let sweep = self.sweep(cx, Search::ALL)?;
        let disbelieved = sweep.found.iter().filter(|seen| seen.is_marked()).map(|seen| seen.pid);
        let disbelieved = disbelieved.filter(|pid| self.marks.forged.contains(pid));
        let mut pids: Vec<Pid> = sweep.forged.iter().copied().chain(disbelieved).collect();
        retain_living(cx, &mut pids);
        Some(pids)
    }

    /// The tree of a lost incarnation, as far as it can be held. Errors: its leader could not be
    /// looked at for want of descriptors or memory.
    pub(crate) fn tree_of(&mut self, cx: &mut Cx<'_, K>, lost: &Lost) -> Result<Tree<K>, Errno> {
        let leader = lost.leader();
        let mut pidfd = None;
        if let Some(pid) = leader {
            pidfd = readable(cx.kernel.pidfd_open(pid))?;
            // The mark was read before the pidfd was open: it must be there still.
            if !self.confirms(cx, pid, |_, seen| Ok(seen.names(lost.generation.0)))? {
                pidfd = None;
            }
        }
        let inode = pidfd.as_ref().and_then(|pidfd| cx.kernel.inode(pidfd)).unwrap_or(0);
        let start_time =
            leader.and_then(|pid| cx.kernel.stat(pid).ok()).map_or(0, |stat| stat.start_time);
        let child = pidfd.as_ref().is_some_and(|pidfd| cx.kernel.wait(pidfd, false).is_ok());
        let leader = Identity { pid: leader.unwrap_or(0), start_time, inode };
        let inode = lost.namespaces.first().copied().unwrap_or(0);
        let since = if start_time > 0 { start_time * TICK_MS } else { cx.now };
        Ok(Tree {
            child,
            adopted: true,
            since,
            born: start_time * TICK_MS,
            namespace: Some(Namespace { id: 0, inode }),
            ..Tree::new(lost.generation, leader, pidfd, cx.now)
        })
    }

    /// Nothing can take these in now: a service of their name does when it is defined, and where
    /// not even a name is left, nothing starts while they live.
    pub(crate) fn keep_unrecorded(&mut self, cx: &mut Cx<'_, K>, lost: Lost, tree: Tree<K>) {
        let Lost { name, pids, namespaces, .. } = lost;
        let whose = name.as_deref().unwrap_or("an unknown service");
        let list: Vec<Pid> = pids.into_iter().collect();
        cx.log.push(format!("pid {list:?} of {whose} has no record"));
        let mut held = Vec::new();
        for pid in list {
            // One that can't be opened is gone, or (EMFILE) held by its number: then it blocks
            // for too long rather than too short.
            let pidfd = cx.kernel.pidfd_open(pid);
            if pidfd.as_ref().is_err_and(|errno| *errno == Errno::SRCH) {
                continue;
            }
            held.push((pid, pidfd.ok()));
        }
        self.unrecorded.push(Unrecorded { name, tree, held, namespaces });
    }

    /// Live processes of lost incarnations that a service of this name could be: those of its
    /// name, and those of which not even the name is known. No name: only the latter. Those that
    /// are gone are forgotten.
    pub(crate) fn unrecorded_of(&mut self, cx: &mut Cx<'_, K>, name: Option<&str>) -> Vec<Pid> {
        let is_asked = |lost: &Unrecorded<K>| {
            lost.name.is_none() || name.is_some() && lost.name.as_deref() == name
        };
        if mutant("forget_nameless") || !self.unrecorded.iter().any(is_asked) {
            return Vec::new();
        }
        for lost in self.unrecorded.iter_mut().filter(|lost| is_asked(lost)) {
            lost.held.retain(|(_, pidfd)| match pidfd {
                Some(pidfd) => !cx.kernel.is_dead(pidfd).unwrap_or(false),
                None => false,
            });
        }
        // What they forked since bears their mark, and so does what could not be held.
        let Some(found) = self.sweep_twice(cx) else {
            return self.unrecorded.iter().map(|lost| lost.tree.leader.pid).collect();
        };
        let recorded = self.recorded(cx);
        let mut alive = Vec::new();
        self.unrecorded.retain(|lost| {
            if !is_asked(lost) {
                return true;
            }
            let generation = lost.tree.generation.0;
            let before = alive.len();
            // One that did not answer is none of ours once it has, and bears no mark of ours; what
            // it forked until then, which bears one, is.
            let is_open = |seen: &Sighting| {
                let is_known = recorded.generation_of(seen).is_some() && recorded.is_told(seen);
                !seen.is_others && seen.may_be_ours() && !is_known
            };
            let held = lost.held.iter().map(|(pid, _)| *pid);
            alive.extend(held.filter(|_| generation != UNMARKED));
            let is_its = |seen: &&Sighting| match generation {
                UNMARKED => is_open(seen),
                _ => {
                    let is_in = lost.namespaces.contains(&seen.namespace);
                    seen.names(generation) || is_in || seen.mute
                }
            };
            alive.extend(found.iter().filter(is_its).map(|seen| seen.pid));
            alive.len() > before
        });
        alive
    }

    /// The incarnation that must drain before a new service of this name starts.
    pub(crate) fn take_unrecorded(&mut self, name: &str) -> Option<Tree<K>> {
        let is_its = |lost: &Unrecorded<K>| lost.name.as_deref() == Some(name);
        let at = self.unrecorded.iter().position(is_its)?;
        Some(self.unrecorded.swap_remove(at).tree)
    }

    /// Names of lost incarnations that may live.
    pub(crate) fn unrecorded_names(&self) -> impl Iterator<Item = &str> {
        self.unrecorded.iter().filter_map(|lost| lost.name.as_deref())
    }

    /// Whether anything lives that no record names, as far as is known.
    pub(crate) fn has_unrecorded(&self) -> bool {
        !self.unrecorded.is_empty()
    }

    /// The generation after which the next may be given: not one whose mark would name no
    /// incarnation, nor one that lives without a record.
    pub(crate) fn skipped(&self, mut last: u64) -> u64 {
        let is_taken = |part| {
            let kept = self.kept.iter().map(|kept| kept.generation);
            let mut all = self.unrecorded.iter().map(|lost| lost.tree.generation.0).chain(kept);
            all.any(|generation| LimitMark::names(part, generation))
        };
        loop {
            let part = LimitMark::part_of(last + 1);
            if part != 0 && !is_taken(part) {
                return last;
            }
            last += 1;
        }
    }
}

fn retain_living<K: Kernel>(cx: &mut Cx<'_, K>, pids: &mut Vec<Pid>) {
    pids.retain(|pid| cx.kernel.stat(*pid).is_ok_and(|stat| !stat.is_zombie()));
}
