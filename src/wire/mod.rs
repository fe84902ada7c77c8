//! What goes over the socket: requests, replies, and frames around them.
//!
//! One frame is a little-endian `u32` length and that many bytes of JSON. A connection carries
//! one request, then replies until one that is final. Nothing here does I/O.
pub mod code;
mod failure;
pub mod file;
pub mod frame;
#[cfg(test)]
#[path = "../../tests/inner/wire.rs"]
mod tests;
mod without_keys;

pub use failure::Failure;

use crate::service::context::{Attributes, Context};
pub use crate::service::instances::Scale;
use crate::service::json;
use crate::service::spec::{Change, Env, Id, Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What goes over the socket and into the home's files. Rises with each key that is added: a
/// side that knows less refuses what it does not know.
pub const PROTOCOL: u32 = 6;

/// What becomes of a service that is defined anew under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// It stays as it is, and the request fails; a new one whose first exec failed is not kept.
    Refused,
    /// It is started, if nothing differs; else the request fails.
    Same,
    /// It stays as it is, if nothing differs; else the request fails. What is new is not started.
    Stopped,
    /// It gets the definition, and is restarted.
    Replace,
    /// The same, one after the other, as by `Reload`.
    Roll,
    /// Nothing is defined: what would be refused fails.
    Checked,
}

/// What a command asks of the daemon. A `target` is text as the operator wrote it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Make existing services up. Answers when exec'd or failed; with `wait` when ready.
    Start {
        target: String,
        force: bool,
        #[serde(default)]
        wait: bool,
    },
    /// Define services and start them.
    Define {
        specs: Vec<Spec>,
        base: Box<Context>,
        force: bool,
        existing: Existing,
        #[serde(default)]
        wait: bool,
    },
    /// From their next start on services get this environment, and the `.env` of their directory.
    Update {
        services: Vec<(String, Env)>,
        #[serde(deserialize_with = "json::list")]
        env: Env,
    },
    /// Services get this definition from their next start on; `now` is that of those that live.
    Adjust {
        target: String,
        change: Box<Change>,
        now: bool,
    },
    /// `dependants`: those that depend on it, too. Else it is refused where there are any.
    Stop {
        target: String,
        #[serde(default)]
        dependants: bool,
    },
    Restart {
        target: String,
    },
    /// As `Restart`, but one after the other: each is ready before the next.
    Reload {
        target: String,
    },
    /// More or fewer instances of a group.
    Scale {
        group: String,
        to: Scale,
    },
    Remove {
        target: String,
    },
    Signal {
        target: String,
        signal: i32,
        tree: bool,
    },
    Reset {
        target: String,
    },
    List {
        usage: bool,
    },
    Info {
        target: String,
    },
    /// Why services are where they are.
    Why {
        target: String,
    },
    Env {
        target: String,
    },
    /// The definitions.
    Export {
        target: String,
    },
    /// The paths of the log files.
    Logs {
        target: String,
    },
    Flush {
        target: String,
    },
    Events {
        follow: bool,
    },
    /// `until`: `online`, `ready`, `stopped`, `errored` or `removed`.
    Wait {
        target: String,
        until: Until,
        timeout_ms: Option<u64>,
    },
    Save,
    Restore {
        force: bool,
    },
    Health,
    Doctor,
    /// A daemon that a service of ours started is no part of it, and tells its own home's key.
    Depart {
        home_key: Option<u64>,
    },
    /// The daemon leaves. `services`: stop them first.
    Leave {
        services: bool,
    },
    /// Replace the daemon in place; `binary` is checked first, none is the running one.
    Upgrade {
        binary: Option<String>,
    },
}

impl Request {
    /// Whether it may wait for long, and says what is to be true: asked again, it does no more.
    pub fn may_be_repeated(&self) -> bool {
        matches!(
            self,
            Self::Start { .. }
                | Self::Stop { .. }
                | Self::Restart { .. }
                | Self::Remove { .. }
                | Self::Wait { .. }
                | Self::Restore { .. }
                | Self::Leave { services: true }
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    Online,
    Ready,
    Stopped,
    Errored,
    /// Only `logs -f` waits for it.
    Removed,
}

/// What the daemon answers. Every request ends with exactly one final reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Not final: how far a long request is.
    Progress {
        done: usize,
        total: usize,
    },
    /// Not final: one event as it happens.
    Event(Event),
    /// Final: a line for every target, and a summary (restore) if there is one.
    Outcomes {
        outcomes: Vec<Outcome>,
        summary: Option<String>,
    },
    List(#[serde(with = "without_keys")] Vec<Row>),
    Info(Vec<Info>),
    Why(Vec<Why>),
    Env(Vec<(String, Env)>),
    Specs(Vec<Spec>),
    Logs(Vec<LogFiles>),
    Events(Vec<Event>),
    Health(Health),
    Doctor(Vec<Finding>),
    /// Final: the request as a whole failed; `code` is the exit code, `text` one line
    /// `subject: reason (what to do)` without the leading `opm: `.
    Failed {
        code: u8,
        text: String,
    },
}

impl Reply {
    /// Whether this reply ends its request.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Progress { .. } | Self::Event(_))
    }
}

/// What became of one target. `code` 0: `text` says what is true now (`web: online (pid 12)`),
/// printed on stdout; else one error line without `opm: `, printed on stderr.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub code: u8,
    pub text: String,
    /// Warnings, without `opm: `; they go to stderr and do not change the code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Online,
    Starting,
    Stopping,
    Waiting,
    Stopped,
    Errored,
}

impl Status {
    /// The status word of the contract.
    pub fn word(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
            Self::Errored => "errored",
        }
    }
}

/// One element of `ls --format json`, exactly.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub id: Id,
    pub name: String,
    pub pid: Option<i32>,
    pub uptime_ms: Option<u64>,
    pub restarts: u64,
    pub status: Status,
    pub cpu_percent: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub watching: bool,
    pub processes: Option<u32>,
    pub generation: u64,
    pub adopted: bool,
    /// Why it is not plainly online, if there is something to say.
    pub why: Option<String>,
    pub ready: bool,
    /// RFC 3339: when it is started again, while it waits for that.
    pub next_at: Option<String>,
    pub command: String,
    pub cwd: String,
    /// The group that it is an instance of: for people's tables.
    #[serde(skip)]
    pub instance_of: Option<String>,
}

/// One element of `info --format json`, exactly: a row and more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    #[serde(flatten)]
    pub row: Row,
    pub pids: Vec<i32>,
    /// What earlier incarnations left behind, and was let go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<i32>,
    /// RFC 3339.
    pub started_at: Option<String>,
    pub last_exit: Option<LastExit>,
    pub pattern: String,
    #[serde(flatten)]
    pub options: Options,
    /// Of the definer's limits those that are not the daemon's own.
    #[serde(flatten)]
    pub attributes: Attributes,
    /// None: its output is that of an `opm run`.
    pub log_out: Option<String>,
    pub log_error: Option<String>,
    pub identity: Option<Identity>,
    /// How its memory is measured against what it may have: `pss` or `rss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_by: Option<String>,
    /// Quick deaths in a row so far.
    pub failed_restarts: u32,
    pub last_restart_at: Option<String>,
    /// Names only: values are secrets.
    pub env_keys: Vec<String>,
    pub cgroup: Option<String>,
    /// It has ended, as its policy says that it may: nothing is wrong with it.
    pub done: bool,
    /// What it says of itself.
    pub status_text: Option<String>,
    /// What else an operator should know of it.
    pub note: Option<String>,
}

/// The options of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// As [`Spec::options`] gives them.
    pub policy: Map<String, Value>,
    /// Where the value of each comes from that is not the default.
    #[serde(default)]
    pub origins: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LastExit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// `opm`, if that was its SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The kernel killed it for want of memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    pub at: Option<String>,
    /// How long it had lived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lived_ms: Option<u64>,
}

/// What the daemon knows of why a service is where it is: all about it, and more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Why {
    #[serde(flatten)]
    pub info: Info,
    /// RFC 3339.
    pub since: Option<String>,
    pub for_ms: Option<u64>,
    /// An operator stopped it.
    pub halted: bool,
    /// The newest last.
    pub deaths: Vec<LastExit>,
    /// What of its last incarnation lives, and keeps the next one from starting.
    pub waits_for: Vec<Process>,
    /// The service that it waits for before it starts.
    #[serde(default)]
    pub dependency: Option<Dependency>,
    /// What it is asked before it is ready, or does not answer well while it is.
    #[serde(default)]
    pub probe: Option<Asked>,
    /// What is next is by its schedule.
    #[serde(default)]
    pub by_cron: bool,
    /// PORT of its environment.
    pub port: Option<u16>,
}

/// A service that another one waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// None: there is no such service.
    pub status: Option<Status>,
    pub why: Option<String>,
}

/// What a service is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// `ready` or `health`.
    pub question: String,
    /// As the option says it.
    pub probe: String,
    /// None: there was none yet, or a good one.
    pub answer: Option<String>,
}

/// A process, and what it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Empty: it can't be read.
    pub command: String,
    /// It is one of the service's, and is signalled. Else it may be.
    pub is_sure: bool,
}

/// How the leader is told from every other process, ever.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub boot_id: String,
    pub pid_namespace: u64,
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_time: Option<u64>,
    pub pidfd_inode: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogFiles {
    pub id: Id,
    pub name: String,
    /// None: its output is that of an `opm run`.
    pub out: Option<String>,
    pub error: Option<String>,
}

/// One line of `events --format json`, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// RFC 3339 with milliseconds, UTC.
    pub at: String,
    /// `spawned ready exited drained waiting stopped errored adopted refused`.
    pub event: String,
    pub service: String,
    pub id: Id,
    pub generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// `opm`, if that was its SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The kernel killed it for want of memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `daemon health --format json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    pub pid: i32,
    pub uptime_ms: u64,
    pub memory_bytes: u64,
    pub services: usize,
    pub online: usize,
    pub version: String,
    /// [`PROTOCOL`]; 0 before it was said.
    #[serde(default)]
    pub protocol: u32,
    pub home: String,
    /// A number that no other image of the same process has; older daemons don't say.
    pub image: Option<u64>,
}

/// One line of `doctor`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// `ok`, `note` or `problem`.
    pub level: String,
    pub subject: String,
    pub text: String,
    /// What to do; empty if nothing.
    pub advice: String,
}
