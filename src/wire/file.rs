//! The process file: `{"services": [{"name": "web", "command": "node server.js", …}]}`.
//!
//! Pure: text in, specs out. All or nothing: one error and no service of the file is defined.
//! An error names the file, the service and the key; a key that opm doesn't know is a warning.
use crate::process::shell;
use crate::service::json::{self, kind};
use crate::service::name::check_name;
use crate::service::options;
use crate::service::spec::{Env, Spec};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

/// Largest process file: what is defined must fit into one request.
pub const FILE_BYTES_MAX: usize = 8 << 20;

/// What names a service and where it runs: keys that are no options.
const OWN_KEYS: [&str; 4] = ["name", "command", "cwd", "env"];

/// Options of `opm start` that are to be keys one day. Whoever writes one of them relies on what
/// it does (a user to be, a limit): passing it over would run the service without.
const PROMISED: &str = "cap_drop cpu_affinity cpu_max cron depends_on env_file escapees force \
    group groups health health_interval health_retries health_start_period health_timeout \
    ignore_watch instances interpreter interpreter_args io_class limit log_compress \
    log_error log_format log_keep log_max_age log_max_size log_out log_time look_alike \
    max_memory memory_max merge_logs namespace no_autorestart no_logs no_new_privs \
    oom_score pids_max port_range ready ready_timeout reset_env stop_exit_codes umask user wait \
    watch";

/// What names a service that has no name: its words, and the directory that it runs in.
pub type Naming<'a> = &'a dyn Fn(&[String], &Path) -> String;

/// What a process file declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFile {
    pub specs: Vec<Spec>,
    /// One line each, without `opm: `.
    pub warnings: Vec<String>,
}

/// Reads the process file `text`. `file` is what the operator calls it, `directory` the
/// absolute directory that it lies in, which relative `cwd`s are relative to; links in it stay.
///
/// # Errors
/// One line that names the file and, where there is one, the service and the key.
pub fn parse(
    text: &[u8],
    file: &str,
    directory: &Path,
    naming: Naming<'_>,
) -> Result<ProcessFile, String> {
    let top = parse_json(text).map_err(|reason| format!("{file}: {reason}"))?;
    let services = services_of(top).map_err(|reason| format!("{file}: {reason}"))?;
    let mut found = ProcessFile::default();
    let mut names = HashSet::new();
    for (n, value) in services.list.into_iter().enumerate() {
        let mut reader = Reader { file, label: format!("services[{n}]"), warnings: Vec::new() };
        let spec = reader.spec(value, directory, naming)?;
        if !names.insert(spec.name.clone()) {
            return Err(format!("{file}: {}: the name is there twice", spec.name));
        }
        found.warnings.append(&mut reader.warnings);
        found.specs.push(spec);
    }
    for key in services.strange {
        found.warnings.push(format!("{file}: unknown key '{}'", key.escape_debug()));
    }
    Ok(found)
}

fn parse_json(text: &[u8]) -> Result<Value, String> {
    if text.len() > FILE_BYTES_MAX {
        return Err(format!("over {} MB", FILE_BYTES_MAX >> 20));
    }
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8 text".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    json::parse(text)
}

struct Services {
    list: Vec<Value>,
    strange: Vec<String>,
}

fn services_of(top: Value) -> Result<Services, String> {
    const SHAPE: &str = "expected an object {\"services\": [...]}";
    let Value::Object(mut top) = top else {
        return Err(format!("{SHAPE}, found {}", kind(&top)));
    };
    match top.remove("services") {
        Some(Value::Array(list)) => {
            Ok(Services { list, strange: top.into_iter().map(|(key, _)| key).collect() })
        }
        Some(other) => Err(format!("services: expected a list, found {}", kind(&other))),
        None if top.contains_key("apps") => {
            Err("PM2's {\"apps\": [...]} is not supported yet (use \"services\")".to_owned())
        }
        None => Err(SHAPE.to_owned()),
    }
}

/// Reads one service.
struct Reader<'a> {
    file: &'a str,
    /// What errors call the service: its place in the list until its name is known.
    label: String,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn wrong(&self, key: &str, reason: &str) -> String {
        format!("{}: {}: {}: {reason}", self.file, self.label, key.escape_debug())
    }

    fn spec(&mut self, value: Value, directory: &Path, naming: Naming<'_>) -> Result<Spec, String> {
        let Value::Object(mut map) = value else {
            let found = kind(&value);
            return Err(format!(
                "{}: {}: expected an object, found {found}",
                self.file, self.label
            ));
        };
        let name = self.text(&mut map, "name")?;
        if let Some(name) = &name {
            // First of all: the name is what every other error begins with.
            check_name(name).map_err(|reason| format!("{}: {reason}", self.file))?;
            self.label.clone_from(name);
        }
        let command = self.command(&mut map)?;
        let cwd = self.text(&mut map, "cwd")?.unwrap_or_default();
        let cwd = tidy(&directory.join(cwd)).into_os_string().into_string();
        let cwd = cwd.map_err(|_| self.wrong("cwd", "the path is not UTF-8"))?;
        let name = name.unwrap_or_else(|| naming(&command, Path::new(&cwd)));
        let env = self.env(&mut map)?;
        let mut spec = Spec { env, ..Spec::new(name, command, cwd) };
        for (key, value) in map {
            self.option(&mut spec, &key, &value)?;
        }
        spec.check().map_err(|reason| format!("{}: {reason}", self.file))?;
        Ok(spec)
    }

    fn option(&mut self, spec: &mut Spec, key: &str, value: &Value) -> Result<(), String> {
        if let Some(opt) = options::find(key) {
            return opt.read(spec, value).map_err(|reason| self.wrong(key, &reason));
        }
        let underlined = key.replace('-', "_");
        if PROMISED.split(' ').any(|promised| promised == underlined) {
            return Err(self.wrong(key, "not supported yet (take it out)"));
        }
        if OWN_KEYS.contains(&underlined.as_str()) || options::find(&underlined).is_some() {
            return Err(self.wrong(key, &format!("write {underlined}")));
        }
        let (file, label, key) = (self.file, &self.label, key.escape_debug());
        self.warnings.push(format!("{file}: {label}: unknown key '{key}'"));
        Ok(())
    }

    fn text(&self, map: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
        match map.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                Err(self.wrong(key, &format!("expected a string, found {}", kind(&other))))
            }
        }
    }

    fn command(&self, map: &mut Map<String, Value>) -> Result<Vec<String>, String> {
        let wrong = |reason: &str| Err(self.wrong("command", reason));
        match map.remove("command") {
            None => wrong("missing"),
            Some(Value::String(line)) => shell::argv(&line).or_else(wrong),
            Some(Value::Array(words)) => {
                let mut command = Vec::with_capacity(words.len());
                for word in words {
                    match word {
                        Value::String(word) => command.push(word),
                        other => {
                            let found = kind(&other);
                            return wrong(&format!("expected a list of strings, {found} is in it"));
                        }
                    }
                }
                if command.first().is_none_or(String::is_empty) {
                    return wrong("empty");
                }
                Ok(command)
            }
            Some(other) => {
                wrong(&format!("expected a string or a list of strings, found {}", kind(&other)))
            }
        }
    }

    fn env(&self, map: &mut Map<String, Value>) -> Result<Env, String> {
        let vars = match map.remove("env") {
            None => return Ok(Env::new()),
            Some(Value::Object(vars)) => vars,
            Some(other) => {
                let reason = format!("expected an object, found {}", kind(&other));
                return Err(self.wrong("env", &reason));
            }
        };
        let mut env = Env::with_capacity(vars.len());
        for (name, value) in vars {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(is) => is.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    let found = kind(&value);
                    let reason = format!("expected a string, a number or a boolean, found {found}");
                    return Err(self.wrong(&format!("env.{name}"), &reason));
                }
            };
            env.push((name, text));
        }
        Ok(env)
    }
}

/// Without `.` and double slashes. `..` stays: after a symbolic link it isn't the parent.
pub fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

#[cfg(test)]
mod tests;
