//! Facts become inputs of the machines, and what these say becomes orders. The only caller of
//! [`Machine::step`](crate::service::machine::Machine::step).
use super::launch::LIVING;
use super::monitors::{Advice, Channel};
use super::requests::sockets;
use super::service::{Announced, Death, daemonizes, ways};
use super::timers::Timer;
use super::trees::{Fact, Kill};
use super::{Daemon, context};
use crate::mutant::mutant;
use crate::process::journal_format::{SIGNATURE_OFFSET, Signature, State, slot_offset};
use crate::process::mark::{EnvMark, LimitMark};
use crate::process::stat::parse_cmdline;
use crate::process::{Exit, Identity, Namespace, Pid};
use crate::service::context::search_path;
use crate::service::environment::{carried_paths, environment, in_home, log_paths};
use crate::service::machine::{Action, Ending, Fault, Generation, Input, News, Phase};
use crate::service::options::Key;
use crate::service::probe::Sign;
use crate::service::spec::{Definition, Escapees, Id, join};
use crate::sys::{Errno, Kernel, Plan, Stage, Streams, Strings};
use crate::wire::Status;
use rustix::fd::AsRawFd;

/// So much of a command is told where it is not asked for.
const COMMAND_CHARS_MAX: usize = 80;
const OUT_OF_MEMORY: &str = "killed: out of memory";
/// Launches in one turn: then the loop looks at its events again.
const LAUNCHES_MAX: usize = 32;

impl<K: Kernel> Daemon<K> {
    /// Takes up what the kernel has shown, in its order.
    pub(super) fn learn(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            match fact {
                Fact::Execed { id, generation, pid } => self.execed(id, generation, pid),
                Fact::LaunchFailed { id, generation, stage, errno } => {
                    self.launch_failed(id, generation, stage, errno);
                }
                Fact::Exited { id, generation, pid, exit, by_opm, lived } => {
                    self.exited(id, generation, exit, by_opm, lived);
                    self.emit_exit(id, generation, pid, exit);
                    let ending = self.services.get(id).map_or(Ending::Failure, |s| s.ending(exit));
                    self.feed(id, Input::News(generation, News::LeaderExited(ending)));
                }
                Fact::Emptied { id, generation } => {
                    self.emit_drained(id, generation);
                    self.emptied(id, generation);
                }
                Fact::Led { id, who, is_leader } => self.led(id, who, is_leader),
                Fact::Probed { pid, exit } => self.probed(pid, exit),
                Fact::Waits { id, why } => {
                    if let Some(service) = self.services.get_mut(id) {
                        service.note = Some(why.into());
                    }
                }
            }
        }
    }

    fn execed(&mut self, id: Id, generation: Generation, pid: Pid) {
        let Some(service) = self.services.get_mut(id) else { return };
        service.pid = pid;
        service.note = None;
        service.launch_error = None;
        service.provisional = false;
        let why = service.advised.take().map(Into::into);
        self.logs.follow(id, self.now, &mut self.timers);
        self.emit(id, generation, "spawned", |event| (event.pid, event.reason) = (Some(pid), why));
        self.feed(id, Input::News(generation, News::Spawned));
        self.renew(id);
        self.take_advice();
        self.await_settling(id);
    }

    /// Somebody else leads it from now on: that is on record for the next daemon.
    pub(super) fn led(&mut self, id: Id, who: Identity, is_leader: bool) {
        let Some(service) = self.services.get_mut(id) else { return };
        service.pid = who.pid;
        service.record.main = Some(who).filter(|_| !is_leader);
        self.ledger.dirty.insert(id);
        self.log.push(format!("{}: pid {} is its main process now", service.name(), who.pid));
    }

    fn exited(&mut self, id: Id, generation: Generation, exit: Exit, by_opm: bool, lived: u64) {
        self.keep_sockets(id);
        let at = self.kernel.wall();
        let Some(service) = self.services.get_mut(id) else { return };
        let is_killed = exit == Exit::Signal(libc::SIGKILL) && !by_opm;
        let oom = is_killed && self.kernel.was_out_of_memory(service.pid, (id, generation.0));
        service.died(Death { at, exit, by_opm, oom, lived: Some(lived) });
        // Why it had to go is what there is to be said of its end.
        if oom || !matches!(service.machine.phase(), Phase::Stopping { .. }) {
            service.note = oom.then(|| OUT_OF_MEMORY.into());
        }
    }

    /// Nothing of this generation lives, or ever did.
    fn emptied(&mut self, id: Id, generation: Generation) {
        if let Some(service) = self.services.get_mut(id) {
            service.record.emptied = service.record.emptied.max(generation.0);
            self.logs.pump.note_ended(&service.definition.spec.name, true);
            // Before its end is on record: else the next daemon would take that for a lost one.
            if service.machine.policy().escapees == Escapees::Keep {
                self.ledger.write_kept(&mut self.kernel, &self.trees.kept);
            }
        }
        self.note_gone(id, generation);
        self.feed(id, Input::News(generation, News::Emptied));
    }

    /// Nothing was exec'd, and the child, if there was one, is gone.
    fn launch_failed(&mut self, id: Id, generation: Generation, stage: Stage, errno: Errno) {
        self.note_failure(id, stage, errno);
        let Some(service) = self.services.get_mut(id) else { return };
        service.record.emptied = service.record.emptied.max(generation.0);
        let crowded = matches!(
            errno,
            Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::DQUOT
        );
        let fault = if crowded || stage == Stage::Killed { Fault::Machine } else { Fault::Program };
        self.note_gone(id, generation);
        self.feed(id, Input::News(generation, News::SpawnFailed(fault)));
        self.renew(id);
        if self.services.get(id).is_some_and(|service| service.provisional) {
            // Its very first exec: whoever asked is told why, and nothing of it is kept.
            self.answer_changed();
            self.feed(id, Input::Stop);
            self.forget(id);
        }
    }

    fn note_failure(&mut self, id: Id, stage: Stage, errno: Errno) {
        let home = &self.home;
        let Some(service) = self.services.get_mut(id) else { return };
        if stage == Stage::Killed && matches!(service.machine.phase(), Phase::Stopping { .. }) {
            return;
        }
        service.launch_failed(home, stage, errno);
    }

    /// Steps a machine and does what it says.
    pub(crate) fn feed(&mut self, id: Id, input: Input) {
        let mut actions = Vec::new();
        let has_tree = self.trees.get(id).is_some();
        let Some(service) = self.services.get_mut(id) else { return };
        self.ledger.sequence.0 = self.trees.skipped(self.ledger.sequence.0);
        let restarts = service.machine.restarts();
        if !has_tree && matches!(input, Input::Start | Input::Stop | Input::Restart) {
            service.killed = None;
        }
        match input {
            Input::Stop => {
                (service.record.halted, service.advised, service.note) = (true, None, None);
            }
            Input::Start | Input::Restart => {
                (service.record.halted, service.advised) = (false, None);
                self.launches.stops.remove(&id);
            }
            Input::Tick | Input::News(..) => {}
        }
        service.machine.step(self.now, input, &mut self.ledger.sequence, &mut actions);
        if service.machine.restarts() > restarts {
            service.record.restarted_at = self.kernel.wall();
        }
        let by_exec = service.definition.spec.checks.ready == Sign::Exec;
        let policy = service.machine.policy();
        let (signal, reach) = (policy.stop_signal.number(), policy.stop_reach);
        // On record before the signal goes out: whoever kills us, the next daemon goes on.
        let is_written = input == Input::Stop
            && !actions.is_empty()
            && self.ledger.write_slot(&mut self.kernel, id, &service.state()).is_ok();
        for action in actions {
            match action {
                Action::Spawn(generation) => {
                    if let Some(service) = self.services.get_mut(id) {
                        (service.record.generation, service.record.main) = (generation.0, None);
                    }
                    self.launches.queue.push_back((id, generation));
                }
                Action::Terminate(_) => {
                    self.unhold(id);
                    self.keep_sockets(id);
                    self.with_trees(|trees, cx| trees.end(cx, id, signal, reach));
                }
                Action::KillTree(_) => self.kill_tree(id),
            }
        }
        // An exec changes nothing that the launch has not written down, a signal nothing at all.
        // That it is ready by its exec goes without saying.
        let is_plain = match input {
            Input::News(_, News::Spawned) => true,
            Input::News(_, News::Ready) => by_exec,
            _ => false,
        };
        if !is_written && !is_plain {
            self.ledger.dirty.insert(id);
        }
        self.after_step(id);
    }

    /// Announces what changed, and keeps timer, journal and waiters up to date.
    pub(crate) fn after_step(&mut self, id: Id) {
        self.ask(id, |monitors, cx, of| monitors.follow(cx, of));
        let Some(service) = self.services.get_mut(id) else { return };
        self.timers.set(Timer::Machine(id), service.machine.deadline());
        self.waiters.changed.insert(id);
        let (before, status) = (service.announced, service.status());
        let is_ready = service.machine.is_ready();
        let at = if before.status == status { before.at } else { self.kernel.wall() };
        service.announced = Announced { status, is_ready, at };
        let (pid, is_removed) = (service.pid, service.removing && !service.is_live());
        let generation = service.machine.generation();
        let is_for_others = service.unless_ready_for_others().is_none();
        let changed = (before.status, before.is_ready) != (status, is_ready);
        if changed && !self.launches.held.is_empty() {
            match is_for_others {
                true => self.unhold_dependants(id),
                false => self.tell_held(id),
            }
        }
        if let Some(generation) = generation.filter(|_| is_ready && !before.is_ready) {
            self.emit(id, generation, "ready", |event| event.pid = Some(pid));
        }
        if before.status != status {
            self.emit_status(id, status);
        }
        if is_removed && matches!(status, Status::Stopped | Status::Errored) {
            self.forget(id);
        }
    }

    pub(super) fn take_advice(&mut self) {
        // What is done about one may lead to the next.
        while !self.monitors.advice.is_empty() {
            for (id, generation, advice) in std::mem::take(&mut self.monitors.advice) {
                self.advise(id, generation, advice);
            }
        }
    }

    /// Advice on an incarnation. What is not on the newest one is not heard; and the operator's
    /// word stands: what was stopped or failed is started by nobody else.
    pub fn advise(&mut self, id: Id, generation: Generation, advice: Advice) {
        let Some(service) = self.services.get_mut(id) else { return };
        // What is being removed, too, is no longer asked.
        let is_end = matches!(advice, Advice::EndProbe(_));
        if !is_end && (service.record.generation != generation.0 || service.removing) {
            return;
        }
        match advice {
            Advice::Ready => self.feed(id, Input::News(generation, News::Ready)),
            Advice::Restart(why) => {
                if matches!(service.machine.phase(), Phase::Up { .. }) {
                    self.feed(id, Input::News(generation, News::Renew));
                    self.note_advised(id, why);
                }
            }
            Advice::Start(why) => {
                let has_ended = matches!(service.status(), Status::Stopped | Status::Errored);
                if has_ended && (!service.record.halted || mutant("heed_advice")) {
                    self.feed(id, Input::Start);
                    self.note_advised(id, why);
                }
            }
            Advice::Fail(why) => {
                if matches!(service.machine.phase(), Phase::Up { .. }) {
                    service.note = Some(why.into());
                    self.feed(id, Input::News(generation, News::Fail));
                }
            }
            Advice::Status(text) => {
                service.note = Some(text).filter(|text| !text.is_empty()).map(Into::into);
            }
            Advice::Probe(question, line) => self.probe(id, generation, question, &line),
            Advice::EndProbe(question) => self.end_probe(id, question),
        }
    }

    /// Why the next incarnation is started, to be told with the end of the one before and with it.
    fn note_advised(&mut self, id: Id, why: String) {
        self.services.get_mut(id).into_iter().for_each(|s| s.advised = Some(why.as_str().into()));
    }

    /// What is due by a machine's own deadline.
    pub(super) fn due(&mut self, id: Id) {
        let daemonized = self.daemonized(id).map(|it| Input::News(it, News::Daemonized));
        self.feed(id, daemonized.unwrap_or(Input::Tick));
    }

    /// A leader ended well, and what it left behind lives on: notes who, and gives its generation.
    fn daemonized(&mut self, id: Id) -> Option<Generation> {
        let Phase::Lingering { .. } = self.services.get(id)?.machine.phase() else {
            return None;
        };
        let generation = self.trees.get(id)?.generation;
        let pid = self.with_trees(|trees, cx| trees.survivor(cx, id))?;
        let words = self.kernel.cmdline(pid).map(|text| parse_cmdline(&text)).unwrap_or_default();
        let command: String = join(&words).chars().take(COMMAND_CHARS_MAX).collect();
        let text = daemonizes(&format!("pid {pid} ({command})"));
        self.services.get_mut(id)?.note = Some(text.into());
        Some(generation)
    }

    pub(crate) fn kill_tree(&mut self, id: Id) {
        // A stop that waits for it may wait in vain now.
        for stopped in self.launches.stops.keys() {
            self.waiters.changed.insert(*stopped);
        }
        let Some(kill) = self.with_trees(|trees, cx| trees.kill(cx, id)) else { return };
        let Some(service) = self.services.get_mut(id) else { return };
        // The turn in which the time is over is a little late. Sooner is the end of all.
        let after = kill.after.min(service.machine.policy().stop_timeout.ms);
        let kill = Kill { after, ..kill };
        service.killed = Some(kill);
        let name = service.name();
        if self.launches.foreground.contains_key(name) {
            self.log.push(format!("{name}: {kill}"));
        }
    }

    /// Launches what is queued, a bounded number.
    pub(super) fn run_launches(&mut self) {
        if self.launches.queue.is_empty() {
            return;
        }
        self.launches.home_lost |= !self.kernel.home_is_ours();
        if self.launches.home_lost {
            return;
        }
        let mut launched = 0;
        while launched < LAUNCHES_MAX {
            let Some((id, generation)) = self.launches.queue.pop_front() else { return };
            let Some(service) = self.services.get(id) else { continue };
            if service.machine.generation() != Some(generation) || self.trees.get(id).is_some() {
                continue;
            }
            if !matches!(service.machine.phase(), Phase::Starting { .. }) {
                // A stop came before the fork: nothing is to be signalled, nor waited for.
                self.emptied(id, generation);
            } else if let Some(dependency) = self.unready(id) {
                self.hold(id, dependency);
            } else if let Err((stage, errno)) = self.launch(id, generation) {
                self.launch_failed(id, generation, stage, errno);
            } else {
                launched += 1;
            }
        }
    }

    /// Where the output of the next incarnation goes: how, and the paths of both streams.
    fn output_of(&mut self, id: Id) -> (Streams, [String; 2]) {
        let Some(service) = self.services.get(id) else { return Default::default() };
        let spec = &service.definition.spec;
        let logs = log_paths(spec).map(|path| in_home(&self.home, &path));
        // First: `carry` opens the log anew, and what it says of this start stays.
        self.logs.before_start(id, spec, &logs, self.kernel.wall());
        let known = self.launches.foreground.get(&spec.name).copied();
        let is_carried = known.is_none() && self.logs.carry(id, spec, &self.home);
        self.logs.pump.note_ended(&spec.name, false);
        let streams = known.unwrap_or(if is_carried { Streams::Fifos } else { Streams::Files });
        let paths = match streams {
            Streams::Files | Streams::Inherited => logs,
            Streams::Fifos => carried_paths(spec).map(|path| in_home(&self.home, &path)),
        };
        (streams, paths)
    }

    fn launch(&mut self, id: Id, generation: Generation) -> Result<(), (Stage, Errno)> {
        if self.trees.has_unrecorded()
            && let Some(name) = self.services.get(id).map(|service| service.name().to_owned())
            && !self.with_trees(|trees, cx| trees.unrecorded_of(cx, Some(&name))).is_empty()
        {
            return Err((Stage::Fork, Errno::BUSY));
        }
        self.ledger.note_sequence(&mut self.kernel).map_err(|errno| (Stage::Sign, errno))?;
        // Room to sign in: what is written past the last whole slot is lost to the next daemon.
        self.ledger.reserve(&mut self.kernel, id).map_err(|errno| (Stage::Sign, errno))?;
        if let Some(service) = self.services.get_mut(id) {
            service.machine.set_policy(service.definition.spec.policy.clone());
        }
        let Some(service) = self.services.get(id) else { return Ok(()) };
        // Before there is a child: what an old copy of the journal lacks must show in it.
        let state = State { started_at: self.kernel.wall(), ..service.state() };
        let sign = |errno| (Stage::Sign, errno);
        self.ledger.write_slot(&mut self.kernel, id, &state).map_err(sign)?;
        self.ledger.dirty.remove(&id);
        if let Some(service) = self.services.get(id) {
            self.launches.write_preload(&mut self.kernel, &service.definition.spec);
        }
        self.spawn(id, generation, None)?;
        if self.launches.former.remove(&id).is_some_and(|it| !it.spec.held.listen.is_empty()) {
            self.close_sockets();
        }
        let since = state.started_at;
        self.services.get_mut(id).into_iter().for_each(|it| it.record.started_at = since);
        Ok(())
    }

    /// Forks the leader of an incarnation; or, for a probe, what else is to run as it does, and
    /// gives its pid.
    pub(super) fn spawn(
        &mut self,
        id: Id,
        generation: Generation,
        probe: Option<&[String]>,
    ) -> Result<Option<Pid>, (Stage, Errno)> {
        let fork = |errno| (Stage::Fork, errno);
        let (streams, [out, error]) = match probe {
            Some(_) => (Streams::Fifos, ["/dev/null"; 2].map(str::to_owned)),
            None => self.output_of(id),
        };
        let Some(service) = self.services.get(id) else { return Ok(None) };
        let Definition { spec, base } = &service.definition;
        let mut who = self.kernel.who(&spec.exec)?;
        let leaf = self.kernel.leaf((id, generation.0), probe.is_none().then_some(&*spec.exec))?;
        who.orders.leaf = leaf.as_ref().map(AsRawFd::as_raw_fd);
        let (mut given, mut channel) = (Vec::new(), None);
        if probe.is_none() {
            let sockets = sockets::numbers(&mut self.kernel, &self.services, id, spec);
            let sockets = sockets.map_err(|errno| (Stage::Option(Key::listen as u8), errno))?;
            given.extend(sockets.into_iter().zip(3..));
            channel = Channel::open(&spec.checks.ready).map_err(fork)?;
            given.extend(channel.iter().flat_map(|(_, _, given)| *given));
        }
        let marks = &self.trees.marks;
        let living = (marks.own.pid == 1).then(|| format!("{}/{LIVING}", self.home));
        // What is no leader bears the leader's number.
        let pid = self.trees.pid(id).filter(|_| probe.is_some()).unwrap_or(0);
        let mark = EnvMark { home_key: marks.home_key, id, generation: generation.0, pid };
        let (mark, outer, mut env) =
            (mark.value(), self.launches.outer.as_deref(), Strings::default());
        for (name, value) in environment(&service.definition, &who.env, &self.home, &mark, outer, 0)
        {
            env.push(&[name, "=", &value]);
        }
        let path = search_path(&[&spec.env, &spec.dotenv, &base.env]).to_owned();
        let attributes = service.definition.attributes();
        let plan = Plan {
            signature: Signature {
                generation: if mutant("unsigned") { 0 } else { generation.0 },
                leader: Identity::default(),
                parent: marks.own,
                namespace: Namespace::default(),
            },
            signature_offset: probe.is_none().then(|| slot_offset(id) + SIGNATURE_OFFSET as u64),
            limit_mark: marks.mark.map(|own: LimitMark| own.of_incarnation(generation.0).value()),
            argv: probe.unwrap_or(&spec.command),
            env,
            path: &path,
            cwd: &spec.cwd,
            attributes: &attributes,
            orders: &who.orders,
            streams,
            living: living.as_deref(),
            log_out: &out,
            log_error: &error,
            descriptors: &given,
        };
        let mut cx = context(&mut self.kernel, &mut self.ledger, self.now, &mut self.log);
        match probe {
            None => {
                self.trees.launch(&mut cx, id, generation, &plan, ways(spec)).map_err(fork)?;
                self.monitors.checks.listen_to(id, channel.map(|(ours, ..)| ours));
                Ok(None)
            }
            Some(_) => self.trees.launch_beside(&mut cx, id, &plan).map(Some).map_err(fork),
        }
    }
}
