//! What `opm run` is asked to do. Read by hand, so that what lives long pays for nothing of
//! clap, which says only what is wrong, or helps.
use super::environment::{absolute, captured, current_directory, dotenv_of, last_of_each};
use super::output::{Failure, put};
use super::{args, home, start, usage};
use crate::run::options::{Options, Prefix, STOP_TIMEOUT_MS};
use crate::service::name::check_name;
use crate::service::spec::{Env, Policy, Restart, Spec};
use crate::service::units::Span;
use crate::wire::code;
use std::ffi::OsString;
use std::path::Path;

/// The words of the command line, sorted.
#[derive(Debug, Default)]
struct Words {
    options: Vec<String>,
    prefix: Option<Prefix>,
    stop_timeout_ms: Option<u64>,
    /// What only the one command can be given; a file says it itself.
    name: Option<String>,
    restart: Option<Restart>,
    env: Env,
    file: Option<String>,
    command: Vec<String>,
}

impl Words {
    /// An option that has no meaning for a process file.
    fn stray(&self) -> Option<&'static str> {
        let name = self.name.as_ref().map(|_| "--name");
        let restart = self.restart.map(|_| "--restart");
        name.or(restart).or((!self.env.is_empty()).then_some("--env"))
    }
}

/// Understands `words`, those after `run`.
pub(super) fn options(words: &[OsString]) -> Result<Options, Failure> {
    let Some(found) = parse(words) else {
        return Err(explain(words));
    };
    if let (Some(file), Some(stray)) = (&found.file, found.stray()) {
        let text = format!("{stray}: not with a process file (write it into {file})");
        return Err(Failure::usage(text));
    }
    let base = captured();
    let homes = home::for_run()?.into_iter();
    let homes = homes.map(|home| home.into_os_string().into_string());
    let homes = homes.collect::<Result<Vec<_>, _>>();
    let homes = homes.map_err(|_| Failure::usage("the home's path is not UTF-8"))?;
    let mut known = vec!["opm".to_owned(), "run".to_owned()];
    known.extend(found.options.iter().cloned());
    let mut trouble = None;
    let specs = match &found.file {
        Some(file) => {
            let path = absolute(Path::new(file)).map_err(|e| Failure::plain(e.to_string()))?;
            known.push(path.to_string_lossy().into_owned());
            match start::declared(file) {
                Ok((specs, _)) if specs.is_empty() => return Err(Failure::new(code::FAILED, "")),
                Ok((specs, _)) => specs,
                Err(failure) => {
                    trouble = Some((failure.code, failure.text));
                    Vec::new()
                }
            }
        }
        None => {
            known.push("--".to_owned());
            known.extend(found.command.iter().cloned());
            match single(&found) {
                Ok(spec) => vec![spec],
                Err(failure) => {
                    trouble = Some((failure.code, failure.text));
                    Vec::new()
                }
            }
        }
    };
    Ok(Options {
        homes,
        specs,
        base,
        prefix: found.prefix,
        stop_timeout_ms: found.stop_timeout_ms.unwrap_or(STOP_TIMEOUT_MS),
        words: known,
        trouble,
    })
}

/// None: there is something to say about these words.
fn parse(words: &[OsString]) -> Option<Words> {
    let mut found = Words::default();
    let mut words = words.iter().map(|word| word.to_str());
    while let Some(word) = words.next() {
        let word = word?;
        if word == "--" {
            found.command = words.map(|word| word.map(str::to_owned)).collect::<Option<_>>()?;
            break;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name, Some(value)),
            _ => (word, None),
        };
        match name {
            "--no-daemon-start" if value.is_none() => {}
            "--prefix" if found.prefix.is_none() => {
                let value = value.or_else(|| words.next()?)?;
                found.prefix = Some(Prefix::parse(value).ok()?);
                found.options.push(format!("--prefix={value}"));
            }
            "--stop-timeout" if found.stop_timeout_ms.is_none() => {
                let value = value.or_else(|| words.next()?)?;
                found.stop_timeout_ms = Some(Span::parse(value).ok()?.ms);
                found.options.push(format!("--stop-timeout={value}"));
            }
            "--name" | "-n" if found.name.is_none() => {
                let value = value.or_else(|| words.next()?)?;
                found.name = Some(value.to_owned());
                found.options.push(format!("--name={value}"));
            }
            "--restart" if found.restart.is_none() => {
                let value = value.or_else(|| words.next()?)?;
                found.restart = Some(Restart::parse(value).ok()?);
                found.options.push(format!("--restart={value}"));
            }
            "--env" => {
                let value = value.or_else(|| words.next()?)?;
                found.env.push(args::variable(value).ok()?);
                found.options.push(format!("--env={value}"));
            }
            _ if !word.starts_with('-') && !word.is_empty() && found.file.is_none() => {
                found.file = Some(word.to_owned());
            }
            _ => return None,
        }
    }
    (found.file.is_some() == found.command.is_empty()).then_some(found)
}

/// Help, if it was asked for, or what is wrong, in clap's words.
fn explain(words: &[OsString]) -> Failure {
    const MISSING: &str = "missing FILE or -- COMMAND (try 'opm run --help')";
    let Some(entry) = args::find("run") else {
        return Failure::usage(MISSING);
    };
    match usage::parse(entry, words.to_vec()) {
        Ok(matches) if matches.contains_id("file") && matches.contains_id("words") => {
            Failure::usage("FILE and -- COMMAND exclude each other (try 'opm run --help')")
        }
        Ok(_) => Failure::usage(MISSING),
        Err(Ok(help)) => match put(help.as_bytes()) {
            Ok(()) => Failure::new(code::DONE, ""),
            Err(failure) => failure,
        },
        Err(Err(failure)) => failure,
    }
}

/// The one service of `opm run -- COMMAND`.
fn single(found: &Words) -> Result<Spec, Failure> {
    let command = found.command.clone();
    if command.first().is_none_or(String::is_empty) {
        return Err(Failure::usage("the command is empty"));
    }
    let cwd = current_directory().unwrap_or_else(|_| "/".into());
    let name = found.name.clone().unwrap_or_else(|| start::name_of(&command, &cwd));
    check_name(&name).map_err(|e| Failure::usage(format!("{e} (try --name)")))?;
    let (dotenv, env) = (dotenv_of(&cwd)?, last_of_each(found.env.clone()));
    let cwd = start::text_of(cwd)?;
    let restart = found.restart.unwrap_or(Policy::default().restart);
    let policy = Policy { restart, ..Policy::default() };
    let spec = Spec { env, dotenv, policy, ..Spec::new(name, command, cwd) };
    spec.check().map_err(Failure::usage)?;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Words> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(&words)
    }

    #[test]
    fn words_are_read_as_clap_would() {
        let found = read("--prefix json --stop-timeout=3s a.json").unwrap();
        assert_eq!(found.prefix, Some(Prefix::Json));
        assert_eq!(found.stop_timeout_ms, Some(3_000));
        assert_eq!(found.file.as_deref(), Some("a.json"));
        assert_eq!(found.options, ["--prefix=json", "--stop-timeout=3s"]);
        let found = read("--prefix none -- sh -c --prefix").unwrap();
        assert_eq!(found.command, ["sh", "-c", "--prefix"]);
        let found = read("-n web --restart on-failure --env A=1 --env=B=2 -- x").unwrap();
        assert_eq!((found.name.as_deref(), found.restart), (Some("web"), Some(Restart::OnFailure)));
        assert_eq!(found.env, [("A", "1"), ("B", "2")].map(|(k, v)| (k.into(), v.into())));
        assert_eq!(found.options, ["--name=web", "--restart=on-failure", "--env=A=1", "--env=B=2"]);
        assert_eq!(read("--restart never a.json").unwrap().stray(), Some("--restart"));
        for line in [
            "",
            "--",
            "--restart maybe -- x",
            "--env A -- x",
            "--name a --name b -- x",
            "-h",
            "a b",
            "a -- b",
            "--prefix",
            "--prefix x a",
            "--stop-timeout 3 a",
            "--frob a",
            "--prefix none --prefix none a",
        ] {
            assert!(read(line).is_none(), "{line}");
        }
    }
}
