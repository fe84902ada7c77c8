//! Who starts after whom: definitions that name each other, the truth of who is ready, and what
//! must be true of both.
use crate::birth::environ_text;
use crate::definitions::Definitions;
use crate::faults::Faults;
use crate::rng::Rng;
use crate::rolls::{DEFINED, Roll};
use crate::run::{Sim, Want};
use crate::world::{Key, NAMES, World, note};
use opm::daemon::service::Service;
use opm::process::Exit;
use opm::service::order::circle;
use opm::service::probe::Sign;
use opm::service::spec::{Change, Restart, Spec};
use opm::service::units::Span;
use opm::wire::{Request, Row, Status};

/// The second and the third service are instances of this one, where there is a group.
pub(crate) const GROUP: &str = "beta";
/// What a definition says to its processes, for the truth to know it: whom it depends on, what
/// makes it ready, whether it is to run again, and when it is late.
const AFTER: &str = "SIM_AFTER";
const WAY: &str = "SIM_WAY";

/// What makes a service ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Exec,
    Word,
    /// Its word, which never comes.
    Silent,
}

/// What a definition says: how it becomes ready and goes on, and when it is late.
type Said = (Way, Restart, u64);

/// An incarnation that exec'd.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) leader: Key,
    /// The daemon that forked it, as an image.
    pub(crate) born: u64,
    pub(crate) since: u64,
    pub(crate) way: Way,
    pub(crate) restart: Restart,
    pub(crate) timeout: u64,
    pub(crate) defined: String,
    pub(crate) said: bool,
    /// That was in peace, where everybody is heard.
    heard: bool,
    pub(crate) exit: Option<Exit>,
    /// A daemon was told of its end.
    pub(crate) is_end_known: bool,
    /// The last daemon that has sent its leader a signal to end.
    ended_by: u64,
}

/// What is true of the order of things.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// Definitions of this run name others.
    pub(crate) is_on: bool,
    pub(crate) is_grouped: bool,
    /// Definitions are adjusted, and groups get another size.
    pub(crate) is_changed: bool,
    pub(crate) definitions: Definitions,
    pub(crate) roll: Option<Roll>,
    /// Who may be reloaded still.
    pub(crate) rolling: [bool; 3],
    /// Records were lost: nobody knows what is defined.
    pub(crate) is_unsure: bool,
    /// What was saved once came back: what goes in a circle, too.
    is_restored: bool,
    /// The newest incarnation of each.
    pub(crate) newest: [Option<Life>; 3],
    /// Who is there, and how it becomes ready, where that is known.
    defined: [Option<Option<Said>>; 3],
    /// Which of the others have to be gone before one's leader is signalled.
    pub(crate) after: [[bool; 3]; 3],
    /// When the daemon at hand began, and which it is; each image is one of its own.
    began: u64,
    pub(crate) image: u64,
    /// Which one has forked the last child of each service.
    forked_by: [u64; 3],
}

impl Order {
    /// In a third of the runs. Nobody else leads there, so that whose end counts is plain.
    pub(crate) fn some(seed: u64, faults: &mut Faults) -> Self {
        let mut rng = Rng::new(!seed);
        let mut order = Self { is_on: rng.odds(333), ..Self::default() };
        if order.is_on {
            faults.mains = 0;
            order.is_grouped = rng.odds(400);
            order.is_changed = rng.odds(600);
        }
        order
    }

    /// What is asked may change who is there, and how.
    pub(crate) fn note_asked(&mut self, request: &Request) {
        match request {
            Request::Define { specs, .. } => {
                let is_in = |name: &&str| specs.iter().any(|spec| spec.name == **name);
                for (at, _) in NAMES.iter().enumerate().filter(|(_, name)| is_in(name)) {
                    self.defined[at] = None;
                }
            }
            Request::Restore { .. } => (self.defined, self.is_restored) = ([None; 3], true),
            Request::Remove { .. } | Request::Adjust { .. } => self.defined = [None; 3],
            _ => {}
        }
    }

    /// Something was asked of a service: what was to come before its stop is past.
    pub(crate) fn forget(&mut self, service: usize) {
        self.roll.take_if(|roll| roll.has(service));
        self.after[service] = [false; 3];
        self.after.iter_mut().for_each(|after| after[service] = false);
    }
}

impl World {
    /// A monitor has said of a service that it is ready.
    pub(crate) fn note_ready(&mut self, service: usize) {
        self.order.newest[service].iter_mut().for_each(|life| life.said = true);
    }

    /// A leader has exec'd.
    pub(crate) fn note_life(&mut self, at: usize) {
        let p = &self.procs[at];
        let Some(tag) = p.tag.filter(|_| self.order.is_on) else { return };
        let text = environ_text(&p.env, WAY);
        let mut words = text.split(' ');
        let way = match words.next() {
            Some("word") => Way::Word,
            Some("silent") => Way::Silent,
            _ => Way::Exec,
        };
        let restart = match words.next() {
            Some("never") => Restart::Never,
            Some("on-failure") => Restart::OnFailure,
            _ => Restart::Always,
        };
        let timeout = words.next().and_then(|ms| ms.parse().ok()).unwrap_or(0);
        let life = Life {
            leader: p.key,
            born: self.order.forked_by[tag.service],
            since: self.now,
            way,
            restart,
            timeout,
            defined: environ_text(&p.env, DEFINED),
            said: false,
            heard: false,
            exit: None,
            is_end_known: false,
            ended_by: 0,
        };
        // Too late, or not heard: it is ended.
        self.asked[tag.service] |= way != Way::Exec || self.order.rolling[tag.service];
        self.order.newest[tag.service] = Some(life);
    }

    fn life_of(&mut self, leader: Key) -> Option<&mut Life> {
        self.order.newest.iter_mut().flatten().find(|life| life.leader == leader)
    }

    /// The process has ended.
    pub(crate) fn note_exit(&mut self, key: Key, exit: Exit) {
        self.life_of(key).into_iter().for_each(|life| life.exit = Some(exit));
    }

    /// The daemon is told of its end.
    pub(crate) fn note_end_known(&mut self, key: Key) {
        let exits = |life: &&mut Life| life.exit.is_some();
        self.life_of(key).filter(exits).into_iter().for_each(|life| life.is_end_known = true);
    }

    /// The daemon asks a leader to end.
    pub(crate) fn note_ended(&mut self, service: usize, key: Key) {
        let image = self.order.image;
        self.life_of(key).into_iter().for_each(|life| life.ended_by = image);
        self.check_roll(service, key);
        let lives = |other: &usize| {
            let is_after = self.order.after[service][*other];
            is_after && self.live_of(*other).any(|p| !self.is_excused(p))
        };
        if let Some(other) = (0..NAMES.len()).find(lives) {
            let (name, other) = (NAMES[service], NAMES[other]);
            self.violate(format!("{name} is stopped before {other} has gone"));
        }
    }

    /// The machine ends, and all that runs on it.
    pub(crate) fn note_reboot(&mut self) {
        self.order.roll = None;
        for life in self.order.newest.iter_mut().flatten() {
            // Keys are given anew.
            life.leader = 0;
            life.exit.get_or_insert(Exit::Unknown);
            life.is_end_known = true;
        }
    }

    /// A service with this environment is forked: all that it depends on must be ready, as far as
    /// the daemon can know.
    pub(crate) fn check_fork(&mut self, service: usize, env: &[u8]) {
        self.order.forked_by[service] = self.order.image;
        if !self.order.is_on || self.order.is_unsure {
            return;
        }
        self.check_definition(service, env);
        let after = environ_text(env, AFTER);
        for name in after.split(',').filter(|name| !name.is_empty()) {
            let is_meant = |at: &usize| match name == GROUP {
                // What has never exec'd may be forgotten in this turn.
                true => *at > 0 && self.order.newest[*at].is_some() && self.is_defined(*at),
                false => NAMES[*at] == name,
            };
            let all = (0..NAMES.len()).filter(is_meant);
            if let Some(at) = all.into_iter().find(|at| !self.is_ready(*at)) {
                let (name, life) = (NAMES[at], &self.order.newest[at]);
                let text = format!("{} starts before {name} is ready: {life:?}", NAMES[service]);
                return self.violate(text);
            }
        }
    }

    fn is_defined(&self, service: usize) -> bool {
        self.order.defined[service].flatten().is_some()
    }

    /// Whether what depends on a service may start, as far as the daemon can know. It has not heard
    /// yet of an end of which it was not told.
    fn is_ready(&self, service: usize) -> bool {
        let Some(defined) = self.order.defined[service] else { return true };
        let (Some(life), Some((way, restart, _))) = (&self.order.newest[service], defined) else {
            return false;
        };
        // What it was started as, or is by now.
        let ways = [(life.way, life.restart), (way, restart)];
        let always = |restart| restart == Restart::Always;
        if self.is_born(service) {
            return false;
        }
        if let Some(exit) = life.exit.filter(|_| life.is_end_known) {
            let is_gone = !self.live_of(service).any(|p| !self.is_excused(p));
            return is_gone && exit == Exit::Code(0) && !(always(life.restart) && always(restart));
        }
        let is_job = ways.into_iter().all(|way| way == (Way::Exec, Restart::Never));
        self.may_be_ready(service, life) && !is_job && life.ended_by != self.order.image
    }

    /// A child of it has not exec'd yet.
    pub(crate) fn is_born(&self, service: usize) -> bool {
        let mut all = self.procs.iter().filter(|p| p.pre.is_some() && p.is_alive());
        all.any(|p| p.tag.is_some_and(|tag| tag.service == service))
    }

    /// Whether an incarnation that lives may be ready, as far as the daemon can know.
    pub(crate) fn may_be_ready(&self, service: usize, life: &Life) -> bool {
        let Some((way, _, timeout)) = self.order.defined[service].flatten() else { return true };
        // What an earlier daemon may have heard counts when its time is over.
        let is_old = life.born != self.order.image;
        let is_over = is_old && self.now >= self.order.began + life.timeout.min(timeout);
        life.way == Way::Exec || way == Way::Exec || life.said || is_over
    }

    /// Who is to say now that it is ready.
    fn speaker(&self) -> Option<usize> {
        let speaks = |life: &Life| {
            let lives = |at: usize| self.procs[at].is_alive() && self.procs[at].doom.is_none();
            let is_due = life.way == Way::Word && !if self.wild { life.said } else { life.heard };
            is_due && self.at(life.leader).is_some_and(lives)
        };
        self.order.newest.iter().position(|life| life.as_ref().is_some_and(speaks))
    }

    /// Another image of the daemon begins.
    pub(crate) fn note_begin(&mut self) {
        let order = &mut self.order;
        for (life, defined) in order.newest.iter_mut().zip(&order.defined) {
            let Some(life) = life else { continue };
            let timeout = defined.flatten().map_or(0, |(.., timeout)| timeout.min(life.timeout));
            life.said |= life.born != order.image && self.now >= order.began + timeout;
        }
        (order.began, order.image) = (self.now, order.image + 1);
    }

    /// In peace a job ends well.
    pub(crate) fn end_jobs(&mut self) {
        let job = (Way::Exec, Restart::Never);
        let jobs = self.order.newest.iter().zip(&self.order.defined).filter_map(|(life, way)| {
            let life = life.as_ref().filter(|life| life.exit.is_none())?;
            let defined = way.flatten().map(|(way, restart, _)| (way, restart));
            let is_job = (life.way, life.restart) == job || defined == Some(job);
            is_job.then_some(life.leader)
        });
        let jobs: Vec<Key> = jobs.collect();
        jobs.into_iter().for_each(|leader| self.die(leader, Exit::Code(0)));
    }

    pub(crate) fn has_word(&self) -> bool {
        !self.wild && self.speaker().is_some()
    }
}

fn depends_on(service: &Service, other: &Service) -> bool {
    let spec = &other.definition.spec;
    let is_it = |name: &String| *name == spec.name || spec.held.instance_of.as_ref() == Some(name);
    service.definition.spec.checks.depends_on.iter().any(is_it)
}

impl Sim {
    /// What a definition says of the order, by chance; circles among it.
    pub(crate) fn put_in_order(&self, spec: &mut Spec, service: usize, extra: u64) {
        let order = &self.world.borrow().order;
        if !order.is_on {
            return;
        }
        let is_named = |at: &usize| *at != service && extra >> (44 + 3 * at) & 7 < 3;
        let mut names: Vec<&str> = (0..NAMES.len()).filter(is_named).map(|at| NAMES[at]).collect();
        if order.is_grouped {
            if service > 0 {
                spec.held.instance_of = Some(GROUP.to_owned());
            } else if names.len() == 2 {
                names = vec![GROUP];
            }
        }
        let names = names.join(",");
        let ready = ["exec", "exec", "word", "silent"][(extra >> 53 & 3) as usize];
        let ready = if extra >> 55 & 1 == 0 && ready == "silent" { "word" } else { ready };
        let timeout = 500 + (extra >> 56 & 1) * 2_000;
        let restart = match spec.policy.restart {
            Restart::Always => "always",
            Restart::OnFailure => "on-failure",
            Restart::Never => "never",
        };
        spec.env.push((AFTER.to_owned(), names.clone()));
        spec.env.push((DEFINED.to_owned(), extra.to_string()));
        spec.env.push((WAY.to_owned(), format!("{ready} {restart} {timeout}")));
        if ready != "exec" {
            spec.checks.ready = Sign::Notify;
        }
        spec.checks.ready_timeout = Span { ms: timeout };
        if !names.is_empty() {
            let change =
                Change { options: vec![("depends_on".to_owned(), names)], ..Change::default() };
            *spec = change.apply(spec).unwrap_or_default();
        }
    }

    /// A service says that it is ready.
    pub(crate) fn some_ready(&mut self) -> Option<(i32, String)> {
        let mut world = self.world.borrow_mut();
        let is_time = world.order.is_on && (!world.wild || world.rng.odds(300));
        let speaker = world.speaker().filter(|_| is_time)?;
        let is_heard = !world.wild;
        let life = world.order.newest[speaker].as_mut()?;
        (life.said, life.heard) = (true, is_heard);
        let leader = life.leader;
        let pid = world.at(leader).map(|at| world.procs[at].pid)?;
        note!(world, "SAID by {pid}: READY=1");
        Some((pid, "READY=1".to_owned()))
    }

    /// Who is there after a turn.
    pub(crate) fn note_defined(&self) {
        self.note_definitions();
        let mut world = self.world.borrow_mut();
        if !world.order.is_on {
            return;
        }
        let all = || self.daemon.iter().flat_map(|daemon| daemon.all_services());
        world.order.defined = NAMES.map(|name| {
            let spec = all().find(|it| it.name() == name).map(|it| &it.definition.spec);
            let way = |spec: &Spec| {
                let way = if spec.checks.ready == Sign::Exec { Way::Exec } else { Way::Word };
                (way, spec.policy.restart, spec.checks.ready_timeout.ms)
            };
            let is_leaving = all().any(|it| it.name() == name && it.removing);
            (!is_leaving).then(|| spec.map(way))
        });
    }

    /// A stop of these is asked for: none of them is signalled before those that depend on it have
    /// gone. `granted`: only what is named is stopped, and nothing is refused.
    pub(crate) fn expect_order(&self, named: &[usize], granted: bool, untouched: &[bool; 3]) {
        let world = &mut self.world.borrow_mut();
        let Some(daemon) = self.daemon.as_ref().filter(|_| world.order.is_on) else { return };
        let find = |at: usize| daemon.all_services().find(|service| service.name() == NAMES[at]);
        for at in named.iter().copied().filter(|at| untouched[*at] && !self.unsure[*at]) {
            let life = world.order.newest[at].as_ref();
            let is_quiet =
                |life: &&Life| life.ended_by != world.order.image && life.way == Way::Exec;
            // A reload may signal it all the same.
            let is_rolling = world.order.rolling[at];
            if is_rolling || self.has_circle() || life.filter(is_quiet).is_none() {
                continue;
            }
            for other in (0..NAMES.len()).filter(|other| *other != at && untouched[*other]) {
                let Some((service, dependant)) = find(at).zip(find(other)) else { continue };
                let leads = world.live_of(other).any(|p| p.leader);
                let counts = !granted || named.contains(&other);
                world.order.after[at][other] =
                    counts && leads && depends_on(dependant, service) && !self.unsure[other];
            }
        }
    }

    fn has_circle(&self) -> bool {
        let Some(daemon) = self.daemon.as_ref() else { return false };
        let all: Vec<&Service> = daemon.all_services().collect();
        let of = |name: &str| {
            let is_it = |it: &&&Service| it.name() == name || it.definition.spec.group() == name;
            let found = all.iter().filter(is_it);
            let names = found.flat_map(|it| it.definition.spec.checks.depends_on.iter());
            names.map(String::as_str).collect()
        };
        circle(all.iter().map(|service| service.name()), of).is_some()
    }

    /// At rest: nobody is held back whose dependencies are all ready, and who said so is.
    pub(crate) fn check_order(&self, rows: &[Row]) -> Result<(), String> {
        let world = self.world.borrow();
        let Some(daemon) = self.daemon.as_ref().filter(|_| world.order.is_on) else {
            return Ok(());
        };
        for row in rows {
            let Some(at) = NAMES.iter().position(|name| *name == row.name) else { continue };
            let life = world.order.newest[at].as_ref().filter(|_| !self.unsure[at]);
            let is_said = |life: &Life| life.way == Way::Exec || life.heard;
            if row.status == Status::Online && !row.ready && life.is_some_and(is_said) {
                return Err(format!("{} is not ready: {life:?}", row.name));
            }
            if row.status != Status::Starting {
                continue;
            }
            let all: Vec<&Service> = daemon.all_services().collect();
            let Some(it) = all.iter().find(|it| it.name() == row.name) else { continue };
            let waits = |name: &String| {
                let is_it = |other: &&&Service| {
                    let spec = &other.definition.spec;
                    spec.name == *name || spec.held.instance_of.as_ref() == Some(name)
                };
                let mut meant = all.iter().filter(is_it).peekable();
                meant.peek().is_none() || meant.any(|other| !may_be_depended_on(other))
            };
            if !it.definition.spec.checks.depends_on.iter().any(waits) {
                return Err(format!("{} is held back for nothing", row.name));
            }
        }
        match self.has_circle() && !world.order.is_unsure && !world.order.is_restored {
            true => Err("services depend on each other in a circle".to_owned()),
            false => Ok(()),
        }
    }

    /// The daemon has refused to stop what others depend on.
    pub(crate) fn stop_refused(&mut self, text: &str) {
        let refused = text.split_once(": not stopped, for ").map(|(name, _)| name);
        let service = NAMES.iter().position(|name| Some(*name) == refused);
        service.into_iter().for_each(|service| self.wants[service] = Want::Any);
    }
}

/// Whether others that depend on it may start.
fn may_be_depended_on(service: &Service) -> bool {
    let (spec, status) = (&service.definition.spec, service.status());
    let is_job = spec.policy.restart == Restart::Never && spec.checks.ready == Sign::Exec;
    let is_over = status == Status::Stopped && service.record.exit == Some(Exit::Code(0));
    is_over && !service.record.halted && spec.policy.restart != Restart::Always
        || status == Status::Online && service.machine.is_ready() && !is_job
}
