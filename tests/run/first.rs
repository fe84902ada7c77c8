//! PID 1 of a PID namespace.
use crate::rig::{As, BOTH, Scratch, children, eventually, signal};

const THREE: &str = r#"
    {"name": "a", "command": ["sleep", "1000"]},
    {"name": "b", "command": ["sh", "-c", "while :; do echo tick; sleep 0.05; done"]},
    {"name": "c", "command": ["sleep", "1000"]}"#;

fn pids(list: &[serde_json::Value]) -> Vec<u64> {
    list.iter().filter_map(|row| row["pid"].as_u64()).collect()
}

#[test]
fn a_crash_re_execs_and_no_service_notices() {
    for how in [As::First, As::Plain] {
        let scratch = Scratch::new();
        let mut run = scratch.run(how, &["--prefix", "name", &scratch.file(THREE)]);
        let before = run.online(3);
        // The second within a minute is one too many for a daemon, but PID 1 can't leave.
        for _ in 0..if how == As::First { 2 } else { 1 } {
            run.when("all to be there before a crash", |list| list.len() == 3);
            let started = scratch.read("err").matches("re-executing").count();
            run.signal(libc::SIGSEGV);
            eventually("a new image", || {
                (scratch.read("err").matches("re-executing").count() > started).then_some(())
            });
            let after = run.when("adoption", |list| {
                list.iter().all(|row| row["adopted"] == true && row["status"] == "online")
            });
            assert_eq!(pids(&before), pids(&after));
        }
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0, "{}", scratch.read("err"));
    }
}

#[test]
fn the_root_of_the_namespace_cannot_end_it_by_a_fatal_signal() {
    let scratch = Scratch::new();
    let mut run = scratch.run(As::First, &[&scratch.file(THREE)]);
    let before = run.online(3);
    let target = run.opm.to_string();
    let mut enter = std::process::Command::new("nsenter");
    let done = enter.args(["-t", &target, "-p", "-m", "sh", "-c", "kill -KILL 1; kill -SEGV 1"]);
    assert!(done.status().unwrap().success());
    let after = run.when("adoption", |list| list.iter().all(|row| row["adopted"] == true));
    assert_eq!(pids(&before), pids(&after));
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn an_upgrade_in_place_keeps_services_and_output() {
    let scratch = Scratch::new();
    let mut run = scratch.run(As::First, &[&scratch.file(THREE)]);
    let before = run.online(3);
    let (out, err, code) = run.beside(&["daemon", "restart"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(pids(&before), pids(&run.online(3)));
    let ticks = scratch.read("out").matches("tick").count();
    eventually("more output", || {
        (scratch.read("out").matches("b | tick").count() > ticks + 3).then_some(())
    });
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn a_hang_up_carries_out_what_differs_in_the_file() {
    for how in BOTH {
        let scratch = Scratch::new();
        let service =
            |name: &str, time: &str| format!(r#"{{"name": "{name}", "command": "sleep {time}"}}"#);
        let file = scratch.file(&[service("a", "91"), service("b", "92")].join(","));
        let mut run = scratch.run(how, &[&file]);
        let of = |list: &[serde_json::Value], name: &str| {
            let row = list.iter().find(|row| row["name"] == name);
            row.map(|row| (row["pid"].clone(), row["command"].clone()))
        };
        let before = run.online(2);
        // What has an error changes nothing.
        std::fs::write(&file, "{").unwrap();
        run.signal(libc::SIGHUP);
        scratch.expect("err", "going on with what is known");
        assert_eq!(pids(&run.online(2)), pids(&before));
        // Nor one that is empty: what runs would lose its PID 1.
        scratch.file("");
        run.signal(libc::SIGHUP);
        scratch.expect("err", "nothing to run; going on with what is known");
        assert_eq!(pids(&run.online(2)), pids(&before));
        // Nor does what is refused, of what else has changed.
        let nobodys = r#"{"name": "c", "command": "sleep 94", "user": "no-such-user"}"#;
        scratch.file(&[&service("a", "95"), nobodys].join(","));
        run.signal(libc::SIGHUP);
        scratch.expect("err", "c: cannot set user no-such-user: no such name");
        assert_eq!(pids(&run.online(2)), pids(&before));
        scratch.file(&[service("a", "91"), service("b", "93"), service("c", "94")].join(","));
        run.signal(libc::SIGHUP);
        let is = |list: &[serde_json::Value], name: &str, command: &str| {
            of(list, name).is_some_and(|(_, line)| line == command)
        };
        let after = run.when("b is another", |list| is(list, "b", "sleep 93"));
        assert_eq!(of(&after, "a"), of(&before, "a"));
        run.online(3);
        scratch.expect("err", "c: new");
        scratch.file(&service("a", "91"));
        run.signal(libc::SIGHUP);
        let left = run.when("a alone", |list| list.len() == 1);
        assert_eq!(of(&left, "a"), of(&before, "a"));
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0);
    }
}

#[test]
fn a_hang_up_says_nothing_again_of_what_has_ended() {
    let scratch = Scratch::new();
    let file = |time: &str| {
        let a = format!(r#"{{"name": "a", "command": ["sleep", "{time}"]}}"#);
        let once = r#"{"name": "once", "command": ["true"], "restart": "never"}"#;
        scratch.file(&format!("{a}, {once}"))
    };
    let path = file("91");
    let mut run = scratch.run(As::Plain, &[&path]);
    scratch.expect("err", "once: ended for good");
    for time in ["92", "93"] {
        file(time);
        run.signal(libc::SIGHUP);
        let line = format!("sleep {time}");
        run.when("a is another", |list| {
            list.iter().any(|it| it["command"] == line && it["status"] == "online")
        });
    }
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
    let said = scratch.read("err");
    assert_eq!(said.matches("once: ended for good").count(), 1, "{said}");
}

#[test]
fn a_hang_up_is_about_the_directory_that_the_run_was_called_in() {
    let scratch = Scratch::new();
    // Of supervisord's files relative paths begin there.
    let write = |time: &str| {
        let text = format!("[program:a]\ncommand=sleep 91\n[program:b]\ncommand=sleep {time}\n");
        std::fs::write(scratch.path("s.conf"), text).unwrap();
    };
    write("92");
    let mut run = scratch.run(As::Plain, &["s.conf"]);
    let of = |list: &[serde_json::Value], name: &str, key: &str| {
        list.iter().find(|row| row["name"] == name).map(|row| row[key].clone())
    };
    let before = run.online(2);
    for time in ["93", "94"] {
        write(time);
        run.signal(libc::SIGHUP);
        let line: serde_json::Value = format!("sleep {time}").into();
        let after = run.when("b is another", |it| of(it, "b", "command") == Some(line.clone()));
        assert_eq!(of(&after, "b", "cwd"), Some(scratch.dir.to_str().unwrap().into()));
        assert_eq!(of(&after, "a", "pid"), of(&before, "a", "pid"));
        run.online(2);
    }
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn a_process_file_that_has_gone_does_not_end_a_run_that_crashes() {
    let scratch = Scratch::new();
    let file = scratch.file(THREE);
    let mut run = scratch.run(As::First, &[&file]);
    let before = run.online(3);
    std::fs::remove_file(&file).unwrap();
    run.signal(libc::SIGSEGV);
    scratch.expect("err", "going on with what is known");
    let after = run.when("adoption", |list| list.iter().all(|row| row["adopted"] == true));
    assert_eq!(pids(&before), pids(&after));
    let ticks = scratch.read("out").matches("tick").count();
    eventually("more output", || {
        (scratch.read("out").matches("b | tick").count() > ticks + 3).then_some(())
    });
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn an_image_that_cannot_begin_tries_again_and_no_service_notices() {
    let scratch = Scratch::new();
    let mut run = scratch.run(As::First, &[&scratch.file(THREE)]);
    let before = run.online(3);
    // No lock for a while: at once a directory is where it was, so that nobody makes it anew.
    let (lock, away) = (scratch.dir.join("home/lock"), scratch.dir.join("away"));
    std::fs::create_dir(&away).unwrap();
    let exchange = || {
        let (cwd, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
        rustix::fs::renameat_with(cwd, &lock, cwd, &away, flags).unwrap();
    };
    exchange();
    run.signal(libc::SIGSEGV);
    scratch.expect("err", "trying again");
    exchange();
    let after = run.when("adoption", |list| list.iter().all(|row| row["adopted"] == true));
    assert_eq!(pids(&before), pids(&after));
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn a_storm_of_orphans_is_reaped_while_services_run() {
    const ORPHANS: usize = 300;
    let scratch = Scratch::new();
    let storm = format!(
        "i=0; while [ $i -lt {ORPHANS} ]; do (setsid sh -c 'sleep 0.1; echo . >>DIR/count' &); \
         i=$((i+1)); done; exec sleep 1000"
    );
    let services = format!(r#"{{"name": "storm", "command": ["sh", "-c", "{storm}"]}}"#);
    let mut run = scratch.run(As::First, &["--prefix=name", &scratch.file(&services)]);
    eventually("every orphan", || (scratch.read("count").lines().count() == ORPHANS).then_some(()));
    eventually("none but the service", || (children(run.opm).len() == 1).then_some(()));
    assert_eq!(run.online(1)[0]["restarts"], 0);
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn what_came_in_from_outside_holds_no_service_up() {
    let scratch = Scratch::new();
    let mut run = scratch.run(As::First, &[&scratch.file(THREE)]);
    run.online(3);
    // As `docker exec` does it: the parent is outside, so that its child becomes PID 1's.
    let target = run.opm.to_string();
    let mut enter = std::process::Command::new("nsenter");
    let enter = enter.args(["-t", &target, "-p", "-m", "sh", "-c", "setsid sleep 2000 &"]);
    assert!(enter.status().unwrap().success());
    eventually("the stranger to be ours", || (children(run.opm).len() == 4).then_some(()));
    assert_eq!(run.beside(&["restart", "a"]).2, 0);
    run.online(3);
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn leftovers_are_asked_to_end_and_then_killed() {
    let scratch = Scratch::new();
    let mut run = scratch.run(As::First, &["--stop-timeout=2s", &scratch.file(THREE)]);
    run.online(3);
    let target = run.opm.to_string();
    let script = "setsid sh -c 'trap \"echo asked >>$0\" TERM; echo ready >>$0; \
                  while :; do sleep 0.1; done' $0 &";
    let mut enter = std::process::Command::new("nsenter");
    let enter = enter.args(["-t", &target, "-p", "-m", "sh", "-c", script, &scratch.path("asked")]);
    assert!(enter.status().unwrap().success());
    eventually("the stranger to be ours", || (children(run.opm).len() == 4).then_some(()));
    scratch.expect("asked", "ready");
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 137);
    assert_eq!(scratch.read("asked"), "ready\nasked\n");
}

#[test]
fn a_term_right_after_the_start_is_not_lost() {
    for n in 0..20 {
        let scratch = Scratch::new();
        let mut run = scratch.run(As::First, &["--stop-timeout=5s", &scratch.file(THREE)]);
        // From the moment on at which opm's own image runs.
        eventually("opm", || {
            let words = std::fs::read(format!("/proc/{}/status", run.opm)).ok()?;
            let text = String::from_utf8(words).ok()?;
            let blocked = text.lines().find_map(|line| line.strip_prefix("SigBlk:\t"))?;
            let blocked = u64::from_str_radix(blocked, 16).ok()?;
            (text.starts_with("Name:\topm\n") && blocked >> 14 & 1 == 1).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_micros(500 * n));
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0, "{n}: {}", scratch.read("err"));
    }
}

#[test]
fn a_killed_container_begins_again_on_its_home_and_nothing_runs_twice() {
    begin_again(&["--prefix", "name"], "sleep 1000 & sleep 1000");
    // Neither output nor anything else that is known leads to these.
    begin_again(&["--prefix", "name"], "exec setsid sleep 1000 >/dev/null 2>&1 </dev/null");
}

/// Kills a run of three services and begins another, again and again.
fn begin_again(options: &[&str], rest: &str) {
    const ROUNDS: usize = 12;
    let scratch = Scratch::new();
    let guarded = |name: &str| {
        let script = format!(
            "exec 9>>DIR/{name}.lock; flock -n 9 || echo {name} >>DIR/clash; echo {name} >>DIR/up; \
             {rest}"
        );
        format!(r#"{{"name": "{name}", "command": ["sh", "-c", "{script}"]}}"#)
    };
    let file = scratch.file(&["a", "b", "c"].map(guarded).join(", "));
    let mut before: Vec<crate::rig::Run> = Vec::new();
    for round in 1..=ROUNDS {
        let run = scratch.run(As::First, &[options, &[&file]].concat());
        eventually("the services of this round", || {
            let up = scratch.read("up").lines().count();
            (up == 3 * round).then_some(())
        });
        // Not waited for: the next one begins while this one dies.
        signal(run.opm, libc::SIGKILL);
        before.push(run);
    }
    assert_eq!(scratch.read("clash"), "");
    assert_eq!(scratch.read("err").matches("refuse").count(), 0);
}
