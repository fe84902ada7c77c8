//! What happens once, before the loop: adopt the role, fork, let go of everything.
use super::args::Options;
use super::say;
use super::survivors::{Scope, Survivors};
use super::watch::Watch;
use crate::sys::entry::Inherited;
use crate::sys::program::{self, Place, exit_code_of};
use crate::sys::terminal::Terminal;
use crate::sys::{Reach, Result, describe, fds, kill, own_pid};
use rustix::process::{child_subreaper, getpid, getppid, set_child_subreaper};
use std::env;
use std::ffi::OsString;

pub(super) fn start(options: Options, words: &[OsString], inherited: Inherited) -> Result<Watch> {
    let is_first = own_pid() == 1;
    let reaps = is_first || adopt_orphans(&options);
    if let Some(signal) = options.parent_death_signal {
        ask_for_parent_death(signal);
    }
    let name = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let place = place_for(&options);
    let child = program::start(words, inherited, place, |errno| {
        say(format_args!("cannot start {name}: {}", describe(errno)));
        exit_code_of(errno)
    })?;
    // The program's; a copy here would keep pipes open and file systems mounted.
    fds::close_inherited(&[]);
    let scope = match (options.reach, is_first) {
        (Reach::Process, _) => Scope::Nobody,
        (Reach::Group, true) => Scope::Everybody,
        (Reach::Group, false) if reaps => Scope::Children,
        (Reach::Group, false) => Scope::Group,
    };
    let survivors = Survivors::of(child, scope);
    if options.verbosity > 0 {
        say(format_args!("init: pid={child} runs {name}"));
    }
    Ok(Watch::new(options, child, place, survivors))
}

/// In a session of its own a program that doesn't handle TSTP could not be stopped by it. That is
/// worth it only for a terminal that nobody has: as its leader the program may take it.
fn place_for(options: &Options) -> Place {
    let is_stdin_terminal = || rustix::termios::isatty(rustix::stdio::stdin());
    match Terminal::find() {
        None if options.reach == Reach::Group || is_stdin_terminal() => Place::Session,
        // Only if it is ours to give: a job in the background must not take it from the shell.
        terminal => Place::Group { foreground: terminal.is_some_and(|it| it.is_ours()) },
    }
}

/// Makes orphans come to us when asked to, and when a grace that was asked for needs it: what
/// isn't ours can't be waited for. Whether they come.
fn adopt_orphans(options: &Options) -> bool {
    let is_asked = options.subreaper
        || options.is_stop_bounded()
        || env::var_os("TINI_SUBREAPER").is_some()
        || env::var_os("OPM_SUBREAPER").is_some();
    if is_asked && set_child_subreaper(Some(getpid())).is_ok() {
        return true;
    }
    // The attribute survives an exec.
    if child_subreaper().is_ok_and(|set| set.is_some()) {
        return true;
    }
    say(format_args!("init: not PID 1 and not a subreaper: orphans won't be reaped (try -s)"));
    false
}

fn ask_for_parent_death(signal: i32) {
    let parent = getppid();
    if program::set_parent_death_signal(signal).is_err() {
        say(format_args!("init: -p: the kernel refused signal {signal}"));
    }
    // It may have died before we asked: then the kernel will say nothing any more. None is a
    // parent outside our namespace, of which no death can be seen.
    if parent != getppid() {
        kill(own_pid(), signal, Reach::Process).ok();
    }
}
