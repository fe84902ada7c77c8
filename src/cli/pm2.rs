//! What people type who come from PM2, in words of ours. A command that is called `pm2` means what
//! PM2 means by it, where the two differ; all else is understood under either name.
use super::client::{Client, Need};
use super::file::{self, Choice};
use super::output::{Done, Failure, print, warn};
use super::request::{Call, ask, outcomes};
use super::services::rows;
use super::{commands, daemon, start};
use crate::process::command::pattern_of_argv;
use crate::service::selector::Selector;
use crate::wire::file::pm2::in_milliseconds;
use crate::wire::{Info, Request, Row, Status, code};
use std::ffi::OsString;
use std::path::Path;

pub(super) const RUNTIMES: [&str; 2] = ["pm2-runtime", "pm2-docker"];

const COMMANDS: &[(&str, &[&str])] = &[
    ("startOrRestart", &["restart"]),
    ("startOrReload", &["reload"]),
    ("startOrGracefulReload", &["reload"]),
    ("gracefulReload", &["reload"]),
    ("startup", &["daemon", "setup"]),
    ("unstartup", &["daemon", "setup", "--remove"]),
    ("log", &["logs"]),
    ("l", &["list"]),
    ("sendSignal", &["signal"]),
    ("updatePM2", &["daemon", "restart"]),
];

/// What becomes of an option of PM2's.
enum Taken {
    /// An option of ours; its number is milliseconds.
    As(&'static [&'static str]),
    /// These words in its place.
    Words(&'static [&'static str]),
    /// Left out, and its value.
    Nothing(bool),
}

/// Options of PM2's start and restart that are called otherwise here, or mean nothing.
const OPTIONS: &[(&[&str], Taken)] = &[
    (&["--max-memory-restart"], Taken::As(&["--max-memory"])),
    (&["-c", "--cron", "--cron-restart"], Taken::As(&["--cron"])),
    (&["-o", "--output"], Taken::As(&["--log-out"])),
    (&["-e", "--error"], Taken::As(&["--log-error"])),
    (&["-l", "--log"], Taken::As(&["--log-out", "--log-error"])),
    (&["--log-type"], Taken::As(&["--log-format"])),
    (&["-k", "--kill-timeout"], Taken::As(&["--stop-timeout"])),
    (&["--restart-delay"], Taken::As(&["--restart-delay"])),
    (&["--exp-backoff-restart-delay"], Taken::As(&["--exp-backoff"])),
    (&["--min-uptime"], Taken::As(&["--min-uptime"])),
    (&["--listen-timeout"], Taken::As(&["--ready-timeout"])),
    (&["--node-args"], Taken::As(&["--interpreter-args"])),
    (&["--log-date-format"], Taken::As(&["--log-time"])),
    (&["-u", "--uid"], Taken::As(&["--user"])),
    (&["--gid"], Taken::As(&["--group"])),
    (&["-f"], Taken::Words(&["--force"])),
    (&["-a"], Taken::Words(&["--update-env"])),
    (&["--disable-logs"], Taken::Words(&["--no-logs"])),
    (&["--wait-ready"], Taken::Words(&["--ready", "ipc"])),
    (&["--time"], Taken::Words(&["--log-time"])),
    (&["-x", "-s", "--silent", "-m", "--mini-list", "--no-vizion"], Taken::Nothing(false)),
    (&["--no-automation", "--no-pmx", "--no-treekill", "--attach"], Taken::Nothing(false)),
    (&["--shutdown-with-message", "--source-map-support", "--merge-logs"], Taken::Nothing(false)),
    (&["--disable-source-map-support", "--trace", "--disable-trace"], Taken::Nothing(false)),
    (&["--v8", "--event-loop-inspector", "--deep-monitoring"], Taken::Nothing(false)),
    (&["-w", "--write", "--wait-ip", "--no-color"], Taken::Nothing(false)),
    (&["-p", "--pid", "--parallel", "--ext", "--hp", "--watch-delay"], Taken::Nothing(true)),
];

/// Of ours those that are times.
const TIMES: [&str; 5] =
    ["--stop-timeout", "--restart-delay", "--exp-backoff", "--min-uptime", "--ready-timeout"];

/// Whether a program of that name, as it was called, is PM2 to its caller.
pub(super) fn is_called(program: &str) -> bool {
    base(program) == "pm2"
}

/// Whether a program that is called so, with these words, is `opm run`.
pub fn is_runtime(program: &str, words: &[OsString]) -> bool {
    let own = || words.iter().take_while(|word| *word != "--");
    let stays = || words.first().is_some_and(|word| word == "start");
    RUNTIMES.contains(&base(program))
        || is_called(program) && stays() && own().any(|word| word == "--no-daemon")
}

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// The words of a command line without the program's name, in ours.
pub(super) fn translated(is_pm2: bool, words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let name = if is_pm2 && name == "update" { "updatePM2" } else { &name };
    let mut words = words;
    if commands::find(name).is_none() {
        let Some((_, ours)) = COMMANDS.iter().find(|(theirs, _)| *theirs == name) else {
            return words;
        };
        let mut rest: Vec<OsString> = words.into_iter().skip(1).collect();
        match (name, rest.len()) {
            ("sendSignal", 2) => rest.swap(0, 1),
            // Who it is for, and which init: we see for ourselves.
            ("startup" | "unstartup", _) => {
                let kept = ["--print", "--user", "-h", "--help"];
                rest.retain(|word| kept.iter().any(|it| word == it));
            }
            _ => {}
        }
        words = ours.iter().map(OsString::from).chain(rest).collect();
    }
    match words[0].to_str() {
        Some("start" | "restart" | "reload") => return options(is_pm2, words),
        // PM2's go on, unless they are told not to.
        Some("logs") if is_pm2 => {
            let told = ["-f", "--follow", "--nostream", "--stats", "-h", "--help"];
            let is_told = words.iter().any(|word| told.iter().any(|it| word == it));
            words.extend((!is_told).then(|| "--follow".into()));
        }
        _ => {}
    }
    words
}

/// An option, and its value if that is in the same word.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('=') {
        Some((option, value)) if text.starts_with("--") => (option, Some(value)),
        _ => (text, None),
    }
}

fn next(words: &mut impl Iterator<Item = OsString>) -> Option<String> {
    Some(words.next()?.to_string_lossy().into_owned())
}

/// Options until `--`, in ours.
fn options(is_pm2: bool, words: Vec<OsString>) -> Vec<OsString> {
    let mut ours = Vec::with_capacity(words.len());
    // Of one file for both streams, and one for each, the latter are meant: nothing is kept twice.
    let is_split = |word: &OsString| {
        ["-o", "--output", "-e", "--error"].contains(&split(&word.to_string_lossy()).0)
    };
    let is_split = words.iter().take_while(|word| *word != "--").any(is_split);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            ours.push(word);
            break;
        }
        let text = word.to_string_lossy().into_owned();
        let (option, value) = split(&text);
        let mut value = || value.map(str::to_owned).or_else(|| next(&mut words));
        match OPTIONS.iter().find(|(names, _)| names.contains(&option)).map(|(_, taken)| taken) {
            None => ours.push(word),
            // Ours by the same name, with a unit.
            Some(Taken::As(own)) if own[0] == option && !is_pm2 => ours.push(word),
            // PM2 means the files of instances.
            Some(Taken::Nothing(false)) if option == "--merge-logs" && !is_pm2 => ours.push(word),
            Some(Taken::Words(own)) => ours.extend(own.iter().map(OsString::from)),
            Some(Taken::Nothing(false)) => {}
            Some(Taken::Nothing(true)) => drop(value()),
            Some(Taken::As(own)) if own.len() > 1 && is_split => {
                let file = value().unwrap_or_default();
                warn(&format!("{option} {file}: left out beside --output and --error"));
            }
            Some(Taken::As(own)) => {
                let value = value().unwrap_or_default();
                let is_time = TIMES.contains(&own[0]);
                let value = if is_time { in_milliseconds(value) } else { value };
                ours.extend((option == "--node-args").then(|| "--interpreter=node".into()));
                ours.extend(own.iter().map(|name| format!("{name}={value}").into()));
            }
        }
    }
    ours.extend(words);
    ours
}

/// The words of `opm run` for those of `pm2-runtime`.
pub(super) fn runtime(words: &[OsString]) -> Result<Vec<OsString>, Failure> {
    let mut words = words.iter().skip_while(|word| *word == "start");
    let (mut ours, mut target, mut behind) = (Vec::new(), None, Vec::new());
    while let Some(word) = words.next() {
        match word.to_str().unwrap_or_default() {
            "--" => behind.extend(words.by_ref().cloned()),
            "--no-auto-exit" | "--raw" | "--no-daemon" => {}
            "--web" | "-i" | "--instances" | "--secret" | "--public" | "--machine-name" => {
                words.next();
            }
            "--json" => ours.push("--prefix=json".into()),
            "--env" | "--only" | "--name" | "-n" => {
                ours.push(word.clone());
                ours.extend(words.next().cloned());
            }
            option if option.starts_with('-') => ours.push(word.clone()),
            _ if target.is_none() => target = Some(word.to_string_lossy().into_owned()),
            _ => behind.push(word.clone()),
        }
    }
    match target {
        Some(file) if file::is_one(&file) => ours.push(file.into()),
        Some(target) => {
            let command = start::place()?.command(&target)?;
            ours.push("--".into());
            ours.extend(command.into_iter().map(OsString::from).chain(behind));
        }
        None if behind.is_empty() => {}
        None => ours.extend(std::iter::once("--".into()).chain(behind)),
    }
    Ok(ours)
}

/// Commands that take a process file for the services in it.
const OF_FILES: [&str; 6] = ["stop", "remove", "reset", "info", "flush", "logs"];

/// A process file among `words`, those of the command `name`, stands for its services.
pub(super) fn of_files(name: &str, words: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    if !OF_FILES.contains(&name) {
        return Ok(words);
    }
    let at = words.iter().position(|word| word.to_str().is_some_and(file::is_one));
    let Some(at) = at else { return Ok(words) };
    let (mut rest, mut choice) = (Vec::new(), Choice::default());
    let given = words.iter().enumerate().filter(|(n, _)| *n != at);
    let mut given = given.map(|(_, word)| word.clone());
    while let Some(word) = given.next() {
        let text = word.to_string_lossy();
        let (option, value) = split(&text);
        let field = match option {
            "--only" => &mut choice.only,
            "--env" => &mut choice.env,
            _ => {
                rest.push(word);
                continue;
            }
        };
        *field = value.map(str::to_owned).or_else(|| next(&mut given));
    }
    let base = super::environment::captured();
    let declared = file::declared(&words[at].to_string_lossy(), &choice, base)?;
    if !declared.specs.is_empty() {
        rest.insert(0, file::target_of(&declared.specs).into());
    }
    Ok(rest)
}

/// A script among `words` stands for the services that run it, where PM2 is meant.
pub(super) fn of_scripts(client: &Client, words: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let is_script = |word: &OsString| !word.is_empty() && Path::new(word).is_file();
    if !client.is_pm2 || !words.iter().any(is_script) {
        return Ok(words);
    }
    let rows = rows(client, false)?;
    let runs = |script: &OsString| -> Option<OsString> {
        let script = super::environment::absolute(Path::new(script)).ok()?;
        let is_it = |row: &&Row| {
            let words = crate::process::shell::split(&row.command).unwrap_or_default();
            words.iter().any(|word| file::tidy(&Path::new(&row.cwd).join(word)) == script)
        };
        let names: Vec<String> =
            rows.iter().filter(is_it).map(|row| Selector::exactly(&row.name)).collect();
        (!names.is_empty()).then(|| names.join(",").into())
    };
    let meant = |word: OsString| if is_script(&word) { runs(&word).unwrap_or(word) } else { word };
    Ok(words.into_iter().map(meant).collect())
}

/// `pm2 kill`: nothing lives on, nothing but what was saved is remembered.
pub(super) fn kill(client: &Client) -> Done {
    let all = Request::Remove { target: "all".to_owned() };
    let Some(reply) = client.request(Need::Running, &all)? else {
        return print("daemon stopped").map(|()| code::DONE);
    };
    Ok(outcomes(&reply)?.max(daemon::stop(client, true)?))
}

/// Log rotation is built in: what installs it for PM2 has nothing to do.
pub(super) fn is_rotation(words: &[OsString]) -> bool {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    match words[..] {
        ["install", module, ..] => module.contains("logrotate"),
        ["set", key, ..] => key.starts_with("pm2-logrotate:"),
        _ => false,
    }
}

/// The pids of services, and 0 of those that are down.
pub(super) fn pid(call: &Call) -> Done {
    let found = chosen(&call.client, &call.target())?;
    let is_known = !found.is_empty() || call.target() == "all";
    for row in &found {
        print(&row.pid.unwrap_or(0).to_string())?;
    }
    match (is_known, call.client.is_pm2) {
        (true, _) => Ok(code::DONE),
        (false, true) => print("").map(|()| code::DONE),
        (false, false) => Err(super::output::no_such(&call.target())),
    }
}

pub(super) fn id(call: &Call) -> Done {
    let ids = chosen(&call.client, &call.target())?;
    let ids: Vec<String> = ids.iter().map(|row| row.id.to_string()).collect();
    let list = if ids.is_empty() { "[]".to_owned() } else { format!("[ {} ]", ids.join(", ")) };
    print(&list).map(|()| code::DONE)
}

/// Whether something of the target runs, or nothing is known of it.
pub(super) fn is_up(client: &Client, target: &str) -> Result<bool, Failure> {
    let Ok(rows) = chosen(client, target) else { return Ok(true) };
    Ok(rows.is_empty() || !rows.iter().all(is_down))
}

/// Whether all of these are down, and run what `words` are about where `cwd` is: to start that
/// again is to start them.
pub(super) fn are_down(rows: &[Row], words: &[String], cwd: &Path) -> bool {
    let runs = |row: &Row| {
        let own = crate::process::shell::split(&row.command).unwrap_or_default();
        Path::new(&row.cwd) == cwd && pattern_of_argv(&own) == pattern_of_argv(words)
    };
    !rows.is_empty() && rows.iter().all(|row| is_down(row) && runs(row))
}

fn is_down(row: &Row) -> bool {
    matches!(row.status, Status::Stopped | Status::Errored)
}

pub(super) fn chosen(client: &Client, target: &str) -> Result<Vec<Row>, Failure> {
    let request = Request::Info { target: target.to_owned() };
    let infos: Vec<Info> = match ask(client, Need::Record, &request) {
        Err(failure) if failure.code == code::NO_SUCH => Vec::new(),
        infos => infos?.unwrap_or_default(),
    };
    Ok(infos.into_iter().map(|info| info.row).collect())
}

/// Whether there is a daemon; it is started if not.
pub(super) fn ping(call: &Call) -> Done {
    call.client.demand(&Request::Health)?;
    print("{ msg: 'pong' }").map(|()| code::DONE)
}

/// The exit code that PM2 has for the same.
pub(super) fn exit_code(own: u8) -> u8 {
    if own == code::NO_SUCH { code::FAILED } else { own }
}

/// Says that PM2 has a command which means nothing here.
pub(super) fn rotation() -> Done {
    warn("logs rotate by themselves: see --log-max-size and --log-keep of 'opm start'");
    Ok(code::DONE)
}

/// A name for one more of what runs already, as `start -f` is to PM2.
pub(super) fn another_name(client: &Client, name: String) -> Result<String, Failure> {
    let rows = rows(client, false)?;
    let is_free = |name: &String| rows.iter().all(|row| row.name != *name);
    let mut names = (1_u32..).map(|n| format!("{name}-{n}"));
    let other = if is_free(&name) { None } else { names.find(is_free) };
    Ok(other.unwrap_or(name))
}

#[cfg(test)]
#[path = "../../tests/inner/cli_pm2.rs"]
mod tests;
