//! Sockets that outlive incarnations: what connects is answered, now or by the next one.
use crate::namespace::{Setting, User, isolated, isolated_in};
use crate::rig::Rig;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A program that answers each connection with its pid, and goes when it is told to.
const SERVER: &str = "catch:TERM serve";

impl Rig {
    fn socket(&self) -> String {
        self.dir.join("web.sock").display().to_string()
    }

    /// Starts the server on a unix socket in the test's directory.
    fn serve(&self, name: &str, ops: &str) -> i32 {
        let address = format!("unix:{}", self.socket());
        self.start_with(name, &["--min-uptime", "0s", "--listen", &address], ops)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("refused");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

/// The pid of whoever answers.
fn answer(mut stream: UnixStream) -> i32 {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("reset, or not answered");
    text.parse().expect("nobody answered")
}

/// What descriptor 3 of a process is.
fn third(pid: i32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/3")).unwrap();
    link.display().to_string()
}

fn sockets_of(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let links = links.map(|link| link.display().to_string());
    links.filter(|link| link.starts_with("socket:")).collect()
}

#[test]
fn what_connects_while_nothing_runs_is_answered_by_the_next_incarnation() {
    isolated(here!(), |rig| {
        let first = rig.serve("web", SERVER);
        assert_eq!(answer(rig.connect()), first);
        rig.ok(&["stop", "web"]);
        let waiting = rig.connect();
        rig.ok(&["start", "web"]);
        let second = rig.row("web").pid.unwrap();
        assert_eq!(answer(waiting), second);
        assert_ne!(first, second);
        rig.kill(second, rustix::process::Signal::KILL);
        assert_ne!(answer(rig.connect()), second);
        rig.ok(&["remove", "web"]);
        assert!(UnixStream::connect(rig.socket()).is_err());
        assert!(!std::path::Path::new(&rig.socket()).exists());
    });
}

#[test]
fn a_service_gets_its_own_sockets_as_systemd_gives_them_and_nobody_else_does() {
    isolated(here!(), |rig| {
        let address = format!("http=unix:{}", rig.socket());
        let second = format!("unix:{},mode=0600", rig.dir.join("b.sock").display());
        let options = ["--listen", &address, "--listen", &second, "--env", "LISTEN_FDS=9"];
        let pid = rig.start_with("web", &options, SERVER);
        let other = rig.start("other", "sleep");
        let environ = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let mut listen: Vec<_> =
            environ.split('\0').filter(|entry| entry.starts_with("LISTEN_")).collect();
        listen.sort_unstable();
        let expected = ["LISTEN_FDNAMES=http:web", "LISTEN_FDS=2", &format!("LISTEN_PID={pid}")];
        assert_eq!(listen, expected);
        assert!(rig.ok(&["env", "web"]).contains(&format!("LISTEN_PID={pid}\n")));
        assert_eq!(sockets_of(pid).len(), 2);
        assert_eq!(sockets_of(other), [""; 0]);
        assert_eq!(answer(rig.connect()), pid);
        let mode = std::fs::metadata(rig.dir.join("b.sock")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
        // Of the daemon's no descriptor of its is open across an exec.
        let daemon = rig.daemon();
        for fd in std::fs::read_dir(format!("/proc/{daemon}/fdinfo")).unwrap() {
            let (info, name) = (fd.as_ref().unwrap().path(), fd.unwrap().file_name());
            let number: i32 = name.to_str().unwrap().parse().unwrap();
            let Ok(text) = std::fs::read_to_string(info) else { continue };
            let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            assert!(number < 3 || flags & 0o2_000_000 != 0, "{number}: {text}");
        }
    });
}

/// The socket's own inode says that it is the same one.
fn survives_the_daemon(rig: &Rig) {
    let first = rig.serve("web", SERVER);
    let before = third(first);
    rig.kill_daemon();
    assert_eq!(answer(rig.connect()), first);
    assert_eq!(rig.row("web").pid, Some(first));
    rig.ok(&["restart", "web"]);
    let second = rig.row("web").pid.unwrap();
    assert_eq!(third(second), before);
    assert_eq!(answer(rig.connect()), second);
    // Stopped, it is the daemon's alone: an image that follows has it from the one before.
    rig.ok(&["stop", "web"]);
    let waiting = rig.connect();
    rig.ok(&["daemon", "restart"]);
    rig.ok(&["start", "web"]);
    let third_pid = rig.row("web").pid.unwrap();
    assert_eq!((answer(waiting), third(third_pid)), (third_pid, before));
}

#[test]
fn a_socket_is_taken_back_from_what_lives_and_left_to_the_next_image() {
    isolated(here!(), survives_the_daemon);
}

#[test]
fn a_user_without_privileges_takes_it_back_too() {
    isolated_in(Setting { user: User::Nobody, ..Setting::default() }, here!(), |rig| {
        let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
        if scope.map_or(true, |scope| scope.trim() == "0") {
            survives_the_daemon(rig);
        }
    });
}

/// Nobody may ask it for its descriptors: another socket takes over when it goes.
#[test]
fn what_can_not_be_taken_back_is_opened_beside_it() {
    isolated_in(Setting { user: User::Nobody, ..Setting::default() }, here!(), |rig| {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let options = ["--min-uptime", "0s", "--listen", &free];
        let first = rig.start_with("web", &options, "undumpable catch:TERM serve");
        let ask = || {
            let mut text = String::new();
            let mut stream = std::net::TcpStream::connect(&free).expect("refused");
            stream.read_to_string(&mut text).unwrap();
            text.parse::<i32>().unwrap()
        };
        assert_eq!(ask(), first);
        rig.kill_daemon();
        assert_eq!((ask(), rig.row("web").pid), (first, Some(first)));
        rig.ok(&["restart", "web"]);
        assert_eq!(Some(ask()), rig.row("web").pid);
    });
}

#[test]
fn a_busy_address_is_refused_and_whoever_has_it_is_named() {
    isolated(here!(), |rig| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let words = ["start", "--name", "web", "--listen", &address, "--", "sleep", "1"];
        let said = rig.refused(1, &words);
        let pid = std::process::id();
        let expected = format!("opm: web: cannot listen on {address}: pid {pid} listens there (");
        assert!(said.starts_with(&expected), "{said}");
        assert!(rig.rows().is_empty());
        drop(taken);
        rig.ok(&words);
        let words = ["start", "--name", "api", "--listen", &address, "--", "sleep", "1"];
        let said = rig.refused(1, &words);
        assert_eq!(said, format!("opm: api: cannot listen on {address}: it is held for web"));
        let said = rig.refused(2, &["start", "--listen", "localhost:80", "--", "sleep", "2"]);
        assert!(said.contains("'localhost:80' for '--listen': "), "{said}");
    });
}
