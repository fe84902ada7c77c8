//! What `start` and `import` ask the daemon to define.
use crate::answers::{done, no_such, outcome};
use crate::fake::Scratch;
use opm::service::signal::Signal;
use opm::service::spec::{Policy, Restart, Spec, StopReach};
use opm::service::text::Delay;
use opm::wire::Request;

fn defined(scratch: &Scratch, words: &[&str]) -> (Vec<Spec>, Vec<(String, String)>, bool) {
    let requests = scratch.daemon(|request| match request {
        Request::Define { .. } => done(vec![outcome(0, "web: online (pid 1)")]),
        _ => no_such("x"),
    });
    let ran = scratch.run(words);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "web: online (pid 1)\n", ""));
    std::fs::remove_file(scratch.home().join("opm.sock")).unwrap();
    loop {
        if let Request::Define { specs, base, keep, .. } = requests.recv().unwrap() {
            return (specs, base, keep);
        }
    }
}

#[test]
fn a_dotenv_without_end_is_an_error() {
    let scratch = Scratch::new();
    scratch.write("work/server.js", "");
    std::os::unix::fs::symlink("/dev/zero", scratch.work().join(".env")).unwrap();
    let ran = scratch.run(&["start", "--", "sleep", "1"]);
    let line = "opm: ROOT/work/.env: it is over 1 MB\n".to_owned();
    assert_eq!((ran.code, ran.err), (1, line));
}

#[test]
fn every_option_of_start_reaches_the_daemon() {
    let scratch = Scratch::new();
    scratch.write("work/sub/.env", "A=file\nOPM_HOME=/x\nB=\"b c\"\n");
    let words = [
        "start",
        "-n",
        "web",
        "--cwd",
        "sub",
        "--env",
        "A=hand",
        "--env",
        "C=",
        "--restart",
        "on-failure",
        "--max-restarts",
        "3",
        "--min-uptime",
        "1s",
        "--restart-delay",
        "1s..1m",
        "--stop-signal",
        "int",
        "--stop-reach",
        "leader",
        "--stop-timeout",
        "250ms",
        "--",
        "sh",
        "-c",
        "exit $A",
    ];
    let (specs, base, keep) = defined(&scratch, &words);
    let spec = &specs[0];
    assert_eq!((spec.name.as_str(), keep), ("web", false));
    assert_eq!(spec.command, ["sh", "-c", "exit $A"]);
    assert_eq!(spec.cwd, scratch.work().join("sub").to_str().unwrap());
    let env = [("B", "b c"), ("A", "hand"), ("C", "")];
    assert_eq!(spec.env, env.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let policy = Policy {
        restart: Restart::OnFailure,
        max_restarts: 3,
        min_uptime: 1_000,
        restart_delay: Delay { min_ms: 1_000, max_ms: 60_000 },
        stop_signal: Signal::INT,
        stop_reach: StopReach::Leader,
        stop_timeout: 250,
    };
    assert_eq!(spec.policy, policy);
    assert_eq!(base, [("PATH".to_owned(), "/usr/bin:/bin".to_owned())], "no OPM_*");
}

#[test]
fn what_names_no_service_is_a_script_a_program_or_a_line() {
    let scratch = Scratch::new();
    scratch.write("work/job.sh", "#!/bin/bash\n");
    for (words, command, name) in [
        (&["start", "job.sh"][..], &["bash", "job.sh"][..], "job"),
        (&["start", "job.sh", "--", "-x", "y"], &["bash", "job.sh", "-x", "y"], "job"),
        (&["start", "sleep"], &["sleep"], "sleep"),
        (&["start", "sleep '1 2'"], &["sleep", "1 2"], "sleep"),
        (&["start", "-n", "w", "sleep 1; true"], &["/bin/sh", "-c", "sleep 1; true"], "w"),
        (&["start", "--no-autorestart", "--", "sleep", "a b"], &["sleep", "a b"], "sleep"),
    ] {
        let (specs, _, keep) = defined(&scratch, words);
        assert_eq!(
            (&specs[0].command[..], keep),
            (&command.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()[..], false)
        );
        assert_eq!(specs[0].name, name);
        let never = words.contains(&"--no-autorestart");
        assert_eq!(specs[0].policy.restart == Restart::Never, never);
    }
}

#[test]
fn a_process_file_is_imported_whole_by_start_and_by_import() {
    let scratch = Scratch::new();
    let text = r#"{"services": [{"name": "a", "command": "sleep 1", "cwd": "."},
        {"name": "b", "command": ["sleep", "2"], "env": {"N": 1}}]}"#;
    scratch.write("work/conf/web.json", text);
    scratch.write("work/conf/.env", "N=0\nM=2\n");
    for words in [&["start", "conf/web.json"][..], &["add", "conf/web.json"]] {
        let (specs, _, keep) = defined(&scratch, words);
        assert!(keep);
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(specs.iter().all(|spec| spec.cwd == scratch.work().join("conf").to_str().unwrap()));
        let env = |vars: &[(&str, &str)]| -> Vec<(String, String)> {
            vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert_eq!(specs[0].env, env(&[("N", "0"), ("M", "2")]), "the .env of its directory");
        assert_eq!(specs[1].env, env(&[("M", "2"), ("N", "1")]), "the file's own come later");
    }
}
