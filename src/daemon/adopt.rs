//! Taking over what earlier daemons left: first by record, then by marks. Only then does
//! anything start, and only then is anybody answered.
use super::Daemon;
use super::events::Events;
use super::journal::{self, Found, Journal};
use super::request::Refusal;
use super::sorted::Map;
use super::store::{Loaded, Store};
use super::unit::{Run, Unit};
use crate::mutant::mutant;
use crate::process::mark::LimitMark;
use crate::process::record::{Header, Signature, State};
use crate::process::{Exit, Identity};
use crate::service::machine::{Generation, Goal, Input, Machine, Past, Sequence};
use crate::service::policy::restart_cooldown_delay_ms;
use crate::service::spec::{Definition, Id, Policy};
use crate::sys::{Errno, Kernel, describe};
use crate::wire::{Status, code};
use std::collections::HashMap;

/// Milliseconds of one tick of start times (USER_HZ is 100 on every Linux that we run on).
pub(crate) const TICK_MS: u64 = 10;

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

/// What of the journal still says something about the processes that we see.
pub(crate) fn valid_slots(found: &Found, place: &Place) -> Result<bool, Refusal> {
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
    let other = header.pid_namespace != place.pid_namespace;
    // A boot has one kernel: a container made anew has another host name only.
    let gone =
        other && header.boot == place.boot && (place.is_namespace_gone)(header.pid_namespace);
    if header.machine != place.machine && !gone {
        return if any_live {
            refuse("on another machine")
        } else {
            Ok(false)
        };
    }
    // A container's writable layer is mounted anew at each start, by another device number.
    let remounted = other && header.home.1 == place.device_inode.1;
    let another_boot = header.boot != place.boot && !mutant("believe_boot");
    if another_boot || header.home != place.device_inode && !remounted {
        // Another boot: no process of it lives. A copied home: what it records is the original's.
        return Ok(false);
    }
    if other {
        return if any_live && !gone {
            refuse("in another PID namespace")
        } else {
            Ok(false)
        };
    }
    Ok(true)
}

/// The highest generation that a slot knows of.
fn highest(found: &Found, id: Id) -> u64 {
    let slot = found.slots.get(id as usize).copied();
    let (state, signature) = slot.unwrap_or_default();
    let state = state.map_or(0, |state| state.generation.max(state.emptied));
    state.max(signature.map_or(0, |signature| signature.generation))
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
        let journal =
            Journal::open(&mut kernel, slots).map_err(|errno| cannot(journal::FILE, errno))?;
        let sequence = Sequence((0..slots).map(|id| highest(&found, id)).max().unwrap_or(0));
        let mut daemon = Self::empty(kernel, &place, header, (journal, store), sequence);
        // Without descriptors or memory "it can't be opened" would read as "it is gone".
        daemon
            .load_units(&found, loaded, valid)
            .map_err(|errno| (code::FAILED, format!("cannot adopt: {}", describe(errno))))?;
        daemon.write_dirty();
        if !valid && !daemon.dirty.is_empty() {
            let text = daemon.trouble.unwrap_or_default();
            return Err((code::FAILED, text));
        }
        let blind = mutant("adopt_blindly");
        let searched = if blind {
            Ok(true)
        } else {
            daemon.find_strays()
        };
        let searched = searched
            .map_err(|errno| (code::FAILED, format!("cannot adopt: {}", describe(errno))))?;
        let fresh = found.header.is_none() && place.key.is_none();
        if !searched && found.header.is_none() && !fresh {
            let text = format!(
                "{}: the journal is lost and /proc can't be read whole: what still runs can't be \
                 told",
                place.home
            );
            return Err((code::FAILED, text));
        }
        let claimed = daemon.journal.claim(&mut daemon.kernel, &header);
        claimed.map_err(|errno| cannot(journal::FILE, errno))?;
        daemon.adopt();
        Ok(daemon)
    }

    fn empty(
        kernel: K,
        place: &Place,
        header: Header,
        (journal, store): (Journal<K::File>, Store<K::File>),
        sequence: Sequence,
    ) -> Self {
        let now = kernel.now();
        Self {
            kernel,
            home: place.home.clone(),
            header,
            own: header.daemon,
            mark: LimitMark::of_daemon(place.inherited_limit, header.home_key),
            outer: place.outer.clone(),
            units: Vec::new(),
            names: HashMap::new(),
            sequence,
            now,
            began: now,
            deadlines: Default::default(),
            leaders: HashMap::new(),
            orphans: Map::new(),
            dead_orphans: Vec::new(),
            gates: Default::default(),
            traced: Default::default(),
            unwatched: Default::default(),
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
            pending: Map::new(),
            waiting: HashMap::new(),
            next_pending: 0,
            asker: 0,
            outbox: Vec::new(),
            leave: None,
            log: Vec::new(),
            trouble: None,
            foreground: HashMap::new(),
        }
    }

    /// The mark that this daemon should bear itself: lower it before anything is spawned.
    pub fn own_limit(&self) -> Option<u64> {
        self.mark.map(LimitMark::value)
    }

    /// The home's key, for the lock file.
    pub fn home_key(&self) -> u64 {
        self.header.home_key
    }

    fn load_units(&mut self, found: &Found, mut loaded: Loaded, valid: bool) -> Result<(), Errno> {
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
                let state = State {
                    generation: highest(found, id),
                    ..State::default()
                };
                self.load_unit(id, line, definition, state, None)?;
            }
            return Ok(());
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
                    generation: highest(found, id),
                    ..state
                }
            };
            self.load_unit(id, state.definition, definition, state, signature)?;
        }
        self.load_unrecorded(found, loaded, valid)
    }

    /// Definitions whose slot was never written: the daemon died in the turn that defined them,
    /// or while it made up for a lost journal. A removed service's slot is written, and free; but
    /// if something signed it since, the next service of that slot was forked in such a turn.
    fn load_unrecorded(&mut self, found: &Found, loaded: Loaded, valid: bool) -> Result<(), Errno> {
        let mut newest: Map<Id, (u64, Definition)> = Map::new();
        for (line, (id, definition)) in loaded.services {
            newest.insert(id, (line, definition));
        }
        for (id, (line, definition)) in newest {
            let slot = found.slots.get(id as usize).copied();
            let (state, signature) = slot.unwrap_or_default();
            let signed = |state: State| signature.is_some_and(|s| s.generation > state.emptied);
            let past = state.is_some_and(|state| state.definition != 0 || !signed(state));
            let signature = signature.filter(|_| valid);
            if past || self.names.contains_key(&definition.spec.name) {
                continue;
            }
            let state = State {
                goal_up: signature.is_some(),
                // With a signature that is not ours to believe, that one is past.
                generation: signature.map_or(highest(found, id), |_| 0),
                emptied: state.map_or(0, |state| state.emptied),
                ..State::default()
            };
            self.load_unit(id, line, definition, state, signature)?;
        }
        Ok(())
    }

    fn load_unit(
        &mut self,
        id: Id,
        line: u64,
        definition: Definition,
        state: State,
        signature: Option<Signature>,
    ) -> Result<(), Errno> {
        let policy = definition.spec.policy;
        let goal = if state.goal_up { Goal::Up } else { Goal::Down };
        let alive = signature.filter(|signature| signature.generation > state.emptied);
        let (run, past) = match alive {
            Some(signature) => {
                let run = self.take_over(&signature, &state)?;
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
        Ok(())
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
    fn take_over(&mut self, signature: &Signature, state: &State) -> Result<Run<K>, Errno> {
        let recorded = signature.leader;
        let pidfd = self.open_same(recorded)?;
        let child = pidfd
            .as_ref()
            .is_some_and(|pidfd| self.kernel.wait(pidfd, false).is_ok());
        let started = recorded.start_time.saturating_mul(TICK_MS);
        let age = self.kernel.wall().saturating_sub(state.started_at);
        let since = if started > 0 {
            started
        } else {
            self.now.saturating_sub(age)
        };
        Ok(Run {
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
            members: Map::new(),
        })
    }

    fn open_same(&mut self, recorded: Identity) -> Result<Option<K::Pidfd>, Errno> {
        // First the handle, then what it is: the other way round the pid could change hands.
        let pidfd = match self.kernel.pidfd_open(recorded.pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(_) if mutant("error_is_gone") => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let inode = self.kernel.inode(&pidfd).unwrap_or(0);
        let start_time = match self.kernel.stat(recorded.pid) {
            Ok(stat) => stat.start_time,
            // IO: it was cut off by the end of the process.
            Err(Errno::SRCH | Errno::NOENT | Errno::IO) => 0,
            // Not needed where there are inodes.
            Err(_) if inode != 0 && recorded.inode != 0 => 0,
            Err(errno) => return Err(errno),
        };
        let seen = Identity {
            pid: recorded.pid,
            start_time,
            inode,
        };
        Ok(seen.is_same(&recorded).then_some(pidfd))
    }

    /// Watches what lives, looks for marked processes that no record names, and lets the dead
    /// be dead: their trees must drain like any other.
    fn adopt(&mut self) {
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
                    let (generation, pid) = (run.generation, run.leader.pid);
                    let alive = !self.kernel.is_dead(pidfd).unwrap_or(false);
                    self.watch_run(id);
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
