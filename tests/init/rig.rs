//! Starts inits, listens to them, ends them; everything with a deadline.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const OPM: &str = env!("CARGO_BIN_EXE_opm");
/// Long enough for a loaded machine; nothing waits for it unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Blocks all signals, says `up`, then prints the number of each signal that comes.
pub(crate) const WITNESS: &str = "
import os, signal
signals = signal.valid_signals()
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
os.write(1, b'up\\n')
while True:
    os.write(1, b'%d\\n' % signal.sigwaitinfo(signals).si_signo)
";

/// Whom an init is told to reach.
#[derive(Clone, Copy)]
pub(crate) enum Reach {
    Group,
    Child,
}

/// The inits and how each is told so.
pub(crate) fn inits(reach: Reach) -> [(&'static str, Vec<&'static str>); 3] {
    match reach {
        Reach::Group => [
            ("opm", vec![OPM, "init", "-s"]),
            ("tini", vec!["tini", "-s", "-g", "--"]),
            ("dumb-init", vec!["dumb-init", "--"]),
        ],
        Reach::Child => [
            ("opm", vec![OPM, "init", "-s", "-c"]),
            ("tini", vec!["tini", "-s", "--"]),
            ("dumb-init", vec!["dumb-init", "-c", "--"]),
        ],
    }
}

/// Tries an edge with every init, prints the row, and returns opm's answer.
pub(crate) fn compare(edge: &str, reach: Reach, probe: impl Fn(&[&str]) -> String) -> String {
    let mut row = format!("{edge}:");
    let mut ours = String::new();
    for (name, prefix) in inits(reach) {
        let answer = match installed(prefix[0]) {
            true => probe(&prefix),
            false => "missing".to_owned(),
        };
        row.push_str(&format!(" | {name}: {answer}"));
        if name == "opm" {
            ours = answer;
        }
    }
    println!("{row}");
    ours
}

fn installed(program: &str) -> bool {
    program.contains('/')
        || ["/usr/bin/", "/bin/"].iter().any(|dir| exists(&format!("{dir}{program}")))
}

pub(crate) fn exists(path: &str) -> bool {
    std::path::Path::new(path).exists()
}

/// Ends whatever bears its mark: what an init let be, or left when it was killed.
#[derive(Debug)]
pub(crate) struct Sweep(String);

impl Sweep {
    const VARIABLE: &str = "RIG_MARK";

    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("{}.{number}.", std::process::id()))
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        let mark = format!("{}={}", Self::VARIABLE, self.0);
        let bears = |pid: i32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|b| *b == 0).any(|v| v == mark.as_bytes())
        };
        let pids = || {
            let all = std::fs::read_dir("/proc").unwrap();
            all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        };
        // Again, as long as there are any: they may have forked.
        loop {
            let left: Vec<i32> = pids().filter(|pid| bears(*pid)).collect();
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(|pid| kill(pid, "KILL"));
        }
    }
}

/// A running init (behind wrappers that exec), with its output line by line.
pub(crate) struct Live {
    child: Child,
    lines: Receiver<String>,
    sweep: Option<Sweep>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct End {
    /// `None`: it had to be killed.
    pub(crate) code: Option<i32>,
    /// What it had still to say, stderr's lines among them.
    pub(crate) rest: Vec<String>,
}

impl End {
    pub(crate) fn answer(&self) -> String {
        self.code.map_or("hangs".to_owned(), |code| code.to_string())
    }
}

impl Live {
    pub(crate) fn start(words: &[&str]) -> Live {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        Live::from(command)
    }

    pub(crate) fn from(mut command: Command) -> Live {
        let sweep = Sweep::new();
        let mut child = command
            .env(Sweep::VARIABLE, &sweep.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the init starts");
        let (sender, lines) = channel();
        let out: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for pipe in out {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    line.clear();
                    if sender.send(text).is_err() {
                        return;
                    }
                }
            });
        }
        Live { child, lines, sweep: Some(sweep) }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The first line that holds the text; panics when none comes.
    pub(crate) fn expect(&self, text: &str) -> String {
        self.seek(text, PATIENCE).unwrap_or_else(|seen| panic!("no {text:?} in {seen:?}"))
    }

    pub(crate) fn seek(&self, text: &str, patience: Duration) -> Result<String, Vec<String>> {
        let deadline = Instant::now() + patience;
        let mut seen = Vec::new();
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if line.contains(text) {
                return Ok(line);
            }
            seen.push(line);
        }
        Err(seen)
    }

    pub(crate) fn kill(&self, signal: &str) {
        kill(self.pid(), signal);
    }

    pub(crate) fn write(&mut self, text: &str) {
        let pipe = self.child.stdin.as_mut().unwrap();
        pipe.write_all(text.as_bytes()).unwrap();
        pipe.flush().unwrap();
    }

    pub(crate) fn end(self) -> End {
        self.end_within(PATIENCE)
    }

    pub(crate) fn end_within(mut self, patience: Duration) -> End {
        let deadline = Instant::now() + patience;
        let mut code = None;
        while code.is_none() && Instant::now() < deadline {
            code = self.child.try_wait().unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        // Then nobody holds the pipes any more, so both end, and all that was said is in them.
        drop(self.sweep.take());
        let next = || self.lines.recv_timeout(PATIENCE).ok();
        End {
            code: code.map(|status| status.code().unwrap_or(-1)),
            rest: std::iter::from_fn(next).collect(),
        }
    }

    /// Its exit code, with whatever it has let be still there until the sweep is dropped.
    pub(crate) fn leave(mut self) -> (Option<i32>, Sweep) {
        let ended = within(PATIENCE, &mut || self.child.try_wait().unwrap());
        (ended.and_then(|status| status.code()), self.sweep.take().unwrap())
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.is_alive() {
            return;
        }
        // It is ours and not reaped, so the number is its.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Runs it to its end.
pub(crate) fn run(words: &[&str]) -> End {
    Live::start(words).end()
}

pub(crate) fn join<'a>(prefix: &[&'a str], words: &[&'a str]) -> Vec<&'a str> {
    [prefix, words].concat()
}

pub(crate) fn kill(pid: i32, signal: &str) {
    let pid = pid.to_string();
    Command::new("sh")
        .args(["-c", r#"kill -"$1" "$2" 2>/dev/null"#, "sh", signal, &pid])
        .status()
        .unwrap();
}

pub(crate) fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    text.unwrap_or_default().split_whitespace().map(|word| word.parse().unwrap()).collect()
}

/// The child of the init; waits until there is one.
pub(crate) fn child_of(pid: i32) -> i32 {
    eventually("a child", || children(pid).first().copied())
}

/// The state letter, `X` when it is gone.
pub(crate) fn state(pid: i32) -> char {
    stat(pid, 0).and_then(|word| word.chars().next()).unwrap_or('X')
}

/// A word of /proc/PID/stat, counted from the state.
pub(crate) fn stat(pid: i32, word: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(word).map(str::to_owned)
}

pub(crate) fn status_line(pid: i32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_default().trim().to_owned()
}

/// Waits until the condition gives something.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, &mut condition).unwrap_or_else(|| panic!("never: {what}"))
}

pub(crate) fn within<T>(
    patience: Duration,
    condition: &mut impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A path that no other test uses.
pub(crate) fn scratch(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("opm-init-{}-{name}", std::process::id()));
    path.to_str().unwrap().to_owned()
}
