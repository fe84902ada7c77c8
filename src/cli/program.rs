//! What a word that names no service may be: a script, an executable file, a program in PATH
//! or a command line. Looks at files and never runs one, and refuses those that declare services
//! for others.
use super::environment::read_up_to;
use super::output::{Failure, failed};
use crate::process::shell;
use crate::service::context::DEFAULT_PATH;
use std::path::{Path, PathBuf};

/// Script extensions and what runs them; the first that is in PATH, else the first.
const INTERPRETERS: &[(&str, &[&str])] = &[
    ("js", &["node"]),
    ("mjs", &["node"]),
    ("cjs", &["node"]),
    // Node runs TypeScript itself since 22.18; where ts-node is there, it is there for this.
    ("ts", &["ts-node", "node"]),
    ("py", &["python3", "python"]),
    ("sh", &["sh"]),
    ("rb", &["ruby"]),
    ("pl", &["perl"]),
    ("php", &["php"]),
    ("lua", &["lua"]),
];
/// Shells that a script may ask for in its first line without being executable.
const SHELLS: &[&str] = &["bash", "dash", "zsh", "ksh", "mksh", "ash", "sh"];
/// As far as the kernel reads a first line (BINPRM_BUF_SIZE).
const FIRST_LINE_BYTES: u64 = 256;

/// Where commands are looked up.
#[derive(Debug)]
pub(super) struct Place {
    /// Relative paths begin here.
    pub(super) cwd: PathBuf,
    pub(super) path: String,
}

impl Place {
    /// Where this command finds programs itself.
    pub(super) fn own(cwd: PathBuf) -> Self {
        let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
        Self { cwd, path }
    }

    /// The words that run `target`, which names no service.
    pub(super) fn command(&self, target: &str) -> Result<Vec<String>, Failure> {
        if let Some(words) = self.file(target)? {
            return Ok(words);
        }
        if !target.contains(char::is_whitespace) {
            // Before it is taken for a line: `.` is a builtin of the shell.
            if self.cwd.join(target).is_dir() && !self.has_program(target) {
                let text = format!("{target}: is a directory (name the file in it)");
                return Err(Failure::plain(text));
            }
            // One word with shell syntax in it (`$APP`, `a;b`) is a line, too.
            return match shell::argv(target) {
                Ok(words) if words.len() == 1 && self.has_program(&words[0]) => Ok(words),
                Ok(words) if words.len() > 1 => Ok(words),
                _ => Err(nothing(target)),
            };
        }
        let mut words =
            shell::argv(target).map_err(|e| Failure::usage(format!("{target}: {e}")))?;
        if let Some(program) = self.file(&words[0])? {
            words.splice(..1, program);
        } else if !self.has_program(&words[0]) {
            return Err(nothing(&words[0]));
        }
        Ok(words)
    }

    /// The words that run `script` of a PM2 file: without an extension it is a program, or node's.
    pub(super) fn script(&self, script: &str) -> Result<Vec<String>, Failure> {
        let found = self.command(script);
        if found.is_err()
            && self.cwd.join(script).is_file()
            && Path::new(script).extension().is_none()
        {
            return Ok(vec!["node".to_owned(), as_operand(script)]);
        }
        found
    }

    /// The words by which an interpreter (`none`: nothing) runs `target`: any file, or a line.
    pub(super) fn interpreted(
        &self,
        target: &str,
        interpreter: &str,
    ) -> Result<Vec<String>, Failure> {
        if self.cwd.join(target).is_file() {
            let is_own = interpreter == "none";
            return Ok(vec![if is_own { as_path(target) } else { as_operand(target) }]);
        }
        let words = shell::argv(target).map_err(|e| Failure::usage(format!("{target}: {e}")))?;
        match &words[..] {
            [script] if script.contains('/') || interpreters(script).is_some() => {
                Err(nothing(script))
            }
            _ => Ok(words),
        }
    }

    /// Sees that the program of words that are exec'd as given is there, and what it says itself
    /// that it is run by: of that the kernel would only say that there is no such file.
    pub(super) fn check(&self, program: &str) -> Result<(), Failure> {
        if let Some(path) = self.find(program) {
            // What can be executed need not be readable.
            let line = first_line(&path).ok().flatten();
            return line.map_or(Ok(()), |line| self.check_interpreter(program, &line));
        }
        let found = program.contains('/') && self.cwd.join(program).exists();
        let reason = if found { "not an executable file" } else { "no such program" };
        Err(Failure::plain(format!("{program}: {reason}")))
    }

    /// `line` is what stands behind the `#!` of `script`.
    fn check_interpreter(&self, script: &str, line: &str) -> Result<(), Failure> {
        let blank = [' ', '\t'];
        let line = line.trim_matches(blank);
        let (interpreter, rest) = line.split_once(blank).unwrap_or((line, ""));
        let rest = rest.trim_start_matches(blank);
        let missing = if interpreter.is_empty() || self.cwd.join(interpreter).exists() {
            // env(1) gets the rest as one word, unless it is told to split it.
            let split = rest.strip_prefix("-S").map(|words| words.split_whitespace().next());
            let program = split.unwrap_or(Some(rest)).unwrap_or_default();
            let odd = program.is_empty() || program.starts_with('-') || program.contains('=');
            let is_env = Path::new(interpreter).file_name().is_some_and(|name| name == "env");
            if !is_env || odd || self.has_program(program) {
                return Ok(());
            }
            program
        } else {
            interpreter
        };
        let advice = if line.ends_with('\r') {
            format!("its lines end in CRLF: sed -i 's/\\r$//' {script}")
        } else {
            "install it, or change the first line".to_owned()
        };
        Err(Failure::plain(format!(
            "{script}: its interpreter \"{}\" does not exist ({advice})",
            missing.escape_debug()
        )))
    }

    /// How to run the file `word`, if it is one.
    fn file(&self, word: &str) -> Result<Option<Vec<String>>, Failure> {
        let path = self.cwd.join(word);
        if !path.is_file() {
            return Ok(None);
        }
        refuse_foreign(word)?;
        let executable = is_executable(&path);
        let Some((extension, interpreters)) = interpreters(word) else {
            return match executable {
                true => Ok(Some(vec![as_path(word)])),
                // `node` may be a data file here and a program in PATH.
                false if !word.contains('/') && self.has_program(word) => Ok(None),
                false => {
                    let reason = "neither executable nor a script with a known extension";
                    Err(Failure::plain(format!("{word}: {reason}")))
                }
            };
        };
        match first_line(&path).map_err(failed(word))? {
            Some(_) if executable => return Ok(Some(vec![as_path(word)])),
            Some(line) if *extension == "sh" => {
                if line.ends_with('\r') {
                    // Its shell would be found, and then each of its lines would end in a CR.
                    self.check_interpreter(word, &line)?;
                }
                let shell = shell_of(&line).unwrap_or("sh").to_owned();
                return Ok(Some(vec![shell, as_operand(word)]));
            }
            _ => {}
        }
        let found = interpreters.iter().find(|name| self.has_program(name));
        let Some(interpreter) = found.or(interpreters.first()) else {
            return Ok(None);
        };
        if found.is_none() {
            let text = format!("{word}: its interpreter {interpreter} is not in PATH");
            return Err(Failure::plain(text));
        }
        Ok(Some(vec![(*interpreter).to_owned(), as_operand(word)]))
    }

    fn has_program(&self, word: &str) -> bool {
        self.find(word).is_some()
    }

    /// As execvp(3) finds it.
    fn find(&self, word: &str) -> Option<PathBuf> {
        if word.is_empty() {
            return None;
        }
        if word.contains('/') {
            return Some(self.cwd.join(word)).filter(|path| is_executable(path));
        }
        let mut files = self.path.split(':').map(|dir| self.cwd.join(dir).join(word));
        files.find(|path| is_executable(path))
    }
}

/// What runs a script of that name, by its extension.
fn interpreters(script: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    let extension = Path::new(script).extension().and_then(|e| e.to_str()).unwrap_or_default();
    INTERPRETERS.iter().find(|(known, _)| *known == extension)
}

/// `start nope`: all three things that it isn't.
fn nothing(word: &str) -> Failure {
    Failure::plain(format!("{word}: no such service, file or program (try 'opm ls')"))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// With a slash in it, so that exec doesn't search PATH.
fn as_path(word: &str) -> String {
    if word.contains('/') { word.to_owned() } else { format!("./{word}") }
}

/// So that an interpreter doesn't take it for an option.
fn as_operand(word: &str) -> String {
    if word.starts_with('-') { format!("./{word}") } else { word.to_owned() }
}

/// What stands behind `#!`, if the file begins so.
fn first_line(path: &Path) -> std::io::Result<Option<String>> {
    let head = read_up_to(path, FIRST_LINE_BYTES)?;
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    Ok(line.strip_prefix(b"#!").map(|line| String::from_utf8_lossy(line).into_owned()))
}

/// The shell that a first line names: `/bin/bash -e`, `/usr/bin/env bash`.
fn shell_of(line: &str) -> Option<&'static str> {
    let mut words = line.split_whitespace().filter_map(|word| word.rsplit('/').next());
    let first = words.next()?;
    let shell = if first == "env" { words.next()? } else { first };
    SHELLS.iter().find(|known| **known == shell).copied()
}

/// How such a file's name ends, in lower case, what it is, and what to do.
const ENDINGS: &[(&str, &str, &str)] = &[
    (".config.ts", "a configuration in TypeScript", AS_JSON),
    (".yml", "YAML", FROM_YAML),
    (".yaml", "YAML", FROM_YAML),
    (".toml", "TOML", AS_JSON),
    (".service", "a unit of systemd", AS_JSON),
];
const AS_JSON: &str = "write it as JSON, see opm-file(5), and 'opm import' that";
const FROM_YAML: &str = "convert it: npx js-yaml FILE > services.json";

/// Refuses the file `path` if its name says that it declares something, but not to opm.
pub(super) fn refuse_foreign(path: &str) -> Result<(), Failure> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let Some((_, what, advice)) = ENDINGS.iter().find(|(ending, _, _)| name.ends_with(ending))
    else {
        return Ok(());
    };
    let advice = advice.replace("FILE", path);
    Err(Failure::plain(format!("{path}: is {what}, which opm does not read ({advice})")))
}

#[cfg(test)]
#[path = "../../tests/inner/cli_program.rs"]
mod tests;

#[cfg(test)]
#[path = "../../tests/inner/cli_foreign.rs"]
mod foreign_tests;
