//! No number from outside has authority: a mark that somebody gives himself stops no service, moves
//! no sequence and gets nobody signalled.
use crate::namespace::{fixture, opm, publish};
use crate::proc;
use crate::rig::Rig;
use rustix::process::Signal;
use std::process::{Child, Command};

with_each_witness! {
    forged_marks_of_another_user_stop_nobody,
    forged_marks_of_the_same_user_stop_nobody,
    a_generation_that_was_never_given_is_nobodys,
}

/// The bits of a limit that name a generation.
const GENERATION: u64 = (1 << 25) - 1;

/// A process of no service, of this user, with this limit and these variables.
fn forger(rig: &Rig, uid: u32, limit: u64, env: &[(&str, &str)]) -> Child {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).args(["--clear-groups"]).arg(fixture());
    command.args(["--held", "-", &format!("locks:{limit}"), "sleep"]);
    let child = command.envs(env.iter().copied()).current_dir("/").spawn().unwrap();
    let pid = child.id().cast_signed();
    rig.until("the forger", || (proc::locks_limit(pid) == limit).then_some(()));
    child
}

/// `decides`: such a mark tells whose a process is, by the rules.
fn forged_marks(rig: &Rig, uid: u32, decides: bool) {
    let first = rig.start("web", "child [ setsid note:rest sleep ] sleep");
    let limit = proc::locks_limit(first);
    let any = limit & !GENERATION;
    let mut limits = vec![any | 12_345, any | GENERATION, any];
    if !decides {
        limits.extend([limit, limit + 1]);
    }
    let mut forgers: Vec<Child> =
        limits.iter().map(|limit| forger(rig, uid, *limit, &[])).collect();
    let generation = rig.row("web").generation;
    rig.kill_daemon();
    assert_eq!(rig.row("web").pid, Some(first));
    let log = std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
    for forger in &forgers[..2] {
        assert!(log.contains(&forger.id().to_string()), "{} is not named: {log}", forger.id());
    }
    for (n, args) in [["restart", "web"], ["restart", "web"]].iter().enumerate() {
        rig.ok(args);
        assert_eq!(rig.row("web").generation, generation + 1 + n as u64);
        rig.ok(&["daemon", "restart"]);
    }
    rig.start("other", "sleep");
    let leader = rig.row("web").pid.unwrap();
    rig.kill_daemon();
    rig.kill(leader, Signal::KILL);
    rig.until_replaced("web", leader);
    rig.ok(&["stop", "all"]);
    for forger in &mut forgers {
        assert!(forger.try_wait().unwrap().is_none(), "a forger was signalled");
        forger.kill().unwrap();
        forger.wait().unwrap();
    }
}

fn forged_marks_of_another_user_stop_nobody(rig: &Rig) {
    publish_once();
    // Root's services may be of any user.
    forged_marks(rig, 65_533, rig.uid() == 0 && !rig.has_time_namespaces());
}

fn forged_marks_of_the_same_user_stop_nobody(rig: &Rig) {
    forged_marks(rig, rig.uid(), !rig.has_time_namespaces());
}

/// Its environment has the home's key, which it has read from a process of the service.
fn a_generation_that_was_never_given_is_nobodys(rig: &Rig) {
    let first = rig.start("web", "sleep");
    rig.ok(&["stop", "web"]);
    rig.ok(&["start", "web"]);
    let leader = rig.row("web").pid.unwrap();
    let row = rig.row("web");
    let real = proc::variable(leader, "OPM_MARK").unwrap();
    let [key, id, ..] = real.split('.').collect::<Vec<_>>()[..] else { panic!("{real}") };
    let limit = (proc::locks_limit(leader) & !GENERATION) | 9_000;
    let mark = format!("{key}.{id}.9000.{first:010}");
    let mut forger = forger(rig, rig.uid(), limit, &[("OPM_MARK", &mark), ("OPM_NAME", "web")]);
    rig.kill_daemon();
    rig.ok(&["stop", "web"]);
    rig.ok(&["daemon", "restart"]);
    rig.ok(&["start", "web"]);
    assert_eq!(rig.row("web").generation, row.generation + 1);
    rig.ok(&["restart", "web"]);
    assert!(forger.try_wait().unwrap().is_none(), "the forger was signalled");
    rig.forgive_doubles();
    forger.kill().unwrap();
    forger.wait().unwrap();
}

fn publish_once() {
    if !opm().starts_with("/mnt") {
        publish();
    }
}
