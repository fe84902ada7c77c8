//! What a command sees when it defines a service: its directory, its environment, the `.env` that
//! lies there. Captured here and nowhere else.
use super::client::Need;
use super::dotenv;
use super::output::{Failure, reason, warn};
use super::request::{Call, gather, strange};
use crate::service::context::Context;
use crate::service::spec::{Change, Env, last_of_each};
use crate::sys::{attributes, reexec::DIRECTORY_VARIABLE};
use crate::wire::file::tidy;
use crate::wire::{Info, Reply, Request, Row, code};
use serde_json::Value;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Largest `.env`: what it holds has to fit beside the words of a command.
const DOTENV_BYTES_MAX: u64 = 1 << 20;
const PACKAGE_BYTES_MAX: u64 = 1 << 20;

/// The current directory as `pwd -L` names it: where a shell came here through a link to the
/// release of the day, the service is to follow that link, too.
pub(super) fn current_directory() -> std::io::Result<PathBuf> {
    if let Some(first) = std::env::var_os(DIRECTORY_VARIABLE) {
        return Ok(first.into());
    }
    let real = std::env::current_dir()?;
    let logical = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    let place = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let logical = logical.filter(|path| {
        let climbs = path.components().any(|part| part == Component::ParentDir);
        // A name of before a `cd` that didn't say so is another place.
        !climbs && place(path).is_some() && place(path) == place(Path::new("."))
    });
    Ok(logical.map_or(real, |path| tidy(&path)))
}

/// `path` from the root, links as they are.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    if path.is_absolute() {
        return Ok(tidy(path));
    }
    Ok(tidy(&current_directory()?.join(path)))
}

/// What this command has, as every incarnation will see it. `OPM_*` would be the marks of the
/// service that this command was started from.
pub(super) fn captured() -> Context {
    let mut env = Env::new();
    let mut dropped = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), _) if name.starts_with("OPM_") => {}
            (Ok(name), Ok(value)) => env.push((name, value)),
            (Ok(name), Err(_)) => dropped.push(name),
            (Err(name), _) => dropped.push(name.to_string_lossy().into_owned()),
        }
    }
    if !dropped.is_empty() {
        warn(&format!("left out of the environment, not UTF-8: {}", dropped.join(" ")));
    }
    Context { env, attributes: attributes::own() }
}

pub(super) fn read_up_to(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The variables of the `.env` in a directory, and over them those of `files`, which must be there.
pub(super) fn dotenv_of(cwd: &Path, files: &[String]) -> Result<Env, Failure> {
    let mut env = variables_of(&cwd.join(".env"), true)?;
    for file in files {
        env.extend(variables_of(&cwd.join(file), false)?);
    }
    Ok(last_of_each(env))
}

fn variables_of(path: &Path, is_optional: bool) -> Result<Env, Failure> {
    let wrong = |reason: &str| Failure::plain(format!("{}: {reason}", path.display()));
    let bytes = match read_up_to(path, DOTENV_BYTES_MAX + 1) {
        Ok(bytes) => bytes,
        Err(e) if !is_optional => return Err(wrong(&reason(e))),
        // A directory of that name is a virtual environment of Python's.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound || path.is_dir() => {
            return Ok(Env::new());
        }
        Err(e) => {
            warn(&format!("{}: {}, left out", path.display(), reason(e)));
            return Ok(Env::new());
        }
    };
    if bytes.len() as u64 > DOTENV_BYTES_MAX {
        return Err(wrong(&format!("it is over {} MB", DOTENV_BYTES_MAX >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8 text"))?;
    let (mut env, bad) = dotenv::parse(&text);
    for line in bad {
        warn(&format!("{}: line {line} is not NAME=VALUE, left out", path.display()));
    }
    // What opm itself is told there is nothing for the service.
    env.retain(|(name, _)| !name.starts_with("OPM_"));
    Ok(env)
}

/// With `--update-env`: gives the services of `target` that `are_meant` the environment of now for
/// their next start, but for what was given by hand, umask, nice value and limits.
pub(super) fn update(
    call: &Call,
    target: &str,
    are_meant: impl Fn(&Row) -> bool,
) -> Result<(), Failure> {
    if !call.has("update-env") {
        return Ok(());
    }
    let request = |target| Request::Info { target };
    let found = gather(&call.client, target, Need::Record, request, |info: &Info| info.row.id);
    let found = match found {
        Ok((found, _)) => found,
        // What is no target may be a command line.
        Err(failure) if failure.code == code::USAGE => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let env_of = |info: &Info| {
        let (cwd, name) = (Path::new(&info.row.cwd), info.row.name.clone());
        Ok((name, dotenv_of(cwd, &env_files(info))?))
    };
    let services = found
        .iter()
        .filter(|info| are_meant(&info.row))
        .map(env_of)
        .collect::<Result<Vec<_>, Failure>>()?;
    if services.is_empty() {
        return Ok(());
    }
    match call.client.demand(&Request::Update { services, env: captured().env })? {
        Reply::Outcomes { .. } => Ok(()),
        _ => Err(strange()),
    }
}

/// With `--reset-env`: services of `target` lose what was set by hand, from their next start on.
pub(super) fn reset(call: &Call, target: &str) -> Result<(), Failure> {
    if !call.flag("reset-env") {
        return Ok(());
    }
    let change = Box::new(Change { reset_env: true, ..Change::default() });
    let request = Request::Adjust { target: target.to_owned(), change, now: false };
    // What names no service is left to whoever starts it.
    match call.client.request(Need::Record, &request) {
        Err(failure) if ![code::NO_SUCH, code::USAGE].contains(&failure.code) => Err(failure),
        _ => Ok(()),
    }
}

/// The files that a service has variables of, besides its `.env`.
pub(super) fn env_files(info: &Info) -> Vec<String> {
    let files = info.options.policy.get("env_file").and_then(Value::as_array).into_iter().flatten();
    files.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The name that `package.json` gives to what lies in a directory; else the directory's own.
pub(super) fn package_name(cwd: &Path) -> Option<String> {
    let path = cwd.join("package.json");
    let bytes = path.is_file().then(|| read_up_to(&path, PACKAGE_BYTES_MAX).ok()).flatten();
    let package = bytes.and_then(|bytes| {
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        // Of `@scope/name` the name: it may hold no slash.
        value.get("name")?.as_str()?.rsplit('/').next().map(str::to_owned)
    });
    let directory = || cwd.file_name().map(|name| name.to_string_lossy().into_owned());
    package.filter(|name| !name.is_empty()).or_else(directory)
}
