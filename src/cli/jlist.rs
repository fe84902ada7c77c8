//! The list of services in PM2's shape: for programs as JSON, for people as node shows an object,
//! and the two tables that scripts grep.
use super::client::Need;
use super::output::{Done, Failure, print, print_json, write};
use super::request::{Call, ask};
use super::{logs, services};
use crate::process::command::pattern_of_argv;
use crate::service::spec::{Restart, Spec};
use crate::service::units::{human_bytes, human_uptime};
use crate::wire::file::{pm2::is_node, tidy};
use crate::wire::{Info, Request, Row, Status, code};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Programs whose first operand is what PM2 calls the script.
const INTERPRETERS: &str = "node python python3 bash sh ruby perl php bun deno ts-node tsx lua";

pub(super) fn jlist(call: &Call) -> Done {
    print_json(&processes(call)?).map(|()| code::DONE)
}

pub(super) fn prettylist(call: &Call) -> Done {
    let mut text = String::new();
    inspect(&processes(call)?.into(), 0, &mut text);
    print(&text).map(|()| code::DONE)
}

fn processes(call: &Call) -> Result<Vec<Value>, Failure> {
    let all = Request::Info { target: "all".to_owned() };
    let infos: Vec<Info> = ask(&call.client, Need::Record, &all)?.unwrap_or_default();
    let specs = services::specs(call, "all".to_owned())?;
    let spec = |info: &Info| specs.iter().find(|spec| spec.name == info.row.name);
    Ok(infos.iter().filter_map(|info| Some(process(info, spec(info)?))).collect())
}

/// PM2's words for the states.
fn status(row: &Row, ready: bool) -> &'static str {
    match row.status {
        Status::Starting => "launching",
        Status::Online if !ready => "launching",
        Status::Waiting => "waiting restart",
        other => other.word(),
    }
}

/// Where the script stands among `words`, if their program is one that runs scripts.
pub(super) fn script_at(words: &[String]) -> Option<usize> {
    let base = |word: &'_ str| word.rsplit('/').next().unwrap_or(word).to_owned();
    let (program, rest) = words.split_first()?;
    let (program, about) = (base(program), pattern_of_argv(words));
    let at = 1 + rest.iter().position(|word| base(word) == about)?;
    let is_module = words[at - 1] == "-m";
    (INTERPRETERS.split(' ').any(|known| known == program) && !is_module).then_some(at)
}

/// Interpreter, its options, script and arguments.
fn parts(spec: &Spec) -> (&str, &[String], String, &[String]) {
    let in_cwd = |word: &str| tidy(&Path::new(spec.cwd.as_str()).join(word)).display().to_string();
    let words = &spec.command;
    if let Some(at) = script_at(words) {
        return (&words[0], &words[1..at], in_cwd(&words[at]), &words[at + 1..]);
    }
    let (program, rest) = words.split_first().map_or(("", &[][..]), |(p, r)| (p.as_str(), r));
    let directories = std::env::var("PATH").unwrap_or_default();
    let mut found = directories.split(':').map(|directory| Path::new(directory).join(program));
    let found = found.find(|path| !program.contains('/') && path.is_file());
    let script = found.map_or_else(|| in_cwd(program), |path| path.display().to_string());
    ("none", &[], script, rest)
}

/// What PM2 calls several instances of a program of node's, and all else.
fn mode(row: &Row, group: Option<&String>) -> &'static str {
    let is_node = row.command.split(' ').next().is_some_and(is_node);
    if is_node && group.is_some() { "cluster_mode" } else { "fork_mode" }
}

fn process(info: &Info, spec: &Spec) -> Value {
    let row = &info.row;
    let now = logs::unix_ms();
    let (interpreter, options, script, args) = parts(spec);
    let namespace = spec.held.namespace.as_deref().unwrap_or("default");
    let mut env: Map<String, Value> =
        spec.env.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    env.insert("name".to_owned(), spec.group().into());
    // The program's own variables stand beside, under what they would hide.
    let mut pm2_env = env.clone();
    let number = spec.instance();
    pm2_env.extend(number.map(|number| (spec.held.instance_var.clone(), number.into())));
    let own = json!({
        "name": spec.group(), "pm_id": row.id, "status": status(row, row.ready),
        "restart_time": row.restarts, "unstable_restarts": info.failed_restarts,
        "pm_uptime": now.saturating_sub(row.uptime_ms.unwrap_or(0)),
        "pm_exec_path": script, "pm_cwd": row.cwd, "args": args, "node_args": options,
        "exec_interpreter": interpreter, "instances": 1,
        "exec_mode": mode(row, spec.held.instance_of.as_ref()),
        "pm_out_log_path": info.log_out, "pm_err_log_path": info.log_error,
        "autorestart": spec.policy.restart != Restart::Never, "watch": row.watching,
        "kill_timeout": spec.policy.stop_timeout.ms, "namespace": namespace, "version": "N/A",
        "vizion": false, "env": env,
    });
    pm2_env.extend(own.as_object().cloned().unwrap_or_default());
    json!({
        "pid": row.pid.unwrap_or(0), "name": spec.group(), "pm2_env": pm2_env, "pm_id": row.id,
        "monit": {
            "memory": row.memory_bytes.unwrap_or(0), "cpu": row.cpu_percent.unwrap_or(0.0),
        },
    })
}

/// As node's util.inspect has it.
fn inspect(value: &Value, depth: usize, text: &mut String) {
    let quoted = |word: &str| format!("'{}'", word.replace('\\', "\\\\").replace('\'', "\\'"));
    let is_word = |key: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        key.chars().all(plain) && !key.starts_with(|c: char| c.is_ascii_digit()) && !key.is_empty()
    };
    let (open, close, items): (_, _, Vec<(String, &Value)>) = match value {
        Value::String(word) => return text.push_str(&quoted(word)),
        Value::Array(items) => ('[', ']', items.iter().map(|it| (String::new(), it)).collect()),
        Value::Object(map) => {
            let key = |key: &String| if is_word(key) { key.clone() } else { quoted(key) };
            ('{', '}', map.iter().map(|(name, it)| (format!("{}: ", key(name)), it)).collect())
        }
        other => return text.push_str(&other.to_string()),
    };
    text.push(open);
    let is_flat = value.is_array() && items.iter().all(|(_, it)| !it.is_object());
    for (n, (key, item)) in items.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        match is_flat {
            true => text.push_str(&format!("{comma} ")),
            false => text.push_str(&format!("{comma}\n{}", "  ".repeat(depth + 1))),
        }
        text.push_str(key);
        inspect(item, depth + 1, text);
    }
    match (items.is_empty(), is_flat) {
        (true, _) => {}
        (false, true) => text.push(' '),
        (false, false) => text.push_str(&format!("\n{}", "  ".repeat(depth))),
    }
    text.push(close);
}

/// `pm2 list`: rows that scripts grep and count the columns of.
pub(super) fn list(rows: &[Row]) -> Result<(), Failure> {
    let head = "id name namespace version mode pid uptime ↺ status cpu mem user watching";
    let mut lines = vec![head.split(' ').map(str::to_owned).collect::<Vec<_>>()];
    let user = std::env::var("USER").unwrap_or_else(|_| "-".to_owned());
    lines.extend(rows.iter().map(|row| {
        vec![
            row.id.to_string(),
            row.instance_of.as_ref().unwrap_or(&row.name).clone(),
            "default".to_owned(),
            "N/A".to_owned(),
            mode(row, row.instance_of.as_ref()).trim_end_matches("_mode").to_owned(),
            row.pid.unwrap_or(0).to_string(),
            row.uptime_ms.map_or("0".to_owned(), human_uptime),
            row.restarts.to_string(),
            status(row, true).to_owned(),
            format!("{}%", row.cpu_percent.unwrap_or(0.0)),
            human_bytes(row.memory_bytes.unwrap_or(0)),
            user.clone(),
            if row.watching { "enabled" } else { "disabled" }.to_owned(),
        ]
    }));
    table(&lines)
}

pub(super) fn describe(infos: &[Info], specs: &[Spec]) -> Result<(), Failure> {
    for info in infos {
        let row = &info.row;
        let Some(spec) = specs.iter().find(|spec| spec.name == row.name) else { continue };
        let (interpreter, options, script, args) = parts(spec);
        let log = |path: &Option<String>| path.clone().unwrap_or_default();
        let pairs = [
            ("status", status(row, row.ready).to_owned()),
            ("name", row.name.clone()),
            ("restarts", row.restarts.to_string()),
            ("uptime", row.uptime_ms.map_or("0".to_owned(), human_uptime)),
            ("script path", script),
            ("script args", crate::service::spec::join(args)),
            ("error log path", log(&info.log_error)),
            ("out log path", log(&info.log_out)),
            ("interpreter", interpreter.to_owned()),
            ("interpreter args", crate::service::spec::join(options)),
            ("script id", row.id.to_string()),
            ("exec cwd", row.cwd.clone()),
            ("exec mode", mode(row, spec.held.instance_of.as_ref()).to_owned()),
            ("watch & reload", if row.watching { "✔" } else { "✘" }.to_owned()),
            ("unstable restarts", info.failed_restarts.to_string()),
        ];
        print(&format!(" Describing process with id {} - name {} ", row.id, row.name))?;
        let lines: Vec<_> = pairs.map(|(key, value)| vec![key.to_owned(), value]).into();
        table(&lines)?;
    }
    Ok(())
}

fn table(lines: &[Vec<String>]) -> Result<(), Failure> {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |n: usize| lines.iter().map(|line| line[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("│ {cell:<width$} "));
        }
        text.push_str("│\n");
    }
    write(text.as_bytes())
}
