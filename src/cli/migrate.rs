//! From PM2 in one step: what it saved becomes services.
//!
//! Reads its list, and never starts what PM2 itself still runs.
use super::file::{self, Choice, Text};
use super::output::{Done, Failure, print, reason, warn};
use super::request::Call;
use crate::service::spec::Spec;
use crate::wire::file::FILE_BYTES_MAX;
use crate::wire::{Existing, code};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What its list calls otherwise than its process files do.
const KEYS: [(&str, &str); 5] = [
    ("pm_exec_path", "script"),
    ("pm_cwd", "cwd"),
    ("exec_interpreter", "interpreter"),
    ("pm_out_log_path", "out_file"),
    ("pm_err_log_path", "error_file"),
];

/// What means the same in both. All else is PM2's book-keeping, or the variables once more.
const SAME: &str = "args node_args exec_mode autorestart max_restarts min_uptime restart_delay \
    exp_backoff_restart_delay stop_exit_codes cron_restart max_memory_restart kill_timeout \
    wait_ready listen_timeout log_date_format merge_logs watch ignore_watch increment_var \
    instance_var uid gid treekill filter_env namespace";

/// What a process file would say of an app.
type App = Map<String, Value>;

/// A key that process files know, and that means nothing there: false is that it is not started.
const STARTED: &str = "autostart";

/// Variables that PM2 gives to each program.
const OWN_VARIABLES: [&str; 4] = ["pm_id", "unique_id", "NODE_APP_INSTANCE", "name"];

pub(super) fn migrate(call: &Call) -> Done {
    let home = std::env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from).join(".pm2");
    let path = home.join("dump.pm2");
    let label = path.display().to_string();
    let wrong = |reason: String| Failure::plain(format!("{label}: {reason}"));
    let read = super::environment::read_up_to(&path, FILE_BYTES_MAX as u64 + 1);
    let bytes = read.map_err(|e| wrong(format!("{} (try 'pm2 save')", reason(e))))?;
    let list: Vec<App> = serde_json::from_slice(&bytes)
        .map_err(|e| wrong(format!("is no list that PM2 saved ({e})")))?;
    if list.is_empty() {
        warn(&format!("{label}: no services in it"));
    }
    let (stopped, up): (Vec<App>, Vec<App>) =
        apps(list, &home).into_iter().partition(|app| app.contains_key(STARTED));
    let mut all = Vec::new();
    for (apps, existing, is) in
        [(up, Existing::Same, ""), (stopped, Existing::Stopped, " (stopped)")]
    {
        if apps.is_empty() {
            continue;
        }
        let bytes = json!({ "apps": apps }).to_string().into_bytes();
        let text = Text { bytes, label: label.clone(), directory: home.clone() };
        let declared = file::complete(text, &Choice::default(), super::environment::captured())?;
        for Spec { name, command, .. } in &declared.specs {
            print(&format!("{name}: {}{is}", crate::service::spec::join(command)))?;
        }
        all.push((declared, existing));
    }
    if call.flag("dry-run") {
        return Ok(code::DONE);
    }
    if let Some(pid) = daemon(&home) {
        let advice = "pm2 save; pm2 kill; opm migrate pm2";
        let text = format!("migrate: PM2 runs them still, as pid {pid} ({advice})");
        return Err(Failure::new(code::REFUSED, text));
    }
    all.iter().try_for_each(|(declared, _)| declared.check())?;
    all.into_iter().try_fold(code::DONE, |worst, (declared, existing)| {
        Ok(worst.max(file::carry_out(call, declared, existing)?))
    })
}

/// The pid of the PM2 whose home that is, if it lives.
fn daemon(home: &Path) -> Option<u32> {
    let pid = std::fs::read_to_string(home.join("pm2.pid")).ok()?.trim().parse().ok()?;
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    String::from_utf8_lossy(&words).contains("PM2").then_some(pid)
}

/// What a process file would say of the list. Those of one name are instances.
fn apps(list: Vec<App>, home: &Path) -> Vec<App> {
    let mut apps: Vec<App> = Vec::new();
    for mut entry in list {
        let name = entry.remove("name").unwrap_or_default();
        let is_stopped = entry.get("status").is_some_and(|status| status == "stopped");
        if let Some(first) = apps.iter_mut().find(|app| app["name"] == name) {
            if !is_stopped {
                first.remove(STARTED);
            }
            let count = first.get("instances").and_then(Value::as_u64).unwrap_or(1);
            first.insert("instances".to_owned(), (count + 1).into());
            // Each had a file of its own.
            first.retain(|key, _| !["out_file", "error_file"].contains(&key.as_str()));
            continue;
        }
        let mut app = App::new();
        if is_stopped {
            app.insert(STARTED.to_owned(), false.into());
        }
        let own_logs = home.join("logs");
        let is_own =
            |value: &Value| value.as_str().is_some_and(|it| Path::new(it).starts_with(&own_logs));
        let same = SAME.split_whitespace().map(|key| (key, key));
        for (from, to) in KEYS.into_iter().chain(same) {
            let value = entry.remove(from).filter(|it| !is_own(it) && !it.is_null());
            app.extend(value.map(|value| (to.to_owned(), value)));
        }
        if app.get("namespace").is_some_and(|namespace| namespace == "default") {
            app.remove("namespace");
        }
        if let Some(Value::Object(mut env)) = entry.remove("env") {
            env.retain(|key, value| {
                let is_own = key.starts_with("PM2_") || OWN_VARIABLES.contains(&key.as_str());
                !is_own && !value.is_object() && !value.is_null()
            });
            app.insert("env".to_owned(), env.into());
        }
        app.insert("name".to_owned(), name);
        apps.push(app);
    }
    apps
}
