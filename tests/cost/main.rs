//! Guards against costs that grow unseen: the daemon's system calls for each event, what its
//! child does before it execs, and the instructions of the machine.
//!
//! Nothing here looks at a clock: on the slowest machine the counts are the same. They are those
//! of a kernel that has every tier of opm(8).
#![expect(
    clippy::unwrap_used,
    reason = "a test's way to fail; clippy exempts test functions only, not what they call"
)]

mod child;
mod machine;
mod traced;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use traced::{Call, Follow, Traced};

/// How often a call is made.
type Cost = (&'static str, RangeInclusive<usize>);

const OTHERS: usize = 200;
/// Services that outlive each test, but for its namespace.
const PROGRAM: [&str; 2] = ["/bin/sleep", "1000000"];
/// Where nothing else of the namespace is.
const CWD: &str = "/usr";

/// Whether the heap grows or shrinks just now is malloc's business, and whether a second without
/// clients ends just now, nobody's.
const HEAP: &[Cost] =
    &[("brk", 0..=3), ("madvise", 0..=5), ("mmap", 0..=2), ("mremap", 0..=2), ("munmap", 0..=2)];

/// From the death of a leader without children to the exec of the next.
///
/// SIGCHLD and the pidfd come in one turn or in two, and each turn counts the children: one read
/// says that after those that were known nobody came. After a reap that no spawn followed, or
/// the first time, the list is read from its beginning: one lseek, and a read for every 4 KiB.
const DEATH: &[Cost] = &[
    ("clone3", 1..=1),
    // The dead leader's pidfd, both ends of the launch pipe, the time namespace.
    ("close", 4..=4),
    ("epoll_ctl", 4..=4),
    ("epoll_pwait", 2..=9),
    ("lseek", 0..=1),
    // The child's end of the launch pipe to a low number, and away again.
    ("dup3", 2..=2),
    // Which time namespace the new one is in: whether the pipe ended with an exec.
    ("ioctl", 1..=1),
    // That, and whether the home is still ours, before the launch.
    ("newfstatat", 2..=2),
    // Whether anything is in the time namespace.
    ("open_by_handle_at", 1..=1),
    // Whether the group is empty.
    ("pidfd_send_signal", 1..=1),
    ("pipe2", 1..=1),
    // Which time namespace it signed.
    ("pread64", 1..=1),
    // The generation before the fork, the state after it.
    ("pwrite64", 2..=2),
    // The signal, the children, the launch pipe (that the child has left our table, and its end).
    ("read", 4..=7),
    // How it ended, and later the reap.
    ("waitid", 2..=2),
];

/// Lines of a service that are stamped, after a rest: a look at them, the log's end, the receipt,
/// the log, and a look at what has come meanwhile.
const LINES: &[Cost] = &[
    ("epoll_pwait", 2..=4),
    ("newfstatat", 1..=1),
    ("pwrite64", 1..=1),
    ("read", 1..=1),
    ("readv", 1..=1),
    ("tee", 2..=2),
    ("write", 1..=1),
];

/// What a client costs by itself: its request, its reply, its end. By its pace the request comes
/// with the connection or after it, and that its socket takes a reply is an event of its own.
const LS: &[Cost] = &[
    ("accept4", 2..=2),
    ("close", 1..=1),
    ("epoll_ctl", 2..=2),
    ("epoll_pwait", 2..=9),
    ("getsockopt", 1..=1),
    ("recvfrom", 2..=4),
    ("sendto", 1..=1),
];

/// A client, and a death that nothing follows.
const STOP: &[Cost] = &[
    ("accept4", 2..=2),
    // The client, and the pidfd.
    ("close", 2..=2),
    ("epoll_ctl", 3..=3),
    ("epoll_pwait", 3..=9),
    ("getsockopt", 1..=1),
    ("lseek", 0..=1),
    // Whether anything is in the time namespace that it signed.
    ("open_by_handle_at", 1..=1),
    // The signal, and whether the group is empty.
    ("pidfd_send_signal", 2..=2),
    // The last pid, and what the leader signed.
    ("pread64", 2..=2),
    // Before the signal, and at the end.
    ("pwrite64", 2..=2),
    // The signal, and our children.
    ("read", 3..=6),
    ("recvfrom", 2..=4),
    ("sendto", 1..=1),
    ("waitid", 2..=2),
];

/// A client, a launch, and the look for look-alikes: over the list of all processes, at the
/// owner and the directory of each that is not ours (here strace alone), and at the ancestors
/// of the command (itself).
const START: &[Cost] = &[
    ("accept4", 2..=2),
    ("clone3", 1..=1),
    ("close", 8..=8),
    ("dup3", 2..=2),
    ("epoll_ctl", 5..=5),
    ("epoll_pwait", 3..=9),
    // Whether the pipe ended with an exec.
    ("ioctl", 1..=1),
    // By the length of the list: the next few are read when these were looked at.
    ("getdents64", 5..=32),
    ("geteuid", 1..=1),
    ("getsockopt", 1..=1),
    ("lseek", 1..=1),
    // That, and whether the home is still ours.
    ("newfstatat", 2..=2),
    // Who the command and strace are, and whether strace bears a mark of an earlier home (this one
    // is new).
    ("openat", 3..=3),
    ("openat2", 1..=1),
    ("pipe2", 1..=1),
    // The generation before the fork, the state after it.
    ("pwrite64", 2..=2),
    ("read", 5..=6),
    // Where strace is, and what the service's directory really is.
    ("readlinkat", 2..=2),
    ("recvfrom", 2..=4),
    ("sendto", 1..=1),
];

/// What a child does between its fork and its program, in order.
const CHILD: &[&str] = &[
    // It leaves the daemon's table of descriptors, says so, and keeps what it needs.
    "close_range",
    "write",
    "close_range",
    "close_range",
    "close_range",
    "setsid",
    // It signs in: pid, start time, inode.
    "getpid",
    "clock_gettime",
    "pidfd_open",
    "statx",
    // Its time namespace, which its exec enters.
    "unshare",
    "ioctl",
    "name_to_handle_at",
    "pwrite64",
    // The mark.
    "prlimit64",
    "chdir",
    // /dev/null and the two logs.
    "openat",
    "dup3",
    "openat",
    "dup3",
    "openat",
    "dup3",
    // As the definer had it, after the last open: the umask, and what limits are not ours.
    "umask",
    "prlimit64",
    // SIGPIPE and SIGXFSZ were ignored; nothing stays blocked.
    "rt_sigaction",
    "rt_sigaction",
    "rt_sigprocmask",
    "execve",
];

/// A daemon with a service `web` and so many others, all of them up.
fn world(others: usize) -> Traced {
    let mut traced = Traced::new(Follow::Daemon);
    let mut words = vec!["start", "--name", "web", "--cwd", CWD, "--min-uptime", "0s"];
    words.push("--");
    words.extend(PROGRAM);
    traced.command(&words);
    if others > 0 {
        let file = import_file(&traced, others);
        traced.command(&["import", file.to_str().unwrap()]);
    }
    // Each log is looked at once, a second after the start, and then watched; and a second after
    // the last client the loop lets go of its code.
    traced.until("every log to be watched", || {
        let trace = traced.trace();
        let rests = trace.lines().last().is_some_and(|line| line.starts_with("epoll_"));
        let watched = trace.matches("IN_ONESHOT").count();
        let is_let_go = trace.rfind("MADV_DONTNEED") > trace.rfind("recvfrom(");
        let rests = rests && is_let_go && !trace.ends_with('\n');
        (watched >= 2 * (others + 1) && rests).then_some(())
    });
    traced
}

/// A process file with so many services.
fn import_file(traced: &Traced, others: usize) -> PathBuf {
    let service = |number| {
        let name = format!("other{number}");
        serde_json::json!({"name": name, "command": PROGRAM, "cwd": CWD})
    };
    let services: Vec<_> = (0..others).map(service).collect();
    let text = serde_json::json!({ "services": services }).to_string();
    let file = traced.path("services.json");
    std::fs::write(&file, text).unwrap();
    file
}

#[track_caller]
fn assert_cost(what: &str, calls: &[Call], tables: &[&[Cost]]) {
    let mut ranges: BTreeMap<&str, RangeInclusive<usize>> = BTreeMap::new();
    for (name, range) in tables.iter().copied().flatten().chain(HEAP) {
        let sum = ranges.entry(name).or_insert(0..=0);
        *sum = sum.start() + range.start()..=sum.end() + range.end();
    }
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for call in calls {
        *found.entry(&call.name).or_default() += 1;
    }
    let mut wrong = Vec::new();
    for (name, range) in ranges {
        let count = found.remove(name).unwrap_or(0);
        if !range.contains(&count) {
            wrong.push(format!("{name}: {count}, not {range:?}"));
        }
    }
    wrong.extend(found.iter().map(|(name, count)| format!("{name}: {count}, not 0")));
    let lines: Vec<&str> = calls.iter().map(|call| call.line.as_str()).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:#?}\nin {lines:#?}");
}

/// Twice: what the first time costs, the second must not cost less or more.
fn costs_are_as_listed(others: usize) {
    let mut traced = world(others);
    for _ in 0..2 {
        let leader = traced.leader("web");
        assert_cost("a death", &traced.death(&leader), &[DEATH]);
        assert_cost("stop", &traced.command(&["stop", "web"]), &[STOP]);
        assert_cost("start", &traced.command(&["start", "web"]), &[START]);
        assert_cost("ls", &traced.command(&["ls", "--no-usage"]), &[LS]);
    }
}

#[test]
fn an_event_costs_the_listed_calls_of_one_service() {
    costs_are_as_listed(0);
}

#[test]
fn an_event_costs_the_same_beside_200_other_services() {
    costs_are_as_listed(OTHERS);
}

#[test]
fn a_daemon_with_200_services_that_has_nothing_to_do_does_nothing() {
    let traced = world(OTHERS);
    let before = traced.trace();
    // No wait for anything: this is how long nothing is to happen.
    std::thread::sleep(Duration::from_secs(2));
    let after = traced.trace();
    let more = after.strip_prefix(before.as_str());
    assert_eq!(more, Some(""), "the daemon woke up");
}

#[test]
fn lines_that_pass_through_cost_the_listed_calls_however_many_come_at_once() {
    let mut traced = Traced::new(Follow::Daemon);
    let path = traced.path("in");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
    let mut options = std::fs::File::options();
    let mut input = options.read(true).write(true).open(&path).unwrap();
    let words = ["start", "--name", "web", "--log-time", "--log-max-size", "0", "--", "cat"];
    traced.command(&[&words[..], &[path.to_str().unwrap()]].concat());
    for count in [1, 100] {
        assert_cost("lines", &traced.lines(&mut input, &"a line\n".repeat(count)), &[LINES]);
    }
}

#[test]
fn who_asks_is_answered_before_more_lines_are_passed_on() {
    let mut traced = Traced::new(Follow::Daemon);
    traced.opm(&["start", "--name", "web", "--log-time", "--log-out", "/dev/null", "--", "yes"]);
    let calls = traced.command(&["ls", "--no-usage"]);
    let reply = calls.iter().rposition(|call| call.name == "sendto").unwrap();
    let is_request = |call: &Call| call.name == "recvfrom" && !call.line.contains("EAGAIN");
    let request = calls[..reply].iter().rposition(is_request).unwrap();
    let is_line = |call: &&Call| ["tee", "write"].contains(&call.name.as_str());
    assert!(calls.iter().any(|call| is_line(&call)), "nobody shouts: {calls:#?}");
    assert_eq!(calls[request..reply].iter().find(is_line), None, "{:#?}", &calls[request..]);
}

#[test]
fn a_child_makes_the_listed_calls_before_its_exec() {
    // Else the daemon has no limit that its services are not to have.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum }).unwrap();
    let traced = Traced::new(Follow::Children);
    let mut words = vec!["start", "--name", "web", "--cwd", CWD, "--"];
    words.extend(PROGRAM);
    traced.opm(&words);
    let children = traced.children();
    let [child] = &children[..] else {
        panic!("not one child: {children:#?}");
    };
    let mut names: Vec<&str> = child.iter().map(|call| call.name.as_str()).collect();
    // If the clock has ticked since the fork, it reads in which tick that was.
    if let [.., "clock_gettime", "openat", "read"] = names[..10] {
        names.drain(8..10);
    }
    assert_eq!(names, CHILD, "{child:#?}");
}
