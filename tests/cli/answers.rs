//! What the daemon of the tests answers: three services, of which only `web` can be named.
use opm::service::context::Attributes;
use opm::service::spec::Spec;
use opm::wire::{
    Event, Finding, Health, Identity, Info, LastExit, LogFiles, Options, Outcome, Reply, Request,
    Row, Status, Until,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Another one after each upgrade.
static IMAGE: AtomicU64 = AtomicU64::new(60_000);

pub(crate) fn row(id: u32, name: &str, status: Status) -> Row {
    let up = status == Status::Online;
    Row {
        id,
        name: name.into(),
        pid: up.then_some(4242),
        uptime_ms: up.then_some(93_784_000),
        restarts: 3,
        status,
        cpu_percent: up.then_some(12.34),
        memory_bytes: up.then_some(52_428_800),
        watching: false,
        processes: up.then_some(2),
        generation: 17,
        adopted: false,
        why: match status {
            Status::Waiting => Some("exit 3, restart in 58m".into()),
            Status::Errored => Some("signal KILL, 11 quick deaths".into()),
            _ => None,
        },
        ready: up,
        next_at: (status == Status::Waiting).then(|| "2026-01-02T03:04:07.000Z".into()),
        command: "node server.js".into(),
        cwd: "/srv/app".into(),
        instance_of: None,
    }
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row(0, "web", Status::Online),
        row(1, "a-name-that-is-rather-long-for-a-table", Status::Waiting),
        row(10, "日本", Status::Errored),
    ]
}

pub(crate) fn info(row: Row) -> Info {
    let up = row.status == Status::Online;
    Info {
        kept: Vec::new(),
        pids: if up { vec![4242, 4243] } else { vec![] },
        started_at: up.then(|| "2026-01-02T03:04:05.006Z".into()),
        last_exit: Some(LastExit {
            code: None,
            signal: Some("KILL".into()),
            by: Some("opm".into()),
            oom: false,
            at: Some("2026-01-02T03:04:04.000Z".into()),
            lived_ms: None,
        }),
        pattern: "server.js".into(),
        options: Options {
            policy: Spec::new("web".into(), vec!["x".into()], "/".into()).options(),
            origins: BTreeMap::new(),
        },
        attributes: attributes(up),
        log_out: Some("/home/u/.opm/logs/web-out.log".into()),
        log_error: Some("/home/u/.opm/logs/web-error.log".into()),
        identity: up.then(|| Identity {
            boot_id: "b".into(),
            pid_namespace: 1,
            pid: 4242,
            start_time: Some(99),
            pidfd_inode: Some(7),
        }),
        memory_by: None,
        failed_restarts: 1,
        last_restart_at: None,
        env_keys: vec!["PATH".into(), "SECRET".into()],
        cgroup: None,
        done: false,
        status_text: None,
        note: (!up).then(|| "nofile 600 instead of 700".into()),
        row,
    }
}

/// The usual ones, or others.
fn attributes(usual: bool) -> Attributes {
    let mut attributes = Attributes::default();
    if !usual {
        attributes.umask = 0o027;
        attributes.nice = 5;
        attributes.limits[4] = Some(u64::MAX);
        attributes.limits[7] = Some(512);
    }
    attributes
}

pub(crate) fn event(event: &str) -> Event {
    Event {
        at: "2026-01-02T03:04:05.006Z".into(),
        event: event.into(),
        service: "web".into(),
        id: 0,
        generation: 17,
        pid: Some(4242),
        code: (event == "exited").then_some(1),
        signal: None,
        by: None,
        oom: false,
        reason: None,
    }
}

pub(crate) fn outcome(code: u8, text: &str) -> Outcome {
    Outcome { code, text: text.into(), warnings: vec![] }
}

pub(crate) fn done(outcomes: Vec<Outcome>) -> Vec<Reply> {
    vec![Reply::Outcomes { outcomes, summary: None }]
}

pub(crate) fn no_such(target: &str) -> Vec<Reply> {
    done(vec![outcome(3, &format!("no such service: {target} (try 'opm ls')"))])
}

/// Answers every request about `web` well, and knows no other service.
pub(crate) fn answer(request: &Request) -> Vec<Reply> {
    let target = match request {
        Request::Start { target, .. }
        | Request::Stop { target, .. }
        | Request::Restart { target }
        | Request::Remove { target }
        | Request::Signal { target, .. }
        | Request::Reset { target }
        | Request::Info { target }
        | Request::Env { target }
        | Request::Logs { target }
        | Request::Flush { target }
        | Request::Wait { target, .. } => target.as_str(),
        _ => "web",
    };
    if !matches!(target, "web" | "0" | "all" | "web,nope") {
        return no_such(target);
    }
    match request {
        Request::Stop { .. } if target == "web,nope" => done(vec![
            outcome(0, "web: stopped"),
            outcome(3, "no such service: nope (try 'opm ls')"),
        ]),
        Request::Wait { until: Until::Errored, .. } => {
            done(vec![outcome(6, "web: still online after 1s")])
        }
        Request::Wait { .. } => done(vec![outcome(0, "web: online")]),
        Request::Signal { signal: 9, .. } => {
            done(vec![Outcome { warnings: vec!["it dies".into()], ..outcome(0, "web: sent KILL") }])
        }
        Request::Restore { .. } => vec![Reply::Outcomes {
            outcomes: vec![outcome(0, "web: already running (pid 4242)")],
            summary: Some("restored 1: 1 already running, 0 started".into()),
        }],
        Request::Leave { .. } => done(vec![outcome(0, "daemon: stopped; 1 service keeps running")]),
        Request::Upgrade { binary: Some(_) } => {
            vec![Reply::Failed { code: 1, text: "daemon: that is no opm".into() }]
        }
        Request::Upgrade { binary: None } => {
            IMAGE.fetch_add(1, Ordering::Relaxed);
            vec![]
        }
        Request::Save => done(vec![outcome(0, "saved 3 services")]),
        _ => tell(request, target),
    }
}

/// What is asked to be said, and `done` for the rest.
fn tell(request: &Request, target: &str) -> Vec<Reply> {
    match request {
        Request::List { usage, .. } => vec![Reply::List(
            rows()
                .into_iter()
                .map(|row| Row {
                    cpu_percent: row.cpu_percent.filter(|_| *usage),
                    memory_bytes: row.memory_bytes.filter(|_| *usage),
                    ..row
                })
                .collect(),
        )],
        Request::Info { .. } if target == "all" => {
            vec![Reply::Info(rows().into_iter().map(info).collect())]
        }
        Request::Info { .. } => vec![Reply::Info(vec![info(row(0, "web", Status::Online))])],
        Request::Logs { .. } => {
            let (out, error) = (Some("/o".into()), Some("/e".into()));
            vec![Reply::Logs(vec![LogFiles { id: 0, name: "web".into(), out, error }])]
        }
        Request::Env { .. } => {
            let env = [("PATH", "/bin"), ("SECRET", "two\nlines")];
            let env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
            vec![Reply::Env(vec![("web".into(), env)])]
        }
        Request::Events { follow: false } => {
            vec![Reply::Events(vec![event("exited"), event("drained")])]
        }
        Request::Events { follow: true } => {
            vec![Reply::Event(event("exited")), Reply::Event(event("drained"))]
        }
        Request::Health => vec![Reply::Health(Health {
            pid: 77,
            uptime_ms: 61_000,
            memory_bytes: 3 << 20,
            services: 3,
            online: 1,
            version: "0.1.0".into(),
            protocol: 1,
            home: "/home/u/.opm".into(),
            image: Some(IMAGE.load(Ordering::Relaxed)),
        })],
        Request::Doctor => vec![Reply::Doctor(vec![
            Finding {
                level: "ok".into(),
                subject: "pidfd".into(),
                text: "inodes are unique".into(),
                advice: String::new(),
            },
            Finding {
                level: "problem".into(),
                subject: "/proc".into(),
                text: "hidepid is set".into(),
                advice: "mount it with hidepid=0".into(),
            },
        ])],
        _ => done(vec![outcome(0, &format!("{target}: done"))]),
    }
}
