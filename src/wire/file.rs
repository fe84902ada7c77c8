//! The process file: `{"services": [{"name": "web", "command": "node server.js", …}]}`, and those
//! of others: PM2's `apps`, a Procfile, supervisord's `[program:x]`.
//!
//! Pure: text in, specs out. All or nothing: one error and no service of the file is defined.
//! An error names the file, the service and the key; a key that opm doesn't know is a warning.
pub mod pm2;
mod procfile;
mod supervisord;

use crate::process::shell;
pub use crate::service::environment::tidy;
use crate::service::json::{self, kind};
use crate::service::name::check_name;
use crate::service::options;
use crate::service::spec::{Env, Spec};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::Path;

/// Largest process file: what is defined must fit into one request.
pub const FILE_BYTES_MAX: usize = 8 << 20;

/// What some editors put before a text.
pub const BOM: char = '\u{feff}';

/// What names a service and where it runs: keys that are no options.
pub const OWN_KEYS: [&str; 6] =
    ["name", "command", "cwd", "env", "interpreter", "interpreter_args"];

/// Options of `opm start` that are no keys, and what is written instead. Whoever writes one of them
/// relies on what it does: passing it over would run the service without.
const NO_KEYS: [(&str, &str); 4] = [
    ("exp_backoff", "write restart_delay, as 100ms..15s"),
    ("force", "it is an option of opm start and import"),
    ("no_autorestart", "write restart, as never"),
    ("wait", "it is an option of opm start and import"),
];

/// What names a service that has no name: its words, and the directory that it runs in.
pub type Naming<'a> = &'a dyn Fn(&[String], &Path) -> String;

/// What finds the words that run a script, or that stand behind the interpreter that is to run it,
/// in its directory and with its variables.
pub type Program<'a> = &'a dyn Fn(&str, Option<&str>, &Path, &Env) -> Result<Vec<String>, String>;

/// Where a process file comes from, and what its reader knows besides.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// What the operator calls it.
    pub label: &'a str,
    /// The absolute directory that it lies in, which relative paths begin at; links in it stay.
    pub directory: &'a Path,
    /// That of whoever reads it.
    pub caller: &'a Path,
    pub naming: Naming<'a>,
    pub program: Program<'a>,
    /// A variable of whoever reads it.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The machine's name.
    pub host: &'a str,
    /// Which `env_NAME` of PM2's is laid over `env`.
    pub env: Option<&'a str>,
}

/// What a process file declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFile {
    pub specs: Vec<Spec>,
    /// One line each, without `opm: `.
    pub warnings: Vec<String>,
    /// It is one of PM2's.
    pub is_pm2: bool,
}

/// Reads the process file `text`. Errors: one line that names the file and, where there is one, the
/// service and the key.
pub fn parse(text: &[u8], source: &Source<'_>) -> Result<ProcessFile, String> {
    let wrong = |reason: String| format!("{}: {reason}", source.label);
    if text.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("over {} MB", FILE_BYTES_MAX >> 20)));
    }
    let text = std::str::from_utf8(text).map_err(|_| wrong("not UTF-8 text".to_owned()))?;
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let mut found = ProcessFile::default();
    match form(source.label, text) {
        Form::Procfile => procfile::read(text, source, &mut found)?,
        Form::Supervisord => supervisord::read(text, source, &mut found)?,
        Form::Json => read_json(json::parse(text).map_err(wrong)?, source, &mut found)?,
    }
    let mut names = HashSet::new();
    match found.specs.iter().find(|spec| !names.insert(&spec.name)) {
        Some(spec) => Err(wrong(format!("{}: the name is there twice", spec.name))),
        None => Ok(found),
    }
}

enum Form {
    Json,
    Procfile,
    Supervisord,
}

/// What kind of file it is, by its name; a configuration also by what is in it.
fn form(label: &str, text: &str) -> Form {
    let name = label.rsplit('/').next().unwrap_or(label).to_ascii_lowercase();
    let is_configuration = name.ends_with(".conf") || name.ends_with(".ini");
    if is_procfile(&name) {
        Form::Procfile
    } else if is_configuration || text.lines().any(|line| line.starts_with("[program:")) {
        Form::Supervisord
    } else {
        Form::Json
    }
}

/// Whether a file of that name, in lower case, is a Procfile.
pub fn is_procfile(name: &str) -> bool {
    name == "procfile" || name.starts_with("procfile.")
}

fn read_json(top: Value, source: &Source<'_>, found: &mut ProcessFile) -> Result<(), String> {
    const SHAPE: &str = "expected an object {\"services\": [...]}";
    let wrong = |reason: String| Err(format!("{}: {reason}", source.label));
    let mut top = match top {
        Value::Array(apps) => return pm2::read(apps, source, found),
        Value::Object(top) => top,
        other => return wrong(format!("{SHAPE}, found {}", kind(&other))),
    };
    if ["script", "cmd"].into_iter().any(|key| top.contains_key(key)) {
        return pm2::read(vec![Value::Object(top)], source, found);
    }
    let mut list = |key: &str| top.remove(key).map(|value| (key.to_owned(), value));
    match list("services").or_else(|| list("apps")).or_else(|| list("pm2")) {
        Some((key, Value::Array(services))) if key == "services" => {
            for (n, value) in services.into_iter().enumerate() {
                let mut reader = Reader::new(source, format!("services[{n}]"));
                found.specs.push(reader.spec(value)?);
                found.warnings.append(&mut reader.warnings);
            }
        }
        Some((_, Value::Array(apps))) => pm2::read(apps, source, found)?,
        Some((key, app @ Value::Object(_))) if key != "services" => {
            pm2::read(vec![app], source, found)?;
        }
        Some((key, other)) => {
            return wrong(format!("{key}: expected a list, found {}", kind(&other)));
        }
        None => return wrong(SHAPE.to_owned()),
    }
    for key in top.keys().filter(|key| !["$schema", "deploy"].contains(&key.as_str())) {
        found.warnings.push(format!("{}: unknown key '{}'", source.label, key.escape_debug()));
    }
    Ok(())
}

/// Where a service runs: `cwd` from `directory`. None if that is not UTF-8.
fn directory_of(directory: &Path, cwd: &str) -> Option<String> {
    tidy(&directory.join(cwd)).into_os_string().into_string().ok()
}

struct Reader<'a> {
    source: &'a Source<'a>,
    /// What errors call the service: its place in the list until its name is known.
    label: String,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source<'a>, label: String) -> Self {
        Self { source, label, warnings: Vec::new() }
    }

    fn wrong(&self, key: &str, reason: &str) -> String {
        format!("{}: {}: {}: {reason}", self.source.label, self.label, key.escape_debug())
    }

    fn warn(&mut self, text: &str) {
        self.warnings.push(format!("{}: {}: {text}", self.source.label, self.label));
    }

    fn object(&self, value: Value) -> Result<Map<String, Value>, String> {
        let Value::Object(map) = value else {
            let (file, label) = (self.source.label, &self.label);
            return Err(format!("{file}: {label}: expected an object, found {}", kind(&value)));
        };
        Ok(map)
    }

    fn spec(&mut self, value: Value) -> Result<Spec, String> {
        let source = self.source;
        let mut map = self.object(value)?;
        let name = self.text(&mut map, "name")?;
        if let Some(name) = &name {
            // First of all: the name is what every other error begins with.
            check_name(name).map_err(|reason| format!("{}: {reason}", source.label))?;
            self.label.clone_from(name);
        }
        let command =
            self.words(&mut map, "command")?.ok_or_else(|| self.wrong("command", "missing"))?;
        let cwd = self.text(&mut map, "cwd")?.unwrap_or_default();
        let cwd = directory_of(source.directory, &cwd)
            .ok_or_else(|| self.wrong("cwd", "the path is not UTF-8"))?;
        let name = name.unwrap_or_else(|| (source.naming)(&command, Path::new(&cwd)));
        let command = match self.text(&mut map, "interpreter")?.filter(|program| program != "none")
        {
            None => command,
            Some(program) => {
                let more = self.words(&mut map, "interpreter_args")?.unwrap_or_default();
                let script = match &command[..] {
                    [script] if !script.contains(char::is_whitespace) => {
                        let env = Env::new();
                        (source.program)(script, Some(&program), Path::new(&cwd), &env)
                            .map_err(|reason| self.wrong("command", &reason))?
                    }
                    _ => command,
                };
                [vec![program], more, script].concat()
            }
        };
        let env = self.env(&mut map)?;
        let mut spec = Spec { env, ..Spec::new(name, command, cwd) };
        for (key, value) in map {
            self.option(&mut spec, &key, &value)?;
        }
        spec.check().map_err(|reason| format!("{}: {reason}", source.label))?;
        Ok(spec)
    }

    fn option(&mut self, spec: &mut Spec, key: &str, value: &Value) -> Result<(), String> {
        if let Some(opt) = options::find(key) {
            return opt.read(spec, value).map_err(|reason| self.wrong(key, &reason));
        }
        let underlined = key.replace('-', "_");
        if let Some((_, instead)) = NO_KEYS.iter().find(|(option, _)| *option == underlined) {
            return Err(self.wrong(key, &format!("no key of a file ({instead})")));
        }
        if OWN_KEYS.contains(&underlined.as_str()) || options::find(&underlined).is_some() {
            return Err(self.wrong(key, &format!("write {underlined}")));
        }
        self.warn(&format!("unknown key '{}'", key.escape_debug()));
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

    /// A list of words, or a line.
    fn words(
        &self,
        map: &mut Map<String, Value>,
        key: &str,
    ) -> Result<Option<Vec<String>>, String> {
        let wrong = |reason: &str| Err(self.wrong(key, reason));
        match map.remove(key) {
            None => Ok(None),
            Some(Value::String(line)) => shell::argv(&line).map(Some).or_else(wrong),
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
                Ok(Some(command))
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

#[cfg(test)]
#[path = "../../tests/inner/wire_file.rs"]
mod tests;
