//! The words and options of each command: the syntax, apart from what the command does.
use super::completions::SCRIPTS;
use super::pick::{Filter, Sort};
use crate::run::options::Prefix;
use crate::service::options::{Group, OPTIONS, Opt, find, text_of};
use crate::service::signal::Signal;
use crate::service::spec::{Restart, Spec};
use crate::service::units::{Delay, Span};
use crate::wire::Scale;
use clap::{Arg, ArgAction, Command};

pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).allow_hyphen_values(true).help(help)
}

fn target_arg() -> Arg {
    let help = "id, name, list (1,web), all or glob (api-*)";
    Arg::new("target").value_name("TARGET").num_args(1..).help(help)
}

pub(super) fn plain(command: Command) -> Command {
    command
}

pub(super) fn target(command: Command) -> Command {
    command.arg(target_arg().required(true))
}

pub(super) fn optional_target(command: Command) -> Command {
    command.arg(target_arg().help("id, name, list (1,web) or glob (api-*) [default: all]"))
}

pub(super) fn formatted(command: Command) -> Command {
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

pub(super) fn listed(command: Command) -> Command {
    formatted(target(command))
}

pub(super) fn list(command: Command) -> Command {
    formatted(optional_target(command))
        .arg(switch("no-usage", "without cpu and memory: reads nothing of /proc"))
        .arg(
            option("sort", "KEY[:desc]", "by a key of the JSON, or cpu, mem, uptime")
                .value_parser(Sort::parse),
        )
        .arg(
            option(
                "filter",
                "KEY=VALUE",
                "those of which it is so: status=errored,waiting\n(repeatable)",
            )
            .value_parser(Filter::parse)
            .action(ArgAction::Append),
        )
        .arg(switch("unfold", "a line for each instance of a group"))
        .arg(switch("watch", "go on, drawn anew each second"))
}

fn force() -> Arg {
    switch("force", "despite a look-alike that opm didn't start")
}

pub(super) fn start(command: Command) -> Command {
    let usage = "opm start [OPTIONS] TARGET... [-- ARGS...]\n       \
                 opm start [OPTIONS] -- COMMAND [ARGS...]";
    let target = "a service (id, name, list, all, glob), a process\n\
                  file, a script, a program, or a command line";
    let words = "arguments; without TARGET: the command, exec'd as given";
    let target = Arg::new("target").value_name("TARGET").num_args(1..).help(target);
    let words = Arg::new("words").value_name("ARGS").help(words);
    let command = command.override_usage(usage).arg(target).arg(words.last(true).num_args(1..));
    let name = "name of a new service [default: its command's]";
    let cwd = "working directory [default: the current one]";
    options(shape(command, name, cwd), true)
        .arg(only())
        .arg(wait_ready())
        .arg(update_env())
        .arg(reset_env())
        .arg(force())
}

/// Of a process file.
fn only() -> Arg {
    option("only", "A,B", "of a process file only these services")
}

/// Of a process file of PM2's.
fn env_set() -> Arg {
    option("env", "NAME", "of a file of PM2's: take env_NAME over env")
}

fn wait_ready() -> Arg {
    switch("wait", "return when it is ready, not when it is exec'd")
}

pub(super) fn stop(command: Command) -> Command {
    target(command).arg(switch("with-dependants", "and those that depend on them, these first"))
}

fn update_env() -> Arg {
    switch("update-env", "take the environment and the .env anew")
}

fn reset_env() -> Arg {
    switch("reset-env", "drop what --env or a process file has set")
}

pub(super) fn restart(command: Command) -> Command {
    let help = "id, name, list (1,web), all or glob (api-*);\n\
                or a process file: its services as they are in it";
    changed(command).arg(target_arg().help(help).required(true)).arg(only()).arg(update_env())
}

/// What `adjust` takes: with it a restart is both, as people write it who come from PM2.
fn changed(command: Command) -> Command {
    options(shape(command, "", ""), false)
        .mut_args(|arg| if arg.get_id() == "env" { arg } else { arg.hide(true) })
        .mut_arg("env", |_| env_set().action(ArgAction::Append))
        .arg(reset_env())
}

pub(super) fn reload(command: Command) -> Command {
    target(changed(command)).mut_arg("env", |arg| arg.hide(true)).arg(update_env())
}

pub(super) fn scale(command: Command) -> Command {
    let name = Arg::new("name").value_name("NAME").required(true).help("of the service or group");
    let count = Arg::new("count").value_name("COUNT").required(true).allow_hyphen_values(true);
    command.arg(name).arg(count.value_parser(Scale::parse).help("N, +N or -N"))
}

pub(super) fn adjust(command: Command) -> Command {
    let name = "another name, while nothing of it lives";
    let line = "what it runs, as start takes it; of one service";
    let command = target(command).arg(option("command", "LINE", line));
    options(shape(command, name, "another working directory"), false)
        .arg(reset_env())
        .arg(option("reset", "OPT,...", "options that have their default again").value_parser(keys))
        .arg(switch("now", "restart those that change and live"))
}

/// The keys of options of start, by their names with commas between them.
fn keys(names: &str) -> Result<Vec<String>, String> {
    let known = |name: &str| {
        let key = name.trim().trim_start_matches("--").replace('-', "_");
        // Of files the variables are kept, not told apart by where they are from.
        let opt = find(&key).filter(|opt| opt.is_on_command_line() && key != "env_file");
        let expected = || format!("'{name}' is no option with a default (as in cron,max-memory)");
        opt.map(|_| key).ok_or_else(expected)
    };
    names.split(',').map(known).collect()
}

/// What a service is called and where it runs.
fn shape(command: Command, name: &'static str, cwd: &'static str) -> Command {
    let env = "set a variable (repeatable); a .env file in the\ndirectory is read too";
    command
        .arg(option("name", "NAME", name).short('n'))
        .arg(option("cwd", "DIR", cwd))
        .arg(option("interpreter", "PROGRAM", "what runs the script; none: it runs itself"))
        .arg(option("interpreter-args", "LINE", "words before the script"))
        .arg(option("env", "K=V", env).action(ArgAction::Append))
}

/// Columns of help text within which its default is on the same line.
const HELP_COLUMNS_MAX: usize = 50;

/// The options of the table; for a new service with what they are if nothing is said.
fn options(command: Command, is_new: bool) -> Command {
    OPTIONS.iter().filter(|opt| opt.is_on_command_line()).fold(command, |command, opt| {
        let command = command.arg(table_option(opt, is_new));
        match opt.key {
            "restart" => {
                let never = switch("no-autorestart", "the same as --restart never");
                command.arg(never.conflicts_with("restart"))
            }
            "restart_delay" => {
                let help = "the same as --restart-delay TIME..15s";
                let backoff = option("exp-backoff", "TIME", help).value_parser(backoff);
                command.arg(backoff.conflicts_with("restart_delay"))
            }
            _ => command,
        }
    })
}

/// How far a delay doubles of which only the beginning is said.
const BACKOFF_MAX: &str = "15s";

fn backoff(text: &str) -> Result<String, String> {
    let range =
        if text.contains("..") { text.to_owned() } else { format!("{text}..{BACKOFF_MAX}") };
    Delay::parse(&range).map(|_| range)
}

fn table_option(opt: &'static Opt, is_new: bool) -> Arg {
    if opt.value.is_empty() {
        return switch(opt.key, opt.help).long(opt.flag);
    }
    let default = Some(opt.default()).filter(|value| is_new && !value.is_null());
    let default = default.map(|it| text_of(&it)).filter(|text| !text.is_empty());
    let default = default.map_or(String::new(), |text| format!("[default: {text}]"));
    let last = opt.help.lines().last().unwrap_or_default();
    let is_short = last.len() + default.len() < HELP_COLUMNS_MAX;
    let help = format!("{}{}{default}", opt.help, if is_short { ' ' } else { '\n' });
    let check = |text: &str| {
        let mut scratch = Spec::new(String::new(), Vec::new(), String::new());
        opt.parse(&mut scratch, text).map(|()| text.to_owned())
    };
    let arg = option(opt.key, opt.value, "").long(opt.flag).help(help.trim_end().to_owned());
    let arg = if opt.key == "instances" { arg.short('i') } else { arg };
    // What stands for it may be left out.
    let arg = match opt.value.starts_with('[') {
        true => arg
            .value_name(opt.value.trim_matches(['[', ']']))
            .num_args(0..=1)
            .default_missing_value("")
            .allow_hyphen_values(false),
        false => arg,
    };
    let arg = if opt.repeats { arg.action(ArgAction::Append) } else { arg };
    let arg = match opt.alone {
        Some(alone) => arg.num_args(0..=1).allow_hyphen_values(false).default_missing_value(alone),
        None => arg,
    };
    arg.value_parser(check).hide(opt.group == Group::Hidden)
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("expected a whole number up to {}", u32::MAX))
}

pub(super) fn signal(command: Command) -> Command {
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

pub(super) fn logs(command: Command) -> Command {
    optional_target(command)
        .arg(
            option("lines", "N", "how many of each log, or all of it")
                .short('n')
                .default_value("15")
                .value_parser(lines),
        )
        .arg(switch("follow", "go on with what is written from now on").short('f'))
        .arg(switch("err", "only what was written to stderr").conflicts_with("out"))
        .arg(switch("out", "only what was written to stdout"))
        .arg(switch("errors-only", "the same as --err").conflicts_with("out"))
        .arg(
            option("filter", "REGEX", "only lines in which this is found")
                .alias("grep")
                .value_parser(|text: &str| regex_lite::Regex::new(text)),
        )
        .arg(
            option("since", "TIME", "only of the last 10m, if the lines say when")
                .value_parser(Span::parse),
        )
        .arg(switch("raw", "without titles and prefixes"))
        .arg(switch("json", "an object for each line, or of --stats"))
        .arg(switch("timestamp", "what is followed bears the time"))
        .arg(switch("nostream", "do not follow, whatever else is said"))
        .arg(switch("stats", "bytes, bytes in the next second, archives"))
}

fn lines(text: &str) -> Result<u32, String> {
    if text == "all" { Ok(super::logs::ALL_LINES) } else { count(text) }
}

pub(super) fn events(command: Command) -> Command {
    let follow = switch("follow", "go on until the daemon ends").short('f');
    formatted(optional_target(command)).arg(follow)
}

pub(super) fn wait(command: Command) -> Command {
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

pub(super) fn import(command: Command) -> Command {
    command
        .arg(Arg::new("file").value_name("FILE").required(true).help("process file; - is stdin"))
        .arg(only())
        .arg(env_set())
        .arg(wait_ready())
        .arg(force())
}

pub(super) fn migrate(command: Command) -> Command {
    let from = Arg::new("from").value_name("FROM").required(true).value_parser(["pm2"]);
    command
        .arg(from.help("pm2: ~/.pm2/dump.pm2, as 'pm2 save' wrote it"))
        .arg(switch("dry-run", "say what it would define, and do nothing"))
}

pub(super) fn run(command: Command) -> Command {
    let usage = "opm run [OPTIONS] FILE\n       opm run [OPTIONS] -- COMMAND [ARGS...]";
    let prefix =
        "before each line: none, name, time or json\n[default: name, none for one service]";
    let timeout = "from a stop to the end of everything, KILL included\n[default: 9s]";
    let file = "process file: all of it is started";
    let restart = "always, on-failure or never [default: always]";
    let env = "set a variable of COMMAND (repeatable); with a file\nof PM2's: NAME of env_NAME";
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
        .arg(option("env", "K=V", env).action(ArgAction::Append))
        .arg(only())
        .arg(option("restart", "WHEN", restart).value_parser(Restart::parse))
        .arg(option("prefix", "PREFIX", prefix).value_parser(Prefix::parse))
        .arg(option("stop-timeout", "TIME", timeout).value_parser(Span::parse))
        .arg(switch("quiet", "say nothing of exits and restarts").short('q'))
}

pub(super) fn save(command: Command) -> Command {
    command.arg(switch("force", "also where there is no service: for pm2's save"))
}

pub(super) fn apply(command: Command) -> Command {
    let prune = "remove the services that are not in the file";
    command
        .arg(Arg::new("file").value_name("FILE").required(true).help("process file; - is stdin"))
        .arg(switch("dry-run", "say what differs, and do nothing"))
        .arg(switch("prune", prune).conflicts_with("only"))
        .arg(only())
        .arg(env_set())
}

pub(super) fn export(command: Command) -> Command {
    let file = option("output", "FILE", "write it there, not to stdout").short('o');
    target(command).arg(file)
}

pub(super) fn completions(command: Command) -> Command {
    let words = "what was typed so far: says what may come next";
    command
        .override_usage("opm completions SHELL")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(SCRIPTS.map(|(shell, _)| shell))
                .help("bash, zsh or fish"),
        )
        .arg(Arg::new("words").value_name("WORDS").help(words).last(true).num_args(1..))
}

pub(super) fn metrics(command: Command) -> Command {
    let address = "answer HTTP there, until it is stopped";
    let check = |text: &str| match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("expected HOST:PORT".to_owned()),
    };
    command.arg(option("listen", "HOST:PORT", address).value_parser(check))
}

pub(super) fn restore(command: Command) -> Command {
    command.arg(force())
}

pub(super) fn daemon(command: Command) -> Command {
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
        sub("setup", "write and enable systemd units [alias: startup]")
            .alias("startup")
            .arg(switch("user", "of this user, not of the machine"))
            .arg(switch("print", "only print them").conflicts_with("remove"))
            .arg(switch("remove", "disable and remove them; services go on")),
    ])
}
