//! PM2's process file: `{"apps": [{"name": "web", "script": "server.js", …}]}`, a list, or one app.
//! Its keys are options under other names, with numbers that are milliseconds.
//!
//! What a key can't do here is said in a warning, once a service: PM2 itself drops in silence
//! what it doesn't know.
use super::{ProcessFile, Reader, Source, directory_of};
use crate::process::shell;
use crate::service::instances::Instances;
use crate::service::listen::Listen;
use crate::service::name::check_name;
use crate::service::options::{self, Opt};
use crate::service::signal::Signal;
use crate::service::spec::{Env, Forgiven, Restart, Spec, last_of_each};
use crate::service::units::{Delay, Span};
use serde_json::{Map, Value};

/// Other words, PM2's own or what an option is called here, each with the key that is read.
const KEYS: &[(&str, &str)] = &[
    ("cmd", "script"),
    ("command", "script"),
    ("exec", "script"),
    ("exec_interpreter", "interpreter"),
    ("node_args", "interpreter_args"),
    ("combine_logs", "merge_logs"),
    ("cron", "cron_restart"),
    ("err", "error_file"),
    ("err_file", "error_file"),
    ("err_log", "error_file"),
    ("error", "error_file"),
    ("log", "log_file"),
    ("out", "out_file"),
    ("out_log", "out_file"),
    ("output", "out_file"),
    ("max_size", "log_max_size"),
    ("retain", "log_keep"),
];

/// Options that have a name of their own in PM2.
const OPTION_KEYS: &[(&str, &str)] = &[
    ("cron_restart", "cron"),
    ("error_file", "log_error"),
    ("exp_backoff_restart_delay", "restart_delay"),
    ("gid", "group"),
    ("kill_timeout", "stop_timeout"),
    ("listen_timeout", "ready_timeout"),
    ("disable_logs", "no_logs"),
    ("log_date_format", "log_time"),
    ("log_type", "log_format"),
    ("max_memory_restart", "max_memory"),
    ("out_file", "log_out"),
    // PM2 writes this file: ours is one that the program writes, and old numbers are in theirs.
    ("pid_file", ""),
    ("time", "log_time"),
    ("uid", "user"),
    ("wait_ready", "ready"),
];

/// Keys of PM2's that change nothing here, and need no word.
const SILENT: &str = "automation autostart deploy disable_source_map_support \
    force pmx post_update source_map_support version vizion vizion_running";

/// What PM2's cluster can do without being told, and nobody else.
pub const SHARE: &str = "instances share a port that is named (listen, or PORT in env)";

/// Whether PM2 would make a cluster of several that this runs.
pub fn is_node(program: &str) -> bool {
    program.ends_with("node")
}

/// What the origin begins with of that for which [`defaults`] counted.
pub const PM2S: &str = "PM2's ";

/// What is set for every app, whatever it says.
pub fn defaults(spec: &mut Spec) {
    spec.policy.stop_signal = Signal::INT;
    spec.policy.stop_timeout = Span { ms: 1_600 };
    spec.policy.max_restarts = Forgiven(16);
    spec.policy.min_uptime = Span::secs(1);
    spec.policy.restart_delay = Delay::fixed(Span { ms: 0 });
}

/// The option that PM2 calls `key`, or that is called so here.
fn option(key: &str) -> Option<&'static Opt> {
    options::find(OPTION_KEYS.iter().find(|(pm2, _)| *pm2 == key).map_or(key, |(_, own)| own))
}

/// A value as one word: JSON, but for strings.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A time of PM2's: a number without a unit is milliseconds.
pub fn in_milliseconds(text: String) -> String {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text + "ms" } else { text }
}

/// Sets an option from what PM2 takes for it: a number may stand in quotes, and where there is a
/// unit it is milliseconds. Errors: what was expected, and what was found.
fn set(opt: &Opt, spec: &mut Spec, value: &Value) -> Result<(), String> {
    let mut readings = Vec::new();
    match value {
        Value::Number(number) => {
            readings.extend([number.to_string().into(), format!("{number}ms").into()]);
        }
        Value::String(text) => {
            readings.extend(serde_json::from_str(text).ok().filter(|it: &Value| !it.is_null()));
            readings.push(format!("{text}ms").into());
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {}
    }
    let first = opt.read(spec, value);
    if first.is_ok() || readings.iter().any(|other| opt.read(spec, other).is_ok()) {
        Ok(())
    } else {
        first
    }
}

/// Reads the apps of a file. `top` is what is left of it.
pub(super) fn read(
    apps: Vec<Value>,
    source: &Source<'_>,
    found: &mut ProcessFile,
) -> Result<(), String> {
    found.is_pm2 = true;
    for (n, app) in apps.into_iter().enumerate() {
        let mut reader = Reader::new(source, format!("apps[{n}]"));
        let app = reader.object(app)?;
        found.specs.push(App { reader: &mut reader, app: known_as(app) }.spec()?);
        found.warnings.append(&mut reader.warnings);
    }
    Ok(())
}

/// `maxRestarts` is `max_restarts`, and each key goes by one name.
fn known_as(app: Map<String, Value>) -> Map<String, Value> {
    let snake = |key: &str| {
        let is_constant =
            !key.contains(|c: char| c.is_ascii_lowercase()) || key.starts_with("env_");
        let mut snake = String::new();
        for c in key.chars() {
            if c.is_ascii_uppercase() && !is_constant {
                snake.push('_');
            }
            snake.push(if is_constant { c } else { c.to_ascii_lowercase() });
        }
        let known = KEYS.iter().find(|(other, _)| *other == snake);
        known.map_or(snake, |(_, key)| (*key).to_owned())
    };
    app.into_iter().map(|(key, value)| (snake(&key), value)).collect()
}

struct App<'a, 'b> {
    reader: &'a mut Reader<'b>,
    app: Map<String, Value>,
}

impl App<'_, '_> {
    fn spec(mut self) -> Result<Spec, String> {
        let source = self.reader.source;
        let mut name = self.reader.text(&mut self.app, "name")?;
        if let Some(name) = &name {
            self.reader.label.clone_from(name);
        }
        let cwd = self.reader.text(&mut self.app, "cwd")?.unwrap_or_default();
        let cwd = directory_of(source.directory, &cwd)
            .ok_or_else(|| self.reader.wrong("cwd", "the path is not UTF-8"))?;
        let env = self.env()?;
        if self.is("append_env_to_name")
            && let (Some(name), Some(set)) = (&mut name, source.env)
        {
            name.push_str(&format!("-{set}"));
        }
        let command = self.command(&cwd, &env)?;
        let name = match name {
            Some(name) => self.named(name),
            None => (source.naming)(&command, cwd.as_ref()),
        };
        self.reader.label.clone_from(&name);
        let mut spec = Spec { env, ..Spec::new(name, command, cwd) };
        defaults(&mut spec);
        self.policy(&mut spec)?;
        for (key, value) in std::mem::take(&mut self.app) {
            self.option(&mut spec, &key, &value)?;
        }
        spec.check().map_err(|reason| format!("{}: {reason}", source.label))?;
        Ok(spec)
    }

    /// Whether the key is there and says yes; it is read.
    fn is(&mut self, key: &str) -> bool {
        let value = self.app.remove(key);
        value.is_some_and(|value| value == Value::Bool(true) || value == "true")
    }

    /// PM2 allows any name.
    fn named(&mut self, name: String) -> String {
        if check_name(&name).is_ok() {
            return name;
        }
        let clean = name.replace(['/', ','], "-");
        let clean = if check_name(&clean).is_ok() { clean } else { format!("app-{clean}") };
        self.reader.warn(&format!("is called {clean} here"));
        clean
    }

    fn env(&mut self) -> Result<Env, String> {
        let source = self.reader.source;
        let mut env = Env::new();
        if let Some(port) = self.app.remove("port") {
            env.push(("PORT".to_owned(), text_of(&port)));
        }
        let chosen = source.env.map(|set| format!("env_{set}"));
        let is_set = |key: &&String| key.starts_with("env_") && option(key).is_none();
        match (&chosen, self.app.keys().find(is_set)) {
            (Some(set), _) if !self.app.contains_key(set) => {
                self.reader.warn(&format!("has no {set}"));
            }
            (None, Some(set)) if !self.app.contains_key("env") => {
                let text = format!("{set} is left out (--env {} takes it)", &set["env_".len()..]);
                self.reader.warn(&text);
            }
            _ => {}
        }
        for key in ["env"].into_iter().chain(chosen.as_deref()) {
            let vars = match self.app.remove(key) {
                None | Some(Value::Null) => continue,
                Some(vars) => vars,
            };
            let Value::Object(vars) = vars else {
                let reason = format!("expected an object, found {}", text_of(&vars));
                return Err(self.reader.wrong(key, &reason));
            };
            for (name, value) in vars {
                if value.is_null() {
                    self.reader.warn(&format!("{key}.{name} is null, and left out"));
                    continue;
                }
                // The variables of the service that this command was called from.
                if name.starts_with("OPM_") {
                    continue;
                }
                if option(&name).is_some() {
                    self.reader.warn(&format!("{key}.{name} is a variable, and no option"));
                }
                env.push((name, text_of(&value)));
            }
        }
        self.app.retain(|key, _| !key.starts_with("env_") || options::find(key).is_some());
        Ok(last_of_each(env))
    }

    /// Words in a list, or a line that is split as a shell would; nothing in it is expanded.
    fn words(&mut self, key: &str) -> Result<Vec<String>, String> {
        match self.app.remove(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(words)) => Ok(words.iter().map(text_of).collect()),
            Some(line) => {
                shell::split(&text_of(&line)).map_err(|reason| self.reader.wrong(key, reason))
            }
        }
    }

    fn command(&mut self, cwd: &str, env: &Env) -> Result<Vec<String>, String> {
        let script = self.reader.text(&mut self.app, "script")?.unwrap_or_default();
        if script.trim().is_empty() {
            return Err(self.reader.wrong("script", "missing"));
        }
        let interpreter = self.reader.text(&mut self.app, "interpreter")?;
        let options = self.words("interpreter_args")?;
        let mut args = self.words("args")?;
        let interpreter = interpreter.as_deref();
        let words = (self.reader.source.program)(&script, interpreter, cwd.as_ref(), env);
        let mut words = words.map_err(|reason| self.reader.wrong("script", &reason))?;
        let mut command = match interpreter {
            Some("none") => words,
            Some(interpreter) => [vec![interpreter.to_owned()], options, words].concat(),
            None => {
                if !options.is_empty() && words[0] != "node" {
                    self.reader.warn("interpreter_args are for an interpreter, and left out");
                } else {
                    words.splice(1..1, options);
                }
                words
            }
        };
        if let [shell, flag, line] = &mut command[..]
            && (shell.as_str(), flag.as_str()) == ("/bin/sh", "-c")
            && !args.is_empty()
        {
            *line = format!("{line} {}", crate::service::spec::join(&args));
            args.clear();
        }
        command.extend(args);
        Ok(command)
    }

    /// Keys that are no option by themselves.
    fn policy(&mut self, spec: &mut Spec) -> Result<(), String> {
        match self.app.remove("autorestart") {
            None | Some(Value::Null) => {}
            Some(value) if value == false || value == "false" => {
                spec.policy.restart = Restart::Never;
            }
            Some(value) if value == true || value == "true" => {}
            Some(value) => {
                let reason = format!("expected true or false, found {value}");
                return Err(self.reader.wrong("autorestart", &reason));
            }
        }
        if let Some(delay) = self.app.remove("exp_backoff_restart_delay") {
            let range = format!("{}..15s", in_milliseconds(text_of(&delay)));
            spec.policy.restart_delay = Delay::parse(&range)
                .map_err(|reason| self.reader.wrong("exp_backoff_restart_delay", &reason))?;
        }
        if self.is("wait_ready") {
            self.app.entry("listen_timeout").or_insert(3_000.into());
            self.app.insert("wait_ready".to_owned(), "ipc".into());
        } else {
            self.app.remove("listen_timeout");
        }
        if self.is("time") {
            self.app.entry("log_date_format").or_insert("YYYY-MM-DDTHH:mm:ss:".into());
        }
        if let Some(filter) = self.app.get_mut("filter_env") {
            // Parts of names, or all of them.
            let part = |part: &Value| Value::from(format!("*{}*", text_of(part)));
            *filter = match &*filter {
                Value::Bool(true) => "*".into(),
                Value::Array(parts) => parts.iter().map(part).collect(),
                Value::String(_) => part(filter),
                other => other.clone(),
            };
        }
        if let Some(word) = self.app.get_mut("watch")
            && let Some(is) = word.as_str().and_then(|word| word.parse::<bool>().ok())
        {
            *word = is.into();
        }
        if self.app.get("treekill").is_some_and(|is| *is == false) {
            self.reader.warn("treekill: what it started ends with it, always");
        }
        self.app.remove("treekill");
        // Those of instances: stderr has a file of its own.
        self.app.remove("merge_logs");
        self.cluster(spec);
        const FILES: [&str; 2] = ["out_file", "error_file"];
        let is_none = |it: &Value| {
            it.as_str().is_some_and(|it| it.eq_ignore_ascii_case("null") || it == "/dev/null")
        };
        if let Some(both) = self.app.remove("log_file") {
            // What goes nowhere else is in this one, and what goes elsewhere is not kept twice.
            if FILES.iter().all(|key| self.app.get(*key).is_none_or(is_none)) {
                FILES.iter().for_each(|key| drop(self.app.remove(*key)));
            }
            for key in FILES {
                self.app.entry(key).or_insert(both.clone());
            }
        }
        for key in FILES {
            if let Some(file) = self.app.get_mut(key).filter(|file| is_none(file)) {
                *file = "/dev/null".into();
            }
        }
        Ok(())
    }

    /// Several on one port, as in node's own cluster: opm holds it.
    fn cluster(&mut self, spec: &mut Spec) {
        let mode = self.app.remove("exec_mode").map_or(String::new(), |mode| text_of(&mode));
        let count = self.app.get("instances").map(text_of).unwrap_or_default();
        let is_several = Instances::parse(&count).is_ok_and(Instances::is_several);
        // To say how many is enough for a program of node's.
        let is_implied = mode.is_empty() && is_several && is_node(&spec.command[0]);
        if !(is_implied || mode.starts_with("cluster")) || self.app.contains_key("listen") {
            return;
        }
        let mut port = spec.env.iter().filter(|(name, _)| name == "PORT");
        let port = port.next().filter(|_| !self.app.contains_key("increment_var"));
        match port.and_then(|(_, port)| Listen::parse(port).ok()) {
            Some(port) => spec.held.listen = vec![port],
            None if is_several => self.reader.warn(&format!("exec_mode: {SHARE}")),
            None => {}
        }
    }

    fn option(&mut self, spec: &mut Spec, key: &str, value: &Value) -> Result<(), String> {
        // `false` switches off what is off.
        let is_unset = value.is_null() || *value == false || *value == "";
        match option(key) {
            Some(opt) if is_unset && !opt.default().is_boolean() => Ok(()),
            Some(opt) => {
                let read = set(opt, spec, value);
                read.map_err(|reason| self.reader.wrong(key, &format!("{value}: {reason}")))
            }
            None if is_unset || SILENT.split(' ').any(|silent| silent == key) => Ok(()),
            None => {
                self.reader.warn(&format!("'{}' does nothing here", key.escape_debug()));
                Ok(())
            }
        }
    }
}
