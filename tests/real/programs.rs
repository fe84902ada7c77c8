//! Real programs, as people run them: killed, restarted and stopped, with the right processes
//! there after each, on ports that a second copy could not have.
//!
//! They come from Debian's packages; a test whose program is missing fails and names it.
use crate::namespace::isolated;
use crate::proc;
use crate::rig::Rig;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The first of `paths` that is there, or a failure that names the package.
pub(crate) fn program(package: &str, paths: &[&str]) -> String {
    let found = paths.iter().find(|path| Path::new(path).exists());
    (*found.unwrap_or_else(|| panic!("{package} is missing (apt-get install {package})")))
        .to_owned()
}

/// A port that nobody listens on, a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// One HTTP request; its whole answer if there was one.
pub(crate) fn get(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains("200 OK").then_some(answer)
}

/// Everything of this service's command that lives, by a word of its arguments.
pub(crate) fn processes(word: &str) -> Vec<i32> {
    let mut pids = proc::pids();
    pids.retain(|pid| proc::alive(*pid) && proc::arguments(*pid).contains(word));
    pids.retain(|pid| *pid != std::process::id().cast_signed());
    pids
}

/// The life of a service: it serves, its leader is killed, it is restarted, it is stopped. After
/// each, what `word` names is exactly what opm says, and nothing of before is left.
fn live(rig: &Rig, name: &str, options: &[&str], command: &[&str], serves: impl Fn() -> bool) {
    let mut words = vec!["start", "--name", name, "--min-uptime", "0s"];
    words.extend(options);
    words.push("--");
    words.extend(command);
    rig.ok(&words);
    let served = |what: &str| {
        rig.until(&format!("{name} {what}"), || serves().then_some(()));
        // By whatever its options say.
        rig.ok(&["wait", name, "--for", "ready"]);
    };
    served("to serve");
    let mut old = rig.tree(name);
    let mut leader = rig.row(name).pid.unwrap();
    rig.kill(leader, Signal::KILL);
    let row = rig.until_replaced(name, leader);
    assert!(old.iter().all(|pid| !proc::alive(*pid)), "{name}: {old:?} outlived the kill");
    served("to serve again");
    for _ in 0..3 {
        leader = rig.row(name).pid.unwrap();
        old = rig.tree(name);
        assert!(old.contains(&leader));
        rig.ok(&["restart", name]);
        assert!(old.iter().all(|pid| !proc::alive(*pid)), "{name}: {old:?} outlived a restart");
        served("to serve after a restart");
    }
    assert!(row.generation < rig.row(name).generation);
    // And under a daemon that did not start it.
    leader = rig.row(name).pid.unwrap();
    rig.kill_daemon();
    assert_eq!(rig.row(name).pid, Some(leader));
    old = rig.tree(name);
    rig.kill(leader, Signal::KILL);
    rig.until_replaced(name, leader);
    assert!(old.iter().all(|pid| !proc::alive(*pid)), "{name}: {old:?} outlived its leader");
    served("to serve after its adoption");
    old = rig.tree(name);
    rig.ok(&["stop", name]);
    assert!(old.iter().all(|pid| !proc::alive(*pid)), "{name}: {old:?} outlived the stop");
    assert!(!serves(), "{name} still serves");
}

pub(crate) fn write(rig: &Rig, name: &str, text: &str) -> PathBuf {
    let path = rig.dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

const SERVER_JS: &str = r#"
const http = require('http');
const server = http.createServer((request, response) => response.end(`pid ${process.pid}\n`));
server.on('error', error => { console.error(error.code); process.exit(1); });
server.listen(Number(process.env.PORT), '127.0.0.1');
"#;

#[test]
fn node_never_finds_its_port_in_use_over_fifty_restarts_under_load() {
    isolated(here!(), |rig| {
        program("nodejs", &["/usr/bin/node", "/usr/local/bin/node"]);
        write(rig, "server/server.js", SERVER_JS);
        let port = free_port();
        let words = ["start", "--env", &format!("PORT={port}"), "node server/server.js"];
        rig.ok(&words);
        // Named after what the command is about.
        let log = rig.info("server")["log_error"].as_str().unwrap().to_owned();
        rig.until("node to serve", || get(port));
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let load: Vec<_> = (0..2)
            .map(|_| {
                let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        served.fetch_add(usize::from(get(port).is_some()), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let rounds = std::env::var("OPM_REAL_ROUNDS").map_or(50, |n| n.parse().unwrap());
        for n in 1..=rounds {
            rig.ok(&["restart", "server"]);
            let pid = rig.row("server").pid.unwrap();
            let answered = rig.until("the new node", || get(port));
            assert!(answered.contains(&format!("pid {pid}\n")), "{n}: not {pid}: {answered}");
        }
        stop.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().unwrap();
        }
        assert!(served.load(Ordering::Relaxed) > 0);
        assert_eq!(rig.row("server").restarts, rounds);
        let errors = std::fs::read_to_string(log).unwrap();
        assert!(!errors.contains("EADDRINUSE"), "{errors}");
        rig.ok(&["stop", "server"]);
        assert_eq!(get(port), None);
    });
}

/// Two of it on a socket that is held for them: reloaded, restarted, and their daemon killed. Each
/// request beside that is answered.
fn nobody_notices(rig: &Rig, name: &str, port: u16, options: &[&str], command: &[&str]) {
    let address = format!("127.0.0.1:{port}");
    let words = ["start", "--name", name, "-i", "2", "--listen", &address, "--min-uptime", "0s"];
    let words = [&words[..], &["--stop-timeout", "60s"], options, &["--"], command];
    rig.ok(&words.concat());
    rig.ok(&["wait", name, "--for", "ready"]);
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("refused");
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("reset");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reset, or not answered");
        assert!(answer.contains("200 OK"), "{name}: {answer:?}");
    };
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    ask();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            rig.ok(&["reload", name]);
            rig.kill_daemon();
            rig.ok(&["restart", name]);
            rig.ok(&["wait", name, "--for", "ready"]);
            rig.ok(&["daemon", "restart"]);
            rig.ok(&["reload", name]);
        }));
        stop.store(true, Ordering::Relaxed);
        acted.unwrap();
    });
    assert!(answered.into_inner() > 0);
    rig.ok(&["remove", name]);
}

#[test]
fn nobody_notices_that_node_and_nginx_are_restarted() {
    isolated(here!(), |rig| {
        program("nodejs", &["/usr/bin/node", "/usr/local/bin/node"]);
        let nginx = program("nginx-light", &["/usr/sbin/nginx"]);
        let (port, url) = (free_port(), |port: u16| format!("http://127.0.0.1:{port}/"));
        let drains = "process.on('SIGTERM', () => server.close());\n";
        write(rig, "server.js", &[SERVER_JS, drains].concat());
        let variable = format!("PORT={port}");
        let options = ["--ready", &url(port), "--env", &variable];
        nobody_notices(rig, "node", port, &options, &["node", "server.js"]);
        let port = free_port();
        let conf = nginx_conf(rig, port);
        let options = ["--ready", &url(port), "--env", "NGINX=3;", "--stop-signal", "QUIT"];
        nobody_notices(rig, "nginx", port, &options, &[&nginx, "-c", conf.to_str().unwrap()]);
    });
}

const HELLO_PY: &str = "def app(environ, start):\n    start('200 OK', [])\n    return [b'hello']\n";

/// Its READY comes before its workers hear TERM; the example makes up for that.
#[test]
fn nobody_notices_that_gunicorn_with_two_workers_is_restarted() {
    isolated(here!(), |rig| {
        let gunicorn = program("gunicorn", &["/usr/bin/gunicorn"]);
        write(rig, "hello.py", HELLO_PY);
        let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/man/examples/gunicorn.conf.py");
        let command = [&gunicorn, "-w", "2", "-c", conf, "hello:app"];
        nobody_notices(rig, "gunicorn", free_port(), &["--ready", "notify"], &command);
    });
}

/// Of a server that answers each request itself.
fn nginx_conf(rig: &Rig, port: u16) -> PathBuf {
    let dir = rig.dir.display();
    let text = format!(
        "daemon off; worker_processes 3; pid {dir}/nginx.pid; error_log stderr; \
         events {{ worker_connections 64; }} \
         http {{ access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; \
         fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5; \
         server {{ listen 127.0.0.1:{port}; return 200 'hello'; }} }}"
    );
    write(rig, "nginx.conf", &text)
}

#[test]
fn nginx_lives_with_its_workers() {
    isolated(here!(), |rig| {
        let nginx = program("nginx-light", &["/usr/sbin/nginx"]);
        let port = free_port();
        let conf = nginx_conf(rig, port);
        let command = [nginx.as_str(), "-c", conf.to_str().unwrap()];
        let url = format!("http:{port}/");
        live(rig, "nginx", &["--ready", &url, "--health", &url], &command, || {
            get(port).is_some() && processes("nginx: worker").len() == 3
        });
        assert_eq!(processes("nginx:"), Vec::<i32>::new());
    });
}

#[test]
fn redis_serves_one_port() {
    isolated(here!(), |rig| {
        let redis = program("redis-server", &["/usr/bin/redis-server"]);
        let port = free_port();
        let number = port.to_string();
        let dir = rig.dir.display().to_string();
        let command = [&redis, "--port", &number, "--bind", "127.0.0.1", "--dir", &dir];
        let command = [&command[..], &["--supervised", "systemd"]].concat();
        live(rig, "redis", &["--ready", "notify"], &command, || {
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
                return false;
            };
            let mut answer = [0; 7];
            stream.write_all(b"PING\r\n").is_ok()
                && stream.read_exact(&mut answer).is_ok()
                && &answer == b"+PONG\r\n"
        });
        assert_eq!(processes("redis-server"), Vec::<i32>::new());
    });
}

#[test]
fn a_postgres_cluster_is_never_opened_twice() {
    isolated(here!(), |rig| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let bin = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))).next();
        let bin = bin.unwrap_or_else(|| panic!("postgresql is missing (apt-get install it)"));
        // It refuses to run as root; its directory must be within its reach.
        let data = rig.dir.join("data");
        std::fs::create_dir(&data).unwrap();
        let run = |words: &[&str]| {
            assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success())
        };
        run(&["chmod", "755", rig.dir.to_str().unwrap()]);
        run(&["chown", "postgres:", data.to_str().unwrap()]);
        let as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
        let initdb = bin.join("initdb").display().to_string();
        let mut init = Command::new(as_postgres[0]);
        init.args(&as_postgres[1..]).arg(initdb).args(["-N", "-D"]).arg(&data);
        let output = init.current_dir("/").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let port = free_port().to_string();
        let (postgres, data) =
            (bin.join("postgres").display().to_string(), data.display().to_string());
        let mut command = as_postgres.to_vec();
        command.extend([&*postgres, "-D", &data, "-p", &port, "-k", &data]);
        let ready = bin.join("pg_isready").display().to_string();
        // A crashed postmaster's shared memory is in use until its last backend is gone.
        let options = ["--stop-signal", "INT", "--stop-timeout", "10s"];
        let line = format!("cmd:{ready} -q -h 127.0.0.1 -p {port}");
        let options = [&options[..], &["--ready", &line, "--health", &line]].concat();
        live(rig, "postgres", &options, &command, || {
            let output = Command::new(&ready).args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
            output.is_ok_and(|status| status.success()) && processes("postgres:").len() >= 4
        });
        let log = std::fs::read_to_string(rig.info("postgres")["log_error"].as_str().unwrap());
        let log = log.unwrap();
        assert!(!log.contains("another server might be running"), "{log}");
        assert!(!log.contains("pre-existing shared memory block"), "{log}");
    });
}

#[test]
fn gunicorn_lives_with_its_workers() {
    isolated(here!(), |rig| {
        let gunicorn = program("gunicorn", &["/usr/bin/gunicorn"]);
        write(rig, "hello.py", HELLO_PY);
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let command = [&gunicorn, "--workers", "2", "--bind", &address, "hello:app"];
        live(rig, "gunicorn", &["--ready", "notify"], &command, || get(port).is_some());
        assert_eq!(processes("hello:app"), Vec::<i32>::new());
        let log = std::fs::read_to_string(rig.info("gunicorn")["log_error"].as_str().unwrap());
        assert!(!log.unwrap().contains("in use"));
    });
}

#[test]
fn a_shell_script_is_ended_with_its_background_children() {
    isolated(here!(), |rig| {
        let text = "#!/bin/bash\nsleep 4711 &\n(trap '' TERM; sleep 4711) &\n\
                    nohup setsid sleep 4711 >/dev/null 2>&1 &\nsleep 4711\n";
        let script = write(rig, "start.sh", text);
        let command = ["bash", script.to_str().unwrap()];
        live(rig, "script", &["--stop-timeout", "500ms"], &command, || {
            processes("sleep 4711").len() == 4
        });
        assert_eq!(processes("4711"), Vec::<i32>::new());
    });
}
