//! From the machine's wish to spawn to the kernel's word that the program runs.
use super::Daemon;
use super::trees::Tree;
use super::trees::drain::LOOK_AGAIN_MS;
use crate::mutant::mutant;
use crate::process::journal_format::{SIGNATURE_OFFSET, Signature, slot_offset};
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::{Identity, Namespace};
use crate::service::context::search_path;
use crate::service::machine::{Fault, Generation, Input, Phase};
use crate::service::name::file_name_of;
use crate::service::options::{OPTIONS, text_of};
use crate::service::spec::{Definition, Id};
use crate::sys::{Errno, Kernel, Launch, Plan, Stage, Streams, Strings, Wake};

/// What every process that PID 1 starts holds open: see `predecessor`. No service's name begins so.
pub(crate) const LIVING: &str = "logs/.living.fifo";
/// Launches in one turn: then the loop looks at its events again.
const LAUNCHES_MAX: usize = 32;

impl<K: Kernel> Daemon<K> {
    pub(crate) fn queue_launch(&mut self, id: Id, generation: Generation) {
        if let Some(service) = self.services.get_mut(id) {
            service.generation = generation.0;
        }
        self.launches.push_back((id, generation));
    }

    /// Launches what is queued, a bounded number.
    pub(crate) fn run_launches(&mut self) {
        if self.launches.is_empty() {
            return;
        }
        self.home_lost |= !self.kernel.home_is_ours();
        if self.home_lost {
            return;
        }
        for _ in 0..LAUNCHES_MAX {
            let Some((id, generation)) = self.launches.pop_front() else {
                return;
            };
            if self.is_stopped_before(id, generation) {
                continue;
            }
            if let Err((stage, errno)) = self.launch(id, generation) {
                self.launch_failed(id, generation, stage, errno);
            }
        }
    }

    /// A stop came before the fork: there is nothing to signal, and nothing to wait for.
    fn is_stopped_before(&mut self, id: Id, generation: Generation) -> bool {
        let Some(service) = self.services.get_mut(id) else {
            return true;
        };
        let current = service.machine.generation() == Some(generation) && service.run.is_none();
        if !current || matches!(service.machine.phase(), Phase::Starting { .. }) {
            return !current;
        }
        service.emptied = service.emptied.max(generation.0);
        self.feed(id, Input::Emptied(generation));
        true
    }

    fn launch(&mut self, id: Id, generation: Generation) -> Result<(), (Stage, Errno)> {
        if !self.trees.strays.is_empty()
            && let Some(name) = self.services.get(id).map(|service| service.name().to_owned())
            && !self.strays_of(&name).is_empty()
        {
            return Err((Stage::Fork, Errno::BUSY));
        }
        self.note_sequence().map_err(|errno| (Stage::Sign, errno))?;
        // Room to sign in: what is written past the last whole slot is lost to the next daemon.
        let reserved = self.ledger.journal.reserve(&mut self.kernel, id);
        reserved.map_err(|errno| (Stage::Sign, errno))?;
        let Some(service) = self.services.get_mut(id) else {
            return Ok(());
        };
        if service.machine.generation() != Some(generation) || service.run.is_some() {
            return Ok(());
        }
        if matches!(service.machine.phase(), Phase::Stopping { .. }) {
            // Stopped in the turn in which it was asked for: there was nobody to signal.
            service.emptied = service.emptied.max(generation.0);
            self.feed(id, Input::Emptied(generation));
            return Ok(());
        }
        let name = &service.definition.spec.name;
        let streams = self.foreground.get(name).copied();
        let streams = streams.unwrap_or(Streams::Files);
        let living = (self.own.pid == 1).then(|| format!("{}/{LIVING}", self.home));
        let (out, error) = paths(streams, &self.home, name);
        let mark = EnvMark { home_key: self.header.home_key, id, generation: generation.0, pid: 0 };
        let Definition { spec, base } = &service.definition;
        let path = search_path(&[&spec.env, &spec.dotenv, &base.env]).to_owned();
        let attributes = service.definition.attributes();
        service.machine.set_policy(spec.policy);
        let plan = Plan {
            signature: Signature {
                generation: if mutant("unsigned") { 0 } else { generation.0 },
                leader: Identity::default(),
                parent: self.own,
                namespace: Namespace::default(),
            },
            signature_offset: slot_offset(id) + SIGNATURE_OFFSET as u64,
            limit_mark: self.mark.map(|own: LimitMark| own.of_incarnation(generation.0).value()),
            argv: &service.definition.spec.command,
            env: environment(&service.definition, &self.home, &mark, self.outer.as_deref()),
            path: &path,
            cwd: &service.definition.spec.cwd,
            attributes: &attributes,
            exec: spec.exec,
            streams,
            living: living.as_deref(),
            log_out: &out,
            log_error: &error,
        };
        let child = self.kernel.spawn(&plan, self.ledger.journal.file());
        let child = child.map_err(|errno| (Stage::Fork, errno))?;
        service.started_at = self.kernel.wall();
        self.ledger.dirty.insert(id);
        self.trees.leaders.insert(child.pid, id);
        service.run = Some(Tree::launched(generation, child, self.now));
        self.watch_run(id);
        Ok(())
    }

    /// Watches the leader, and its launch while that is not decided. Without room in the loop
    /// (max_user_watches, ENOMEM) they are looked at by the clock, until there is room.
    pub(crate) fn watch_run(&mut self, id: Id) {
        let Some(service) = self.services.get(id) else {
            return;
        };
        let Some(run) = service.run.as_ref().filter(|run| run.exit.is_none()) else {
            return;
        };
        let mut watched = Ok(());
        if let Some(pipe) = &run.launch {
            watched = self.kernel.watch_launch(pipe, Wake::Launch(id));
        }
        if let Some(pidfd) = &run.pidfd {
            let leader = self.kernel.watch(pidfd, Wake::Leader(id));
            watched = watched.and(leader.or_else(already));
        }
        if watched.or_else(already).is_err() {
            self.trees.unwatched.insert(id);
            self.trees.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
        }
    }

    /// Looks whether a launch is decided.
    pub(crate) fn check_launch(&mut self, id: Id) {
        let Some(service) = self.services.get_mut(id) else {
            return;
        };
        let Some(run) = service.run.as_mut().filter(|run| run.exit.is_none()) else {
            return;
        };
        let Some(pipe) = &run.launch else { return };
        let generation = run.generation;
        let mut fate = self.kernel.launch(pipe);
        if fate == Launch::Done {
            // The pipe ends with an exec and with a death.
            fate = match self.kernel.stat(run.leader.pid) {
                Ok(stat) if stat.execed => fate,
                Ok(_) => Launch::Failed(Stage::Killed, Errno::INTR),
                Err(_) => {
                    self.trees.unwatched.insert(id);
                    self.trees.look_again_at.get_or_insert(self.now + LOOK_AGAIN_MS);
                    Launch::Pending
                }
            };
        }
        match fate {
            Launch::Pending => {}
            Launch::Done => {
                self.kernel.unwatch_launch(pipe);
                run.launch = None;
                run.since = self.now;
                let pid = run.leader.pid;
                service.note = None;
                service.launch_error = None;
                service.provisional = false;
                self.announce(id, generation, "spawned", |event| event.pid = Some(pid));
                self.announce(id, generation, "ready", |event| event.pid = Some(pid));
                self.feed(id, Input::Spawned(generation));
                // An exec is what a start asks for: told now, before a quick end of it is seen.
                self.answer_touched();
            }
            Launch::Failed(stage, errno) => {
                self.kernel.unwatch_launch(pipe);
                run.launch = None;
                // The child is about to exit: the machine hears of it when it has.
                run.failure = Some((stage, errno));
                self.note_failure(id, stage, errno);
                self.trees.look_again_at.get_or_insert(self.now);
            }
        }
    }

    /// Nothing was exec'd, and the child, if there was one, is gone.
    pub(crate) fn launch_failed(
        &mut self,
        id: Id,
        generation: Generation,
        stage: Stage,
        errno: Errno,
    ) {
        self.note_failure(id, stage, errno);
        if let Some(service) = self.services.get_mut(id) {
            service.emptied = service.emptied.max(generation.0);
        }
        let crowded = matches!(
            errno,
            Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::DQUOT
        );
        let fault = if crowded || stage == Stage::Killed { Fault::Machine } else { Fault::Program };
        self.feed(id, Input::SpawnFailed(generation, fault));
        if self.services.get(id).is_some_and(|service| service.provisional) {
            // Its very first exec: whoever asked is told why, and nothing of it is kept.
            self.answer_touched();
            self.feed(id, Input::Stop);
            self.forget(id);
        }
    }

    fn note_failure(&mut self, id: Id, stage: Stage, errno: Errno) {
        let home = self.home.clone();
        if let Some(service) = self.services.get_mut(id) {
            if stage == Stage::Killed && matches!(service.machine.phase(), Phase::Stopping { .. }) {
                return;
            }
            let spec = &service.definition.spec;
            let program = spec.command.first().map_or("", String::as_str);
            let what = match stage {
                Stage::Fork => "cannot create a process".to_owned(),
                Stage::Sign => format!("cannot sign {home}/journal"),
                Stage::Setup => "cannot set up the process".to_owned(),
                Stage::Option(at) => {
                    let opt = OPTIONS.get(usize::from(at));
                    opt.map_or(String::new(), |opt| {
                        format!("cannot set {} {}", opt.label, text_of(&opt.get(spec)))
                    })
                }
                Stage::Directory => format!("cannot enter {}", spec.cwd),
                Stage::Log => format!("cannot open its log in {home}/logs"),
                Stage::Exec => format!("cannot execute {program}"),
                Stage::Killed => format!("killed before it could execute {program}"),
                Stage::Interpreter => format!("cannot execute {program}: its interpreter"),
            };
            let why =
                (stage != Stage::Killed).then(|| format!(": {}", crate::sys::describe(errno)));
            service.note = Some((what + &why.unwrap_or_default()).into());
            service.launch_error = Some(errno);
        }
    }
}

/// What is watched already is watched.
fn already(errno: Errno) -> Result<(), Errno> {
    if errno == Errno::EXIST { Ok(()) } else { Err(errno) }
}

fn paths(streams: Streams, home: &str, name: &str) -> (String, String) {
    match streams {
        Streams::Files | Streams::Inherited => log_paths(home, name),
        Streams::Fifos => fifo_paths(home, name),
    }
}

/// The paths of a service's log files.
pub fn log_paths(home: &str, name: &str) -> (String, String) {
    let file = file_name_of(name);
    (format!("{home}/logs/{file}-out.log"), format!("{home}/logs/{file}-error.log"))
}

/// The paths of the FIFOs that take a service's output to the terminal or the container's log.
pub fn fifo_paths(home: &str, name: &str) -> (String, String) {
    let file = file_name_of(name);
    (format!("{home}/logs/{file}-out.fifo"), format!("{home}/logs/{file}-error.fifo"))
}

/// All that an incarnation finds in its environment.
pub(crate) fn environment(
    definition: &Definition,
    home: &str,
    mark: &EnvMark,
    outer: Option<&str>,
) -> Strings {
    let mut env = Strings::default();
    for (name, value) in definition.variables() {
        env.push(&[name, "=", value]);
    }
    env.push(&["OPM_HOME=", home]);
    env.push(&["OPM_NAME=", &definition.spec.name]);
    if let Some(outer) = outer {
        env.push(&["OPM_OUTER=", outer]);
    }
    env.push(&[MARK_VARIABLE, "=", &mark.value()]);
    env
}
