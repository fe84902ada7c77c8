//! The commands about the daemon itself.
use super::client::{Client, Connection, Need};
use super::holder::lock_holder;
use super::launch::{self, last_line, log_length, own_program};
use super::output::{Done, Failure, print, print_outcomes, reason, show};
use super::poll::is_readable;
use super::request::{Call, ask, outcomes, strange, wants_json};
use super::services::rows;
use super::setup::setup;
use super::{home, render};
use crate::sys::{output_of::output_of, pidfd};
use crate::wire::{Finding, Health, Outcome, Reply, Request, Row, Status, code};
use clap::ArgMatches;
use std::path::Path;
use std::time::{Duration, Instant};

const UPGRADE_TIME_MAX: Duration = Duration::from_secs(60);
const CHECK_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a daemon that has said that it leaves may take to be gone.
const EXIT_TIME_MAX: Duration = Duration::from_secs(10);
/// The option that takes what ran elsewhere for gone.
const FORGET: &str = "--forget-elsewhere";
/// From one try to connect to a daemon that replaces itself to the next.
const RETRY: Duration = Duration::from_millis(2);

pub(super) fn daemon(call: &Call) -> Done {
    let client = &call.client;
    match call.matches.subcommand() {
        Some(("start", options)) => start(client, options),
        Some(("stop", options)) => stop(client, options.get_flag("services")),
        Some(("health", options)) => health(client, options),
        Some(("restart", _)) => restart(client),
        Some(("reset", _)) => reset(client),
        Some(("setup", options)) => setup(client, options),
        Some(("upgrade", options)) => upgrade(client, options.get_one::<String>("binary")),
        _ => Err(Failure::usage("missing command (try 'opm daemon --help')")),
    }
}

/// There is no counter to reset: a new service gets the lowest id that is free.
fn reset(client: &Client) -> Done {
    let taken: Vec<u32> = rows(client, false)?.iter().map(|row| row.id).collect();
    let next = (0..).find(|id| !taken.contains(id)).unwrap_or_default();
    print(&format!("daemon: the next service gets id {next}")).map(|()| code::DONE)
}

fn start(client: &Client, options: &ArgMatches) -> Done {
    let forget = options.get_flag(FORGET.trim_start_matches('-'));
    if options.get_flag("foreground") {
        return Ok(crate::daemon::serve(&client.home, forget));
    }
    let (health, how) = match present(client)? {
        Some(health) => (health, "already running"),
        None => (launch(client, if forget { &[FORGET] } else { &[] })?, "started"),
    };
    print(&format!("daemon: {how} (pid {})", health.pid)).map(|()| code::DONE)
}

/// The daemon, if one runs. One that is just ending may still take a connection: it does not.
fn present(client: &Client) -> Result<Option<Health>, Failure> {
    Connection::open(&client.home)?.map_or(Ok(None), word_of)
}

fn launch(client: &Client, more: &[&str]) -> Result<Health, Failure> {
    if !client.may_start {
        return Err(client.away());
    }
    word_of(launch::start(&client.home, more)?)?.ok_or_else(|| client.away())
}

/// None: it ended before it answered.
fn word_of(mut connection: Connection) -> Result<Option<Health>, Failure> {
    connection.send(&Request::Health)?;
    connection.last()?.map(Health::try_from).transpose().map_err(|_| strange())
}

/// What doesn't run is stopped; but services that outlived their daemon only stop by one.
pub(super) fn stop(client: &Client, services: bool) -> Done {
    let need = if services { Need::Record } else { Need::Running };
    let daemon = lock_holder(&client.home).and_then(|pid| pidfd::open(pid).ok());
    let Some(reply) = client.request(need, &Request::Leave { services })? else {
        let left = if home::is_on_record(&client.home) { "; services are left alone" } else { "" };
        return print(&format!("daemon: not running{left}")).map(|()| code::DONE);
    };
    let refused = |outcome: &Outcome| outcome.code != code::DONE;
    let stays = matches!(&reply, Reply::Outcomes { outcomes, .. } if outcomes.iter().any(refused));
    // A command that follows at once would else meet a daemon that is about to end.
    if let (Some(daemon), false) = (daemon, stays) {
        is_readable(daemon, EXIT_TIME_MAX);
    }
    outcomes(&reply)
}

fn health(client: &Client, options: &ArgMatches) -> Done {
    let health = ask(client, Need::Running, &Request::Health)?.ok_or_else(|| client.away())?;
    show(wants_json(options), &health, render::health).map(|()| code::DONE)
}

fn restart(client: &Client) -> Done {
    if let Some(before) = present(client)? {
        return replace(client, &before, None, "restarted");
    }
    let health = launch(client, &[])?;
    let text = format!("daemon: it was not running; started (pid {})", health.pid);
    print(&text).map(|()| code::DONE)
}

fn upgrade(client: &Client, binary: Option<&String>) -> Done {
    let binary = match binary {
        Some(path) if !Path::new(path).is_file() => {
            return Err(Failure::plain(format!("{path}: no such file")));
        }
        // The daemon's directory is `/`.
        Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.into()),
        None => std::env::current_exe().map_err(|e| Failure::plain(e.to_string()))?,
    };
    let binary = binary.into_os_string().into_string();
    let binary = binary.map_err(|_| Failure::plain("the path is not UTF-8"))?;
    check_binary(&binary)?;
    let before = present(client)?.ok_or_else(|| client.away())?;
    replace(client, &before, Some(binary), "upgraded")
}

/// The new binary's own word that it can take over: a bad one would end the daemon for good.
fn check_binary(binary: &str) -> Result<(), Failure> {
    let refuse = |reason: &str| Failure::plain(format!("{binary}: {reason} (not upgraded)"));
    match output_of(binary, &["opm", "daemon", "self-check"], CHECK_TIME_MAX) {
        Err(e) => Err(refuse(&reason(e))),
        Ok(Some(said)) if crate::daemon::can_take_over(&said) => Ok(()),
        Ok(_) => Err(refuse("it fails its self-check")),
    }
}

/// Either the daemon says that it will not, or the connection ends with its exec, or it says
/// that it will. In the two last cases it is asked whether it is another one now.
fn replace(client: &Client, before: &Health, binary: Option<String>, how: &str) -> Done {
    let mut old = Connection::open(&client.home)?.ok_or_else(|| client.away())?;
    let process = old.process();
    let told = log_length(&client.home);
    old.send(&Request::Upgrade { binary: binary.clone() })?;
    loop {
        match old.next() {
            Ok(Some(Reply::Failed { code, text })) => return Err(Failure::new(code, text)),
            Ok(Some(Reply::Outcomes { outcomes, .. })) if outcomes.iter().any(|o| o.code != 0) => {
                return print_outcomes(&outcomes);
            }
            Ok(Some(Reply::Progress { .. })) => {}
            Ok(Some(_) | None) | Err(_) => break,
        }
    }
    let has_closed = old.wait_for_close(EXIT_TIME_MAX);
    let began = Instant::now();
    loop {
        match Connection::open(&client.home)?.map(word_of) {
            Some(Ok(Some(Health { pid, version, image, .. }))) => {
                if image.is_some() && (pid, image) == (before.pid, before.image) {
                    return Err(not_replaced(client, how, has_closed, told));
                }
                let text = format!("daemon: {how} (pid {pid}, version {version})");
                return print(&text).map(|()| code::DONE);
            }
            // It was asked for long enough.
            Some(Err(failure)) if began.elapsed() > EXIT_TIME_MAX => return Err(failure),
            Some(Ok(None)) if began.elapsed() > EXIT_TIME_MAX => return Err(client.away()),
            Some(_) | None => {}
        }
        if began.elapsed() > UPGRADE_TIME_MAX {
            return Err(client.away());
        }
        // An exec goes on being this process. The socket of a daemon that made it anew may be away
        // for an instant, and nothing tells when it is back.
        let Some(process) = &process else {
            std::thread::sleep(RETRY);
            continue;
        };
        if is_readable(process, RETRY) {
            // It died on the way: what was wished for is a running daemon all the same.
            let text = format!("daemon: it was gone; started (pid {})", launch(client, &[])?.pid);
            return match binary.filter(|binary| Path::new(binary) != own_program()) {
                Some(binary) => Err(Failure::plain(format!("{text}, not {binary}"))),
                None => print(&text).map(|()| code::DONE),
            };
        }
    }
}

/// The same image answers: it has closed the connection for an exec that failed, or it waits.
fn not_replaced(client: &Client, how: &str, has_closed: bool, told: u64) -> Failure {
    if has_closed {
        let last = last_line(&client.home, told).unwrap_or_default();
        let why = last.find("cannot execute").and_then(|at| last.get(at..)).map(str::to_owned);
        let log = client.home.join("daemon.log");
        let why = why.unwrap_or_else(|| format!("see {}", log.display()));
        return Failure::plain(format!("daemon: not {how}: {why}"));
    }
    let list = Request::List { usage: false };
    let rows: Vec<Row> = ask(client, Need::Running, &list).ok().flatten().unwrap_or_default();
    let starting = rows.iter().filter(|row| row.pid.is_some() && row.status != Status::Online);
    let names: Vec<&str> = starting.map(|row| row.name.as_str()).collect();
    let whom = if names.is_empty() { "a service".to_owned() } else { names.join(", ") };
    let text = format!("daemon: not {how} yet: {whom} was not exec'd so far (stop it, or wait)");
    Failure::new(code::TIMED_OUT, text)
}

pub(super) fn doctor(call: &Call) -> Done {
    let findings = ask(&call.client, Need::Daemon, &Request::Doctor)?;
    let findings: Vec<Finding> = findings.ok_or_else(|| call.client.away())?;
    show(call.json(), &findings, |findings| render::doctor(findings)).map(|()| code::DONE)
}
