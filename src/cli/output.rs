//! What a command says: results on stdout, one line for each error and warning on stderr.
//!
//! A reader that has gone (`opm ls | head -1`) ends the command quietly with success; a
//! stdout that can't be written to is an error.
pub(crate) use crate::wire::Failure;
use crate::wire::{Outcome, code};
use rustix::io::Errno;

/// What a command comes to: its exit code.
pub(crate) type Done = Result<u8, Failure>;

/// The contract's words for a target that names nothing.
pub(crate) fn no_such(target: &str) -> Failure {
    Failure::new(code::NO_SUCH, format!("no such service: {} (try 'opm ls')", visible(target)))
}

/// Writes bytes to stdout, whole.
pub(crate) fn put(mut bytes: &[u8]) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_writable()?,
            Err(Errno::PIPE) => return Err(Failure::new(code::DONE, "")),
            Err(e) => {
                return Err(Failure::plain(format!("cannot write to stdout: {}", why(e))));
            }
        }
    }
    Ok(())
}

/// A stdout that somebody else made non-blocking.
fn wait_writable() -> Result<(), Failure> {
    use rustix::event::{PollFd, PollFlags, poll};
    let out = rustix::stdio::stdout();
    match poll(&mut [PollFd::new(&out, PollFlags::OUT)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(Failure::plain(format!("cannot write to stdout: {}", why(e)))),
    }
}

/// Writes `text` and a newline to stdout.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    put(line.as_bytes())
}

/// One JSON document and a newline.
pub(crate) fn say_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::plain(e.to_string()))?;
    say(&text)
}

/// One line on stderr. A stderr that can't be written to leaves nobody to tell.
pub(crate) fn complain(text: &str) {
    let line = format!("opm: {}\n", visible(text));
    let mut bytes = line.as_bytes();
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stderr(), bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// How far a long request is, on one line that is written over; only where somebody looks.
pub(crate) struct Progress(bool);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(false)
    }

    pub(crate) fn show(&mut self, done: usize, total: usize) {
        self.0 = self.0 || rustix::termios::isatty(rustix::stdio::stderr());
        if self.0 {
            self.write(&format!("\r{done} of {total}"));
        }
    }

    fn write(&self, text: &str) {
        // Of no consequence if it fails: the answer comes later.
        rustix::io::write(rustix::stdio::stderr(), text.as_bytes()).ok();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.0 {
            self.write("\r\x1b[K");
        }
    }
}

pub(crate) fn warn(text: &str) {
    complain(&format!("warning: {text}"));
}

/// Says every outcome in its order, and returns the worst code.
pub(crate) fn conclude(outcomes: &[Outcome]) -> Done {
    let mut worst = code::DONE;
    let mut good = String::new();
    for outcome in outcomes {
        worst = worst.max(outcome.code);
        if outcome.code != code::DONE || !outcome.warnings.is_empty() {
            put(std::mem::take(&mut good).as_bytes())?;
        }
        for warning in &outcome.warnings {
            warn(warning);
        }
        if outcome.text.is_empty() {
            continue;
        }
        if outcome.code == code::DONE {
            good.push_str(&visible(&outcome.text));
            good.push('\n');
        } else {
            complain(&outcome.text);
        }
    }
    put(good.as_bytes())?;
    Ok(worst)
}

/// `text` on one line that no terminal obeys: control characters are spelled out.
pub(crate) fn visible(text: &str) -> String {
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

/// The kernel's words for an error, without the number.
pub(crate) fn why(error: impl Into<std::io::Error>) -> String {
    let text = error.into().to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_line_without_control_characters() {
        assert_eq!(visible("a\nb\u{1b}[31m\u{85}é"), "a\\nb\\u{1b}[31m\\u{85}é");
    }

    #[test]
    fn an_error_of_the_kernel_has_no_number() {
        assert_eq!(why(Errno::NOENT), "No such file or directory");
    }
}
