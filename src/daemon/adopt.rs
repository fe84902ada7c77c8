//! Taking over what earlier daemons left: first by record, then by marks. Only then does
//! anything start, and only then is anybody answered.
use super::Daemon;
use super::events::Events;
use super::launch::Launches;
use super::ledger::load::{
    Found, JOURNAL, Slot, emptied, load_journal, may_live, recorded, signed,
};
use super::ledger::{KEPT, Ledger};
use super::logs::Logs;
use super::monitors::Monitors;
use super::requests::wait::Waiters;
use super::service::Service;
use super::services::Services;
use super::timers::Timers;
use super::trees::{Departed, Loss, Lost, Marks, Tree, Trees};
use crate::mutant::mutant;
use crate::process::journal_format::{DEPARTED_MAX, Header, Signature};
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::stat::{environ_value, parse_cmdline};
use crate::process::{Identity, Pid};
use crate::service::environment::HOME_VARIABLE;
use crate::service::machine::{Goal, Machine, Past};
use crate::service::spec::{Definition, Id, Spec};
use crate::sys::cgroup::has_limits;
use crate::sys::{Errno, Kernel, Processes, describe};
use crate::wire::{Failure, code};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Where and as what this daemon begins.
#[derive(Clone, Debug)]
pub struct Place {
    /// Absolute path of the home.
    pub home: String,
    /// Its device and inode.
    pub device_inode: (u64, u64),
    pub machine: u64,
    pub boot: u128,
    pub pid_namespace: u64,
    /// The home's key as the lock file has it.
    pub key: Option<u64>,
    /// RLIMIT_LOCKS that we were started with.
    pub inherited_limit: u64,
    /// Marks of an outer opm, for our services to keep.
    pub outer: Option<String>,
    /// The operator's word that nothing lives on another machine or in another PID namespace.
    pub forgets_elsewhere: bool,
    /// Another PID namespace is known to have no process left.
    pub is_namespace_gone: fn(u64) -> bool,
}

/// What of the journal still says something about the processes that we see.
pub fn valid_slots(found: &Found, place: &Place) -> Result<bool, Failure> {
    let Some(header) = &found.header else {
        return Ok(false);
    };
    let any_live = found.slots.iter().any(may_live);
    let refuse = |whose: &str| {
        if place.forgets_elsewhere {
            return Ok(false);
        }
        Err(Failure::new(
            code::REFUSED,
            format!(
                "{}: its services may still run {whose} (stop them there; if nothing of them can \
                 live, 'opm daemon start --forget-elsewhere')",
                place.home
            ),
        ))
    };
    let other = header.pid_namespace != place.pid_namespace;
    // A boot has one kernel: with the same one it is another name of this machine.
    let same_boot = header.boot == place.boot;
    let gone = other && same_boot && (place.is_namespace_gone)(header.pid_namespace);
    if header.machine != place.machine && !same_boot {
        return if any_live { refuse("on another machine") } else { Ok(false) };
    }
    // A container's writable layer is mounted anew at each start, by another device number.
    let remounted = other && header.home.1 == place.device_inode.1;
    let another_boot = !same_boot && !mutant("believe_boot");
    if another_boot || header.home != place.device_inode && !remounted {
        // Another boot: no process of it lives. A copied home: what it records is the original's.
        return Ok(false);
    }
    if other {
        return if any_live && !gone { refuse("in another PID namespace") } else { Ok(false) };
    }
    Ok(true)
}

/// Whether generations may live that nothing on record knows of: what was given and neither signed
/// nor ended was cut off by the end of its daemon; or it signed in a newer journal than this.
pub fn is_incomplete(found: &Found, floor: u64) -> bool {
    let given = |(state, _): &Slot| state.map_or(0, |state| state.generation);
    let is_cut_off = |slot: &Slot| given(slot) > signed(slot).max(emptied(slot));
    // `emptied` alone says what was past when the service was defined, whoever's it was.
    let ended = |slot: &Slot| if emptied(slot) < given(slot) { 0 } else { given(slot) };
    let known = found.slots.iter().map(|slot| signed(slot).max(ended(slot))).max();
    found.header.is_none_or(|header| header.incomplete || floor > known.unwrap_or(0))
        || found.slots.iter().any(is_cut_off)
}

/// What a daemon of this place says of itself.
fn header_of<K: Kernel>(kernel: &mut K, place: &Place, home_key: u64) -> Header {
    let daemon = kernel.own_identity();
    Header {
        machine: place.machine,
        boot: place.boot,
        pid_namespace: place.pid_namespace,
        home_key,
        home: place.device_inode,
        daemon,
        init: daemon.pid == 1,
        alone: kernel.is_alone_in_cgroup(),
        incomplete: false,
        departed: [0; DEPARTED_MAX],
    }
}

/// Whether we have children already that no daemon of ours has started: they have a higher limit.
fn has_strangers<K: Kernel>(kernel: &mut K, mark: Option<LimitMark>) -> bool {
    let mut children = Vec::new();
    kernel.own_children(0, &mut children).ok();
    let own = mark.map_or(u64::MAX, LimitMark::value);
    children.into_iter().any(|pid| kernel.locks_limit(pid).is_ok_and(|(_, hard)| hard > own))
}

impl<K: Kernel> Daemon<K> {
    /// Whether the journal has services whose definition is lost.
    fn has_lost_definitions(&self, found: &Found, valid: bool) -> bool {
        let is_lost = |(id, slot): (Id, &Slot)| {
            let is_used = slot.0.is_some_and(|state| state.definition != 0 && !state.removed);
            is_used && self.services.get(id).is_none()
        };
        valid && (!self.ledger.lost.is_empty() || (0..).zip(&found.slots).any(is_lost))
    }

    /// Slots of which something may live and the definition is lost, with who signed there.
    fn lost_slots(&self, found: &Found) -> BTreeMap<Id, u64> {
        let all = (0..).zip(&found.slots).filter(|(_, slot)| may_live(slot));
        let lost = all.filter(|(id, _)| self.services.get(*id).is_none());
        lost.map(|(id, slot)| (id, signed(slot))).collect()
    }

    /// Begins on a home whose lock we hold. Nothing is launched before the first tick: till then
    /// it can be said where output goes. Errors: exit code and line: the home is another machine's
    /// or namespace's, or can't be written.
    pub fn begin(mut kernel: K, place: Place) -> Result<Self, Failure> {
        let cannot = |what: &str, errno| {
            Failure::plain(format!("cannot use {}/{what}: {}", place.home, describe(errno)))
        };
        let found = load_journal(&mut kernel).map_err(|errno| cannot(JOURNAL, errno))?;
        let valid = valid_slots(&found, &place)?;
        // Its key is the original's, whose services may run: in whatever boot it was copied.
        let copied = found.header.is_some_and(|h| h.home != place.device_inode);
        let known = found.header.map(|header| header.home_key).or(place.key);
        let known = known.filter(|_| !copied);
        let lost_key = match known {
            None if !copied => lost_key(&mut kernel, &place.home),
            _ => None,
        };
        let home_key = known.or(lost_key);
        let home_key =
            home_key.unwrap_or_else(|| LimitMark::home_key(kernel.random(), &place.home));
        let departed = found.header.map_or([0; DEPARTED_MAX], |header| header.departed);
        let header = Header { departed, ..header_of(&mut kernel, &place, home_key) };
        let (ledger, loaded) = Ledger::open(&mut kernel, &found, header)
            .map_err(|(file, errno)| cannot(file, errno))?;
        if let Some(reason) = &loaded.unknown {
            let text =
                format!("{}/services: {reason} (a later opm wrote it: use that one)", place.home);
            return Err(Failure::unreachable(text));
        }
        let is_new = found.header.is_none() && known.is_none() && lost_key.is_none();
        let record = !is_new && is_incomplete(&found, ledger.highest_written);
        let mut loss = Loss { record, key: lost_key.is_some() };
        let mut daemon = Self::empty(kernel, &place, ledger);
        daemon.ledger.is_new = is_new;
        if place.forgets_elsewhere {
            daemon.log.push("told to forget what may live elsewhere".to_owned());
        }
        // Without descriptors or memory "it can't be opened" would read as "it is gone".
        let cannot_adopt = |errno| Failure::plain(format!("cannot adopt: {}", describe(errno)));
        let kept = daemon.kernel.load(KEPT).ok().flatten().filter(|_| valid);
        let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let (services, mut log) = recorded(&found, loaded, valid);
        daemon.log.append(&mut log);
        let mut services = services.into_iter();
        services.try_for_each(|service| daemon.load_service(service)).map_err(cannot_adopt)?;
        daemon.ledger.lost = daemon.lost_slots(&found);
        loss.record |= daemon.has_lost_definitions(&found, valid);
        let must_know = loss.record;
        // Of another boot: an old copy, if anything lives.
        loss.record |= !valid && !is_new;
        if valid && record {
            // What is written next no longer shows it: a daemon that dies here must not hide it.
            daemon.claim(true)?;
        }
        let is_written = daemon.ledger.write_changes(&mut daemon.kernel, &daemon.services);
        if !valid && !is_written {
            return Err(Failure::plain(daemon.ledger.disk_error.unwrap_or_default()));
        }
        daemon.trees.kept = kept;
        let blind = mutant("adopt_blindly");
        let searched =
            if blind { Ok(true) } else { daemon.find_unrecorded(&loss) }.map_err(cannot_adopt)?;
        if !searched && must_know {
            let text = "the journal is lost and /proc can't be read whole: what still runs can't \
                        be told";
            return Err(Failure::plain(format!("{}: {text}", place.home)));
        }
        daemon.claim(daemon.trees.has_unrecorded())?;
        daemon.adopt();
        daemon.resume_rolls();
        Ok(daemon)
    }

    /// Writes the header. `incomplete`: there may live what no record names.
    fn claim(&mut self, incomplete: bool) -> Result<(), Failure> {
        // As it is on record: a home that is made anew gets it again.
        self.ledger.header.incomplete = incomplete;
        self.ledger.claim(&mut self.kernel).map_err(|errno| {
            let reason = describe(errno);
            Failure::plain(format!("cannot use {}/{}: {reason}", self.home, JOURNAL))
        })
    }

    fn empty(mut kernel: K, place: &Place, ledger: Ledger<K>) -> Self {
        let (now, header) = (kernel.now(), ledger.header);
        let mark = LimitMark::of_daemon(place.inherited_limit, header.home_key);
        let marks = Marks {
            own: header.daemon,
            home_key: header.home_key,
            pid_namespace: header.pid_namespace,
            mark,
            own_namespace: kernel.own_namespace(),
            has_strangers: header.daemon.pid == 1 || has_strangers(&mut kernel, mark),
            forged: BTreeSet::default(),
            departed: Departed::of(&header.departed),
        };
        Self {
            kernel,
            home: place.home.clone(),
            services: Services::default(),
            now,
            began: now,
            timers: Timers::default(),
            monitors: Monitors::default(),
            launches: Launches { outer: place.outer.clone(), ..Launches::default() },
            trees: Trees::new(marks),
            ledger,
            events: Events::default(),
            logs: Logs::default(),
            waiters: Waiters::default(),
            outbox: Vec::new(),
            leave: None,
            log: Vec::new(),
        }
    }

    /// The mark that this daemon should bear itself: lower it before anything is spawned.
    pub fn own_limit(&self) -> Option<u64> {
        self.trees.marks.mark.map(LimitMark::value)
    }

    /// The home's key, for the lock file.
    pub fn home_key(&self) -> u64 {
        self.ledger.header.home_key
    }

    /// Takes up what lives, and lets the dead be dead: their trees must drain like any other.
    fn adopt(&mut self) {
        self.take_back_sockets();
        if self.services.iter().any(|service| has_limits(&service.definition.spec.exec)) {
            self.kernel.find_leaves();
        }
        let mut facts = Vec::new();
        self.with_trees(|trees, cx| trees.adopt(cx, &mut facts));
        let alive =
            self.trees.iter().filter_map(|(id, tree)| Some((id, tree.generation, tree.pid()?)));
        for (id, generation, pid) in alive.collect::<Vec<_>>() {
            self.emit(id, generation, "adopted", |event| event.pid = Some(pid));
        }
        // What was being stopped when its daemon died. Not one that is dead and traced: there is
        // nothing to signal, and it is started again if somebody wants it up meanwhile.
        let is_stopping = |service: &&Service| {
            let is_wanted_down = service.is_live() && service.machine.goal() == Goal::Down;
            is_wanted_down && !self.trees.is_traced(service.id)
        };
        let stopping = self.services.iter().filter(is_stopping).map(|service| service.id);
        self.stop_in_order(&stopping.collect::<Vec<Id>>());
        self.learn(facts);
    }

    /// Marked processes of incarnations that no record names become their service again, or drain
    /// before one of their name starts. False: /proc could not be read whole, some may be missed.
    /// Errors: one could not be looked at for want of descriptors or memory.
    fn find_unrecorded(&mut self, loss: &Loss) -> Result<bool, Errno> {
        let given = self.ledger.sequence.0;
        let found = self.with_trees(|trees, cx| trees.find_unrecorded(cx, loss, given))?;
        let mut living = found.living;
        for lost in found.lost {
            living.insert(self.take_in(lost, &living, loss)?);
        }
        Ok(found.whole)
    }

    /// `living`: generations of which a process was seen. Gives this one's.
    fn take_in(&mut self, lost: Lost, living: &BTreeSet<u64>, loss: &Loss) -> Result<u64, Errno> {
        let generation = lost.generation;
        if loss.record && lost.mark.is_some() {
            // Of a lost record this is all that is left. What follows must be told from it.
            self.ledger.sequence.0 = self.ledger.sequence.0.max(generation.0);
        }
        let tree = self.with_trees(|trees, cx| trees.tree_of(cx, &lost))?;
        let leads = tree.pidfd.is_some();
        let known = lost.name.as_ref().and_then(|name| self.services.id_of(name));
        // A later one would not be there if all of the recorded one were not confirmed gone: the
        // record is an old copy.
        let is_past =
            |tree: &Tree<K>| tree.generation < generation && !living.contains(&tree.generation.0);
        let id = match (known, lost.leader(), &lost.name, lost.mark) {
            (Some(id), ..) if self.trees.get(id).is_none_or(is_past) => Some(id),
            // Where the key is its own word, too, it must be one of our user's: else anybody could
            // have us run what they like.
            (None, Some(leader), Some(name), Some(mark))
                if leads
                    && (!loss.key
                        || self.kernel.uids(leader) == Ok([self.kernel.own_uid(); 3])) =>
            {
                if self.ledger.lost.get(&mark.id) == Some(&generation.0) {
                    self.ledger.lost.remove(&mark.id);
                }
                self.recover_definition(leader, name, mark.id)
            }
            _ => None,
        };
        let Some((id, service)) = id.and_then(|id| Some((id, self.services.get_mut(id)?))) else {
            self.with_trees(|trees, cx| trees.keep_unrecorded(cx, lost, tree));
            return Ok(generation.0);
        };
        let goal = if leads { Goal::Up } else { service.machine.goal() };
        let (deaths, restarts) = (service.machine.deaths(), service.machine.restarts());
        let past = Past::Alive { generation, since: tree.since, ready: true };
        let policy = service.definition.spec.policy.clone();
        service.machine = Machine::resume(policy, goal, deaths, restarts, past, self.now);
        service.pid = tree.leader.pid;
        service.record.generation = service.record.generation.max(generation.0);
        service.record.main = None;
        service.record.emptied = service.record.emptied.min(generation.0.saturating_sub(1));
        service.note_announced();
        let signature = Signature {
            generation: generation.0,
            leader: tree.leader,
            parent: Identity::default(),
            namespace: tree.namespace.unwrap_or_default(),
        };
        self.trees.insert(id, tree);
        self.ledger.dirty.insert(id);
        self.sign_for(id, &signature);
        self.after_step(id);
        Ok(generation.0)
    }

    /// Puts on record again who signed in a lost journal: the next daemon may not find marks.
    fn sign_for(&mut self, id: Id, signature: &Signature) {
        if self.ledger.sign(&mut self.kernel, id, signature).is_ok()
            && let Some(service) = self.services.get(id)
        {
            self.ledger.write_slot(&mut self.kernel, id, &service.state()).ok();
        }
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
        let ids = self.define(vec![(Some(id), Definition { spec, base })]);
        let id = ids.ok()?.first().copied()?;
        self.log.push(format!("{name}: its record was lost; recovered from pid {leader}"));
        if let Some(service) = self.services.get_mut(id) {
            service.note = Some("its record was lost; recovered from the running process".into());
        }
        Some(id)
    }
}

/// The key of the home that was at this path before, as its services have it: in full if one says
/// in its environment that it is of a home here, else as far as their limits say.
///
/// Nothing is lost whose daemon lives: it goes after its home, which was moved or removed.
///
/// Only processes of our own user are asked: nobody else can stop our services from starting.
pub(crate) fn lost_key<K: Kernel>(kernel: &mut K, path: &str) -> Option<u64> {
    let (mut lost, mut held) = (BTreeMap::default(), BTreeSet::default());
    let mut all = Processes::default();
    while let Some(pid) = all.next(kernel).ok()? {
        let Ok(limit) = kernel.locks_limit(pid) else { continue };
        let (daemons, lost_home) =
            (LimitMark::daemons_home(limit), LimitMark::lost_home(limit, path));
        let Some(home) = daemons.or(lost_home) else { continue };
        let own = kernel.own_uid();
        if !kernel.uids(pid).is_ok_and(|uids| uids.contains(&own)) {
            continue;
        }
        if daemons.is_some() {
            let is_alive = kernel.stat(pid).is_ok_and(|stat| !stat.is_zombie());
            if is_alive && pid != kernel.own_identity().pid {
                held.insert(home);
            }
            continue;
        }
        // A number that its parent has yet to wait for keeps nobody from anything.
        if kernel.pidfd_open(pid).is_ok_and(|held| kernel.is_dead(&held) == Ok(true)) {
            continue;
        }
        let environ = kernel.environ(pid).unwrap_or_default();
        let said = environ_value(&environ, HOME_VARIABLE);
        if said.is_some_and(|said| said != path.as_bytes()) {
            continue;
        }
        let mark = said.and_then(|_| EnvMark::parse(environ_value(&environ, MARK_VARIABLE)?));
        match mark.map(|mark| mark.home_key) {
            Some(key) if LimitMark::is_home(home, key) => drop(lost.insert(home, Some(key))),
            Some(_) => {}
            // It lost its environment.
            None => drop(lost.entry(home).or_default()),
        }
    }
    let free = || lost.iter().filter(|(home, _)| !held.contains(home));
    let told = free().find_map(|(_, key)| *key);
    told.or_else(|| {
        let (home, _) = free().next()?;
        Some(LimitMark::key_of_lost(kernel.random(), *home))
    })
}
