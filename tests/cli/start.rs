//! What `start` and `import` ask the daemon to define.
use crate::answers::{done, info, no_such, outcome, row};
use crate::fake::Scratch;
use opm::service::context::Context;
use opm::service::signal::Signal;
use opm::service::spec::{Forgiven, Policy, Restart, Spec, StopReach};
use opm::service::units::{Delay, Span};
use opm::wire::{Existing, Reply, Request, Row, Status};
use std::os::unix::fs::PermissionsExt;

fn defined(scratch: &Scratch, words: &[&str]) -> (Vec<Spec>, Context, bool) {
    defined_with(scratch, words, "/usr/bin:/bin")
}

fn defined_with(scratch: &Scratch, words: &[&str], path: &str) -> (Vec<Spec>, Context, bool) {
    let requests = scratch.daemon(|request| match request {
        Request::Define { .. } => done(vec![outcome(0, "web: online (pid 1)")]),
        _ => no_such("x"),
    });
    let ran = scratch.run_with(words, &[("PATH", path)]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "web: online (pid 1)\n", ""));
    std::fs::remove_file(scratch.home().join("opm.sock")).unwrap();
    loop {
        if let Request::Define { specs, base, existing, .. } = requests.recv().unwrap() {
            return (specs, *base, existing != Existing::Refused);
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
    assert_eq!(*spec.cwd, scratch.work().join("sub").to_str().unwrap());
    let owned = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
    assert_eq!(spec.env, [("A", "hand"), ("C", "")].map(owned));
    assert_eq!(*spec.dotenv, [("A", "file"), ("B", "b c")].map(owned));
    let policy = Policy {
        restart: Restart::OnFailure,
        max_restarts: Forgiven(3),
        min_uptime: Span::secs(1),
        restart_delay: Delay { min_ms: 1_000, max_ms: 60_000 },
        stop_signal: Signal::INT,
        stop_reach: StopReach::Leader,
        stop_timeout: Span { ms: 250 },
        ..Policy::default()
    };
    assert_eq!(*spec.policy, policy);
    assert_eq!(base.env, [("PATH".to_owned(), "/usr/bin:/bin".to_owned())], "no OPM_*");
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
        assert!(
            specs.iter().all(|spec| *spec.cwd == scratch.work().join("conf").to_str().unwrap())
        );
        let env = |vars: &[(&str, &str)]| -> Vec<(String, String)> {
            vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert_eq!((&specs[0].env, &specs[1].env), (&env(&[]), &env(&[("N", "1")])));
        for spec in &specs {
            assert_eq!(*spec.dotenv, env(&[("N", "0"), ("M", "2")]), "that of its directory");
        }
    }
}

#[test]
fn what_runs_a_package_is_named_after_it_or_its_directory() {
    let scratch = Scratch::new();
    let path = scratch.root.join("bin");
    std::fs::create_dir(&path).unwrap();
    for program in ["npm", "pnpm", "yarn", "bun"] {
        std::os::unix::fs::symlink("/bin/true", path.join(program)).unwrap();
    }
    scratch.write("work/nameless/package.json", r#"{"scripts": {"start": "x"}}"#);
    scratch.write("work/no-package/x", "");
    scratch.write("work/broken/package.json", "{");
    scratch.write("work/shop-dir/package.json", r#"{"name": "shop.js"}"#);
    scratch.write("work/scoped/package.json", r#"{"name": "@acme/till"}"#);
    let s = r#"{"services": [{"command": "npm start", "cwd": "scoped"}, {"command": "sleep 1"}]}"#;
    scratch.write("work/s.json", s);
    let path = format!("{}:/usr/bin:/bin", path.display());
    for (words, names) in [
        (&["start", "--cwd", "nameless", "--", "npm", "start"][..], &["nameless"][..]),
        (&["start", "--cwd", "no-package", "--", "yarn", "run", "dev"], &["no-package"]),
        (&["start", "--cwd", "broken", "pnpm run dev"], &["broken"]),
        (&["start", "--cwd", "shop-dir", "bun", "--", "run", "dev"], &["shop.js"]),
        (&["start", "--cwd", "scoped", "npm run a && npm start"], &["till"]),
        (&["start", "--cwd", "scoped", "--", "sleep", "1"], &["sleep"]),
        (&["import", "s.json"], &["till", "sleep"]),
    ] {
        let (specs, ..) = defined_with(&scratch, words, &path);
        let found: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(found, names, "{words:?}");
    }
}

#[test]
fn with_a_name_of_its_own_a_program_wins_over_a_service_that_is_called_so() {
    let scratch = Scratch::new();
    let requests = scratch.daemon(|request| match request {
        Request::Define { .. } => done(vec![outcome(0, "second: online (pid 1)")]),
        // A service called sleep is there already.
        _ => done(vec![outcome(0, "sleep: already online (pid 2)")]),
    });
    let ran = scratch.run(&["start", "sleep", "--name", "second", "--", "7"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "second: online (pid 1)\n"), "{}", ran.err);
    let Request::Define { specs, .. } = requests.recv().unwrap() else {
        panic!("it asked for something else");
    };
    assert_eq!(
        (specs[0].name.as_str(), &specs[0].command[..]),
        ("second", &words(&["sleep", "7"])[..])
    );
    let ran = scratch.run(&["start", "sleep"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "sleep: already online (pid 2)\n"));
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_first_line_that_ends_in_crlf_or_names_nothing_is_told() {
    let scratch = Scratch::new();
    let nothing = "install it, or change the first line";
    for (first, missing, advice) in [
        ("#!/bin/dash\r", r"/bin/dash\r", r"its lines end in CRLF: sed -i 's/\r$//' ./app"),
        ("#! /usr/bin/env perl\r", r"perl\r", r"its lines end in CRLF: sed -i 's/\r$//' ./app"),
        ("#!/opt/none/bin/perl -w", "/opt/none/bin/perl", nothing),
        ("#!/usr/bin/env -S noperl -w", "noperl", nothing),
        ("#!/usr/bin/env perl -w", "perl -w", nothing),
    ] {
        let path = scratch.write("work/app", &format!("{first}\nprint 1;\r\n"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        for words in [&["start", "./app"][..], &["start", "--", "./app", "x"]] {
            let ran = scratch.run(words);
            let line =
                format!("opm: ./app: its interpreter \"{missing}\" does not exist ({advice})\n");
            assert_eq!((ran.code, ran.err.as_str()), (1, line.as_str()));
        }
    }
    for first in ["#!/usr/bin/env -u A perl", "#!/usr/bin/env A=1 perl", "#!", "#!/bin/sh -e", ""] {
        scratch.write("work/app", &format!("{first}\n"));
        defined(&scratch, &["start", "./app"]);
    }
    scratch.write("work/job.sh", "#!/bin/bash -e\nset -u\n");
    defined(&scratch, &["start", "job.sh"]);
    scratch.write("work/job.sh", "#!/bin/bash\r\nset -u\r\n");
    assert!(scratch.run(&["start", "job.sh"]).err.contains("CRLF"));
}

#[test]
fn restart_with_update_env_sends_the_environment_of_now() {
    let scratch = Scratch::new();
    scratch.write("srv/.env", "A=1\nA=2\n");
    let cwd = scratch.root.join("srv").display().to_string();
    let requests = scratch.daemon(move |request| match request {
        Request::Info { target } if target == "web" => {
            let row = row(0, "web", Status::Online);
            vec![Reply::Info(vec![info(Row { cwd: cwd.clone(), ..row })])]
        }
        Request::Info { target } => no_such(target),
        _ => done(vec![]),
    });
    assert_eq!(scratch.run(&["restart", "nope,web", "--update-env"]).code, 0);
    let mut kinds = Vec::new();
    for request in requests.try_iter() {
        kinds.push(match request {
            Request::Info { target } => target,
            Request::Restart { target } => format!("restart {target}"),
            Request::Update { services, env } => {
                let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
                assert_eq!(services, [("web".to_owned(), vec![pair("A", "2")])]);
                assert_eq!(env, [pair("PATH", "/usr/bin:/bin")]);
                "update".to_owned()
            }
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(kinds, ["nope", "web", "update", "restart nope,web"]);
}
