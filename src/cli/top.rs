//! `top` and `ls --watch`: the list, live. A daemon is asked once a second while somebody looks,
//! and the terminal gets what changed.
//!
//! What a key asks for is a request of its own beside that: nothing here waits for its answer.
use super::client::{Connection, Need};
use super::output::{Done, Failure, escape};
use super::pick::Sort;
use super::poll::is_readable;
use super::request::{Call, ask};
use super::screen::{Key, Screen};
use super::table::{Hue, Look, cut};
use super::{launch, render, services};
use crate::service::selector::Selector;
use crate::service::spec::Id;
use crate::wire::{LogFiles, Reply, Request, Row, Status, code};
use std::time::{Duration, Instant};

/// From one question to the next.
const EACH: Duration = Duration::from_secs(1);
/// What the key for it goes through.
const SORTS: [&str; 6] = ["id", "name", "cpu:desc", "mem:desc", "restarts:desc", "status"];
const KEYS: &str = "q quit  up/down select  s sort  / filter  r restart  x stop  l logs";

/// `ls --watch`: the same table again and again, until a key ends it.
pub(super) fn watch(table: impl Fn(Look) -> Result<String, Failure>) -> Done {
    let mut screen = Screen::open(services::look())?;
    loop {
        let text = table(screen.look()).unwrap_or_else(|failure| escape(&failure.text));
        screen.draw(text.lines().map(ToOwned::to_owned).collect())?;
        let keys = screen.wait(None, EACH)?;
        if keys.iter().any(|key| matches!(key, Key::Quit | Key::Escape | Key::Char('q'))) {
            return Ok(code::DONE);
        }
    }
}

pub(super) fn top(call: &Call) -> Done {
    let mut screen = Screen::open(services::look())?;
    let mut top = Top {
        call,
        all: Vec::new(),
        rows: Vec::new(),
        chosen: None,
        sort: 0,
        filter: String::new(),
        is_typing: false,
        has_logs: false,
        message: String::new(),
        pending: None,
    };
    let mut due = Instant::now();
    loop {
        if due <= Instant::now() {
            top.ask();
            due = Instant::now() + EACH;
        }
        screen.draw(top.lines(screen.look(), screen.height))?;
        let left = due.saturating_duration_since(Instant::now());
        for key in screen.wait(top.pending.as_ref().map(Connection::fd), left)? {
            if !top.press(key) {
                return Ok(code::DONE);
            }
        }
        if top.hear() {
            due = Instant::now();
        }
    }
}

struct Top<'a> {
    call: &'a Call,
    /// What was true when the daemon was asked.
    all: Vec<Row>,
    /// Of it those that are shown, in their order.
    rows: Vec<Row>,
    chosen: Option<Id>,
    sort: usize,
    filter: String,
    is_typing: bool,
    has_logs: bool,
    message: String,
    /// Where what was asked for is answered.
    pending: Option<Connection>,
}

impl Top<'_> {
    fn ask(&mut self) {
        match services::rows(&self.call.client, true) {
            Ok(rows) => self.all = rows,
            Err(failure) => self.message = failure.text,
        }
        self.arrange();
    }

    /// Filters and sorts: that asks nobody, for the daemon looks at every process for an answer.
    fn arrange(&mut self) {
        self.rows =
            self.all.iter().filter(|row| row.name.contains(&self.filter)).cloned().collect();
        if let Ok(sort) = Sort::parse(SORTS[self.sort]) {
            sort.apply(&mut self.rows);
        }
        if self.chosen().is_none() {
            self.chosen = self.rows.first().map(|row| row.id);
        }
    }

    fn chosen(&self) -> Option<usize> {
        self.rows.iter().position(|row| Some(row.id) == self.chosen)
    }

    /// Does what a key is for. False: it is for the end.
    fn press(&mut self, key: Key) -> bool {
        if self.is_typing && key != Key::Quit {
            match key {
                Key::Char(c) => self.filter.push(c),
                Key::Erase => drop(self.filter.pop()),
                Key::Escape => self.filter.clear(),
                Key::Enter | Key::Up | Key::Down | Key::Quit => {}
            }
            self.is_typing = matches!(key, Key::Char(_) | Key::Erase);
            self.arrange();
            return true;
        }
        match key {
            Key::Quit | Key::Char('q') => return false,
            Key::Up | Key::Char('k') => self.step(usize::wrapping_sub),
            Key::Down | Key::Char('j') => self.step(usize::wrapping_add),
            Key::Enter | Key::Char('l') => self.has_logs = !self.has_logs,
            Key::Char('/') => self.is_typing = true,
            Key::Char('s') => {
                self.sort = (self.sort + 1) % SORTS.len();
                self.arrange();
            }
            Key::Char('r') => self.request(|target| Request::Restart { target }, "restarting"),
            Key::Char('x') => {
                let stop = |target| Request::Stop { target, dependants: false };
                self.request(stop, "stopping");
            }
            Key::Escape => self.message.clear(),
            Key::Erase | Key::Char(_) => {}
        }
        true
    }

    fn step(&mut self, by: fn(usize, usize) -> usize) {
        let next = self.chosen().and_then(|at| self.rows.get(by(at, 1)));
        self.chosen = next.map(|row| row.id).or(self.chosen);
    }

    fn request(&mut self, request: impl FnOnce(String) -> Request, what: &str) {
        let Some(row) = self.chosen().map(|at| &self.rows[at]) else { return };
        self.message = format!("{what} {}", row.name);
        let request = request(Selector::exactly(&row.name));
        let asked = self.call.client.connect(Need::Running).and_then(|connection| {
            let mut connection = connection.ok_or_else(|| self.call.client.away())?;
            connection.send(&request).map(|()| connection)
        });
        match asked {
            Ok(connection) => self.pending = Some(connection),
            Err(failure) => self.message = failure.text,
        }
    }

    /// Takes up the answer to what was asked for, if it is there.
    fn hear(&mut self) -> bool {
        let is_there = |one: &mut Connection| is_readable(one.fd(), Duration::ZERO);
        let Some(mut connection) = self.pending.take_if(is_there) else { return false };
        self.message = match connection.last() {
            Ok(Some(Reply::Outcomes { outcomes, .. })) => {
                outcomes.into_iter().map(|one| one.text).collect::<Vec<_>>().join(", ")
            }
            Ok(_) => self.call.client.away().text,
            Err(failure) => failure.text,
        };
        true
    }

    fn lines(&self, look: Look, height: usize) -> Vec<String> {
        let width = look.width.unwrap_or(0);
        let online = self.rows.iter().filter(|row| row.status == Status::Online).count();
        let head = format!("opm: {} services, {online} online", self.rows.len());
        let filter = match self.filter.as_str() {
            "" => String::new(),
            filter => format!("  filter: {filter}"),
        };
        let head = format!("{head}  sort: {}{filter}", SORTS[self.sort]);
        let mut lines = vec![look.paint(Hue::Bold, &cut(&escape(&head), width))];
        let logs = self.logs(look, height / 3);
        // Besides the rows: this head, the table's, and the last line.
        let room = height.saturating_sub(3 + logs.len()).max(1);
        let chosen = self.chosen().unwrap_or(0);
        let from = (chosen + 1).saturating_sub(room);
        let shown = &self.rows[from.min(self.rows.len())..self.rows.len().min(from + room)];
        let plain = render::list(shown, Look { colour: false, ..look });
        let marked = plain.lines().nth(chosen - from + 1).unwrap_or_default();
        let table = render::list(shown, look);
        for (n, line) in table.lines().enumerate() {
            let is_chosen = n == chosen - from + 1;
            lines.push(if is_chosen { Hue::Chosen.paint(marked) } else { line.to_owned() });
        }
        lines.resize(height.saturating_sub(1 + logs.len()), String::new());
        lines.extend(logs);
        let last = match (self.is_typing, self.message.as_str()) {
            (true, _) => format!("/{}_", self.filter),
            (false, "") => KEYS.to_owned(),
            (false, message) => escape(message),
        };
        lines.push(look.paint(Hue::Dim, &cut(&last, width)));
        lines
    }

    /// The last lines of the chosen one, if they are wanted.
    fn logs(&self, look: Look, room: usize) -> Vec<String> {
        let Some(row) = self.chosen().map(|at| &self.rows[at]).filter(|_| self.has_logs) else {
            return Vec::new();
        };
        let target = Selector::exactly(&row.name);
        let request = Request::Logs { target };
        let files: Option<Vec<LogFiles>> =
            ask(&self.call.client, Need::Running, &request).ok().flatten();
        let each = (room / 2).max(2) - 1;
        let paths =
            files.into_iter().flatten().flat_map(|file| [("out", file.out), ("error", file.error)]);
        let mut lines = Vec::new();
        for (of, path) in paths {
            let title = format!("last of {}'s {of}", escape(&row.name));
            lines.push(look.paint(Hue::Bold, &cut(&title, look.width.unwrap_or(0))));
            let tail = path.map_or(Vec::new(), |path| launch::last_lines(&path, each));
            lines.extend(tail.iter().map(|line| cut(&escape(line), look.width.unwrap_or(0))));
        }
        lines
    }
}
