//! What may stand in front of the loop: nothing, or a foreground run.
//!
//! A front sees what the daemon knows and asks for what an operator could ask for. It never
//! spawns, signals or reaps past the daemon, but for what belongs to no service.
use crate::daemon::failure::Failure;
use crate::daemon::log::log;
use crate::daemon::service::Service;
use crate::daemon::trees::Owner;
use crate::daemon::{ClientId, Daemon, Leave};
use crate::process::Exit;
use crate::service::context::Context;
use crate::service::machine::{Input, Time};
use crate::service::spec::{Id, Restart, Spec};
use crate::sys::linux::Linux;
use crate::sys::{Errno, Kernel, Reach, Streams};
use crate::wire::{Reply, Request, Status, code};
use mio::Registry;

/// The client that a front is; the loop gives no other this number.
pub const ROLE: ClientId = 0;

/// What the loop asks of whoever stands in front of it.
pub trait Role {
    /// What only a log is to be told.
    fn say(&self, _line: &str) {}
    /// Says why nothing can be served.
    fn say_end(&self, _code: u8, text: &str) {
        log(text);
    }
    /// See [`Place`](crate::daemon::adopt::Place).
    fn forgets_elsewhere(&self) -> bool {
        false
    }
    /// Another daemon serves the home.
    ///
    /// # Errors
    /// The exit code, if that is an error.
    fn if_served_already(&self) -> Result<u8, u8>;
    /// Adoption is complete. `again`: an earlier image of this process began already.
    ///
    /// # Errors
    /// Exit code and line.
    fn begin(
        &mut self,
        daemon: &mut Daemon<Linux>,
        registry: &Registry,
        again: bool,
    ) -> Result<(), Failure>;
    /// The home was removed, and made anew: there is nothing in it that the daemon doesn't know.
    fn home_is_new(&mut self, _daemon: &mut Daemon<Linux>, _registry: &Registry) {}
    /// A signal came, but SIGCHLD or SIGHUP.
    fn signal(&mut self, signal: i32, daemon: &mut Daemon<Linux>);
    /// A descriptor registered with this number is ready.
    fn woken(&mut self, number: usize);
    /// The last thing in each turn. True: it asked for something.
    fn turn(&mut self, daemon: &mut Daemon<Linux>) -> bool;
    /// When the next turn is due.
    fn deadline(&self) -> Option<Time>;
    /// The daemon has left. The exit code.
    fn end(&mut self, daemon: &mut Daemon<Linux>) -> u8;
}

/// A daemon in the background: signals make it leave, services stay.
#[derive(Debug)]
pub struct Background {
    pub(crate) forgets_elsewhere: bool,
}

impl Role for Background {
    fn forgets_elsewhere(&self) -> bool {
        self.forgets_elsewhere
    }

    fn say(&self, line: &str) {
        log(line);
    }

    fn say_end(&self, code: u8, text: &str) {
        // Whoever launched us reads the code and the reason from here.
        log(&format!("opm: exit {code}: {text}"));
    }

    fn if_served_already(&self) -> Result<u8, u8> {
        Ok(code::DONE)
    }

    fn begin(&mut self, _: &mut Daemon<Linux>, _: &Registry, _: bool) -> Result<(), Failure> {
        Ok(())
    }

    fn signal(&mut self, _: i32, daemon: &mut Daemon<Linux>) {
        if daemon.leave != Some(Leave::Quit) {
            daemon.request(ROLE, 0, Request::Leave { services: false });
        }
    }

    fn woken(&mut self, _: usize) {}

    fn turn(&mut self, _: &mut Daemon<Linux>) -> bool {
        false
    }

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn end(&mut self, daemon: &mut Daemon<Linux>) -> u8 {
        let alive = daemon.services.iter().any(|service| service.machine.generation().is_some());
        log(if alive { "left; services keep running" } else { "left; nothing runs" });
        code::DONE
    }
}

/// Where a service stands, as far as a foreground run cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It lives, or will again by itself.
    Alive,
    /// An operator stopped or removed it.
    Halted,
    /// It ended for good, with this code, and why if there is more to say.
    Ended(u8, Option<String>),
}

impl<K: Kernel> Daemon<K> {
    /// Where these services' output goes from their next start on.
    pub fn lead_streams(&mut self, names: impl Iterator<Item = String>, streams: Streams) {
        self.foreground.extend(names.map(|name| (name, streams)));
    }

    /// Asks for these services, as they are declared here: what is known by another definition
    /// is removed first. Gives back those whose old incarnations have to drain before.
    pub fn declare(&mut self, specs: Vec<Spec>, base: &Context) -> Vec<Spec> {
        let (mut ready, mut later) = (Vec::new(), Vec::new());
        for spec in specs {
            if let Some(id) = self.services.id_of(&spec.name)
                && !self
                    .services
                    .get(id)
                    .is_some_and(|service| is_as_declared(service, &spec, base))
            {
                if let Some(service) = self.services.get_mut(id) {
                    service.removing = true;
                }
                self.feed(id, Input::Stop);
                if self.services.get(id).is_some() {
                    later.push(spec);
                    continue;
                }
            }
            ready.push(spec);
        }
        if !ready.is_empty() {
            let request = Request::Define {
                specs: ready,
                base: Box::new(base.clone()),
                force: false,
                keep: true,
            };
            self.request(ROLE, 0, request);
        }
        later
    }

    /// What was answered to the front.
    pub fn answers(&mut self) -> Vec<Reply> {
        let mut answers = Vec::new();
        self.outbox.retain_mut(|(client, reply)| {
            let ours = *client == ROLE;
            if ours {
                answers.push(std::mem::replace(reply, Reply::List(Vec::new())));
            }
            !ours
        });
        answers
    }

    /// Where the service of this name stands.
    pub fn fate(&self, name: &str) -> Fate {
        let Some(service) = self.services.named(name) else {
            return Fate::Halted;
        };
        match service.status() {
            Status::Online | Status::Starting | Status::Stopping | Status::Waiting => Fate::Alive,
            Status::Stopped if service.halted => Fate::Halted,
            Status::Errored => Fate::Ended(exit_code(service).max(1), service.reason()),
            Status::Stopped => Fate::Ended(exit_code(service), service.reason()),
        }
    }

    /// Whether this service's end is the end of all: not if it had only one thing to do and has
    /// done it.
    pub fn is_fatal(&self, name: &str) -> bool {
        let service = self.services.named(name);
        service.is_some_and(|service| {
            let spec = &service.definition.spec;
            spec.policy.critical && !(spec.policy.restart == Restart::Never && service.is_done())
        })
    }

    /// Whether a service of this name may have live processes.
    pub fn is_live(&self, name: &str) -> bool {
        let service = self.services.named(name);
        service
            .is_some_and(|service| service.run.is_some() || service.machine.generation().is_some())
    }

    /// Stops every service, the last defined first.
    pub fn stop_all(&mut self) {
        let ids: Vec<Id> = self.services.iter().map(|service| service.id).collect();
        for id in ids.into_iter().rev() {
            self.feed(id, Input::Stop);
        }
    }

    /// SIGKILL for everything that is left.
    pub fn kill_all(&mut self) {
        let live = self.services.iter().filter(|service| service.run.is_some());
        for id in live.map(|service| service.id).collect::<Vec<_>>() {
            self.kill_tree(id);
        }
        for orphan in self.trees.orphans.values() {
            // Gone already, at worst.
            self.kernel.signal(&orphan.pidfd, libc::SIGKILL, Reach::Process).ok();
        }
    }

    /// Asks those of our children to end that no service owns: they came from elsewhere (`docker
    /// exec`) or hide their origin. They arrive silently, so this looks for itself.
    pub fn dismiss_orphans(&mut self) {
        self.count_children();
        for (pid, orphan) in self.trees.orphans.iter_mut() {
            if orphan.asked || matches!(orphan.owner, Owner::Tree(..)) {
                continue;
            }
            orphan.asked = true;
            let stopped = self.kernel.stat(*pid).is_ok_and(|stat| stat.state == b'T');
            for signal in [libc::SIGTERM].into_iter().chain(stopped.then_some(libc::SIGCONT)) {
                // Gone already, at worst.
                self.kernel.signal(&orphan.pidfd, signal, Reach::Process).ok();
            }
        }
        self.check_gates();
    }

    /// Services that SIGKILL was needed for and of which something still lives, by generation.
    pub fn killing(&self) -> impl Iterator<Item = (u64, &str)> {
        let killed = |service: &&Service<K>| service.run.as_ref().is_some_and(|run| run.kills > 0);
        self.services.iter().filter(killed).map(|service| (service.generation, service.name()))
    }

    /// Nothing lives: no service and no child.
    pub fn is_quiet(&self) -> bool {
        self.trees.orphans.is_empty()
            && self
                .services
                .iter()
                .all(|service| service.run.is_none() && service.machine.generation().is_none())
    }
}

/// A live service goes on in the environment that it was started in; one that has to be started
/// anyway gets the one of now.
fn is_as_declared<K: Kernel>(service: &Service<K>, spec: &Spec, base: &Context) -> bool {
    let live = service.run.is_some() || service.machine.generation().is_some();
    let same = || service.definition.spec.differences(spec).is_empty();
    !service.removing && same() && (live || *service.definition.base == *base)
}

/// As a shell has it: 128+n for a signal, 127 not found, 126 could not be started.
fn exit_code<K: Kernel>(service: &Service<K>) -> u8 {
    if let Some(errno) = service.launch_error {
        return if errno == Errno::NOENT { 127 } else { 126 };
    }
    match service.exit {
        Some(Exit::Code(code)) => u8::try_from(code & 0xff).unwrap_or(1),
        Some(Exit::Signal(signal)) => u8::try_from(128 + signal).unwrap_or(255),
        Some(Exit::Unknown) | None => 1,
    }
}
