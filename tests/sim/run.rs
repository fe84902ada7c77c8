//! One run: a seed chooses what goes wrong, operators come and go, daemons die; then there is
//! peace, and every goal must be reached.
use crate::fake::{Fake, Killed, Shared};
use crate::faults::Faults;
use crate::oracle::Followed;
use crate::order::Order;
use crate::rng::Rng;
use crate::world::{INIT, NAMES, PID_NAMESPACES, World, note};
use opm::daemon::adopt::Place;
use opm::daemon::{ClientId, Daemon, Leave};
use opm::service::spec::{Id, Restart};
use opm::sys::{Features, Wake};
use opm::wire::{Failure, Request};
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// The client that follows events.
const FOLLOWER: ClientId = 1;

/// What the operator wants of a service, as far as it must be on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Up,
    Down,
    /// It was up before the machine ended: nothing but a monitor's advice starts it.
    Rebooted,
    Gone,
    Any,
}

/// A client that waits for its reply.
pub(crate) struct Open {
    pub(crate) what: String,
    pub(crate) finals: u32,
    /// The number of this request among those that change a goal to up.
    pub(crate) raises: Option<u64>,
}

pub(crate) struct Sim {
    pub(crate) world: Shared,
    pub(crate) daemon: Option<Daemon<Fake>>,
    key: Option<u64>,
    pub(crate) clients: BTreeMap<ClientId, Open>,
    pub(crate) next_client: ClientId,
    pub(crate) wants: [Want; 3],
    /// The newest request for each service that changes its goal.
    pub(crate) raised: [u64; 3],
    pub(crate) policies: [Restart; 3],
    pub(crate) ids: [Option<Id>; 3],
    /// Its record was lost: nothing but the law is promised.
    pub(crate) unsure: [bool; 3],
    /// It was said to be online, and nobody has asked for its removal since.
    pub(crate) known: [bool; 3],
    /// The newest request that may have removed it.
    pub(crate) removed_by: [u64; 3],
    /// A removal was asked for and not yet confirmed.
    pub(crate) removing: [bool; 3],
    pub(crate) followed: [Followed; 3],
    pub(crate) touched: Vec<usize>,
    pub(crate) kill_rate: u32,
    pub(crate) ask_rate: u32,
    pub(crate) big_env: bool,
    pub(crate) loses_files: bool,
    /// The journal and the definitions as they once were.
    copies: [Option<Vec<u8>>; 2],
    /// Files were lost since the last daemon began.
    lost: bool,
    pub(crate) deaths: u64,
}

/// What may be lost.
const FILES: [&str; 2] = ["journal", "services"];

impl Sim {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let mut features = Features { ..Features::ALL };
        features.pidfd_inode = !rng.odds(250);
        features.pgroup_signal = !rng.odds(250);
        features.get_info = !rng.odds(250);
        features.time_namespace = !rng.odds(500);
        features.namespace_handle = !rng.odds(400);
        let mut faults = Faults::some(&mut rng);
        let order = Order::some(seed, &mut faults);
        let pids = 4 + rng.below(5) as i32;
        let counts_forks = !rng.odds(200);
        let (kill_rate, ask_rate) = (rng.pick(&[0, 10, 40, 100]), rng.pick(&[60, 150, 400]));
        let (big_env, loses_files) = (rng.odds(100), rng.odds(250));
        let mut world = World::new(rng, features, faults, trace);
        world.pids = pids + 2 * i32::from(order.is_on);
        world.order = order;
        world.counts_forks = counts_forks;
        world.may_raise = world.faults.pam > 0;
        note!(world, "{features:?} {:?} pids {pids} kills {kill_rate}", world.faults);
        Self {
            world: Rc::new(RefCell::new(world)),
            daemon: None,
            key: None,
            clients: BTreeMap::new(),
            next_client: 2,
            wants: [Want::Any; 3],
            raised: [0; 3],
            policies: [Restart::Always; 3],
            ids: [None; 3],
            unsure: [false; 3],
            known: [false; 3],
            removed_by: [0; 3],
            removing: [false; 3],
            followed: [Followed::default(); 3],
            touched: Vec::new(),
            kill_rate,
            ask_rate,
            big_env,
            loses_files,
            copies: [None, None],
            lost: false,
            deaths: 0,
        }
    }

    /// The whole run. Err: what must not be.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let turns = 60 + self.world.borrow_mut().rng.below(160);
        for _ in 0..turns {
            self.wild_turn()?;
        }
        self.world.borrow_mut().calm();
        self.rest()?;
        self.ask_now(Request::Start { target: "all".to_owned(), force: true, wait: false })?;
        self.rest()?;
        self.ask_now(Request::Stop { target: "all".to_owned(), dependants: true })?;
        self.rest()
    }

    fn wild_turn(&mut self) -> Result<(), String> {
        {
            let mut world = self.world.borrow_mut();
            for _ in 0..world.rng.below(6) {
                world.step();
            }
            let due = self.daemon.as_ref().and_then(Daemon::deadline);
            world.now = match (world.rng.below(8), due) {
                (0, Some(due)) => due.max(world.now),
                (1, _) => world.now + 5_000,
                (2 | 3, _) => world.now + 50,
                (4 | 5, _) => world.now + 3,
                _ => world.now,
            };
        }
        if self.daemon.is_none() {
            return self.absence();
        }
        if self.loses_files && self.world.borrow_mut().rng.odds(30) {
            self.copies = FILES.map(|name| self.world.borrow().files.read(name));
        }
        let kills = self.world.borrow_mut().rng.odds(self.kill_rate);
        if kills {
            let mut world = self.world.borrow_mut();
            world.fuse = Some(1 + world.rng.below(80) as u64);
        }
        let mut asked = Vec::new();
        while self.world.borrow_mut().rng.odds(self.ask_rate) {
            asked.push(self.some_request());
        }
        self.turn(asked, false)?;
        self.world.borrow_mut().loose = [false; 3];
        self.someone_leaves();
        Ok(())
    }

    /// While no daemon lives: files may be lost, the machine may be started anew.
    fn absence(&mut self) -> Result<(), String> {
        let (reboots, loses) = {
            let rng = &mut self.world.borrow_mut().rng;
            (rng.odds(60), self.loses_files && rng.odds(150))
        };
        if reboots {
            self.reboot();
        }
        if loses {
            self.lose_files();
        }
        if self.world.borrow_mut().rng.odds(300) {
            let fuse = {
                let rng = &mut self.world.borrow_mut().rng;
                rng.odds(self.kill_rate * 2).then(|| 1 + rng.below(80) as u64)
            };
            self.world.borrow_mut().fuse = fuse;
            self.begin()?;
        }
        Ok(())
    }

    fn reboot(&mut self) {
        let mut world = self.world.borrow_mut();
        note!(world, "REBOOT");
        let wall = world.now + world.wall_offset;
        world.procs.clear();
        world.exits.clear();
        world.boot += 1;
        world.now = 1_000 + world.rng.below(30) as u64;
        world.wall_offset = wall + 4_000 - world.now;
        world.next_key = 100;
        world.asked = [true; 3];
        world.note_reboot();
        for want in &mut self.wants {
            if *want == Want::Up {
                *want = Want::Rebooted;
            }
        }
    }

    /// Removed, or an old copy put back: of the journal, of the definitions, or of both.
    fn lose_files(&mut self) {
        let mut world = self.world.borrow_mut();
        let lost = world.rng.pick(&[[true, false], [true, false], [true, true], [false, true]]);
        let puts_back = world.rng.odds(400);
        note!(world, "LOST: {lost:?}, old copies: {puts_back}");
        for ((name, copy), lost) in FILES.iter().zip(&self.copies).zip(lost) {
            let copy = copy.clone().filter(|_| puts_back);
            if lost {
                world.files.replace(name, copy);
            }
        }
        if lost[1] || puts_back {
            self.ids = [None; 3];
        }
        self.wants = [Want::Any; 3];
        self.known = [false; 3];
        self.unsure = [true; 3];
        world.order.is_unsure = true;
        world.used.clear();
        self.lost = true;
    }

    /// A daemon begins, when no child of the one before holds the lock any more.
    pub(crate) fn begin(&mut self) -> Result<(), String> {
        let place = {
            let mut world = self.world.borrow_mut();
            while world.procs.iter().any(|p| p.pre.is_some()) {
                if world.wild {
                    world.step();
                } else {
                    world.settle();
                }
            }
            if std::mem::take(&mut self.lost) {
                // What exec'd since, too, may be taken for a past one of an old copy.
                world.asked = [true; 3];
            }
            if world.daemon.is_none() {
                let own = loop {
                    if let Some(key) = world.fork(None, INIT) {
                        break key;
                    }
                    world.pids += 1;
                };
                world.daemon = Some(own);
                let at = world.at(own).ok_or("no daemon")?;
                world.procs[at].cmdline = Rc::new(b"opm\0".to_vec());
            }
            world.journal_failed = false;
            world.note_begin();
            note!(world, "BEGIN {:?} fuse {:?}", world.daemon, world.fuse);
            Place {
                home: "/home/.opm".to_owned(),
                device_inode: (1, 2),
                machine: 7,
                boot: world.boot,
                pid_namespace: PID_NAMESPACES[0],
                key: self.key,
                inherited_limit: u64::MAX,
                outer: None,
                forgets_elsewhere: false,
                is_namespace_gone: |_| false,
            }
        };
        self.followed = [Followed::default(); 3];
        let kernel = Fake::new(self.world.clone());
        match catch_unwind(AssertUnwindSafe(|| begun(kernel, place))) {
            Err(payload) => self.killed(payload),
            Ok(Err(Failure { code, text })) => {
                note!(self.world.borrow(), "REFUSED {code} {text}");
                self.death();
                match self.world.borrow().wild {
                    true => Ok(()),
                    false => Err(format!("no daemon begins: {text}")),
                }
            }
            Ok(Ok(mut daemon)) => {
                self.key = Some(daemon.home_key());
                let limit = daemon.own_limit();
                {
                    let mut world = self.world.borrow_mut();
                    let own = world.daemon.and_then(|key| world.at(key));
                    if let (Some(at), Some(limit)) = (own, limit) {
                        world.procs[at].limit = (limit, limit);
                    }
                }
                daemon.request(FOLLOWER, 0, Request::Events { follow: true });
                self.daemon = Some(daemon);
                self.note_defined();
                self.hear()
            }
        }
    }

    fn killed(&mut self, payload: Box<dyn Any + Send>) -> Result<(), String> {
        if payload.is::<Killed>() {
            self.death();
            return Ok(());
        }
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("the daemon panicked: {}", text.unwrap_or_default()))
    }

    /// The daemon's process is gone.
    pub(crate) fn death(&mut self) {
        self.deaths += 1;
        self.daemon = None;
        self.forget_clients();
        let mut world = self.world.borrow_mut();
        note!(world, "DEATH of the daemon");
        world.fuse = None;
        world.order.after = Default::default();
        if let Some(own) = world.daemon.take() {
            world.die(own, opm::process::Exit::Signal(libc::SIGKILL));
            world.reap(own);
        }
        world.watched.clear();
        world.launches.values_mut().for_each(|launch| launch.1 = None);
        world.wakes.clear();
        world.sigchld = false;
    }

    fn forget_clients(&mut self) {
        self.clients.clear();
        let failed = self.world.borrow().journal_failed;
        if failed {
            self.touched.extend([0, 1, 2]);
        }
        for service in 0..NAMES.len() {
            let is_open = self.touched.contains(&service) || self.wants[service] == Want::Gone;
            if failed || is_open {
                self.wants[service] = Want::Any;
            }
        }
        // What was asked for in the turn that was cut short may be on record or not.
        for service in self.touched.drain(..) {
            self.world.borrow_mut().asked[service] = true;
            self.world.borrow_mut().downs[service] = true;
        }
    }

    /// One turn, as the loop does it: facts, requests, tick, replies.
    pub(crate) fn turn(
        &mut self,
        asked: Vec<(ClientId, Request)>,
        spurious: bool,
    ) -> Result<(), String> {
        let Some(daemon) = self.daemon.as_ref() else {
            return Ok(());
        };
        let due = daemon.deadline();
        let ready = self.some_ready();
        let (wakes, signal) = {
            let mut world = self.world.borrow_mut();
            let late = world.fault(|f| f.late_wakes);
            let mut wakes: Vec<Wake> = Vec::new();
            if !late {
                wakes = std::mem::take(&mut world.wakes);
                if world.wild && wakes.len() > 1 && world.rng.odds(300) {
                    let later = wakes.split_off(1);
                    world.wakes = later;
                }
                if world.wild && world.rng.odds(100) {
                    wakes.extend(wakes.clone());
                }
            }
            let late = world.fault(|f| f.late_wakes);
            let signal = !late && std::mem::take(&mut world.sigchld);
            let due = due.is_some_and(|due| due <= world.now);
            let odd = world.wild && world.rng.odds(50);
            let is_said = ready.is_some() || !asked.is_empty();
            if !(spurious || odd || due || signal || is_said || !wakes.is_empty()) {
                return Ok(());
            }
            world.turn_key = world.next_key;
            note!(world, "TURN {wakes:?} signal {signal} due {due}");
            (wakes, signal)
        };
        let (advice, word) = (self.some_advice(), self.some_word().or(ready));
        let Some(daemon) = self.daemon.as_mut() else { return Ok(()) };
        let turned = catch_unwind(AssertUnwindSafe(|| {
            daemon.gather(&wakes, signal);
            for (client, request) in asked {
                daemon.request(client, 0, request);
            }
            if let Some((id, generation, advice)) = advice {
                Self::expect_heeded(&self.world, &mut self.wants, daemon, id, &advice);
                daemon.advise(id, generation, advice);
            }
            if let Some((pid, text)) = word {
                daemon.told(pid, &text);
            }
            daemon.tick();
        }));
        if let Err(payload) = turned {
            let broken = self.world.borrow().broken.clone();
            return broken.map_or_else(|| self.killed(payload), Err);
        }
        self.touched.clear();
        self.note_defined();
        self.note_rolls();
        self.hear()?;
        match self.daemon.as_ref().and_then(|daemon| daemon.leave.clone()) {
            None => Ok(()),
            Some(Leave::Quit) => {
                self.death();
                Ok(())
            }
            Some(Leave::Exec(_)) => self.become_image(),
        }
    }

    /// The same process, another image: descriptors close, children stay.
    fn become_image(&mut self) -> Result<(), String> {
        if self.world.borrow_mut().rng.odds(200) {
            if let Some(daemon) = self.daemon.as_mut() {
                daemon.leave = None;
            }
            return Ok(());
        }
        note!(self.world.borrow(), "EXEC of the daemon");
        self.daemon = None;
        self.forget_clients();
        {
            let mut world = self.world.borrow_mut();
            world.fuse = None;
            world.watched.clear();
            world.launches.values_mut().for_each(|launch| launch.1 = None);
            world.wakes.clear();
            // Who was asked is not on record.
            world.procs.iter_mut().for_each(|p| p.termed_by = None);
        }
        self.begin()
    }
}

/// A daemon after its first tick.
fn begun(kernel: Fake, place: Place) -> Result<Daemon<Fake>, Failure> {
    let mut daemon = Daemon::begin(kernel, place)?;
    daemon.tick();
    Ok(daemon)
}
