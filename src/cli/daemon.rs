//! The commands about the daemon itself.
use super::ask::{outcomes, strange};
use super::client::{Client, Connection, Need};
use super::launched::{last_line, own_program};
use super::output::{Done, Failure, put, say, say_json};
use super::{Call, home, render, wants_json};
use crate::wire::{Health, Outcome, Reply, Request, Status, code};
use clap::ArgMatches;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a daemon that replaces itself may be away.
const UPGRADE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long another binary's self-check may take.
const CHECK_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a daemon that has said that it leaves may take to be gone.
const EXIT_TIME_MAX: Duration = Duration::from_secs(10);
/// An exec lets go of the lock for an instant; after this long it is nobody's.
const LET_GO: Duration = Duration::from_millis(300);
/// The option that takes what ran elsewhere for gone.
const FORGET: &str = "forget-elsewhere";
const RETRY: Duration = Duration::from_millis(2);

pub(super) fn daemon(call: &Call) -> Done {
    let client = &call.client;
    match call.matches.subcommand() {
        Some(("start", options)) => start(client, options),
        Some(("stop", options)) => stop(client, options.get_flag("services")),
        Some(("health", options)) => health(client, options),
        Some(("restart", _)) => restart(client),
        Some(("upgrade", options)) => upgrade(client, options.get_one::<String>("binary")),
        _ => Err(Failure::usage("missing command (try 'opm daemon --help')")),
    }
}

fn start(client: &Client, options: &ArgMatches) -> Done {
    let forget = options.get_flag(FORGET);
    if options.get_flag("foreground") {
        return Ok(crate::daemon::serve(&client.home, forget));
    }
    let (health, how) = match present(client)? {
        Some(health) => (health, "already running"),
        None if !client.may_start => return Err(client.away()),
        None => {
            let option = format!("--{FORGET}");
            let more: &[&str] = if forget { &[&option] } else { &[] };
            (health_of(client, client.start_with(more)?)?, "started")
        }
    };
    say(&format!("daemon: {how} (pid {})", health.pid))?;
    Ok(code::DONE)
}

/// The daemon, if one runs. One that is just ending may still take a connection: it does not.
fn present(client: &Client) -> Result<Option<Health>, Failure> {
    client.try_connect()?.map_or(Ok(None), word_of)
}

fn health_of(client: &Client, connection: Connection) -> Result<Health, Failure> {
    word_of(connection)?.ok_or_else(|| client.away())
}

/// None: it ended before it answered.
fn word_of(mut connection: Connection) -> Result<Option<Health>, Failure> {
    connection.send(&Request::Health)?;
    match connection.next()? {
        Some(Reply::Health(health)) => Ok(Some(health)),
        Some(Reply::Failed { code, text }) => Err(Failure::new(code, text)),
        Some(_) => Err(strange()),
        None => Ok(None),
    }
}

/// Stopping what doesn't run is done at once; but services that outlived their daemon can
/// only be stopped by one.
fn stop(client: &Client, services: bool) -> Done {
    let need = if services { Need::Record } else { Need::Running };
    let holder = home::lock_holder(&client.home);
    match client.ask(need, &Request::Leave { services })? {
        Some(reply) => {
            let refused = |outcome: &Outcome| outcome.code != code::DONE;
            let stays =
                matches!(&reply, Reply::Outcomes { outcomes, .. } if outcomes.iter().any(refused));
            if !stays {
                wait_for_exit(client, holder);
            }
            outcomes(&reply)
        }
        None => {
            let left =
                if home::is_on_record(&client.home) { "; services are left alone" } else { "" };
            say(&format!("daemon: not running{left}"))?;
            Ok(code::DONE)
        }
    }
}

/// Until the daemon that answered has let go of the lock: a command that follows at once would
/// else meet a daemon that is about to end.
fn wait_for_exit(client: &Client, holder: Option<i32>) {
    let began = Instant::now();
    while holder.is_some()
        && home::lock_holder(&client.home) == holder
        && began.elapsed() < EXIT_TIME_MAX
    {
        std::thread::sleep(RETRY);
    }
}

fn health(client: &Client, options: &ArgMatches) -> Done {
    match client.ask(Need::Running, &Request::Health)? {
        Some(Reply::Health(health)) if wants_json(options) => say_json(&health)?,
        Some(Reply::Health(health)) => put(render::health(&health).as_bytes())?,
        Some(_) => return Err(strange()),
        None => return Err(client.away()),
    }
    Ok(code::DONE)
}

fn restart(client: &Client) -> Done {
    match present(client)? {
        Some(before) => replace(client, &before, None, "restarted"),
        None if !client.may_start => Err(client.away()),
        None => {
            let health = health_of(client, client.start()?)?;
            say(&format!("daemon: it was not running; started (pid {})", health.pid))?;
            Ok(code::DONE)
        }
    }
}

fn upgrade(client: &Client, binary: Option<&String>) -> Done {
    // The daemon's directory is `/`.
    let absolute = |path: &String| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        path.into_os_string().into_string().map_err(|_| Failure::plain("the path is not UTF-8"))
    };
    let binary = match binary {
        Some(path) if !Path::new(path).is_file() => {
            return Err(Failure::plain(format!("{path}: no such file")));
        }
        Some(path) => absolute(path)?,
        None => {
            let own = std::env::current_exe().map_err(|e| Failure::plain(e.to_string()))?;
            absolute(&own.to_string_lossy().into_owned())?
        }
    };
    check_binary(&binary)?;
    let before = present(client)?.ok_or_else(|| client.away())?;
    replace(client, &before, Some(binary), "upgraded")
}

/// The new binary's own word that it can take over: a bad one would end the daemon for good.
fn check_binary(binary: &str) -> Result<(), Failure> {
    let refuse = |reason: String| Failure::plain(format!("{binary}: {reason} (not upgraded)"));
    let words = ["opm", "daemon", "self-check"];
    match crate::sys::output_of::output_of(binary, &words, CHECK_TIME_MAX) {
        Err(e) => Err(refuse(super::output::why(e))),
        Ok(Some(said)) if crate::daemon::can_take_over(&said) => Ok(()),
        Ok(_) => Err(refuse("it fails its self-check".to_owned())),
    }
}

/// Either the daemon says that it will not, or the connection ends with its exec, or it says
/// that it will. In the two last cases it is asked whether it is another one now.
fn replace(client: &Client, before: &Health, binary: Option<String>, how: &str) -> Done {
    let mut old = client.try_connect()?.ok_or_else(|| client.away())?;
    let told = client.log_length();
    old.send(&Request::Upgrade { binary: binary.clone() })?;
    loop {
        match old.next() {
            Ok(Some(Reply::Failed { code, text })) => return Err(Failure::new(code, text)),
            Ok(Some(Reply::Outcomes { outcomes, .. })) if outcomes.iter().any(|o| o.code != 0) => {
                return super::output::conclude(&outcomes);
            }
            Ok(Some(Reply::Progress { .. })) => {}
            Ok(Some(_) | None) | Err(_) => break,
        }
    }
    let has_closed = old.wait_for_close(EXIT_TIME_MAX);
    let began = Instant::now();
    loop {
        match client.try_connect()?.map(|new| health_of(client, new)) {
            Some(Ok(Health { pid, version, image, .. })) => {
                if image.is_some() && (pid, image) == (before.pid, before.image) {
                    return Err(not_replaced(client, how, has_closed, told));
                }
                say(&format!("daemon: {how} (pid {pid}, version {version})"))?;
                return Ok(code::DONE);
            }
            // It was asked for long enough.
            Some(Err(failure)) if began.elapsed() > EXIT_TIME_MAX => return Err(failure),
            Some(Err(_)) | None => {}
        }
        if began.elapsed() > UPGRADE_TIME_MAX {
            return Err(client.away());
        }
        if began.elapsed() > LET_GO && home::lock_holder(&client.home).is_none() {
            // It died on the way: what was wished for is a running daemon all the same.
            let health = health_of(client, client.start()?)?;
            let text = format!("daemon: it was gone; started (pid {})", health.pid);
            return match binary.filter(|binary| Path::new(binary) != own_program()) {
                Some(binary) => Err(Failure::plain(format!("{text}, not {binary}"))),
                None => say(&text).map(|()| code::DONE),
            };
        }
        std::thread::sleep(RETRY);
    }
}

/// The same image answers: it has closed the connection for an exec that failed, or it waits.
fn not_replaced(client: &Client, how: &str, has_closed: bool, told: u64) -> Failure {
    let log = client.home.join("daemon.log");
    if has_closed {
        let last = last_line(&log, told).unwrap_or_default();
        let why = last.find("cannot execute").and_then(|at| last.get(at..));
        let why = why.map_or_else(|| format!("see {}", log.display()), str::to_owned);
        return Failure::plain(format!("daemon: not {how}: {why}"));
    }
    let request = Request::List { usage: false };
    let rows = match client.ask(Need::Running, &request) {
        Ok(Some(Reply::List(rows))) => rows,
        _ => Vec::new(),
    };
    let starting = rows.iter().filter(|row| row.pid.is_some() && row.status != Status::Online);
    let names: Vec<&str> = starting.map(|row| row.name.as_str()).collect();
    let whom = if names.is_empty() { "a service".to_owned() } else { names.join(", ") };
    let text = format!("daemon: not {how} yet: {whom} was not exec'd so far (stop it, or wait)");
    Failure::new(code::TIMED_OUT, text)
}

pub(super) fn doctor(call: &Call) -> Done {
    let findings = match call.client.demand(&Request::Doctor)? {
        Reply::Doctor(findings) => findings,
        _ => return Err(strange()),
    };
    if call.json() {
        say_json(&findings)?
    } else {
        put(render::doctor(&findings).as_bytes())?
    }
    Ok(code::DONE)
}
