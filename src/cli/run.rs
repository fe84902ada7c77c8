//! What `opm run` is asked to do.
use super::environment::{absolute, captured, current_directory, dotenv_of};
use super::file::{self, Choice};
use super::output::Failure;
use super::{commands, home, pm2, start, usage};
use crate::run::options::{Options, Prefix, STOP_TIMEOUT_MS, Watched};
use crate::service::name::check_name;
use crate::service::spec::{Restart, Spec};
use crate::service::units::Span;
use crate::wire::file::pm2::defaults;
use clap::ArgMatches;
use std::ffi::OsString;
use std::path::Path;

/// Of [`OPTIONS`] those that a process file says itself.
const OF_COMMAND: [&str; 3] = ["name", "restart", "env"];
/// All that have a value.
const OPTIONS: [&str; 6] = ["name", "restart", "env", "only", "prefix", "stop-timeout"];
const WATCH: &str = "watch-file";
const SWITCHES: [&str; 2] = ["quiet", WATCH];

/// Understands `words`, those after `run`. `is_pm2`: a command gets what PM2 would give it.
pub(super) fn options(is_pm2: bool, words: &[OsString]) -> Result<Options, Failure> {
    let matches = parse(words)?;
    let base = captured();
    let homes = home::for_run()?.into_iter();
    let homes = homes.map(|home| home.into_os_string().into_string()).collect::<Result<_, _>>();
    let homes = homes.map_err(|_| Failure::usage("the home's path is not UTF-8"))?;
    let mut words = ["opm", "run"].map(str::to_owned).to_vec();
    words.extend(given(&matches));
    let mut watched = None;
    let declared = match matches.get_one::<String>("file") {
        Some(file) => {
            let path = absolute(Path::new(file)).map_err(|e| Failure::plain(e.to_string()))?;
            // Before it is read.
            watched = matches.get_flag(WATCH).then(|| Watched::new(path.clone()));
            words.push(path.to_string_lossy().into_owned());
            let choice = Choice::of(&matches);
            file::declared(file, &choice, base.clone()).map(|declared| declared.specs)
        }
        None => {
            let command = matches.get_many::<String>("words").into_iter().flatten();
            let command: Vec<String> = command.cloned().collect();
            if is_pm2 {
                words = vec![pm2::RUNTIMES[0].to_owned()];
                words.extend(given(&matches));
            }
            words.push("--".to_owned());
            words.extend(command.iter().cloned());
            single(&matches, command, is_pm2).map(|spec| vec![spec])
        }
    };
    // What is left running when a file becomes empty must not lose its PID 1.
    let declared = declared.and_then(|specs| match specs.is_empty() {
        true => Err(Failure::plain("nothing to run")),
        false => Ok(specs),
    });
    let prefix = matches.get_one::<Prefix>("prefix").copied();
    let stop_timeout = matches.get_one::<Span>("stop-timeout").map(|span| span.ms);
    let stop_timeout_ms = stop_timeout.unwrap_or(STOP_TIMEOUT_MS);
    let quiet = matches.get_flag("quiet");
    let directory = current_directory().ok().and_then(|it| it.into_os_string().into_string().ok());
    Ok(Options { homes, declared, base, prefix, stop_timeout_ms, quiet, watched, words, directory })
}

fn parse(words: &[OsString]) -> Result<ArgMatches, Failure> {
    let missing = || Failure::usage("missing FILE or -- COMMAND (try 'opm run --help')");
    let entry = commands::find("run").ok_or_else(missing)?;
    let matches = usage::parse(entry, words.to_vec())?;
    match (matches.get_one::<String>("file"), matches.contains_id("words")) {
        (None, false) => Err(missing()),
        (Some(_), true) => {
            let text = "FILE and -- COMMAND exclude each other (try 'opm run --help')";
            Err(Failure::usage(text))
        }
        (None, true) if matches.get_flag(WATCH) => {
            Err(Failure::usage("--watch-file: only with a process file"))
        }
        (None, true) => Ok(matches),
        (Some(file), false) => {
            let is_set = |name: &str| name == "env" && Choice::of(&matches).env.is_some();
            let is_stray = |name: &&str| matches.contains_id(name) && !is_set(name);
            match OF_COMMAND.into_iter().find(is_stray) {
                None => Ok(matches),
                Some(stray) => Err(Failure::usage(format!(
                    "--{stray}: not with a process file (write it into {file})"
                ))),
            }
        }
    }
}

/// The options as they were given: later images of this process are asked with them.
fn given(matches: &ArgMatches) -> impl Iterator<Item = String> {
    let switches = SWITCHES.into_iter().filter(|name| matches.get_flag(name));
    switches.map(|name| format!("--{name}")).chain(OPTIONS.into_iter().flat_map(|name| {
        let values = matches.get_raw(name).into_iter().flatten();
        values.map(move |value| format!("--{name}={}", value.to_string_lossy()))
    }))
}

/// The one service of `opm run -- COMMAND`.
fn single(matches: &ArgMatches, command: Vec<String>, is_pm2: bool) -> Result<Spec, Failure> {
    if command[0].is_empty() {
        return Err(Failure::usage("the command is empty"));
    }
    let cwd = current_directory().unwrap_or_else(|_| "/".into());
    let name = matches.get_one::<String>("name").cloned();
    let name = name.unwrap_or_else(|| start::name_of(&command, &cwd));
    check_name(&name).map_err(|e| Failure::usage(format!("{e} (try --name)")))?;
    let (dotenv, env) = (dotenv_of(&cwd, &[])?, start::given_env(matches)?);
    let cwd = start::text_of(cwd)?;
    let mut spec = Spec { env, dotenv: dotenv.into(), ..Spec::new(name, command, cwd) };
    if is_pm2 {
        defaults(&mut spec);
    }
    if let Some(restart) = matches.get_one::<Restart>("restart") {
        spec.policy.restart = *restart;
    }
    spec.origin.of = file::COMMAND_LINE.to_owned();
    spec.check().map_err(Failure::usage)?;
    Ok(spec)
}

#[cfg(test)]
#[path = "../../tests/inner/cli_run.rs"]
mod tests;
