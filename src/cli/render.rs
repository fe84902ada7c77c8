//! Replies as text for people. Pure; JSON for programs is the wire types themselves.
use super::output::escape;
use super::table::{Cell, Column, Hue, Look, Side, lay_out};
use crate::service::spec::Env;
use crate::service::units::{human_bytes, human_uptime};
use crate::wire::{Event, Finding, Health, Row, Status};
use std::borrow::Cow;
use std::collections::HashMap;

/// A column of `ls`, and what is in it of the ids of some services and the row of all of them.
type Field = (Column, fn(&str, &Row) -> Cell);
/// All of them, in the order that scripts know.
const COLUMNS: [Field; 10] = [
    (Column("id", Side::Right), |ids, _| ids.to_owned().into()),
    (Column("name", Side::Yields), |_, row| escape(&row.name).into()),
    (Column("pid", Side::Right), |_, row| or_nothing(row.pid.map(|pid| pid.to_string()))),
    (Column("uptime", Side::Right), |_, row| or_nothing(row.uptime_ms.map(human_uptime))),
    (Column("↺", Side::Right), |_, row| row.restarts.to_string().into()),
    (Column("status", Side::Left), |_, row| Cell {
        text: row.status.word().to_owned(),
        hue: hue(row),
    }),
    (Column("why", Side::Yields), |_, row| escape(row.why.as_deref().unwrap_or_default()).into()),
    (Column("cpu", Side::Right), |_, row| or_nothing(row.cpu_percent.map(percent))),
    (Column("mem", Side::Right), |_, row| or_nothing(row.memory_bytes.map(human_bytes))),
    (Column("watching", Side::Left), |_, row| {
        if row.watching { "yes" } else { "no" }.to_owned().into()
    }),
];
/// What stands where there is nothing to say.
const NOTHING: &str = "-";

pub(crate) fn list(rows: &[Row], look: Look) -> String {
    table(rows.iter().map(|row| (row.id.to_string(), Cow::Borrowed(row))).collect(), look)
}

/// The same, with one line for all instances of a group, where its first one stands.
pub(super) fn folded(rows: &[Row], look: Look) -> String {
    let (mut groups, mut at) = (Vec::<Vec<&Row>>::new(), HashMap::new());
    for row in rows {
        let known = row.instance_of.as_ref().map(|name| *at.entry(name).or_insert(groups.len()));
        match known.and_then(|at| groups.get_mut(at)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    table(groups.iter().map(|group| fold(group)).collect(), look)
}

/// The ids of a group's instances, and all of them as one, which is as well as its worst.
fn fold<'a>(group: &[&'a Row]) -> (String, Cow<'a, Row>) {
    let health = |row: &&&Row| match row.status {
        Status::Errored => 0,
        Status::Waiting => 1,
        Status::Online if row.ready => 4,
        Status::Online | Status::Starting | Status::Stopping => 2,
        Status::Stopped => 3,
    };
    let ids = || group.iter().map(|row| row.id);
    let (first, last) = (ids().min().unwrap_or(0), ids().max().unwrap_or(0));
    let Some(worst) = group.iter().min_by_key(health).filter(|_| group.len() > 1) else {
        return (first.to_string(), Cow::Borrowed(group[0]));
    };
    let online = group.iter().filter(|row| row.status == Status::Online).count();
    let name = worst.instance_of.as_ref().unwrap_or(&worst.name);
    let row = Row {
        name: format!("{name}  {online}/{}", group.len()),
        pid: None,
        uptime_ms: group.iter().filter_map(|row| row.uptime_ms).min(),
        restarts: group.iter().map(|row| row.restarts).sum(),
        cpu_percent: group.iter().filter_map(|row| row.cpu_percent).reduce(|a, b| a + b),
        memory_bytes: group.iter().filter_map(|row| row.memory_bytes).reduce(|a, b| a + b),
        watching: group.iter().any(|row| row.watching),
        why: worst.why.as_ref().map(|why| format!("{}: {why}", worst.name)),
        ..(*worst).clone()
    };
    let all_between = (last - first) as usize + 1 == group.len();
    (format!("{first}{}{last}", if all_between { '-' } else { '…' }), Cow::Owned(row))
}

/// Two of its columns are there only where they say something.
fn table(rows: Vec<(String, Cow<'_, Row>)>, look: Look) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let any_why = rows.iter().any(|(_, row)| row.why.is_some());
    let any_watching = rows.iter().any(|(_, row)| row.watching);
    let is_shown = |(column, _): &&Field| match column.0 {
        "why" => any_why,
        "watching" => any_watching,
        _ => true,
    };
    let fields: Vec<&Field> = COLUMNS.iter().filter(is_shown).collect();
    let head: Vec<Column> = fields.iter().map(|(column, _)| *column).collect();
    let cells = |(ids, row): &(String, Cow<'_, Row>)| {
        fields.iter().map(|(_, cell)| cell(ids, row)).collect()
    };
    lay_out(&head, &rows.iter().map(cells).collect::<Vec<_>>(), look)
}

/// What a person should see first of all.
pub(super) fn hue(row: &Row) -> Hue {
    match row.status {
        Status::Online if row.ready => Hue::Green,
        Status::Online | Status::Starting | Status::Stopping | Status::Waiting => Hue::Yellow,
        Status::Stopped => Hue::Dim,
        Status::Errored => Hue::Red,
    }
}

pub(super) fn percent(value: f64) -> String {
    let tenths = (value * 10.0).round() as u64;
    format!("{}.{}%", tenths / 10, tenths % 10)
}

fn or_nothing(text: Option<String>) -> Cell {
    text.unwrap_or_else(|| NOTHING.to_owned()).into()
}

/// A line for each; the values, which show nothing that a terminal obeys, below each other.
pub(super) fn pairs(pairs: &[(&str, String)], column: usize) -> String {
    pairs.iter().map(|(key, value)| format!("{key:column$}{value}\n")).collect()
}

/// `NAME=VALUE` lines; a comment names the service if there are several.
pub(crate) fn env(services: &[(String, Env)]) -> String {
    let mut text = String::new();
    for (name, env) in services {
        if services.len() > 1 {
            text.push_str(&format!("# {}\n", escape(name)));
        }
        for (key, value) in env {
            text.push_str(&format!("{key}={value}\n"));
        }
    }
    text
}

/// One line, without its newline.
pub(crate) fn event(event: &Event, look: Look) -> String {
    let hue = match event.event.as_str() {
        "ready" | "adopted" => Hue::Green,
        "exited" | "waiting" | "stopped" => Hue::Yellow,
        "errored" | "refused" => Hue::Red,
        _ => Hue::Plain,
    };
    let what = look.paint(hue, &format!("{:<8}", escape(&event.event)));
    let mut line = format!("{} id={} generation={}", event.service, event.id, event.generation);
    let number = |number: Option<i32>| number.map(|number| number.to_string());
    for (key, value) in [
        ("pid", number(event.pid)),
        ("code", number(event.code)),
        ("signal", event.signal.clone()),
        ("by", event.by.clone()),
        ("oom", event.oom.then(|| "true".to_owned())),
    ] {
        line.extend(value.map(|value| format!(" {key}={value}")));
    }
    if let Some(reason) = &event.reason {
        line.push_str(&format!(": {reason}"));
    }
    format!("{} {what} {}", escape(&event.at), escape(&line))
}

pub(crate) fn health(health: &Health) -> String {
    let facts = [
        ("status", "online".to_owned()),
        ("pid", health.pid.to_string()),
        ("uptime", human_uptime(health.uptime_ms)),
        ("memory", human_bytes(health.memory_bytes)),
        ("services", format!("{} ({} online)", health.services, health.online)),
        ("version", health.version.clone()),
        ("home", escape(&health.home)),
    ];
    pairs(&facts, 10)
}

/// A line for each finding, and below it what to do.
pub(crate) fn doctor(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding { level, subject, text: what, advice } = finding;
        text.push_str(&escape(&format!("{level:<8} {subject}: {what}")));
        text.push('\n');
        if !advice.is_empty() {
            text.push_str(&format!("         {}\n", escape(advice)));
        }
    }
    text
}

#[cfg(test)]
#[path = "../../tests/inner/cli_render.rs"]
mod tests;
