//! supervisord's configuration: a service for each `[program:x]`.
use super::{ProcessFile, Reader, Source, directory_of};
use crate::process::shell;
use crate::service::options;
use crate::service::spec::{Env, Forgiven, Restart, Spec, last_of_each};
use crate::service::units::Span;

/// Keys that change nothing here, or that are read apart.
const SILENT: &str = "autostart command directory environment killasgroup priority process_name \
    stderr_capture_maxbytes stderr_events_enabled stderr_logfile_backups stderr_logfile_maxbytes \
    stderr_syslog stdout_capture_maxbytes stdout_events_enabled stdout_logfile_backups \
    stdout_logfile_maxbytes stdout_syslog stopasgroup";

/// Keys that are options under other names: seconds where the last is true.
const OPTION_KEYS: &[(&str, &str, bool)] = &[
    ("exitcodes", "stop_exit_codes", false),
    ("numprocs", "instances", false),
    ("redirect_stderr", "merge_logs", false),
    ("startretries", "max_restarts", false),
    ("startsecs", "min_uptime", true),
    ("stderr_logfile", "log_error", false),
    ("stdout_logfile", "log_out", false),
    ("stopsignal", "stop_signal", false),
    ("stopwaitsecs", "stop_timeout", true),
];

type Section = (String, Vec<(String, String)>);

/// Sections and their keys. A line that begins with a blank goes on with the value before it.
fn sections(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        let comment =
            [" ;", "\t;", " #", "\t#"].into_iter().filter_map(|mark| line.find(mark)).min();
        let line = line[..comment.unwrap_or(line.len())].trim_end();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((name.trim().to_owned(), Vec::new()));
        } else if let Some((_, pairs)) = sections.last_mut() {
            match (line.starts_with([' ', '\t']), pairs.last_mut(), line.split_once('=')) {
                (true, Some((_, value)), _) => value.push_str(&format!("\n{}", line.trim())),
                (_, _, Some((key, value))) => {
                    pairs.push((key.trim().to_owned(), value.trim().to_owned()));
                }
                (_, _, None) => pairs.push((line.to_owned(), String::new())),
            }
        }
    }
    sections
}

/// `%(here)s` and the like in their values' place.
fn expand(text: &str, name: &str, source: &Source<'_>) -> Result<String, String> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        done.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            done.push('%');
            rest = after;
            continue;
        }
        let found = after.strip_prefix('(').and_then(|after| {
            let (variable, after) = after.split_once(')')?;
            Some((variable, after.trim_start_matches(|c: char| c.is_ascii_digit())))
        });
        let Some((variable, after)) = found.filter(|(_, after)| after.starts_with(['s', 'd']))
        else {
            return Err(format!("{text}: a single % (write %%)"));
        };
        let value = match variable {
            "here" => Some(source.directory.to_string_lossy().into_owned()),
            "program_name" | "group_name" => Some(name.to_owned()),
            "process_num" => Some("0".to_owned()),
            "numprocs" => Some("1".to_owned()),
            "host_node_name" => Some(source.host.to_owned()),
            other => other.strip_prefix("ENV_").and_then(source.variable),
        };
        done.push_str(&value.ok_or_else(|| format!("%({variable})s: not set"))?);
        rest = &after[1..];
    }
    Ok(done + rest)
}

/// `A="one, two",B=three`.
fn variables(text: &str) -> Result<Env, &'static str> {
    let mut env = Env::new();
    let mut rest = text.trim_matches(|c: char| c == ',' || c.is_whitespace());
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or("expected NAME=VALUE,NAME=VALUE")?;
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| "'\"".contains(*c));
        let (value, after) = match quote {
            Some(quote) => after[1..].split_once(quote).ok_or("a quote is not closed")?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        env.push((name.trim().to_owned(), value.trim_end().to_owned()));
        rest = after.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
    }
    Ok(env)
}

/// Its words for yes and no, in ours.
fn truth(text: &str) -> &str {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => "true",
        "false" | "no" | "off" | "0" => "false",
        _ => text,
    }
}

pub(super) fn read(text: &str, source: &Source<'_>, found: &mut ProcessFile) -> Result<(), String> {
    let sections = sections(text);
    let value_of = |pairs: &[(String, String)], wanted: &str| {
        pairs.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone())
    };
    let common = sections.iter().find(|(name, _)| name == "supervisord");
    let common = common.and_then(|(_, pairs)| value_of(pairs, "environment")).unwrap_or_default();
    let mut programs = Vec::new();
    for (section, pairs) in &sections {
        let mut reader = Reader::new(source, section.clone());
        match section.split_once(':').map(|(kind, name)| (kind.trim(), name.trim())) {
            Some(("program", name)) => {
                let priority = value_of(pairs, "priority").and_then(|text| text.parse().ok());
                reader.label = name.to_owned();
                let spec = program(&mut reader, pairs, &common)?;
                programs.push((priority.unwrap_or(999_i64), spec));
            }
            Some(("rpcinterface" | "group", _)) => {}
            Some(_) => reader.warn("is left out"),
            None if section == "include" => reader.warn("is left out (import those files, too)"),
            None => {}
        }
        found.warnings.append(&mut reader.warnings);
    }
    programs.sort_by_key(|(priority, _)| *priority);
    found.specs.extend(programs.into_iter().map(|(_, spec)| spec));
    Ok(())
}

fn program(
    reader: &mut Reader<'_>,
    pairs: &[(String, String)],
    common: &str,
) -> Result<Spec, String> {
    let (source, name) = (reader.source, reader.label.clone());
    let get = |reader: &Reader<'_>, key: &str| {
        let value = pairs.iter().find(|(other, _)| other == key).map(|(_, value)| value);
        let value = value.map(|value| expand(value, &name, source)).transpose();
        value.map_err(|reason| reader.wrong(key, &reason))
    };
    let line = get(reader, "command")?.unwrap_or_default();
    let command = shell::split(&line).map_err(|reason| reader.wrong("command", reason))?;
    if command.is_empty() {
        return Err(reader.wrong("command", "missing"));
    }
    let cwd = get(reader, "directory")?.unwrap_or_default();
    let cwd = directory_of(source.caller, &cwd)
        .ok_or_else(|| reader.wrong("directory", "the path is not UTF-8"))?;
    let mut env = Env::new();
    let common = expand(common, &name, source).map_err(|e| reader.wrong("environment", &e))?;
    for text in [common, get(reader, "environment")?.unwrap_or_default()] {
        for (name, value) in variables(&text).map_err(|e| reader.wrong("environment", e))? {
            env.push((name, value));
        }
    }
    let mut spec = Spec { env: last_of_each(env), ..Spec::new(name.clone(), command, cwd) };
    (spec.policy.max_restarts, spec.policy.min_uptime) = (Forgiven(3), Span::secs(1));
    spec.policy.stop_timeout = Span::secs(10);
    spec.policy.restart = match get(reader, "autorestart")?.as_deref().map(truth) {
        None | Some("unexpected") => Restart::OnFailure,
        Some("true") => Restart::Always,
        Some("false") => Restart::Never,
        Some(other) => {
            let reason = format!("expected true, false or unexpected, found {other}");
            return Err(reader.wrong("autorestart", &reason));
        }
    };
    if get(reader, "autostart")?.as_deref().map(truth) == Some("false") {
        reader.warn("autostart=false: all of a file is started");
    }
    for (key, _) in pairs.iter().filter(|(key, _)| key != "autorestart") {
        let text = get(reader, key)?.unwrap_or_default();
        let own = OPTION_KEYS.iter().find(|(theirs, _, _)| theirs == key);
        let (own, seconds) = own.map_or((key.as_str(), false), |(_, own, secs)| (own, *secs));
        // The container's own output is where it goes anyway; AUTO is a file of its own, too.
        let is_log = own.starts_with("log_");
        let is_usual = is_log && (text.starts_with("/dev/") || text == "AUTO");
        if is_usual || SILENT.split_whitespace().any(|silent| silent == key) {
            continue;
        }
        match options::find(own) {
            Some(opt) => {
                let text = if seconds { format!("{text}s") } else { text };
                let text = if key == "redirect_stderr" { truth(&text) } else { &text };
                opt.parse(&mut spec, text).map_err(|reason| reader.wrong(key, &reason))?;
            }
            None => reader.warn(&format!("'{}' does nothing here", key.escape_debug())),
        }
    }
    if spec.log.merge_logs {
        spec.log.log_error = None;
    }
    spec.check().map_err(|reason| format!("{}: {reason}", source.label))?;
    Ok(spec)
}
