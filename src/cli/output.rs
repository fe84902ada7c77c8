//! What a command says: results on stdout, one line for each error and warning on stderr.
//!
//! A reader that has gone (`opm ls | head -1`) ends the command quietly with success; a
//! stdout that can't be written to is an error.
use crate::sys::writer::is_writable;
pub(crate) use crate::wire::Failure;
use crate::wire::{Outcome, code};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use std::fmt::Display;

/// What a command comes to: its exit code.
pub(crate) type Done = Result<u8, Failure>;

/// The contract's words for a target that names nothing.
pub(crate) fn no_such(target: &str) -> Failure {
    Failure::new(code::NO_SUCH, format!("no such service: {} (try 'opm ls')", escape(target)))
}

/// Says why a command ends early, if there is anything to say, and gives the exit code.
pub(crate) fn report(failure: &Failure) -> u8 {
    if !failure.text.is_empty() {
        error(&failure.text);
    }
    failure.code
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            // Somebody else made it non-blocking.
            Err(Errno::AGAIN) => {
                is_writable(to, u64::MAX);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes bytes to stdout, whole.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    write_all(rustix::stdio::stdout(), bytes).map_err(|errno| match errno {
        Errno::PIPE => Failure::new(code::DONE, ""),
        errno => Failure::plain(format!("cannot write to stdout: {}", reason(errno))),
    })
}

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

pub(crate) fn print_json(value: &(impl serde::Serialize + ?Sized)) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::plain(e.to_string()))?;
    print(&text)
}

/// A document for programs, or what `render` makes of it for people.
pub(crate) fn show<T: serde::Serialize + ?Sized>(
    json: bool,
    value: &T,
    render: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    if json { print_json(value) } else { write(render(value).as_bytes()) }
}

pub(crate) fn error(text: &str) {
    write_error(format!("opm: {}\n", escape(text)).as_bytes());
}

/// Bytes to stderr, as they are. One that can't be written to leaves nobody to tell.
pub(crate) fn write_error(bytes: &[u8]) {
    write_all(rustix::stdio::stderr(), bytes).ok();
}

pub(crate) fn warn(text: &str) {
    error(&format!("warning: {text}"));
}

/// How far a long request is, on one line that is written over; only where somebody looks.
#[derive(Default)]
pub(crate) struct Progress {
    is_shown: bool,
}

impl Progress {
    pub(crate) fn show(&mut self, done: usize, total: usize) {
        self.is_shown = self.is_shown || rustix::termios::isatty(rustix::stdio::stderr());
        if self.is_shown {
            // Of no consequence if it fails: the answer comes later.
            write_all(rustix::stdio::stderr(), format!("\r{done} of {total}").as_bytes()).ok();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            write_all(rustix::stdio::stderr(), b"\r\x1b[K").ok();
        }
    }
}

/// Says every outcome in its order, and returns the worst code.
pub(crate) fn print_outcomes(outcomes: &[Outcome]) -> Done {
    let mut worst = code::DONE;
    let mut good = String::new();
    for outcome in outcomes {
        worst = worst.max(outcome.code);
        if outcome.code != code::DONE || !outcome.warnings.is_empty() {
            write(std::mem::take(&mut good).as_bytes())?;
        }
        outcome.warnings.iter().for_each(|warning| warn(warning));
        if outcome.text.is_empty() {
            continue;
        }
        if outcome.code == code::DONE {
            good.push_str(&escape(&outcome.text));
            good.push('\n');
        } else {
            error(&outcome.text);
        }
    }
    write(good.as_bytes())?;
    Ok(worst)
}

/// `text` on one line that no terminal obeys: control characters are spelled out.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// That something failed, and why in the kernel's words.
pub(crate) fn failed<E: Into<std::io::Error>>(what: impl Display) -> impl Fn(E) -> Failure {
    move |error| Failure::plain(format!("{what}: {}", reason(error)))
}

/// The kernel's words for an error, without the number.
pub(crate) fn reason(error: impl Into<std::io::Error>) -> String {
    let error = error.into();
    Errno::from_io_error(&error).map_or_else(|| error.to_string(), crate::sys::describe)
}

#[cfg(test)]
#[path = "../../tests/inner/cli_output.rs"]
mod tests;
