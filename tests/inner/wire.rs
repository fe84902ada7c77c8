//! Every message is read as it was written, and what is none is refused.
use super::*;
use crate::service::spec::{Forgiven, Policy, WORDS_MAX};
use crate::service::units::Span;

fn spec() -> Spec {
    Spec {
        env: vec![("K".into(), "v".into())],
        dotenv: vec![("D".into(), "d".into())].into(),
        policy: Policy {
            max_restarts: Forgiven(3),
            min_uptime: Span { ms: 1 },
            ..Policy::default()
        }
        .into(),
        ..Spec::new("web".into(), vec!["node".into(), "a b".into()], "/srv".into())
    }
}

fn requests() -> Vec<Request> {
    let target = || "web".to_owned();
    vec![
        Request::Start { target: target(), force: true, wait: true },
        Request::Define {
            specs: vec![spec(), spec()],
            base: Box::new(vec![("A".into(), "ü\u{0}\"".into())].into()),
            force: false,
            existing: Existing::Roll,
            wait: true,
        },
        Request::Update {
            services: vec![("web".into(), vec![("D".into(), "d".into())])],
            env: vec![("A".into(), "b".into())],
        },
        Request::Stop { target: target(), dependants: true },
        Request::Restart { target: target() },
        Request::Remove { target: target() },
        Request::Signal { target: target(), signal: 15, tree: true },
        Request::Reset { target: target() },
        Request::List { usage: true },
        Request::Info { target: target() },
        Request::Env { target: target() },
        Request::Logs { target: target() },
        Request::Flush { target: target() },
        Request::Events { follow: true },
        Request::Wait { target: target(), until: Until::Errored, timeout_ms: None },
        Request::Wait { target: target(), until: Until::Online, timeout_ms: Some(1 << 40) },
        Request::Save,
        Request::Restore { force: true },
        Request::Health,
        Request::Doctor,
        Request::Leave { services: true },
        Request::Upgrade { binary: None },
        Request::Upgrade { binary: Some("/opm".into()) },
    ]
}

fn row() -> Row {
    Row {
        id: 7,
        name: "web".into(),
        pid: Some(12),
        uptime_ms: None,
        restarts: u64::MAX,
        status: Status::Waiting,
        cpu_percent: Some(0.3),
        memory_bytes: None,
        watching: false,
        why: Some("not ready".into()),
        ready: false,
        processes: Some(2),
        generation: 9,
        adopted: true,
        command: "node a".into(),
        cwd: "/".into(),
        next_at: Some("then".into()),
        instance_of: None,
    }
}

fn info() -> Info {
    Info {
        row: row(),
        kept: Vec::new(),
        pids: vec![12, 13],
        started_at: Some("then".into()),
        last_exit: Some(LastExit {
            code: None,
            signal: Some("KILL".into()),
            by: Some("opm".into()),
            oom: true,
            at: None,
            lived_ms: None,
        }),
        pattern: "a".into(),
        options: Options {
            policy: spec().options(),
            origins: [("cron".to_owned(), "adjust".to_owned())].into(),
        },
        attributes: Attributes { umask: 0o77, nice: -1, ..Attributes::default() },
        log_out: Some("o".into()),
        log_error: None,
        identity: Some(Identity {
            boot_id: "b".into(),
            pid_namespace: 1,
            pid: 12,
            start_time: Some(3),
            pidfd_inode: None,
        }),
        memory_by: Some("pss".into()),
        failed_restarts: 2,
        last_restart_at: None,
        env_keys: vec!["K".into()],
        cgroup: None,
        done: true,
        status_text: Some("fine".into()),
        note: Some("n".into()),
    }
}

fn event() -> Event {
    Event {
        at: "now".into(),
        event: "exited".into(),
        service: "web".into(),
        id: 1,
        generation: 2,
        pid: Some(3),
        code: Some(-1),
        signal: None,
        by: None,
        oom: false,
        reason: None,
    }
}

fn replies() -> Vec<Reply> {
    let outcome = |warnings| Outcome { code: 3, text: "t".into(), warnings };
    let outcomes = vec![outcome(vec![]), outcome(vec!["w".into()])];
    let [name, out] = ["n", "o"].map(String::from);
    let (out, error) = (Some(out), None);
    let [level, subject, text, advice] = ["l", "s", "t", "a"].map(String::from);
    vec![
        Reply::Progress { done: 1, total: 2 },
        Reply::Event(event()),
        Reply::Outcomes { outcomes, summary: Some("s".into()) },
        Reply::List(vec![row(), row()]),
        Reply::Info(vec![info()]),
        Reply::Env(vec![("web".into(), vec![("K".into(), "v".into())])]),
        Reply::Logs(vec![LogFiles { id: 1, name, out, error }]),
        Reply::Events(vec![event()]),
        Reply::Health(Health {
            pid: 1,
            uptime_ms: 2,
            memory_bytes: 3,
            services: 4,
            online: 5,
            version: "6".into(),
            protocol: 8,
            home: "7".into(),
            image: Some(8),
        }),
        Reply::Doctor(vec![Finding { level, subject, text, advice }]),
        Reply::Failed { code: 4, text: "t".into() },
    ]
}

#[test]
fn every_request_and_reply_is_read_as_it_was_written() {
    for request in requests() {
        let text = serde_json::to_string(&request).unwrap();
        let read: Request = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{request:?}"), format!("{read:?}"), "{text}");
    }
    for reply in replies() {
        let text = serde_json::to_string(&reply).unwrap();
        let read: Reply = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{reply:?}"), format!("{read:?}"), "{text}");
    }
}

#[test]
fn what_is_neither_is_refused_and_never_a_panic() {
    for text in ["{}", "[]", "null", "1", "\"nope\"", "{\"nope\":{}}", "{\"stop\":{}}"] {
        assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
    }
    let long = |count: usize| {
        let words = vec!["\"\""; count].join(",");
        let spec = format!(r#"{{"name":"a","cwd":"/","command":[{words}]}}"#);
        let base = r#"{"env":[],"attributes":{"umask":"022","nice":0,"limits":{}}}"#;
        format!(
            r#"{{"define":{{"specs":[{spec}],"base":{base},"force":false,
            "existing":"same","wait":false}}}}"#
        )
    };
    assert!(serde_json::from_str::<Request>(&long(WORDS_MAX)).is_ok());
    assert!(serde_json::from_str::<Request>(&long(WORDS_MAX + 1)).is_err());
    let strange = r#"{"stop":{"target":"web","tree":true}}"#;
    assert!(serde_json::from_str::<Request>(strange).is_err(), "dropped in silence");
    for text in ["{\"list\":[{}]}", "{\"health\":null}", "{\"failed\":[]}", "\"event\""] {
        assert!(serde_json::from_str::<Reply>(text).is_err(), "{text}");
    }
}
