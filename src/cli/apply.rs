//! What is, and what a file says that should be: `apply` carries out the difference, `export`
//! writes the one as the other.
use super::environment::captured;
use super::file::{self, Choice};
use super::output::{Done, failed, print, write};
use super::request::{Call, act_on};
use super::services::specs;
use crate::service::options::OPTIONS;
use crate::service::selector::Selector;
use crate::service::spec::Spec;
use crate::wire::{Existing, Request, code};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// With `--dry-run` the exit code says whether something differs.
pub(super) fn apply(call: &Call) -> Done {
    let choice = Choice::of(&call.matches);
    let mut declared = file::declared(call.text("file"), &choice, captured())?;
    let there = specs(call, "all".to_owned())?;
    let is_pruned = |old: &&Spec| {
        let (group, mut all) = (&old.held.instance_of, declared.specs.iter());
        let has = group.is_some() && all.any(|spec| spec.held.instance_of == *group);
        (has || call.flag("prune")) && !declared.specs.iter().any(|spec| spec.name == old.name)
    };
    let pruned: Vec<&Spec> = there.iter().filter(is_pruned).collect();
    let mut lines = Vec::new();
    declared.specs.retain(|spec| {
        let old = there.iter().find(|old| old.name == spec.name);
        let keys = old.map_or_else(Vec::new, |old| old.differences(spec));
        let differs = old.is_none() || !keys.is_empty();
        let line = if old.is_none() { "new".to_owned() } else { keys.join(", ") };
        lines.extend(differs.then(|| format!("{}: {line}", spec.name)));
        differs
    });
    lines.extend(pruned.iter().map(|old| format!("{}: not in the file", old.name)));
    let is_same = lines.is_empty();
    // Before anything is said or goes: a file with an error changes nothing.
    declared.check()?;
    declared.check_with(&call.client)?;
    for line in lines {
        // A reader that has gone does not stop what was asked for.
        let _gone = print(&line);
    }
    if is_same || call.flag("dry-run") {
        return Ok(if is_same { code::DONE } else { code::FAILED });
    }
    let mut worst = code::DONE;
    if !pruned.is_empty() {
        let names: Vec<String> = pruned.iter().map(|old| Selector::exactly(&old.name)).collect();
        worst = act_on(call, names.join(","), |target| Request::Remove { target })?;
    }
    Ok(worst.max(file::carry_out(call, declared, Existing::Replace)?))
}

/// What `import` reads: the services as they are now.
pub(super) fn export(call: &Call) -> Done {
    let mut words: Vec<&str> =
        call.matches.get_many::<String>("target").into_iter().flatten().map(|it| &**it).collect();
    let given = call.matches.get_one::<String>("output").map(String::as_str);
    // No service is called like a path, and hardly one like a file of JSON.
    let is_file =
        |word: &mut &str| !word.ends_with('/') && (word.contains('/') || word.ends_with(".json"));
    let behind = if words.len() > 1 { words.pop_if(is_file) } else { None };
    let services: Vec<Value> = specs(call, words.join(","))?.iter().map(service).collect();
    let document = json!({ "$schema": schema(), "services": services });
    let text = serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
    match given.or(behind) {
        None => write(text.as_bytes())?,
        // It holds environments, which may be secrets.
        Some(path) => OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed(path))?,
    }
    Ok(code::DONE)
}

/// Where the schema of process files is, for editors: it is installed beside this program.
fn schema() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let prefix = program.parent().and_then(Path::parent).unwrap_or(Path::new("/usr/local"));
    format!("file://{}", prefix.join("share/opm/opm-file.schema.json").display())
}

fn service(spec: &Spec) -> Value {
    let Spec { name, command, cwd, env, .. } = spec;
    let mut service = json!({ "name": name, "command": command, "cwd": **cwd });
    if !env.is_empty() {
        service["env"] = env.iter().cloned().collect();
    }
    for opt in OPTIONS.iter().filter(|opt| !opt.is_default(spec)) {
        service[opt.key] = opt.get(spec);
    }
    service
}
