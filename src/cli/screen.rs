//! A terminal that is drawn on line by line, of which only what changed is written.
//!
//! Whatever ends it, but a SIGKILL, the terminal is as it was before: [`Screen`] restores it when
//! it is dropped, and the signals that would end the command come out of [`Screen::wait`].
use super::output::{Failure, failed, write};
use super::poll::{self, is_readable};
use super::table::Look;
use crate::sys::signals;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::time::Duration;

/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// What the one who looks wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Enter,
    Escape,
    Erase,
    Char(char),
    /// Nothing more: ^C, a signal, or the terminal is gone.
    Quit,
}

pub(super) struct Screen {
    before: Termios,
    signals: OwnedFd,
    shown: Vec<String>,
    width: usize,
    pub(super) height: usize,
    colour: bool,
}

impl Screen {
    /// Takes the terminal, if there is one.
    pub(super) fn open(look: Look) -> Result<Self, Failure> {
        if !isatty(stdin()) || look.width.is_none() {
            return Err(Failure::plain("this needs a terminal (try 'opm ls')"));
        }
        let wrong = failed("the terminal");
        let ends = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH];
        let signals = signals::signalfd(&ends).map_err(&wrong)?;
        let before = tcgetattr(stdin()).map_err(&wrong)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(wrong)?;
        let mut screen =
            Self { before, signals, shown: Vec::new(), width: 0, height: 0, colour: look.colour };
        write(ENTER.as_bytes())?;
        screen.measure();
        Ok(screen)
    }

    /// What a table on it looks like.
    pub(super) fn look(&self) -> Look {
        Look { width: Some(self.width), colour: self.colour, boxed: false }
    }

    fn measure(&mut self) {
        let size = tcgetwinsize(stdout()).map_or((0, 0), |size| (size.ws_col, size.ws_row));
        // A terminal that doesn't know its size says 0.
        let or = |number: u16, usual| if number == 0 { usual } else { usize::from(number) };
        (self.width, self.height) = (or(size.0, 80), or(size.1, 24));
    }

    /// Shows `lines`, as many as there is room for.
    pub(super) fn draw(&mut self, mut lines: Vec<String>) -> Result<(), Failure> {
        lines.resize(self.height, String::new());
        let mut text = String::new();
        for (n, line) in lines.iter().enumerate() {
            if self.shown.get(n) != Some(line) {
                text.push_str(&format!("\x1b[{};1H{line}\x1b[K", n + 1));
            }
        }
        self.shown = lines;
        write(text.as_bytes())
    }

    /// Waits for keys, for `also`, for another size or for the time; and gives the keys.
    pub(super) fn wait(
        &mut self,
        also: Option<BorrowedFd<'_>>,
        most: Duration,
    ) -> Result<Vec<Key>, Failure> {
        let sources = [stdin(), self.signals.as_fd()].into_iter().chain(also);
        let goes_on = poll::wait(&sources.collect::<Vec<_>>(), Some(most))?;
        let (mut is_over, mut is_resized) = (!goes_on, false);
        signals::drain(&self.signals, |signal| match signal {
            libc::SIGWINCH => is_resized = true,
            _ => is_over = true,
        });
        if is_resized {
            self.measure();
            self.shown.clear();
            write(b"\x1b[2J")?;
        }
        let mut keys = if is_over { vec![Key::Quit] } else { Vec::new() };
        if is_readable(stdin(), Duration::ZERO) {
            let mut bytes = [0; 64];
            match rustix::io::read(stdin(), &mut bytes) {
                Ok(n) if n > 0 => keys.extend(keys_of(&String::from_utf8_lossy(&bytes[..n]))),
                _ => keys.push(Key::Quit),
            }
        }
        Ok(keys)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Of no use to anybody if they fail: the terminal is gone.
        write(LEAVE.as_bytes()).ok();
        tcsetattr(stdin(), OptionalActions::Now, &self.before).ok();
    }
}

fn keys_of(text: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let arrow =
            ["\x1b[A", "\x1bOA", "\x1b[B", "\x1bOB"].iter().position(|s| rest.starts_with(s));
        let (key, length) = match (arrow, c) {
            (Some(n), _) => (if n < 2 { Key::Up } else { Key::Down }, 3),
            (None, '\x03') => (Key::Quit, 1),
            (None, '\r' | '\n') => (Key::Enter, 1),
            (None, '\x1b') => (Key::Escape, 1),
            (None, '\x7f' | '\x08') => (Key::Erase, 1),
            (None, c) => (Key::Char(c), c.len_utf8()),
        };
        keys.push(key);
        rest = &rest[length..];
    }
    keys
}
