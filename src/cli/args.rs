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
    word(name, value, help).long(name).allow_hyphen_values(true)
}

fn word(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(value).help(help)
}

fn target_arg() -> Arg {
    word("target", "TARGET", "id, name, list (1,web), all or glob (api-*)").num_args(1..)
}

pub(super) fn target(command: Command) -> Command {
    command.arg(target_arg().required(true))
}

pub(super) fn optional_target(command: Command) -> Command {
    command.arg(target_arg().help("id, name, list (1,web) or glob (api-*) [default: all]"))
}

pub(super) fn formatted(command: Command) -> Command {
    let format = option("format", "FORMAT", "default or json");
    let format = format.value_parser(["default", "json"]).default_value("default");
    let format = format.hide_default_value(true);
    command.arg(format).arg(switch("json", "the same as --format json"))
}

pub(super) fn listed(command: Command) -> Command {
    formatted(target(command))
}

pub(super) fn list(command: Command) -> Command {
    let filter = "those of which it is so: status=errored,waiting\n(repeatable)";
    let filter = option("filter", "KEY=VALUE", filter).value_parser(Filter::parse);
    let sort = option("sort", "KEY[:desc]", "by a key of the JSON, or cpu, mem, uptime");
    formatted(optional_target(command)).args([
        switch("no-usage", "without cpu and memory: reads nothing of /proc"),
        sort.value_parser(Sort::parse),
        filter.action(ArgAction::Append),
        switch("unfold", "a line for each instance of a group"),
        switch("watch", "go on, drawn anew each second"),
    ])
}

pub(super) fn force() -> Arg {
    switch("force", "despite a look-alike that opm didn't start")
}

pub(super) fn start(command: Command) -> Command {
    let usage = "opm start [OPTIONS] TARGET... [-- ARGS...]\n       \
                 opm start [OPTIONS] -- COMMAND [ARGS...]";
    let target = "a service (id, name, list, all, glob), a process\n\
                  file, a script, a program, or a command line";
    let words = "arguments; without TARGET: the command, exec'd as given";
    let words = word("words", "ARGS", words).last(true).num_args(1..);
    let command = command.override_usage(usage).arg(target_arg().help(target)).arg(words);
    let name = "name of a new service [default: its command's]";
    let cwd = "working directory [default: the current one]";
    let more = [only(), wait_ready(), update_env(), reset_env(), force()];
    options(shape(command, name, cwd), true).args(more)
}

fn only() -> Arg {
    option("only", "A,B", "of a process file only these services")
}

fn env_set() -> Arg {
    option("env", "NAME", "of a file of PM2's: take env_NAME over env")
}

fn wait_ready() -> Arg {
    switch("wait", "return when it is ready, not when it is exec'd")
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
    changed(command).args([target_arg().help(help).required(true), only(), update_env()])
}

/// What `adjust` takes: with it a restart is both, as people write it who come from PM2.
fn changed(command: Command) -> Command {
    options(shape(command, "", ""), false)
        .mut_args(|arg| if arg.get_id() == "env" { arg } else { arg.hide(true) })
        .mut_arg("env", |_| env_set().action(ArgAction::Append))
        .arg(reset_env())
}

pub(super) fn scale(command: Command) -> Command {
    let count = word("count", "COUNT", "N, +N or -N").allow_hyphen_values(true);
    let name = word("name", "NAME", "of the service or group");
    command.args([name, count.value_parser(Scale::parse)].map(|it| it.required(true)))
}

pub(super) fn adjust(command: Command) -> Command {
    let name = "another name, while nothing of it lives";
    let line = "what it runs, as start takes it; of one service";
    let command = target(command).arg(option("command", "LINE", line));
    let reset = option("reset", "OPT,...", "options that have their default again");
    let now = switch("now", "restart those that change and live");
    let more = [reset_env(), reset.value_parser(keys), now];
    options(shape(command, name, "another working directory"), false).args(more)
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
    command.args([
        option("name", "NAME", name).short('n'),
        option("cwd", "DIR", cwd),
        option("interpreter", "PROGRAM", "what runs the script; none: it runs itself"),
        option("interpreter-args", "LINE", "words before the script"),
        option("env", "K=V", env).action(ArgAction::Append),
    ])
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
    // In brackets: what stands for it may be left out.
    let value = opt.value.trim_matches(['[', ']']);
    let mut arg = option(opt.key, value, "").long(opt.flag).help(help.trim_end().to_owned());
    if let Some(alone) = opt.alone.or((value != opt.value).then_some("")) {
        arg = arg.num_args(0..=1).allow_hyphen_values(false).default_missing_value(alone);
    }
    if opt.key == "instances" {
        arg = arg.short('i');
    }
    if opt.repeats {
        arg = arg.action(ArgAction::Append);
    }
    arg.value_parser(check).hide(opt.group == Group::Hidden)
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("expected a whole number up to {}", u32::MAX))
}

pub(super) fn signal(command: Command) -> Command {
    let signal = word("signal", "SIGNAL", "TERM, SIGTERM or 15").required(true);
    let tree = switch("tree", "to all that descends from it, not the leader alone");
    target(command).args([signal.value_parser(Signal::parse), tree])
}

pub(super) fn logs(command: Command) -> Command {
    let lines = |text: &str| match text {
        "all" => Ok(super::logs::ALL_LINES),
        _ => count(text).map_err(|expected| expected + " or all"),
    };
    let count = option("lines", "N", "how many of each log, or all of it").short('n');
    let filter = option("filter", "REGEX", "only lines in which this is found").alias("grep");
    let since = option("since", "TIME", "only of the last 10m, if the lines say when");
    optional_target(command).args([
        count.default_value("15").value_parser(lines),
        switch("follow", "go on with what is written from now on").short('f'),
        switch("err", "only what was written to stderr").conflicts_with("out"),
        switch("out", "only what was written to stdout"),
        switch("errors-only", "the same as --err").conflicts_with("out"),
        filter.value_parser(|text: &str| regex_lite::Regex::new(text)),
        since.value_parser(Span::parse),
        switch("raw", "without titles and prefixes"),
        switch("json", "an object for each line, or of --stats"),
        switch("timestamp", "what is followed bears the time"),
        switch("nostream", "do not follow, whatever else is said"),
        switch("stats", "bytes, bytes in the next second, archives"),
    ])
}

pub(super) fn events(command: Command) -> Command {
    let follow = switch("follow", "go on until the daemon ends").short('f');
    formatted(optional_target(command)).arg(follow)
}

pub(super) fn wait(command: Command) -> Command {
    let state = option("for", "STATE", "online, ready, stopped or errored").required(true);
    let timeout = option("timeout", "TIME", "give up after this, with exit code 6");
    target(command).args([
        state.value_parser(["online", "ready", "stopped", "errored"]),
        timeout.default_value("30s").value_parser(Span::parse),
    ])
}

fn process_file() -> Arg {
    word("file", "FILE", "process file; - is stdin").required(true)
}

pub(super) fn import(command: Command) -> Command {
    command.args([process_file(), only(), env_set(), wait_ready(), force()])
}

pub(super) fn apply(command: Command) -> Command {
    let prune = switch("prune", "remove the services that are not in the file");
    let dry_run = switch("dry-run", "say what differs, and do nothing");
    let args = [process_file(), dry_run, prune.conflicts_with("only"), only(), env_set()];
    command.args(args)
}

pub(super) fn migrate(command: Command) -> Command {
    let from = word("from", "FROM", "pm2: ~/.pm2/dump.pm2, as 'pm2 save' wrote it");
    let dry_run = switch("dry-run", "say what it would define, and do nothing");
    command.args([from.required(true).value_parser(["pm2"]), dry_run])
}

pub(super) fn run(command: Command) -> Command {
    let usage = "opm run [OPTIONS] FILE\n       opm run [OPTIONS] -- COMMAND [ARGS...]";
    let prefix =
        "before each line: none, name, time or json\n[default: name, none for one service]";
    let timeout = "from a stop to the end of everything, KILL included\n[default: 9s]";
    let restart = "always, on-failure or never [default: always]";
    let env = "set a variable of COMMAND (repeatable); with a file\nof PM2's: NAME of env_NAME";
    let words = word("words", "COMMAND", "one command, exec'd as given");
    command.override_usage(usage).args([
        word("file", "FILE", "process file: all of it is started"),
        words.last(true).num_args(1..),
        option("name", "NAME", "name of COMMAND's service [default: of it]").short('n'),
        option("env", "K=V", env).action(ArgAction::Append),
        only(),
        option("restart", "WHEN", restart).value_parser(Restart::parse),
        option("prefix", "PREFIX", prefix).value_parser(Prefix::parse),
        option("stop-timeout", "TIME", timeout).value_parser(Span::parse),
        switch("quiet", "say nothing of exits and restarts").short('q'),
        switch("watch-file", "read FILE anew when it changes, as at SIGHUP"),
    ])
}

pub(super) fn export(command: Command) -> Command {
    let help = "id, name, list (1,web), all or glob (api-*);\n\
                behind them a FILE to write, or with -o";
    command.args([
        target_arg().help(help).required(true),
        option("output", "FILE", "write it there, not to stdout").short('o'),
    ])
}

pub(super) fn completions(command: Command) -> Command {
    let shell = word("shell", "SHELL", "bash, zsh or fish").required(true);
    let words = word("words", "WORDS", "what was typed so far: says what may come next");
    let shell = shell.value_parser(SCRIPTS.map(|(shell, _)| shell));
    let usage = "opm completions SHELL";
    command.override_usage(usage).args([shell, words.last(true).num_args(1..)])
}

pub(super) fn metrics(command: Command) -> Command {
    let check = |text: &str| match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("expected HOST:PORT".to_owned()),
    };
    let listen = option("listen", "HOST:PORT", "answer HTTP there, until it is stopped");
    command.arg(listen.value_parser(check))
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
        sub("reset", "say which id is next: the lowest that is free"),
        sub("upgrade", "replace it by a new binary; no service notices").arg(word(
            "binary",
            "BINARY",
            "the new program [default: this one]",
        )),
        sub("setup", "write and enable systemd units [alias: startup]")
            .alias("startup")
            .arg(switch("user", "of this user, not of the machine"))
            .arg(switch("print", "only print them").conflicts_with("remove"))
            .arg(switch("remove", "disable and remove them; services go on")),
    ])
}
