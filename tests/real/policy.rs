//! What ends, restarts and starts a service besides its own death and the operator.
use crate::namespace::{fixture, isolated};
use crate::rig::Rig;

/// Starts the fixture, whatever becomes of it.
fn begin(rig: &Rig, name: &str, options: &[&str], ops: &str) {
    let words = rig.start_words(name, options, ops);
    rig.opm(&words.iter().map(|word| &**word).collect::<Vec<_>>());
}

#[test]
fn an_exit_with_a_stop_code_is_the_end_and_another_is_not() {
    isolated(here!(), |rig| {
        let options = ["--min-uptime", "0s", "--stop-exit-codes", "3,143"];
        begin(rig, "done", &options, "child [ setsid sleep ] exit:3");
        rig.until_status("done", "stopped");
        rig.assert_starts("done", 1);
        assert_eq!(rig.info("done")["done"], true);
        // A signal by its number and 128, as a shell has it.
        let pid = rig.start_with("term", &options, "sleep");
        rig.kill(pid, rustix::process::Signal::TERM);
        rig.until_status("term", "stopped");
        let pid = rig.start_with("other", &options, "sleep");
        rig.kill(pid, rustix::process::Signal::KILL);
        rig.until_replaced("other", pid);
        // It stays so for the next daemon, until somebody starts it.
        rig.kill_daemon();
        assert_eq!(rig.row("done").status, "stopped");
        rig.assert_starts("done", 1);
        rig.opm(&["start", "done"]);
        rig.assert_starts("done", 2);
    });
}

#[test]
fn as_many_quick_deaths_as_said_are_forgiven() {
    isolated(here!(), |rig| {
        let quick = ["--restart-delay", "1ms", "--max-restarts"];
        for (name, forgiven, starts) in [("none", "0", 1), ("two", "2", 3)] {
            begin(rig, name, &[&quick[..], &[forgiven]].concat(), "exit:1");
            rig.until_status(name, "errored");
            rig.assert_starts(name, starts);
        }
        begin(rig, "every", &[&quick[..], &["unlimited"]].concat(), "exit:1");
        rig.until("more than the default forgives", || {
            (rig.starts("every").len() > 11).then_some(())
        });
        assert_eq!(rig.info("every")["policy"]["max_restarts"], "unlimited");
        rig.ok(&["stop", "every"]);
        rig.ok(&["reset", "two"]);
        assert_eq!((rig.row("two").restarts, rig.row("two").status.as_str()), (0, "errored"));
        let said = rig.refused(2, &["adjust", "two", "--max-restarts", "-1"]);
        assert!(
            said.contains("'-1' for '--max-restarts'") && said.contains("or unlimited"),
            "{said}"
        );
        let said = rig.refused(2, &["adjust", "two", "--stop-exit-codes", "0,256"]);
        assert!(said.contains("'0,256' for '--stop-exit-codes': expected exit codes"), "{said}");
        rig.ok(&["adjust", "two", "--exp-backoff", "100ms"]);
        assert_eq!(rig.info("two")["policy"]["restart_delay"], "100ms..15s");
    });
}

/// Why each incarnation was started that an event tells it of, and its predecessor ended.
fn reasons(rig: &Rig, name: &str, event: &str) -> Vec<Option<String>> {
    let events = rig.events(name).into_iter().filter(|it| it.event == event);
    events.map(|event| event.reason).collect()
}

#[test]
fn a_job_is_started_at_each_of_its_times_and_never_beside_itself() {
    isolated(here!(), |rig| {
        let options = ["--restart", "never", "--cron", "* * * * * *"];
        begin(rig, "job", &options, "exit:0");
        // One that fails is started again, too.
        begin(rig, "bad", &options, "exit:1");
        rig.until("three starts", || (rig.starts("job").len() > 2).then_some(()));
        rig.until("two starts", || (rig.starts("bad").len() > 1).then_some(()));
        assert_eq!(reasons(rig, "job", "spawned")[..2], [None, Some("cron".to_owned())]);
        let pid = rig.start_with("long", &options, "sleep");
        rig.until("its time to pass", || rig.info("long")["note"].as_str().map(str::to_owned));
        assert_eq!((rig.row("long").pid, rig.row("long").restarts), (Some(pid), 0));
        assert!(rig.json(&["ls", "job"])[0]["next_at"].is_string());
        // The next daemon knows its times, and the operator's word stands.
        rig.kill_daemon();
        assert!(rig.json(&["ls", "job"])[0]["next_at"].is_string());
        let before = rig.starts("job").len();
        rig.until("another start", || (rig.starts("job").len() > before).then_some(()));
        rig.ok(&["stop", "job"]);
        assert!(rig.json(&["ls", "job"])[0]["next_at"].is_null());
    });
}

#[test]
fn a_service_is_restarted_at_its_times() {
    isolated(here!(), |rig| {
        let pid = rig.start_with("web", &["--cron", "*/2 * * * * *"], "sleep");
        assert!(rig.until_replaced("web", pid).restarts >= 1);
        assert_eq!(reasons(rig, "web", "exited")[0].as_deref(), Some("cron"));
        rig.ok(&["start", "--name", "year", "--cron", "@yearly", "--", "sleep", "9"]);
        assert!(rig.ok(&["ls", "year"]).contains(" next in "));
        let words = ["start", "--cron", "TZ=Nowhere/AtAll @daily", "--", "sleep", "9"];
        let said = rig.refused(2, &words);
        assert!(said.contains("Nowhere/AtAll") && said.contains("no time zone"), "{said}");
        let said = rig.refused(2, &["start", "--cron", "0 25 * * *", "--", "sleep", "9"]);
        assert!(said.contains("--cron: bad schedule") && said.contains("no hour"), "{said}");
        assert_eq!(rig.rows().len(), 2);
    });
}

#[test]
fn a_tree_that_has_more_memory_than_it_may_is_restarted() {
    isolated(here!(), |rig| {
        // The first one grows, in a child; the next one sees that and does not.
        let script = "[ -e grown ] && exec sleep 1000; touch grown
            (\"$0\" - fill:60 sleep); true";
        let words = ["start", "--name", "web", "--max-memory", "40M", "--", "sh", "-c", script];
        rig.ok(&[&words[..], &[&fixture().display().to_string()]].concat());
        let row = rig.until("a restart", || Some(rig.row("web")).filter(|row| row.restarts > 0));
        assert_eq!(row.restarts, 1);
        assert_eq!(reasons(rig, "web", "exited")[0].as_deref(), Some("memory"));
        rig.until_status("web", "online");
        assert!(["pss", "rss"].contains(&rig.info("web")["memory_by"].as_str().unwrap()));
        let said = rig.refused(2, &["adjust", "web", "--max-memory", "1.5G"]);
        assert!(said.contains("--max-memory: bad size"), "{said}");
    });
}

#[test]
fn what_changes_restarts_and_what_is_ignored_does_not() {
    isolated(here!(), |rig| {
        let src = rig.dir.join("src");
        let write = |name: &str| {
            let path = src.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        };
        write("a/b/deep.js");
        write("node_modules/x/y.js");
        let options = ["--min-uptime", "0s", "--watch", "src", "--ignore-watch", "src/**/*.tmp"];
        let mut pid = rig.start_with("web", &options, "sleep");
        assert_eq!(rig.json(&["ls"])[0]["watching"], true);
        // As editors save: at the place, or another file takes its name.
        let rename = || std::fs::rename(src.join("new.tmp"), src.join("a/b/deep.js")).unwrap();
        let changes: [&dyn Fn(); 2] = [&|| write("a/b/deep.js"), &rename];
        for (change, starts) in changes.into_iter().zip(2..) {
            // If these were seen, there would be one start more.
            for name in ["node_modules/x/y.js", "a/b/c.tmp", "new.tmp", ".deep.js.swp"] {
                write(name);
            }
            change();
            pid = rig.until_replaced("web", pid).pid.unwrap();
            rig.assert_starts("web", starts);
        }
        assert_eq!(reasons(rig, "web", "exited")[0].as_deref(), Some("watch"));
        // What takes several steps may be several changes on a slow machine.
        let many = || (0..500).for_each(|n| write(&format!("many/{n}/file.js")));
        let remove = || std::fs::remove_dir_all(&src).unwrap();
        let changes: [&dyn Fn(); 5] =
            [&|| write("later/made/new.js"), &many, &remove, &|| write("x"), &|| write("x")];
        for change in changes {
            change();
            pid = rig.until_replaced("web", pid).pid.unwrap();
        }
        assert!(rig.starts("web").len() < 50, "{}", rig.starts("web").len());
    });
}

#[test]
fn what_has_failed_is_started_when_its_files_change() {
    isolated(here!(), |rig| {
        let file = rig.dir.join("code");
        std::fs::write(&file, "exit 1").unwrap();
        let words = ["--max-restarts", "0", "--watch", "code", "--", "sh", "-c", ". ./code"];
        let ran = rig.opm(&[&["start", "--name", "web"], &words[..]].concat());
        assert!(!ran.err.contains("watch:"), "{ran:?}");
        rig.until_status("web", "errored");
        // The daemon that takes over goes on watching.
        rig.kill_daemon();
        assert_eq!(rig.json(&["ls"])[0]["watching"], true);
        std::fs::write(&file, "exec sleep 1000").unwrap();
        rig.until_status("web", "online");
        assert_eq!(reasons(rig, "web", "spawned")[0].as_deref(), Some("watch"));
    });
}

#[test]
fn a_path_that_is_not_there_is_said_and_watched_for() {
    isolated(here!(), |rig| {
        let words = ["start", "--name", "web", "--min-uptime", "0s", "--watch", "later", "-i", "2"];
        let ran = rig.opm(&[&words[..], &["--", "sleep", "1000"]].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let later = rig.dir.join("later");
        let said = format!("web-0: watch: {}: not there yet", later.display());
        assert_eq!(ran.err.matches("watch:").count(), 1, "once for both: {ran:?}");
        assert!(ran.err.contains(&said), "{ran:?}");
        std::fs::create_dir(later).unwrap();
        for name in ["web-0", "web-1"] {
            rig.until("its restart", || (rig.row(name).restarts > 0).then_some(()));
        }
    });
}

#[test]
fn too_few_watches_are_said_with_the_sysctl() {
    isolated(here!(), |rig| {
        (0..9).for_each(|n| std::fs::create_dir_all(rig.dir.join(format!("src/{n}"))).unwrap());
        let script = "echo 6 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
        let mut outer = std::process::Command::new("unshare");
        outer.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
        let ran =
            rig.behind(outer, &["start", "--name", "web", "--watch", "src", "--", "sleep", "9"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.err.contains("fs.inotify.max_user_watches"), "{ran:?}");
        assert_eq!(rig.json(&["ls"])[0]["watching"], false);
    });
}
