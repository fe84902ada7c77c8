//! A daemon under strace, in a PID namespace of its own that ends with it.
//!
//! strace runs it from its birth and follows it alone: no right to attach is needed, and its
//! services run untraced. What a thing costs is read from the trace between two rests of the
//! loop. It must never measure by the clock.
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const OPM: &str = env!("CARGO_BIN_EXE_opm");
/// Long enough for a loaded machine; nothing waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// One system call of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The same on every architecture.
    pub(crate) name: String,
    pub(crate) line: String,
}

impl Call {
    /// None for what is no call, and for what only a build with debug assertions does: std then
    /// asks of each descriptor whether it is open before it closes it.
    fn parse(line: &str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        if name == "fcntl" && rest.contains("F_GETFD") {
            return None;
        }
        // A look at logs, at times of its own.
        if ["newfstatat", "inotify_add_watch"].contains(&name) && rest.contains(".log\"") {
            return None;
        }
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let name = match name {
            "open" => "openat",
            "dup2" => "dup3",
            "readlink" => "readlinkat",
            "epoll_wait" => "epoll_pwait",
            "fstat" | "fstatat64" | "stat" => "newfstatat",
            other => other,
        };
        is_name.then(|| Self { name: name.to_owned(), line: line.to_owned() })
    }

    fn returned(&self, value: &str) -> bool {
        self.line.rsplit_once(" = ").is_some_and(|(_, r)| r == value)
    }

    /// The launch pipe's end of file: the child has exec'd.
    pub(crate) fn is_exec(&self) -> bool {
        self.name == "read" && self.line.contains(", \"\", 8)") && self.returned("0")
    }

    /// A client's end of file.
    pub(crate) fn is_farewell(&self) -> bool {
        self.name == "recvfrom" && self.returned("0")
    }
}

/// The calls of a whole trace.
fn calls(text: &str) -> Vec<Call> {
    text.lines().filter_map(Call::parse).collect()
}

/// Which processes strace follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    Daemon,
    /// Its children too, up to their exec.
    Children,
}

pub(crate) struct Traced {
    dir: PathBuf,
    follow: Follow,
    unshare: Child,
    /// PID 1 of the namespace.
    strace: i32,
    /// Where in the trace the loop's last rest began.
    rest: usize,
}

impl Traced {
    pub(crate) fn new(follow: Follow) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("opm-cost-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        // A soft limit that the daemon raises, and that is less than its descriptors beside others.
        command.args(["prlimit", "--nofile=128:"]);
        command.args(["strace", "-qq", "-a1", "-s16", "-esignal=none"]);
        match follow {
            Follow::Daemon => drop(command.arg("-o").arg(dir.join("trace"))),
            Follow::Children => {
                command.args(["-ff", "-bexecve", "-o"]).arg(dir.join("trace"));
            }
        }
        command
            .args([OPM, "daemon", "start", "--foreground"])
            .current_dir("/")
            .env("OPM_HOME", dir.join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("err")).unwrap());
        let unshare = command.spawn().expect("unshare(1) of util-linux");
        let pid = unshare.id().cast_signed();
        let mut traced = Self { dir, follow, unshare, strace: 0, rest: 0 };
        traced.strace = traced.until("strace to begin", || {
            let children = format!("/proc/{pid}/task/{pid}/children");
            let text = std::fs::read_to_string(children).ok()?;
            text.split_whitespace().next()?.parse().ok()
        });
        match follow {
            Follow::Daemon => drop(traced.cost(|_| true)),
            Follow::Children => traced.until("the daemon to listen", || {
                traced.path("home/opm.sock").exists().then_some(())
            }),
        }
        traced
    }

    pub(crate) fn until<T>(&self, what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = fact() {
                return value;
            }
            if Instant::now() > deadline {
                let err = std::fs::read_to_string(self.dir.join("err")).unwrap_or_default();
                let trace = self.trace();
                let tail = trace.lines().rev().take(40).collect::<Vec<_>>().join("\n");
                panic!("waited in vain for {what}; it said:\n{err}\nnewest first:\n{tail}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn trace(&self) -> String {
        std::fs::read_to_string(self.dir.join("trace")).unwrap_or_default()
    }

    /// The calls since the last rest of the loop, when what they are about is over and the loop
    /// rests again: strace writes the call in which it waits before that returns.
    fn cost(&mut self, is_over: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        let from = self.rest;
        let (calls, rest) = self.until("the loop to rest", || {
            let text = self.trace();
            let rest = text.rfind('\n').map_or(0, |at| at + 1);
            let waits =
                text[rest..].starts_with("epoll_wait(") || text[rest..].starts_with("epoll_pwait(");
            let calls = calls(&text[from..rest.max(from)]);
            (waits && is_over(&calls)).then_some((calls, rest))
        });
        self.rest = rest;
        calls
    }

    /// A command inside of the namespace.
    fn inside(&self, words: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
            .args(["--pid", "--mount", "--target", &self.strace.to_string(), "--"])
            .args(words)
            .current_dir("/")
            .env("OPM_HOME", self.dir.join("home"))
            .stdin(Stdio::null());
        let output = command.output().expect("nsenter(1) of util-linux");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command costs the daemon, from its connection to its end.
    pub(crate) fn command(&mut self, words: &[&str]) -> Vec<Call> {
        self.opm(words);
        self.cost(|calls| calls.iter().any(Call::is_farewell))
    }

    /// A command's output.
    pub(crate) fn opm(&self, words: &[&str]) -> String {
        let mut all = vec![OPM, "--no-daemon-start"];
        all.extend(words);
        self.inside(&all)
    }

    /// What the death of a leader costs, up to the exec of its replacement.
    pub(crate) fn death(&mut self, pid: &str) -> Vec<Call> {
        self.inside(&["sh", "-c", "kill -9 $0", pid]);
        self.cost(|calls| calls.iter().any(Call::is_exec))
    }

    /// What it costs that a service which copies this input writes so much at once.
    pub(crate) fn lines(&mut self, input: &mut std::fs::File, text: &str) -> Vec<Call> {
        std::io::Write::write_all(input, text.as_bytes()).unwrap();
        self.cost(|calls| calls.iter().any(|call| call.name == "readv"))
    }

    /// The pid of a service's leader.
    pub(crate) fn leader(&mut self, name: &str) -> String {
        let out = self.opm(&["ls", "--no-usage", "--format", "json"]);
        self.cost(|calls| calls.iter().any(Call::is_farewell));
        let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
        row.unwrap()["pid"].to_string()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The traces of the children that have exec'd so far, oldest first.
    pub(crate) fn children(&self) -> Vec<Vec<Call>> {
        assert_eq!(self.follow, Follow::Children);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let Some(pid) = name.strip_prefix("trace.") else {
                continue;
            };
            let calls = calls(&read(&path));
            // The daemon's own begins with what a loader does.
            if calls.first().is_some_and(|call| call.name == "close_range") {
                found.push((pid.parse::<i32>().unwrap(), calls));
            }
        }
        found.sort_by_key(|(pid, _)| *pid);
        found.into_iter().map(|(_, calls)| calls).collect()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

impl Drop for Traced {
    fn drop(&mut self) {
        // Its end is that of PID 1, and so of everything in the namespace.
        self.unshare.kill().ok();
        self.unshare.wait().ok();
        let deadline = Instant::now() + PATIENCE;
        while Path::new(&format!("/proc/{}", self.strace)).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}
