//! A daemon that answers what the test says, and the command run beside it. Everything
//! happens in a scratch home and within a bound of time.
use opm::wire::frame::{self, Inbox, REQUEST_BYTES_MAX};
use opm::wire::{Reply, Request};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// No run of the command may take longer.
const RUN_TIME_MAX: Duration = Duration::from_secs(20);

/// A home and a working directory for one test, removed at its end.
pub(crate) struct Scratch {
    pub(crate) root: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("opm-cli-{}-{count}", std::process::id()));
        std::fs::create_dir_all(root.join("work")).unwrap();
        Self { root: root.canonicalize().unwrap() }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Answers every request with what `answer` gives, then closes the connection. The
    /// requests come out of the receiver.
    pub(crate) fn daemon(
        &self,
        answer: impl Fn(&Request) -> Vec<Reply> + Send + 'static,
    ) -> Receiver<Request> {
        serve(self.listen("opm.sock"), answer)
    }

    /// A socket in the home.
    pub(crate) fn listen(&self, name: &str) -> UnixListener {
        std::fs::create_dir_all(self.home()).unwrap();
        UnixListener::bind(self.home().join(name)).unwrap()
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opm"));
        command
            .args(words)
            .env_clear()
            .env("OPM_HOME", self.home())
            .env("PATH", "/usr/bin:/bin")
            .current_dir(self.work())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.run_with(words, &[])
    }

    /// A run with these variables besides.
    pub(crate) fn run_with(&self, words: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut command = self.command(words);
        let mut child = command.envs(env.iter().copied()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut err = child.stderr.take().unwrap();
        let out = std::thread::spawn(move || read_all(&mut out));
        let err = std::thread::spawn(move || read_all(&mut err));
        let code = end_of(&mut child);
        let clean = |text: Vec<u8>| {
            let text = String::from_utf8(text).unwrap();
            text.replace(self.root.to_str().unwrap(), "ROOT")
        };
        Ran { out: clean(out.join().unwrap()), err: clean(err.join().unwrap()), code }
    }

    /// A run as a block of a golden file.
    pub(crate) fn transcript(&self, words: &[&str]) -> String {
        let Ran { out, err, code } = self.run(words);
        let line = opm::service::spec::join(&words.iter().map(|w| (*w).into()).collect::<Vec<_>>());
        let err: String = err.lines().map(|line| format!("2> {line}\n")).collect();
        format!("$ opm {line}\n{out}{err}[{code}]\n\n")
    }
}

/// Answers what comes to `listener`; see [`Scratch::daemon`].
pub(crate) fn serve(
    listener: UnixListener,
    answer: impl Fn(&Request) -> Vec<Reply> + Send + 'static,
) -> Receiver<Request> {
    let (tell, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(request) = read_request(&mut stream) else {
                continue;
            };
            for reply in answer(&request) {
                // The command may have left, which is its business.
                if stream.write_all(&frame::encode(&reply).unwrap()).is_err() {
                    break;
                }
            }
            if tell.send(request).is_err() {
                return;
            }
        }
    });
    requests
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

pub(crate) struct Ran {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

/// The exit code, 128 and the signal's number for a signal; killed when the time is over.
pub(crate) fn end_of(child: &mut Child) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let end = Instant::now() + RUN_TIME_MAX;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the command did not end within {RUN_TIME_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read_all(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

fn read_request(stream: &mut UnixStream) -> Option<Request> {
    let mut inbox = Inbox::default();
    let mut bytes = [0; 4096];
    loop {
        if let Some(body) = inbox.next_frame(REQUEST_BYTES_MAX).unwrap() {
            return Some(serde_json::from_slice(&body).unwrap());
        }
        match stream.read(&mut bytes).unwrap() {
            0 => return None,
            n => inbox.push(&bytes[..n]),
        }
    }
}

/// Runs as blocks of a golden file.
pub(crate) fn transcripts(scratch: &Scratch, lines: &[&[&str]]) -> String {
    lines.iter().map(|words| scratch.transcript(words)).collect()
}

/// Compares with a file of `golden/`, or writes it if `OPM_GOLDEN=write`.
pub(crate) fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name);
    if std::env::var_os("OPM_GOLDEN").is_some_and(|word| word == "write") {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    for (n, (now, then)) in text.lines().zip(written.lines()).enumerate() {
        assert_eq!(now, then, "{name}, line {} (refresh with OPM_GOLDEN=write)", n + 1);
    }
    assert_eq!(text, written, "{name} (refresh with OPM_GOLDEN=write)");
}
