//! Every key, every wrong type, and what isn't a process file at all.
use super::*;
use crate::process::command::default_name;
use crate::service::options::OPTIONS;
use crate::service::signal::Signal;
use crate::service::spec::{Forgiven, Policy, Restart, StopReach};
use crate::service::units::{Delay, Span};

/// As `label`, in a directory that is not there, where every script is node's.
fn read_as(label: &str, text: &[u8], env: Option<&str>) -> Result<ProcessFile, String> {
    let program: Program<'_> = &|script, interpreter, _, _| match script {
        "gone.js" => Err("no such file".to_owned()),
        line if line.contains('|') => Ok(["/bin/sh", "-c", line].map(str::to_owned).into()),
        script => {
            let node = interpreter.is_none().then_some("node");
            Ok(node.into_iter().chain([script]).map(str::to_owned).collect())
        }
    };
    let source = Source {
        label,
        directory: Path::new("/srv/app"),
        caller: Path::new("/caller"),
        naming: &|words, _| default_name(words),
        program,
        variable: &|name| (name == "HOME").then(|| "/root".to_owned()),
        host: "box",
        env,
    };
    parse(text, &source)
}

fn read(text: &str) -> Result<ProcessFile, String> {
    read_as("f.json", text.as_bytes(), None)
}

fn one(fields: &str) -> Result<Spec, String> {
    let text = format!(r#"{{"services": [{{"name": "web", "command": "x", {fields}}}]}}"#);
    read(&text).map(|file| file.specs.into_iter().next().unwrap())
}

#[test]
fn every_key_is_read() {
    let spec = one(r#""cwd": "sub", "env": {"A": "1", "B": 2, "C": true, "D": 1.5},
        "restart": "on-failure", "max_restarts": 3, "min_uptime": "1s",
        "restart_delay": "1s..1m", "stop_signal": "INT", "stop_reach": "leader",
        "stop_timeout": "250ms", "critical": true"#)
    .unwrap();
    assert_eq!(spec.cwd.as_str(), "/srv/app/sub");
    let env = [("A", "1"), ("B", "2"), ("C", "true"), ("D", "1.5")];
    assert_eq!(spec.env, env.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let policy = Policy {
        restart: Restart::OnFailure,
        max_restarts: Forgiven(3),
        min_uptime: Span::secs(1),
        restart_delay: Delay { min_ms: 1_000, max_ms: 60_000 },
        stop_signal: Signal::INT,
        stop_reach: StopReach::Leader,
        stop_timeout: Span { ms: 250 },
        critical: true,
        ..Policy::default()
    };
    assert_eq!(*spec.policy, policy);
}

#[test]
fn the_directory_is_the_files_unless_it_says_another() {
    assert_eq!(one(r#""cwd": ".""#).unwrap().cwd.as_str(), "/srv/app");
    assert_eq!(one(r#""cwd": "/tmp//x/""#).unwrap().cwd.as_str(), "/tmp/x");
    assert_eq!(one(r#""cwd": "../b""#).unwrap().cwd.as_str(), "/srv/app/../b");
    let bare = read(r#"{"services": [{"command": "x"}]}"#).unwrap();
    assert_eq!((bare.specs[0].cwd.as_str(), bare.specs[0].name.as_str()), ("/srv/app", "x"));
}

#[test]
fn a_command_is_words_or_a_line_and_only_shell_syntax_needs_a_shell() {
    let words = |command: &str| {
        read(&format!(r#"{{"services": [{{"name": "web", "command": {command}}}]}}"#))
            .map(|file| file.specs[0].command.clone())
    };
    assert_eq!(words(r#"["a b", "$c"]"#).unwrap(), ["a b", "$c"]);
    assert_eq!(words(r#""node 'a b'""#).unwrap(), ["node", "a b"]);
    assert_eq!(words(r#""a && b""#).unwrap(), ["/bin/sh", "-c", "a && b"]);
    for bad in [r#""""#, "[]", r#"[""]"#, "3", "null", r#"["a", 1]"#, r#""'""#] {
        let error = words(bad).unwrap_err();
        assert!(error.starts_with("f.json: web: command: "), "{bad}: {error}");
    }
}

#[test]
fn a_wrong_type_names_file_service_and_key() {
    for (fields, key, reason) in [
        (r#""cwd": 3"#, "cwd", "expected a string, found a number"),
        (r#""env": []"#, "env", "expected an object, found a list"),
        (r#""env": {"A": null}"#, "env.A", "expected a string, a number or a boolean, found null"),
        (r#""restart": true"#, "restart", "expected a string, found a boolean"),
        (r#""stop-reach": "tree""#, "stop-reach", "write stop_reach"),
    ] {
        assert_eq!(one(fields).unwrap_err(), format!("f.json: web: {key}: {reason}"));
    }
}

#[test]
fn an_unknown_key_is_a_warning_and_nothing_else() {
    let file = read(r#"{"x": 1, "services": [{"name": "web", "command": "x", "comment": 1}]}"#);
    let file = file.unwrap();
    let warnings = ["f.json: web: unknown key 'comment'", "f.json: unknown key 'x'"];
    assert_eq!(file.warnings, warnings);
    assert_eq!(file.specs.len(), 1);
}

#[test]
fn what_would_have_kept_it_safe_is_no_warning() {
    for (key, instead) in [
        ("no-autorestart", "write restart, as never"),
        ("exp_backoff", "write restart_delay, as 100ms..15s"),
        ("force", "it is an option of opm start and import"),
    ] {
        let error = one(&format!(r#""{key}": "x""#)).unwrap_err();
        assert_eq!(error, format!("f.json: web: {key}: no key of a file ({instead})"));
    }
    // No key may be on the list that is read.
    for key in OWN_KEYS.into_iter().chain(OPTIONS.iter().map(|opt| opt.key)) {
        assert!(!NO_KEYS.iter().any(|(option, _)| *option == key), "{key}");
    }
}

#[test]
fn a_key_twice_is_an_error_wherever_it_is() {
    for text in [
        r#"{"services": [], "services": []}"#,
        r#"{"services": [{"command": "x", "cwd": "/a", "cwd": "/b"}]}"#,
        r#"{"services": [{"command": "x", "env": {"A": 1, "A": 1}}]}"#,
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with("f.json: the key '") && error.contains("twice"), "{error}");
    }
}

#[test]
fn a_service_without_a_name_is_named_by_its_words() {
    let text = r#"{"services": [{"command": "npm start", "cwd": "web"}]}"#;
    assert_eq!(read(text).unwrap().specs[0].name, "npm");
}

#[test]
fn a_name_twice_or_a_bad_one_is_an_error() {
    let both = r#"{"name": "a", "command": "x"}, {"name": "a", "command": "y"}"#;
    let twice = format!(r#"{{"services": [{both}]}}"#);
    assert_eq!(read(&twice).unwrap_err(), "f.json: a: the name is there twice");
    for name in ["", "a/b", "all", "7", "-x", ".x", "a,b", "a\\nb", &"x".repeat(65)] {
        let text = format!(r#"{{"services": [{{"name": "{name}", "command": "x"}}]}}"#);
        let error = read(&text).unwrap_err();
        assert!(error.starts_with("f.json: ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn whatever_is_not_a_process_file_is_one_line() {
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"services\": {}", "{\"a\":".repeat(100_000));
    for text in [
        "",
        "[3]",
        "{}",
        "null",
        "3",
        "nonsense",
        "{\"services\": {}}",
        "{\"services\": [3]}",
        "{\"services\": [{}]",
        "{\"services\": 1e999}",
        "{\"apps\": 3}",
        "{\"apps\": [{}]}",
        &deep,
        &nested,
    ] {
        let error = read(text).unwrap_err();
        assert!(error.starts_with("f.json: ") && !error.contains('\n'), "{error}");
        assert!(error.len() < 200, "{error}");
    }
    let error = read_as("f.json", b"{\"\xff\": 1}", None).unwrap_err();
    assert_eq!(error, "f.json: not UTF-8 text");
    assert_eq!(read("{\"services\": []}").unwrap(), ProcessFile::default());
}

/// A file that is damaged anywhere is read or refused in one line; a generator with a fixed
/// seed, so that a failure comes again.
#[test]
fn damage_anywhere_is_one_line_and_no_panic() {
    let whole = r#"{"services": [{"name": "web", "command": "node 'a b'", "cwd": "sub",
        "env": {"A": 1}, "restart_delay": "1s..1m", "max_restarts": 3, "stop_signal": 9}]}"#;
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).unwrap()
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut text = whole.as_bytes().to_vec();
        for _ in 0..1 + random() % 3 {
            let at = random() % text.len();
            match random() % 3 {
                0 => text[at] = u8::try_from(random() % 256).unwrap(),
                1 => drop(text.remove(at)),
                _ => text.truncate(at.max(3)),
            }
        }
        if let Err(error) = read_as("f.json", &text, None) {
            assert!(error.starts_with("f.json: ") && !error.contains('\n'), "{error:?}");
            refused += 1;
        }
    }
    assert!(refused > 10_000, "the damage is too small to prove anything: {refused}");
}

/// Names, commands, directories and what was said, of a file of PM2's.
fn apps(text: &str) -> Vec<Spec> {
    let file = read(text).unwrap();
    assert!(file.is_pm2 && file.warnings.is_empty(), "{:?}", file.warnings);
    file.specs
}

fn app(fields: &str) -> Spec {
    apps(&format!("{{apps: [{{name: 'web', script: 'a.js', {fields}}}]}}")).remove(0)
}

#[test]
fn pm2s_apps_are_a_list_an_object_or_under_apps() {
    for text in [
        "{'apps': [{script: 'a.js'}], deploy: {}}",
        "{apps: {script: 'a.js'}}",
        "[{cmd: 'a.js',}]",
        "{script: 'a.js'} // the only one",
    ] {
        let spec = apps(text).remove(0);
        assert_eq!((&spec.name[..], &spec.cwd[..]), ("a", "/srv/app"), "{text}");
        assert_eq!(spec.command, ["node", "a.js"]);
        let Policy { stop_signal, stop_timeout, max_restarts, min_uptime, .. } = *spec.policy;
        assert_eq!((stop_signal, stop_timeout.ms), (Signal::INT, 1_600));
        assert_eq!((max_restarts, min_uptime.ms), (Forgiven(16), 1_000));
    }
}

#[test]
fn pm2s_numbers_are_milliseconds_and_may_be_in_quotes() {
    let spec =
        app("kill_timeout: 3000, min_uptime: '200s', restart_delay: '4000', max_restarts: '5'");
    assert_eq!((spec.policy.stop_timeout.ms, spec.policy.min_uptime.ms), (3_000, 200_000));
    assert_eq!(spec.policy.restart_delay, Delay { min_ms: 4_000, max_ms: 4_000 });
    assert_eq!(spec.policy.max_restarts, Forgiven(5));
    let spec = app("autorestart: false, exp_backoff_restart_delay: 100, maxRestarts: 4");
    assert_eq!((spec.policy.restart, spec.policy.max_restarts), (Restart::Never, Forgiven(4)));
    assert_eq!(spec.policy.restart_delay, Delay { min_ms: 100, max_ms: 15_000 });
    let error = read("[{name: 'web', script: 'a.js', kill_timeout: '5 s'}]").unwrap_err();
    assert!(error.starts_with("f.json: web: kill_timeout: \"5 s\": bad duration"), "{error}");
}

#[test]
fn pm2s_command_is_interpreter_options_script_and_args() {
    for (fields, words) in [
        ("args: 'run \"two words\" $HOME *.js'", "node a.js run 'two words' '$HOME' '*.js'"),
        ("args: ['a b', '', 3]", "node a.js 'a b' '' 3"),
        ("node_args: '--harmony -r x'", "node --harmony -r x a.js"),
        ("interpreter: 'python3', interpreterArgs: ['-u'], args: []", "python3 -u a.js"),
        ("exec_interpreter: 'none', args: 'x'", "a.js x"),
    ] {
        assert_eq!(app(fields).command_line(), words);
    }
    for gone in ["", ", interpreter: 'python3'"] {
        let error = read(&format!("[{{name: 'web', script: 'gone.js'{gone}}}]")).unwrap_err();
        assert_eq!(error, "f.json: web: script: no such file");
    }
    let line = apps("[{script: 'a | b', args: 'c d'}]").remove(0);
    assert_eq!(line.command, ["/bin/sh", "-c", "a | b c d"]);
}

#[test]
fn a_script_behind_an_interpreter_is_looked_for() {
    let own = |rest: &str| read(&format!("{{services: [{{name: 'web', {rest}}}]}}"));
    for gone in ["'gone.js'", "['gone.js']"] {
        let error = own(&format!("command: {gone}, interpreter: 'python3'")).unwrap_err();
        assert_eq!(error, "f.json: web: command: no such file");
    }
    // What has arguments is exec'd as given.
    let given =
        own("command: 'gone.js x', interpreter: 'python3', interpreter_args: '-u'").unwrap();
    assert_eq!(given.specs[0].command_line(), "python3 -u gone.js x");
}

#[test]
fn of_pm2s_logs_the_third_has_what_the_others_leave() {
    let logs = |fields: &str| {
        let log = app(fields).log;
        [&log.log_out, &log.log_error].map(|it| it.clone().unwrap_or_default()).join(" ")
    };
    for (fields, files) in [
        ("log_file: 'all'", "all all"),
        ("log_file: 'all', out_file: 'out'", "out all"),
        ("log_file: 'all', out_file: 'NULL', error_file: '/dev/null'", "all all"),
        ("out_file: 'NULL'", "/dev/null "),
    ] {
        assert_eq!(logs(fields), files, "{fields}");
    }
    let log = app("disable_logs: true, log_type: 'json'").log;
    assert!(log.no_logs);
    assert_eq!(log.log_format, options::LogFormat::Json);
}

#[test]
fn a_word_is_a_boolean_also_where_it_could_be_a_path() {
    for (word, watched) in [("'true'", "[.]"), ("'false'", "[]"), ("'src'", "[src]")] {
        let spec = app(&format!("watch: {word}"));
        let paths: Vec<&str> = spec.care.watch.iter().map(|path| &*path.0).collect();
        assert_eq!(format!("[{}]", paths.join(",")), watched);
    }
}

#[test]
fn pm2s_cluster_shares_the_port_that_is_named_also_where_only_instances_say_so() {
    for (fields, port) in [
        ("instances: 'max', exec_mode: 'cluster', env: {PORT: 80}", Some("80")),
        ("instances: 2, env: {PORT: 80}, merge_logs: true", Some("80")),
        ("instances: 2, env: {PORT: 80}, exec_mode: 'fork'", None),
        ("instances: 2, env: {PORT: 80}, interpreter: 'python3'", None),
        ("instances: 1, exec_mode: 'cluster'", None),
        ("instances: 1, env: {PORT: 80}", None),
    ] {
        let spec = app(fields);
        let held = spec.held.listen.first().map(ToString::to_string);
        assert_eq!((held.as_deref(), spec.log.merge_logs), (port, false), "{fields}");
    }
    for fields in ["instances: -1, exec_mode: 'cluster_mode'", "instances: '2'"] {
        let file = read(&format!("[{{name: 'web', script: 'a.js', {fields}}}]")).unwrap();
        assert_eq!(file.warnings, [format!("f.json: web: exec_mode: {}", pm2::SHARE)]);
    }
}

#[test]
fn pm2s_environments_are_laid_over_each_other() {
    let text = "[{name: 'web', script: 'a.js', port: 80, append_env_to_name: true,
        env: {N: 1, B: true, S: '', L: [1], BOTH: 'env', GONE: null, OPM_MARK: 'x'},
        env_production: {BOTH: 'production'}, env_dev: {BOTH: 'dev'}}]";
    let named = |env: &[(String, String)]| {
        env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
    };
    let plain = read(text).unwrap();
    assert_eq!(named(&plain.specs[0].env), "PORT=80 B=true BOTH=env L=[1] N=1 S=");
    assert_eq!(plain.warnings, ["f.json: web: env.GONE is null, and left out"]);
    let only = read("[{name: 'web', script: 'a.js', env_dev: {A: 1}}]").unwrap();
    assert_eq!(only.warnings, ["f.json: web: env_dev is left out (--env dev takes it)"]);
    let production = read_as("f.json", text.as_bytes(), Some("production")).unwrap();
    assert_eq!(production.specs[0].name, "web-production");
    assert!(named(&production.specs[0].env).ends_with("BOTH=production"));
    let other = read_as("f.json", text.as_bytes(), Some("other")).unwrap();
    assert_eq!(other.warnings[0], "f.json: web: has no env_other");
}

#[test]
fn what_pm2_takes_and_means_nothing_here_is_said_once() {
    let text = "[{name: 'a/b', script: 'a.js', pre_start: 'x', treekill: false, version: '1',
        vizion: false, pmx: true, source_map_support: true, watch: false, pid_file: 'a.pid'}]";
    let file = read(text).unwrap();
    let warnings = [
        "f.json: a/b: is called a-b here",
        "f.json: a-b: treekill: what it started ends with it, always",
        "f.json: a-b: 'pid_file' does nothing here",
        "f.json: a-b: 'pre_start' does nothing here",
    ];
    assert_eq!(file.warnings, warnings);
    assert_eq!(read("[{name: 'x', script: 'a'}, {name: 'x', script: 'b'}]").unwrap_err(), TWICE);
}

const TWICE: &str = "f.json: x: the name is there twice";

#[test]
fn a_procfile_is_a_service_a_line_with_a_port_each() {
    let text = "# a comment\n\nweb: node a.js\r\nrelease: ./migrate\nno_space:x 'a b'\n  in: y\n\
        env: A=1 x $PORT\nbad line\nempty:\n";
    let file = read_as("dir/Procfile.dev", text.as_bytes(), None).unwrap();
    let shown: Vec<String> = file
        .specs
        .iter()
        .map(|spec| format!("{} {} {}", spec.name, spec.env[0].1, spec.command_line()))
        .collect();
    let expected =
        ["web 5000 node a.js", "no_space 5200 x 'a b'", "env 5300 /bin/sh -c 'A=1 x $PORT'"];
    assert_eq!(shown, expected);
    let lines: Vec<&str> = file.warnings.iter().map(|line| &line[18..24]).collect();
    assert_eq!(lines, ["line 4", "line 6", "line 8", "line 9"]);
}

#[test]
fn supervisords_programs_are_services_in_the_order_of_their_priority() {
    let text = "[supervisord]\nnodaemon=true ; yes\nenvironment=ALL=\"a, b\",TWICE=outer\n\
        [unix_http_server]\nfile=/x\n\
        [program: late]\ncommand = run --host %(host_node_name)s 100%%\n\
        environment=\n    TWICE='inner',\n    HERE=%(here)s/%(ENV_HOME)s\n\
        stdout_logfile=/dev/stdout\nredirect_stderr=True\nstderr_logfile=/x\n\
        [program:early]\ncommand=sh -c \"a && b\" $X\npriority=5\ndirectory=sub\n\
        autorestart=false\n\
        startsecs=0\nstopwaitsecs=60\nstopsignal=QUIT\nunmask=022\n[eventlistener:x]\ncommand=y\n";
    let file = read_as("supervisord.conf", text.as_bytes(), None).unwrap();
    let [early, late] = &file.specs[..] else { panic!("{file:?}") };
    assert_eq!(early.command, ["sh", "-c", "a && b", "$X"]);
    assert_eq!((&early.cwd[..], &late.cwd[..]), ("/caller/sub", "/caller"));
    assert_eq!((early.policy.restart, late.policy.restart), (Restart::Never, Restart::OnFailure));
    assert_eq!((early.policy.min_uptime.ms, early.policy.stop_timeout.ms), (0, 60_000));
    assert_eq!(late.command, ["run", "--host", "box", "100%"]);
    assert_eq!((late.log.merge_logs, &late.log.log_error), (true, &None));
    let env = [("ALL", "a, b"), ("TWICE", "inner"), ("HERE", "/srv/app//root")];
    assert_eq!(late.env, env.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let said = ["early: 'unmask' does nothing here", "eventlistener:x: is left out"];
    assert_eq!(file.warnings, said.map(|text| format!("supervisord.conf: {text}")));
    for bad in ["command=x %(nope)s", "command=", "command=x 5%", "command='x", "x=1"] {
        let text = format!("[program:a]\n{bad}\n");
        let error = read_as("a.conf", text.as_bytes(), None).unwrap_err();
        assert!(error.starts_with("a.conf: a: command: "), "{bad}: {error}");
    }
}
