//! The `opm` command: asks the daemon, and says what it answered.
//!
//! Never starts, signals or reaps a service itself: only the daemon does. The syntax is in
//! [`args`], the texts in `render`, and the file formats in `wire`.
pub mod args;
mod ask;
mod client;
mod daemon;
mod dotenv;
mod environment;
mod follow;
mod foreign;
mod help;
mod holder;
mod home;
mod launched;
mod logs;
mod output;
mod program;
mod render;
mod run;
mod services;
mod start;
mod table;
mod usage;

use clap::ArgMatches;
use client::Client;
use output::{Done, Failure, complain, put, say};
use std::ffi::OsString;

/// A command that was parsed, about to be done.
struct Call {
    matches: ArgMatches,
    client: Client,
}

impl Call {
    /// A positional word or the value of an option.
    fn text(&self, name: &str) -> &str {
        self.matches.get_one::<String>(name).map_or("", String::as_str)
    }

    /// The words that say which services are meant, as one list; none of them: all.
    fn target(&self) -> String {
        let words = self.matches.get_many::<String>("target").into_iter().flatten();
        let words: Vec<&str> = words.map(String::as_str).collect();
        if words.is_empty() { "all".to_owned() } else { words.join(",") }
    }

    fn flag(&self, name: &str) -> bool {
        self.matches.get_flag(name)
    }

    fn json(&self) -> bool {
        wants_json(&self.matches)
    }
}

fn wants_json(matches: &ArgMatches) -> bool {
    let format = matches.get_one::<String>("format");
    matches.get_flag("json") || format.is_some_and(|format| format == "json")
}

/// Does what `words` (without the program's name) ask for. Returns the exit code.
pub fn main(words: Vec<OsString>) -> u8 {
    match run(words) {
        Ok(code) => code,
        Err(Failure { code, text }) => {
            if !text.is_empty() {
                complain(&text);
            }
            code
        }
    }
}

fn run(words: Vec<OsString>) -> Done {
    let mut may_start = true;
    let mut words = words.into_iter();
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
    let Some(entry) = args::find(&name) else {
        return Err(unknown(&name));
    };
    let matches = match usage::parse(entry, words) {
        Ok(matches) => matches,
        Err(Ok(help)) => return put(help.as_bytes()).map(|()| 0),
        Err(Err(failure)) => return Err(failure),
    };
    let may_start = may_start && !matches.get_flag("no-daemon-start");
    let client = Client { home: home::find()?, may_start };
    home::point_to_callers(&client.home);
    dispatch(entry.name, &Call { matches, client })
}

fn dispatch(name: &str, call: &Call) -> Done {
    match name {
        "start" => start::start(call),
        "stop" => services::stop(call),
        "restart" => services::restart(call),
        "adjust" => start::adjust(call),
        "remove" => services::remove(call),
        "list" => services::list(call),
        "info" => services::info(call),
        "env" => services::env(call),
        "get-command" => services::command(call),
        "signal" => services::signal(call),
        "reset" => services::reset(call),
        "logs" => logs::logs(call),
        "flush" => services::flush(call),
        "events" => services::events(call),
        "wait" => services::wait(call),
        "import" => start::import(call),
        "save" => services::save(call),
        "restore" => services::restore(call),
        "health" => services::health(call),
        "daemon" => daemon::daemon(call),
        "doctor" => daemon::doctor(call),
        _ => Err(unknown(name)),
    }
}

fn overview() -> Done {
    put(usage::overview().as_bytes()).map(|()| 0)
}

fn version() -> Done {
    say(concat!("opm ", env!("CARGO_PKG_VERSION"))).map(|()| 0)
}

fn unknown(name: &str) -> Failure {
    let advice = match (usage::same_elsewhere(name), usage::nearest(name)) {
        (Some(same), _) => same.to_owned(),
        (None, Some(near)) => format!("did you mean '{near}'?"),
        (None, None) => "try 'opm --help'".to_owned(),
    };
    Failure::usage(format!("unknown command '{name}' ({advice})"))
}

/// What `opm run` is asked to do, for its door. `words` are those after `run`.
///
/// # Errors
/// The exit code, once help or the reason has been given.
pub fn run_options_or_complain(words: &[OsString]) -> Result<crate::run::options::Options, u8> {
    run::options(words).map_err(|failure| {
        if !failure.text.is_empty() {
            complain(&failure.text);
        }
        failure.code
    })
}

/// The home directory of opm, for the daemon's door.
///
/// # Errors
/// The exit code, once the reason has been said.
pub fn home_or_complain() -> Result<std::path::PathBuf, u8> {
    home::find().map_err(|failure| {
        complain(&failure.text);
        failure.code
    })
}
