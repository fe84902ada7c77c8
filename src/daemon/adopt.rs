//! Taking over what earlier daemons left: first by record, then by marks. Only then does
//! anything start, and only then is anybody answered.
use super::Daemon;
use super::events::Events;
use super::journal::{self, Found, Journal};
use super::request::Refusal;
use super::scan::Sighting;
use super::store::{Loaded, Store};
use super::unit::{Run, Unit};
use crate::mutant::mutant;
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::record::{Header, Signature, State};
use crate::process::stat::{environ_value, parse_cmdline};
use crate::process::{Exit, Identity, Pid};
use crate::service::machine::{Generation, Goal, Input, Machine, Past, Sequence};
use crate::service::policy::restart_cooldown_delay_ms;
use crate::service::spec::{Definition, Id, Policy, Spec};
use crate::sys::{Kernel, Wake, describe};
use crate::wire::{Status, code};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Milliseconds of one tick of start times (USER_HZ is 100 on every Linux that we run on).
const TICK_MS: u64 = 10;

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
    /// Another PID namespace is known to have no process left.
    pub is_namespace_gone: fn(u64) -> bool,
}

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

/// What of the journal still says something about the processes that we see.
fn valid_slots(found: &Found, place: &Place) -> Result<bool, Refusal> {
    let Some(header) = &found.header else {
        return Ok(false);
    };
    let lives = |(state, signature): &(Option<State>, Option<Signature>)| {
        signature.is_some_and(|s| s.generation > state.map_or(0, |state| state.emptied))
    };
    let any_live = found.slots.iter().any(lives);
    let refuse = |whose: &str| {
        Err((
            code::REFUSED,
            format!(
                "{}: its services may still run {whose} (stop them there, or use another home)",
                place.home
            ),
        ))
    };
    if header.machine != place.machine {
        return if any_live {
            refuse("on another machine")
        } else {
            Ok(false)
        };
    }
    // A container's writable layer is mounted anew at each start, by another device number.
    let remounted =
        header.home.1 == place.device_inode.1 && header.pid_namespace != place.pid_namespace;
    if header.boot != place.boot || header.home != place.device_inode && !remounted {
        // Another boot: no process of it lives. A copied home: what it records is the original's.
        return Ok(false);
    }
    if header.pid_namespace != place.pid_namespace {
        let gone = (place.is_namespace_gone)(header.pid_namespace);
        return if any_live && !gone {
            refuse("in another PID namespace")
        } else {
            Ok(false)
        };
    }
    Ok(true)
}

impl<K: Kernel> Daemon<K> {
    /// Begins on a home whose lock we hold.
    ///
    /// # Errors
    /// Exit code and line: the home is another machine's or namespace's, or can't be written.
    pub fn begin(mut kernel: K, place: Place) -> Result<Self, Refusal> {
        let cannot = |what: &str, errno| {
            (
                code::FAILED,
                format!("cannot use {}/{what}: {}", place.home, describe(errno)),
            )
        };
        let found = journal::load(&mut kernel).map_err(|errno| cannot(journal::FILE, errno))?;
        let valid = valid_slots(&found, &place)?;
        let copied = found.header.is_some_and(|h| {
            h.home != place.device_inode && h.boot == place.boot && h.machine == place.machine
        });
        let known = found.header.map(|header| header.home_key).or(place.key);
        let home_key = known.filter(|_| !copied).unwrap_or_else(|| kernel.random());
        let own = kernel.own_identity();
        let header = Header {
            machine: place.machine,
            boot: place.boot,
            pid_namespace: place.pid_namespace,
            home_key,
            home: place.device_inode,
            daemon: own,
            init: own.pid == 1,
            alone: kernel.is_alone_in_cgroup(),
        };
        let (store, loaded) =
            Store::open(&mut kernel).map_err(|errno| cannot("services", errno))?;
        let slots = u32::try_from(found.slots.len()).unwrap_or(0);
        let journal = Journal::open(&mut kernel, &header, slots)
            .map_err(|errno| cannot(journal::FILE, errno))?;
        let highest = found.slots.iter().map(|(state, signature)| {
            let state = state.map_or(0, |state| state.generation.max(state.emptied));
            state.max(signature.map_or(0, |signature| signature.generation))
        });
        let sequence = Sequence(highest.max().unwrap_or(0));
        let now = kernel.now();
        let mut daemon = Self {
            kernel,
            home: place.home.clone(),
            header,
            own,
            mark: LimitMark::of_daemon(place.inherited_limit, home_key),
            outer: place.outer.clone(),
            units: Vec::new(),
            names: HashMap::new(),
            sequence,
            now,
            began: now,
            deadlines: Default::default(),
            leaders: HashMap::new(),
            orphans: BTreeMap::new(),
            dead_orphans: Vec::new(),
            gates: Default::default(),
            traced: Default::default(),
            counted: false,
            look_again_at: None,
            children: Vec::new(),
            launches: Default::default(),
            strays: Vec::new(),
            actions: Vec::new(),
            journal,
            store,
            dirty: Default::default(),
            touched: Default::default(),
            events: Events::default(),
            pending: BTreeMap::new(),
            waiting: HashMap::new(),
            next_pending: 0,
            asker: 0,
            outbox: Vec::new(),
            leave: None,
            log: Vec::new(),
            trouble: None,
            foreground: HashMap::new(),
        };
        daemon.load_units(&found, loaded, valid);
        daemon.adopt();
        Ok(daemon)
    }

    /// The mark that this daemon should bear itself: lower it before anything is spawned.
    pub fn own_limit(&self) -> Option<u64> {
        self.mark.map(LimitMark::value)
    }

    /// The home's key, for the lock file.
    pub fn home_key(&self) -> u64 {
        self.header.home_key
    }

    fn load_units(&mut self, found: &Found, mut loaded: Loaded, valid: bool) {
        if loaded.damaged > 0 {
            let count = loaded.damaged;
            self.log.push(format!(
                "{}/services: {count} damaged lines were left out",
                self.home
            ));
        }
        if found.slots.is_empty() || (found.header.is_none() && !loaded.services.is_empty()) {
            // The journal is lost: the newest definition of each id and name is all there is.
            for (line, (id, definition)) in std::mem::take(&mut loaded.services) {
                let taken = self.names.get(&definition.spec.name).copied();
                for old in taken.into_iter().chain([id]) {
                    if let Some(old) = self.units.get_mut(old as usize).and_then(Option::take) {
                        self.names.remove(old.name());
                    }
                }
                self.load_unit(id, line, definition, State::default(), None);
            }
            return;
        }
        for (id, (state, signature)) in (0..).zip(&found.slots) {
            let Some(state) = state.filter(|state| state.definition != 0) else {
                continue;
            };
            let Some((_, definition)) = loaded.services.remove(&state.definition) else {
                self.log
                    .push(format!("service {id}: its definition is lost"));
                continue;
            };
            let signature = signature.filter(|_| valid);
            let state = if valid {
                state
            } else {
                State {
                    goal_up: false,
                    ..state
                }
            };
            self.load_unit(id, state.definition, definition, state, signature);
        }
    }

    fn load_unit(
        &mut self,
        id: Id,
        line: u64,
        definition: Definition,
        state: State,
        signature: Option<Signature>,
    ) {
        let policy = definition.spec.policy;
        let goal = if state.goal_up { Goal::Up } else { Goal::Down };
        let alive = signature.filter(|signature| signature.generation > state.emptied);
        let (run, past) = match alive {
            Some(signature) => {
                let run = self.take_over(&signature, &state);
                let generation = Generation(signature.generation);
                let since = run.since;
                (Some(run), Past::Alive { generation, since })
            }
            None => (None, self.past_of(&state, &policy)),
        };
        let machine = Machine::resume(policy, goal, state.deaths, state.restarts, past, self.now);
        let generation = state.generation.max(alive.map_or(0, |s| s.generation));
        let mut unit = Unit {
            id,
            definition,
            line,
            machine,
            run,
            emptied: if alive.is_some() {
                state.emptied
            } else {
                generation
            },
            generation,
            started_at: state.started_at,
            exited_at: state.exited_at,
            restarted_at: state.restarted_at,
            exit: state.exit,
            removing: false,
            provisional: false,
            halted: state.halted,
            launch_error: None,
            note: None,
            deadline: None,
            sample: None,
            announced: Status::Stopped,
        };
        unit.announced = unit.status();
        if let Err(errno) = self.journal.reserve(&mut self.kernel, id) {
            self.trouble = Some(format!("cannot extend the journal: {}", describe(errno)));
        }
        self.insert(unit);
        self.after_step(id);
    }

    fn past_of(&mut self, state: &State, policy: &Policy) -> Past {
        if state.failed {
            return Past::Failed;
        }
        if !state.goal_up {
            return Past::Down;
        }
        let delay = match state.deaths {
            0 => 0,
            deaths => restart_cooldown_delay_ms(policy.restart_delay, deaths),
        };
        let waited = self.kernel.wall().saturating_sub(state.exited_at);
        Past::Due {
            delay: delay.saturating_sub(waited),
        }
    }

    /// Opens a recorded leader. What is not exactly the recorded process is not it.
    fn take_over(&mut self, signature: &Signature, state: &State) -> Run<K> {
        let recorded = signature.leader;
        let pidfd = self.open_same(recorded);
        let child = pidfd
            .as_ref()
            .is_some_and(|pidfd| self.kernel.wait(pidfd, false).is_ok());
        let started = recorded.start_time * TICK_MS;
        let age = self.kernel.wall().saturating_sub(state.started_at);
        let since = if started > 0 {
            started
        } else {
            self.now.saturating_sub(age)
        };
        Run {
            generation: Generation(signature.generation),
            leader: recorded,
            pidfd,
            launch: None,
            exit: None,
            child,
            lineage: signature.parent.is_same(&self.own),
            adopted: true,
            since: since.min(self.now),
            kills: 0,
            asked: false,
            failure: None,
            members: BTreeMap::new(),
        }
    }

    fn open_same(&mut self, recorded: Identity) -> Option<K::Pidfd> {
        // First the handle, then what it is: the other way round the pid could change hands.
        let pidfd = self.kernel.pidfd_open(recorded.pid).ok()?;
        let inode = self.kernel.inode(&pidfd).unwrap_or(0);
        let start_time = self
            .kernel
            .stat(recorded.pid)
            .map_or(0, |stat| stat.start_time);
        let seen = Identity {
            pid: recorded.pid,
            start_time,
            inode,
        };
        seen.is_same(&recorded).then_some(pidfd)
    }

    /// Watches what lives, looks for marked processes that no record names, and lets the dead
    /// be dead: their trees must drain like any other.
    fn adopt(&mut self) {
        if !mutant("adopt_blindly") {
            self.find_strays();
        }
        let ids: Vec<Id> = self
            .all_units()
            .filter(|u| u.run.is_some())
            .map(|u| u.id)
            .collect();
        let mut dead = Vec::new();
        for id in ids {
            let Some(run) = self.units[id as usize]
                .as_ref()
                .and_then(|u| u.run.as_ref())
            else {
                continue;
            };
            if run.child {
                self.leaders.insert(run.leader.pid, id);
            }
            match &run.pidfd {
                None => dead.push((id, Exit::Unknown)),
                Some(pidfd) => {
                    if self.kernel.watch(pidfd, Wake::Leader(id)).is_err() {
                        self.look_again_at = Some(self.now);
                    }
                    let (generation, pid) = (run.generation, run.leader.pid);
                    let alive = !self.kernel.is_dead(pidfd).unwrap_or(false);
                    if alive {
                        self.announce(id, generation, "adopted", |e| e.pid = Some(pid));
                        if self
                            .unit(id)
                            .is_some_and(|u| u.machine.goal() == Goal::Down)
                        {
                            // It was being stopped when its daemon died.
                            self.feed(id, Input::Stop);
                        }
                    } else if run_child_is_waitable(self, id) {
                        dead.push((id, Exit::Unknown));
                    }
                }
            }
        }
        self.count_children();
        for (id, guess) in dead {
            let exit = self.exit_of_adopted(id).unwrap_or(guess);
            self.adopted_leader_is_dead(id, exit);
        }
        self.check_gates();
        self.tick();
    }

    fn exit_of_adopted(&mut self, id: Id) -> Option<Exit> {
        let unit = self.units.get_mut(id as usize)?.as_deref_mut()?;
        let run = unit.run.as_ref()?;
        let pidfd = run.pidfd.as_ref()?;
        match self.kernel.wait(pidfd, false) {
            Ok(exit) => exit,
            Err(_) => Some(self.kernel.exit_of_stranger(pidfd, run.leader.pid)),
        }
    }

    fn adopted_leader_is_dead(&mut self, id: Id, exit: Exit) {
        let wall = self.kernel.wall();
        let Some(unit) = self.unit_mut(id) else {
            return;
        };
        let Some(run) = unit.run.as_mut() else { return };
        run.exit = Some(exit);
        let (generation, pid) = (run.generation, run.leader.pid);
        unit.exit = Some(exit);
        unit.exited_at = wall;
        self.gates.insert(id);
        self.announce_exit(id, generation, pid, exit);
        let ending = match exit {
            Exit::Code(0) => crate::service::machine::Ending::Clean,
            Exit::Code(_) | Exit::Signal(_) | Exit::Unknown => {
                crate::service::machine::Ending::Failure
            }
        };
        if self
            .unit(id)
            .is_some_and(|unit| unit.machine.goal() == Goal::Down)
        {
            // It was being stopped when its daemon died.
            self.feed(id, Input::Stop);
        }
        self.feed(id, Input::LeaderExited(generation, ending));
    }

    /// A stray that a new service of its name takes in: it drains first.
    pub(crate) fn stray_leader_is_dead(&mut self, id: Id, generation: Generation) {
        if let Some(run) = self.unit_mut(id).and_then(|unit| unit.run.as_mut()) {
            run.exit = Some(Exit::Unknown);
        }
        self.gates.insert(id);
        self.feed(
            id,
            Input::LeaderExited(generation, crate::service::machine::Ending::Failure),
        );
    }

    /// The stray that must drain before this service starts.
    pub(crate) fn take_stray(&mut self, unit: &Unit<K>) -> Option<Stray<K>> {
        let mine = |stray: &Stray<K>| stray.name.as_deref() == Some(unit.name());
        let at = self.strays.iter().position(mine)?;
        Some(self.strays.swap_remove(at))
    }

    /// Marked processes of incarnations that no record names.
    fn find_strays(&mut self) {
        let Some(found) = self.sightings(&[]) else {
            self.log
                .push("cannot read /proc whole: marked processes may be missed".to_owned());
            return;
        };
        let known = |daemon: &Self, sighting: &Sighting| {
            daemon.all_units().any(|unit| {
                unit.run
                    .as_ref()
                    .is_some_and(|run| sighting.names(run.generation.0))
            })
        };
        let mut lost: BTreeMap<u64, Vec<Lost>> = BTreeMap::new();
        for sighting in found {
            if known(self, &sighting) {
                continue;
            }
            let environ = self.kernel.environ(sighting.pid).unwrap_or_default();
            let mark = environ_value(&environ, MARK_VARIABLE).and_then(EnvMark::parse);
            let mark = mark.filter(|mark| mark.home_key == self.header.home_key);
            let name = environ_value(&environ, "OPM_NAME");
            let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
            let generation = mark
                .map(|mark| mark.generation)
                .or(sighting.part)
                .unwrap_or(0);
            lost.entry(generation)
                .or_default()
                .push((sighting.pid, mark, name));
        }
        for (generation, members) in lost {
            self.sequence.0 = self.sequence.0.max(generation);
            self.take_in_lost(Generation(generation), &members);
        }
    }

    fn take_in_lost(&mut self, generation: Generation, members: &[Lost]) {
        let mark = members.iter().find_map(|(_, mark, _)| *mark);
        let name = members.iter().find_map(|(_, _, name)| name.clone());
        let leader = mark
            .map(|mark| mark.pid)
            .filter(|pid| members.iter().any(|m| m.0 == *pid));
        let run = self.run_of_lost(generation, leader);
        let leads = run.pidfd.is_some();
        let known = name.as_ref().and_then(|name| self.names.get(name)).copied();
        let id = match (known, leader, &name, mark) {
            (Some(id), ..) if self.unit(id).is_some_and(|unit| unit.run.is_none()) => Some(id),
            (None, Some(leader), Some(name), Some(mark)) if leads => {
                self.recover_definition(leader, name, mark.id)
            }
            _ => None,
        };
        let Some(id) = id else {
            self.note_stray(name, run, members);
            return;
        };
        let (now, since) = (self.now, run.since);
        let Some(unit) = self.unit_mut(id) else {
            return;
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
        self.after_step(id);
    }

    /// Nothing can take these in now: a service of their name does when it is defined, and where
    /// not even a name is left, nothing starts while they live.
    fn note_stray(&mut self, name: Option<String>, run: Run<K>, members: &[Lost]) {
        let pids: Vec<Pid> = members.iter().map(|member| member.0).collect();
        let whose = name
            .clone()
            .unwrap_or_else(|| "an unknown service".to_owned());
        self.log
            .push(format!("pid {pids:?} of {whose} has no record"));
        let mut held = Vec::new();
        for pid in pids {
            // One that can't be opened is gone, or (EMFILE) held by its number: then it blocks
            // for too long rather than too short.
            let pidfd = self.kernel.pidfd_open(pid);
            if pidfd
                .as_ref()
                .is_err_and(|errno| *errno == crate::sys::Errno::SRCH)
            {
                continue;
            }
            held.push((pid, pidfd.ok()));
        }
        self.strays.push(Stray { name, run, held });
    }

    /// Live processes of lost incarnations of which not even the service's name is known: any
    /// service could be theirs.
    pub(crate) fn nameless(&mut self) -> Vec<Pid> {
        for stray in self.strays.iter_mut().filter(|stray| stray.name.is_none()) {
            stray.held.retain(|(_, pidfd)| match pidfd {
                Some(pidfd) => !self.kernel.is_dead(pidfd).unwrap_or(false),
                None => true,
            });
        }
        self.strays
            .retain(|stray| stray.name.is_some() || !stray.held.is_empty());
        let nameless = self.strays.iter().filter(|stray| stray.name.is_none());
        nameless
            .flat_map(|stray| stray.held.iter().map(|(pid, _)| *pid))
            .collect()
    }

    fn run_of_lost(&mut self, generation: Generation, leader: Option<Pid>) -> Run<K> {
        let pidfd = leader.and_then(|pid| self.kernel.pidfd_open(pid).ok());
        // The mark was read before the pidfd was open: it must be there still.
        let pidfd = pidfd.filter(|_| leader.is_some_and(|pid| self.bears(pid, generation.0)));
        let inode = pidfd
            .as_ref()
            .and_then(|pidfd| self.kernel.inode(pidfd))
            .unwrap_or(0);
        let pid = leader.unwrap_or(0);
        let start_time = leader
            .and_then(|pid| self.kernel.stat(pid).ok())
            .map_or(0, |stat| stat.start_time);
        let child = pidfd
            .as_ref()
            .is_some_and(|pidfd| self.kernel.wait(pidfd, false).is_ok());
        Run {
            generation,
            leader: Identity {
                pid,
                start_time,
                inode,
            },
            pidfd,
            launch: None,
            exit: None,
            child,
            lineage: false,
            adopted: true,
            since: if start_time > 0 {
                start_time * TICK_MS
            } else {
                self.now
            },
            kills: 0,
            asked: false,
            failure: None,
            members: BTreeMap::new(),
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
        let base = Rc::new(pairs.collect::<Vec<_>>());
        let policy = Policy::default();
        let spec = Spec {
            name: name.to_owned(),
            command,
            cwd,
            env: Vec::new(),
            critical: false,
            policy,
        };
        spec.check().ok()?;
        let ids = self.define_all(vec![(Some(id), Definition { spec, base })]);
        let id = ids.ok()?.first().copied()?;
        self.log.push(format!(
            "{name}: its record was lost; recovered from pid {leader}"
        ));
        if let Some(unit) = self.unit_mut(id) {
            unit.note = Some("its record was lost; recovered from the running process".to_owned());
        }
        Some(id)
    }
}

/// Whether a dead leader's end may be handled now: not while a tracer still has its status.
fn run_child_is_waitable<K: Kernel>(daemon: &mut Daemon<K>, id: Id) -> bool {
    let Some(unit) = daemon
        .units
        .get_mut(id as usize)
        .and_then(Option::as_deref_mut)
    else {
        return false;
    };
    let Some(run) = unit.run.as_ref() else {
        return false;
    };
    let Some(pidfd) = run.pidfd.as_ref() else {
        return true;
    };
    !run.child || daemon.kernel.wait(pidfd, false) != Ok(None)
}
