//! The commands about services that exist: one request, and its reply said.
use super::client::{Client, Need};
use super::output::{Done, Failure, error, print, print_json, print_outcomes, show, warn, write};
use super::pick::{Filter, Sort};
use super::request::{Call, Found, NO_SERVICES, act, act_on, ask, collect, outcomes, strange};
use super::table::Look;
use super::{environment, file, info, jlist, logs, pm2, poll, render, start, top};
use crate::service::signal::Signal;
use crate::service::spec::{Env, Spec};
use crate::service::units::Span;
use crate::wire::{
    Event, Existing, Info, LogFiles, Outcome, Reply, Request, Row, Scale, Status, Until, code,
};
use serde_json::{Value, json};

pub(super) fn stop(call: &Call) -> Done {
    let dependants = call.flag("with-dependants");
    act(call, |target| Request::Stop { target, dependants })
}

pub(super) fn restart(call: &Call) -> Done {
    if let Some(done) = file::anew(call, Existing::Replace) {
        return done;
    }
    let target = start::change(call)?;
    environment::update(call, &target, |_| true)?;
    // What is down is not restarted, to PM2, and counts no restart.
    if call.client.is_pm2 && !pm2::is_up(&call.client, &target)? {
        return act_on(call, target, |target| Request::Start { target, force: false, wait: false });
    }
    act_on(call, target, |target| Request::Restart { target })
}

pub(super) fn reload(call: &Call) -> Done {
    if let Some(done) = file::anew(call, Existing::Roll) {
        return done;
    }
    let target = start::change(call)?;
    environment::update(call, &target, |_| true)?;
    act_on(call, target, |target| Request::Reload { target })
}

/// Asks for what goes before another request, of which it says nothing unless all of it fails.
pub(super) fn asked(call: &Call, request: Request) -> Result<(), Failure> {
    match call.client.request(Need::Record, &request)? {
        Some(Reply::Outcomes { outcomes, .. })
            if !outcomes.is_empty() && outcomes.iter().all(|one| one.code != code::DONE) =>
        {
            Err(Failure::new(print_outcomes(&outcomes)?, ""))
        }
        _ => Ok(()),
    }
}

pub(super) fn scale(call: &Call) -> Done {
    let to = call.matches.get_one::<Scale>("count").copied().unwrap_or(Scale::More(0));
    let group = call.text("name").to_owned();
    outcomes(&call.client.demand(&Request::Scale { group, to })?)
}

pub(super) fn signal(call: &Call) -> Done {
    let signal = call.matches.get_one::<Signal>("signal").copied().unwrap_or(Signal::TERM);
    let (signal, tree) = (signal.number(), call.flag("tree"));
    act(call, |target| Request::Signal { target, signal, tree })
}

pub(super) fn wait(call: &Call) -> Done {
    let until = serde_json::from_value(call.text("for").into()).unwrap_or(Until::Online);
    let timeout_ms = call.matches.get_one::<Span>("timeout").map(|span| span.ms);
    act(call, |target| Request::Wait { target, until, timeout_ms })
}

pub(super) fn list(call: &Call) -> Done {
    // Who names or filters some wants each of them.
    let is_all = call.target() == "all" && !call.matches.contains_id("filter");
    let table = if is_all && !call.flag("unfold") { render::folded } else { render::list };
    if call.flag("watch") {
        return top::watch(|look| chosen(call).map(|(rows, _)| table(&rows, look)));
    }
    let (rows, worst) = chosen(call)?;
    if call.client.is_pm2 && !call.json() {
        return jlist::list(&rows).map(|()| worst);
    }
    if rows.is_empty() && !call.matches.contains_id("filter") {
        error(NO_SERVICES);
    }
    show(call.json(), &rows, |rows| table(rows, look())).map(|()| worst)
}

fn chosen(call: &Call) -> Result<Found<Row>, Failure> {
    let mut rows = rows(&call.client, !call.flag("no-usage"))?;
    let mut worst = code::DONE;
    if call.target() != "all" {
        let (files, code) = logs::told(call, Need::Record)?;
        rows.retain(|row| files.iter().any(|file| file.id == row.id));
        worst = code;
    }
    for filter in call.matches.get_many::<Filter>("filter").into_iter().flatten() {
        rows.retain(|row| filter.shows(row));
    }
    if let Some(sort) = call.matches.get_one::<Sort>("sort") {
        sort.apply(&mut rows);
    }
    Ok((rows, worst))
}

pub(super) fn rows(client: &Client, usage: bool) -> Result<Vec<Row>, Failure> {
    Ok(ask(client, Need::Record, &Request::List { usage })?.unwrap_or_default())
}

/// What stdout can show.
pub(super) fn look() -> Look {
    let out = rustix::stdio::stdout();
    if !rustix::termios::isatty(out) {
        return Look { width: None, colour: false, boxed: false };
    }
    let columns = rustix::termios::tcgetwinsize(out).map_or(0, |size| usize::from(size.ws_col));
    let plain = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    // A terminal that doesn't know its width (a serial line) says 0.
    let width = Some(if columns == 0 { 80 } else { columns });
    Look { width, colour: !plain("NO_COLOR") && !dumb, boxed: true }
}

pub(super) fn infos(call: &Call) -> Result<Found<Info>, Failure> {
    collect(call, Need::Record, |target| Request::Info { target }, |info: &Info| info.row.id)
}

pub(super) fn info(call: &Call) -> Done {
    let (infos, worst) = infos(call)?;
    if call.client.is_pm2 && !call.json() {
        let specs = specs(call, call.target())?;
        return jlist::describe(&infos, &specs).map(|()| worst);
    }
    show(call.json(), &infos, |infos| info::info(infos, look())).map(|()| worst)
}

pub(super) fn specs(call: &Call, target: String) -> Result<Vec<Spec>, Failure> {
    Ok(ask(&call.client, Need::Record, &Request::Export { target })?.unwrap_or_default())
}

pub(super) fn command(call: &Call) -> Done {
    let (infos, worst) = infos(call)?;
    let lines: String = infos.iter().map(|info| format!("{}\n", info.row.command)).collect();
    write(lines.as_bytes()).map(|()| worst)
}

pub(super) fn env(call: &Call) -> Done {
    let request = |target| Request::Env { target };
    let name = |(name, _): &(String, Env)| name.clone();
    let (services, worst) = collect(call, Need::Record, request, name)?;
    if !call.json() {
        return write(render::env(&services).as_bytes()).map(|()| worst);
    }
    let object = |(name, env): (String, Env)| json!({"name": name, "env": Value::from_iter(env)});
    print_json(&services.into_iter().map(object).collect::<Vec<_>>()).map(|()| worst)
}

/// What `events` says of none.
const NO_EVENTS: &str = "no events yet";

pub(super) fn events(call: &Call) -> Done {
    let (json, follow) = (call.json(), call.flag("follow"));
    let is_bounded = call.matches.contains_id("target");
    let wanted = is_bounded.then(|| logs::told(call, Need::Record)).transpose()?;
    let worst = wanted.as_ref().map_or(code::DONE, |(_, worst)| *worst);
    let need = if follow { Need::Daemon } else { Need::Record };
    let Some(mut connection) = call.client.connect(need)? else {
        error(NO_EVENTS);
        return Ok(code::DONE);
    };
    connection.send(&Request::Events { follow })?;
    let is_wanted = |event: &Event| {
        let is_it = |file: &LogFiles| file.name == event.service;
        wanted.as_ref().is_none_or(|(files, _)| files.iter().any(is_it))
    };
    let look = look();
    let tell = |event: &Event| {
        if !is_wanted(event) {
            return Ok(());
        }
        if json { print_json(event) } else { print(&render::event(event, look)) }
    };
    loop {
        // A reader that leaves while nothing happens must not keep this command alive.
        if follow && !connection.has_reply() && !poll::wait(&[connection.fd()], None)? {
            return Ok(worst);
        }
        match connection.next()? {
            Some(Reply::Event(event)) => tell(&event)?,
            Some(Reply::Events(events)) => {
                events.iter().try_for_each(tell)?;
                if !events.iter().any(is_wanted) {
                    error(NO_EVENTS);
                }
                return Ok(worst);
            }
            Some(Reply::Failed { code, text }) => return Err(Failure::new(code, text)),
            Some(Reply::Progress { .. }) => {}
            Some(reply) => return outcomes(&reply),
            None if follow => return Ok(worst),
            None => return Err(call.client.away()),
        }
    }
}

pub(super) fn save(call: &Call) -> Done {
    if call.client.is_pm2 && !call.flag("force") && rows(&call.client, false)?.is_empty() {
        warn("no services: the list that was saved stays (--force to empty it)");
        return Ok(code::DONE);
    }
    outcomes(&call.client.demand(&Request::Save)?)
}

/// What became of each service, then the list, then the summary.
pub(super) fn restore(call: &Call) -> Done {
    let force = call.flag("force");
    let reply = call.client.demand(&Request::Restore { force })?;
    let Reply::Outcomes { outcomes, summary } = reply else {
        return Err(strange());
    };
    let worst = print_outcomes(&outcomes)?;
    write(render::list(&rows(&call.client, true)?, look()).as_bytes())?;
    if let Some(summary) = summary {
        print(&summary)?;
    }
    Ok(worst)
}

/// A probe: never starts a daemon, since a service without one isn't supervised.
pub(super) fn health(call: &Call) -> Done {
    let request = Request::Info { target: call.target() };
    let infos: Option<Vec<Info>> = ask(&call.client, Need::Running, &request)?;
    let infos = infos.ok_or_else(|| call.client.away())?;
    if infos.is_empty() {
        return Err(Failure::plain("no services"));
    }
    let outcome = |Info { row, done, .. }: &Info| {
        let (code, state) = match (row.status, row.ready) {
            (Status::Online, true) => (code::DONE, "online, ready"),
            (Status::Online, false) => (code::FAILED, "online, not ready"),
            _ if *done => (code::DONE, "has done its work"),
            (status, _) => (code::FAILED, status.word()),
        };
        let text = format!("{}: {state}", row.name);
        Outcome { code, text, warnings: Vec::new() }
    };
    print_outcomes(&infos.iter().map(outcome).collect::<Vec<_>>())
}
