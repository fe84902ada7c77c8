//! The `opm` command: asks the daemon, and says what it answered.
//!
//! Never starts, signals or reaps a service itself: only the daemon does. The syntax is in
//! [`commands`], the texts in `render`, and the file formats in `wire`.
mod apply;
mod args;
mod client;
pub mod commands;
mod completions;
mod daemon;
mod dotenv;
mod environment;
mod file;
mod follow;
mod help;
mod holder;
mod home;
mod info;
mod jlist;
mod launch;
mod logs;
mod metrics;
mod migrate;
mod output;
mod pick;
mod pm2;
mod poll;
mod program;
mod render;
mod request;
mod run;
mod screen;
mod services;
mod setup;
mod start;
mod table;
mod top;
mod usage;
mod why;

pub use pm2::is_runtime;

use crate::sys::Features;
use crate::wire::{Finding, PROTOCOL, Request, code};
use client::{Client, Need};
use output::{Done, Failure, error, print, report, write, write_error};
use request::{Call, ask};
use std::ffi::OsString;
use std::path::PathBuf;

/// Does what `words` ask for; `program` is the name that it was called by. Returns the exit code.
pub fn main(program: &str, words: Vec<OsString>) -> u8 {
    let is_pm2 = pm2::is_called(program);
    let code = run(is_pm2, words).unwrap_or_else(|failure| report(&failure));
    if is_pm2 { pm2::exit_code(code) } else { code }
}

fn run(is_pm2: bool, words: Vec<OsString>) -> Done {
    let mut may_start = true;
    let mut words = words.into_iter();
    let command = loop {
        let Some(word) = words.next() else {
            error("no command (try 'opm --help')");
            write_error(FIRST_STEPS.as_bytes());
            return Ok(code::USAGE);
        };
        match word.to_str() {
            Some("--no-daemon-start") => may_start = false,
            Some("--help" | "-h") => return overview(),
            Some("--version" | "-V" | "-v") => {
                return version(words.next().is_some_and(|word| word == "--verbose"));
            }
            Some(option) if option.starts_with('-') => {
                let text = format!("unknown option '{option}' (try 'opm --help')");
                return Err(Failure::usage(text));
            }
            _ => break word,
        }
    };
    let words: Vec<OsString> = std::iter::once(command).chain(words).collect();
    if is_pm2 && pm2::is_rotation(&words) {
        return pm2::rotation();
    }
    let mut words = pm2::translated(is_pm2, words);
    let name = words.remove(0).to_string_lossy().into_owned();
    let name = match (name.as_str(), words.first()) {
        ("help", None) => return overview(),
        ("version", word) if word.is_none_or(|word| word == "--verbose") => {
            return version(word.is_some());
        }
        ("help", Some(_)) => {
            let asked = words.remove(0).to_string_lossy().into_owned();
            if let Some(text) = help::text(&format!("help {asked}")) {
                return write(text.as_bytes()).map(|()| 0);
            }
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
        "stop" | "restart" | "reload" | "remove" | "reset" | "info" => {
            pm2::of_scripts(&client, words)?
        }
        _ => words,
    };
    let matches = usage::parse(entry, words)?;
    let may_start = may_start && !matches.get_flag("no-daemon-start");
    let client = Client { may_start, ..client };
    let has_daemon = client.home.join("opm.sock").exists();
    if !has_daemon {
        home::point_to_callers(&client.home);
    }
    let home = client.home.clone();
    let done = entry.run(&Call { matches, client });
    if has_daemon && *done.as_ref().unwrap_or_else(|failure| &failure.code) == code::NO_SUCH {
        home::point_to_callers(&home);
    }
    done
}

fn overview() -> Done {
    write(usage::overview().as_bytes()).map(|()| 0)
}

const FIRST_STEPS: &str = "\
opm start 'node server.js' --name web    run it, and keep it running
opm ls                                   how everything does
opm logs -f web                          what it writes
";

/// `verbose`: what a report of a bug needs, too.
fn version(verbose: bool) -> Done {
    print(concat!("opm ", env!("CARGO_PKG_VERSION")))?;
    if !verbose {
        return Ok(0);
    }
    let home = home::find()?;
    let kind = if cfg!(debug_assertions) { "debug" } else { "release" };
    let system = rustix::system::uname();
    let client = Client { home, may_start: false, is_pm2: false };
    let findings = ask::<Vec<Finding>>(&client, Need::Running, &Request::Doctor).ok().flatten();
    let of = Features::ALL.each().map(|(name, _)| name);
    let features = findings.map_or("no daemon runs".to_owned(), |findings| {
        let used = findings.into_iter().filter(|one| one.level == "ok").map(|one| one.subject);
        used.filter(|name| of.contains(&name.as_str())).collect::<Vec<_>>().join(" ")
    });
    let facts = [
        ("build", format!("{kind}, {}, protocol {PROTOCOL}", std::env::consts::ARCH)),
        ("kernel", system.release().to_string_lossy().into_owned()),
        ("in use", features),
        ("home", output::escape(&client.home.to_string_lossy())),
    ];
    write(render::pairs(&facts, 8).as_bytes()).map(|()| 0)
}

fn unknown(name: &str) -> Failure {
    let same = usage::ELSEWHERE.iter().find(|(words, _)| words.contains(&name));
    let advice = match (same, usage::nearest(name)) {
        (Some((_, same)), _) => (*same).to_owned(),
        (None, Some(near)) => format!("did you mean '{near}'?"),
        (None, None) => "try 'opm --help'".to_owned(),
    };
    Failure::usage(format!("unknown command '{name}' ({advice})"))
}

/// What `opm run` is asked to do. `words` are those after `run`, or after the name `pm2-runtime`
/// (`is_pm2`). Errors: the exit code, once help or the reason has been given.
pub fn run_options(is_pm2: bool, words: &[OsString]) -> Result<crate::run::options::Options, u8> {
    let words = if is_pm2 { pm2::runtime(words) } else { Ok(words.to_vec()) };
    words.and_then(|words| run::options(is_pm2, &words)).map_err(|failure| report(&failure))
}

/// The home directory of opm, for a daemon. Errors: the exit code, once the reason was said.
pub fn home() -> Result<PathBuf, u8> {
    home::find().map_err(|failure| report(&failure))
}
