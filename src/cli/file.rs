//! Process files as commands take them: found, evaluated if they are programs, and carried out.
//! Nothing of a file is kept or started while something in it is wrong.
use super::client::{Client, Need};
use super::environment::{absolute, captured, current_directory, dotenv_of, read_up_to};
use super::output::{Done, Failure, failed, reason, warn};
use super::program::{Place, refuse_foreign};
use super::request::{Call, outcomes};
use super::start::{name_of, processors, text_of};
use super::{environment, start};
use crate::service::context::{Context, search_path};
use crate::service::instances::expand;
use crate::service::json;
use crate::service::selector::Selector;
use crate::service::shared::Shared;
use crate::service::spec::{Env, Spec};
use crate::sys::output_of::end_of;
use crate::wire::file::pm2::PM2S;
pub(super) use crate::wire::file::tidy;
use crate::wire::file::{self, BOM, Source};
use crate::wire::{Existing, Request, code};
use clap::ArgMatches;
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a process file is called that has no name.
const STDIN: &str = "stdin";
/// Where options come from that no file has.
pub(super) const COMMAND_LINE: &str = "command line";
const EVALUATION_TIME_MAX: Duration = Duration::from_secs(10);

/// Says what the module exports, by its default or by names; a JSON file may be an expression.
const EVALUATE: &str = "const file = process.argv[1], fs = require('fs'); \
    process.stdout.write = process.stderr.write.bind(process.stderr); \
    (async () => { \
        const m = /json$/i.test(file) \
            ? { default: (0, eval)('(' + fs.readFileSync(file, 'utf8') + '\\n)') } \
            : await import(require('url').pathToFileURL(file).href); \
        let it = await (m.default ?? m); \
        if (typeof it === 'function') it = await it(); \
        fs.writeFileSync(1, JSON.stringify(it) ?? 'null'); \
        process.exit(0); \
    })()";

/// Which services of a file are meant, and which of PM2's `env_NAME`.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) env: Option<String>,
    pub(super) only: Option<String>,
}

impl Choice {
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let last = |id| Some(matches.try_get_many::<String>(id).ok()??.next_back()?.clone());
        Self { env: last("env").filter(|set| !set.contains('=')), only: last("only") }
    }
}

pub(super) struct Declared {
    pub(super) specs: Vec<Spec>,
    pub(super) label: String,
    /// It is one of PM2's: to start it is to restart what of it runs.
    pub(super) is_pm2: bool,
    /// What this command has, and gives to its services.
    base: Box<Context>,
}

impl Declared {
    /// Whether each of them can be executed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let mut known = BTreeSet::new();
        for spec in &self.specs {
            let path = search_path(&[&spec.env, &spec.dotenv, &self.base.env]).to_owned();
            if !known.insert((spec.cwd.as_str(), path.clone(), &spec.command[0])) {
                continue;
            }
            let place = Place { cwd: PathBuf::from(spec.cwd.as_str()), path };
            place.check(&spec.command[0]).map_err(|failure| {
                let reason = failure.text;
                Failure::plain(format!("{}: {}: command: {reason}", self.label, spec.name))
            })?;
        }
        Ok(())
    }

    /// Whether the daemon would refuse it, if there is one.
    pub(super) fn check_with(&self, client: &Client) -> Result<(), Failure> {
        let (specs, base, existing) = (self.specs.clone(), self.base.clone(), Existing::Checked);
        let request = Request::Define { specs, base, force: false, existing, wait: false };
        client.request(Need::Record, &request).map(drop).map_err(|it| in_file(&self.label, it))
    }
}

/// What is wrong in a file is no usage of ours, whoever finds it.
fn in_file(label: &str, it: Failure) -> Failure {
    let is_wrong = it.code == code::USAGE;
    if is_wrong { Failure::plain(format!("{label}: {}", it.text)) } else { it }
}

/// Whether `word` is the name of a process file that is there, or stdin.
pub(super) fn is_one(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word).to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|end| name.ends_with(end));
    let declares =
        |stem: &str| [".config", ".ecosystem"].into_iter().any(|end| stem.ends_with(end));
    let is_named = ends(&[".json", ".json5"])
        || file::is_procfile(&name)
        || module(&name).is_some_and(declares)
        || ends(&[".conf", ".ini"]) && has_programs(word);
    word == "-" || is_named && Path::new(word).is_file()
}

/// Whether it is a configuration of supervisord's.
fn has_programs(name: &str) -> bool {
    let bytes = read_up_to(Path::new(name), file::FILE_BYTES_MAX as u64).unwrap_or_default();
    bytes.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"[program:"))
}

/// Its name without the extension, if node has to say what is in it.
fn module(name: &str) -> Option<&str> {
    [".js", ".cjs", ".mjs"].into_iter().find_map(|end| name.strip_suffix(end))
}

/// What the file `name` declares, complete; over what this command has, or had.
pub(super) fn declared(name: &str, choice: &Choice, base: Context) -> Result<Declared, Failure> {
    let mut text = read(name)?;
    let label = text.label.to_ascii_lowercase();
    if module(&label).is_some() || label.ends_with("json") && is_expression(&text.bytes) {
        text.bytes = evaluated(&text.directory, name)?;
    }
    complete(text, choice, base)
}

pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    pub(super) label: String,
    pub(super) directory: PathBuf,
}

pub(super) fn complete(text: Text, choice: &Choice, base: Context) -> Result<Declared, Failure> {
    let Text { bytes, label, directory } = text;
    let caller = current_directory().unwrap_or_else(|_| "/".into());
    let program = |script: &str, interpreter: Option<&str>, cwd: &Path, env: &Env| {
        let path = search_path(&[env, &base.env]).to_owned();
        let place = Place { cwd: cwd.to_owned(), path };
        let words = interpreter.map_or_else(
            || place.script(script),
            |interpreter| place.interpreted(script, interpreter),
        );
        words.map_err(|failure| failure.text)
    };
    let system = rustix::system::uname();
    let source = Source {
        label: &label,
        directory: &directory,
        caller: &caller,
        naming: &name_of,
        program: &program,
        variable: &|name| std::env::var(name).ok(),
        host: &system.nodename().to_string_lossy(),
        env: choice.env.as_deref(),
    };
    let found = file::parse(&bytes, &source);
    let mut found = found.map_err(Failure::plain)?;
    if let Some(only) = &choice.only {
        let names: Vec<&str> = only.split(',').map(str::trim).collect();
        let is_there = |name: &&str| found.specs.iter().any(|spec| spec.name == *name);
        if let Some(unknown) = names.iter().find(|name| !is_there(name)) {
            let text = format!("{label}: no service '{unknown}' in it (--only)");
            return Err(Failure::new(code::NO_SUCH, text));
        }
        found.specs.retain(|spec| {
            let is_meant = names.contains(&spec.name.as_str());
            let about = format!("{label}: {}: ", spec.name);
            found.warnings.retain(|warning| is_meant || !warning.starts_with(&about));
            is_meant
        });
    }
    for warning in &found.warnings {
        warn(warning);
    }
    let specs = found.specs.into_iter();
    found.specs = specs.flat_map(|spec| expand(spec, processors)).collect();
    let origin = origin(&label, &directory, found.is_pm2);
    // Most services of a file share a directory: it is looked into once.
    let mut known: BTreeMap<(String, Vec<String>), Shared<Env>> = BTreeMap::new();
    for spec in &mut found.specs {
        spec.origin.of.clone_from(&origin);
        for file in &mut spec.exec.env_file {
            *file = text_of(tidy(&directory.join(&file)))?;
        }
        let place = (spec.cwd.to_string(), spec.exec.env_file.clone());
        if !known.contains_key(&place) {
            let cwd = Path::new(spec.cwd.as_str());
            if !cwd.is_dir() {
                let text = format!("{label}: {}: cwd: no such directory: {}", spec.name, *spec.cwd);
                return Err(Failure::plain(text));
            }
            known.insert(place.clone(), dotenv_of(cwd, &spec.exec.env_file)?.into());
        }
        spec.dotenv.clone_from(&known[&place]);
        spec.check().map_err(|reason| Failure::plain(format!("{label}: {reason}")))?;
    }
    if found.specs.is_empty() {
        warn(&format!("{label}: no services in it"));
    }
    Ok(Declared { specs: found.specs, label, is_pm2: found.is_pm2, base: Box::new(base) })
}

/// Where the options of a file's services come from.
fn origin(label: &str, directory: &Path, is_pm2: bool) -> String {
    let name = Path::new(label).file_name().filter(|_| label != STDIN);
    let path = name.map_or_else(|| STDIN.into(), |name| directory.join(name));
    format!("{}{}", if is_pm2 { PM2S } else { "" }, path.display())
}

/// Whether it may be an expression in JavaScript, of PM2's: what is opm's own is never run.
fn is_expression(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let is_pm2s = ["script", "apps"].into_iter().any(|key| text.contains(key));
    is_pm2s && !text.contains("services") && json::parse(text.trim_start_matches(BOM)).is_err()
}

/// What node makes of the file, as JSON: it runs where the file lies, with what this command has.
fn evaluated(directory: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |text: String| Failure::plain(format!("{name}: {text}"));
    let io = |e: std::io::Error| wrong(reason(e));
    let path = absolute(Path::new(name)).map_err(io)?;
    let memory =
        || memfd_create("opm", MemfdFlags::CLOEXEC).map(File::from).map_err(std::io::Error::from);
    let (mut out, mut said) = (memory().map_err(io)?, memory().map_err(io)?);
    let mut command = Command::new("node");
    command.args(["-e", EVALUATE]).arg(&path).current_dir(directory).env("PWD", directory);
    command.stdin(Stdio::null()).stdout(out.try_clone().map_err(io)?);
    command.stderr(said.try_clone().map_err(io)?);
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            wrong("is for node, which is not in PATH (install it, or write JSON)".to_owned())
        }
        _ => wrong(format!("node: {}", reason(e))),
    })?;
    let Some(status) = end_of(&mut child, EVALUATION_TIME_MAX) else {
        let most = EVALUATION_TIME_MAX.as_secs();
        return Err(wrong(format!("did not end within {most}s, and was killed")));
    };
    let mut text = String::new();
    said.rewind().and_then(|()| said.read_to_string(&mut text)).map_err(io)?;
    if !status.success() {
        return Err(wrong(blamed(&text, &path)));
    }
    super::output::write_error(text.as_bytes());
    let mut bytes = Vec::new();
    out.rewind().and_then(|()| out.read_to_end(&mut bytes)).map_err(io)?;
    Ok(bytes)
}

/// The line of the file, and the error, out of what node says.
fn blamed(text: &str, path: &Path) -> String {
    let file = format!("/{}:", path.file_name().unwrap_or_default().to_string_lossy());
    let line = text.split_once(&file).map(|(_, rest)| rest);
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let line = line.map(digits).filter(|line| !line.is_empty());
    let is_error =
        |line: &&str| line.split_once("Error: ").is_some_and(|(kind, _)| !kind.contains(' '));
    let error = text.lines().find(is_error).unwrap_or("node failed");
    line.map_or_else(|| error.to_owned(), |line| format!("line {line}: {error}"))
}

/// Defines and starts all, or nothing: what can't be executed is found out before.
pub(super) fn carry_out(call: &Call, declared: Declared, existing: Existing) -> Done {
    declared.check()?;
    let Declared { specs, base, label, .. } = declared;
    if specs.is_empty() {
        return Ok(code::DONE);
    }
    if matches!(existing, Existing::Replace | Existing::Roll) {
        environment::update(call, &target_of(&specs), |_| true)?;
    }
    see_to_paths(&specs)?;
    let (force, wait) = (call.has("force"), start::waits(call, &specs));
    let request = Request::Define { specs, base, force, existing, wait };
    outcomes(&call.client.demand(&request).map_err(|it| in_file(&label, it))?)
}

/// Makes the directories of log files that have a name of their own, and says which of the paths
/// to watch are not there: they may be meant for later.
pub(super) fn see_to_paths(specs: &[Spec]) -> Result<(), Failure> {
    let mut missing = BTreeSet::new();
    for spec in specs {
        let cwd = Path::new(spec.cwd.as_str());
        for file in [&spec.log.log_out, &spec.log.log_error].into_iter().flatten() {
            let file = cwd.join(file);
            let Some(directory) = file.parent() else { continue };
            let what = format!("{}: {}", spec.name, directory.display());
            std::fs::create_dir_all(directory).map_err(failed(what))?;
        }
        for path in spec.care.watch.iter().map(|path| cwd.join(&path.0)) {
            if !path.exists() && missing.insert(path.clone()) {
                let path = path.display();
                warn(&format!("{}: watch: {path}: not there yet (watched for)", spec.name));
            }
        }
    }
    Ok(())
}

/// The target that means those services and no others.
pub(super) fn target_of(specs: &[Spec]) -> String {
    let names: Vec<String> = specs.iter().map(|spec| Selector::exactly(&spec.name)).collect();
    names.join(",")
}

pub(super) fn import(call: &Call) -> Done {
    let declared = declared(call.text("file"), &Choice::of(&call.matches), captured())?;
    carry_out(call, declared, Existing::Same)
}

/// Refuses `--only` where no process file is.
pub(super) fn only_of_file(call: &Call) -> Result<(), Failure> {
    let is_stray = call.matches.contains_id("only") && !call.client.is_pm2;
    if is_stray { Err(Failure::usage("--only: is for a process file")) } else { Ok(()) }
}

pub(super) fn start(call: &Call, name: &str) -> Done {
    let declared = declared(name, &Choice::of(&call.matches), captured())?;
    let existing = if declared.is_pm2 { Existing::Replace } else { Existing::Same };
    carry_out(call, declared, existing)
}

/// `restart FILE` and `reload FILE`, if the one target is a file.
pub(super) fn anew(call: &Call, existing: Existing) -> Option<Done> {
    let mut words = call.matches.get_many::<String>("target").into_iter().flatten();
    let file = words.next().filter(|word| words.next().is_none() && is_one(word));
    let Some(file) = file else { return only_of_file(call).err().map(Err) };
    let declared = declared(file, &Choice::of(&call.matches), captured());
    Some(declared.and_then(|declared| carry_out(call, declared, existing)))
}

fn read(name: &str) -> Result<Text, Failure> {
    let wrong = failed(name);
    let most = file::FILE_BYTES_MAX as u64 + 1;
    if name == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(&wrong)?;
        let directory = current_directory().map_err(&wrong)?;
        return Ok(Text { bytes, label: STDIN.to_owned(), directory });
    }
    let path = absolute(Path::new(name)).map_err(&wrong)?;
    if path.is_file() {
        refuse_foreign(name)?;
    }
    let bytes = read_up_to(&path, most).map_err(wrong)?;
    let directory = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
    Ok(Text { bytes, label: name.to_owned(), directory })
}
