//! `opm run`: several services in the foreground, as PID 1 or not.
//!
//! The daemon itself in this very process, with this in front of it: what is declared is started,
//! its output is passed on, and its end is the end of this process. Every other `opm` command
//! works beside it. Never ends as PID 1 while something that it has not asked to end still
//! lives, but when the stop has taken its time.
//!
//! | what happens | what it does | exit |
//! |---|---|---|
//! | a critical service ends for good | stop all | its code |
//! | every service has ended by itself | stop what else there is | the worst code |
//! | TERM, INT, QUIT, `opm daemon stop` | stop all, KILL before the time is over | 0, or 137 if KILL was needed |
//! | INT or QUIT once more | KILL at once | 137 |
//! | an operator stopped a service | nothing: it is expected back | |
mod messages;
pub mod options;
mod output;
mod prefix;

use crate::daemon::events::rfc3339;
use crate::daemon::log::{log, log_in_foreground};
use crate::daemon::server::event_loop::Server;
use crate::daemon::server::role::{Fate, ROLE, Role};
use crate::daemon::{Daemon, Leave};
use crate::service::machine::Time;
use crate::service::spec::Spec;
use crate::sys::attributes::privately;
use crate::sys::home::Home;
use crate::sys::linux::Linux;
use crate::sys::{Errno, Kernel, Mode, Streams, attributes, describe, reexec};
use crate::wire::{Reply, Request, code};
use messages::Messages;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use options::{Options, Prefix};
use output::Output;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

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
    let mut run = Run::new(options);
    let code = run.through(first).unwrap_or_else(|(code, text)| {
        log(&text);
        code
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

/// Whether a home is ours and can be written to.
fn try_home(path: &str) -> Result<(), Errno> {
    let home = Home::open(path)?;
    privately(|| home.open_file("lock", Mode::InPlace)).map(drop)
}

/// How it ends.
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
    names: Vec<String>,
    /// Waiting for old incarnations of theirs to drain.
    later: Vec<Spec>,
    output: Option<Output>,
    /// There is more to pass on at once.
    more: bool,
    stop: Option<Stop>,
    /// What was said of each service's fate.
    said: BTreeMap<String, Fate>,
    messages: Messages,
    now: Time,
    /// It has come to its end, whatever that is.
    is_over: bool,
}

impl Run {
    fn new(options: Options) -> Self {
        let names = options.specs.iter().map(|spec| spec.name.clone()).collect();
        Self {
            names,
            options,
            later: Vec::new(),
            output: None,
            more: false,
            stop: None,
            said: BTreeMap::new(),
            messages: Messages::default(),
            now: 0,
            is_over: false,
        }
    }

    /// Finds a home and serves it.
    fn through(&mut self, first: bool) -> Result<u8, (u8, String)> {
        if let Some(trouble) = self.options.trouble.as_ref().filter(|_| first) {
            return Err(trouble.clone());
        }
        let mut reasons = Vec::new();
        let usable = self.options.homes.iter().find(|home| {
            let tried = try_home(home);
            reasons.extend(tried.err().map(|errno| Home::refusal(home, errno)));
            tried.is_ok()
        });
        let Some(home) = usable.cloned() else {
            let text = format!("no home: {} (set OPM_HOME)", reasons.join("; "));
            return Err((code::UNREACHABLE, text));
        };
        reexec::call_by(&self.options.words, &home);
        Ok(crate::daemon::serve_with(Path::new(&home), self))
    }

    /// One service without a prefix has our own stdin, stdout and stderr.
    fn is_alone(&self) -> bool {
        self.names.len() == 1 && matches!(self.options.prefix, None | Some(Prefix::None))
    }

    fn open_output(&mut self, daemon: &Daemon<Linux>, registry: &Registry) -> Result<(), String> {
        let prefix = self.options.prefix.unwrap_or(Prefix::Name);
        let home = &daemon.kernel.home;
        let output = Output::new(home, &self.names, prefix).map_err(|errno| {
            format!("{}/logs: cannot use a FIFO: {}", home.path, describe(errno))
        })?;
        self.output = Some(output);
        self.watch_output(registry, 0)
    }

    /// Registers what is to be watched, but the first ones.
    fn watch_output(&self, registry: &Registry, first: u32) -> Result<(), String> {
        let watched = self.output.as_ref().map_or(Vec::new(), Output::watched);
        for (number, fd) in (0..).zip(watched).skip(first as usize) {
            let interest = if (number as usize) < Output::SINKS {
                Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            let token = Server::role_token(number);
            match registry.register(&mut SourceFd(&fd), token, interest) {
                Ok(()) => {}
                // A file: it is always ready.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(format!("cannot poll: {error}")),
            }
        }
        Ok(())
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
        daemon.stop_all();
    }

    /// Leads the end on. True: something was asked for.
    fn proceed(&mut self, daemon: &mut Daemon<Linux>) -> bool {
        let Some(stop) = &mut self.stop else {
            return false;
        };
        daemon.dismiss_orphans();
        stop.killed |= daemon.killing().next().is_some();
        let over = stop.end_at <= self.now;
        if daemon.is_quiet() || over {
            if over {
                log("out of time; leaving what SIGKILL did not end");
            }
            daemon.leave = Some(Leave::Quit);
            return false;
        }
        if stop.kill_at > self.now {
            return false;
        }
        stop.killed = true;
        stop.kill_at = self.now + KILL_AGAIN_MS;
        daemon.kill_all();
        true
    }

    /// Whether what the services came to is the end. None: not yet.
    fn verdict(&mut self, daemon: &Daemon<Linux>) -> Option<u8> {
        let fates = self.names.iter().map(|name| (name.clone(), daemon.fate(name)));
        let fates: Vec<(String, Fate)> = fates.collect();
        let mut worst = None;
        let mut all_ended = true;
        for (name, fate) in fates {
            let is_new = self.said.get(&name) != Some(&fate);
            let Fate::Ended(code, why) = &fate else {
                all_ended = false;
                self.said.insert(name, fate);
                continue;
            };
            let critical = daemon.is_fatal(&name);
            if is_new {
                let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
                let all = if critical { "; it is critical, stopping all" } else { "" };
                let what = format!("ended for good, exit code {code}{why}{all}");
                self.messages.say_end(&name, &what);
            }
            if critical {
                return Some(*code);
            }
            worst = worst.max(Some(*code));
            self.said.insert(name, fate);
        }
        worst.filter(|_| all_ended)
    }

    /// What was answered to what we asked for. A refusal is the end: it would be so again.
    fn hear(&mut self, daemon: &mut Daemon<Linux>) {
        for reply in daemon.answers() {
            match reply {
                Reply::Failed { code, text } => {
                    log(&text);
                    self.stop(daemon, code, false);
                }
                Reply::Outcomes { outcomes, .. } => {
                    for outcome in outcomes {
                        outcome.warnings.iter().for_each(|text| log(text));
                        if outcome.code == code::REFUSED && self.stop.is_none() {
                            log(&outcome.text);
                            self.stop(daemon, code::REFUSED, false);
                        }
                    }
                }
                Reply::Event(event) => {
                    let ours = self.names.contains(&event.service);
                    self.messages.hear(event, ours);
                }
                _ => {}
            }
        }
    }
}

impl Role for Run {
    fn if_served_already(&self) -> Result<u8, u8> {
        Err(code::FAILED)
    }

    fn begin(
        &mut self,
        daemon: &mut Daemon<Linux>,
        registry: &Registry,
        again: bool,
    ) -> Result<(), (u8, String)> {
        if again && let Some((_, trouble)) = &self.options.trouble {
            log(&format!("{trouble}; going on with what is known"));
            let known = daemon.all_services().filter(|service| {
                let (out, _) = crate::daemon::launch::fifo_paths(&daemon.home, service.name());
                std::fs::symlink_metadata(out).is_ok()
            });
            self.names = known.map(|service| service.name().to_owned()).collect();
        }
        let streams = if self.is_alone() {
            Streams::Inherited
        } else {
            self.open_output(daemon, registry).map_err(|text| (code::UNREACHABLE, text))?;
            Streams::Fifos
        };
        daemon.lead_streams(self.names.iter().cloned(), streams);
        daemon.request(ROLE, 0, Request::Events { follow: true });
        if !again {
            let specs = std::mem::take(&mut self.options.specs);
            self.later = daemon.declare(specs, &self.options.base);
        }
        // An earlier image of us may have been asked already.
        self.now = daemon.kernel.now();
        Ok(())
    }

    fn home_is_new(&mut self, daemon: &mut Daemon<Linux>, registry: &Registry) {
        let Some(output) = &mut self.output else {
            return;
        };
        let known = u32::try_from(output.watched().len()).unwrap_or(0);
        let added = output.add(&daemon.kernel.home, &self.names).map_err(describe);
        if let Err(reason) = added.and_then(|()| self.watch_output(registry, known)) {
            log(&format!("{}/logs: cannot use a FIFO: {reason}", daemon.home));
        }
    }

    fn signal(&mut self, signal: i32, daemon: &mut Daemon<Linux>) {
        let hasten = self.stop.is_some() && signal != libc::SIGTERM;
        self.stop(daemon, code::DONE, true);
        if hasten && let Some(stop) = &mut self.stop {
            stop.kill_at = stop.kill_at.min(self.now);
        }
    }

    fn woken(&mut self, number: usize) {
        if let Some(output) = &mut self.output {
            output.woken(number);
        }
    }

    fn turn(&mut self, daemon: &mut Daemon<Linux>) -> bool {
        self.now = daemon.kernel.now();
        self.hear(daemon);
        let mut acted = false;
        let later = std::mem::take(&mut self.later);
        if !later.is_empty() {
            let waiting = |spec: &Spec| daemon.is_live(&spec.name);
            let (later, ready): (Vec<_>, Vec<_>) = later.into_iter().partition(waiting);
            self.later = later;
            if !ready.is_empty() {
                self.later.extend(daemon.declare(ready, &self.options.base));
                acted = true;
            }
        }
        if self.stop.is_none()
            && self.later.is_empty()
            && let Some(code) = self.verdict(daemon)
        {
            self.stop(daemon, code, false);
            acted = true;
        }
        acted |= self.proceed(daemon);
        self.messages.lines(daemon.killing()).iter().for_each(|line| log(line));
        if let Some(output) = &mut self.output {
            output.note_ended(|name| !daemon.is_live(name));
            self.more = output.pump(&rfc3339(daemon.kernel.wall()));
        }
        acted
    }

    fn deadline(&self) -> Option<Time> {
        let stop = self.stop.map(|stop| stop.kill_at.min(stop.end_at));
        let more = self.more.then_some(self.now);
        stop.into_iter().chain(more).min()
    }

    fn end(&mut self, daemon: &mut Daemon<Linux>) -> u8 {
        self.is_over = true;
        if let Some(output) = &mut self.output {
            let at = rfc3339(daemon.kernel.wall());
            let left = match self.stop {
                Some(stop) => stop.end_at.saturating_sub(daemon.kernel.now()),
                None => LAST_OUTPUT_MS,
            };
            output.finish(&at, left.min(LAST_OUTPUT_MS));
        }
        match self.stop {
            Some(stop) if stop.asked && stop.killed => KILLED,
            Some(stop) => stop.code,
            None => code::DONE,
        }
    }
}
