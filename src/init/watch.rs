//! The loop: one signal at a time, until the program and what it left are gone.
//!
//! It must never forward what the kernel, rather than somebody, sent on account of a terminal
//! that the program sees itself; and never let a storm of orphans keep it from signals.
use super::args::Options;
use super::processes::drops;
use super::say;
use super::survivors::Survivors;
use crate::process::Pid;
use crate::sys::program::{Place, Reaped, reap};
use crate::sys::signals::{Arrival, is_pending, take};
use crate::sys::terminal::{Terminal, own_group};
use crate::sys::{Errno, Reach, kill, own_pid};
use std::time::{Duration, Instant};

/// Zombies taken before signals get their turn.
const SWEEP_MAX: u32 = 1024;
/// What is left has this long even when the stop began a grace ago.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A process that KILL hasn't ended by now hangs in the kernel; the exit code is worth more.
const KILL_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often a group that isn't ours is asked whether it is empty, doubling.
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// One program and its PID 1.
#[derive(Debug)]
pub(super) struct Watch {
    options: Options,
    child: Pid,
    /// Where the program stands; the foreground comes and goes.
    place: Place,
    survivors: Survivors,
    code: Option<u8>,
    /// A sweep ended for its length, not for want of zombies.
    is_sweep_unfinished: bool,
    childless: bool,
    /// We have forwarded a stop, and no CONT since.
    has_forwarded_stop: bool,
    /// When TERM was first forwarded.
    asked_at: Option<Instant>,
    /// When a program that got TERM and drops it is killed.
    kill_at: Option<Instant>,
}

impl Watch {
    pub(super) fn new(options: Options, child: Pid, place: Place, survivors: Survivors) -> Watch {
        Watch {
            options,
            child,
            place,
            survivors,
            code: None,
            is_sweep_unfinished: false,
            childless: false,
            has_forwarded_stop: false,
            asked_at: None,
            kill_at: None,
        }
    }

    /// The exit code of the whole.
    pub(super) fn until_the_end(mut self) -> u8 {
        // Children that were there before us, and a program that ended before we looked.
        self.sweep();
        let code = loop {
            if let Some(code) = self.code {
                break code;
            }
            self.turn(self.kill_at);
            self.kill_if_due();
        };
        if self.options.verbosity > 0 {
            say(format_args!("init: pid={} exited with code {code}", self.child));
        }
        self.recover_terminal();
        self.end_what_is_left();
        self.options.remap(code)
    }

    fn turn(&mut self, until: Option<Instant>) {
        let timeout = match self.is_sweep_unfinished {
            true => Some(Duration::ZERO),
            false => until.map(|at| at.saturating_duration_since(Instant::now())),
        };
        match take(timeout) {
            Some(arrival) if arrival.signal != libc::SIGCHLD => self.forward(arrival),
            None if !self.is_sweep_unfinished => {}
            Some(_) | None => self.sweep(),
        }
    }

    fn forward(&mut self, arrival: Arrival) {
        // Once the program has gone, what is left is asked to stop as it is, once each.
        let is_asked_already = arrival.signal == libc::SIGTERM && self.code.is_some();
        if is_our_own_affair(arrival) || is_asked_already {
            return;
        }
        if let Some(signal) = self.outgoing(arrival.signal) {
            self.pass_on(arrival.signal, signal);
        }
        // dumb-init's rule: what the program alone gets, or gets as something else, need not stop
        // it, so its being stopped is not waited for.
        let is_for_program = self.options.reach == Reach::Process
            || self.options.rewrites.contains_key(&arrival.signal);
        if is_terminal_stop(arrival.signal) && is_for_program {
            self.stop();
        }
    }

    /// What a signal goes on as, if it does.
    ///
    /// In a session of its own the program's group is orphaned, and there the kernel drops the
    /// three stop signals of terminals. STOP is what they were meant to do. The program alone may
    /// handle them.
    fn outgoing(&self, signal: i32) -> Option<i32> {
        let is_dropped_there = self.place == Place::Session && self.options.reach == Reach::Group;
        match self.options.rewrites.get(&signal) {
            Some(rewritten) => *rewritten,
            None if is_dropped_there && is_terminal_stop(signal) => Some(libc::SIGSTOP),
            None => Some(signal),
        }
    }

    fn pass_on(&mut self, arrived: i32, signal: i32) {
        match signal {
            libc::SIGCONT => {
                self.has_forwarded_stop = false;
                if self.code.is_none() {
                    self.hand_terminal_on();
                }
            }
            libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                self.has_forwarded_stop = true;
            }
            _ => {}
        }
        if self.options.verbosity > 1 {
            say(format_args!("init: signal {arrived} goes on as {signal}"));
        }
        if arrived == libc::SIGTERM {
            self.survivors.note_asked(signal);
        }
        self.send(signal);
        if arrived == libc::SIGTERM && self.asked_at.is_none() {
            let now = Instant::now();
            self.asked_at = Some(now);
            // A grace of 0 waits for nothing and bounds nothing.
            self.kill_at = Some(now + self.options.grace()).filter(|at| *at > now);
        }
    }

    fn send(&mut self, signal: i32) {
        if self.code.is_some() {
            self.survivors.signal(signal);
            return;
        }
        let sent = kill(self.child, signal, self.options.reach);
        if sent == Err(Errno::SRCH) && self.options.reach == Reach::Group {
            // The child hasn't come to its setsid yet, and is alone.
            kill(self.child, signal, Reach::Process).ok();
        }
    }

    fn sweep(&mut self) {
        let mut stopped_by = None;
        self.is_sweep_unfinished = true;
        for _ in 0..SWEEP_MAX {
            match reap() {
                Reaped::Exited(pid, exit) if pid == self.child && self.code.is_none() => {
                    self.code = Some(exit.code());
                }
                Reaped::Exited(pid, _) => {
                    self.survivors.forget(pid);
                    if self.options.warn_reap {
                        say(format_args!("Reaped zombie process with pid={pid}"));
                    }
                }
                Reaped::Stopped(pid, signal) if pid == self.child => stopped_by = Some(signal),
                Reaped::Stopped(..) => {}
                end @ (Reaped::Quiet | Reaped::Childless) => {
                    self.childless = end == Reaped::Childless;
                    self.is_sweep_unfinished = false;
                    break;
                }
            }
        }
        if let (Some(signal), None) = (stopped_by, self.code) {
            self.share_stop(signal);
        }
    }

    /// The program has been stopped. Our own stop is how the shell above learns of it.
    fn share_stop(&mut self, signal: i32) {
        if is_pending(&[libc::SIGCONT]) {
            // It is about to be passed on.
            return;
        }
        let terminal = self.shared_terminal();
        let in_foreground = terminal.as_ref().and_then(Terminal::foreground) == Some(self.child);
        // After `fg` of a job that runs no CONT comes: the shell just puts our group in front.
        let wants_terminal = matches!(signal, libc::SIGTTIN | libc::SIGTTOU);
        if wants_terminal && self.hand_terminal_on() {
            self.send(libc::SIGCONT);
            return;
        }
        // ^Z where nobody could ever say `fg`.
        let is_ours_to_undo = terminal.is_some() && !Terminal::has_shell_above();
        if is_ours_to_undo && !self.has_forwarded_stop {
            // The kernel drops it in an orphaned group, and so do we. Only for TSTP: a TTIN would
            // come back for ever.
            if signal == libc::SIGTSTP && in_foreground {
                self.send(libc::SIGCONT);
            }
            return;
        }
        // A STOP from elsewhere to the program alone is between those two: whoever sent it will
        // continue it without telling us, and we must not be stopped then.
        if is_terminal_stop(signal) || self.has_forwarded_stop || in_foreground {
            self.stop();
        }
    }

    /// Stops us, which has no effect on a PID 1.
    fn stop(&self) {
        // A stop drops a pending CONT, which would be the one that is to resume us.
        if !is_pending(&[libc::SIGCONT]) {
            kill(own_pid(), libc::SIGSTOP, Reach::Process).ok();
        }
    }

    /// The terminal, if the program has it in common with us.
    fn shared_terminal(&self) -> Option<Terminal> {
        if self.place == Place::Session { None } else { Terminal::find() }
    }

    /// After `fg` the shell gave our group the foreground. Whether the program got it.
    fn hand_terminal_on(&mut self) -> bool {
        let Some(terminal) = self.shared_terminal().filter(Terminal::is_ours) else {
            return false;
        };
        terminal.give_to(self.child);
        self.place = Place::Group { foreground: true };
        true
    }

    /// The foreground must not stay with a group that is gone: a script around us, which has no
    /// job control of its own, would be stopped at its next read.
    fn recover_terminal(&self) {
        if self.place != (Place::Group { foreground: true }) {
            return;
        }
        // Somebody else's by now, such as the shell's after `bg`, is not to be taken.
        let is_stale =
            |group| group == self.child || kill(group, 0, Reach::Group) == Err(Errno::SRCH);
        if let Some(terminal) = Terminal::find()
            && terminal.foreground().is_some_and(is_stale)
        {
            terminal.give_to(own_group());
        }
    }

    /// The program got TERM a grace ago and is still there. If it drops TERM it will be there for
    /// ever, and the runtime would kill us all and lose the exit code. If it handles TERM it may
    /// be at work, closing down or only reloading, so it is left alone unless a grace was asked
    /// for in so many words.
    fn kill_if_due(&mut self) {
        if self.code.is_some() || self.kill_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.kill_at = None;
        let term = self.outgoing(libc::SIGTERM);
        let is_dropped = || term.is_some_and(|sent| drops(self.child, sent) == Some(true));
        if self.options.is_stop_bounded() || is_dropped() {
            say(format_args!("init: pid={} outlived TERM: killed", self.child));
            self.send(libc::SIGKILL);
        } else {
            // Another TERM starts another wait.
            self.asked_at = None;
        }
    }

    fn end_what_is_left(&mut self) {
        if self.survivors.are_gone(self.childless) {
            return;
        }
        self.survivors.ask();
        let grace = self.options.grace();
        if grace.is_zero() {
            return;
        }
        let now = Instant::now();
        let rest = self.asked_at.map_or(grace, |at| (at + grace).saturating_duration_since(now));
        let least = LAST_WORDS.min(grace);
        let until = now + rest.max(least);
        let ask =
            |survivors: &mut Survivors| survivors.ask_newcomers(Instant::now() + least >= until);
        if self.wait_for_what_is_left(until, ask) {
            return;
        }
        if self.options.verbosity > 0 {
            say(format_args!("init: the grace is over: KILL to what is left"));
        }
        self.wait_for_what_is_left(Instant::now() + KILL_WAIT_MAX, |survivors| {
            survivors.signal(libc::SIGKILL);
        });
    }

    /// Whether all were gone in time. Who becomes ours meanwhile is told, too.
    fn wait_for_what_is_left(&mut self, until: Instant, tell: impl Fn(&mut Survivors)) -> bool {
        let mut look = LOOK_MIN;
        loop {
            tell(&mut self.survivors);
            if self.survivors.are_gone(self.childless) {
                return true;
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            let next = match self.survivors.are_silent() {
                true => until.min(now + look),
                false => until,
            };
            look = (look * 2).min(LOOK_MAX);
            self.turn(Some(next));
        }
    }
}

/// The three that a terminal stops a job by.
fn is_terminal_stop(signal: i32) -> bool {
    matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
}

/// Neither forwarded nor acted on: our own SIGPIPE, or a terminal's complaint about another of us.
fn is_our_own_affair(arrival: Arrival) -> bool {
    match arrival.signal {
        libc::SIGPIPE => arrival.sender == own_pid(),
        libc::SIGTTIN | libc::SIGTTOU => arrival.is_from_kernel,
        _ => false,
    }
}
