//! `start` and `import`: which service is meant, or which one is to be made.
//!
//! A service that exists comes first; only what names none, or is given a name, is looked for
//! among files and programs.
use super::ask::{outcomes, strange};
use super::client::Need;
use super::environment::{
    absolute, captured, current_directory, dotenv_of, last_of_each, package_name, read_up_to,
};
use super::output::{Done, Failure, no_such, warn, why};
use super::program::Place;
use super::{Call, environment, foreign};
use crate::process::command::{clean_name, default_name, pattern_of_argv};
use crate::service::context::search_path;
use crate::service::name::check_name;
use crate::service::options::{self, OPTIONS};
use crate::service::selector::Selector;
use crate::service::spec::{Restart, Spec};
use crate::wire::{Reply, Request, Status, code, file};
use clap::parser::ValueSource;
use std::io::Read;
use std::path::{Path, PathBuf};

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
    let shaping = shaping(call);
    if call.matches.get_many::<String>("target").is_some_and(|words| words.len() > 1) {
        return start_several(call, shaping.is_some() || !words.is_empty());
    }
    if target.ends_with(".json") && Path::new(target).is_file() {
        if call.flag("update-env") {
            let text = "--update-env: not with a process file (name the services)";
            return Err(Failure::usage(text));
        }
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
    let exact = is_plainly_a_line(target).then(|| Selector::exactly(target));
    let named = exact.as_deref().unwrap_or(target);
    // What has a name of its own is to be a new service: npm may be one already.
    let is_new = call.matches.contains_id("name") && is_command(call, target);
    if !(is_new || exact.is_some() && target.contains(',')) {
        if stray.is_none() {
            update_those_down(call, named)?;
        }
        if let Some(done) = start_existing(call, named, stray.as_deref())? {
            return Ok(done);
        }
    }
    define(call, Command::Target(target, words))
}

/// What `start` takes for a service that exists, too.
const FOR_ALL: [&str; 6] = ["target", "words", "update-env", "force", "no-daemon-start", "help"];

/// The first option that shapes a new service, and means nothing for one that exists.
fn shaping(call: &Call) -> Option<&str> {
    let matches = &call.matches;
    let is_given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut given = matches.ids().map(|id| id.as_str()).filter(is_given);
    let id = given.find(|id| !FOR_ALL.contains(id))?;
    Some(options::find(id).map_or(id, |opt| opt.flag))
}

/// With `--update-env`: what is online goes on as it is.
fn update_those_down(call: &Call, target: &str) -> Result<(), Failure> {
    if !call.flag("update-env") {
        return Ok(());
    }
    environment::update(call, target, |row| {
        let is_down = row.status != Status::Online;
        if !is_down {
            let advice = format!("try 'opm restart {} --update-env'", row.name);
            warn(&format!("{}: goes on in its old environment ({advice})", row.name));
        }
        is_down
    })
}

/// Several words are services. Where none of them is, or with what only a new service can have
/// (`shaped`), they were meant as a command.
fn start_several(call: &Call, shaped: bool) -> Done {
    let target = call.target();
    if !shaped {
        update_those_down(call, &target)?;
    }
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
        Ok(None) => no_such(target),
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
    let Ok(parsed) = Selector::parse(target) else {
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

/// Package managers that run what a `package.json` says: their own name would say nothing.
const PACKAGE_RUNNERS: &[&str] = &["npm", "pnpm", "yarn", "bun"];

/// The name of a service that was given none.
pub(super) fn name_of(words: &[String], cwd: &Path) -> String {
    let runs_package = PACKAGE_RUNNERS.contains(&pattern_of_argv(words).as_str());
    let package = if runs_package { package_name(cwd) } else { None };
    package.map_or_else(|| default_name(words), |name| clean_name(&name))
}

enum Command<'a> {
    /// What stood behind `--`.
    Given(Vec<String>),
    /// Something to look for, and arguments for it.
    Target(&'a str, Vec<String>),
}

/// Whether `target` can be run in the directory of the new service.
fn is_command(call: &Call, target: &str) -> bool {
    let Ok(cwd) = directory(call) else { return false };
    let path = search_path(&[&captured().env]).to_owned();
    Place { cwd, path }.command(target).is_ok()
}

fn define(call: &Call, command: Command<'_>) -> Done {
    let cwd = directory(call)?;
    let base = Box::new(captured());
    let by_hand = call.matches.get_many("env").into_iter().flatten().cloned();
    let (dotenv, env) = (dotenv_of(&cwd)?, last_of_each(by_hand.collect()));
    let path = search_path(&[&env, &dotenv, &base.env]).to_owned();
    let place = Place { cwd, path };
    let words = match command {
        Command::Given(words) => {
            if words[0].is_empty() {
                return Err(Failure::usage("the command is empty"));
            }
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
    place.check(&words[0])?;
    let name = match call.matches.get_one::<String>("name") {
        Some(name) => name.clone(),
        None => name_of(&words, &place.cwd),
    };
    check_name(&name).map_err(|e| Failure::usage(format!("{e} (try --name)")))?;
    let cwd = text_of(place.cwd)?;
    let mut spec = Spec { env, dotenv, ..Spec::new(name, words, cwd) };
    set_options(call, &mut spec)?;
    spec.check().map_err(Failure::usage)?;
    let force = call.flag("force");
    let request = Request::Define { specs: vec![spec], base, force, keep: false };
    outcomes(&call.client.demand(&request)?)
}

/// A directory's path, as it is kept.
pub(super) fn text_of(cwd: PathBuf) -> Result<String, Failure> {
    let text = cwd.into_os_string().into_string();
    text.map_err(|_| Failure::plain("the working directory's path is not UTF-8"))
}

/// The working directory of the new service.
fn directory(call: &Call) -> Result<PathBuf, Failure> {
    let Some(cwd) = call.matches.get_one::<String>("cwd") else {
        return current_directory()
            .map_err(|e| Failure::plain(format!("the current directory: {}", why(e))));
    };
    let wrong = |reason: String| Failure::plain(format!("{cwd}: {reason}"));
    if cwd.is_empty() {
        return Err(Failure::usage("--cwd: the directory's name is empty"));
    }
    let path = absolute(Path::new(cwd)).map_err(|e| wrong(why(e)))?;
    let found = std::fs::metadata(&path).map_err(|e| wrong(why(e)))?;
    if !found.is_dir() {
        return Err(wrong("Not a directory".to_owned()));
    }
    rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).map_err(|e| wrong(why(e)))?;
    Ok(path)
}

/// The options of the table that were given.
fn set_options(call: &Call, spec: &mut Spec) -> Result<(), Failure> {
    if call.flag("no-autorestart") {
        spec.policy.restart = Restart::Never;
    }
    for opt in OPTIONS.iter().filter(|opt| opt.is_on_command_line()) {
        let text = match opt.value {
            "" if call.flag(opt.key) => "true",
            "" => continue,
            _ => call.text(opt.key),
        };
        if call.matches.contains_id(opt.key) {
            opt.parse(spec, text).map_err(Failure::usage)?;
        }
    }
    Ok(())
}

pub(super) fn import(call: &Call) -> Done {
    import_file(call, call.text("file"))
}

/// What a process file declares, complete, and what the file is called.
pub(super) fn declared(name: &str) -> Result<(Vec<Spec>, String), Failure> {
    let (bytes, label, directory) = read(name)?;
    let found = file::parse(&bytes, &label, &directory, &name_of);
    let mut found = found.map_err(Failure::plain)?;
    for warning in &found.warnings {
        warn(warning);
    }
    for spec in &mut found.specs {
        if !Path::new(&spec.cwd).is_dir() {
            let text = format!("{label}: {}: cwd: no such directory: {}", spec.name, spec.cwd);
            return Err(Failure::plain(text));
        }
        spec.dotenv = dotenv_of(Path::new(&spec.cwd))?;
        spec.check().map_err(|reason| Failure::plain(format!("{label}: {reason}")))?;
    }
    if found.specs.is_empty() {
        warn(&format!("{label}: no services in it"));
    }
    Ok((found.specs, label))
}

/// All or nothing: what can't be executed is found out before anything is kept.
fn import_file(call: &Call, name: &str) -> Done {
    let (specs, label) = declared(name)?;
    let base = Box::new(captured());
    for spec in &specs {
        let path = search_path(&[&spec.env, &spec.dotenv, &base.env]).to_owned();
        let place = Place { cwd: PathBuf::from(&spec.cwd), path };
        place.check(&spec.command[0]).map_err(|failure| {
            Failure::plain(format!("{label}: {}: command: {}", spec.name, failure.text))
        })?;
    }
    if specs.is_empty() {
        return Ok(code::DONE);
    }
    let force = call.flag("force");
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
        let directory = current_directory().map_err(wrong)?;
        return Ok((bytes, "stdin".to_owned(), directory));
    }
    let path = absolute(Path::new(name)).map_err(wrong)?;
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
