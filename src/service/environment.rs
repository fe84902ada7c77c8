//! What every incarnation of a service gets from opm: its environment, and where its output goes.
use super::listen::Listen;
use super::name::file_name_of;
use super::options::LogFormat;
use super::probe::{Health, IPC_FD, Sign};
use super::spec::{Definition, Held, Log, Spec};
use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

/// Where the child writes its pid.
const PID_DIGITS: &str = "0000000000";
type Pid = i32;

/// The home of the daemon that runs a service.
pub const HOME_VARIABLE: &str = "OPM_HOME";
/// The service's name.
pub const NAME_VARIABLE: &str = "OPM_NAME";
/// The incarnation's own mark.
pub const MARK_VARIABLE: &str = "OPM_MARK";
/// The marks that its daemon was itself started under.
pub const OUTER_VARIABLE: &str = "OPM_OUTER";

/// Which instance of its group it is.
const INSTANCE_VARIABLE: &str = "OPM_INSTANCE";
/// Stands for the number in values that were given by hand.
const INSTANCE: &str = "{instance}";
/// In the home: what node loads before a program for which sockets are held.
pub const NODE_PRELOAD: &str = "node-preload.cjs";
/// The pid that the sockets are for.
pub const LISTEN_PID: &str = "LISTEN_PID";

/// Variables that opm itself sets for a service.
pub const RESERVED: [&str; 4] = [HOME_VARIABLE, NAME_VARIABLE, MARK_VARIABLE, OUTER_VARIABLE];

/// The socket that a service speaks to, by its name in the home.
pub const NOTIFY_FILE: &str = "notify";

/// The same for a service of another user, who may not enter the home: a name in the abstract
/// namespace of unix(7), behind its zero byte, which programs write as `@`.
pub fn notify_name(home: &str) -> String {
    // There is room for 107 bytes.
    let tail = (home.len().saturating_sub(90)..).find_map(|at| home.get(at..));
    format!("opm:{}/{NOTIFY_FILE}", tail.unwrap_or_default())
}

/// All that an incarnation finds in its environment. `account`: what its user has in it. `pid`: 0
/// if it is not there yet.
pub fn environment<'a>(
    definition: &'a Definition,
    account: &'a [(&'static str, String)],
    home: &'a str,
    mark: &'a str,
    outer: Option<&'a str>,
    pid: Pid,
) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
    let own = [
        (HOME_VARIABLE, Some(home)),
        (NAME_VARIABLE, Some(definition.spec.name.as_str())),
        (OUTER_VARIABLE, outer),
        (MARK_VARIABLE, Some(mark)),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let made = made(definition, home, pid);
    let names: Vec<&str> = made.iter().map(|(name, _)| *name).collect();
    let variables = definition.variables(account).filter(move |(name, _)| !names.contains(name));
    let plain = |(name, value)| (name, Cow::Borrowed(value));
    let made = made.into_iter().map(|(name, value)| (name, Cow::Owned(value)));
    variables.map(plain).chain(made).chain(own.map(plain))
}

/// What is made for it, in place of what was given.
fn made<'a>(definition: &'a Definition, home: &str, pid: Pid) -> Vec<(&'a str, String)> {
    let mut made: Vec<(&str, String)> = Vec::new();
    let Definition { spec, .. } = definition;
    let Held { listen, port_range, instance_var, increment_var, no_node_preload, .. } = &*spec.held;
    let number = spec.instance();
    if let Some(number) = number {
        let number = number.to_string();
        for (name, value) in spec.env.iter().filter(|(_, value)| value.contains(INSTANCE)) {
            set(&mut made, name, value.replace(INSTANCE, &number));
        }
        set(&mut made, INSTANCE_VARIABLE, number.clone());
        set(&mut made, instance_var, number);
    }
    let number = number.unwrap_or(0);
    if let Some(port) = port_range.and_then(|range| range.port(number)) {
        set(&mut made, "PORT", port.to_string());
    }
    if let Some(variable) = increment_var {
        let first = definition.variable(variable).and_then(|value| value.parse::<u64>().ok());
        if let Some(own) = first.and_then(|first| first.checked_add(number.into())) {
            set(&mut made, variable, own.to_string());
        }
    }
    if !listen.is_empty() {
        let all = |of: &dyn Fn(&Listen) -> String| listen.iter().map(of).collect::<Vec<_>>();
        // A name of ours may have a colon, which in a list of names is none.
        let unnamed = spec.group().replace(':', "-");
        let name = |of: &Listen| of.name.clone().unwrap_or_else(|| unnamed.clone());
        set(&mut made, "LISTEN_FDS", listen.len().to_string());
        set(&mut made, LISTEN_PID, if pid == 0 { PID_DIGITS.to_owned() } else { pid.to_string() });
        set(&mut made, "LISTEN_FDNAMES", all(&name).join(":"));
        set(&mut made, "OPM_LISTEN", all(&|of| of.address.to_string()).join(" "));
        // Another user cannot read what is in the home.
        if !no_node_preload && spec.exec.user.is_none() {
            let own =
                made.iter().find(|(name, _)| *name == "NODE_OPTIONS").map(|(_, own)| &own[..]);
            let given = own.or_else(|| definition.variable("NODE_OPTIONS"));
            let given = given.map_or(String::new(), |options| format!("{options} "));
            let options = format!("{given}--require \"{home}/{NODE_PRELOAD}\"");
            set(&mut made, "NODE_OPTIONS", options);
        }
    }
    // How it may speak of itself.
    let is_watched = spec.checks.health == Some(Health(Sign::Notify));
    if is_watched || spec.checks.ready == Sign::Notify {
        let socket = match &spec.exec.user {
            Some(_) => format!("@{}", notify_name(home)),
            None => format!("{home}/{NOTIFY_FILE}"),
        };
        set(&mut made, "NOTIFY_SOCKET", socket);
    }
    if spec.checks.ready == Sign::Ipc {
        set(&mut made, "NODE_CHANNEL_FD", IPC_FD.to_string());
        set(&mut made, "NODE_CHANNEL_SERIALIZATION_MODE", "json".to_owned());
    }
    if is_watched {
        let allowed = spec.checks.watchdog().ms.saturating_mul(1_000);
        set(&mut made, "WATCHDOG_USEC", allowed.to_string());
    }
    made
}

/// Each name is there once, for programs take the first: what is set later takes its place.
fn set<'a>(made: &mut Vec<(&'a str, String)>, name: &'a str, value: String) {
    match made.iter_mut().find(|(other, _)| *other == name) {
        Some((_, before)) => *before = value,
        None => made.push((name, value)),
    }
}

/// Where nothing is kept.
pub const NULL: &str = "/dev/null";

/// A service's log files (stdout, stderr) in its home; absolute paths, where it has others.
pub fn log_paths(spec: &Spec) -> [String; 2] {
    let [out, error] = paths(&spec.name, "log");
    if spec.log.no_logs {
        return [NULL, NULL].map(str::to_owned);
    }
    // A path that is absolute takes the place of the directory.
    let of = |path: &String| {
        tidy(&Path::new(spec.cwd.as_str()).join(path)).to_string_lossy().into_owned()
    };
    let out = spec.log.log_out.as_ref().map_or(out, of);
    let own = spec.log.log_error.as_ref().map(of);
    let error = own.unwrap_or_else(|| if spec.log.merge_logs { out.clone() } else { error });
    [out, error]
}

/// Whether the daemon carries its lines, since each has to be changed.
pub fn is_piped(log: &Log) -> bool {
    !log.no_logs && (log.log_time.is_some() || log.log_format == LogFormat::Json)
}

/// Whether it was said where its output goes: not to the terminal of `opm run`, then.
pub fn has_own_logs(log: &Log) -> bool {
    log.no_logs || log.log_out.is_some() || log.log_error.is_some()
}

/// A path in the home made absolute; one that is so already stays.
pub fn in_home(home: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{home}/{path}") }
}

/// Without `.` and double slashes. `..` stays: after a symbolic link it isn't the parent.
pub fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The FIFOs, in its home, that take its output to the terminal or the container's log.
pub fn fifo_paths(name: &str) -> [String; 2] {
    paths(name, "fifo")
}

/// The FIFOs of an incarnation (stdout, stderr): one for both, where it has one log.
pub fn carried_paths(spec: &Spec) -> [String; 2] {
    let [out, error] = fifo_paths(&spec.name);
    let [log, other] = log_paths(spec);
    let error = if is_piped(&spec.log) && log == other { out.clone() } else { error };
    [out, error]
}

fn paths(name: &str, kind: &str) -> [String; 2] {
    let file = file_name_of(name);
    ["out", "error"].map(|stream| format!("logs/{file}-{stream}.{kind}"))
}
