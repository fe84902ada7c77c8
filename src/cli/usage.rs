//! What goes wrong with the words of a command, said in one line of ours; and the help that
//! names every command.
use super::commands::{ENTRIES, Entry};
use super::output::{Failure, write};
use crate::wire::code;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};
use std::ffi::OsString;

pub(crate) fn overview() -> String {
    let mut text = String::from(
        "A process supervisor: at most one live incarnation of a service, ever.\n\n\
         Usage: opm [--no-daemon-start] COMMAND [OPTIONS] [ARGS]\n\nCommands:\n",
    );
    for (name, about) in commands() {
        text.push_str(&format!("  {name:<12} {about}\n"));
    }
    text.push_str(&format!("\nTopics for 'opm help': {}\n", super::help::topics().join(", ")));
    text.push_str(
        "'opm COMMAND --help' says more. TARGET is an id, a name, a list (1,web), all,\n\
         or a glob (api-*). Exit codes: 0 done, 1 failed, 2 usage, 3 no such service,\n\
         4 daemon unreachable, 5 refused, 6 timed out.\n",
    );
    text
}

pub(crate) fn commands() -> impl Iterator<Item = (&'static str, &'static str)> {
    let init = ("init", "run one program as PID 1 of a container");
    ENTRIES.iter().map(|entry| (entry.name, entry.about)).chain([init])
}

/// Parses what follows the command's name. Help that was asked for ends the command quietly.
pub(crate) fn parse(entry: &Entry, words: Vec<OsString>) -> Result<ArgMatches, Failure> {
    let mut command = entry.command();
    let sub = words.iter().filter_map(|word| word.to_str()).find(|word| !word.starts_with('-'));
    let sub = sub.and_then(|word| command.find_subcommand(word)).map(Command::get_name);
    let about = [Some(entry.name), sub].into_iter().flatten().collect::<Vec<_>>().join(" ");
    // After a word that is wrong it is asked for all the more.
    let asks_for_help = matches!(&words[..], [_, last] if last == "--help" || last == "-h");
    command.try_get_matches_from_mut(words).map_err(|error| match error.kind() {
        kind if kind == ErrorKind::DisplayHelp
            || asks_for_help && kind == ErrorKind::ValueValidation =>
        {
            // What clap calls the help of a command is that command's name: see [`super::args`].
            let sub = command.find_subcommand_mut(error.to_string().trim()).cloned();
            let help = super::help::of(&mut sub.unwrap_or(command));
            write(help.as_bytes()).err().unwrap_or(Failure::new(code::DONE, ""))
        }
        _ => one_line(&about, &command, &error),
    })
}

/// clap's error as one line of ours; `about` is what `command` is called, or one below it.
fn one_line(about: &str, command: &Command, error: &clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    };
    // `--name <NAME>` is `--name` to people, and `<TARGET>` is TARGET.
    let bare = |kind| match context(kind) {
        arg if arg.starts_with('-') => arg.split(' ').next().unwrap_or_default().to_owned(),
        arg => arg.replace(['<', '>'], "").trim_end_matches("...").to_owned(),
    };
    let (arg, prior) = (bare(ContextKind::InvalidArg), bare(ContextKind::PriorArg));
    let (value, valid) = (context(ContextKind::InvalidValue), context(ContextKind::ValidValue));
    let word = context(ContextKind::InvalidSubcommand);
    let source = std::error::Error::source(error).map_or(String::new(), ToString::to_string);
    let reason = match error.kind() {
        ErrorKind::UnknownArgument if arg.starts_with('-') => format!("unknown option '{arg}'"),
        ErrorKind::UnknownArgument => format!("one word too many: '{arg}'"),
        ErrorKind::MissingRequiredArgument => format!("missing {arg}"),
        ErrorKind::MissingSubcommand => "missing command".to_owned(),
        ErrorKind::InvalidSubcommand => format!("unknown command '{about} {word}'"),
        ErrorKind::InvalidValue if value.is_empty() => format!("a value is missing for '{arg}'"),
        ErrorKind::InvalidValue => format!("bad value '{value}' for '{arg}' (one of: {valid})"),
        // It says by itself what is bad.
        ErrorKind::ValueValidation if source.starts_with("bad ") => format!("{arg}: {source}"),
        ErrorKind::ValueValidation => format!("bad value '{value}' for '{arg}': {source}"),
        ErrorKind::ArgumentConflict if prior == arg || prior.is_empty() => {
            format!("'{arg}' is there twice")
        }
        ErrorKind::ArgumentConflict => format!("'{arg}' and '{prior}' exclude each other"),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    };
    let near = match error.kind() {
        ErrorKind::UnknownArgument => near_option(about, command, &arg),
        ErrorKind::InvalidSubcommand => {
            near(&word, command.get_subcommands().map(Command::get_name)).map(ToOwned::to_owned)
        }
        _ => None,
    };
    Failure::usage(match near {
        Some(near) => format!("{reason} (did you mean '{near}'?)"),
        None => format!("{reason} (try 'opm {about} --help')"),
    })
}

fn near_option(about: &str, command: &Command, arg: &str) -> Option<String> {
    let sub = about.split(' ').nth(1).and_then(|word| command.find_subcommand(word));
    let options = sub.unwrap_or(command).get_arguments().filter(|option| !option.is_hide_set());
    let names = options.filter_map(clap::Arg::get_long);
    near(arg.strip_prefix("--")?, names).map(|name| format!("--{name}"))
}

/// Commands of other supervisors, and what does the same here.
pub(crate) const ELSEWHERE: &[(&[&str], &str)] = &[
    (&["monitor", "dash"], "try 'opm top'"),
    (&["enable", "setup"], "try 'opm daemon setup'"),
    (&["disable"], "try 'opm daemon setup --remove'"),
    (&["tail"], "try 'opm logs -f'"),
    (&["report"], "try 'opm doctor'"),
    (&["init", "ecosystem", "generate", "sample"], "see the examples of opm-file(5)"),
    (&["serve"], "start a web server: opm start -- python3 -m http.server 8080"),
    (&["deploy", "pull", "forward", "backward"], "deploy with git or rsync, then 'opm apply FILE'"),
    (&["set", "get", "multiset", "unset", "conf"], "options are for services: 'opm adjust'"),
    (&["install", "uninstall", "module"], "there are no modules; logs rotate by themselves"),
    (&["trigger", "attach", "send"], "talk to the program itself, or 'opm signal TARGET SIGNAL'"),
    (&["inspect", "profile"], "start node with --inspect, or --prof"),
    (&["link", "unlink", "plus", "login", "register", "web"], "try 'opm ls --json'"),
    (&["cluster"], "try 'opm start -i N'"),
    (&["reloadlogs", "reloadLogs"], "services open their logs themselves: 'opm restart TARGET'"),
];

/// The command or alias that is written most like `word`, if one is near.
pub(crate) fn nearest(word: &str) -> Option<&'static str> {
    let names = ENTRIES.iter().flat_map(|entry| [&[entry.name], entry.aliases].concat());
    near(word, names)
}

fn near<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = if word.chars().count() < 6 { 1 } else { 2 };
    names.min_by_key(|name| distance(word, name)).filter(|name| distance(word, name) <= most)
}

/// How many letters must be put in, left out, changed or swapped with the next.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let differ = usize::from(a[i - 1] != b[j - 1]);
            let mut best =
                (rows[i - 1][j - 1] + differ).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
#[path = "../../tests/inner/cli_usage.rs"]
mod tests;
