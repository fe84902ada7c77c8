//! Whose an orphan is that has come to us, and whose a time namespace.
//!
//! An orphan is our unreaped child, so it descends from a leader that we forked: it is some
//! service's, whatever marks it bears, has lost or has forged. Which service, is told by what is
//! hardest to change: session and group of a leader that is not reaped yet, whose numbers nobody
//! else can have; the time namespace; then marks. What is left belongs to the only service that can
//! own it, or to nobody that can be named.
use super::marks::{Limit, Memory, readable};
use super::tree::{Cx, Kept, Owner, Trees};
use crate::mutant::mutant;
use crate::process::journal_format::{SIGNATURE_BYTES, SIGNATURE_OFFSET, Signature, slot_offset};
use crate::process::mark::LimitMark;
use crate::process::stat::Stat;
use crate::process::stat::TICK_MS;
use crate::process::{Identity, Namespace, Pid};
use crate::service::machine::{Generation, Time};
use crate::service::spec::Id;
use crate::sys::{Errno, Kernel};
use std::collections::BTreeMap;

/// What is known of an orphan.
pub(super) struct Attribution {
    pub(super) owner: Owner,
    /// When it was forked; 0 if not known.
    pub(super) born: Time,
    pub(super) mute: bool,
}

/// Whose a time namespace is, by its recorded inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occupant {
    pub(super) generation: u64,
    /// Start time and inode of its leader; 0: not known.
    born: (u64, u64),
    pub(super) namespace: Namespace,
    /// By the kernel's word. Else the inode may have been given again, to somebody else's.
    pub(super) certain: bool,
}

impl<K: Kernel> Trees<K> {
    /// Whose a live child is that we did not start. Errors: it could not be looked at for want of
    /// descriptors or memory: that is no answer.
    pub(super) fn owner_of(&mut self, cx: &mut Cx<'_, K>, pid: Pid) -> Result<Attribution, Errno> {
        let stat = readable(cx.kernel.stat(pid))?;
        let born = stat.map_or(0, |stat| stat.start_time * TICK_MS);
        let told = |owner| Ok(Attribution { owner, born, mute: false });
        let limit = readable(cx.kernel.locks_limit(pid))?;
        if self.marks.is_departed(cx.kernel, pid, limit) {
            return told(Owner::Foreign);
        }
        if let Some(owner) = stat.and_then(|stat| self.owner_by_numbers(&stat)) {
            return told(owner);
        }
        let mut mute = false;
        let marked = self.owner_by_marks(cx, pid, limit, &mut mute)?;
        let namespace = match self.marks.own_namespace {
            0 => None,
            _ => readable(cx.kernel.time_namespace(pid))?,
        };
        let owner = match namespace {
            Some(inode) if marked.is_none_or(|owner| !self.is_in(cx, owner, inode)) => {
                self.owner_by_namespace(cx, inode).or(marked)
            }
            _ => marked,
        };
        if let Some(owner) = owner {
            return told(owner);
        }
        let is_outer = |stat: Stat| stat.sid == 0 || stat.pgid == 0;
        let may_raise_limits = cx.kernel.may_raise_limits();
        let is_foreign =
            stat.is_some_and(is_outer) || self.has_entered(limit, namespace, may_raise_limits);
        if self.marks.has_strangers && is_foreign {
            return told(Owner::Foreign);
        }
        // Then a child may be a stranger where nothing tells the two apart.
        let may_be_stranger = self.marks.has_strangers && namespace.is_none();
        let owner = match may_be_stranger && may_raise_limits {
            true => Owner::Unknown,
            false => self.only_candidate(born),
        };
        Ok(Attribution { owner, born, mute })
    }

    /// The service whose tree a live process is in, by what it has inherited.
    pub(crate) fn service_of(&mut self, cx: &mut Cx<'_, K>, pid: Pid) -> Option<Id> {
        let stat = cx.kernel.stat(pid).ok()?;
        let limit = cx.kernel.locks_limit(pid).ok();
        if self.marks.is_departed(cx.kernel, pid, limit) {
            return None;
        }
        let by_numbers = self.owner_by_numbers(&stat);
        let owner =
            by_numbers.or_else(|| self.owner_by_marks(cx, pid, limit, &mut false).ok()?)?;
        match owner {
            Owner::Tree(id, _) => Some(id),
            Owner::Kept(..) | Owner::Foreign | Owner::Unknown => None,
        }
    }

    /// By session and group: they are inherited alone, and pinned while our leader is not reaped.
    fn owner_by_numbers(&self, stat: &Stat) -> Option<Owner> {
        let leads = |number: &Pid| self.leaders.get(number).copied();
        let id = [stat.sid, stat.pgid].iter().find_map(leads)?;
        Some(Owner::Tree(id, self.get(id)?.generation))
    }

    fn owner_by_marks(
        &self,
        cx: &mut Cx<'_, K>,
        pid: Pid,
        limit: Option<Limit>,
        mute: &mut bool,
    ) -> Result<Option<Owner>, Errno> {
        if let Some(part) = limit.and_then(|limit| self.marks.part(limit)) {
            return Ok(self.owner_of_generation(|generation| LimitMark::names(part, generation)));
        }
        if mutant("foreign_marks") && limit.is_some_and(LimitMark::is_mark) {
            return Ok(Some(Owner::Foreign));
        }
        let mark = match readable(self.marks.read(cx.kernel, pid))? {
            Some(Memory::Read(mark)) => mark,
            Some(Memory::Mute) => {
                *mute = true;
                None
            }
            Some(Memory::Gone) | None => None,
        };
        Ok(mark
            .and_then(|mark| self.owner_of_generation(|generation| generation == mark.generation)))
    }

    /// The live incarnation, recorded or not, of a generation.
    fn owner_of_generation(&self, is: impl Fn(u64) -> bool) -> Option<Owner> {
        let mut found = self.iter().filter(|(_, tree)| is(tree.generation.0));
        // What has no record is looked for by its marks before its service starts.
        let is_unrecorded = || self.unrecorded.iter().any(|lost| is(lost.tree.generation.0));
        let found = found.next().map(|(id, tree)| tree.owner(id));
        let kept = self.kept.iter().find(|kept| is(kept.generation));
        let found = found.or(kept.map(|it| Owner::Kept(it.id, Generation(it.generation))));
        found.or_else(|| is_unrecorded().then_some(Owner::Foreign))
    }

    fn is_in(&mut self, cx: &mut Cx<'_, K>, owner: Owner, inode: u64) -> bool {
        match owner {
            Owner::Tree(id, generation) | Owner::Kept(id, generation) => {
                let is_its = |kept: &&Kept| kept.generation == generation.0;
                match self.kept.iter().find(is_its) {
                    Some(kept) => kept.namespace().inode == inode,
                    None => self.namespace_of(cx, id).inode == inode,
                }
            }
            Owner::Foreign | Owner::Unknown => false,
        }
    }

    fn owner_by_namespace(&mut self, cx: &mut Cx<'_, K>, inode: u64) -> Option<Owner> {
        let owner = self.namespace_owners(cx).get(&inode)?.generation;
        self.owner_of_generation(|generation| generation == owner)
    }

    /// The time namespace of an incarnation's tree, as its leader signed it; none if namespaces
    /// tell us nothing, whatever they told an earlier daemon.
    pub(super) fn namespace_of(&mut self, cx: &mut Cx<'_, K>, id: Id) -> Namespace {
        if self.marks.own_namespace == 0 {
            return Namespace::default();
        }
        let Some(tree) = self.get_mut(id) else { return Namespace::default() };
        if tree.namespace.is_none() {
            // Of a child that has not signed yet there is none to be known, either.
            let its = cx.signature(id).filter(|signed| signed.generation == tree.generation.0);
            tree.namespace = its.map(|signed| signed.namespace);
        }
        tree.namespace.unwrap_or_default()
    }

    /// The generation that is in each time namespace. An inode whose namespace has ended is given
    /// again, so that the newest of its owners is the one: what had to wait for another service is
    /// forked later than its number says.
    pub(super) fn namespace_owners(&mut self, cx: &mut Cx<'_, K>) -> BTreeMap<u64, Occupant> {
        let mut owners = BTreeMap::default();
        if self.marks.own_namespace == 0 {
            return owners;
        }
        let born = |leader: Identity| (leader.start_time, leader.inode);
        let trees: Vec<_> =
            self.iter().map(|(id, tree)| (id, tree.generation.0, born(tree.leader))).collect();
        let mut all: Vec<_> =
            self.kept.iter().map(|it| (it.generation, (0, 0), it.namespace())).collect();
        all.extend(trees.into_iter().map(|(id, generation, born)| {
            let namespace = self.namespace_of(cx, id);
            (generation, born, namespace)
        }));
        for (generation, born, namespace) in all {
            let is_alive = cx.kernel.is_namespace_alive(namespace);
            if is_alive == Some(false) {
                continue;
            }
            let inode = namespace.inode;
            let certain = is_alive.is_some();
            let is_older = |other: &Occupant| match born.0 == 0 || other.born.0 == 0 {
                true => other.generation < generation,
                false => (other.born, other.generation) < (born, generation),
            };
            if inode != 0 && owners.get(&inode).is_none_or(is_older) {
                owners.insert(inode, Occupant { generation, born, namespace, certain });
            }
        }
        owners
    }

    /// Whether it came into our PID namespace from outside (`docker exec`), or descends from what
    /// a shell had started that then became us: it has a higher limit than what we start, and that
    /// nobody could raise who descends from it.
    fn has_entered(
        &self,
        limit: Option<Limit>,
        namespace: Option<u64>,
        may_raise_limits: bool,
    ) -> bool {
        let own = self.marks.mark.map_or(u64::MAX, LimitMark::value);
        let is_above = limit.is_some_and(|(_, hard)| hard > own);
        let own_namespace = self.marks.own_namespace;
        let is_outside = own_namespace != 0 && namespace == Some(own_namespace);
        is_above && (is_outside || !may_raise_limits)
    }

    /// The only incarnation that a child forked then can descend from; else nobody knows.
    fn only_candidate(&self, born: Time) -> Owner {
        let mut candidates = self.iter().filter(|(_, tree)| tree.may_have_forked(born));
        match (candidates.next(), candidates.next()) {
            (Some((id, tree)), None) if self.kept.is_empty() && !mutant("ignore_unknown") => {
                tree.owner(id)
            }
            _ => Owner::Unknown,
        }
    }
}

impl<K: Kernel> Cx<'_, K> {
    /// The child's half of a slot of the journal, as it is now.
    pub(super) fn signature(&mut self, id: Id) -> Option<Signature> {
        let mut half = [0; SIGNATURE_BYTES];
        let offset = slot_offset(id) + SIGNATURE_OFFSET as u64;
        let read = self.kernel.read_at(self.journal, offset, &mut half).ok()?;
        (read == half.len()).then(|| Signature::decode(&half)).flatten()
    }
}
