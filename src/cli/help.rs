//! What `--help` of a command prints. Pure.
//!
//! clap's own renderer has templates, wrapping and colours that nobody asks for here, in three
//! times the code of all commands' syntax.
use clap::{Arg, Command};

const TEXTS: &str = include_str!("texts.txt");

/// What stands under a heading of the texts: a command's examples, or a topic.
pub(super) fn text(heading: &str) -> Option<&'static str> {
    let (_, rest) = TEXTS.split_once(&format!("\n[{heading}]\n"))?;
    rest.split("\n[").next()
}

/// What `opm help` explains besides commands.
pub(super) fn topics() -> Vec<&'static str> {
    let topic = |line: &'static str| line.strip_prefix("[help ")?.strip_suffix(']');
    TEXTS.lines().filter_map(topic).collect()
}

/// The help of `command`, which clap has built (its global options are in it).
pub(crate) fn of(command: &mut Command) -> String {
    let own_usage = command.render_usage().to_string();
    let command = &*command;
    let (positionals, options): (Vec<&Arg>, Vec<&Arg>) = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .partition(|arg| arg.is_positional());
    let mut text = command.get_about().map_or(String::new(), |about| format!("{about}\n\n"));
    text.push_str(&usage(own_usage, command, &positionals, &options));
    let rows = command.get_subcommands().map(|sub| {
        let about = sub.get_about().map(ToString::to_string);
        (sub.get_name().to_owned(), about.unwrap_or_default())
    });
    section(&mut text, "Commands", rows.collect());
    let rows = positionals.iter().map(|arg| (word(arg), says(arg)));
    section(&mut text, "Arguments", rows.collect());
    let rows = options.iter().map(|arg| (flags(arg), says(arg)));
    section(&mut text, "Options", rows.collect());
    let name = command.get_bin_name().and_then(|name| name.strip_prefix("opm "));
    let examples = name.and_then(self::text).unwrap_or_default().lines();
    section(&mut text, "Examples", examples.map(|line| (line.to_owned(), String::new())).collect());
    text.extend(command.get_after_help().map(|after| format!("\n{after}\n")));
    text
}

/// As the command says itself, or from its arguments.
fn usage(own: String, command: &Command, positionals: &[&Arg], options: &[&Arg]) -> String {
    if !own.is_empty() {
        return own + "\n";
    }
    let name = command.get_bin_name().unwrap_or_default();
    let needed = options.iter().filter(|arg| arg.is_required_set()).map(|arg| flags(arg));
    let words = needed.chain(positionals.iter().map(|arg| word(arg)));
    let words: String = words.map(|word| format!(" {}", word.trim_start())).collect();
    let sub = if command.has_subcommands() { " <COMMAND>" } else { "" };
    format!("Usage: {name} [OPTIONS]{words}{sub}\n")
}

/// What is wider in the first column has a line of its own.
const LEFT_COLUMNS_MAX: usize = 26;

/// Two columns, the second one aligned, its lines too.
fn section(text: &mut String, title: &str, rows: Vec<(String, String)>) {
    if rows.is_empty() {
        return;
    }
    let widths = rows.iter().map(|(left, _)| left.len());
    let width = widths.filter(|width| *width <= LEFT_COLUMNS_MAX).max().unwrap_or(0);
    text.push_str(&format!("\n{title}:\n"));
    for (left, right) in rows {
        let mut left = left.as_str();
        if left.len() > width {
            text.push_str(&format!("  {left}\n"));
            left = "";
            if right.is_empty() {
                continue;
            }
        }
        for line in right.split('\n') {
            let row = format!("  {left:width$}  {line}");
            text.push_str(&format!("{}\n", row.trim_end()));
            left = "";
        }
    }
}

/// `<FILE>`, `<TARGET>...`, `[BINARY]`, `[ARGS]...`.
fn word(arg: &Arg) -> String {
    let name = value_name(arg);
    let many = arg.get_num_args().is_some_and(|n| n.max_values() > 1);
    let dots = if many { "..." } else { "" };
    if arg.is_required_set() { format!("<{name}>{dots}") } else { format!("[{name}]{dots}") }
}

/// `-n, --name <NAME>`, the long ones below each other.
fn flags(arg: &Arg) -> String {
    let short = arg.get_short().map(|c| format!("-{c}, "));
    let mut text = short.unwrap_or_else(|| "    ".to_owned());
    text.push_str(&format!("--{}", arg.get_long().unwrap_or_default()));
    if arg.get_action().takes_values() {
        text.push_str(&format!(" <{}>", value_name(arg)));
    }
    text
}

fn value_name(arg: &Arg) -> &str {
    let names = arg.get_value_names().unwrap_or_default();
    names.first().map_or("", |name| name.as_str())
}

fn says(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if arg.get_action().takes_values()
        && !arg.is_hide_default_value_set()
        && let [default, ..] = arg.get_default_values()
    {
        text.push_str(&format!(" [default: {}]", default.display()));
    }
    text
}
