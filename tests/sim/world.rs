//! The truth: processes, files and time as a kernel has them, and what nobody may ever see.
use crate::faults::Faults;
use crate::files::Files;
use crate::order::Order;
use crate::proc::{Proc, State};
use crate::rng::Rng;
use opm::process::mark::LimitMark;
use opm::process::{Exit, Namespace, Pid};
use opm::sys::{Features, Launch, Wake};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A process for as long as the machine runs; what a pidfd's inode is.
pub(crate) type Key = u64;
/// The parent of orphans that nobody else adopts.
pub(crate) const INIT: Key = 1;
/// Milliseconds of a tick of start times.
pub(crate) const TICK_MS: u64 = 10;
pub(crate) const UNLIMITED: (u64, u64) = (u64::MAX, u64::MAX);
/// The time namespace of the daemon and of strangers.
pub(crate) const OUTSIDE: Namespace = Namespace { id: 1, inode: 1 };
/// The PID namespaces of the daemon, and of containers.
pub(crate) const PID_NAMESPACES: [u64; 2] = [9, 10];
/// Names of the services; the truth counts incarnations by name.
pub(crate) const NAMES: [&str; 3] = ["alpha", "beta-0", "beta-1"];

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) wall_offset: u64,
    pub(crate) boot: u128,
    pub(crate) features: Features,
    pub(crate) counts_forks: bool,
    /// Processes may raise their limits again.
    pub(crate) may_raise: bool,
    pub(crate) pids: i32,
    pub(crate) last_pid: i32,
    /// How often the pids have wrapped around.
    pub(crate) wraps: u64,
    last_start: HashMap<Pid, u64>,
    pub(crate) next_key: Key,
    pub(crate) fd: u64,
    pub(crate) forks: u64,
    pub(crate) procs: Vec<Proc>,
    pub(crate) exits: HashMap<Key, Exit>,
    pub(crate) daemon: Option<Key>,
    pub(crate) sigchld: bool,
    pub(crate) wakes: Vec<Wake>,
    pub(crate) watched: Vec<(u64, Key, Wake)>,
    pub(crate) launches: HashMap<u64, (Launch, Option<Wake>)>,
    pub(crate) files: Files,
    pub(crate) faults: Faults,
    /// Faults are on, and processes do as they please.
    pub(crate) wild: bool,
    /// Kernel calls until the daemon is killed.
    pub(crate) fuse: Option<u64>,
    pub(crate) trace: bool,
    pub(crate) broken: Option<String>,
    /// Generations that signed in since the record was last lost.
    pub(crate) used: HashSet<u64>,
    /// Processes from this one on came in this turn.
    pub(crate) turn_key: Key,
    /// Leaders that exec'd: service, pid.
    pub(crate) execs: Vec<(usize, Pid)>,
    /// Numbers of which somebody has said that they lead. Who has one is told when it is heard.
    pub(crate) mains: HashSet<Pid>,
    /// Whether the operator asked this service's incarnation to end since its exec.
    pub(crate) asked: [bool; 3],
    /// A signal for it was asked for in this turn.
    pub(crate) loose: [bool; 3],
    /// Whether it is to be down, whenever it should exec.
    pub(crate) downs: [bool; 3],
    /// A child ended before it had signed.
    pub(crate) unsigned: bool,
    /// A write of the journal failed since this daemon began.
    pub(crate) journal_failed: bool,
    pub(crate) excused: u64,
    /// At the next look at the first one's time namespace, the second has just died and left the
    /// number of its own to the first.
    pub(crate) heir: Option<(Key, Key)>,
    pub(crate) order: Order,
}

macro_rules! note {
    ($world:expr, $($arg:tt)*) => {
        if $world.trace { eprintln!("[{}] {}", $world.now, format!($($arg)*)); }
    };
}
pub(crate) use note;

impl World {
    pub(crate) fn new(rng: Rng, features: Features, faults: Faults, trace: bool) -> Self {
        Self {
            rng,
            now: 1_000,
            wall_offset: 1_700_000_000_000,
            boot: 1,
            features,
            counts_forks: true,
            may_raise: false,
            pids: 6,
            last_pid: 2,
            wraps: 0,
            last_start: HashMap::new(),
            next_key: 100,
            fd: 10,
            forks: 0,
            procs: Vec::new(),
            exits: HashMap::new(),
            daemon: None,
            sigchld: false,
            wakes: Vec::new(),
            watched: Vec::new(),
            launches: HashMap::new(),
            files: Files::default(),
            faults,
            wild: true,
            fuse: None,
            trace,
            broken: None,
            used: HashSet::new(),
            turn_key: 0,
            execs: Vec::new(),
            mains: HashSet::new(),
            asked: [true; 3],
            loose: [false; 3],
            downs: [false; 3],
            unsigned: false,
            journal_failed: false,
            excused: 0,
            heir: None,
            order: Order::default(),
        }
    }

    /// The first thing that must never be.
    pub(crate) fn violate(&mut self, what: String) {
        note!(self, "VIOLATION {what}");
        self.broken.get_or_insert(what);
    }

    /// Whether a fault of that rate strikes now.
    pub(crate) fn fault(&mut self, rate: fn(&Faults) -> u32) -> bool {
        let rate = rate(&self.faults);
        self.wild && self.rng.odds(rate)
    }

    pub(crate) fn at(&self, key: Key) -> Option<usize> {
        self.procs.iter().position(|p| p.key == key)
    }

    pub(crate) fn by_pid(&self, pid: Pid) -> Option<&Proc> {
        self.procs.iter().find(|p| p.pid == pid)
    }

    /// The lowest free number after the last one, as the kernel gives them; none if all are used
    /// by a process, a group or a session.
    pub(crate) fn free_pids(&self) -> u64 {
        u64::from(self.pids.unsigned_abs()).saturating_sub(self.procs.len() as u64)
    }

    fn free_pid(&mut self) -> Option<Pid> {
        let tick = self.now / TICK_MS;
        for step in 1..=self.pids {
            let pid = 2 + (self.last_pid - 2 + step).rem_euclid(self.pids);
            let used = |p: &Proc| p.pid == pid || p.group.1 == pid || p.session.1 == pid;
            if self.procs.iter().any(used) {
                continue;
            }
            // Without inodes two processes of one number and tick can't be told apart: a stated
            // limit of that tier.
            if !self.features.pidfd_inode && self.last_start.get(&pid) == Some(&tick) {
                continue;
            }
            self.wraps += u64::from(pid < self.last_pid);
            self.last_pid = pid;
            self.last_start.insert(pid, tick);
            return Some(pid);
        }
        None
    }

    /// A new process that looks like `from`, or like a stranger.
    pub(crate) fn fork(&mut self, from: Option<Key>, parent: Key) -> Option<Key> {
        let pid = self.free_pid()?;
        let key = self.next_key;
        self.next_key += 1;
        self.forks += 1;
        let mut child = match from.and_then(|key| self.at(key)) {
            Some(at) => self.procs[at].clone(),
            None => Proc {
                key,
                pid,
                start: 0,
                parent,
                arrival: 0,
                group: (key, pid),
                session: (key, pid),
                tag: None,
                leader: false,
                pre: None,
                state: State::Running,
                half_dead: false,
                limit: UNLIMITED,
                env: Rc::new(b"HOME=/\0".to_vec()),
                env_hidden: false,
                limit_lost: false,
                nested: false,
                cmdline: Rc::new(b"stranger\0".to_vec()),
                cwd: "/".into(),
                uid: 1000,
                namespace: OUTSIDE,
                given: OUTSIDE.id,
                pid_namespace: PID_NAMESPACES[0],
                mute: false,
                stubborn: false,
                stuck: false,
                doom: None,
                term_pending: false,
                termed_by: None,
                wraps: 0,
                traced: false,
                ended: false,
            },
        };
        child.key = key;
        child.pid = pid;
        child.start = self.now / TICK_MS;
        child.parent = parent;
        child.arrival = key;
        child.leader = false;
        child.state = State::Running;
        child.stuck = false;
        child.doom = None;
        child.term_pending = false;
        child.termed_by = None;
        child.wraps = self.wraps;
        child.traced = false;
        child.half_dead = false;
        note!(self, "fork {pid} key {key} of {parent} tag {:?}", child.tag);
        self.procs.push(child);
        Some(key)
    }

    /// A new time namespace. A number is given again once nothing is in the namespace, and nobody
    /// holds it open.
    pub(crate) fn new_namespace(&mut self) -> Namespace {
        let used = |inode| self.procs.iter().any(|p| p.is_alive() && p.namespace.inode == inode);
        self.next_key += 1;
        let inode = match self.faults.pinned {
            0 => (2..).find(|inode| !used(*inode)).unwrap_or(0),
            _ => self.next_key,
        };
        Namespace { id: self.next_key, inode }
    }

    /// The process of this pid is about to be asked for its time namespace.
    pub(crate) fn inherit_namespace(&mut self, pid: Pid) {
        let asked = self.by_pid(pid).map(|p| p.key);
        let Some((heir, dies)) = self.heir.take_if(|(heir, _)| Some(*heir) == asked) else {
            return;
        };
        let inode = self.at(dies).map_or(0, |at| self.procs[at].namespace.inode);
        self.die(dies, Exit::Code(0));
        let namespace = Namespace { inode, ..self.new_namespace() };
        if let Some(at) = self.at(heir) {
            self.procs[at].namespace = namespace;
        }
    }

    pub(crate) fn setsid(&mut self, key: Key) {
        if let Some(at) = self.at(key) {
            let p = &mut self.procs[at];
            p.group = (key, p.pid);
            p.session = (key, p.pid);
        }
    }

    /// All threads of a process end: it is a zombie, and its children go to their next reaper.
    pub(crate) fn die(&mut self, key: Key, exit: Exit) {
        let Some(at) = self.at(key).filter(|at| self.procs[*at].is_alive()) else {
            return;
        };
        note!(self, "die {} key {key} {exit:?}", self.procs[at].pid);
        let reaper = self.reaper_of(key);
        self.procs[at].state = State::Zombie(exit);
        self.note_exit(key, exit);
        self.procs[at].doom = None;
        self.procs[at].env = Rc::new(Vec::new());
        self.procs[at].cmdline = Rc::new(Vec::new());
        if let Some(pre) = self.procs[at].pre.take() {
            self.unsigned |= pre.stage <= 1;
            // The pipe's only writer is gone. End of file, unless it reported before; or unless it
            // has not even left the daemon's table of descriptors, where its end is still open.
            let is_pending = |l: &(Launch, Option<Wake>)| l.0 == Launch::Pending;
            if pre.stage > 0 && self.launches.get(&pre.launch).is_some_and(is_pending) {
                self.decide_launch(pre.launch, Launch::Done);
            }
        }
        for at in 0..self.procs.len() {
            if self.procs[at].parent == key {
                self.procs[at].parent = reaper;
                self.procs[at].arrival = self.next_key;
                self.next_key += 1;
                self.sigchld |= Some(reaper) == self.daemon && !self.procs[at].is_alive();
            }
        }
        self.sigchld |= self.daemon.is_some_and(|d| self.procs[at].parent == d);
        self.edge(key);
    }

    fn reaper_of(&self, key: Key) -> Key {
        let mut above = key;
        while let Some(at) = self.at(above) {
            above = self.procs[at].parent;
            let alive = self.at(above).is_some_and(|at| self.procs[at].is_alive());
            if Some(above) == self.daemon && alive {
                return above;
            }
        }
        INIT
    }

    /// A zombie is waited for: its number is free.
    pub(crate) fn reap(&mut self, key: Key) {
        let Some(at) = self.at(key) else { return };
        let p = self.procs.remove(at);
        note!(self, "reap {} key {key}", p.pid);
        if let State::Zombie(exit) = p.state {
            self.exits.insert(key, exit);
        }
        self.edge(key);
    }

    /// Who watches is woken, later.
    fn edge(&mut self, key: Key) {
        let woken = self.watched.iter().filter(|(_, of, _)| *of == key);
        self.wakes.extend(woken.map(|(_, _, wake)| *wake));
    }

    pub(crate) fn decide_launch(&mut self, id: u64, launch: Launch) {
        note!(self, "launch {id}: {launch:?}");
        if let Some((state, wake)) = self.launches.get_mut(&id) {
            *state = launch;
            self.wakes.extend(*wake);
        }
    }

    /// The operator asks for the end of what runs of a service now.
    pub(crate) fn ask_end(&mut self, service: usize) {
        self.asked[service] = true;
        self.loose[service] = true;
        let mine = |p: &&mut Proc| p.tag.is_some_and(|tag| tag.service == service);
        for p in self.procs.iter_mut().filter(mine) {
            p.ended |= p.pre.is_some();
        }
    }

    /// Delivers a signal of the daemon's.
    pub(crate) fn deliver(&mut self, key: Key, signal: i32) {
        let Some(at) = self.at(key) else { return };
        let p = &self.procs[at];
        if !p.is_alive() || signal == 0 {
            return;
        }
        note!(self, "signal {signal} to {} key {key} {:?}", p.pid, p.tag);
        match p.tag {
            None => {
                let text = format!("signal {signal} to a stranger, pid {} key {key}", p.pid);
                return self.violate(text);
            }
            Some(tag) if p.leader && !self.asked[tag.service] && !self.loose[tag.service] => {
                let name = NAMES[tag.service];
                self.violate(format!("signal {signal} to the leader of {name} unasked"));
            }
            Some(_) => {}
        }
        let is_end = matches!(signal, libc::SIGTERM | libc::SIGKILL);
        if let Some(tag) = self.procs[at].tag.filter(|_| is_end && self.procs[at].leader) {
            self.note_ended(tag.service, key);
        }
        if signal == libc::SIGTERM && self.has_had_term(at) {
            let text = format!("pid {} has had the stop signal twice", self.procs[at].pid);
            return self.violate(text);
        }
        let p = &mut self.procs[at];
        match signal {
            libc::SIGKILL => p.doom = Some(Exit::Signal(signal)),
            libc::SIGCONT => {
                if p.state == State::Stopped {
                    p.state = State::Running;
                }
                if std::mem::take(&mut p.term_pending) && !p.stubborn {
                    p.doom.get_or_insert(Exit::Signal(libc::SIGTERM));
                }
            }
            _ if p.stubborn => {}
            _ if p.state == State::Stopped => p.term_pending = true,
            _ => {
                p.doom.get_or_insert(Exit::Signal(signal));
            }
        }
        if self.rng.odds(500) {
            self.strike(key);
        }
    }

    /// A fatal signal takes effect, unless the process is in D state.
    pub(crate) fn strike(&mut self, key: Key) {
        let Some(at) = self.at(key) else { return };
        if let Some(exit) = self.procs[at].doom.filter(|_| !self.procs[at].stuck) {
            self.die(key, exit);
        }
    }

    /// Both marks lost and the ancestry cut by the death of its daemon: a stated limit. (A
    /// service of an opm inside of ours that lost its environment is one, too: it could be
    /// anybody's, and hide what it forked before. None of those here.)
    pub(crate) fn is_excused(&self, p: &Proc) -> bool {
        let is_ours_by_lineage = p.tag.map(|tag| tag.born) == self.daemon;
        let is_elsewhere = p.pid_namespace != PID_NAMESPACES[0];
        self.is_lost(p) || p.is_unmarked() && (is_elsewhere || !is_ours_by_lineage)
    }

    /// Who leaves both the PID namespace and the time namespace wants to be lost.
    pub(crate) fn is_lost(&self, p: &Proc) -> bool {
        let has_left = p.namespace.id != p.given && p.pid_namespace != PID_NAMESPACES[0];
        has_left && self.features.namespace_handle && self.features.time_namespace
    }

    /// The mark of a daemon of another home, inside of a service.
    pub(crate) fn foreign_limit(inherited: u64) -> Option<u64> {
        let daemon = LimitMark::of_daemon(inherited, 0x0f0f_0f0f_0f0f)?;
        Some(daemon.of_incarnation(5).value())
    }

    pub(crate) fn live_of(&self, service: usize) -> impl Iterator<Item = &Proc> {
        let mine = move |p: &&Proc| p.tag.is_some_and(|tag| tag.service == service) && p.is_alive();
        self.procs.iter().filter(mine)
    }
}
