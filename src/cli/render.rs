//! Replies as text for people. Pure; JSON for programs is the wire types themselves.
use super::output::escape;
use super::table::{Cell, Hue, Look, lay_out};
use crate::service::context::{Attributes, format_limit, format_umask, named};
use crate::service::options::{Group, OPTIONS, text_of};
use crate::service::spec::Env;
use crate::service::units::{human_bytes, human_uptime};
use crate::wire::{Event, Finding, Health, Info, LastExit, Row, Status};

/// The columns of `ls`, in the order that scripts know.
const COLUMNS: [&str; 9] = ["id", "name", "pid", "uptime", "↺", "status", "cpu", "mem", "watching"];
/// Which of them is cut where the terminal is narrow.
const NAME: usize = 1;
/// What stands where there is nothing to say.
const NOTHING: &str = "-";

pub(crate) fn list(rows: &[Row], look: Look) -> String {
    let cells: Vec<Vec<Cell>> = rows.iter().map(row).collect();
    lay_out(&COLUMNS, &cells, NAME, look)
}

fn row(row: &Row) -> Vec<Cell> {
    let hue = match row.status {
        Status::Online => Hue::Green,
        Status::Starting | Status::Stopping | Status::Waiting => Hue::Yellow,
        Status::Stopped | Status::Errored => Hue::Red,
    };
    vec![
        row.id.to_string().into(),
        escape(&row.name).into(),
        or_nothing(row.pid.map(|pid| pid.to_string())).into(),
        or_nothing(row.uptime_ms.map(human_uptime)).into(),
        row.restarts.to_string().into(),
        Cell { text: row.status.word().to_owned(), hue },
        or_nothing(row.cpu_percent.map(percent)).into(),
        or_nothing(row.memory_bytes.map(human_bytes)).into(),
        if row.watching { "enabled" } else { "disabled" }.to_owned().into(),
    ]
}

fn percent(value: f64) -> String {
    let tenths = (value * 10.0).round() as u64;
    format!("{}.{}%", tenths / 10, tenths % 10)
}

fn or_nothing(text: Option<String>) -> String {
    text.unwrap_or_else(|| NOTHING.to_owned())
}

/// Everything about each service, a blank line between two.
pub(crate) fn info(infos: &[Info]) -> String {
    let blocks: Vec<String> = infos.iter().map(|info| pairs(&info_pairs(info))).collect();
    blocks.join("\n")
}

fn info_pairs(info: &Info) -> Vec<(&'static str, String)> {
    let row = &info.row;
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let pids = info.pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let options = OPTIONS.iter().filter_map(|opt| Some((opt, text_of(info.policy.get(opt.key)?))));
    let (policy, others): (Vec<_>, Vec<_>) =
        options.partition(|(opt, _)| opt.group == Group::Policy);
    // How many deaths are forgiven is in the line of those that were.
    let (forgiven, policy): (Vec<_>, Vec<_>) =
        policy.into_iter().partition(|(opt, _)| opt.key == "max_restarts");
    let forgiven = forgiven.first().map_or("", |(_, value)| value);
    let mut pairs = vec![
        ("id", row.id.to_string()),
        ("name", row.name.clone()),
        ("status", row.status.word().to_owned()),
        ("ready", yes(info.ready)),
        ("command", row.command.clone()),
        ("cwd", row.cwd.clone()),
        ("pid", or_nothing(row.pid.map(|pid| pid.to_string()))),
        ("pids", if pids.is_empty() { NOTHING.to_owned() } else { pids }),
        ("generation", row.generation.to_string()),
        ("adopted", yes(row.adopted)),
        ("uptime", or_nothing(row.uptime_ms.map(human_uptime))),
        ("started at", or_nothing(info.started_at.clone())),
        ("last exit", or_nothing(info.last_exit.as_ref().map(last_exit))),
        ("restarts", row.restarts.to_string()),
        ("last restart at", or_nothing(info.last_restart_at.clone())),
        ("failed restarts", format!("{} of {forgiven}", info.failed_restarts)),
        ("cpu", or_nothing(row.cpu_percent.map(percent))),
        ("memory", or_nothing(row.memory_bytes.map(human_bytes))),
        ("watching", yes(row.watching)),
    ];
    pairs.extend(policy.into_iter().map(|(opt, value)| (opt.label, value)));
    pairs.extend([
        ("pattern", info.pattern.clone()),
        ("log out", log(&info.log_out)),
        ("log error", log(&info.log_error)),
        ("environment", format!("{} variables (opm env {})", info.env_keys.len(), row.name)),
        ("cgroup", or_nothing(info.cgroup.clone())),
    ]);
    pairs.extend(others.into_iter().map(|(opt, value)| (opt.label, value)));
    let attributes = &info.attributes;
    let usual = Attributes::default();
    if attributes.umask != usual.umask {
        pairs.push(("umask", format_umask(attributes.umask)));
    }
    if attributes.nice != usual.nice && !info.policy.contains_key("nice") {
        pairs.push(("nice", attributes.nice.to_string()));
    }
    if attributes.limits != usual.limits {
        let limits = named(&attributes.limits);
        let limits = limits.map(|(name, limit)| format!("{name} {}", format_limit(limit)));
        pairs.push(("limits", limits.collect::<Vec<_>>().join(", ")));
    }
    pairs.extend(info.memory_by.clone().map(|by| ("memory by", by)));
    pairs.extend(row.next_at.clone().map(|at| ("next start", at)));
    if let Some(note) = &info.note {
        pairs.push(("note", note.clone()));
    }
    pairs
}

fn log(path: &Option<String>) -> String {
    path.clone().unwrap_or_else(|| "that of opm run".to_owned())
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

fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (key, value) in pairs {
        text.push_str(&format!("{key:width$}  {}\n", escape(value)));
    }
    text
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
pub(crate) fn event(event: &Event) -> String {
    let mut line = format!("{} {:<8} {}", event.at, event.event, event.service);
    line.push_str(&format!(" id={} generation={}", event.id, event.generation));
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
    escape(&line)
}

pub(crate) fn health(health: &Health) -> String {
    pairs(&[
        ("status", "online".to_owned()),
        ("pid", health.pid.to_string()),
        ("uptime", human_uptime(health.uptime_ms)),
        ("memory", human_bytes(health.memory_bytes)),
        ("services", format!("{} ({} online)", health.services, health.online)),
        ("version", health.version.clone()),
        ("home", health.home.clone()),
    ])
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
mod tests {
    use super::*;

    fn event_of(event: &str) -> Event {
        Event {
            at: "2026-01-02T03:04:05.006Z".into(),
            event: event.into(),
            service: "web".into(),
            id: 0,
            generation: 7,
            pid: Some(12),
            code: None,
            signal: None,
            by: None,
            oom: false,
            reason: None,
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let mut spawned = event_of("spawned");
        spawned.reason = Some("two\nlines".into());
        assert_eq!(
            event(&spawned),
            "2026-01-02T03:04:05.006Z spawned  web id=0 generation=7 pid=12: two\\nlines"
        );
    }

    #[test]
    fn the_last_exit_says_signal_code_or_unknown() {
        let exit = |code, signal: Option<&str>| {
            let by = signal.map(|_| "opm".into());
            last_exit(&LastExit {
                code,
                signal: signal.map(Into::into),
                by,
                oom: false,
                at: None,
                lived_ms: None,
            })
        };
        assert_eq!(exit(Some(3), None), "code 3");
        assert_eq!(exit(None, Some("KILL")), "signal KILL (by opm)");
        assert_eq!(exit(None, None), "unknown");
    }

    #[test]
    fn variables_of_one_service_can_be_read_back_by_a_shell_of_several_too() {
        let one = ("web".to_owned(), vec![("A".to_owned(), "1".to_owned())]);
        assert_eq!(env(std::slice::from_ref(&one)), "A=1\n");
        assert_eq!(env(&[one.clone(), one]), "# web\nA=1\n# web\nA=1\n");
    }
}
