//! `opm run`: several services in the foreground, as PID 1 or not.
//!
//! The daemon itself in this very process, in a role of its own: what is declared is started, its
//! output is passed on, and its end is the end of this process. Every other `opm` command works
//! beside it. Never ends as PID 1 while something that it has not asked to end still lives, but
//! when the stop has taken its time.
//!
//! | what happens | what it does | exit |
//! |---|---|---|
//! | a critical service ends for good | stop all | its code |
//! | every service has ended by itself | stop what else there is | the worst code |
//! | TERM, INT, QUIT, `opm daemon stop` | stop all, KILL before the time is over | 0, or 137 if KILL was needed |
//! | INT or QUIT once more | KILL at once | 137 |
//! | HUP, or with `--watch-file` a change | reads the file anew, in the next image, and carries out what differs | |
//! | an operator stopped a service | nothing: it is expected back | |
mod end;
mod messages;
pub mod options;
mod watch;

use crate::daemon::log::{log, log_in_foreground};
use crate::daemon::logs::form::{Form, Label};
use crate::daemon::server::role::{ROLE, Role};
use crate::daemon::service::Service;
use crate::daemon::{Daemon, Leave};
use crate::service::context::Context;
use crate::service::environment::{fifo_paths, has_own_logs};
use crate::service::machine::Time;
use crate::service::signal::Signal;
use crate::service::spec::Spec;
use crate::service::time::TimeFormat;
use crate::sys::attributes::privately;
use crate::sys::home::Home;
use crate::sys::linux::Linux;
use crate::sys::{Errno, Kernel, Mode, Streams, attributes, describe, reexec};
use crate::wire::{Existing, Failure, Reply, Request, code};
use end::{End, is_as_declared, is_fatal};
use messages::Messages;
use options::{Options, Prefix};
use std::path::Path;
use std::time::Duration;
use watch::Watch;

/// What a stop that needed SIGKILL exits with.
const KILLED: u8 = 137;
/// From SIGKILL to the end of the stop's time: an eighth of it, within these bounds.
const KILL_RESERVE_MS: (u64, u64) = (50, 500);
/// From one SIGKILL round to the next.
const KILL_AGAIN_MS: u64 = 100;
/// How long the last output may take to be taken.
const LAST_OUTPUT_MS: u64 = 1_000;
/// From one try of PID 1 to begin to the next.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs what the options say. The exit code.
pub fn run(options: Options) -> u8 {
    log_in_foreground();
    // Before the first file: what the services get of ours is in the options.
    attributes::neutral();
    let first = std::env::var_os(reexec::LISTENER_VARIABLE).is_none();
    let mut run = Run {
        options,
        services: Vec::new(),
        later: Vec::new(),
        is_carrying: false,
        stop: None,
        is_reloading: false,
        watch: None,
        messages: Messages::default(),
        is_over: false,
    };
    let code = run.serve(first).unwrap_or_else(|failure| {
        log(&failure.text);
        failure.code
    });
    if !run.is_over && !first && rustix::process::getpid().is_init() {
        begin_again();
    }
    code
}

/// A later image of PID 1 that can't begin (no descriptor, no memory) must not end: services
/// live, and would die with it. Comes back only if not even that can be tried.
fn begin_again() {
    log("services are untouched; trying again");
    std::thread::sleep(AGAIN);
    let errno = reexec::become_again();
    log(&format!("cannot execute myself: {errno}"));
}

fn no_fifo(home: &Home, errno: Errno) -> String {
    format!("{}/logs: cannot use a FIFO: {}", home.path, describe(errno))
}

#[derive(Clone, Copy, Debug)]
struct Stop {
    /// The exit code, if it needs no SIGKILL.
    code: u8,
    kill_at: Time,
    end_at: Time,
    killed: bool,
    /// Asked for by a signal: then a kill shows in the exit code.
    asked: bool,
}

struct Run {
    options: Options,
    /// The services that are declared here, and the end of each that was said.
    services: Vec<(String, Option<End>)>,
    /// Declared here, and not asked for yet: the old incarnation has to drain first.
    later: Vec<Spec>,
    /// What services write is passed on line by line.
    is_carrying: bool,
    stop: Option<Stop>,
    /// A file that was read anew is carried out: what it can't have is said, and ends nothing.
    is_reloading: bool,
    watch: Option<Watch>,
    messages: Messages,
    /// The daemon has left: this process is to end.
    is_over: bool,
}

impl Run {
    fn serve(&mut self, first: bool) -> Result<u8, Failure> {
        if let Some(failure) = self.options.declared.as_ref().err().filter(|_| first) {
            return Err(failure.clone());
        }
        let mut reasons = Vec::new();
        let usable = self.options.homes.iter().find(|home| {
            // Ours, and it can be written to.
            let open = |home: Home| privately(|| home.open_file("lock", Mode::InPlace));
            let tried = Home::open(home).and_then(open).map(drop);
            reasons.extend(tried.err().map(|errno| Home::refusal(home, errno)));
            tried.is_ok()
        });
        let Some(home) = usable.cloned() else {
            let text = format!("no home: {} (set OPM_HOME)", reasons.join("; "));
            return Err(Failure::unreachable(text));
        };
        let directory = self.options.directory.as_deref();
        reexec::call_by(&self.options.words, &home, directory);
        crate::daemon::serve_with(Path::new(&home), self)
    }

    fn say(&self, line: &str) {
        if !self.options.quiet {
            log(line);
        }
    }

    /// Asks for what is declared here. What is known by another definition is removed first, and
    /// asked for when that has drained. True: something was asked for.
    fn declare(&mut self, daemon: &mut Daemon<Linux>) -> bool {
        let base = &self.options.base;
        let (mut ready, mut asked) = (Vec::new(), false);
        self.later.retain(|spec| {
            if let Some(known) = daemon.services.named(&spec.name)
                && !is_as_declared(known, spec, base)
            {
                if !known.removing {
                    let target = known.id.to_string();
                    daemon.request(ROLE, 0, Request::Remove { target });
                    asked = true;
                }
                if daemon.services.named(&spec.name).is_some() {
                    return true;
                }
            }
            ready.push(spec.clone());
            false
        });
        if ready.is_empty() {
            return asked;
        }
        define(daemon, ready, base.clone(), Existing::Same);
        true
    }

    /// Asks for what differs from a file that was read anew, removals too: all of it, or nothing.
    fn reload(&mut self, daemon: &mut Daemon<Linux>, mut specs: Vec<Spec>) {
        self.is_reloading = true;
        let names: Vec<&String> = self.services.iter().map(|(name, _)| name).collect();
        let is_gone = |service: &&Service| {
            let is_named = names.iter().any(|name| *name == service.name());
            !is_named && has_fifos(&daemon.kernel.home, service.name())
        };
        let gone = daemon.services.iter().filter(is_gone);
        let gone: Vec<_> = gone.map(|it| (it.id, it.name().to_owned())).collect();
        let mut base = self.options.base.clone();
        if let Some(service) = daemon.services.iter().next() {
            // Ours are not any more what they were at the start.
            base.attributes = service.definition.base.attributes;
        }
        specs.retain(|spec| {
            let known = daemon.services.named(&spec.name).map(|service| &service.definition.spec);
            let keys = known.map_or_else(|| vec!["new".to_owned()], |it| it.differences(spec));
            if !keys.is_empty() {
                self.say(&format!("{}: {}", spec.name, keys.join(", ")));
            }
            !keys.is_empty()
        });
        define(daemon, specs.clone(), base.clone(), Existing::Checked);
        if matches!(daemon.outbox.last(), Some((ROLE, Reply::Failed { .. }))) {
            return;
        }
        for (id, name) in gone {
            self.say(&format!("{name}: not in the file"));
            daemon.request(ROLE, 0, Request::Remove { target: id.to_string() });
        }
        if !specs.is_empty() {
            define(daemon, specs, base, Existing::Replace);
        }
    }

    /// Watches the process file, if that is asked for. It can be done without.
    fn watch(&mut self, daemon: &mut Daemon<Linux>) {
        let Some(watched) = self.options.watched.take() else { return };
        let path = watched.path.display().to_string();
        match Watch::new(watched, daemon.kernel.registry(), daemon.kernel.now()) {
            Ok(watch) => self.watch = Some(watch),
            Err(errno) => log(&format!(
                "{path}: can't be watched: {} (raise fs.inotify.max_user_watches and \
                 max_user_instances by sysctl, or send SIGHUP)",
                describe(errno)
            )),
        }
    }

    /// Has the next image of this process carry out what the file says by then.
    fn read_anew(&self, daemon: &mut Daemon<Linux>, why: &str) {
        if self.stop.is_none() && daemon.leave.is_none() {
            self.say(&format!("{why}: reading the file anew"));
            reexec::reload_next();
            daemon.request(ROLE, 0, Request::Upgrade { binary: None });
        }
    }

    /// Begins the end, once; a second time only hastens it.
    fn stop(&mut self, daemon: &mut Daemon<Linux>, code: u8, asked: bool) {
        if self.stop.is_some() {
            return;
        }
        let now = daemon.kernel.now();
        let time = self.options.stop_timeout_ms;
        let reserve = (time / 8).clamp(KILL_RESERVE_MS.0, KILL_RESERVE_MS.1).min(time);
        self.later.clear();
        self.stop = Some(Stop {
            code,
            kill_at: now.saturating_add(time - reserve),
            end_at: now.saturating_add(time),
            killed: false,
            asked,
        });
        daemon.request(ROLE, 0, Request::Stop { target: "all".to_owned(), dependants: true });
    }

    /// Leads the end on. True: something was asked for.
    fn proceed(&mut self, daemon: &mut Daemon<Linux>) -> bool {
        let Some(stop) = &mut self.stop else {
            return false;
        };
        let now = daemon.kernel.now();
        daemon.dismiss_orphans();
        stop.killed |= daemon.killing().next().is_some();
        let is_quiet = daemon.is_quiet();
        if is_quiet || stop.end_at <= now {
            if !is_quiet {
                log("out of time; leaving what SIGKILL did not end");
            }
            daemon.leave = Some(Leave::Quit);
            return false;
        }
        if stop.kill_at > now {
            return false;
        }
        stop.killed = true;
        stop.kill_at = now + KILL_AGAIN_MS;
        daemon.kill_all();
        true
    }

    /// The exit code, if what the services came to is the end. None: not yet.
    fn verdict(&mut self, daemon: &Daemon<Linux>) -> Option<u8> {
        let mut worst = None;
        let mut all_ended = true;
        for (name, said) in &mut self.services {
            let service = daemon.services.named(name);
            let before = std::mem::replace(said, service.and_then(End::of));
            let Some(end) = said else {
                all_ended = false;
                continue;
            };
            let critical = service.is_some_and(is_fatal);
            if before.as_ref() != Some(end) {
                let all = if critical { "; it is critical, stopping all" } else { "" };
                self.messages.say_end(name, &format!("{end}{all}"));
            }
            if critical {
                return Some(end.code);
            }
            worst = worst.max(Some(end.code));
        }
        worst.filter(|_| all_ended)
    }

    /// Takes up what was answered. A refusal is the end: asked again, it would be the same.
    fn read(&mut self, reply: Reply, daemon: &mut Daemon<Linux>) {
        match reply {
            Reply::Failed { code, text } => {
                log(&text);
                if !self.is_reloading {
                    self.stop(daemon, code, false);
                }
            }
            Reply::Outcomes { outcomes, .. } => {
                for outcome in outcomes {
                    outcome.warnings.iter().for_each(|text| log(text));
                    let is_refused = outcome.code == code::REFUSED && self.stop.is_none();
                    if is_refused || self.is_reloading && outcome.code != code::DONE {
                        log(&outcome.text);
                    }
                    if is_refused && !self.is_reloading {
                        self.stop(daemon, code::REFUSED, false);
                    }
                }
            }
            Reply::Event(event) => {
                let ours = self.services.iter().any(|(name, _)| *name == event.service);
                self.messages.hear(event, ours);
            }
            _ => {}
        }
    }
}

fn define(daemon: &mut Daemon<Linux>, specs: Vec<Spec>, base: Context, existing: Existing) {
    let (base, force, wait) = (Box::new(base), false, false);
    daemon.request(ROLE, 0, Request::Define { specs, base, force, existing, wait });
}

/// Has the FIFOs of these services read, made if missing.
fn carry(daemon: &mut Daemon<Linux>, names: &[String]) -> Result<(), Errno> {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for name in names {
        let fifos = fifo_paths(name).into_iter().zip(["stdout", "stderr"]);
        for (number, (path, stream)) in (0..).zip(fifos) {
            let path = daemon.kernel.home.path_by_descriptor(&path);
            let label = Label { name: name.clone(), width, stream };
            daemon.logs.pump.stream(number, &path, label)?;
        }
        let is_live = daemon.services.named(name).is_some_and(Service::is_live);
        daemon.logs.pump.note_ended(name, !is_live);
    }
    Ok(())
}

/// Whether a service's output was passed on by an earlier image of this process.
fn has_fifos(home: &Home, name: &str) -> bool {
    fifo_paths(name).iter().any(|path| home.has(path))
}

impl Role for Run {
    fn yields(&self) -> bool {
        false
    }

    fn begin(&mut self, daemon: &mut Daemon<Linux>, again: bool) -> Result<(), Failure> {
        let declared = std::mem::replace(&mut self.options.declared, Ok(Vec::new()));
        let names: Vec<String> = match &declared {
            Ok(specs) => specs.iter().map(|spec| spec.name.clone()).collect(),
            Err(failure) => {
                log(&format!("{}; going on with what is known", failure.text));
                let known = daemon.services.iter().map(|service| service.name().to_owned());
                known.filter(|name| has_fifos(&daemon.kernel.home, name)).collect()
            }
        };
        let own = declared.iter().flatten().filter(|spec| has_own_logs(&spec.log));
        let own: Vec<String> = own.map(|spec| spec.name.clone()).collect();
        // One service without a prefix has our own stdin, stdout and stderr.
        let usual = if names.len() == 1 { Prefix::None } else { Prefix::Name };
        let prefix = self.options.prefix.unwrap_or(usual);
        let streams = if names.len() == 1 && prefix == Prefix::None {
            Streams::Inherited
        } else {
            let json = prefix == Prefix::Json;
            let time = (json || prefix == Prefix::Time).then(TimeFormat::default);
            let form = Form { time, named: prefix != Prefix::None, json };
            let sinks = [rustix::stdio::stdout(), rustix::stdio::stderr()];
            let pump = &mut daemon.logs.pump;
            let made = (0..).zip(sinks).try_for_each(|(number, to)| pump.sink(number, to, &form));
            let made = made.and_then(|()| carry(daemon, &names));
            let home = &daemon.kernel.home;
            made.map_err(|errno| Failure::unreachable(no_fifo(home, errno)))?;
            self.is_carrying = true;
            Streams::Fifos
        };
        let ours = names.iter().filter(|name| !own.contains(name));
        daemon.launches.foreground.extend(ours.map(|name| (name.clone(), streams)));
        daemon.request(ROLE, 0, Request::Events { follow: true });
        // What had ended before the image that this one follows has said.
        let said = |name: &str| daemon.services.named(name).filter(|_| again).and_then(End::of);
        self.services = names.into_iter().map(|name| (name.clone(), said(&name))).collect();
        match declared {
            _ if !again => {
                self.later = declared?;
                self.declare(daemon);
            }
            // Between two images it may have changed, too.
            Ok(specs) if reexec::is_reload() || self.options.watched.is_some() => {
                self.reload(daemon, specs);
            }
            _ => {}
        }
        self.watch(daemon);
        Ok(())
    }

    fn home_is_new(&mut self, daemon: &mut Daemon<Linux>) {
        let names: Vec<String> = self.services.iter().map(|(name, _)| name.clone()).collect();
        if self.is_carrying
            && let Err(errno) = carry(daemon, &names)
        {
            log(&no_fifo(&daemon.kernel.home, errno));
        }
    }

    fn signal(&mut self, signal: i32, daemon: &mut Daemon<Linux>) {
        if signal == libc::SIGHUP {
            return self.read_anew(daemon, "signal HUP");
        }
        let hasten = self.stop.is_some() && signal != libc::SIGTERM;
        if self.stop.is_none() {
            let name = Signal::from_number(signal).map_or(String::new(), Signal::name);
            self.say(&format!("signal {name}: stopping all"));
        }
        self.stop(daemon, code::DONE, true);
        if hasten && let Some(stop) = &mut self.stop {
            stop.kill_at = 0;
        }
    }

    fn turn(&mut self, daemon: &mut Daemon<Linux>, replies: Vec<Reply>) -> bool {
        for reply in replies {
            self.read(reply, daemon);
        }
        if self.watch.as_mut().is_some_and(|watch| watch.is_due(daemon.kernel.now())) {
            self.read_anew(daemon, "it has changed");
        }
        let mut acted = self.declare(daemon);
        if self.stop.is_none()
            && self.later.is_empty()
            && let Some(code) = self.verdict(daemon)
        {
            self.stop(daemon, code, false);
            acted = true;
        }
        acted |= self.proceed(daemon);
        for line in self.messages.lines(daemon.killing()) {
            self.say(&line);
        }
        acted
    }

    fn deadline(&self) -> Option<Time> {
        let end = self.stop.map(|stop| stop.kill_at.min(stop.end_at));
        end.into_iter().chain(self.watch.as_ref().and_then(Watch::deadline)).min()
    }

    fn end(&mut self, daemon: &mut Daemon<Linux>) -> u8 {
        self.is_over = true;
        if self.is_carrying {
            let left = match self.stop {
                Some(stop) => stop.end_at.saturating_sub(daemon.kernel.now()),
                None => LAST_OUTPUT_MS,
            };
            daemon.logs.pump.finish(left.min(LAST_OUTPUT_MS));
        }
        match self.stop {
            Some(stop) if stop.asked && stop.killed => KILLED,
            Some(stop) => stop.code,
            None => {
                self.say("leaving, as 'opm daemon stop' asked");
                code::DONE
            }
        }
    }
}
