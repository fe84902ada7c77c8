//! Several of one service: each has its own, all have one name and one socket; and reloads.
use crate::namespace::{fixture, isolated};
use crate::rig::{Rig, finish};
use rustix::process::Signal;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

impl Rig {
    fn address(&self) -> String {
        format!("unix:{}", self.dir.join("web.sock").display())
    }

    /// Starts so many servers that end when they are told to, under the name `web`.
    fn start_instances(&self, count: &str, options: &[&str]) -> String {
        let (program, address) = (fixture().display().to_string(), self.address());
        let mut words = vec!["start", "--name", "web", "-i", count, "--listen", &address];
        words.extend(["--min-uptime", "0s"]);
        words.extend(options);
        words.extend(["--", &program, "-", "catch:TERM", "serve"]);
        self.ok(&words)
    }

    /// Three that are ready, as more of them are while this file is there.
    fn start_three_ready(&self) -> PathBuf {
        self.start_instances("3", &["--ready", "cmd:test -e ready"]);
        let ready = self.dir.join("ready");
        std::fs::write(&ready, "").unwrap();
        self.ok(&["wait", "web", "--for", "ready"]);
        ready
    }

    fn names(&self) -> Vec<String> {
        self.rows().into_iter().map(|row| row.name).collect()
    }

    fn ask(&self) -> i32 {
        ask(&self.dir.join("web.sock"))
    }

    /// Asks on and on beside `act`, every answer must come. How many came.
    fn asked_meanwhile(&self, act: impl FnOnce()) -> u32 {
        let socket = &self.dir.join("web.sock");
        let (is_over, answered) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        ask(socket);
                        answered.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            }
            let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            is_over.store(true, Ordering::Relaxed);
            acted.unwrap();
        });
        answered.into_inner()
    }
}

/// The pid of whoever answers.
fn ask(socket: &std::path::Path) -> i32 {
    let mut stream = UnixStream::connect(socket).expect("refused");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reset, or not answered");
    text.parse().expect("nobody answered")
}

#[test]
fn instances_have_one_name_one_socket_and_each_its_own() {
    isolated(here!(), |rig| {
        let options = ["--env", "DIR=/data/{instance}", "--port-range", "3000-3002"];
        rig.start_instances("2", &options);
        assert_eq!(rig.names(), ["web-0", "web-1"]);
        let env = rig.ok(&["env", "web-1"]);
        for line in ["DIR=/data/1", "OPM_INSTANCE=1", "NODE_APP_INSTANCE=1", "PORT=3001"] {
            assert!(env.lines().any(|own| own == line), "{line}: {env}");
        }
        let first: Vec<_> = rig.rows().into_iter().map(|row| row.pid.unwrap()).collect();
        assert!(first.contains(&rig.ask()));
        rig.ok(&["restart", "web"]);
        assert!(rig.rows().iter().all(|row| !first.contains(&row.pid.unwrap())));
        assert!(rig.ok(&["scale", "web", "+1"]).starts_with("web-2: online (id 2, pid "));
        let said = rig.refused(2, &["scale", "web", "4"]);
        assert!(said.contains("web-3: port_range: 3000-3002 has no port for it"), "{said}");
        let said = rig.refused(3, &["scale", "web-0", "4"]);
        assert!(said.contains("web-0: is an instance (try 'opm scale web')"), "{said}");
        assert!(rig.refused(2, &["scale", "web", "-3"]).contains("can have 1 to 1024 instances"));
        assert!(rig.refused(1, &["start", "--name", "web", "--", "sleep", "1"]).contains("taken"));
        assert_eq!(rig.ok(&["scale", "web", "1"]), "web-1: removed\nweb-2: removed\n");
        assert_eq!(rig.names(), ["web-0"]);
        assert_eq!(rig.ok(&["ls", "web"]).matches("web-0").count(), 1);
        rig.kill_daemon();
        rig.ok(&["scale", "web", "2"]);
        assert_eq!(rig.names(), ["web-0", "web-1"]);
        rig.ok(&["remove", "web"]);
        assert!(rig.rows().is_empty() && !rig.dir.join("web.sock").exists());
    });
}

#[test]
fn a_group_is_one_line_that_is_as_well_as_its_worst_instance() {
    isolated(here!(), |rig| {
        rig.start_instances("3", &[]);
        rig.ok(&["start", "--name", "api-0", "--", "sleep", "1000"]);
        let line_of = |words: &[&str], name: &str| {
            let out = rig.ok(words);
            let line = out.lines().find(|line| line.contains(name)).map(ToOwned::to_owned);
            line.unwrap_or_else(|| panic!("no {name}: {out}"))
        };
        rig.ok(&["wait", "web", "--for", "ready"]);
        let line = line_of(&["ls"], "web");
        assert!(line.contains("0-2") && line.contains("web  3/3") && line.contains("online"));
        assert!(line_of(&["ls"], "api-0").trim().starts_with("3 "));
        rig.ok(&["stop", "web-1"]);
        let line = line_of(&["ls", "--sort", "name"], "web");
        assert!(line.contains("web  2/3") && line.contains("stopped"), "{line}");
        assert_eq!(rig.ok(&["ls"]).matches("web").count(), 1);
        for each in
            [&["ls", "--unfold"], &["ls", "web"], &["ls", "--filter=name=web-1"]] as [&[&str]; 3]
        {
            assert!(line_of(each, "web-1").contains("stopped"));
        }
        let keys = rig.json(&["ls"])[0].as_object().unwrap().len();
        assert_eq!((rig.rows().len(), keys), (4, 17));
    });
}

#[test]
fn what_is_alone_keeps_its_name_and_can_get_others_beside_it() {
    isolated(here!(), |rig| {
        rig.start_instances("1", &[]);
        assert_eq!(rig.names(), ["web"]);
        rig.ok(&["start", "--name", "api", "--", "sleep", "1000"]);
        rig.ok(&["scale", "api", "2"]);
        rig.ok(&["scale", "web", "2"]);
        assert_eq!(rig.names(), ["web", "api", "api-1", "web-1"]);
        rig.ok(&["stop", "api"]);
        let stopped = rig.rows().into_iter().filter(|row| row.status == "stopped");
        assert_eq!(stopped.map(|row| row.name).collect::<Vec<_>>(), ["api", "api-1"]);
    });
}

#[test]
fn a_reload_replaces_one_after_the_other_and_nobody_notices() {
    isolated(here!(), |rig| {
        rig.start_instances("3", &[]);
        let before: Vec<_> = rig.rows().into_iter().map(|row| row.pid).collect();
        let answered = rig.asked_meanwhile(|| {
            let said = rig.ok(&["reload", "web"]);
            assert_eq!(said.lines().count(), 3);
            assert!(said.lines().all(|line| line.contains(": ready (id ")), "{said}");
        });
        assert!(answered > 0);
        let after: Vec<_> = rig.rows().into_iter().map(|row| row.pid).collect();
        assert!(before.iter().all(|pid| !after.contains(pid)));
    });
}

#[test]
fn a_reload_whose_daemon_dies_says_so_and_each_instance_has_one_definition_or_the_other() {
    isolated(here!(), |rig| {
        rig.start_instances("3", &[]);
        let before = rig.rows();
        // Never ready: the roll waits at the first one.
        let options = ["--ready", "notify", "--ready-timeout", "1h", "--command", "sleep 1000"];
        rig.ok(&[&["adjust", "web"], &options[..]].concat());
        let reload = rig.spawn(&["reload", "web"]);
        let first = rig.until_replaced("web-0", before[0].pid.unwrap());
        rig.kill_daemon();
        let ran = finish(reload, &["reload", "web"]);
        assert_eq!(ran.code, Some(4), "{ran:?}");
        let after = rig.rows();
        assert_eq!(after[0].pid, first.pid);
        assert_eq!((after[1].pid, after[2].pid), (before[1].pid, before[2].pid));
        for name in ["web-0", "web-1", "web-2"] {
            assert_eq!(rig.ok(&["get-command", name]).trim(), "sleep 1000");
        }
        assert_ne!(rig.ask(), 0);
    });
}

#[test]
fn the_next_daemon_goes_on_with_a_reload() {
    isolated(here!(), |rig| {
        let ready = rig.start_three_ready();
        std::fs::remove_file(&ready).unwrap();
        let before: Vec<_> = rig.rows().into_iter().map(|row| row.pid.unwrap()).collect();
        let reload = rig.spawn(&["reload", "web"]);
        let first = rig.until_replaced("web-0", before[0]);
        rig.kill_daemon();
        assert_eq!(finish(reload, &["reload", "web"]).code, Some(4));
        // The first is waited for still.
        let after = rig.rows();
        assert_eq!((after[1].pid, after[2].pid), (Some(before[1]), Some(before[2])));
        std::fs::write(&ready, "").unwrap();
        rig.until_replaced("web-1", before[1]);
        rig.until_replaced("web-2", before[2]);
        rig.ok(&["wait", "web", "--for", "ready"]);
        assert_eq!(rig.row("web-0").pid, first.pid);
        // And when it is done, nobody does it again.
        let done: Vec<_> = rig.rows().into_iter().map(|row| row.pid).collect();
        rig.until("the end of the roll", || {
            (std::fs::read_to_string(rig.home.join("rolls.json")).unwrap() == "{}").then_some(())
        });
        rig.kill_daemon();
        assert_eq!(rig.rows().into_iter().map(|row| row.pid).collect::<Vec<_>>(), done);
    });
}

#[test]
fn what_is_stopped_before_a_reload_comes_to_it_stays_down() {
    isolated(here!(), |rig| {
        let ready = rig.start_three_ready();
        // One is down already: the reload would start it.
        rig.ok(&["stop", "web-2"]);
        std::fs::remove_file(&ready).unwrap();
        let before = rig.rows()[0].pid.unwrap();
        let reload = rig.spawn(&["reload", "web"]);
        rig.until_replaced("web-0", before);
        rig.ok(&["stop", "web-1", "web-2"]);
        std::fs::write(&ready, "").unwrap();
        let ran = finish(reload, &["reload", "web"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_eq!(ran.err.matches("not reloaded, for it was stopped meanwhile").count(), 2);
        let status: Vec<_> = rig.rows().into_iter().map(|row| row.status).collect();
        assert_eq!(status, ["online", "stopped", "stopped"]);
    });
}

#[test]
fn a_file_is_reloaded_one_after_the_other_in_its_definitions() {
    isolated(here!(), |rig| {
        let (program, address) = (fixture().display().to_string(), rig.address());
        let file = |ops: &str, more: &str| {
            let text = format!(
                r#"{{"services": [{{"name": "web", "instances": 3, "listen": ["{address}"],
                    "min_uptime": "0s", "command": "{program} - catch:TERM {ops}"}}{more}]}}"#
            );
            std::fs::write(rig.dir.join("s.json"), text).unwrap();
        };
        file("serve", "");
        rig.ok(&["start", "s.json"]);
        rig.ask();
        let before: Vec<_> = rig.rows().into_iter().map(|row| row.pid).collect();
        file("note:new serve", r#", {"name": "job", "command": "sleep 1000"}"#);
        let answered = rig.asked_meanwhile(|| {
            let said = rig.ok(&["reload", "s.json"]);
            assert_eq!(said.matches(": ready (id ").count(), 3, "{said}");
            assert!(said.contains("job: online"), "{said}");
        });
        assert!(answered > 0);
        let after = rig.rows();
        assert!(after.iter().all(|row| !before.contains(&row.pid)) && after.len() == 4);
        assert!(rig.ok(&["get-command", "web-2"]).contains("note:new"));
        // One that does not become ready: the rest goes on in what it has.
        file(r#"exit:3", "ready": "notify"#, "");
        let ran = rig.opm(&["reload", "s.json", "--only", "web"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_eq!(ran.err.matches("has its old definition again").count(), 2, "{ran:?}");
        let (kept, now) = (&after[1..3], rig.rows());
        assert!(kept.iter().all(|old| now.iter().any(|row| row.pid == old.pid)), "{now:?}");
        assert!(rig.refused(3, &["reload", "s.json", "--only", "x"]).contains("no service 'x'"));
    });
}

#[test]
fn a_reload_stops_at_the_first_that_does_not_become_ready() {
    isolated(here!(), |rig| {
        rig.start_instances("3", &[]);
        let program = rig.dir.join("program");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let line = format!("{} 1000", program.display());
        rig.ok(&["adjust", "web", "--command", &line]);
        std::fs::remove_file(&program).unwrap();
        let before = rig.rows();
        let ran = rig.opm(&["reload", "web"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let rest = "not reloaded, for web-0 did not become ready; it goes on, and has its old";
        assert_eq!(ran.err.matches(rest).count(), 2, "{ran:?}");
        let after = rig.rows();
        assert_eq!(after[0].status, "errored");
        assert_eq!((after[1].pid, after[2].pid), (before[1].pid, before[2].pid));
        assert_eq!(rig.ok(&["get-command", "web-0"]).trim(), line);
        assert!(rig.ok(&["get-command", "web-1"]).contains("serve"));
        assert_ne!(rig.ask(), 0);
        // That is what is on record, too: for the next daemon, and for a service that dies.
        rig.kill_daemon();
        let old = after[1].pid.unwrap();
        rig.kill(old, Signal::KILL);
        let new = rig.until_replaced("web-1", old);
        assert!(rig.ok(&["get-command", "web-1"]).contains("serve"));
        assert_eq!(rig.row("web-1").status, "online", "{new:?}");
        rig.kill(after[2].pid.unwrap(), Signal::KILL);
        rig.ok(&["stop", "web-2"]);
        assert_eq!(Some(rig.ask()), new.pid);
        rig.ok(&["save"]);
        rig.ok(&["remove", "web"]);
        // The first of them can't be started.
        rig.opm(&["restore"]);
        assert!(rig.ok(&["get-command", "web-2"]).contains("serve"));
        assert_eq!(rig.ok(&["get-command", "web-0"]).trim(), line);
    });
}

/// 200 restarts, 50 reloads, 20 kills of the daemon and 5 of its images with OPM_REAL_ROUNDS=100.
#[test]
fn no_connection_is_refused_or_reset_whatever_is_restarted() {
    let rounds = std::env::var("OPM_REAL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let setting = crate::namespace::Setting {
        time: Some(Duration::from_secs(90 + 10 * rounds)),
        ..Default::default()
    };
    crate::namespace::isolated_in(setting, here!(), |rig| {
        rig.start_instances("2", &[]);
        let answered = rig.asked_meanwhile(|| {
            for round in 0..rounds {
                rig.ok(&["restart", "web-0"]);
                rig.ok(&["restart", "web"]);
                if round % 2 == 0 {
                    rig.ok(&["reload", "web"]);
                }
                if round % 5 == 1 {
                    rig.kill_daemon();
                }
                if round % 20 == 2 {
                    rig.ok(&["daemon", "restart"]);
                }
            }
        });
        eprintln!("{answered} answered, 0 refused, 0 reset");
        assert!(answered > 0);
    });
}

/// A node program for each way to listen, none of which knows of opm.
const PROGRAMS: [(&str, &str); 5] = [
    ("http.js", "require('http').createServer((q, s) => s.end(`${process.pid}`)).listen(PORT)"),
    (
        "net.mjs",
        "import net from 'net';\n\
         const server = net.createServer((s) => s.end(`${process.pid}`));\n\
         server.listen({ port: PORT, host: '127.0.0.1' })",
    ),
    // Of these two only who took the connection is asked.
    (
        "http2.mjs",
        "import { createServer } from 'node:http2';\n\
         createServer().on('connection', (s) => s.end(`${process.pid}`)).listen(PORT)",
    ),
    (
        "https.cjs",
        "require('https').createServer({}).on('connection', (s) => s.end(`${process.pid}`))\n\
         .listen({ port: PORT })",
    ),
    (
        "stop.cjs",
        "const s = require('net').createServer((c) => c.end(`${process.pid}`));\n\
         s.listen(`${PORT}`, '127.0.0.1', () => process.on('SIGTERM', () => s.close()))",
    ),
];

#[test]
fn unchanged_node_programs_share_a_port() {
    isolated(here!(), |rig| {
        for (name, text) in PROGRAMS {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let text = text.replace("PORT", &address.port().to_string());
            std::fs::write(rig.dir.join(name), text).unwrap();
            let address = address.to_string();
            let words = ["start", "--name", "web", "-i", "2", "--listen", &address, "--", "node"];
            if name == "http.js" {
                // As PM2 has it: the port is known by its variable.
                let port = address.rsplit(':').next().unwrap();
                let app = format!(
                    r#"{{"apps": [{{"name": "web", "script": "http.js", "instances": 2,
                        "exec_mode": "cluster", "env": {{"PORT": {port}}}}}]}}"#
                );
                std::fs::write(rig.dir.join("pm2.json"), app).unwrap();
                rig.ok(&["start", "pm2.json"]);
            } else {
                rig.ok(&[&words[..], &[name]].concat());
            }
            let ask = || {
                let mut stream = std::net::TcpStream::connect(&address).expect("refused");
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                if name == "http.js" {
                    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                    std::io::Write::write_all(&mut stream, request).unwrap();
                }
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text.lines().last().unwrap().parse::<i32>().unwrap()
            };
            let pids = || rig.rows().into_iter().map(|row| row.pid.unwrap()).collect::<Vec<_>>();
            let own = pids();
            rig.until("both to answer", || {
                let (a, b) = (ask(), ask());
                assert!(own.contains(&a) && own.contains(&b), "{a} and {b} of {own:?}");
                (a != b).then_some(())
            });
            if name == "stop.cjs" {
                rig.ok(&["reload", "web"]);
                assert!(pids().contains(&ask()));
            }
            rig.ok(&["remove", "web"]);
        }
    });
}
