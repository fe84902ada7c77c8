//! `why`: one screen on where a service stands, since when, for which reason, and what to do. The
//! last lines of stderr and who listens on a port are looked up here, all else the daemon says.
//! What is said is a fact, or it says whose opinion it is.
use super::client::Need;
use super::info::last_exit;
use super::launch;
use super::output::{Done, escape, show};
use super::request::{Call, collect};
use crate::service::options::text_of;
use crate::service::spec::join;
use crate::service::units::{Span, human_uptime};
use crate::sys::sockets::listeners;
use crate::wire::{Asked, Dependency, Info, Process, Request, Row, Status, Why};
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::IpAddr;

const LINES_MAX: usize = 10;
/// Lines in which a port is looked for: what node says of one that is taken is longer.
const TELLING_MAX: usize = 25;
const LINE_CHARS_MAX: usize = 200;
const PORTS_MAX: usize = 4;

/// How programs say that somebody else has their port.
const IN_USE: [&str; 3] = ["eaddrinuse", "address already in use", "connection in use"];

#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    why: Why,
    stderr: Vec<String>,
    /// Who has the ports that it asked for in vain.
    listeners: Vec<Listener>,
    advice: Vec<String>,
}

#[derive(Serialize)]
struct Listener {
    port: u16,
    /// Empty: they can't be seen by this user.
    processes: Vec<Process>,
}

pub(super) fn why(call: &Call) -> Done {
    let request = |target| Request::Why { target };
    let (whys, worst) = collect(call, Need::Record, request, |why: &Why| why.info.row.id)?;
    let told: Vec<Told> = whys.into_iter().map(look).collect();
    let screens = |told: &Vec<Told>| told.iter().map(screen).collect::<Vec<_>>().join("\n");
    show(call.json(), &told, screens).map(|()| worst)
}

/// Adds what the daemon doesn't look at.
fn look(why: Why) -> Told {
    let mut stderr: Vec<String> = why.info.log_error.as_deref().map_or(Vec::new(), |path| {
        let lines = launch::last_lines(path, TELLING_MAX).into_iter();
        lines.map(|line| line.chars().take(LINE_CHARS_MAX).collect()).collect()
    });
    let is_well = why.info.row.status == Status::Online && why.info.row.ready;
    let ports = if is_well { BTreeSet::new() } else { ports(&stderr, why.port) };
    stderr.drain(..stderr.len().saturating_sub(LINES_MAX));
    let process =
        |(pid, words): (i32, Vec<String>)| Process { pid, command: join(&words), is_sure: false };
    let found = ports.into_iter().filter_map(|port| Some((port, listeners(port)?)));
    let found = found
        .map(|(port, who)| Listener { port, processes: who.into_iter().map(process).collect() });
    let mut told = Told { stderr, listeners: found.collect(), advice: Vec::new(), why };
    told.advice = advice(&told);
    told
}

/// The ports in lines that say that an address is in use; where they name none, that of PORT.
fn ports(stderr: &[String], variable: Option<u16>) -> BTreeSet<u16> {
    let lower = stderr.iter().map(|line| line.to_ascii_lowercase());
    let telling: Vec<String> =
        lower.filter(|line| IN_USE.iter().any(|words| line.contains(words))).collect();
    let mut ports = BTreeSet::new();
    for line in &telling {
        let apart = |c: char| c.is_whitespace() || "()'\",".contains(c);
        let mut before = "";
        for word in line.split(apart).filter(|word| !word.is_empty()) {
            let word = word.trim_end_matches([':', '.']);
            let number = match word.rsplit_once(':') {
                Some((host, port)) => Some(port).filter(|_| is_host(host)),
                None => Some(word).filter(|_| before == "port" || before.parse::<IpAddr>().is_ok()),
            };
            ports.extend(number.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0));
            before = word;
        }
    }
    if ports.is_empty() && !telling.is_empty() {
        ports.extend(variable);
    }
    ports.into_iter().take(PORTS_MAX).collect()
}

/// Whether a port may stand behind it: no hour does, nor hour and minute.
fn is_host(text: &str) -> bool {
    let is_v6 = text.is_empty() || text.starts_with([':', '[']);
    is_v6 || !text.contains(':') && text.contains(['.', '*']) || text == "localhost"
}

fn advice(told: &Told) -> Vec<String> {
    let Info { row: Row { name, status, ready, .. }, done, note, options, .. } = &told.why.info;
    let taken = told.listeners.iter().map(|Listener { port, processes }| match &processes[..] {
        [] => format!("ask as root who listens on port {port}"),
        [first, ..] => format!("end pid {}, or give {name} another port", first.pid),
    });
    let said = note.as_deref().unwrap_or_default();
    let next = match status {
        Status::Online if !ready => format!("opm logs {name}: it is not ready"),
        Status::Online if said.is_empty() => return taken.collect(),
        Status::Online if said.starts_with("the disk of ") => {
            format!("make room: opm logs --stats {name}, opm flush {name}")
        }
        Status::Online => format!("see to that, then opm restart {name}"),
        Status::Starting => match &told.why.dependency {
            Some(Dependency { name: other, status, .. }) => {
                let what = status.map_or("opm start", |_| "opm why");
                format!("{what} {other}: {name} is started when that is ready")
            }
            None => format!("opm wait {name} --for online"),
        },
        Status::Stopping => {
            let time = options.policy.get("stop_timeout").map_or(String::new(), text_of);
            format!("end what it waits for, or wait: KILL follows its signal after {time}")
        }
        Status::Waiting => format!("mend what ended it; opm start {name} does not wait"),
        Status::Stopped if *done => format!("nothing: opm start {name} runs it again"),
        Status::Stopped => format!("opm start {name}"),
        Status::Errored => format!("mend what ended it, then opm start {name}"),
    };
    taken.chain([next]).collect()
}

fn screen(told: &Told) -> String {
    let Why { info, since, for_ms, halted, deaths, waits_for, dependency, probe, by_cron, .. } =
        &told.why;
    let Info { row, done, note, failed_restarts, options, .. } = info;
    let mut head = format!("{}: {}", row.name, row.status.word());
    if row.status == Status::Online {
        head.push_str(if row.ready { ", ready" } else { ", not ready" });
    }
    head.extend(since.iter().map(|at| format!(" since {at}")));
    head.extend(for_ms.map(|ms| format!(" ({})", human_uptime(ms))));
    head.extend(row.pid.map(|pid| format!(", pid {pid}")));
    let reason = match row.status {
        _ if note.is_some() => note.as_deref(),
        Status::Stopped if *halted => Some("an operator stopped it"),
        Status::Stopped if *done => Some("it has done its work"),
        Status::Waiting => Some("it died, and waits before it is started again"),
        _ => None,
    };
    let mut lines = vec![head];
    lines.extend(reason.map(|reason| format!("why: {reason}")));
    let by = if *by_cron { ", by its schedule" } else { "" };
    lines.extend(row.next_at.iter().map(|at| format!("next start: {at}{by}")));
    lines.extend(dependency.iter().map(|Dependency { name, status, why }| {
        let status = status.map_or("no such service", Status::word);
        let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        format!("waits for {name} ({status}{why})")
    }));
    lines.extend(probe.iter().map(|Asked { question, probe, answer }| {
        let answer = answer.as_deref().unwrap_or("no answer yet");
        format!("asked ({question}): {probe}: {answer}")
    }));
    lines.extend(waits_for.iter().map(|Process { pid, command, is_sure }| {
        let sure = if *is_sure { "" } else { ", which may be of it" };
        format!("waits for pid {pid}{sure}: {command}")
    }));
    if !deaths.is_empty() {
        let forgiven = options.policy.get("max_restarts").map_or(String::new(), text_of);
        let count = format!("{failed_restarts} quick in a row, {forgiven} forgiven");
        lines.push(format!("last deaths ({count}):"));
    }
    lines.extend(deaths.iter().rev().map(|death| {
        let lived = death.lived_ms.map(|ms| format!(", after {}", Span { ms }));
        format!("  {}{}", last_exit(death), lived.unwrap_or_default())
    }));
    if let (Some(path), false) = (&info.log_error, told.stderr.is_empty()) {
        lines.push(format!("last lines of stderr ({path}):"));
        lines.extend(told.stderr.iter().map(|line| format!("  {line}")));
    }
    lines.extend(told.listeners.iter().map(|Listener { port, processes }| {
        let who = processes.iter().map(|it| format!("pid {} ({})", it.pid, it.command));
        let who = who.collect::<Vec<_>>().join(", ");
        let who = if who.is_empty() { "a process that this user can't see" } else { &who };
        format!("port {port}: {who} listens on it")
    }));
    lines.extend(told.advice.iter().map(|what| format!("next: {what}")));
    lines.iter().map(|line| escape(line) + "\n").collect()
}

#[cfg(test)]
#[path = "../../tests/inner/cli_why.rs"]
mod tests;
