//! Servers that replace themselves: a new master takes the old one's place, and the service goes
//! on. What its tree has named is believed, and nothing else.
use crate::namespace::isolated;
use crate::proc;
use crate::programs::{free_port, get, processes, program, write};
use crate::rig::Rig;
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Says what is in the files 1, 2 and so on, as they turn up: `KID` is a child that it then forks.
const MASTER: &str = r#"
import itertools, os, socket, time
speak = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for n in itertools.count(1):
    while not os.path.exists(str(n)):
        time.sleep(0.01)
    said = open(str(n)).read()
    if 'KID' in said:
        kid = os.fork()
        if kid == 0:
            time.sleep(1000)
        said = said.replace('KID', str(kid))
    speak.sendto(said.encode(), os.environ['NOTIFY_SOCKET'])
"#;

/// Has the master say this; it is whole when it is there.
fn say(rig: &Rig, number: u32, text: &str) {
    let path = rig.dir.join("said");
    std::fs::write(&path, text).unwrap();
    std::fs::rename(&path, rig.dir.join(number.to_string())).unwrap();
}

fn until_logged(rig: &Rig, words: &str) {
    let log = || std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
    rig.until(words, || log().contains(words).then_some(()));
}

/// Another process leads, as `ls` says.
fn until_led(rig: &Rig, name: &str, old: i32) -> i32 {
    rig.until("another main process", || rig.row(name).pid.filter(|pid| *pid != old))
}

#[test]
fn a_main_process_of_its_own_tree_leads_it_on_and_no_other() {
    isolated(here!(), |rig| {
        let start = ["start", "--name", "web", "--min-uptime", "0s", "--ready", "notify"];
        rig.ok(&[&start[..], &["--", "python3", "-c", MASTER]].concat());
        let leader = rig.row("web").pid.unwrap();
        say(rig, 1, "READY=1\nMAINPID=1");
        until_logged(rig, "web: MAINPID=1: it is no process of the service; not heard");
        say(rig, 2, "MAINPID=4194303");
        until_logged(rig, "web: MAINPID=4194303: there is no such process; not heard");
        say(rig, 3, "MAINPID=-1");
        until_logged(rig, "web: MAINPID=-1: there is no such process; not heard");
        assert_eq!(rig.row("web").pid, Some(leader));
        say(rig, 4, "MAINPID=KID");
        let first = until_led(rig, "web", leader);
        assert_eq!(rig.info("web")["identity"]["pid"], first);
        assert_eq!(rig.tree("web"), [leader, first]);
        // One of two that ends leaves it to the other.
        rig.kill(first, Signal::KILL);
        assert_eq!(until_led(rig, "web", first), leader);
        say(rig, 5, "MAINPID=KID");
        let main = until_led(rig, "web", leader);
        // The next daemon knows, and so does the next image.
        rig.kill_daemon();
        assert_eq!(rig.row("web").pid, Some(main));
        rig.kill(leader, Signal::KILL);
        rig.until_gone(leader);
        rig.ok(&["daemon", "upgrade"]);
        let row = rig.row("web");
        assert_eq!((row.pid, row.restarts, row.status.as_str()), (Some(main), 0, "online"));
        assert_eq!(rig.tree("web"), [main]);
        // Its death is the service's.
        rig.kill(main, Signal::KILL);
        let row = rig.until_replaced("web", main);
        assert_eq!(row.generation, 2);
        assert!(!proc::alive(main));
        rig.ok(&["stop", "web"]);
    });
}

#[test]
fn what_leads_in_its_leaders_place_is_stopped_with_the_rest() {
    isolated(here!(), |rig| {
        for reach in ["tree", "leader"] {
            let options =
                ["start", "--name", reach, "--stop-reach", reach, "--ready", "notify", "--cwd"];
            let dir = rig.dir.join(format!("{reach}.d"));
            std::fs::create_dir(&dir).unwrap();
            let more = [dir.to_str().unwrap(), "--", "python3", "-c", MASTER];
            rig.ok(&[&options[..], &more].concat());
            let leader = rig.row(reach).pid.unwrap();
            for number in ["1", "2"] {
                std::fs::write(dir.join("said"), "READY=1\nMAINPID=KID").unwrap();
                std::fs::rename(dir.join("said"), dir.join(number)).unwrap();
                until_led(rig, reach, leader);
            }
            let main = rig.until("the second one", || {
                let pid = rig.row(reach).pid?;
                (*rig.tree(reach).last()? == pid).then_some(pid)
            });
            let all = rig.tree(reach);
            rig.kill(leader, Signal::KILL);
            rig.until_gone(leader);
            assert_eq!(rig.row(reach).pid, Some(main));
            assert_eq!(rig.ok(&["stop", reach]), format!("{reach}: stopped\n"));
            assert!(all.iter().all(|pid| !proc::alive(*pid)), "{all:?}");
        }
    });
}

/// Asks for pages until it is told to stop; how many came, and how many did not.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<usize>,
}

impl Load {
    fn begin(port: u16) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (its_stop, its_served) = (Arc::clone(&stop), Arc::clone(&served));
        let thread = std::thread::spawn(move || {
            let mut refused = 0;
            while !its_stop.load(Ordering::Relaxed) {
                match get(port) {
                    Some(_) => drop(its_served.fetch_add(1, Ordering::Relaxed)),
                    None => refused += 1,
                }
            }
            refused
        });
        Self { stop, served, thread }
    }

    fn until_served(&self, rig: &Rig) {
        let before = self.served.load(Ordering::Relaxed);
        rig.until("a page", || (self.served.load(Ordering::Relaxed) > before + 1).then_some(()));
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.thread.join().unwrap(), 0, "requests were lost");
    }
}

/// The life of a server that replaces itself, under load: twice, once with its daemon killed in
/// the middle. `new`: the pid of the master after that one, when it serves. `end`: what ends one.
fn replaces_itself(rig: &Rig, name: &str, port: u16, new: impl Fn(i32) -> i32, end: Signal) {
    rig.until("it to serve", || get(port));
    let first = new(0);
    rig.until("its master to lead", || (rig.row(name).pid? == first).then_some(()));
    let load = Load::begin(port);
    rig.ok(&["signal", name, "USR2"]);
    let second = new(first);
    rig.kill(first, end);
    rig.until_gone(first);
    assert_eq!(until_led(rig, name, first), second);
    load.until_served(rig);
    rig.ok(&["signal", name, "USR2"]);
    let third = new(second);
    rig.kill_daemon();
    rig.kill(second, end);
    rig.until_gone(second);
    let row = rig.row(name);
    assert_eq!((row.pid, row.restarts, row.generation), (Some(third), 0, 1));
    load.until_served(rig);
    load.end();
    let all = rig.tree(name);
    assert!(all.contains(&third) && all.len() > 1, "{all:?}");
    rig.kill(third, Signal::KILL);
    let row = rig.until_replaced(name, third);
    assert_eq!(row.generation, 2);
    assert!(all.iter().all(|pid| !proc::alive(*pid)), "{all:?} outlived their master");
    rig.until("it to serve again", || get(port));
    rig.ok(&["stop", name]);
}

#[test]
fn nginx_is_upgraded_under_load_and_stays_one_service() {
    isolated(here!(), |rig| {
        let nginx = program("nginx-light", &["/usr/sbin/nginx"]);
        let port = free_port();
        let dir = rig.dir.display();
        let text = format!(
            "worker_processes 1; pid {dir}/nginx.pid; error_log stderr; \
             events {{ worker_connections 64; }} \
             http {{ access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; \
             fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5; \
             server {{ listen 127.0.0.1:{port}; return 200 'hello'; }} }}"
        );
        let conf = write(rig, "nginx.conf", &text);
        let start = ["start", "--name", "nginx", "--min-uptime", "0s", "--pid-file", "nginx.pid"];
        rig.ok(&[&start[..], &["--", &nginx, "-c", conf.to_str().unwrap()]].concat());
        let new = |old: i32| {
            rig.until("a new master with its worker", || {
                let text = std::fs::read_to_string(rig.dir.join("nginx.pid")).ok()?;
                let new = text.trim().parse().ok().filter(|pid| *pid != old)?;
                let workers = if old == 0 { 1 } else { 2 };
                (processes("nginx: worker").len() == workers).then_some(new)
            })
        };
        replaces_itself(rig, "nginx", port, new, Signal::QUIT);
        assert_eq!(processes("nginx:"), Vec::<i32>::new());
    });
}

#[test]
fn gunicorn_is_upgraded_under_load_and_stays_one_service() {
    isolated(here!(), |rig| {
        let gunicorn = program("gunicorn", &["/usr/bin/gunicorn"]);
        let text = "import os, socket\n\
                    def app(environ, start):\n    start('200 OK', [])\n    return [b'hello']\n\
                    def when_ready(server):\n    \
                    speak = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n    \
                    said = 'MAINPID=%d' % os.getpid()\n    \
                    speak.sendto(said.encode(), os.environ['NOTIFY_SOCKET'])\n";
        write(rig, "hello.py", text);
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let start = ["start", "--name", "gunicorn", "--min-uptime", "0s", "--ready", "notify"];
        let more = ["--", &gunicorn, "-c", "python:hello", "--bind", &address, "hello:app"];
        rig.ok(&[&start[..], &more].concat());
        let new = |old: i32| until_led(rig, "gunicorn", old);
        replaces_itself(rig, "gunicorn", port, new, Signal::TERM);
        assert_eq!(processes("hello:app"), Vec::<i32>::new());
    });
}
