//! `info` for people: what matters first, the last lines of the logs and what to do next at the
//! end, on one screen for an ordinary service.
use super::launch::last_lines;
use super::output::escape;
use super::render::{hue, pairs, percent};
use super::table::{Hue, Look, cut, width_of};
use crate::service::context::{Attributes, format_limit, format_umask, named};
use crate::service::options::{Group, OPTIONS, Opt, text_of};
use crate::service::spec::join;
use crate::service::units::{human_bytes, human_uptime};
use crate::wire::{Info, LastExit, Status};
use std::collections::BTreeMap;

const TAIL_LINES: usize = 3;
/// Where the values stand, unless a label is long.
const VALUE_COLUMN: usize = 13;

/// Everything about each service, a blank line between two.
pub(crate) fn info(infos: &[Info], look: Look) -> String {
    infos.iter().map(|info| one(info, look)).collect::<Vec<_>>().join("\n")
}

fn one(info: &Info, look: Look) -> String {
    let others = others(info);
    let longest = others.iter().map(|(label, _)| label.len() + 2).max().unwrap_or(0);
    let column = longest.max(VALUE_COLUMN);
    let mut text = pairs(&facts(info, others, column, look), column);
    for (of, path) in [("out", &info.log_out), ("error", &info.log_error)] {
        let lines = path.as_deref().map_or(Vec::new(), |path| last_lines(path, TAIL_LINES));
        if !lines.is_empty() {
            text.push_str(&look.paint(Hue::Bold, &format!("last of {of}\n")));
        }
        for line in lines {
            let line = format!("  {}", escape(&line));
            text.push_str(&look.width.map_or(line.clone(), |width| cut(&line, width)));
            text.push('\n');
        }
    }
    let next = match info.row.status {
        Status::Online | Status::Starting => ["logs -f", "restart", "stop"],
        Status::Waiting | Status::Errored => ["logs --err", "events", "start"],
        Status::Stopped | Status::Stopping => ["logs", "start", "remove"],
    };
    let name = escape(&join(std::slice::from_ref(&info.row.name)));
    let next = next.map(|words| format!("opm {words} {name}")).join(" | ");
    text + &look.paint(Hue::Dim, &format!("{:column$}{next}\n", "next"))
}

type Fact = (&'static str, String);

fn facts(info: &Info, others: Vec<Fact>, column: usize, look: Look) -> Vec<Fact> {
    let row = &info.row;
    let join =
        |parts: &[Option<String>]| parts.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
    let is = |is: bool, word: &str| is.then(|| word.to_owned());
    let status = [
        Some(look.paint(hue(row), row.status.word())),
        is(row.ready, "ready"),
        row.uptime_ms.map(|ms| format!("up {}", human_uptime(ms))),
        info.started_at.as_ref().map(|at| format!("since {at}")),
        is(row.adopted, "adopted"),
    ];
    let descendants = info.pids.iter().filter(|pid| Some(**pid) != row.pid);
    let pids = listed(row.pid.iter().chain(descendants));
    let processes = [
        Some(pids).filter(|pids| !pids.is_empty()),
        row.cpu_percent.map(|cpu| format!("cpu {}", percent(cpu))),
        row.memory_bytes.map(|bytes| format!("memory {}", human_bytes(bytes))),
        info.memory_by.as_ref().map(|by| format!("memory by {by}")),
    ];
    let forgiven = info.options.policy.get("max_restarts").map_or(String::new(), text_of);
    let restarts = [
        Some(row.restarts.to_string()),
        Some(format!("{} quick deaths in a row ({forgiven} forgiven)", info.failed_restarts)),
        info.last_restart_at.as_ref().map(|at| format!("last at {at}")),
        Some(format!("generation {}", row.generation)),
    ];
    let log = |path: &Option<String>| path.clone().or_else(|| Some("that of opm run".to_owned()));
    let variables = format!("{} variables (opm env {})", info.env_keys.len(), row.name);
    let why = row.why.as_deref().unwrap_or_default();
    let note = info.note.clone().filter(|note| !why.contains(note.as_str()));
    let first = [
        ("name", Some(format!("{} (id {})", look.paint(Hue::Bold, &escape(&row.name)), row.id))),
        ("status", Some(join(&status))),
        ("why", row.why.as_deref().map(escape)),
        ("next start", row.next_at.clone()),
        ("says", info.status_text.as_deref().map(escape)),
        ("note", note.as_deref().map(escape)),
        ("last exit", info.last_exit.as_ref().map(|exit| escape(&last_exit(exit)))),
        ("restarts", Some(join(&restarts))),
        ("pid", Some(join(&processes)).filter(|text| !text.is_empty())),
        ("kept", Some(listed(&info.kept)).filter(|text| !text.is_empty())),
        ("command", Some(escape(&row.command))),
        ("cwd", Some(escape(&row.cwd))),
        ("policy", Some(wrapped(&policy(info), column, look))),
    ];
    let last = [
        ("set by", Some(origins(info, column, look)).filter(|text| !text.is_empty())),
        ("environment", Some(escape(&variables))),
        ("cgroup", info.cgroup.as_deref().map(escape)),
        ("log out", log(&info.log_out)),
        ("log error", log(&info.log_error)),
    ];
    let known = |(key, value): (&'static str, Option<String>)| Some((key, value?));
    let first = first.into_iter().filter_map(known).chain(others);
    first.chain(last.into_iter().filter_map(known)).collect()
}

fn listed<'a>(pids: impl IntoIterator<Item = &'a i32>) -> String {
    pids.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The options that have a value.
fn options(info: &Info) -> impl Iterator<Item = (&'static Opt, String)> {
    let value = |key| info.options.policy.get(key).filter(|value| !value.is_null());
    OPTIONS.iter().filter_map(move |opt| Some((opt, escape(&text_of(value(opt.key)?)))))
}

/// Who set what is not the default, a line each.
fn origins(info: &Info, column: usize, look: Look) -> String {
    let mut keys: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for opt in OPTIONS {
        let Some(of) = info.options.origins.get(opt.key) else { continue };
        let first = if keys.contains_key(&**of) { String::new() } else { escape(of) + ": " };
        keys.entry(of).or_default().push(first + opt.label);
    }
    let lines = keys.values().map(|keys| wrapped(keys, column, look));
    lines.collect::<Vec<_>>().join(&format!("\n{:column$}", ""))
}

/// When it comes back, and how it is stopped. What is forgiven is in the line of the restarts.
fn policy(info: &Info) -> Vec<String> {
    let options = options(info).filter(|(opt, _)| opt.group == Group::Policy);
    let options = options.filter(|(opt, _)| opt.key != "max_restarts");
    options.map(|(opt, value)| format!("{} {value}", opt.label)).collect()
}

/// What its processes are given that is not usual.
fn others(info: &Info) -> Vec<Fact> {
    let options = options(info).filter(|(opt, _)| opt.group != Group::Policy);
    let mut others: Vec<Fact> = options.map(|(opt, value)| (opt.label, value)).collect();
    let (attributes, usual) = (&info.attributes, Attributes::default());
    if attributes.umask != usual.umask && !info.options.policy.contains_key("umask") {
        others.push(("umask", format_umask(attributes.umask)));
    }
    if attributes.nice != usual.nice && !info.options.policy.contains_key("nice") {
        others.push(("nice", attributes.nice.to_string()));
    }
    if attributes.limits != usual.limits {
        let limits = named(&attributes.limits);
        let limits = limits.map(|(name, limit)| format!("{name} {}", format_limit(limit)));
        others.push(("limits", limits.collect::<Vec<_>>().join(", ")));
    }
    others
}

/// `parts` in as many lines as the width asks for.
fn wrapped(parts: &[String], column: usize, look: Look) -> String {
    let (mut text, mut used) = (String::new(), column);
    for (n, part) in parts.iter().enumerate() {
        let comma = if n + 1 < parts.len() { "," } else { "" };
        let more = width_of(part) + comma.len() + 1;
        let is_full = look.width.is_some_and(|width| used + more > width);
        if n > 0 && is_full {
            text.push_str(&format!("\n{:column$}", ""));
            used = column;
        } else if n > 0 {
            text.push(' ');
        }
        text.extend([part.as_str(), comma]);
        used += more;
    }
    text
}

pub(super) fn last_exit(exit: &LastExit) -> String {
    let how = match (&exit.code, &exit.signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (Some(code), None) => format!("code {code}"),
        (None, None) => "unknown".to_owned(),
    };
    let at = exit.at.as_ref().map_or(String::new(), |at| format!(" at {at}"));
    let by = exit.by.as_ref().map_or(String::new(), |by| format!(" (by {by})"));
    let oom = if exit.oom { " (out of memory)" } else { "" };
    how + &at + &by + oom
}

#[cfg(test)]
#[path = "../../tests/inner/cli_info.rs"]
mod tests;
