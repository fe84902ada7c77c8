//! The main job: what dies is replaced, once and only once its tree is gone.
use crate::namespace::isolated;
use crate::proc;
use crate::rig::{Rig, finish};
use rustix::process::Signal;
use std::time::{Duration, Instant};

in_every_tier! {
    a_killed_leader_is_replaced_when_its_tree_is_gone,
    restart_waits_for_what_ignores_the_stop_signal_then_starts_one,
    twenty_restarts_of_all_at_once_leave_one_of_each,
    nothing_leaks_into_a_service,
}

/// The order of a restart, as the events tell it.
fn order(rig: &Rig, name: &str) -> Vec<String> {
    let words = rig.events(name).into_iter().map(|event| event.event);
    let told = words.filter(|w| ["spawned", "exited", "drained"].contains(&w.as_str()));
    told.collect()
}

fn a_killed_leader_is_replaced_when_its_tree_is_gone(rig: &Rig) {
    let pid = rig.start("web", "sleep");
    let before = rig.row("web");
    rig.kill(pid, Signal::KILL);
    let after = rig.until_replaced("web", pid);
    assert!(after.generation > before.generation);
    assert_eq!(after.restarts, 1);
    let row_pid = after.pid.unwrap();
    rig.until("the second start", || (rig.starts("web").len() == 2).then_some(()));
    assert_eq!(rig.starts("web"), [pid, row_pid]);
    assert_eq!(order(rig, "web"), ["spawned", "exited", "drained", "spawned"]);
    let events = rig.events("web");
    let exited = events.iter().find(|event| event.event == "exited").unwrap();
    assert!(exited.signal.as_ref().is_some_and(|s| s.ends_with("KILL")), "{exited:?}");
    assert_eq!(exited.generation, before.generation);
}

fn restart_waits_for_what_ignores_the_stop_signal_then_starts_one(rig: &Rig) {
    let options = ["--min-uptime", "0s", "--stop-timeout", "400ms"];
    let old = rig.start_with("web", &options, "ignore:TERM note:up sleep");
    rig.note("web", "up");
    let began = Instant::now();
    rig.ok(&["restart", "web"]);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    let row = rig.row("web");
    assert_eq!((row.status.as_str(), row.restarts), ("online", 1));
    assert!(!proc::alive(old) && row.pid != Some(old));
    assert_eq!(order(rig, "web"), ["spawned", "exited", "drained", "spawned"]);
}

fn twenty_restarts_of_all_at_once_leave_one_of_each(rig: &Rig) {
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        rig.start(name, "child [ setsid sleep ] sleep");
    }
    let restarts: Vec<_> = (0..20).map(|_| rig.spawn(&["restart", "all"])).collect();
    for child in restarts {
        let ran = finish(child, &["restart", "all"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let rows = rig.rows();
    assert_eq!(rows.len(), names.len());
    let fixture = crate::namespace::fixture().display().to_string();
    rig.until("two processes for each service", || {
        let all = proc::pids().into_iter().map(proc::arguments);
        let ours = all.filter(|line| line.starts_with(&fixture) && !line.contains(" --"));
        (ours.count() == 2 * names.len()).then_some(())
    });
    for row in rows {
        assert_eq!(row.status, "online");
        assert!(proc::alive(row.pid.unwrap()));
    }
}

/// From a shell that ignores signals and has descriptors open; the daemon is started by it.
fn nothing_leaks_into_a_service(rig: &Rig) {
    let script = "trap '' HUP INT PIPE USR1; exec 7</dev/null 9>leak; exec \"$@\"";
    let opm = rig.command(&[]);
    let mut shell = rig.command(&[]);
    shell = {
        let mut outer = std::process::Command::new("bash");
        outer.envs(shell.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(&rig.dir);
        outer.args(["-c", script, "bash"]).arg(opm.get_program()).args(opm.get_args());
        outer.args(["start", "--name", "web", "--", "sleep", "1000"]);
        outer
    };
    assert!(shell.status().unwrap().success());
    let pid = rig.row("web").pid.unwrap();
    // The program's loader opens and closes libraries first.
    rig.until("its own three descriptors", || (proc::descriptors(pid) == [0, 1, 2]).then_some(()));
    for mask in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(proc::status_mask(pid, mask), 0, "{mask}");
    }
    let process = proc::process(pid).unwrap();
    assert_eq!((process.session, process.group), (pid, pid));
}

#[test]
fn a_stop_that_a_restart_overtakes_is_answered_too() {
    isolated(here!(), |rig| {
        for overtaking in ["restart", "start"] {
            let options = ["--min-uptime", "0s", "--stop-timeout", "500ms"];
            rig.start_with(overtaking, &options, "ignore:TERM note:up sleep");
            rig.note(overtaking, "up");
            let stop = rig.spawn(&["stop", overtaking]);
            rig.until_status(overtaking, "stopping");
            let other = rig.spawn(&[overtaking, overtaking]);
            let ran = finish(other, &[overtaking]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            finish(stop, &["stop"]);
            rig.until_status(overtaking, "online");
            rig.assert_starts(overtaking, 2);
        }
    });
}

#[test]
fn a_quick_death_waits_for_the_cooldown() {
    isolated(here!(), |rig| {
        let pid = rig.start_with("web", &["--restart-delay", "600ms"], "sleep");
        let began = Instant::now();
        rig.kill(pid, Signal::KILL);
        rig.until_status("web", "waiting");
        assert_eq!(rig.row("web").pid, None);
        rig.until_replaced("web", pid);
        assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
        assert!(rig.events("web").iter().any(|event| event.event == "waiting"));
    });
}

#[test]
fn too_many_quick_deaths_in_a_row_are_an_error_until_somebody_starts_it() {
    isolated(here!(), |rig| {
        let words =
            rig.start_words("web", &["--max-restarts", "3", "--restart-delay", "10ms"], "exit:3");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        rig.opm(&words);
        rig.until_status("web", "errored");
        let starts = rig.starts("web").len();
        assert!((3..=4).contains(&starts), "{starts} starts");
        let info = rig.info("web");
        assert_eq!(info["last_exit"]["code"], 3, "{info}");
        rig.opm(&["start", "web"]);
        rig.until("the tally to be cleared", || {
            (rig.starts("web").len() == 2 * starts).then_some(())
        });
        rig.until_status("web", "errored");
    });
}

#[test]
fn a_program_that_ends_in_a_millisecond_is_never_doubled() {
    isolated(here!(), |rig| {
        let words = rig.start_words("web", &["--min-uptime", "0s"], "ms:1 exit:1");
        rig.opm(&words.iter().map(String::as_str).collect::<Vec<_>>());
        rig.until("two hundred starts", || (rig.starts("web").len() >= 200).then_some(()));
        rig.ok(&["stop", "web"]);
        let starts = rig.starts("web");
        assert!(starts.iter().all(|pid| !proc::alive(*pid)));
        assert_eq!(rig.row("web").status, "stopped");
        assert_eq!(rig.starts("web").len(), starts.len());
    });
}

#[test]
fn the_restart_policy_decides_what_an_exit_means() {
    isolated(here!(), |rig| {
        let cases = [
            ("always", "0", true),
            ("on-failure", "0", false),
            ("on-failure", "1", true),
            ("never", "0", false),
            ("never", "1", false),
        ];
        for (policy, code, again) in cases {
            let name = format!("{policy}-{code}");
            let ops = format!("ms:50 exit:{code}");
            let options = ["--restart", policy, "--restart-delay", "10ms", "--max-restarts", "2"];
            let words = rig.start_words(&name, &options, &ops);
            rig.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
            let status = rig.until("it to come to rest", || {
                let status = rig.row(&name).status;
                ["stopped", "errored"].contains(&status.as_str()).then_some(status)
            });
            let expected = if policy != "never" && !again { "stopped" } else { &status };
            assert_eq!(status, expected, "{name}");
            assert_eq!(rig.starts(&name).len() > 1, again, "{name}");
        }
    });
}

#[test]
fn starting_what_is_online_starts_no_second_one() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        rig.ok(&["start", "web"]);
        rig.ok(&["start", "0"]);
        assert_eq!(rig.row("web").pid, Some(pid));
        assert_eq!(rig.starts("web"), [pid]);
    });
}

#[test]
fn a_stopped_member_is_continued_after_the_stop_signal() {
    isolated(here!(), |rig| {
        let options = ["--stop-timeout", "10s"];
        let pid = rig.start_with("web", &options, "note:up stop sleep");
        rig.until("it to stop itself", || {
            proc::process(pid).is_some_and(|p| p.state == 'T').then_some(())
        });
        let began = Instant::now();
        rig.ok(&["stop", "web"]);
        assert!(began.elapsed() < Duration::from_secs(5), "it was killed, not continued");
        let exited = rig.events("web").into_iter().find(|e| e.event == "exited").unwrap();
        assert!(exited.signal.as_ref().is_some_and(|s| s.ends_with("TERM")), "{exited:?}");
    });
}

#[test]
fn a_program_that_daemonizes_is_an_error_with_a_reason() {
    isolated(here!(), |rig| {
        let words = rig.start_words("web", &[], "child [ setsid note:daemon sleep ] ms:100 exit:0");
        rig.opm(&words.iter().map(String::as_str).collect::<Vec<_>>());
        rig.until_status("web", "errored");
        rig.assert_starts("web", 1);
        let daemon = rig.note("web", "daemon");
        assert!(!proc::alive(daemon), "the escapee lives on");
        let note = rig.info("web")["note"].to_string();
        assert!(note.contains("daemon") && note.contains("foreground"), "{note}");
    });
}

#[test]
fn stop_replies_when_the_tree_is_gone() {
    isolated(here!(), |rig| {
        let options = ["--stop-timeout", "300ms"];
        let ops = "child [ setsid ignore:TERM note:escapee sleep ] note:leader sleep";
        let leader = rig.start_with("web", &options, ops);
        let escapee = rig.note("web", "escapee");
        rig.ok(&["stop", "web"]);
        assert!(!proc::alive(leader) && !proc::alive(escapee));
        assert_eq!(rig.row("web").status, "stopped");
        let words = order(rig, "web");
        assert_eq!(words, ["spawned", "exited", "drained"]);
    });
}

#[test]
fn remove_replies_when_the_tree_is_gone() {
    isolated(here!(), |rig| {
        let options = ["--stop-timeout", "300ms"];
        let ops = "child [ setsid ignore:TERM note:escapee sleep ] sleep";
        let leader = rig.start_with("web", &options, ops);
        let escapee = rig.note("web", "escapee");
        rig.start("other", "sleep");
        rig.ok(&["remove", "web"]);
        assert!(!proc::alive(leader) && !proc::alive(escapee));
        let names: Vec<String> = rig.rows().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["other"]);
        rig.start("web", "sleep");
        assert_eq!((rig.row("web").id, rig.row("other").id), (0, 1));
    });
}

#[test]
fn a_signal_reaches_the_leader_and_with_tree_every_member() {
    isolated(here!(), |rig| {
        let ops = "child [ setsid note:kid catch:USR1 note:kid-ready sleep ] \
                   catch:USR1 note:ready sleep";
        rig.start("web", ops);
        rig.note("web", "kid-ready");
        rig.note("web", "ready");
        let heard = |rig: &Rig| {
            let notes = rig.notes("web");
            notes.iter().filter(|line| line.starts_with("signal 10")).count()
        };
        rig.ok(&["signal", "web", "USR1"]);
        rig.until("the leader to hear it", || (heard(rig) == 1).then_some(()));
        rig.ok(&["signal", "web", "SIGUSR1", "--tree"]);
        rig.until("both to hear it", || (heard(rig) == 3).then_some(()));
    });
}

#[test]
fn a_start_whose_output_is_piped_returns() {
    isolated(here!(), |rig| {
        let opm = env!("CARGO_BIN_EXE_opm");
        let mut shell = std::process::Command::new("sh");
        let line = format!("{opm} start --name web -- sleep 1000 2>&1 | cat");
        shell.args(["-c", &line]).env("OPM_HOME", &rig.home).current_dir(&rig.dir);
        let child =
            shell.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        let ran = finish(child.unwrap(), &["start", "|", "cat"]);
        assert!(ran.out.contains("web"), "{ran:?}");
    });
}

#[test]
fn commands_that_start_the_daemon_together_share_one() {
    isolated(here!(), |rig| {
        let words = |n: usize| -> Vec<String> { rig.start_words(&format!("s{n}"), &[], "sleep") };
        let all: Vec<Vec<String>> = (0..8).map(words).collect();
        let children: Vec<_> = all
            .iter()
            .map(|words| rig.spawn(&words.iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        for child in children {
            let ran = finish(child, &["start", "…"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        let rows = rig.rows();
        assert_eq!(rows.len(), 8);
        let daemon = rig.daemon();
        for row in rows {
            let leader = proc::process(row.pid.unwrap()).unwrap();
            assert_eq!(leader.parent, daemon, "{} has another parent", row.name);
        }
        assert_eq!(rig.daemons(), [daemon]);
    });
}

#[test]
fn wait_says_when_it_is_true_and_gives_up_in_time() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        rig.ok(&["wait", "web", "--for", "online", "--timeout", "5s"]);
        let line = rig.refused(6, &["wait", "web", "--for", "stopped", "--timeout", "200ms"]);
        assert!(line.contains("web"), "{line}");
        let words = ["wait", "web", "--for", "stopped"];
        let wait = rig.spawn(&words);
        rig.ok(&["stop", "web"]);
        assert_eq!(finish(wait, &words).code, Some(0));
        assert!(!proc::alive(pid));
    });
}

#[test]
fn a_follower_is_told_every_step_in_order() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        let mut follower = rig.spawn(&["events", "-f", "--format", "json"]);
        rig.kill(pid, Signal::KILL);
        rig.until_replaced("web", pid);
        rig.ok(&["stop", "web"]);
        let out = std::io::BufReader::new(follower.stdout.take().unwrap());
        let mut words = Vec::new();
        for line in std::io::BufRead::lines(out) {
            let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            let word = event["event"].as_str().unwrap().to_owned();
            let is_last = word == "stopped";
            words.push(word);
            if is_last {
                break;
            }
        }
        words.retain(|word| ["spawned", "exited", "drained", "stopped"].contains(&word.as_str()));
        let once = ["exited", "drained"];
        let expected: Vec<&str> = ["spawned"]
            .into_iter()
            .chain(once)
            .chain(["spawned"])
            .chain(once)
            .chain(["stopped"])
            .collect();
        assert_eq!(words, expected);
        follower.kill().unwrap();
        follower.wait().unwrap();
    });
}

/// An import that makes it up again would bring it up to be forgotten at its next stop, and leave
/// whoever removes it waiting.
#[test]
fn what_is_being_removed_is_not_imported() {
    isolated(here!(), |rig| {
        let file = rig.dir.join("web.json");
        let script = "trap '' TERM; echo > up; while :; do sleep 0.1; done";
        let spec = serde_json::json!({ "services": [
            { "name": "web", "command": ["sh", "-c", script], "stop_timeout": "2s" }
        ] });
        std::fs::write(&file, spec.to_string()).unwrap();
        let file = file.to_str().unwrap();
        rig.ok(&["import", file]);
        rig.until("its trap", || rig.dir.join("up").exists().then_some(()));
        let mut remove = rig.spawn(&["remove", "web"]);
        rig.until_status("web", "stopping");
        let line = rig.refused(1, &["import", file]);
        assert!(line.contains("being removed"), "{line}");
        assert!(remove.wait().unwrap().success());
        assert_eq!(rig.rows().len(), 0);
        rig.ok(&["import", file]);
        assert_eq!(rig.row("web").status, "online");
    });
}
