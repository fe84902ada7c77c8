//! `start` and `import`: which service is meant, or which one is to be made.
//!
//! A service that exists comes first; only what names none is looked for among files and
//! programs. The environment of the caller is captured here and nowhere else.
use super::ask::{outcomes, strange};
use super::client::Need;
use super::output::{Done, Failure, warn, why};
use super::program::Place;
use super::{Call, args, dotenv, foreign};
use crate::process::command::default_name;
use crate::service::signal::Signal;
use crate::service::spec::{Env, Policy, Restart, Spec, StopReach};
use crate::service::target::{Target, check_name};
use crate::service::text::Delay;
use crate::wire::{Reply, Request, code, file};
use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest `.env`: what it holds has to fit beside the words of a command.
const DOTENV_BYTES_MAX: u64 = 1 << 20;

pub(super) fn start(call: &Call) -> Done {
    let target = call.text("target");
    let words: Vec<String> =
        call.matches.get_many::<String>("words").into_iter().flatten().cloned().collect();
    if !call.matches.contains_id("target") {
        if words.is_empty() {
            return Err(Failure::usage("missing TARGET (try 'opm start --help')"));
        }
        return define(call, Command::Given(words));
    }
    if target.is_empty() {
        return Err(Failure::usage("the target is empty (try 'opm start --help')"));
    }
    let shaping = args::SHAPING.iter().find(|name| {
        call.matches.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
    });
    if call.matches.get_many::<String>("target").is_some_and(|words| words.len() > 1) {
        return start_several(call, shaping.is_some() || !words.is_empty());
    }
    if target.ends_with(".json") && Path::new(target).is_file() {
        let stray = shaping.map(|name| format!("--{name}"));
        if let Some(stray) = stray.or((!words.is_empty()).then(|| "--".to_owned())) {
            let text = format!("{stray}: not with a process file (write it into {target})");
            return Err(Failure::usage(text));
        }
        return import_file(call, target);
    }
    let stray = match (shaping, words.is_empty()) {
        (Some(name), _) => Some(format!("--{name}")),
        (None, false) => Some("--".to_owned()),
        (None, true) => None,
    };
    // A service may be called like a line with a glob in it; of a list no item is.
    let exact = is_plainly_a_line(target).then(|| Target::exactly(target));
    let named = exact.as_deref().unwrap_or(target);
    if !(exact.is_some() && target.contains(','))
        && let Some(done) = start_existing(call, named, stray.as_deref())?
    {
        return Ok(done);
    }
    define(call, Command::Target(target, words))
}

/// Several words are services. Where none of them is, or with what only a new service can have
/// (`shaped`), they were meant as a command.
fn start_several(call: &Call, shaped: bool) -> Done {
    let target = call.target();
    let request = Request::Start { target: target.clone(), force: call.flag("force") };
    let reply = if shaped { None } else { call.client.ask(Need::Record, &request)? };
    match reply {
        Some(Reply::Outcomes { outcomes: found, .. })
            if found.iter().all(|one| one.code == code::NO_SUCH) => {}
        Some(reply) => return outcomes(&reply),
        None => {}
    }
    let words = call.matches.get_many::<String>("target").into_iter().flatten();
    let line = words.map(String::as_str).collect::<Vec<_>>().join(" ");
    let text = format!("{line}: no such services (put -- before a command: opm start -- {line})");
    Err(Failure::new(if shaped { code::USAGE } else { code::NO_SUCH }, text))
}

/// Starts the services that `target` names; `None` if it names none and may be something
/// else. `stray` is an option that only a new service can have.
fn start_existing(call: &Call, target: &str, stray: Option<&str>) -> Result<Option<u8>, Failure> {
    let request = match stray {
        Some(_) => Request::Info { target: target.to_owned() },
        None => Request::Start { target: target.to_owned(), force: call.flag("force") },
    };
    // Without a record nothing can have that name: no daemon is started for the question.
    let unknown = match call.client.ask(Need::Record, &request) {
        Ok(Some(Reply::Outcomes { outcomes: found, summary: _ }))
            if found.len() == 1 && found[0].code == code::NO_SUCH =>
        {
            Failure::new(code::NO_SUCH, found[0].text.clone())
        }
        Ok(None) => Failure::no_such(target),
        Err(failure) if failure.code == code::NO_SUCH => failure,
        // What the daemon can't read as a target may still be a command line.
        Err(failure) if failure.code == code::USAGE => failure,
        Ok(Some(reply @ Reply::Outcomes { .. })) => return outcomes(&reply).map(Some),
        Ok(Some(Reply::Info(_))) => {
            let stray = stray.unwrap_or_default();
            let text = format!("{stray}: {target} exists already, and this is for a new service");
            return Err(Failure::usage(format!("{text} (try 'opm start {target}')")));
        }
        Ok(Some(_)) => return Err(strange()),
        Err(failure) => return Err(failure),
    };
    match meaning(target) {
        Meaning::All => Ok(Some(code::DONE)),
        Meaning::Services if !Path::new(target).exists() => Err(unknown),
        Meaning::Services | Meaning::Word => Ok(None),
    }
}

/// `seq 1,2` would be a list of the service `seq 1` and the service 2, and start the latter:
/// where an item has a blank in it, list and glob signs belong to a command line.
fn is_plainly_a_line(target: &str) -> bool {
    let mut items = target.split(',').map(str::trim);
    target.contains([',', '*', '?', '[']) && items.any(|item| item.contains(char::is_whitespace))
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// Every service, of which there are none.
    All,
    /// An id, a list or a glob: nothing that could be a program.
    Services,
    /// A name, a file, a program or a command line.
    Word,
}

fn meaning(target: &str) -> Meaning {
    let Ok(parsed) = Target::parse(target) else {
        return Meaning::Word;
    };
    if parsed.parts().iter().all(|part| part.is_all()) {
        Meaning::All
    } else if is_plainly_a_line(target) {
        Meaning::Word
    } else if target.contains([',', '*', '?', '[']) || target.bytes().all(|b| b.is_ascii_digit()) {
        Meaning::Services
    } else {
        Meaning::Word
    }
}

enum Command<'a> {
    /// What stood behind `--`.
    Given(Vec<String>),
    /// Something to look for, and arguments for it.
    Target(&'a str, Vec<String>),
}

fn define(call: &Call, command: Command<'_>) -> Done {
    let cwd = directory(call)?;
    let base = captured();
    let by_hand = call.matches.get_many("env").into_iter().flatten().cloned();
    let env = layered(&cwd, by_hand.collect())?;
    let path = [&env, &base].iter().find_map(|env| {
        env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone())
    });
    let place = Place { cwd, path: path.unwrap_or_else(|| "/usr/bin:/bin".to_owned()) };
    let words = match command {
        Command::Given(words) => {
            if words[0].is_empty() {
                return Err(Failure::usage("the command is empty"));
            }
            place.check(&words[0])?;
            words
        }
        Command::Target(target, rest) => {
            let mut words = place.command(target)?;
            if !rest.is_empty() && words[0] == "/bin/sh" && !target.starts_with("/bin/sh") {
                let text = format!("{target}: a shell line takes no arguments after '--'");
                return Err(Failure::usage(text));
            }
            words.extend(rest);
            words
        }
    };
    let name = match call.matches.get_one::<String>("name") {
        Some(name) => name.clone(),
        None => default_name(&words),
    };
    check_name(&name).map_err(|e| Failure::usage(format!("{e} (try --name)")))?;
    let cwd = place.cwd.into_os_string().into_string();
    let cwd = cwd.map_err(|_| Failure::plain("the working directory's path is not UTF-8"))?;
    let spec = Spec { name, command: words, cwd, env, critical: false, policy: policy(call) };
    spec.check().map_err(Failure::usage)?;
    let force = call.flag("force");
    let request = Request::Define { specs: vec![spec], base, force, keep: false };
    outcomes(&call.client.demand(&request)?)
}

/// The working directory of the new service.
fn directory(call: &Call) -> Result<PathBuf, Failure> {
    let Some(cwd) = call.matches.get_one::<String>("cwd") else {
        return std::env::current_dir()
            .map_err(|e| Failure::plain(format!("the current directory: {}", why(e))));
    };
    let wrong = |reason: String| Failure::plain(format!("{cwd}: {reason}"));
    if cwd.is_empty() {
        return Err(Failure::usage("--cwd: the directory's name is empty"));
    }
    let path = std::path::absolute(cwd).map_err(|e| wrong(why(e)))?;
    let found = std::fs::metadata(&path).map_err(|e| wrong(why(e)))?;
    if !found.is_dir() {
        return Err(wrong("Not a directory".to_owned()));
    }
    rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).map_err(|e| wrong(why(e)))?;
    Ok(path)
}

/// The environment of this command, as every incarnation will see it. `OPM_*` would be the
/// marks of the service that this command was started from.
pub(super) fn captured() -> Env {
    let mut env = Env::new();
    let mut dropped = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), _) if name.starts_with("OPM_") => {}
            (Ok(name), Ok(value)) => env.push((name, value)),
            (Ok(name), Err(_)) => dropped.push(name),
            (Err(name), _) => dropped.push(name.to_string_lossy().into_owned()),
        }
    }
    if !dropped.is_empty() {
        warn(&format!("left out of the environment, not UTF-8: {}", dropped.join(" ")));
    }
    env
}

fn read_up_to(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `.env` of the working directory, then what was given by hand: the later one counts.
pub(super) fn layered(cwd: &Path, by_hand: Env) -> Result<Env, Failure> {
    let path = cwd.join(".env");
    let mut env = Env::new();
    match read_up_to(&path, DOTENV_BYTES_MAX + 1) {
        Ok(bytes) if bytes.len() as u64 > DOTENV_BYTES_MAX => {
            let most = DOTENV_BYTES_MAX >> 20;
            let text = format!("{}: it is over {most} MB", path.display());
            return Err(Failure::plain(text));
        }
        Ok(bytes) => {
            let text = String::from_utf8(bytes)
                .map_err(|_| Failure::plain(format!("{}: not UTF-8 text", path.display())))?;
            let (vars, bad) = dotenv::parse(&text);
            for line in bad {
                warn(&format!("{}: line {line} is not NAME=VALUE, left out", path.display()));
            }
            env = vars;
            // What opm itself is told there is nothing for the service.
            env.retain(|(name, _)| !name.starts_with("OPM_"));
        }
        // A directory of that name is a virtual environment of Python's.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound || path.is_dir() => {}
        Err(e) => warn(&format!("{}: {}, left out", path.display(), why(e))),
    }
    env.extend(by_hand);
    let mut seen = HashSet::new();
    let last: Vec<bool> = env.iter().rev().map(|(name, _)| seen.insert(name.clone())).collect();
    let mut last = last.into_iter().rev();
    env.retain(|_| last.next().unwrap_or(true));
    Ok(env)
}

fn policy(call: &Call) -> Policy {
    let mut policy = Policy::default();
    let matches = &call.matches;
    if call.flag("no-autorestart") {
        policy.restart = Restart::Never;
    }
    if let Some(restart) = matches.get_one::<Restart>("restart") {
        policy.restart = *restart;
    }
    if let Some(most) = matches.get_one::<u32>("max-restarts") {
        policy.max_restarts = *most;
    }
    if let Some(span) = matches.get_one::<u64>("min-uptime") {
        policy.min_uptime = *span;
    }
    if let Some(delay) = matches.get_one::<Delay>("restart-delay") {
        policy.restart_delay = *delay;
    }
    if let Some(signal) = matches.get_one::<Signal>("stop-signal") {
        policy.stop_signal = *signal;
    }
    if let Some(reach) = matches.get_one::<StopReach>("stop-reach") {
        policy.stop_reach = *reach;
    }
    if let Some(span) = matches.get_one::<u64>("stop-timeout") {
        policy.stop_timeout = *span;
    }
    policy
}

pub(super) fn import(call: &Call) -> Done {
    import_file(call, call.text("file"))
}

/// What a process file declares, complete.
pub(super) fn declared(name: &str) -> Result<Vec<Spec>, Failure> {
    let (bytes, label, directory) = read(name)?;
    let mut found = file::parse(&bytes, &label, &directory).map_err(Failure::plain)?;
    for warning in &found.warnings {
        warn(warning);
    }
    for spec in &mut found.specs {
        if !Path::new(&spec.cwd).is_dir() {
            let text = format!("{label}: {}: cwd: no such directory: {}", spec.name, spec.cwd);
            return Err(Failure::plain(text));
        }
        spec.env = layered(Path::new(&spec.cwd), std::mem::take(&mut spec.env))?;
    }
    if found.specs.is_empty() {
        warn(&format!("{label}: no services in it"));
    }
    Ok(found.specs)
}

fn import_file(call: &Call, name: &str) -> Done {
    let specs = declared(name)?;
    if specs.is_empty() {
        return Ok(code::DONE);
    }
    let (force, base) = (call.flag("force"), captured());
    let request = Request::Define { specs, base, force, keep: true };
    outcomes(&call.client.demand(&request)?)
}

/// The file's text, what to call it, and the directory that it lies in.
fn read(name: &str) -> Result<(Vec<u8>, String, PathBuf), Failure> {
    let wrong = |e: std::io::Error| Failure::plain(format!("{name}: {}", why(e)));
    let most = file::FILE_BYTES_MAX as u64 + 1;
    if name == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(wrong)?;
        let directory = std::env::current_dir().map_err(wrong)?;
        return Ok((bytes, "stdin".to_owned(), directory));
    }
    let path = std::path::absolute(name).map_err(wrong)?;
    if path.is_file() {
        foreign::refuse(name)?;
    }
    let bytes = read_up_to(&path, most).map_err(wrong)?;
    let directory = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    Ok((bytes, name.to_owned(), directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_can_be_a_program() {
        for word in ["web", "server.js", "node a.js b*", "a b,c", "./x", "a,,b", "seq 1,2"] {
            assert_eq!(meaning(word), Meaning::Word, "{word}");
        }
        for services in ["7", "web,api", "api-*", "web?", "1, 2"] {
            assert_eq!(meaning(services), Meaning::Services, "{services}");
        }
        assert_eq!(meaning("all"), Meaning::All);
    }
}
