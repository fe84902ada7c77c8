//! The commands: their names, what they are about, their syntax and what does them.
//!
//! Only the command that was asked for is built, so `opm ls` doesn't pay for the others.
//! Never prints a line of help over 80 columns; a test sees to it.
use super::output::{Done, Failure};
use super::request::Call;
use super::{
    apply, args, completions, daemon, file, jlist, logs, metrics, migrate, pm2, services, start,
    top, why,
};
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

const fn entry(
    name: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    syntax: fn(Command) -> Command,
    run: fn(&Call) -> Done,
) -> Entry {
    Entry { name, aliases, about, syntax, run }
}

/// Every command that clap parses; `init` has a door of its own, before clap. So has `run`: clap
/// only gives its help and its errors.
pub const ENTRIES: &[Entry] = &[
    entry("start", &[], "start services, or define a new one", args::start, start::start),
    entry(
        "stop",
        &["kill"],
        "stop services; returns when all of it is gone",
        args::stop,
        services::stop,
    ),
    entry("restart", &[], "stop, then start again", args::restart, services::restart),
    entry("reload", &[], "restart, one instance after the other", args::reload, services::reload),
    entry("scale", &[], "more or fewer instances", args::scale, services::scale),
    entry(
        "remove",
        &["rm", "del", "delete"],
        "stop services and forget them",
        args::target,
        services::remove,
    ),
    entry(
        "adjust",
        &["update", "modify"],
        "change services from their next start on",
        args::adjust,
        start::adjust,
    ),
    entry("list", &["ls", "status", "ps"], "list the services", args::list, services::list),
    entry(
        "info",
        &["details", "describe", "show"],
        "all about services",
        args::listed,
        services::info,
    ),
    entry("why", &[], "why a service is where it is, what to do", args::listed, why::why),
    entry(
        "env",
        &[],
        "the environment that services get, with values",
        args::listed,
        services::env,
    ),
    entry(
        "get-command",
        &["cstart"],
        "the command of services, as a line",
        args::target,
        services::command,
    ),
    entry("signal", &[], "send a signal to services", args::signal, services::signal),
    entry("reset", &[], "set the counters of services to 0", args::target, services::reset),
    entry("logs", &[], "the last lines that services wrote", args::logs, logs::logs),
    entry(
        "flush",
        &["clean"],
        "empty the log files of services",
        args::optional_target,
        services::flush,
    ),
    entry("events", &[], "what happened to services", args::events, services::events),
    entry("wait", &[], "wait until services are in a state", args::wait, services::wait),
    entry(
        "import",
        &["add"],
        "define and start the services of a file",
        args::import,
        file::import,
    ),
    entry(
        "migrate",
        &[],
        "what another supervisor saved becomes services",
        args::migrate,
        migrate::migrate,
    ),
    entry("save", &["store", "dump"], "save the list for restore", args::save, services::save),
    entry("jlist", &[], "the list as PM2's JSON", args::plain, jlist::jlist),
    entry("prettylist", &[], "the same, as node shows it", args::plain, jlist::prettylist),
    entry("pid", &[], "the pids of services", args::optional_target, pm2::pid),
    entry("id", &[], "the ids of services", args::target, pm2::id),
    entry("ping", &[], "start the daemon, if it isn't running", args::plain, pm2::ping),
    entry("apply", &[], "carry out what differs from a file", args::apply, apply::apply),
    entry("export", &["get"], "services as a process file", args::export, apply::export),
    entry(
        "restore",
        &["resurrect"],
        "bring back what was up when saved",
        args::restore,
        services::restore,
    ),
    entry(
        "health",
        &[],
        "exit 0 only if online and ready",
        args::optional_target,
        services::health,
    ),
    entry("top", &["monit"], "the list, live; keys restart and stop", args::plain, top::top),
    entry("metrics", &[], "numbers in OpenMetrics text", args::metrics, metrics::metrics),
    entry(
        "completions",
        &[],
        "what makes a shell complete words of opm",
        args::completions,
        completions::completions,
    ),
    entry("run", &[], "supervise in the foreground, PID 1 or not", args::run, misplaced_run),
    entry("daemon", &[], "start, stop, restart, upgrade the daemon", args::daemon, daemon::daemon),
    entry(
        "doctor",
        &[],
        "what this system offers, and anything odd",
        args::formatted,
        daemon::doctor,
    ),
];

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
        let aliased = if self.aliases.is_empty() {
            command
        } else {
            command.after_help(format!("Aliases: {}", self.aliases.join(", ")))
        };
        let no_start = args::switch("no-daemon-start", "fail if no daemon runs, start none");
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
