//! The commands: their names, what they are about, their syntax and what does them.
//!
//! Only the command that was asked for is built, so `opm ls` doesn't pay for the others.
//! Never prints a line of help over 80 columns; a test sees to it.
use super::args::{formatted, listed, optional_target, switch, target};
use super::output::{Done, Failure};
use super::request::{Call, act};
use super::{
    apply, args, completions, daemon, file, jlist, logs, metrics, migrate, pm2, services, start,
    top, why,
};
use crate::wire::Request;
use clap::Command;

/// One command as the operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// One line, 50 columns at most.
    pub about: &'static str,
    syntax: fn(Command) -> Command,
    run: fn(&Call) -> Done,
}

/// Rows of commands: name, aliases, what it is about, its syntax, and what does it.
macro_rules! commands {
    ($($name:literal $aliases:tt $about:literal $syntax:expr => $run:expr;)*) => {
        /// Every command that clap parses; `init` has a door of its own, before clap. So has
        /// `run`: clap only gives its help and its errors.
        pub const ENTRIES: &[Entry] = &[$(Entry {
            name: $name,
            aliases: &$aliases,
            about: $about,
            syntax: $syntax,
            run: $run,
        }),*];
    };
}

commands! {
    "start" [] "start services, or define a new one" args::start => start::start;
    "stop" ["kill"] "stop services; returns when all of it is gone"
        |it| target(it).arg(switch("with-dependants", "and those that depend on them, these first"))
        => services::stop;
    "restart" [] "stop, then start again" args::restart => services::restart;
    "reload" [] "restart, one instance after the other" args::restart => services::reload;
    "scale" [] "more or fewer instances" args::scale => services::scale;
    "remove" ["rm", "del", "delete"] "stop services and forget them"
        target => |call| act(call, |target| Request::Remove { target });
    "adjust" ["update", "modify"] "change services from their next start on"
        args::adjust => start::adjust;
    "list" ["ls", "status", "ps"] "list the services" args::list => services::list;
    "info" ["details", "describe", "show"] "all about services" listed => services::info;
    "why" [] "why a service is where it is, what to do" listed => why::why;
    "env" [] "the environment that services get, with values" listed => services::env;
    "get-command" ["cstart"] "the command of services, as a line" target => services::command;
    "signal" [] "send a signal to services" args::signal => services::signal;
    "reset" [] "set the counters of services to 0"
        target => |call| act(call, |target| Request::Reset { target });
    "logs" [] "the last lines that services wrote" args::logs => logs::logs;
    "flush" ["clean"] "empty the log files of services"
        optional_target => |call| act(call, |target| Request::Flush { target });
    "events" [] "what happened to services" args::events => services::events;
    "wait" [] "wait until services are in a state" args::wait => services::wait;
    "import" ["add"] "define and start the services of a file" args::import => file::import;
    "migrate" [] "what another supervisor saved becomes services"
        args::migrate => migrate::migrate;
    "save" ["store", "dump"] "save the list for restore"
        |it| it.arg(switch("force", "also where there is no service: for pm2's save"))
        => services::save;
    "jlist" [] "the list as PM2's JSON" |it| it => jlist::jlist;
    "prettylist" [] "the same, as node shows it" |it| it => jlist::prettylist;
    "pid" [] "the pids of services" optional_target => pm2::pid;
    "id" [] "the ids of services" target => pm2::id;
    "ping" [] "start the daemon, if it isn't running" |it| it => pm2::ping;
    "apply" [] "carry out what differs from a file" args::apply => apply::apply;
    "export" ["get"] "services as a process file" args::export => apply::export;
    "restore" ["resurrect"] "bring back what was up when saved"
        |it| it.arg(args::force()) => services::restore;
    "health" [] "exit 0 only if online and ready" optional_target => services::health;
    "top" ["monit"] "the list, live; keys restart and stop" |it| it => top::top;
    "metrics" [] "numbers in OpenMetrics text" args::metrics => metrics::metrics;
    "completions" [] "what makes a shell complete words of opm"
        args::completions => completions::completions;
    "run" [] "supervise in the foreground, PID 1 or not" args::run => misplaced_run;
    "daemon" [] "start, stop, restart, upgrade the daemon" args::daemon => daemon::daemon;
    "doctor" [] "what this system offers, and anything odd" formatted => daemon::doctor;
}

/// `name` or one of its aliases.
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name || entry.aliases.contains(&name))
}

impl Entry {
    /// The clap command: its whole syntax.
    pub fn command(&self) -> Command {
        let command = Command::new(self.name)
            .bin_name(format!("opm {}", self.name))
            .about(self.about)
            .no_binary_name(true)
            .disable_help_subcommand(true)
            .disable_version_flag(true)
            // Keeps `--help`, which this clap has no renderer for: `help` has one.
            .override_help(self.name);
        let aliases = format!("Aliases: {}", self.aliases.join(", "));
        let aliased = if self.aliases.is_empty() { command } else { command.after_help(aliases) };
        let no_start = switch("no-daemon-start", "fail if no daemon runs, start none");
        (self.syntax)(aliased).arg(no_start.global(true))
    }

    pub(super) fn run(&self, call: &Call) -> Done {
        (self.run)(call)
    }
}

/// `run` has a door of its own, for those that come to it first.
fn misplaced_run(_: &Call) -> Done {
    Err(Failure::usage("run: no option stands before it (try 'opm run --help')"))
}

#[cfg(test)]
#[path = "../../tests/inner/cli_commands.rs"]
mod tests;
