//! How replies, and the services in requests, are read from JSON; serde derives the rest.
//!
//! Replies are read through [`FromValue`], which is a tenth of the code. What the daemon reads may
//! cost it a few times its size and no more, whoever wrote it: requests are derived, and their
//! services read one at a time.
use super::tree::Tree;
use super::{
    Event, Finding, Health, Identity, Info, LastExit, LogFiles, Outcome, Reply, Row, Status,
};
use crate::service::context::Attributes;
use crate::service::spec::{Spec, WORDS_MAX};
use crate::service::value::{Fields, FromValue, WHOLE, Wrong, by_value, from_fields};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

by_value!(Reply, Outcome, Row, Info, LastExit, Identity, LogFiles, Event, Health, Finding);
from_fields!(Row {
    id,
    name,
    pid,
    uptime_ms,
    restarts,
    status,
    cpu_percent,
    memory_bytes,
    watching,
    processes,
    generation,
    adopted,
    command,
    cwd,
    next_at,
});
from_fields!(LastExit { code, signal, by, at });
from_fields!(Identity { boot_id, pid_namespace, pid, start_time, pidfd_inode });
from_fields!(LogFiles { id, name, out, error });
from_fields!(Event { at, event, service, id, generation, pid, code, signal, by, reason });
from_fields!(Finding { level, subject, text, advice });

impl FromValue for Outcome {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        let mut fields = Fields::of(value)?;
        Ok(Self {
            code: fields.take("code")?,
            text: fields.take("text")?,
            warnings: fields.or("warnings", Vec::new())?,
        })
    }
}

impl FromValue for Health {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        let mut fields = Fields::of(value)?;
        Ok(Self {
            pid: fields.take("pid")?,
            uptime_ms: fields.take("uptime_ms")?,
            memory_bytes: fields.take("memory_bytes")?,
            services: fields.take("services")?,
            online: fields.take("online")?,
            version: fields.take("version")?,
            protocol: fields.or("protocol", 0)?,
            home: fields.take("home")?,
            image: fields.take("image")?,
        })
    }
}

impl FromValue for Info {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        let mut fields = Fields::of(value)?;
        Ok(Self {
            attributes: Attributes::take(&mut fields)?,
            pids: fields.take("pids")?,
            started_at: fields.take("started_at")?,
            last_exit: fields.take("last_exit")?,
            ready: fields.take("ready")?,
            pattern: fields.take("pattern")?,
            policy: fields.take("policy")?,
            log_out: fields.take("log_out")?,
            log_error: fields.take("log_error")?,
            identity: fields.take("identity")?,
            failed_restarts: fields.take("failed_restarts")?,
            last_restart_at: fields.take("last_restart_at")?,
            env_keys: fields.take("env_keys")?,
            cgroup: fields.take("cgroup")?,
            done: fields.or("done", false)?,
            note: fields.take("note")?,
            row: Row::from_value(fields.rest())?,
        })
    }
}

impl FromValue for Status {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        value.as_str().and_then(Self::of_word).ok_or(WHOLE)
    }
}

impl FromValue for Reply {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        let (kind, value) = Fields::only(value)?;
        Ok(match kind.as_str() {
            "event" => Self::Event(FromValue::from_value(value)?),
            "list" => Self::List(FromValue::from_value(value)?),
            "table" => Self::Table(FromValue::from_value(value)?),
            "info" => Self::Info(FromValue::from_value(value)?),
            "env" => Self::Env(FromValue::from_value(value)?),
            "logs" => Self::Logs(FromValue::from_value(value)?),
            "events" => Self::Events(FromValue::from_value(value)?),
            "health" => Self::Health(FromValue::from_value(value)?),
            "doctor" => Self::Doctor(FromValue::from_value(value)?),
            kind => {
                let mut fields = Fields::of(value)?;
                match kind {
                    "progress" => {
                        Self::Progress { done: fields.take("done")?, total: fields.take("total")? }
                    }
                    "outcomes" => Self::Outcomes {
                        outcomes: fields.take("outcomes")?,
                        summary: fields.take("summary")?,
                    },
                    "failed" => {
                        Self::Failed { code: fields.take("code")?, text: fields.take("text")? }
                    }
                    _ => return Err(WHOLE),
                }
            }
        })
    }
}

/// Most values of one service: its words and variables, each with what is around it.
const SPEC_VALUES_MAX: usize = 5 * WORDS_MAX;

/// The services of a request, one by one: a tree of values takes many times the text, so that it
/// is made for one at a time, and of a bounded size.
pub(super) fn specs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Spec>, D::Error> {
    struct Specs;
    impl<'de> Visitor<'de> for Specs {
        type Value = Vec<Spec>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("services")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Vec<Spec>, A::Error> {
            let mut specs = Vec::new();
            let mut left = SPEC_VALUES_MAX;
            while let Some(value) = all.next_element_seed(Tree { left: &mut left, once: false })? {
                specs.push(Spec::from_value(value).map_err(A::Error::custom)?);
                left = SPEC_VALUES_MAX;
            }
            Ok(specs)
        }
    }
    from.deserialize_seq(Specs)
}

#[cfg(test)]
mod tests {
    use super::super::{Request, Until};
    use super::*;
    use crate::service::spec::Policy;

    fn spec() -> Spec {
        Spec {
            name: "web".into(),
            command: vec!["node".into(), "a b".into()],
            cwd: "/srv".into(),
            env: vec![("K".into(), "v".into())],
            dotenv: vec![("D".into(), "d".into())],
            critical: true,
            policy: Policy { max_restarts: 3, min_uptime: 1, ..Policy::default() },
        }
    }

    fn requests() -> Vec<Request> {
        let target = || "web".to_owned();
        vec![
            Request::Start { target: target(), force: true },
            Request::Define {
                specs: vec![spec(), spec()],
                base: Box::new(vec![("A".into(), "ü\u{0}\"".into())].into()),
                force: false,
                keep: true,
            },
            Request::Update {
                services: vec![("web".into(), vec![("D".into(), "d".into())])],
                env: vec![("A".into(), "b".into())],
            },
            Request::Stop { target: target() },
            Request::Restart { target: target() },
            Request::Remove { target: target() },
            Request::Signal { target: target(), signal: 15, tree: true },
            Request::Reset { target: target() },
            Request::List { usage: true, table: false },
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
            processes: Some(2),
            generation: 9,
            adopted: true,
            command: "node a".into(),
            cwd: "/".into(),
            next_at: Some("then".into()),
        }
    }

    fn info() -> Info {
        Info {
            row: row(),
            pids: vec![12, 13],
            started_at: Some("then".into()),
            last_exit: Some(LastExit {
                code: None,
                signal: Some("KILL".into()),
                by: Some("opm".into()),
                at: None,
            }),
            ready: true,
            pattern: "a".into(),
            policy: spec().policy,
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
            failed_restarts: 2,
            last_restart_at: None,
            env_keys: vec!["K".into()],
            cgroup: None,
            done: true,
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
            format!(r#"{{"define":{{"specs":[{spec}],"base":[],"force":false,"keep":true}}}}"#)
        };
        assert!(serde_json::from_str::<Request>(&long(WORDS_MAX)).is_ok());
        assert!(serde_json::from_str::<Request>(&long(SPEC_VALUES_MAX)).is_err());
        let strange = r#"{"stop":{"target":"web","tree":true}}"#;
        assert!(serde_json::from_str::<Request>(strange).is_err(), "dropped in silence");
        for text in ["{\"list\":[{}]}", "{\"health\":null}", "{\"failed\":[]}", "\"event\""] {
            assert!(serde_json::from_str::<Reply>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_status_has_its_own_word_in_json() {
        for status in Status::ALL {
            let text = serde_json::to_string(&status).unwrap();
            assert_eq!(text, format!("\"{}\"", status.word()));
        }
    }
}
