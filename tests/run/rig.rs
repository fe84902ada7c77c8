//! Starts runs, looks at them, ends them; everything with a deadline.
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const OPM: &str = env!("CARGO_BIN_EXE_opm");
/// Long enough for a loaded machine; nothing waits for it unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// In a PID namespace of its own, which ends with it.
const UNSHARE: [&str; 4] = ["unshare", "-pf", "--mount-proc", "--kill-child"];

/// How a run is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// A process like any other.
    Plain,
    /// PID 1.
    First,
}

pub(crate) const BOTH: [As; 2] = [As::Plain, As::First];

/// A directory with a home in it; all that still runs there is killed at the end.
pub(crate) struct Scratch {
    pub(crate) dir: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("opm-run-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.dir.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A process file of these services, `DIR` in it being this directory.
    pub(crate) fn file(&self, services: &str) -> String {
        let services = services.replace("DIR", self.dir.to_str().unwrap());
        let path = self.path("services.json");
        std::fs::write(&path, format!("{{\"services\": [{services}]}}")).unwrap();
        path
    }

    /// The words of a run, `opm run` and what follows.
    pub(crate) fn command(&self, how: As, words: &[&str]) -> Command {
        let mut all = match how {
            As::Plain => Vec::new(),
            As::First => UNSHARE.to_vec(),
        };
        all.extend([OPM, "run"]);
        all.extend(words);
        let mut command = Command::new(all[0]);
        command
            .args(&all[1..])
            .current_dir(&self.dir)
            .env("OPM_HOME", self.path("home"))
            .stdin(Stdio::null());
        command
    }

    /// A run whose output goes to the files `out` and `err`.
    pub(crate) fn run(&self, how: As, words: &[&str]) -> Run {
        let file = |name| {
            let mut options = std::fs::File::options();
            options.append(true).create(true).open(self.dir.join(name)).unwrap()
        };
        let mut command = self.command(how, words);
        command.stdout(file("out")).stderr(file("err"));
        self.start(how, command)
    }

    pub(crate) fn start(&self, how: As, mut command: Command) -> Run {
        let mut child = command.spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let opm = match how {
            As::Plain => pid,
            As::First => eventually("the child of unshare", || {
                // It may have come to its end already.
                let over = child.try_wait().unwrap().map(|_| pid);
                over.or_else(|| children(pid).first().copied())
            }),
        };
        Run { home: self.path("home"), child, opm, how }
    }

    /// Waits for this text in a file.
    pub(crate) fn expect(&self, name: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.read(name).contains(text) {
            let (out, err) = (self.read("out"), self.read("err"));
            assert!(Instant::now() < deadline, "no {text:?} in {name}:\n{out}\n--- err\n{err}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Services that outlived a run on purpose: by their own mark, in this home alone.
        let home = format!("OPM_HOME={}", self.path("home"));
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut entries = environ.split(|byte| *byte == 0);
            if pid != std::process::id().cast_signed() && entries.any(|e| e == home.as_bytes()) {
                signal(pid, libc::SIGKILL);
            }
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// A run that goes on.
pub(crate) struct Run {
    home: String,
    pub(crate) child: Child,
    /// The pid of opm itself, as we see it.
    pub(crate) opm: i32,
    how: As,
}

impl Run {
    pub(crate) fn signal(&self, number: i32) {
        signal(self.opm, number);
    }

    /// The exit code, 128+n for a signal.
    pub(crate) fn end(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let child = &mut self.child;
        let status = eventually("the end of the run", || child.try_wait().unwrap());
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }

    /// A command beside it. stdout, stderr, code.
    pub(crate) fn beside(&self, words: &[&str]) -> (String, String, i32) {
        let target = self.opm.to_string();
        let mut all = match self.how {
            As::Plain => Vec::new(),
            As::First => vec!["nsenter", "-t", &target, "-p", "-m"],
        };
        all.push(OPM);
        all.extend(words);
        let mut command = Command::new(all[0]);
        let output = command.args(&all[1..]).env("OPM_HOME", &self.home).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap_or(-1))
    }

    /// The services by name, when opm answers and this is true of them.
    pub(crate) fn when(&self, what: &str, is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        eventually(what, || {
            if !Path::new(&self.home).join("opm.sock").exists() {
                return None;
            }
            let (out, _, _) = self.beside(&["--no-daemon-start", "ls", "--format", "json"]);
            let list: Vec<Value> = serde_json::from_str(&out).ok()?;
            is(&list).then_some(list)
        })
    }

    /// Waits until so many are online.
    pub(crate) fn online(&self, count: usize) -> Vec<Value> {
        self.when(&format!("{count} online"), |list| {
            list.iter().filter(|row| row["status"] == "online").count() == count
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn signal(pid: i32, number: i32) {
    // A process that is gone already needs none.
    let signal = Signal::from_named_raw(number).unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).ok();
}

pub(crate) fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Polls until there is something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
