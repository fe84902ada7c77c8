//! What happens once, before the loop: adopt the role, fork, let go of everything.

use std::env;

use super::args::{Options, Reach};
use super::left::{Left, Scope};
use super::watch::{Footing, Watch};
use crate::sys::Result;
use crate::sys::pid1::{
    Entry, Place, Terminal, Words, close_inherited, forget_start, is_subreaper_set, is_terminal,
    own_pid, parent_pid, say, set_parent_death_signal, set_subreaper, signal_one, spawn,
};

/// Starts the program.
pub(super) fn start(options: Options, program: &Words, entry: &Entry) -> Result<Watch> {
    let is_first = own_pid() == 1;
    let reaps = is_first || adopt_orphans(&options);
    if let Some(signal) = options.parent_death_signal {
        ask_for_parent_death(signal);
    }
    let terminal = Terminal::find();
    // Only if it is ours to give: a job in the background must not take it from the shell.
    let gives_terminal = terminal.as_ref().is_some_and(Terminal::is_ours);
    // In a session of its own a program that doesn't handle TSTP could not be stopped by it. That
    // is worth it only for a terminal that nobody has: as its leader the program may take it.
    let own_session = terminal.is_none() && (options.reach == Reach::Group || is_terminal(0));
    let (place, footing) = match own_session {
        true => (Place::Session, Footing::OwnSession),
        false => {
            let front = terminal.as_ref().filter(|_| gives_terminal);
            (Place::Group(front), Footing::SharedSession { given: gives_terminal })
        }
    };
    let child = spawn(program, entry, place)?;
    // Looked for anew when it is needed: it may be a descriptor, and none is kept.
    drop(terminal);
    close_inherited();
    let scope = match (options.reach, is_first) {
        (Reach::Child, _) => Scope::Nobody,
        (Reach::Group, true) => Scope::Everyone,
        (Reach::Group, false) if reaps => Scope::Children,
        (Reach::Group, false) => Scope::Members,
    };
    let left = Left::of(child, scope);
    if options.verbosity > 0 {
        say(format_args!("init: pid={child} runs {}", program.name()));
    }
    forget_start();
    Ok(Watch::new(options, child, footing, left))
}

/// Makes orphans come to us when asked to, and when a grace that was asked for needs it: what
/// isn't ours can't be waited for. Whether they come.
fn adopt_orphans(options: &Options) -> bool {
    let asked = options.subreaper
        || options.grace.is_some_and(|span| !span.is_zero())
        || env::var_os("TINI_SUBREAPER").is_some()
        || env::var_os("OPM_SUBREAPER").is_some();
    if asked && set_subreaper() {
        return true;
    }
    // The attribute survives an exec.
    if is_subreaper_set() {
        return true;
    }
    say(format_args!("init: not PID 1 and not a subreaper: orphans won't be reaped (try -s)"));
    false
}

fn ask_for_parent_death(signal: i32) {
    let parent = parent_pid();
    if !set_parent_death_signal(signal) {
        say(format_args!("init: -p: the kernel refused signal {signal}"));
    }
    // It may have died before we asked: then the kernel will say nothing any more. 0 is a parent
    // outside our namespace, of which no death can be seen.
    if parent != parent_pid() {
        signal_one(own_pid(), signal);
    }
}
