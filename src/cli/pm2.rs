//! What people type who come from PM2, in words of ours: before the syntax of a command is looked
//! at, and where nothing of ours has that meaning.
use super::file::{self, Choice};
use super::output::Failure;
use std::ffi::OsString;

/// Commands that take a process file for the services in it.
const OF_FILES: [&str; 6] = ["stop", "remove", "reset", "info", "flush", "logs"];

/// A process file among `words`, those of the command `name`, stands for its services.
pub(super) fn of_files(name: &str, words: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let at = words.iter().position(|word| word.to_str().is_some_and(file::is_one));
    let Some(at) = at.filter(|_| OF_FILES.contains(&name)) else { return Ok(words) };
    let (mut rest, mut choice) = (Vec::new(), Choice::default());
    let mut given = words.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, word)| word);
    while let Some(word) = given.next() {
        let text = word.to_string_lossy();
        let (option, value) = match text.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (&text[..], None),
        };
        let field = match option {
            "--only" => &mut choice.only,
            "--env" => &mut choice.env,
            _ => {
                rest.push(word.clone());
                continue;
            }
        };
        *field = value.or_else(|| Some(given.next()?.to_string_lossy().into_owned()));
    }
    let declared = file::declared(&words[at].to_string_lossy(), &choice)?;
    if !declared.specs.is_empty() {
        rest.insert(0, file::target_of(&declared.specs).into());
    }
    Ok(rest)
}
