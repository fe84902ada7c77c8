//! `completions SHELL`: a short script for the shell, which asks the same command, with the words
//! so far, what may come next: options of this very opm, services of its daemon if one is there.
use super::client::Need;
use super::output::{Done, write};
use super::request::{Call, ask};
use super::{commands, usage};
use crate::wire::{Request, Row, code};
use clap::{Arg, Command};

pub(super) const SCRIPTS: [(&str, &str); 3] = [
    ("bash", include_str!("completions/opm.bash")),
    ("fish", include_str!("completions/opm.fish")),
    ("zsh", include_str!("completions/opm.zsh")),
];

/// What may come next, and what it is.
type Candidate = (String, String);

pub(super) fn completions(call: &Call) -> Done {
    let words = call.matches.get_many::<String>("words").into_iter().flatten();
    let words: Vec<&str> = words.map(String::as_str).collect();
    let Some((last, before)) = words.split_last() else {
        let script = SCRIPTS.iter().find(|(shell, _)| *shell == call.text("shell"));
        return write(script.map_or("", |(_, text)| text).as_bytes()).map(|()| code::DONE);
    };
    let mut text = String::new();
    for (word, about) in candidates(call, before, last.starts_with('-')) {
        if word.starts_with(last) && !word.contains(['\n', '\t']) {
            text.push_str(&format!("{word}\t{}\n", about.lines().next().unwrap_or_default()));
        }
    }
    write(text.as_bytes()).map(|()| code::DONE)
}

fn candidates(call: &Call, before: &[&str], is_option: bool) -> Vec<Candidate> {
    let mut words = before.iter().filter(|word| **word != "--no-daemon-start");
    let entry = match words.next() {
        None | Some(&"help") => {
            let all = usage::commands();
            return all.map(|(name, about)| (name.to_owned(), about.to_owned())).collect();
        }
        Some(name) => commands::find(name),
    };
    let Some(entry) = entry else { return Vec::new() };
    let mut whole = entry.command();
    whole.build();
    let (mut command, mut previous) = (&whole, "");
    for word in words {
        // What follows are a program's own words.
        if *word == "--" {
            return Vec::new();
        }
        command = command.find_subcommand(word).unwrap_or(command);
        previous = word;
    }
    let is_previous = |arg: &&Arg| {
        let short = arg.get_short().map(|c| format!("-{c}"));
        let long = arg.get_long().map(|word| format!("--{word}"));
        [short, long].into_iter().flatten().any(|flag| flag == previous)
    };
    let mut options = command.get_arguments().filter(|arg| !arg.is_positional());
    match options.find(is_previous).filter(|arg| arg.get_action().takes_values()) {
        Some(option) => values(option),
        None if is_option => options_of(command),
        None => words_of(call, command),
    }
}

fn values(arg: &Arg) -> Vec<Candidate> {
    let values = arg.get_possible_values();
    values.iter().map(|value| (value.get_name().to_owned(), String::new())).collect()
}

fn options_of(command: &Command) -> Vec<Candidate> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let option = |arg: &Arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        arg.get_long().map(|word| (format!("--{word}"), help))
    };
    shown.filter_map(option).collect()
}

/// Commands of a command, fixed words, and the services where some may be named.
fn words_of(call: &Call, command: &Command) -> Vec<Candidate> {
    let about = |sub: &Command| sub.get_about().map(ToString::to_string).unwrap_or_default();
    let subs = command.get_subcommands().map(|sub| (sub.get_name().to_owned(), about(sub)));
    let mut found: Vec<Candidate> = subs.collect();
    found.extend(command.get_positionals().flat_map(values));
    if command.get_positionals().any(|arg| arg.get_id() == "target")
        && let Ok(Some(rows)) =
            ask::<Vec<Row>>(&call.client, Need::Running, &Request::List { usage: false })
    {
        found.extend(rows.into_iter().map(|row| (row.name, row.status.word().to_owned())));
    }
    found
}
