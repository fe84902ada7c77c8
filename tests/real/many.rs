//! Beside many services a child shares the daemon's descriptors for its first moment: nothing of
//! that may show, and the lock must be held through it.
use crate::namespace::isolated;
use crate::proc;
use crate::rig::{Rig, finish};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// So many that a child shares; each takes a descriptor.
const MANY: usize = 200;

fn beside_many(name: &str, test: impl FnOnce(&Rig)) {
    isolated(name, |rig| {
        let service = |number| {
            let name = format!("other{number}");
            serde_json::json!({"name": name, "command": ["sleep", "1000"]})
        };
        let services: Vec<_> = (0..MANY).map(service).collect();
        let text = serde_json::json!({ "services": services }).to_string();
        let file = rig.dir.join("others.json");
        std::fs::write(&file, text).unwrap();
        rig.ok(&["import", file.to_str().unwrap()]);
        test(rig);
        let mut others = rig.rows();
        others.retain(|row| row.name.starts_with("other"));
        assert_eq!(others.len(), MANY);
        let untouched = |row: &crate::rig::Row| row.status == "online" && row.restarts == 0;
        assert!(others.iter().all(untouched), "{others:?}");
        rig.ok(&["daemon", "stop", "--services"]);
    });
}

/// The child of the daemon that has not yet exec'd: it still runs the daemon's program.
fn before_its_exec(rig: &Rig, daemon: i32) -> i32 {
    let program = |pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program(daemon);
    rig.until("the child before its exec", || {
        let mut all = proc::all();
        all.retain(|p| p.parent == daemon && p.state != 'Z');
        let before = |pid: &i32| program(*pid) == own;
        let found = all.iter().map(|process| process.pid).find(before)?;
        // A helper of the daemon's looks the same, and ends before the daemon answers.
        rig.ok(&["ls"]);
        Some(found).filter(before)
    })
}

#[test]
fn nothing_of_the_daemon_leaks_into_one_of_many() {
    beside_many(here!(), |rig| {
        for _ in 0..20 {
            rig.ok(&["start", "--name", "web", "--", "sleep", "1000"]);
            let pid = rig.row("web").pid.unwrap();
            rig.until("its own three descriptors", || {
                (proc::descriptors(pid) == [0, 1, 2]).then_some(())
            });
            rig.ok(&["remove", "web"]);
        }
        // What was lent to the children has come back.
        let open = proc::descriptors(rig.daemon()).len();
        assert!(open < MANY + 100, "{open} descriptors are open");
    });
}

#[test]
fn one_of_many_that_cannot_be_started_is_told_why() {
    beside_many(here!(), |rig| {
        // The command can't tell; the kernel does.
        let program = rig.dir.join("of-another-machine");
        std::fs::write(&program, b"\x7fELF").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        for _ in 0..40 {
            let words = ["start", "--name", "web", "--", program.to_str().unwrap()];
            let line = rig.refused(1, &words);
            assert!(line.ends_with("Exec format error"), "{line}");
        }
    });
}

#[test]
fn one_of_many_that_hangs_before_its_exec_holds_only_itself_up() {
    beside_many(here!(), |rig| {
        let log = rig.log_to_nobody("web");
        let start = rig.spawn(&["start", "web"]);
        let child = before_its_exec(rig, rig.daemon());
        for number in 0..40 {
            let name = format!("next{number}");
            rig.ok(&["start", "--name", &name, "--", "sleep", "1000"]);
        }
        assert_eq!(rig.row("web").status, "starting");
        let _reader = std::fs::File::open(&log).unwrap();
        assert_eq!(finish(start, &["start"]).code, Some(0));
        assert_eq!(rig.row("web").pid, Some(child));
    });
}

/// It is held in the very call with which it leaves the daemon's descriptors, and the daemon is
/// told to go: the lock is still the child's.
fn a_child_that_shares_keeps_the_lock(name: &str, signal: Signal) {
    beside_many(name, |rig| {
        rig.start("web", "sleep");
        rig.ok(&["stop", "web"]);
        let daemon = rig.daemon();
        let mut tracer = Command::new("strace")
            .args(["-f", "-q", "-e", "trace=close_range"])
            .args(["-e", "inject=close_range:delay_enter=1500000:when=1"])
            .args(["-p", &daemon.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        rig.until_traced(daemon, &tracer);
        let mut start = rig.spawn(&["start", "web"]);
        let child = rig.until("the child", || rig.row("web").pid);
        rig.kill(daemon, signal);
        // Answered by the next daemon, once the child has exec'd.
        let row = rig.until_status("web", "online");
        assert_eq!(row.pid, Some(child));
        start.wait().unwrap();
        tracer.kill().unwrap();
        tracer.wait().unwrap();
    });
}

#[test]
fn a_child_that_shares_keeps_the_lock_when_the_daemon_is_killed() {
    a_child_that_shares_keeps_the_lock(here!(), Signal::KILL);
}

#[test]
fn a_child_that_shares_keeps_the_lock_when_the_daemon_leaves() {
    a_child_that_shares_keeps_the_lock(here!(), Signal::TERM);
}
