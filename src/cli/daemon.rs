//! The commands about the daemon itself.
use super::ask::{outcomes, strange};
use super::client::{Client, Connection, Need};
use super::output::{Done, Failure, put, say, say_json};
use super::{Call, home, render, wants_json};
use crate::wire::{Health, Reply, Request, code};
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
    if options.get_flag("foreground") {
        return Ok(crate::daemon::door(&client.home));
    }
    // One that is just ending may still take a connection: it is not running.
    let present = match client.try_connect()? {
        Some(connection) => word_of(connection)?,
        None => None,
    };
    let (health, how) = match present {
        Some(health) => (health, "already running"),
        None if !client.may_start => return Err(client.away()),
        None => (health_of(client, client.start()?)?, "started"),
    };
    say(&format!("daemon: {how} (pid {})", health.pid))?;
    Ok(code::DONE)
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
            wait_for_exit(client, holder);
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
    match client.try_connect()? {
        Some(connection) => replace(client, connection, None, "restarted"),
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
    let Some(connection) = client.try_connect()? else {
        return Err(client.away());
    };
    replace(client, connection, Some(binary), "upgraded")
}

/// The new binary's own word that it can take over: a bad one would end the daemon for good.
fn check_binary(binary: &str) -> Result<(), Failure> {
    let refuse = |reason: String| Failure::plain(format!("{binary}: {reason} (not upgraded)"));
    let words = ["opm", "daemon", "self-check"];
    match crate::sys::ask::ask(binary, &words, CHECK_TIME_MAX) {
        Err(e) => Err(refuse(super::output::why(e))),
        Ok(Some(said)) if crate::daemon::can_take_over(&said) => Ok(()),
        Ok(_) => Err(refuse("it fails its self-check".to_owned())),
    }
}

/// Either the daemon says that it will not, or the connection ends with its exec, or it says
/// that it is done. In the two last cases the new daemon is asked whether it is there.
fn replace(client: &Client, mut old: Connection, binary: Option<String>, how: &str) -> Done {
    old.send(&Request::Upgrade { binary })?;
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
    // Else the old image could still answer for the new one.
    old.wait_for_close(EXIT_TIME_MAX);
    let began = Instant::now();
    loop {
        match client.try_connect()?.map(|new| health_of(client, new)) {
            Some(Ok(Health { pid, version, .. })) => {
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
            say(&format!("daemon: it was gone; started (pid {})", health.pid))?;
            return Ok(code::DONE);
        }
        std::thread::sleep(RETRY);
    }
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
