//! Readiness and health: what a service says or answers decides when it counts as ready, and
//! whether it is restarted.
use crate::namespace::isolated;
use crate::rig::Rig;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Answers of a test's own to a probe: nothing is listened on by the service itself, so that the
/// test says when it is ready and well.
struct Answers {
    port: u16,
    well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Answers {
    fn new(well: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (well, asked) = (Arc::new(AtomicBool::new(well)), Arc::new(AtomicUsize::new(0)));
        let (its_well, its_asked) = (Arc::clone(&well), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 512];
                let length = stream.read(&mut request).unwrap_or(0);
                if length == 0 {
                    // Its daemon was killed.
                    continue;
                }
                assert!(request[..length].starts_with(b"GET /up HTTP/1.0\r\nHost: "));
                let status = if its_well.load(Ordering::SeqCst) { "204 Fine" } else { "503 Busy" };
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).ok();
                its_asked.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { port, well, asked }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/up", self.port)
    }

    /// Waits until it was asked so often from now on.
    fn until_asked(&self, rig: &Rig, times: usize) {
        let before = self.asked.load(Ordering::SeqCst);
        rig.until("to be asked", || {
            (self.asked.load(Ordering::SeqCst) >= before + times).then_some(())
        });
    }
}

fn is_ready(rig: &Rig, name: &str) -> bool {
    rig.info(name)["ready"] == true
}

fn kinds(rig: &Rig, name: &str) -> Vec<String> {
    rig.events(name).into_iter().map(|event| event.event).collect()
}

#[test]
fn what_is_ready_is_so_for_the_next_daemon_whatever_it_is_to_be_asked_at_its_next_start() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        rig.ok(&["adjust", "web", "--ready", "cmd:false", "--ready-timeout", "1h"]);
        rig.kill_daemon();
        assert_eq!(rig.info("web")["ready"], true);
        assert_eq!(rig.row("web").pid, Some(pid));
    });
}

#[test]
fn a_service_is_ready_when_its_url_answers_well_and_not_before() {
    isolated(here!(), |rig| {
        let answers = Answers::new(false);
        rig.start_with("web", &["--ready", &answers.url()], "sleep");
        answers.until_asked(rig, 2);
        assert!(!is_ready(rig, "web"));
        assert_eq!(kinds(rig, "web"), ["spawned"]);
        rig.until("why", || (rig.info("web")["why"] == "not ready: 503 Busy").then_some(()));
        assert!(rig.ok(&["ls"]).contains("not ready: 503 Busy"));
        assert!(rig.refused(1, &["health", "web"]).contains("web: online, not ready"));
        assert_eq!(rig.opm(&["wait", "web", "--for", "ready", "--timeout", "0s"]).code, Some(6));
        // Nor for the next daemon, which asks on.
        rig.kill_daemon();
        assert!(!is_ready(rig, "web"));
        answers.until_asked(rig, 1);
        assert!(!is_ready(rig, "web"));
        answers.well.store(true, Ordering::SeqCst);
        rig.ok(&["wait", "web", "--for", "ready"]);
        rig.ok(&["health", "web"]);
        assert_eq!(rig.info("web")["why"], serde_json::Value::Null);
        let asked = answers.asked.load(Ordering::SeqCst);
        // Once ready, it is asked no more, and the next daemon knows.
        rig.kill_daemon();
        assert!(is_ready(rig, "web"));
        assert_eq!(answers.asked.load(Ordering::SeqCst), asked);
    });
}

#[test]
fn what_is_not_ready_in_time_is_killed_and_was_a_quick_death() {
    isolated(here!(), |rig| {
        let options = ["--ready", "cmd:exit 7", "--ready-timeout", "300ms", "--min-uptime", "0s"];
        let options = [&options[..], &["--restart-delay", "1h", "--stop-timeout", "0s"]].concat();
        rig.start_with("web", &options, "sleep");
        let row = rig.until_status("web", "waiting");
        assert_eq!(row.restarts, 0);
        let info = rig.info("web");
        assert_eq!(info["failed_restarts"], 1);
        let exited = rig.events("web").into_iter().find(|event| event.event == "exited").unwrap();
        assert_eq!(exited.reason.as_deref(), Some("not ready within 300ms: exit 7"));
        assert!(!kinds(rig, "web").contains(&"ready".to_owned()));
    });
}

#[test]
fn what_is_unhealthy_for_long_enough_is_replaced_and_a_probe_leaves_nothing_behind() {
    isolated(here!(), |rig| {
        let check = "test -n \"$OPM_NAME\" -a -z \"$FAIL\" -a ! -e sick || { sleep 1000; exit 1; }";
        let options = ["--health", &format!("cmd:{check}"), "--health-interval", "20ms"];
        let options = [&options[..], &["--health-timeout", "300ms", "--min-uptime", "0s"]].concat();
        let pid = rig.start_with("web", &options, "sleep");
        // A probe is no incarnation: none of it counts, whatever it does.
        rig.until("a probe", || (rig.tree("web").len() > 1).then_some(()));
        assert_eq!(rig.row("web").pid, Some(pid));
        std::fs::write(rig.dir.join("sick"), "").unwrap();
        let is_exited = || kinds(rig, "web").contains(&"exited".to_owned()).then_some(());
        rig.until("it to be replaced", is_exited);
        std::fs::remove_file(rig.dir.join("sick")).unwrap();
        rig.until_replaced("web", pid);
        let exited = rig.events("web").into_iter().find(|event| event.event == "exited").unwrap();
        let why = "unhealthy: no answer within 300ms (3 times)";
        assert_eq!(exited.reason.as_deref(), Some(why));
        rig.ok(&["stop", "web"]);
        assert!(rig.tree("web").is_empty());
    });
}

/// A client of sd_notify(3) that says what its arguments are, one message each, in the order of
/// files that turn up: the first when `1` is there.
const CLIENT: &str = r#"
import os, socket, sys, time
speak = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for n, said in enumerate(sys.argv[1:]):
    while not os.path.exists(str(n + 1)):
        time.sleep(0.01)
    where = os.environ['NOTIFY_SOCKET']
    where = '\0' + where[1:] if where[0] == '@' else where
    speak.sendto(said.replace(',', '\n').encode(), where)
time.sleep(1000)
"#;

fn say(rig: &Rig, number: u32) {
    std::fs::write(rig.dir.join(number.to_string()), "").unwrap();
}

#[test]
fn a_service_says_itself_that_it_is_ready_and_nobody_else_can() {
    isolated(here!(), |rig| {
        let said = ["STATUS=warming up,FDSTORE=1", "READY=1,STATUS=two\twords", "RELOADING=1"];
        let start = ["start", "--name", "web", "--ready", "notify", "--", "python3", "-c", CLIENT];
        rig.ok(&[&start[..], &said].concat());
        let socket = rig.home.join("notify");
        let stranger = std::os::unix::net::UnixDatagram::unbound().unwrap();
        stranger.send_to(b"READY=1\nSTATUS=forged", &socket).unwrap();
        say(rig, 1);
        let text = || rig.info("web")["status_text"].as_str().map(str::to_owned);
        rig.until("what it says", || (text()? == "warming up").then_some(()));
        assert!(!is_ready(rig, "web"));
        // The next daemon hears it over the same socket.
        rig.kill_daemon();
        assert!(!is_ready(rig, "web"));
        say(rig, 2);
        rig.ok(&["wait", "web", "--for", "ready"]);
        rig.until("what it says", || (text()? == "two\twords").then_some(()));
        say(rig, 3);
        rig.until("what it says", || (text()? == "reloading").then_some(()));
        let log = std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
        assert!(log.contains("web: FDSTORE: opm keeps no descriptors"), "{log}");
        assert!(log.contains("is no process of a service; not heard"), "{log}");
    });
}

#[test]
fn a_service_of_another_user_is_heard_and_a_stranger_is_not() {
    isolated(here!(), |rig| {
        std::fs::set_permissions(&rig.dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        let start = ["start", "--name", "web", "--user", "nobody", "--ready", "notify"];
        rig.ok(&[&start[..], &["--", "python3", "-c", CLIENT, "READY=1,STATUS=its own"]].concat());
        let env = rig.ok(&["env", "web"]);
        let socket = env.lines().find_map(|line| line.strip_prefix("NOTIFY_SOCKET=")).unwrap();
        let mut stranger = Command::new("python3");
        stranger.args(["-c", CLIENT, "READY=1,STATUS=forged"]).env("NOTIFY_SOCKET", socket);
        let mut stranger = stranger.current_dir(&rig.dir).spawn().unwrap();
        // Both speak then.
        say(rig, 1);
        rig.ok(&["wait", "web", "--for", "ready"]);
        let log = || std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
        let refused = "is no process of a service; not heard";
        rig.until("the stranger to be refused", || log().contains(refused).then_some(()));
        assert_eq!(rig.info("web")["status_text"], "its own");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    });
}

#[test]
fn what_is_to_say_that_it_lives_and_falls_silent_is_replaced() {
    isolated(here!(), |rig| {
        let options = ["start", "--name", "web", "--ready", "notify", "--health", "notify"];
        let more = ["--health-interval", "200ms", "--health-retries", "2", "--min-uptime", "0s"];
        let line = ["--", "python3", "-c", CLIENT, "READY=1,WATCHDOG=1"];
        rig.ok(&[&options[..], &more, &line].concat());
        assert!(rig.ok(&["env", "web"]).contains("WATCHDOG_USEC=400000\n"));
        let pid = rig.row("web").pid.unwrap();
        say(rig, 1);
        rig.until_replaced("web", pid);
        let exited = rig.events("web").into_iter().find(|event| event.event == "exited").unwrap();
        assert_eq!(exited.reason.as_deref(), Some("unhealthy: no word for 400ms"));
    });
}

#[test]
fn a_newline_on_its_descriptor_and_a_message_of_node_make_it_ready() {
    isolated(here!(), |rig| {
        let wait = |file: &str| format!("until test -e {file}; do sleep 0.02; done");
        // Where descriptors of the daemon's are that the child needs until its exec.
        for fd in ["3", "4", "5", "6", "7", "8", "97"] {
            let line =
                format!("{}; printf x >&{fd}; {}; echo >&{fd}; exec sleep 9", wait("1"), wait("2"));
            let ready = format!("fd:{fd}");
            let name = format!("fd{fd}");
            rig.ok(&["start", "--name", &name, "--ready", &ready, "--", "bash", "-c", &line]);
        }
        let script = "const send = what => process.send(what); const fs = require('fs');
            send({big: 'x'.repeat(100000)});
            const look = () => fs.existsSync('2') ? send('ready') : setTimeout(look, 20);
            look(); process.on('disconnect', () => process.exit(3)); setInterval(() => 0, 1000);";
        rig.ok(&["start", "--name", "node", "--ready", "ipc", "--", "node", "-e", script]);
        say(rig, 1);
        let late = "setTimeout(() => process.send('ready'), 9)";
        let flood = format!("process.send('x'.repeat(200000)); {late}; setInterval(() => 0, 999)");
        let words = ["start", "--name", "flood", "--ready", "ipc", "--wait", "--", "node", "-e"];
        rig.ok(&[&words[..], &[&flood]].concat());
        assert!(rig.rows().iter().all(|row| row.status == "online"));
        assert!(!is_ready(rig, "node") && !is_ready(rig, "fd3") && !is_ready(rig, "fd97"));
        say(rig, 2);
        rig.ok(&["wait", "all", "--for", "ready"]);
        // Nothing breaks with the daemon.
        let pids: Vec<_> = rig.rows().into_iter().map(|row| row.pid).collect();
        rig.kill_daemon();
        assert_eq!(rig.rows().into_iter().map(|row| row.pid).collect::<Vec<_>>(), pids);
        assert!(is_ready(rig, "node") && is_ready(rig, "fd3"));
    });
}

#[test]
fn a_value_that_says_nothing_is_refused_by_name() {
    isolated(here!(), |rig| {
        for (option, value, expected) in [
            ("--ready", "tcp:host:80", "expected exec, notify, ipc, fd:N"),
            ("--health", "exec", "expected tcp:PORT, http:URL, cmd:LINE or notify"),
            ("--health-interval", "3", "want a whole number and a unit"),
        ] {
            let line = rig.refused(2, &["start", option, value, "--", "sleep", "1"]);
            assert!(line.contains(option) && line.contains(value), "{line}");
            assert!(line.contains(expected), "{line}");
        }
        assert!(rig.rows().is_empty());
    });
}

#[test]
fn what_ends_at_once_was_never_ready() {
    isolated(here!(), |rig| {
        let words = ["start", "--name", "bad", "--wait", "--", "sh", "-c", "exit 3"];
        let said = rig.refused(1, &words);
        assert!(said.contains("bad: exit 3"), "{said}");
        // So a broken release stops a reload at the first.
        let program = rig.dir.join("program");
        std::fs::write(&program, "exec sleep 1000").unwrap();
        rig.ok(&["start", "--name", "web", "-i", "2", "--", "sh", "./program"]);
        let before = rig.row("web-1").pid;
        std::fs::write(&program, "exit 4").unwrap();
        let ran = rig.opm(&["reload", "web"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("web-1: not reloaded"), "{ran:?}");
        assert_eq!(rig.row("web-1").pid, before);
    });
}
