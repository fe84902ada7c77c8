//! `start` and `import`: which service is meant, or which one is to be made.
//!
//! A service that exists comes first; only what names none, or is given a name, is looked for
//! among files and programs.
use super::client::Need;
use super::environment::{absolute, captured, current_directory, dotenv_of, package_name};
use super::output::{Done, Failure, failed, no_such, report, warn};
use super::program::Place;
use super::request::{Call, act, outcomes, strange};
use super::{environment, file, jlist, pm2, services};
use crate::process::command::{clean_name, default_name, pattern_of_argv};
use crate::process::shell;
use crate::service::context::{Context, search_path};
use crate::service::instances::{Instances, expand};
use crate::service::listen::Listen;
use crate::service::name::check_name;
use crate::service::options::{self, BETWEEN_WORDS, OPTIONS};
use crate::service::probe::Sign;
use crate::service::selector::Selector;
use crate::service::spec::{Change, Env, Held, Spec, is_variable_name, last_of_each};
use crate::wire::file::pm2::{PM2S, SHARE, defaults, is_node};
use crate::wire::{Existing, Info, Reply, Request, Scale, Status, code};
use clap::ArgMatches;
use clap::parser::ValueSource;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

pub(super) fn start(call: &Call) -> Done {
    let words = |name| call.matches.get_many::<String>(name).into_iter().flatten().cloned();
    let targets: Vec<String> = words("target").collect();
    let words: Vec<String> = words("words").collect();
    // What only a new service can have.
    let stray = shaping(call).or((!words.is_empty()).then(|| "--".to_owned()));
    if !matches!(&targets[..], [file] if file::is_one(file)) {
        file::only_of_file(call)?;
    }
    match &targets[..] {
        [] if words.is_empty() => Err(Failure::usage("missing TARGET (try 'opm start --help')")),
        [] => define(call, Command::Given(words)),
        [first, ..] if first.is_empty() => {
            Err(Failure::usage("the target is empty (try 'opm start --help')"))
        }
        [file] if file::is_one(file) => match stray {
            Some(stray) => Err(Failure::usage(format!(
                "{stray}: not with a process file (write it into {file})"
            ))),
            None => file::start(call, file),
        },
        [target] => start_one(call, target, words, stray.as_deref()),
        several if call.client.is_pm2 => {
            let mut worst = code::DONE;
            for target in several {
                let done = start_one(call, target, words.clone(), stray.as_deref());
                worst = worst.max(done.unwrap_or_else(|failure| report(&failure)));
            }
            Ok(worst)
        }
        several => start_several(call, several, stray.is_some()),
    }
}

fn start_one(call: &Call, target: &str, words: Vec<String>, stray: Option<&str>) -> Done {
    // A service may be called like a line with a glob in it; of a list no item is.
    let exact = is_plainly_a_line(target).then(|| Selector::exactly(target));
    let named = exact.as_deref().unwrap_or(target);
    // What has a name of its own is to be a new service: npm may be one already.
    let can_run = |cwd| Place::own(cwd).command(target).is_ok();
    let is_new = call.matches.contains_id("name") && directory(call).is_ok_and(can_run);
    if !(is_new || exact.is_some() && target.contains(',')) {
        if stray.is_none() {
            update_those_down(call, named)?;
        }
        if let Some(done) = start_existing(call, named, stray)? {
            return Ok(done);
        }
    }
    define(call, Command::Target(target, words))
}

/// What `start` takes for a service that exists, too.
const FOR_ALL: &str = "target words update-env reset-env force only wait no-daemon-start help";

/// The first option that shapes a new service, and means nothing for one that exists.
fn shaping(call: &Call) -> Option<String> {
    let matches = &call.matches;
    let is_given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut given = matches.ids().map(|id| id.as_str()).filter(is_given);
    let is_set = |id: &str| id == "env" && file::Choice::of(matches).env.is_some();
    let id = given.find(|id| !FOR_ALL.split(' ').any(|known| known == *id) && !is_set(id))?;
    Some(format!("--{}", options::find(id).map_or(id, |opt| opt.flag)))
}

/// With `--update-env`: what is online goes on as it is.
fn update_those_down(call: &Call, target: &str) -> Result<(), Failure> {
    environment::reset(call, target)?;
    environment::update(call, target, |row| {
        let is_down = row.status != Status::Online;
        if !is_down {
            let advice = format!("try 'opm restart {} --update-env'", row.name);
            warn(&format!("{}: goes on in its old environment ({advice})", row.name));
        }
        is_down
    })
}

/// What asks to make them up.
fn made_up(call: &Call, target: &str) -> Request {
    let (force, wait) = (call.flag("force"), call.flag("wait"));
    Request::Start { target: target.to_owned(), force, wait }
}

/// Several services; a command, if none of the words is one or with what is only of a new service.
fn start_several(call: &Call, words: &[String], shaped: bool) -> Done {
    let target = words.join(",");
    if !shaped {
        update_those_down(call, &target)?;
    }
    let request = made_up(call, &target);
    let reply = if shaped { None } else { call.client.request(Need::Record, &request)? };
    match reply {
        Some(Reply::Outcomes { outcomes: found, .. })
            if found.iter().all(|one| one.code == code::NO_SUCH) => {}
        Some(reply) => return outcomes(&reply),
        None => {}
    }
    let line = words.join(" ");
    let text = format!("{line}: no such services (put -- before a command: opm start -- {line})");
    Err(Failure::new(if shaped { code::USAGE } else { code::NO_SUCH }, text))
}

/// Starts the services that `target` names; `None` if it names none and may be something
/// else. `stray` is an option that only a new service can have.
fn start_existing(call: &Call, target: &str, stray: Option<&str>) -> Result<Option<u8>, Failure> {
    let request = match stray {
        Some(_) => Request::Info { target: target.to_owned() },
        // To start what runs is to restart it, to PM2.
        None if call.client.is_pm2 && pm2::is_up(&call.client, target)? => {
            Request::Restart { target: target.to_owned() }
        }
        None => made_up(call, target),
    };
    // Without a record nothing can have that name: no daemon is started for the question.
    let unknown = match call.client.request(Need::Record, &request) {
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
        Ok(Some(Reply::Info(_))) if call.client.is_pm2 => {
            let target = change(call)?;
            return outcomes(&call.client.demand(&Request::Restart { target })?).map(Some);
        }
        Ok(Some(Reply::Info(_))) => {
            let stray = stray.unwrap_or_default();
            let text = format!("{stray}: {target} exists already, and this is for a new service");
            return Err(Failure::usage(format!("{text} (try 'opm start {target}')")));
        }
        Ok(Some(_)) => return Err(strange()),
        Err(failure) => return Err(failure),
    };
    let parsed = Selector::parse(target);
    if parsed.is_ok_and(|parsed| parsed.parts().iter().all(|part| part.is_all())) {
        // Every service, of which there are none.
        return Ok(Some(code::DONE));
    }
    if names_services(target) && !Path::new(target).exists() {
        return Err(unknown);
    }
    Ok(None)
}

/// `seq 1,2` would be a list of the service `seq 1` and the service 2, and start the latter:
/// where an item has a blank in it, list and glob signs belong to a command line.
fn is_plainly_a_line(target: &str) -> bool {
    let mut items = target.split(',').map(str::trim);
    Selector::has_signs(target) && items.any(|item| item.contains(char::is_whitespace))
}

/// Whether it is an id, a list or a glob: nothing that could be a program.
fn names_services(target: &str) -> bool {
    let is_id = target.bytes().all(|b| b.is_ascii_digit());
    Selector::parse(target).is_ok()
        && !is_plainly_a_line(target)
        && (is_id || Selector::has_signs(target))
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

/// Where this command finds what it is to run itself.
pub(super) fn place() -> Result<Place, Failure> {
    current_directory().map(Place::own).map_err(failed("the current directory"))
}

fn define(call: &Call, command: Command<'_>) -> Done {
    let cwd = directory(call)?;
    let base = Box::new(captured());
    let files = given_env_files(call)?;
    let (dotenv, env) = (dotenv_of(&cwd, &files)?, given_env(&call.matches)?);
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
            let mut words = runnable(call, &place, target)?;
            if !rest.is_empty() && words[0] == "/bin/sh" && !target.starts_with("/bin/sh") {
                let text = format!("{target}: a shell line takes no arguments after '--'");
                return Err(Failure::usage(text));
            }
            words.extend(rest);
            words
        }
    };
    let script = words.clone();
    let words = interpreted(call, words)?;
    place.check(&words[0])?;
    let mut name = match call.matches.get_one::<String>("name") {
        Some(name) => name.clone(),
        None => name_of(&script, &place.cwd),
    };
    let (target, force) = (Selector::exactly(&name), call.flag("force"));
    if call.client.is_pm2 && !force {
        if pm2::are_down(&pm2::chosen(&call.client, &target)?, &words, &place.cwd) {
            return start_anew(call, target, env);
        }
    } else if call.client.is_pm2 {
        let there = services::specs(call, target).unwrap_or_default();
        if there.first().is_some_and(|spec| spec.command == words) {
            let count = call.matches.get_one::<String>("instances");
            let count = count.and_then(|text| Instances::parse(text).ok());
            let to = Scale::More(count.map_or(1, |count| count.count(processors())));
            return outcomes(&call.client.demand(&Request::Scale { group: name, to })?);
        }
        name = pm2::another_name(&call.client, name)?;
    }
    check_name(&name).map_err(|e| Failure::usage(format!("{e} (try --name)")))?;
    let cwd = text_of(place.cwd)?;
    let mut spec = Spec { env, dotenv: dotenv.into(), ..Spec::new(name, words, cwd) };
    let change = Change { options: given_options(call)?, ..Change::default() };
    spec.origin.of = file::COMMAND_LINE.to_owned();
    if call.client.is_pm2 {
        spec.origin.of.insert_str(0, PM2S);
        defaults(&mut spec);
    }
    let mut spec = change.apply(&spec).map_err(Failure::usage)?;
    if call.client.is_pm2 {
        share_port(&mut spec, &base);
    }
    let specs = expand(spec, processors);
    specs.iter().try_for_each(Spec::check).map_err(Failure::usage)?;
    file::see_to_paths(&specs)?;
    let wait = waits(call, &specs);
    let request = Request::Define { specs, base, force, existing: Existing::Refused, wait };
    outcomes(&call.client.demand(&request)?)
}

/// Starts services that are down, with what else is said of them.
fn start_anew(call: &Call, target: String, env: Env) -> Done {
    let mut options = given_options(call)?;
    options.retain(|(key, _)| key != "instances");
    let change = Box::new(Change { options, env, ..Change::default() });
    if *change != Change::default() {
        let adjust = Request::Adjust { target: target.clone(), change, now: false };
        services::asked(call, adjust)?;
    }
    outcomes(&call.client.demand(&made_up(call, &target))?)
}

/// What PM2's cluster is for: instances of a program of node's share the port that is named.
fn share_port(spec: &mut Spec, base: &Context) {
    let Held { instances, listen, port_range, increment_var, .. } = &*spec.held;
    let is_apart = !listen.is_empty() || port_range.is_some() || increment_var.is_some();
    if is_apart || !is_node(&spec.command[0]) || !instances.is_some_and(Instances::is_several) {
        return;
    }
    let mut all = [&base.env, &spec.dotenv, &spec.env].into_iter().flatten();
    match all.rfind(|(name, _)| name == "PORT").and_then(|(_, it)| Listen::parse(it).ok()) {
        Some(port) => spec.held.listen = vec![port],
        None => warn(&format!("{}: {SHARE}", spec.name)),
    }
}

/// Whether the answer comes when they are ready: PM2 waits for those that will say so.
pub(super) fn waits(call: &Call, specs: &[Spec]) -> bool {
    let says_so = |spec: &Spec| spec.checks.ready != Sign::Exec;
    call.has("wait") || call.client.is_pm2 && specs.iter().any(says_so)
}

/// The words of `target`, which an interpreter that was given may stand before.
fn runnable(call: &Call, place: &Place, target: &str) -> Result<Vec<String>, Failure> {
    match call.matches.get_one::<String>("interpreter") {
        Some(interpreter) => place.interpreted(target, interpreter),
        None => place.command(target),
    }
}

/// A command behind the interpreter that was given.
fn interpreted(call: &Call, words: Vec<String>) -> Result<Vec<String>, Failure> {
    let more = call.matches.get_one::<String>("interpreter-args");
    match call.matches.get_one::<String>("interpreter") {
        None if more.is_some() => {
            Err(Failure::usage("--interpreter-args: only with --interpreter"))
        }
        Some(interpreter) if interpreter.is_empty() => {
            Err(Failure::usage("--interpreter: expected a program, or none"))
        }
        Some(interpreter) if interpreter != "none" => {
            let more = more.map_or(Ok(Vec::new()), |line| shell::argv(line));
            let more = more.map_err(|e| Failure::usage(format!("--interpreter-args: {e}")))?;
            Ok([vec![interpreter.clone()], more, words].concat())
        }
        _ => Ok(words),
    }
}

/// How many this machine has for us.
pub(super) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX))
}

/// A directory's path, as it is kept.
pub(super) fn text_of(cwd: PathBuf) -> Result<String, Failure> {
    let text = cwd.into_os_string().into_string();
    text.map_err(|_| Failure::plain("the working directory's path is not UTF-8"))
}

fn directory(call: &Call) -> Result<PathBuf, Failure> {
    let Some(cwd) = call.matches.get_one::<String>("cwd") else {
        return current_directory().map_err(failed("the current directory"));
    };
    if cwd.is_empty() {
        return Err(Failure::usage("--cwd: the directory's name is empty"));
    }
    let path = absolute(Path::new(cwd)).map_err(failed(cwd))?;
    if !std::fs::metadata(&path).map_err(failed(cwd))?.is_dir() {
        return Err(failed(cwd)(Errno::NOTDIR));
    }
    rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).map_err(failed(cwd))?;
    Ok(path)
}

/// The options of the table that were given: key and word.
fn given_options(call: &Call) -> Result<Vec<(String, String)>, Failure> {
    let files = given_env_files(call)?.join(&BETWEEN_WORDS.to_string());
    let never = call.flag("no-autorestart").then(|| ("restart".to_owned(), "never".to_owned()));
    let on_line = OPTIONS.iter().filter(|opt| opt.is_on_command_line());
    let given = on_line.filter_map(|opt| {
        let text = match opt.value {
            "" => call.flag(opt.key).then(|| "true".to_owned()),
            _ if opt.key == "env_file" => Some(files.clone()).filter(|files| !files.is_empty()),
            _ => {
                let words = call.matches.get_many::<String>(opt.key);
                let words = words.map(|words| words.cloned().collect::<Vec<_>>());
                words.map(|words| words.join(&BETWEEN_WORDS.to_string()))
            }
        };
        text.map(|text| (opt.key.to_owned(), text))
    });
    let backoff = call.matches.get_one::<String>("exp-backoff").cloned();
    let backoff = backoff.map(|range| ("restart_delay".to_owned(), range));
    Ok(never.into_iter().chain(backoff).chain(given).collect())
}

/// The paths of the files that variables are to be read from, as they are kept.
fn given_env_files(call: &Call) -> Result<Vec<String>, Failure> {
    let files = call.matches.get_many::<String>("env_file").into_iter().flatten();
    files.map(|file| text_of(absolute(Path::new(file)).map_err(failed(file))?)).collect()
}

pub(super) fn given_env(matches: &ArgMatches) -> Result<Env, Failure> {
    let given = matches.get_many::<String>("env").into_iter().flatten();
    let env = given.map(|text| {
        let pair = text.split_once('=').filter(|(name, _)| is_variable_name(name));
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let expected = "expected NAME=VALUE (NAME alone is for a PM2 file)";
        pair.ok_or_else(|| Failure::usage(format!("bad value '{text}' for '--env': {expected}")))
    });
    Ok(last_of_each(env.collect::<Result<_, _>>()?))
}

pub(super) fn adjust(call: &Call) -> Done {
    let change = Box::new(changes(call)?);
    if *change == Change::default() {
        return Err(Failure::usage("nothing to change (try 'opm adjust --help')"));
    }
    let now = call.flag("now");
    act(call, |target| Request::Adjust { target, change, now })
}

/// What a restart that is also an `adjust` changes first. The target by the name that it has then.
pub(super) fn change(call: &Call) -> Result<String, Failure> {
    let (change, target) = (Box::new(changes(call)?), call.target());
    if *change == Change::default() {
        return Ok(target);
    }
    let renamed = change.name.as_deref().map(Selector::exactly);
    if renamed.is_some() {
        // What lives is told from others by its name.
        let dependants = false;
        services::asked(call, Request::Stop { target: target.clone(), dependants })?;
    }
    services::asked(call, Request::Adjust { target: target.clone(), change, now: false })?;
    Ok(renamed.unwrap_or(target))
}

/// `restart api --env production`, of which PM2 has the set by heart.
fn is_named_set(call: &Call) -> bool {
    let set = file::Choice::of(&call.matches).env.filter(|_| call.client.is_pm2);
    set.is_some_and(|set| {
        warn(&format!("--env {set}: left out; env_{set} stands in a process file"));
        true
    })
}

/// What the options say that is to be otherwise.
fn changes(call: &Call) -> Result<Change, Failure> {
    let has = |id: &str| call.matches.try_contains_id(id).unwrap_or(false);
    let reset = call.matches.try_get_one::<Vec<String>>("reset");
    let mut change = Change {
        name: call.matches.get_one::<String>("name").cloned(),
        reset_env: call.flag("reset-env"),
        reset: reset.ok().flatten().cloned().unwrap_or_default(),
        env: if is_named_set(call) { Env::new() } else { given_env(&call.matches)? },
        options: given_options(call)?,
        ..Change::default()
    };
    if ["name", "command", "cwd", "env_file", "interpreter"].iter().any(|id| has(id)) {
        let infos = services::infos(call)?.0;
        let [info, others @ ..] = &infos[..] else { return Err(strange()) };
        let is_other = |other: &Info| other.row.cwd != info.row.cwd;
        if !others.is_empty() && ["name", "cwd", "env_file"].iter().any(|id| has(id))
            || others.iter().any(is_other)
        {
            let text = "--name, --command, --cwd and --env-file are for one service";
            return Err(Failure::usage(text));
        }
        let (moves, files) = (has("cwd"), given_env_files(call)?);
        let cwd = if moves { directory(call)? } else { PathBuf::from(&info.row.cwd) };
        if moves || !files.is_empty() {
            let files = if files.is_empty() { environment::env_files(info) } else { files };
            change.cwd = Some((text_of(cwd.clone())?, dotenv_of(&cwd, &files)?));
        }
        let place = Place::own(cwd);
        let command = match has("command") {
            true => runnable(call, &place, call.text("command"))?,
            false if has("interpreter") => {
                // Another one for the same script.
                let words = shell::split(&info.row.command).unwrap_or_default();
                words[jlist::script_at(&words).unwrap_or(0)..].to_vec()
            }
            false => return Ok(change),
        };
        change.command = interpreted(call, command)?;
        place.check(&change.command[0])?;
    } else if has("interpreter-args") {
        interpreted(call, Vec::new())?;
    }
    Ok(change)
}

#[cfg(test)]
#[path = "../../tests/inner/cli_start.rs"]
mod tests;
