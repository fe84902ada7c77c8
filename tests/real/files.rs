//! Process files of others, as people have them, on the real kernel.
use crate::namespace::isolated;
use crate::rig::{Ran, Rig, finish};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// Writes a file into the directory that commands run in.
fn write(rig: &Rig, name: &str, text: &str) -> PathBuf {
    let path = rig.dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// Says its arguments, directory and some variables, and stays.
const SAY: &str = "const e = process.env;\n\
    console.log(JSON.stringify([process.argv.slice(2), process.cwd(), e.NODE_ENV, e.W_A]));\n\
    setInterval(() => {}, 1e6);\n";

/// The last line that the service wrote, once it is there.
fn said(rig: &Rig, name: &str) -> String {
    let log = rig.home.join(format!("logs/{name}-out.log"));
    rig.until(&format!("{name} speaks"), || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.ends_with('\n').then(|| text.lines().last().unwrap().to_owned())
    })
}

#[test]
fn modules_are_evaluated_by_node_where_they_lie() {
    isolated(here!(), |rig| {
        write(rig, "app/say.js", SAY);
        let dir = rig.dir.join("app").display().to_string();
        let app = "{ name: 'web', script: './say.js', args: 'a \"b c\"',\n\
            env: { NODE_ENV: 'dev', W_A: 1 }, env_production: { NODE_ENV: 'prod' } }";
        for (file, text) in [
            (
                "a.config.js",
                format!("console.log('noise');\nmodule.exports = {{ apps: [{app}] }};"),
            ),
            ("b.config.cjs", format!("module.exports = [{app}];\nsetInterval(() => {{}}, 9999)")),
            ("c.config.mjs", format!("export const apps = [{app}];")),
            ("d.config.mjs", format!("export default async () => ({{ apps: [{app}] }});")),
            ("e.json", format!("[Object.assign({{}}, {app})] // script")),
        ] {
            let file = write(rig, &format!("app/{file}"), &text).display().to_string();
            rig.ok(&["start", &file]);
            assert_eq!(said(rig, "web"), format!(r#"[["a","b c"],"{dir}","dev","1"]"#), "{file}");
            rig.ok(&["restart", &file, "--env", "production"]);
            let expected = format!(r#"[["a","b c"],"{dir}","prod","1"]"#);
            rig.until("the other set", || (said(rig, "web") == expected).then_some(()));
            assert_eq!(rig.ok(&["remove", &file]), "web: removed\n");
            std::fs::remove_file(rig.home.join("logs/web-out.log")).unwrap();
        }
        for (text, reason) in [
            ("module.exports = {\n  apps: [,,}\n};", "line 2: SyntaxError: "),
            ("\n\nnope.apps", "line 3: ReferenceError: nope is not defined"),
            ("module.exports = { apps: [{ script: 'gone.js' }] }", "apps[0]: script: gone.js"),
            ("module.exports = { apps: 3 }", "apps: expected a list, found a number"),
            (
                "module.exports = { apps: [{ script: 'say.js', max_restarts: 'x' }] }",
                "say: max_res",
            ),
        ] {
            write(rig, "app/bad.config.js", text);
            let line = rig.refused(1, &["start", "app/bad.config.js"]);
            assert!(line.contains(&format!("app/bad.config.js: {reason}")), "{line}");
        }
        assert!(rig.rows().is_empty());
        let mut command = rig.command(&["start", "app/a.config.js"]);
        let ran = command.env("PATH", "/nowhere").output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("is for node, which is not in PATH"), "{said}");
    });
}

#[test]
fn to_start_a_file_of_pm2s_again_restarts_and_takes_what_is_new() {
    isolated(here!(), |rig| {
        let file = |args: &str| {
            let text = format!(
                "// two\n[{{name: 'a', script: 'sleep', args: '{args}',}},\n\
                 {{name: 'b', script: 'sleep', args: '1000'}}]"
            );
            write(rig, "apps.json", &text);
        };
        file("1000");
        rig.ok(&["start", "apps.json", "--only", "b"]);
        let old = rig.row("b").pid.unwrap();
        rig.ok(&["start", "apps.json"]);
        assert_eq!((rig.row("a").restarts, rig.row("b").restarts), (0, 1));
        assert_ne!(rig.row("b").pid, Some(old));
        file("2000");
        // What is opm's own word for it changes nothing in silence.
        assert!(rig.refused(1, &["import", "apps.json"]).contains("it differs in command"));
        rig.ok(&["restart", "apps.json", "--only", "a"]);
        assert_eq!((rig.row("a").restarts, rig.row("b").restarts), (1, 1));
        assert_eq!(rig.info("a")["command"], "sleep 2000");
        let unknown = rig.refused(3, &["start", "apps.json", "--only", "a,c"]);
        assert!(unknown.contains("no service 'c' in it"), "{unknown}");
        assert_eq!(rig.ok(&["stop", "apps.json"]).lines().count(), 2);
        assert_eq!(rig.ok(&["remove", "apps.json", "--only", "a"]), "a: removed\n");
        rig.ok(&["restart", "apps.json"]);
        // What was down has been started, and not restarted.
        assert_eq!((rig.row("a").restarts, rig.row("b").restarts), (0, 1));
    });
}

#[test]
fn a_procfile_and_a_configuration_of_supervisords_are_started() {
    isolated(here!(), |rig| {
        write(rig, "Procfile", "web: sleep 1000\nline: echo $PORT > port && sleep 1000\n");
        rig.ok(&["start", "Procfile"]);
        let port = || std::fs::read_to_string(rig.dir.join("port")).ok().filter(|it| it.len() > 4);
        assert_eq!(rig.until("the port", port), "5100\n");
        assert_eq!(rig.ok(&["remove", "all"]).lines().count(), 2);
        let text = "[supervisord]\nnodaemon=true\n[program:x]\ncommand=sh -c \"echo $W > w; \
                    exec sleep 1000\" ; x\nenvironment=W=\"a b\"\nautorestart=true\n";
        write(rig, "etc/x.conf", text);
        rig.ok(&["start", "etc/x.conf"]);
        let word = || std::fs::read_to_string(rig.dir.join("w")).ok().filter(|it| it.len() > 3);
        assert_eq!(rig.until("the word", word), "a b\n");
        assert_eq!(rig.info("x")["policy"]["min_uptime"], "1s");
    });
}

/// The same program, called `pm2`.
fn pm2(rig: &Rig, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    let mut command = rig.command(&words);
    finish(command.arg0("/opt/bin/pm2").spawn().unwrap(), &words)
}

/// A line, its exit code and a part of what it says.
#[track_caller]
fn say(rig: &Rig, line: &str, code: i32, part: &str) {
    let ran = pm2(rig, line);
    assert_eq!(ran.code, Some(code), "pm2 {line}: {ran:?}");
    assert!(ran.out.contains(part) || ran.err.contains(part), "pm2 {line}: {ran:?}");
}

#[test]
fn called_pm2_it_means_what_pm2_means() {
    isolated(here!(), |rig| {
        for (line, code, part) in [
            ("describe api", 1, "no such service"),
            ("restart api", 1, "no such service"),
            ("delete all", 1, "no services"),
            ("stop all", 1, "no services"),
            ("pid api", 0, "\n"),
            ("id api", 0, "[]\n"),
            ("jlist", 0, "[]\n"),
            ("ping", 0, "{ msg: 'pong' }\n"),
            ("install pm2-logrotate", 0, "rotate by themselves"),
            ("set pm2-logrotate:max_size 10M", 0, "rotate"),
            ("deploy production setup", 2, "opm apply"),
            ("trigger api x", 2, "opm signal"),
            ("start sleep --name api --kill-timeout 900 -x -- 1000", 0, "api: online"),
            ("jlist", 0, r#""status":"online""#),
            ("jlist", 0, r#""name":"api""#),
            ("prettylist", 0, "restart_time: 0,"),
            ("id api", 0, "[ 0 ]\n"),
            ("start api", 0, "api: "),
            ("prettylist", 0, "restart_time: 1,"),
            ("stop api", 0, "api: stopped"),
            ("describe api", 0, "stopped"),
            ("pid api", 0, "0\n"),
            ("restart api", 0, "api: online"),
            ("prettylist", 0, "restart_time: 1,"),
            ("sendSignal SIGCONT api", 0, "sent signal CONT"),
            ("start sleep --name api-1 -- 1001", 0, "online"),
            ("start sleep --name api-2 -- 1002", 0, "online"),
            ("stop /api-[1,2]/", 0, "api-2: stopped"),
            ("reset all", 0, "api: counters are 0"),
            ("startOrRestart api", 0, "api: online"),
            ("reload api --update-env", 0, "api: ready"),
            ("save", 0, ""),
            ("update", 0, ""),
            ("delete all", 0, "api-2: removed"),
            ("save", 0, "that was saved stays"),
            ("kill", 0, "daemon stopped"),
            ("resurrect", 0, "restored 1"),
        ] {
            say(rig, line, code, part);
        }
        assert_eq!(rig.info("api")["policy"]["stop_timeout"], "900ms");
        assert_eq!(rig.info("api")["policy"]["stop_signal"], "INT");
        let list = pm2(rig, "list").out;
        let row = list.lines().find(|line| line.contains(" api ")).unwrap();
        assert!(row.starts_with("│ 0") && row.contains("│ online"), "{list}");
        let script = write(rig, "once.sh", "sleep 1000\n").display().to_string();
        say(rig, &format!("start {script}"), 0, "once: online");
        say(rig, &format!("start {script}"), 1, "the name is taken");
        say(rig, &format!("start {script} -f"), 0, "once-1: online");
        say(rig, "stop once.sh", 0, "once-1: stopped");
        // What is down is started, and takes what is new.
        say(rig, &format!("start {script} --max-memory-restart 90M"), 0, "once: online");
        assert_eq!(rig.info("once")["policy"]["max_memory"], "90M");
        let many = format!("start {script} --name many -i 2");
        for _ in 0..2 {
            say(rig, &many, 0, "many-1: online");
            say(rig, &many, 1, "the name is taken");
            say(rig, "stop many", 0, "many-1: stopped");
        }
    });
}

#[test]
fn what_is_exported_is_imported_and_apply_touches_what_differs() {
    isolated(here!(), |rig| {
        rig.ok(&["start", "--name", "a", "--env", "X=1", "--min-uptime", "3s", "--", "sleep", "1"]);
        rig.ok(&["start", "--name", "b", "--restart", "never", "--", "sleep", "1000"]);
        rig.ok(&["adjust", "a", "--command", "sleep 1000"]);
        rig.ok(&["restart", "a"]);
        rig.ok(&["export", "a", "b", "x.json"]);
        let text = std::fs::read_to_string(rig.dir.join("x.json")).unwrap();
        assert_eq!(rig.ok(&["apply", "--dry-run", "x.json"]), "", "{text}");
        assert_eq!(rig.ok(&["apply", "x.json", "--prune"]), "");
        rig.ok(&["remove", "all"]);
        rig.ok(&["import", "x.json"]);
        assert_eq!(rig.ok(&["export", "all"]), text);
        let old = (rig.row("a").pid, rig.row("b").pid);
        write(rig, "x.json", &text.replace("1000", "2000").replacen("2000", "1000", 1));
        let ran = rig.opm(&["apply", "x.json", "--dry-run"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), "b: command\n"));
        assert_eq!((rig.row("a").pid, rig.row("b").pid), old);
        rig.ok(&["apply", "x.json"]);
        assert_eq!(rig.row("a").pid, old.0);
        assert_ne!(rig.row("b").pid, old.1);
        // What is wrong is found before anything is said or goes.
        for (fields, reason) in [
            ("command: 'sleep 1', depends_on: 'nope'", "no such service: nope"),
            ("command: '/nope'", "no such program"),
        ] {
            write(rig, "y.json", &format!("{{services: [{{name: 'c', {fields}}}]}}"));
            for more in ["--prune", "--dry-run"] {
                let line = rig.refused(1, &["apply", "y.json", more]);
                assert!(line.contains("y.json: c: ") && line.contains(reason), "{line}");
            }
        }
        assert_eq!(rig.rows().len(), 2);
        write(rig, "y.json", "{services: [{name: 'c', command: 'sleep 1'}]}");
        rig.ok(&["start", "--name", "d", "--", "sleep", "1000"]);
        let said = rig.ok(&["apply", "y.json", "--prune"]);
        assert!(said.starts_with("c: new\na: not in the file\n"), "{said}");
        assert_eq!(rig.rows().len(), 1);
        // Of a group's number the file has the last word; of what it does not name, nobody.
        let group = |count: &str| {
            let fields = format!("name: 'w', command: 'sleep 1000', instances: {count}");
            write(rig, "w.json", &format!("{{services: [{{{fields}}}]}}"));
        };
        group("3");
        rig.ok(&["apply", "w.json"]);
        let kept = rig.row("w-1").pid;
        group("2");
        assert_eq!(rig.ok(&["apply", "w.json"]), "w-2: not in the file\nw-2: removed\n");
        assert_eq!((rig.rows().len(), rig.row("w-1").pid), (3, kept));
        group("1");
        rig.ok(&["apply", "w.json"]);
        let mut names: Vec<String> = rig.rows().into_iter().map(|row| row.name).collect();
        names.sort();
        assert_eq!(names, ["c", "w"]);
    });
}

/// Programs that only wait, whatever they are called: lines of all kinds cost no interpreter.
fn stand_ins(rig: &Rig, names: &[&str]) -> String {
    for name in names {
        let path = write(rig, &format!("bin/{name}"), "#!/bin/sh\nexec sleep 1000\n");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).unwrap();
    }
    format!("{}:/usr/bin:/bin", rig.dir.join("bin").display())
}

#[test]
fn lines_that_people_type_define_what_they_mean() {
    isolated(here!(), |rig| {
        let path = stand_ins(rig, &["node", "npm", "yarn", "uvicorn", "python3", "main"]);
        for file in ["server.js", "worker.py", "node_modules/next/dist/bin/next"] {
            write(rig, file, "");
        }
        let run = |line: &str| {
            let words = opm::process::shell::split(line).unwrap();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let mut command = rig.command(&words);
            let ran = finish(command.arg0("pm2").env("PATH", &path).spawn().unwrap(), &words);
            assert_eq!(ran.code, Some(0), "pm2 {line}: {ran:?}");
            ran.out
        };
        for (line, name, command) in [
            ("start server.js --name api --time", "api", "node server.js"),
            ("start --name front server.js -- --port 80", "front", "node server.js --port 80"),
            ("start npm --name web -- run start", "web", "npm run start"),
            ("start yarn --name shop -- start -p 3000", "shop", "yarn start -p 3000"),
            (
                "start 'uvicorn main:app --port 8001' --name up",
                "up",
                "uvicorn main:app --port 8001",
            ),
            ("start \"npm run dev\" --name dev", "dev", "npm run dev"),
            ("start worker.py --interpreter python3 --name q", "q", "python3 worker.py"),
            ("start bash --name job -- -lc 'cd / && sleep 9'", "job", "bash -lc 'cd / && sleep 9'"),
            ("start bin/main --name svc", "svc", "bin/main"),
            ("start server.js --name b -c '0 2 * * *' --no-autorestart", "b", "node server.js"),
            ("start server.js --name many -i 2", "many-1", "node server.js"),
        ] {
            run(line);
            assert_eq!(rig.info(name)["command"], command, "{line}");
        }
        assert_eq!(rig.info("b")["policy"]["restart"], "never");
        // What is to say that it is ready is waited for.
        run("start bash --name late --ready fd:3 -- -c 'sleep 0.3; echo >&3; exec sleep 1000'");
        assert_eq!(rig.info("late")["ready"], true);
        let old = rig.row("api").pid;
        run("restart api --max-memory-restart 200M --node-args='-r dotenv/config'");
        assert_ne!(rig.row("api").pid, old);
        assert_eq!(rig.info("api")["command"], "node -r dotenv/config server.js");
        assert_eq!(rig.info("api")["policy"]["max_memory"], "200M");
        run("start server.js -n many -f");
        assert_eq!(rig.row("many-2").restarts, 0);
        run("restart web --name site --update-env");
        assert_eq!(rig.info("site")["command"], "npm run start");
        run("reload svc --env production --kill-timeout 900");
        assert_eq!(rig.info("svc")["policy"]["stop_timeout"], "900ms");
        let list: serde_json::Value = serde_json::from_str(&run("jlist")).unwrap();
        let list = list.as_array().unwrap();
        let of = |name: &'static str| list.iter().filter(move |it| it["name"] == name);
        let many: Vec<_> = of("many").map(|it| &it["pm2_env"]["NODE_APP_INSTANCE"]).collect();
        assert_eq!(many, [0, 1, 2]);
        assert!(of("many").all(|it| it["pm2_env"]["exec_mode"] == "cluster_mode"));
        let api = &of("api").next().unwrap()["pm2_env"];
        let script = rig.dir.join("server.js").display().to_string();
        assert_eq!(
            (api["pm_exec_path"].as_str(), &api["exec_mode"]),
            (Some(&*script), &"fork_mode".into())
        );
        assert_eq!(api["node_args"], serde_json::json!(["-r", "dotenv/config"]));
        assert_eq!(of("job").next().unwrap()["pm2_env"]["exec_interpreter"], "none");
        assert!(run("logs api --lines 50 --nostream").is_empty());
        run("start server.js --name deep -o logs/a/out.log");
        let log = rig.dir.join("logs/a/out.log");
        rig.until("its log is there", || log.is_file().then_some(()));
        assert!(run("describe site").contains("│ status"));
        run("save");
    });
}

#[test]
fn what_pm2_saved_is_taken_over_and_nothing_that_it_still_runs() {
    isolated(here!(), |rig| {
        write(rig, "app/server.js", SAY);
        let (app, pm2) = (rig.dir.join("app"), rig.dir.join(".pm2"));
        let entry = |name: &str, status: &str, logs: &str| {
            serde_json::json!({
                "name": name, "status": status, "pm_id": 0, "namespace": "default",
                "pm_exec_path": app.join("server.js"), "pm_cwd": &app, "args": ["a b"],
                "exec_interpreter": "node", "node_args": [], "exec_mode": "fork_mode",
                "autorestart": true, "kill_timeout": 900, "instances": 1, "vizion": {},
                "pm_out_log_path": format!("{logs}/{name}-out.log"), "unique_id": "x",
                "env": { "W_A": "1", "NODE_ENV": "prod", "PM2_USAGE": "CLI", "web": {} },
            })
        };
        let own = pm2.join("logs").display().to_string();
        let list = [
            entry("web", "online", &own),
            entry("many", "online", &own),
            entry("many", "online", &own),
            entry("off", "stopped", &own),
        ];
        let migrate = |more: &[&str]| {
            let words = [&["migrate", "pm2"], more].concat();
            finish(rig.command(&words).env("HOME", &rig.dir).spawn().unwrap(), &words)
        };
        let gone = migrate(&[]);
        assert!(gone.code == Some(1) && gone.err.contains("dump.pm2: "), "{gone:?}");
        write(rig, ".pm2/dump.pm2", "{}");
        assert!(migrate(&[]).err.contains("is no list that PM2 saved"));
        write(rig, ".pm2/dump.pm2", &serde_json::to_string(&list).unwrap());
        let shown = migrate(&["--dry-run"]);
        assert_eq!((shown.code, shown.out.lines().count()), (Some(0), 4), "{shown:?}");
        assert!(shown.err.is_empty() && shown.out.ends_with(" (stopped)\n"), "{shown:?}");
        // What PM2 itself is called by.
        let mut daemon = std::process::Command::new("sh");
        let daemon = daemon.args(["-c", "read x; : PM2"]).stdin(std::process::Stdio::piped());
        let mut daemon = daemon.spawn().unwrap();
        // Whoever makes a process goes on a little before its words can be read.
        let words = format!("/proc/{}/cmdline", daemon.id());
        rig.until("its words", || {
            std::fs::read_to_string(&words).ok()?.contains("PM2").then_some(())
        });
        write(rig, ".pm2/pm2.pid", &daemon.id().to_string());
        let refused = migrate(&[]);
        assert_eq!(refused.code, Some(5), "{refused:?}");
        assert!(refused.err.contains("PM2 runs them still") && rig.rows().is_empty());
        drop(daemon.stdin.take());
        daemon.wait().unwrap();
        let done = migrate(&[]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let names: Vec<String> = rig.rows().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["web", "many-0", "many-1", "off"]);
        assert!(done.out.ends_with("off: stopped\n"), "{done:?}");
        assert_eq!((rig.row("off").status, rig.row("off").generation), ("stopped".to_owned(), 0));
        // Nor does it come up with the next daemon; and it may be asked for again.
        rig.kill_daemon();
        assert_eq!(rig.row("off").status, "stopped");
        let again = migrate(&[]);
        assert!(
            again.code == Some(0) && again.out.ends_with("off: is there already\n"),
            "{again:?}"
        );
        rig.ok(&["start", "off"]);
        rig.row("off").pid.unwrap();
        assert_eq!(said(rig, "web"), format!(r#"[["a b"],"{}","prod","1"]"#, app.display()));
        assert_eq!(rig.info("web")["policy"]["stop_timeout"], "900ms");
        assert!(!rig.ok(&["env", "web"]).contains("PM2_USAGE"));
    });
}

#[test]
fn a_namespace_is_a_target_and_filtered_variables_do_not_arrive() {
    isolated(here!(), |rig| {
        for (name, more) in [("a", "blue"), ("b", "blue"), ("blue2", "green")] {
            let words = ["start", "--name", name, "--namespace", more, "--", "sleep", "1000"];
            rig.ok(&words);
        }
        assert!(rig.refused(2, &["adjust", "a", "--namespace", "x/y"]).contains("namespace: "));
        assert_eq!(rig.ok(&["stop", "blue"]).lines().count(), 2);
        assert_eq!(rig.row("blue2").status, "online");
        rig.ok(&["start", "blue,green"]);
        assert!(rig.ok(&["jlist"]).contains(r#""namespace":"blue""#));
        // A name comes first.
        rig.ok(&["start", "--name", "green", "--", "sleep", "1000"]);
        assert_eq!(rig.ok(&["stop", "green"]), "green: stopped\n");
        let words = ["start", "--name", "few", "--filter-env", "W_*", "--", "sleep", "1000"];
        let ran = finish(rig.command(&words).env("W_X", "1").spawn().unwrap(), &words);
        assert_eq!(ran.code, Some(0));
        let pid = rig.row("few").pid.unwrap();
        let has = |pid: i32| {
            let text = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
            String::from_utf8_lossy(&text).contains("W_X=1")
        };
        assert!(!has(pid) && !rig.ok(&["env", "few"]).contains("W_X"));
        let app = r#"[{"name": "pm", "script": "sleep", "args": "1000", "filter_env": ["X"]}]"#;
        write(rig, "p.json", app);
        let words = ["start", "p.json"];
        finish(rig.command(&words).env("W_X", "1").spawn().unwrap(), &words);
        assert!(!has(rig.row("pm").pid.unwrap()));
    });
}
