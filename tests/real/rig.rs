//! A test's world: a home, the commands of opm run on it, and the means to wait for facts.
use crate::namespace::{Setting, User, fixture, opm, publish};
use crate::proc;
use crate::watch::Watch;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use std::cell::Cell;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NOBODY: u32 = 65_534;
/// How long a fact may take to become true on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// One element of `ls --format json`, as far as the tests ask.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) pid: Option<i32>,
    pub(crate) uptime_ms: Option<u64>,
    pub(crate) restarts: u64,
    pub(crate) status: String,
    pub(crate) generation: u64,
    pub(crate) adopted: bool,
}

/// One line of `events --format json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Event {
    pub(crate) event: String,
    pub(crate) service: String,
    pub(crate) generation: u64,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<String>,
    pub(crate) by: Option<String>,
    pub(crate) reason: Option<String>,
}

pub(crate) struct Rig {
    pub(crate) dir: PathBuf,
    pub(crate) home: PathBuf,
    setting: Setting,
    watch: Watch,
    stranger: proc::Process,
    doubles_forgiven: Cell<bool>,
    clashes_forgiven: Cell<bool>,
}

impl Rig {
    pub(crate) fn new(dir: &Path, setting: Setting) -> Self {
        if setting.user == User::Nobody {
            publish();
            std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut command = Command::new(fixture());
        // Under another name, or every start would warn of something alike.
        command.arg0("bystander").arg("--stranger").arg(dir.join("stranger"));
        let stranger = command.current_dir(dir).spawn().unwrap().id().cast_signed();
        Self {
            dir: dir.to_owned(),
            home: dir.join("h"),
            setting,
            watch: Watch::begin(),
            stranger: proc::process(stranger).unwrap(),
            doubles_forgiven: Cell::new(false),
            clashes_forgiven: Cell::new(false),
        }
    }

    /// Whether each incarnation has a time namespace of its own.
    pub(crate) fn has_time_namespaces(&self) -> bool {
        self.setting.user == User::Root && !self.setting.without.contains("time-namespace")
    }

    /// Whoever runs opm.
    pub(crate) fn uid(&self) -> u32 {
        match self.setting.user {
            User::Root => 0,
            User::Nobody => NOBODY,
        }
    }

    // Commands.

    /// `opm ARGS…` on this home.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.setting.user {
            User::Root => Command::new(opm()),
            User::Nobody => as_nobody(),
        };
        command
            .args(args)
            .current_dir(&self.dir)
            .env_remove("OPM_MARK")
            .env("OPM_HOME", &self.home)
            .env("HOME", &self.dir)
            .env("OPM_WITHOUT", self.setting.without)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// `opm ARGS…` as the last words of another command, to its end.
    pub(crate) fn behind(&self, mut outer: Command, args: &[&str]) -> Ran {
        let opm = self.command(args);
        outer.arg(opm.get_program()).args(opm.get_args()).env_remove("OPM_MARK");
        outer.envs(opm.get_envs().filter_map(|(k, v)| Some((k, v?))));
        outer.current_dir(&self.dir).stdin(Stdio::null());
        outer.stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(outer.spawn().unwrap(), args)
    }

    /// Runs a command to its end, and to the end of its output: a daemon that kept one of its
    /// descriptors would hold that back.
    pub(crate) fn opm(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().unwrap(), args)
    }

    /// Begins a command that runs beside the test.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// A command that must succeed; its output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ran = self.opm(args);
        assert_eq!(ran.code, Some(0), "opm {args:?}: {ran:?}");
        ran.out
    }

    /// A command that must fail with this code and one clear line; the line.
    pub(crate) fn refused(&self, code: i32, args: &[&str]) -> String {
        let ran = self.opm(args);
        assert_eq!(ran.code, Some(code), "opm {args:?}: {ran:?}");
        one_line(&ran, args)
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["--format", "json"]);
        let out = self.ok(&args);
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("opm {args:?}: {e}: {out}"))
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        serde_json::from_value(self.json(&["ls"])).unwrap()
    }

    pub(crate) fn row(&self, name: &str) -> Row {
        let row = self.rows().into_iter().find(|row| row.name == name);
        row.unwrap_or_else(|| panic!("no service {name}"))
    }

    /// The first element of `info --format json`.
    pub(crate) fn info(&self, name: &str) -> Value {
        let value = self.json(&["info", name]);
        value.as_array().map_or(value.clone(), |all| all[0].clone())
    }

    /// A service's working directory.
    pub(crate) fn row_cwd(&self, name: &str) -> String {
        self.info(name)["cwd"].as_str().unwrap().to_owned()
    }

    /// The pids of a service's tree as opm sees them, in order.
    pub(crate) fn tree(&self, name: &str) -> Vec<i32> {
        let info = self.info(name);
        let mut pids: Vec<i32> = serde_json::from_value(info["pids"].clone()).unwrap();
        pids.sort_unstable();
        pids
    }

    /// The events of one service so far, oldest first.
    pub(crate) fn events(&self, name: &str) -> Vec<Event> {
        let out = self.ok(&["events", "--format", "json"]);
        let events = out.lines().map(|line| {
            serde_json::from_str::<Event>(line).unwrap_or_else(|e| panic!("{e}: {line}"))
        });
        events.filter(|event| event.service == name).collect()
    }

    // Services.

    /// PATH for the fixture of service `name`.
    pub(crate) fn lock(&self, name: &str) -> String {
        format!("{}/{name}", self.dir.display())
    }

    /// Starts the fixture with `ops` as service `name`: a death is followed by a restart at
    /// once, a stop by SIGKILL after 1 s. The leader's pid.
    pub(crate) fn start(&self, name: &str, ops: &str) -> i32 {
        self.start_with(name, &["--min-uptime", "0s", "--stop-timeout", "1s"], ops)
    }

    /// Starts a service that is itself an opm, of another home, around a program of this name.
    pub(crate) fn start_nest(&self, name: &str, options: &[&str]) {
        let script = format!(
            "OPM_HOME={} exec {} run -- {} {} sleep",
            self.dir.join(name).display(),
            opm().display(),
            fixture().display(),
            self.lock(name),
        );
        let mut words = vec!["start", "--name", name];
        words.extend(options);
        words.extend(["--", "bash", "-c", &script]);
        self.ok(&words);
    }

    /// Starts the fixture with `ops` as service `name` under these options.
    pub(crate) fn start_with(&self, name: &str, options: &[&str], ops: &str) -> i32 {
        self.ok(&self.start_words(name, options, ops).iter().map(|s| &**s).collect::<Vec<_>>());
        let row = self.row(name);
        let pid = row.pid.unwrap_or_else(|| panic!("started, but {row:?}"));
        // It is told to have exec'd; now it holds its lock.
        self.until(&format!("{name} to run"), || self.starts(name).contains(&pid).then_some(pid))
    }

    /// A service, stopped, whose log is a FIFO that nobody reads: its next child hangs before its
    /// exec until somebody opens the log. Gives its path.
    pub(crate) fn log_to_nobody(&self, name: &str) -> String {
        self.start(name, "sleep");
        self.ok(&["stop", name]);
        let log = self.info(name)["log_out"].as_str().unwrap().to_owned();
        std::fs::remove_file(&log).unwrap();
        assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
        log
    }

    /// The words of such a start.
    pub(crate) fn start_words(&self, name: &str, options: &[&str], ops: &str) -> Vec<String> {
        let program = fixture().display().to_string();
        let mut words = vec!["start", "--name", name];
        words.extend(options);
        let lock = self.lock(name);
        words.extend(["--", &program, &lock]);
        words.extend(ops.split_whitespace());
        words.into_iter().map(str::to_owned).collect()
    }

    /// The fixture itself, not under opm.
    pub(crate) fn fixture(&self, args: &[&str]) -> Child {
        let mut command = Command::new(fixture());
        command.args(args).current_dir(&self.dir).spawn().unwrap()
    }

    fn lines(&self, name: &str, extension: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.lock(name) + extension).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The pids of every leader that ever exec'd.
    pub(crate) fn starts(&self, name: &str) -> Vec<i32> {
        let lines = self.lines(name, ".starts");
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    /// Waits for as many starts as there should have been, and sees that there are no more.
    pub(crate) fn assert_starts(&self, name: &str, count: usize) {
        self.until(&format!("{count} starts of {name}"), || {
            (self.starts(name).len() >= count).then_some(())
        });
        assert_eq!(self.starts(name).len(), count, "{name}");
    }

    /// The lines that the fixture noted.
    pub(crate) fn notes(&self, name: &str) -> Vec<String> {
        self.lines(name, ".notes")
    }

    /// The pids that noted `word`, oldest first.
    pub(crate) fn noted(&self, name: &str, word: &str) -> Vec<i32> {
        let notes = self.notes(name);
        let pids = notes.iter().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok());
        pids.collect()
    }

    /// The pid of the latest process of `name` that noted `word`.
    pub(crate) fn note(&self, name: &str, word: &str) -> i32 {
        self.until(&format!("{name} to note {word}"), || self.noted(name, word).last().copied())
    }

    /// Wherever a process met a living predecessor.
    pub(crate) fn clashes(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let clashes = paths.filter(|path| path.extension().is_some_and(|e| e == "clash"));
        let texts = clashes.map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            format!("{}: {}", path.display(), text.trim())
        });
        texts.collect()
    }

    // Signals and waiting.

    pub(crate) fn kill(&self, pid: i32, signal: Signal) {
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Polls until `fact` has a value; fails loudly when it takes too long.
    pub(crate) fn until<T>(&self, what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = fact() {
                return value;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    pub(crate) fn until_gone(&self, pid: i32) {
        self.until(&format!("{pid} to be gone"), || (!proc::alive(pid)).then_some(()));
    }

    /// Waits until `tracer` has attached to `pid`.
    pub(crate) fn until_traced(&self, pid: i32, tracer: &Child) {
        let tracer = tracer.id().cast_signed();
        self.until("the tracer", || (proc::tracer_of(pid) == tracer).then_some(()));
    }

    pub(crate) fn until_status(&self, name: &str, status: &str) -> Row {
        self.until(&format!("{name} to be {status}"), || {
            Some(self.row(name)).filter(|row| row.status == status)
        })
    }

    /// Waits for a leader other than `old`; its row.
    pub(crate) fn until_replaced(&self, name: &str, old: i32) -> Row {
        self.until(&format!("{name} to be replaced"), || {
            let row = self.row(name);
            (row.status == "online" && row.pid != Some(old)).then_some(row)
        })
    }

    // The daemon.

    pub(crate) fn daemon(&self) -> i32 {
        let text = std::fs::read_to_string(self.home.join("opm.pid")).unwrap();
        text.trim().parse().unwrap()
    }

    /// Every process that runs opm as a daemon: its children are leaders, or it has none and
    /// nobody waits for it.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        let opm = std::fs::canonicalize(env!("CARGO_BIN_EXE_opm")).unwrap();
        let runs_opm =
            |pid: &i32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == opm);
        let mut pids = proc::pids();
        pids.retain(runs_opm);
        pids.sort_unstable();
        pids
    }

    /// kill -9, and its death.
    pub(crate) fn kill_daemon(&self) {
        let pid = self.daemon();
        self.kill(pid, Signal::KILL);
        self.until_gone(pid);
    }

    // The verdict.

    pub(crate) fn forgive_doubles(&self) {
        self.doubles_forgiven.set(true);
    }

    pub(crate) fn forgive_clashes(&self) {
        self.clashes_forgiven.set(true);
    }

    /// Zombies of this parent.
    pub(crate) fn zombies_of(&self, parent: i32) -> Vec<proc::Process> {
        let mut all = proc::all();
        all.retain(|process| process.parent == parent && process.state == 'Z');
        all.retain(|process| !proc::alive(process.pid));
        all
    }

    /// What every test ends with.
    pub(crate) fn verdict(&self) {
        let doubles = self.watch.end();
        let doubles_fine = doubles.is_empty() || self.doubles_forgiven.get();
        assert!(doubles_fine, "two incarnations at once: {doubles:#?}");
        let clashes = self.clashes();
        let clashes_fine = clashes.is_empty() || self.clashes_forgiven.get();
        assert!(clashes_fine, "two incarnations at once: {clashes:#?}");
        let stranger = proc::process(self.stranger.pid);
        let same = stranger.is_some_and(|now| now.start == self.stranger.start);
        assert!(same, "the bystander is gone");
        let signals = std::fs::read_to_string(self.dir.join("stranger")).unwrap_or_default();
        assert!(signals.is_empty(), "the bystander was signalled: {signals}");
        if let Ok(text) = std::fs::read_to_string(self.home.join("opm.pid"))
            && let Ok(daemon) = text.trim().parse()
        {
            self.until("the daemon's zombies to be reaped", || {
                self.zombies_of(daemon).is_empty().then_some(())
            });
        }
    }
}

/// `opm` as a user who owns nothing here.
pub(crate) fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(opm());
    command
}

/// One clear line: `opm: subject: reason`, and nothing else.
pub(crate) fn one_line(ran: &Ran, args: &[&str]) -> String {
    let line = ran.err.trim_end();
    assert!(
        line.starts_with("opm: ") && !line.contains('\n'),
        "not one clear line from opm {args:?}: {ran:?}"
    );
    line.to_owned()
}

/// Waits for a command and for the end of its output.
pub(crate) fn finish(mut child: Child, args: &[&str]) -> Ran {
    let drain = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = drain(child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let err = drain(child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>));
    let deadline = Instant::now() + PATIENCE;
    let mut code = None;
    loop {
        if code.is_none() {
            code = child.try_wait().unwrap();
        }
        if let Some(status) = code
            && out.is_finished()
            && err.is_finished()
        {
            let (out, err) = (out.join().unwrap(), err.join().unwrap());
            let code = status.code();
            return Ran { code, out, err };
        }
        if Instant::now() > deadline {
            let what = match code {
                None => "did not end",
                Some(_) => "ended, but somebody keeps its output open",
            };
            // The namespace ends what is left.
            panic!("opm {args:?} {what}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
