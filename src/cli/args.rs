//! The commands, their aliases and options: the syntax, apart from what they do.
//!
//! Only the command that was asked for is built, so `opm ls` doesn't pay for the others.
//! Never prints a line of help over 80 columns; a test sees to it.
use crate::run::options::Prefix;
use crate::service::options::{Group, OPTIONS, Opt, text_of};
use crate::service::signal::Signal;
use crate::service::spec::{Restart, Spec};
use crate::service::units::Span;
use clap::{Arg, ArgAction, Command};

/// One command as the operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// One line, 50 columns at most.
    pub about: &'static str,
    build: fn(Command) -> Command,
}

const fn entry(
    name: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    build: fn(Command) -> Command,
) -> Entry {
    Entry { name, aliases, about, build }
}

/// Every command that clap parses; `init` has a door of its own, before clap. So has `run`: clap
/// only gives its help and its errors.
pub const ENTRIES: &[Entry] = &[
    entry("start", &[], "start services, or define a new one", start),
    entry("stop", &["kill"], "stop services; returns when all of it is gone", target),
    entry("restart", &[], "stop, then start again", restart),
    entry("remove", &["rm", "del", "delete"], "stop services and forget them", target),
    entry("adjust", &["update", "modify"], "change services from their next start on", adjust),
    entry("list", &["ls", "status", "ps"], "list the services", list),
    entry("info", &["details", "describe", "show"], "all about services", listed),
    entry("env", &[], "the environment that services get, with values", listed),
    entry("get-command", &["cstart"], "the command of services, as a line", target),
    entry("signal", &[], "send a signal to services", signal),
    entry("reset", &[], "set the counters of services to 0", target),
    entry("logs", &[], "the last lines that services wrote", logs),
    entry("flush", &["clean"], "empty the log files of services", optional_target),
    entry("events", &[], "what happened to services", events),
    entry("wait", &[], "wait until services are in a state", wait),
    entry("import", &["add"], "define and start the services of a file", import),
    entry("save", &["store", "dump"], "save the list for restore", plain),
    entry("restore", &["resurrect"], "bring back what was up when saved", restore),
    entry("health", &[], "exit 0 only if online and ready", optional_target),
    entry("run", &[], "supervise in the foreground, PID 1 or not", run),
    entry("daemon", &[], "start, stop, restart, upgrade the daemon", daemon),
    entry("doctor", &[], "what this system offers, and anything odd", formatted),
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
        (self.build)(aliased)
            .arg(switch("no-daemon-start", "fail if no daemon runs, start none").global(true))
    }
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).allow_hyphen_values(true).help(help)
}

fn target_arg() -> Arg {
    let help = "id, name, list (1,web), all or glob (api-*)";
    Arg::new("target").value_name("TARGET").num_args(1..).help(help)
}

fn plain(command: Command) -> Command {
    command
}

fn target(command: Command) -> Command {
    command.arg(target_arg().required(true))
}

fn optional_target(command: Command) -> Command {
    command.arg(target_arg().help("id, name, list (1,web) or glob (api-*) [default: all]"))
}

fn formatted(command: Command) -> Command {
    command
        .arg(
            option("format", "FORMAT", "default or json")
                .value_parser(["default", "json"])
                .default_value("default")
                .hide_default_value(true)
                .hide_possible_values(true),
        )
        .arg(switch("json", "the same as --format json"))
}

fn listed(command: Command) -> Command {
    formatted(target(command))
}

fn list(command: Command) -> Command {
    formatted(optional_target(command))
        .arg(switch("no-usage", "without cpu and memory: reads nothing of /proc"))
}

fn force() -> Arg {
    switch("force", "despite a look-alike that opm didn't start")
}

fn start(command: Command) -> Command {
    let usage = "opm start [OPTIONS] TARGET... [-- ARGS...]\n       \
                 opm start [OPTIONS] -- COMMAND [ARGS...]";
    let target = "a service (id, name, list, all, glob), a process file\n\
                  (.json), a script, a program, or a command line";
    let words = "arguments; without TARGET: the command, exec'd as given";
    let target = Arg::new("target").value_name("TARGET").num_args(1..).help(target);
    let words = Arg::new("words").value_name("ARGS").help(words);
    let command = command.override_usage(usage).arg(target).arg(words.last(true).num_args(1..));
    let name = "name of the new service [default: of its command]";
    let cwd = "working directory [default: the current one]";
    options(shape(command, name, cwd), true).arg(update_env()).arg(force())
}

fn update_env() -> Arg {
    switch("update-env", "take the environment and the .env anew")
}

fn restart(command: Command) -> Command {
    target(command).arg(update_env())
}

fn adjust(command: Command) -> Command {
    let name = "another name, while nothing of it lives";
    let line = "what it runs, as start takes it; of one service";
    let command = target(command).arg(option("command", "LINE", line));
    options(shape(command, name, "another working directory"), false)
}

/// What a service is called and where it runs.
fn shape(command: Command, name: &'static str, cwd: &'static str) -> Command {
    let env = "set a variable (repeatable); a .env file in the\ndirectory is read too";
    command
        .arg(option("name", "NAME", name).short('n'))
        .arg(option("cwd", "DIR", cwd))
        .arg(option("env", "K=V", env).action(ArgAction::Append).value_parser(variable))
}

/// Columns of help text within which its default is on the same line.
const HELP_COLUMNS_MAX: usize = 50;

/// The options of the table; for a new service with what they are if nothing is said.
fn options(command: Command, is_new: bool) -> Command {
    OPTIONS.iter().filter(|opt| opt.is_on_command_line()).fold(command, |command, opt| {
        let command = command.arg(table_option(opt, is_new));
        if opt.key != "restart" {
            return command;
        }
        let never = switch("no-autorestart", "the same as --restart never");
        command.arg(never.conflicts_with("restart"))
    })
}

fn table_option(opt: &'static Opt, is_new: bool) -> Arg {
    if opt.value.is_empty() {
        return switch(opt.key, opt.help).long(opt.flag);
    }
    let default = Some(opt.default()).filter(|value| is_new && !value.is_null());
    let default = default.map_or(String::new(), |it| format!("[default: {}]", text_of(&it)));
    let last = opt.help.lines().last().unwrap_or_default();
    let is_short = last.len() + default.len() < HELP_COLUMNS_MAX;
    let help = format!("{}{}{default}", opt.help, if is_short { ' ' } else { '\n' });
    let check = |text: &str| {
        let mut scratch = Spec::new(String::new(), Vec::new(), String::new());
        opt.parse(&mut scratch, text).map(|()| text.to_owned())
    };
    let arg = option(opt.key, opt.value, "").long(opt.flag).help(help.trim_end().to_owned());
    arg.value_parser(check).hide(opt.group == Group::Hidden)
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("expected a whole number up to {}", u32::MAX))
}

pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if crate::service::spec::is_variable_name(name) => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn signal(command: Command) -> Command {
    target(command)
        .arg(
            Arg::new("signal")
                .value_name("SIGNAL")
                .required(true)
                .value_parser(Signal::parse)
                .help("TERM, SIGTERM or 15"),
        )
        .arg(switch("tree", "to all that descends from it, not the leader alone"))
}

fn logs(command: Command) -> Command {
    optional_target(command)
        .arg(
            option("lines", "N", "how many of each file")
                .short('n')
                .default_value("15")
                .value_parser(count),
        )
        .arg(switch("follow", "go on with what is written from now on").short('f'))
        .arg(switch("err", "only what was written to stderr").conflicts_with("out"))
        .arg(switch("out", "only what was written to stdout"))
}

fn events(command: Command) -> Command {
    let follow = switch("follow", "go on until the daemon ends").short('f');
    formatted(optional_target(command)).arg(follow)
}

fn wait(command: Command) -> Command {
    target(command)
        .arg(
            option("for", "STATE", "online, ready, stopped or errored")
                .required(true)
                .value_parser(["online", "ready", "stopped", "errored"])
                .hide_possible_values(true),
        )
        .arg(
            option("timeout", "TIME", "give up after this, with exit code 6")
                .default_value("30s")
                .value_parser(Span::parse),
        )
}

fn import(command: Command) -> Command {
    command
        .arg(Arg::new("file").value_name("FILE").required(true).help("process file; - is stdin"))
        .arg(force())
}

fn run(command: Command) -> Command {
    let usage = "opm run [OPTIONS] FILE\n       opm run [OPTIONS] -- COMMAND [ARGS...]";
    let prefix =
        "before each line: none, name, time or json\n[default: name, none for one service]";
    let timeout = "from a stop to the end of everything, KILL included\n[default: 9s]";
    let file = "process file (.json): all of it is started";
    let restart = "always, on-failure or never [default: always]";
    let env = "set a variable of COMMAND (repeatable)";
    command
        .override_usage(usage)
        .arg(Arg::new("file").value_name("FILE").help(file))
        .arg(
            Arg::new("words")
                .value_name("COMMAND")
                .help("one command, exec'd as given")
                .last(true)
                .num_args(1..),
        )
        .arg(option("name", "NAME", "name of COMMAND's service [default: of it]").short('n'))
        .arg(option("env", "K=V", env).action(ArgAction::Append).value_parser(variable))
        .arg(option("restart", "WHEN", restart).value_parser(Restart::parse))
        .arg(option("prefix", "PREFIX", prefix).value_parser(Prefix::parse))
        .arg(option("stop-timeout", "TIME", timeout).value_parser(Span::parse))
        .arg(switch("quiet", "say nothing of exits and restarts").short('q'))
}

fn restore(command: Command) -> Command {
    command.arg(force())
}

fn daemon(command: Command) -> Command {
    let sub = |name: &'static str, about: &'static str| {
        Command::new(name).bin_name(format!("opm daemon {name}")).about(about).override_help(name)
    };
    let forget = "what ran on another machine or in another PID\nnamespace is gone: I say so";
    command.subcommand_required(true).disable_help_subcommand(true).subcommands([
        sub("start", "start it, if it isn't running")
            .arg(switch("foreground", "stay in the foreground, for systemd"))
            .arg(switch("forget-elsewhere", forget)),
        sub("stop", "it leaves; services keep running [alias: kill]")
            .alias("kill")
            .arg(switch("services", "stop the services first")),
        formatted(sub("health", "is it there? exit 4 if not [aliases: info, status]"))
            .aliases(["info", "status"]),
        sub("restart", "replace it in place; no service notices"),
        sub("upgrade", "replace it by a new binary; no service notices").arg(
            Arg::new("binary").value_name("BINARY").help("the new program [default: this one]"),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helps(command: &mut Command) -> Vec<String> {
        command.build();
        let mut texts = vec![super::super::help::of(command)];
        for sub in command.get_subcommands_mut() {
            texts.extend(helps(sub));
        }
        texts
    }

    #[test]
    fn every_help_fits_80_columns() {
        let mut texts = vec![super::super::usage::overview()];
        for entry in ENTRIES {
            texts.extend(helps(&mut entry.command()));
        }
        for line in texts.iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn the_syntax_of_every_command_is_sound_and_no_name_is_there_twice() {
        let mut seen = Vec::new();
        for entry in ENTRIES {
            entry.command().debug_assert();
            for name in [&[entry.name], entry.aliases].concat() {
                assert!(!seen.contains(&name), "{name}");
                seen.push(name);
            }
        }
    }
}
