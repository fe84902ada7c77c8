//! The `opm` command: asks the daemon, and says what it answered.
//!
//! Never starts, signals or reaps a service itself: only the daemon does. The syntax is in
//! [`commands`], the texts in `render`, and the file formats in `wire`.
mod apply;
mod args;
mod client;
pub mod commands;
mod connection;
mod daemon;
mod dotenv;
mod environment;
mod file;
mod follow;
mod foreign;
mod help;
mod holder;
mod home;
mod jlist;
mod launch;
mod logs;
mod output;
mod pm2;
mod poll;
mod program;
mod render;
mod request;
mod run;
mod services;
mod setup;
mod start;
mod table;
mod usage;
mod why;

use client::Client;
use output::{Done, Failure, print, report, write};
use request::Call;
use std::ffi::OsString;
use std::path::PathBuf;

/// Does what `words` ask for; `program` is the name that it was called by. Returns the exit code.
pub fn main(program: &str, words: Vec<OsString>) -> u8 {
    let is_pm2 = pm2::is_called(program);
    let code = run(is_pm2, words).unwrap_or_else(|failure| report(&failure));
    if is_pm2 { pm2::exit_code(code) } else { code }
}

/// Whether a program that is called so is `opm run`.
pub fn is_runtime(program: &str) -> bool {
    pm2::is_runtime(program)
}

fn run(is_pm2: bool, words: Vec<OsString>) -> Done {
    let mut may_start = true;
    if is_pm2 && pm2::is_rotation(&words) {
        return pm2::rotation();
    }
    let mut words = pm2::translated(is_pm2, words).into_iter();
    let name = loop {
        let Some(word) = words.next() else {
            return Err(Failure::usage("no command (try 'opm --help')"));
        };
        match word.to_str() {
            Some("--no-daemon-start") => may_start = false,
            Some("--help" | "-h") => return overview(),
            Some("--version" | "-V" | "-v") => return version(),
            Some(option) if option.starts_with('-') => {
                let text = format!("unknown option '{option}' (try 'opm --help')");
                return Err(Failure::usage(text));
            }
            _ => break word.to_string_lossy().into_owned(),
        }
    };
    let mut words: Vec<OsString> = words.collect();
    let name = match (name.as_str(), words.first()) {
        ("help", None) => return overview(),
        ("version", None) => return version(),
        ("help", Some(_)) => {
            let asked = words.remove(0).to_string_lossy().into_owned();
            words = vec!["--help".into()];
            asked
        }
        _ => name,
    };
    let entry = commands::find(&name).ok_or_else(|| unknown(&name))?;
    let client = Client { home: home::find()?, may_start, is_pm2 };
    let words = pm2::of_files(entry.name, words)?;
    let words = match entry.name {
        "stop" if is_pm2 && name == "kill" && words.is_empty() => return pm2::kill(&client),
        "stop" | "restart" | "remove" | "reset" | "info" => pm2::of_scripts(&client, words)?,
        _ => words,
    };
    let matches = match usage::parse(entry, words) {
        Ok(matches) => matches,
        Err(Ok(help)) => return write(help.as_bytes()).map(|()| 0),
        Err(Err(failure)) => return Err(failure),
    };
    let may_start = may_start && !matches.get_flag("no-daemon-start");
    let client = Client { may_start, ..client };
    home::point_to_callers(&client.home);
    entry.run(&Call { matches, client })
}

fn overview() -> Done {
    write(usage::overview().as_bytes()).map(|()| 0)
}

fn version() -> Done {
    print(concat!("opm ", env!("CARGO_PKG_VERSION"))).map(|()| 0)
}

fn unknown(name: &str) -> Failure {
    let advice = match (usage::same_elsewhere(name), usage::nearest(name)) {
        (Some(same), _) => same.to_owned(),
        (None, Some(near)) => format!("did you mean '{near}'?"),
        (None, None) => "try 'opm --help'".to_owned(),
    };
    Failure::usage(format!("unknown command '{name}' ({advice})"))
}

/// What `opm run` is asked to do. `words` are those after `run`, or after the name `pm2-runtime`
/// (`is_pm2`).
///
/// # Errors
/// The exit code, once help or the reason has been given.
pub fn run_options(is_pm2: bool, words: &[OsString]) -> Result<crate::run::options::Options, u8> {
    let words = if is_pm2 { pm2::runtime(words) } else { Ok(words.to_vec()) };
    words.and_then(|words| run::options(&words)).map_err(|failure| report(&failure))
}

/// The home directory of opm, for a daemon.
///
/// # Errors
/// The exit code, once the reason has been said.
pub fn home() -> Result<PathBuf, u8> {
    home::find().map_err(|failure| report(&failure))
}
