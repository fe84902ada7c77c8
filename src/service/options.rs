//! The options of a service, one row each. Whatever reads, writes or shows options loops over
//! [`OPTIONS`]: the command line, process files, the wire, the store, the dump, `info`.
//!
//! A row makes the option's field, its default and its entry in the table. What an option does
//! is not here.
use super::cron::Cron;
use super::instances::{Instances, PortRange};
use super::listen::Listen;
use super::probe::{Health, Sign};
use super::resources::{
    Account, Capabilities, CpuShare, Cpus, IoClass, Nice, OomScore, ResourceLimits, Umask, Written,
};
pub use super::setting::{BETWEEN_WORDS, Forgiven, WatchPath, text_of};
use super::setting::{Names, Setting};
use super::signal::Signal;
use super::spec::Spec;
use super::time::TimeFormat;
use super::units::{Bytes, Delay, Span};
use serde_json::Value;

/// What an option is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// When it comes back, and how it is stopped: `info` shows these of every service, and the
    /// others where they are not the default.
    Policy,
    /// What else makes it start, restart or stop.
    Care,
    /// What its processes are given.
    Process,
    /// By what it is told that it is ready and well, and after whom it starts.
    Check,
    /// What only a process file can say.
    File,
    /// The tests' own: on no help page.
    Hidden,
}

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// Its name in files and on the wire: `stop_timeout`.
    pub key: &'static str,
    /// Its name on the command line, without dashes before it: `stop-timeout`.
    pub flag: &'static str,
    /// Its name in `info`: `stop timeout`.
    pub label: &'static str,
    /// What stands for its value in help; nothing for a switch.
    pub value: &'static str,
    pub help: &'static str,
    pub group: Group,
    /// Whether it may be given several times.
    pub repeats: bool,
    /// What its name alone stands for.
    pub alone: Option<&'static str>,
    parse: fn(&mut Spec, &str) -> Result<(), String>,
    read: fn(&mut Spec, &Value) -> Result<(), String>,
    get: fn(&Spec) -> Value,
    default: fn() -> Value,
    is_default: fn(&Spec) -> bool,
}

impl Opt {
    /// Whether `start` has it as an option.
    pub fn is_on_command_line(&self) -> bool {
        self.group != Group::File
    }

    /// Sets it from a word of the command line. Errors: one line: what was expected.
    pub fn parse(&self, spec: &mut Spec, text: &str) -> Result<(), String> {
        (self.parse)(spec, text)
    }

    /// Sets it from a value of JSON. Errors: one line: what was expected, and what was found.
    pub fn read(&self, spec: &mut Spec, value: &Value) -> Result<(), String> {
        (self.read)(spec, value)
    }

    /// Its value in JSON, which [`Opt::read`] reads back.
    pub fn get(&self, spec: &Spec) -> Value {
        (self.get)(spec)
    }

    /// The value of a service for which nothing was said.
    pub fn default(&self) -> Value {
        (self.default)()
    }

    /// Whether it has that value; much cheaper than [`Opt::get`] and [`Opt::default`].
    pub fn is_default(&self, spec: &Spec) -> bool {
        (self.is_default)(spec)
    }
}

/// The option of that key.
pub fn find(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|opt| opt.key == key)
}

/// Enums whose values are words.
macro_rules! words {
    ($($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $variant:ident = $word:literal,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Reads its word. Errors: one line: what was expected.
            pub fn parse(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!("expected {}", choice(&[$($word),*]))),
                }
            }
        }

        impl Setting for $name {
            fn parse(word: &str) -> Result<Self, String> {
                Self::parse(word)
            }

            fn write(&self) -> Value {
                match self {
                    $(Self::$variant => $word.into(),)*
                }
            }
        }
    )*};
}

/// `always, on-failure or never`.
fn choice(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        words => words.concat(),
    }
}

words! {
    /// When a service that ended by itself comes back.
    Restart {
        /// After every death, exit 0 too.
        Always = "always",
        /// After a signal or an exit code other than 0.
        OnFailure = "on-failure",
        /// Not by itself.
        Never = "never",
    }
    /// What a process that runs the same command, and is none of ours, does to a start.
    LookAlike {
        /// The start is refused.
        Refuse = "refuse",
        /// A warning.
        Warn = "warn",
        /// Nothing.
        Ignore = "ignore",
    }
    /// What makes archives smaller.
    Compress {
        Zstd = "zstd",
        Gzip = "gzip",
    }
    /// What becomes of each line.
    LogFormat {
        /// It stays.
        Text = "text",
        /// It is part of an object.
        Json = "json",
    }
    /// What becomes at a stop of what has left the leader's session.
    Escapees {
        /// It is of the service, and ends with it.
        Kill = "kill",
        /// It lives on: the service is its leader's session and group.
        Keep = "keep",
    }
    /// Whom the stop signal is for.
    StopReach {
        /// Every process of it.
        Tree = "tree",
        /// The leader; the rest when the leader has gone.
        Leader = "leader",
    }
}

/// `key` with `with` for its underscores.
const fn spelled<const N: usize>(key: &str, with: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        let byte = key.as_bytes()[at];
        bytes[at] = if byte == b'_' { with } else { byte };
        at += 1;
    }
    bytes
}

macro_rules! spelled {
    ($key:ident, $with:literal) => {{
        const KEY: &str = stringify!($key);
        const BYTES: [u8; KEY.len()] = spelled(KEY, $with);
        match std::str::from_utf8(&BYTES) {
            Ok(text) => text,
            Err(_) => KEY,
        }
    }};
}

/// The table. A row: what it is about, the field, its type and default, what stands for its value
/// in help (nothing: it is a switch), and help.
macro_rules! options {
    ($($(#[$meta:meta])* $place:ident: $Struct:ident {
        $($(#[$only:meta])* $group:ident $field:ident: $type:ty = $default:expr,
            $value:literal $help:literal;)*
    })*) => {
        $(
            $(#[$meta])*
            pub struct $Struct {
                $($(#[$only])* #[doc = $help] pub $field: $type,)*
            }

            impl Default for $Struct {
                fn default() -> Self {
                    Self { $($(#[$only])* $field: $default,)* }
                }
            }
        )*

        /// The place of each in the table: how a child tells which one the kernel refused.
        #[expect(non_camel_case_types, reason = "they are the names of fields")]
        #[derive(Clone, Copy, Debug)]
        pub enum Key {
            $($($(#[$only])* $field,)*)*
        }

        /// Every option.
        pub const OPTIONS: &[Opt] = &[$($($(#[$only])* Opt {
            key: stringify!($field),
            flag: spelled!($field, b'-'),
            label: spelled!($field, b' '),
            value: $value,
            help: $help,
            group: Group::$group,
            repeats: <$type as Setting>::REPEATS,
            alone: <$type as Setting>::ALONE,
            parse: |spec, text| Ok(spec.$place.$field = Setting::parse(text)?),
            read: |spec, value| Ok(spec.$place.$field = Setting::read(value)?),
            get: |spec| spec.$place.$field.write(),
            default: || <$type as Setting>::write(&$default),
            is_default: |spec| {
                let default: $type = $default;
                spec.$place.$field == default
            },
        },)*)*];
    };
}

options! {
    /// When a service comes back, how it is stopped, and what its end means.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    policy: Policy {
        Policy restart: Restart = Restart::Always, "WHEN" "always, on-failure or never";
        Policy max_restarts: Forgiven = Forgiven(10), "N"
            "quick deaths in a row that are forgiven, or\nunlimited";
        Policy min_uptime: Span = Span::secs(10), "TIME" "a death after this is not quick";
        Policy restart_delay: Delay = Delay::fixed(Span::secs(2)), "TIME"
            "after a quick death; 2s..1m doubles up to the\nbound";
        Policy stop_signal: Signal = Signal::TERM, "SIGNAL" "what asks it to end";
        Policy stop_reach: StopReach = StopReach::Tree, "REACH"
            "who gets it first: tree, or leader alone";
        Policy stop_timeout: Span = Span::secs(5), "TIME" "from that signal to KILL";
        Process escapees: Escapees = Escapees::Kill, "WHAT"
            "what left its session at a stop: kill, or keep";
        Process look_alike: LookAlike = LookAlike::Refuse, "WHAT"
            "if its command runs already, outside of opm:\nrefuse, warn or ignore";
        File critical: bool = false, "" "its end is the end of all that opm run runs";
    }
    /// What starts, restarts or stops it besides its own death and the operator.
    #[derive(Clone, Debug, PartialEq, Eq)]
    care: Care {
        Care stop_exit_codes: Vec<u8> = Vec::new(), "N"
            "an exit with one of these (0,143) is its end";
        Care cron: Option<Cron> = None, "SCHEDULE"
            "restarts it, or starts it if it has ended:\n'0 3 * * *' or @daily";
        Care max_memory: Option<Bytes> = None, "SIZE"
            "of its whole tree; with more it is restarted";
        Care watch: Vec<WatchPath> = Vec::new(), "PATH"
            "restart when something in it changes\n(repeatable; alone: the directory)";
        Care ignore_watch: Vec<String> = Vec::new(), "GLOB" "but not for this (repeatable)";
        Care pid_file: Option<String> = None, "FILE"
            "read when it ends: what this names of its tree\nleads it on";
    }
    /// What its processes are given before their exec.
    #[derive(Clone, Debug, PartialEq, Eq)]
    exec: Exec {
        Process env_file: Vec<String> = Vec::new(), "FILE"
            "variables above those of .env (repeatable)";
        Process filter_env: Vec<String> = Vec::new(), "GLOB"
            "variables of the caller that it doesn't get\n(repeatable)";
        Process user: Option<Written<Account>> = None, "USER"
            "whose its processes are: USER or USER:GROUP,\nnames or numbers";
        Process group: Option<Written<Account>> = None, "GROUP" "of them [default: the user's]";
        Process groups: Vec<Written<Account>> = Vec::new(), "GROUP,..."
            "supplementary groups [default: the user's]";
        Process umask: Option<Written<Umask>> = None, "OCTAL"
            "of its processes [default: the caller's]";
        Process limit: Option<Written<ResourceLimits>> = None, "NAME=N"
            "nofile=65536 or nofile=1024:4096 (soft:hard)";
        Process oom_score: Option<OomScore> = None, "N"
            "who is killed first when memory runs out: from\n1000 to -1000 (never)";
        Process no_new_privs: bool = false, "" "no set-uid program raises its rights";
        Process cap_drop: Option<Written<Capabilities>> = None, "CAP,..."
            "capabilities to give up, or all";
        Process cap_keep: Option<Written<Capabilities>> = None, "CAP,..."
            "give up all others; a --user keeps these";
        Process io_class: Option<Written<IoClass>> = None, "CLASS"
            "idle, best-effort[:0-7] or realtime[:0-7]";
        Process cpu_affinity: Option<Written<Cpus>> = None, "CPU,..."
            "CPUs that it may run on: 0-3,6";
        Process nice: Option<Nice> = None, "N" "priority from -20 (first) to 19 (last)";
        Process memory_max: Option<Bytes> = None, "SIZE"
            "of its whole tree, which is killed at more than\nthat (cgroup v2, as the next two)";
        Process cpu_max: Option<Written<CpuShare>> = None, "N%"
            "of one CPU's time: 50%, or 200% for two CPUs";
        Process pids_max: Option<u32> = None, "N" "processes and threads that it may have";
        #[cfg(debug_assertions)]
        Hidden made_up: u32 = 0, "N" "what only tests have";
    }
    /// What opm holds for it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    held: Held {
        Process listen: Vec<Listen> = Vec::new(), "ADDR"
            "a socket that opm keeps: [NAME=]3000, IP:PORT\nor unix:/PATH (repeatable)";
        Process instances: Option<Instances> = None, "N" "several, NAME-0 and so on: N, max or -N";
        Process port_range: Option<PortRange> = None, "RANGE" "3000-3003: a PORT for each instance";
        Process instance_var: String = "NODE_APP_INSTANCE".into(), "VAR" "variable with its number";
        Process increment_var: Option<String> = None, "VAR" "variable whose number rises with each";
        Process namespace: Option<String> = None, "NAME" "a target that means it and others";
        Process no_node_preload: bool = false, "" "node programs find their sockets themselves";
        File instance_of: Option<String> = None, "GROUP" "the group that it is an instance of";
    }
    /// Where its output goes, and how much of it is kept.
    #[derive(Clone, Debug, PartialEq, Eq)]
    log: Log {
        Process log_out: Option<String> = None, "FILE"
            "stdout goes to this file, not to the home's";
        Process log_error: Option<String> = None, "FILE" "stderr goes to this file";
        Process merge_logs: bool = false, "" "stderr goes where stdout goes";
        Process no_logs: bool = false, "" "keep nothing of what it writes";
        Process log_max_size: Bytes = Bytes::mebi(10), "SIZE"
            "a larger log becomes an archive; 0: never";
        Process log_keep: u32 = 5, "N" "archives that are kept of each log";
        Process log_max_age: Option<Span> = None, "TIME" "an older archive is removed";
        Process log_compress: Option<Compress> = None, "PROGRAM"
            "archives are compressed by zstd or gzip";
        Process log_time: Option<TimeFormat> = None, "[FORMAT]"
            "each line begins with the time [as of RFC 3339]";
        Process log_format: LogFormat = LogFormat::Text, "FORMAT"
            "text, or json: each line is part of an object";
    }
    /// By what it is told that it is ready and well.
    #[derive(Clone, Debug, PartialEq, Eq)]
    checks: Checks {
        Check ready: Sign = Sign::Exec, "HOW"
            "what makes it ready: exec, notify, ipc, fd:N,\ntcp:PORT, http:URL or cmd:LINE";
        Check ready_timeout: Span = Span::secs(30), "TIME" "not ready after this, it has failed";
        Check health: Option<Health> = None, "HOW"
            "asked while it runs: tcp:PORT, http:URL, cmd:LINE;\nor notify: it says so itself";
        Check health_interval: Span = Span::secs(10), "TIME" "from one question to the next";
        Check health_timeout: Span = Span::secs(3), "TIME" "an answer that takes longer is none";
        Check health_retries: u32 = 3, "N" "so many failures in a row, and it has failed";
        Check health_start_period: Span = Span::secs(0), "TIME"
            "failures count when it was well, or after this";
        Check depends_on: Names = Names::default(), "NAMES"
            "what is ready before it starts, and is stopped\nafter it (repeatable, or with commas)";
    }
}

impl Checks {
    /// How long a service may be silent that says itself that it is well.
    pub fn watchdog(&self) -> Span {
        let retries = u64::from(self.health_retries.max(1));
        Span { ms: self.health_interval.ms.saturating_mul(retries).max(1) }
    }
}
