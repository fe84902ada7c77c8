use super::fuzz::assert_valid_name;
use super::*;

#[track_caller]
fn about(cases: &[(&str, &str)]) {
    for (command, expected) in cases {
        assert_eq!(extract_search_pattern_from_command(command), *expected, "{command}");
    }
}

#[test]
fn extract_search_pattern_from_command_finds_the_jar() {
    about(&[
        ("java -jar App.jar", "App.jar"),
        (
            "/usr/bin/java -Xmx1g -Dx=y.jar -javaagent:/a/agent.jar -jar /opt/app/App.JAR z.py",
            "App.JAR",
        ),
        ("java -cp lib.jar -jar App.war", "App.war"),
        ("java -jar -Xmx1g App.jar x", "App.jar"),
        ("./launch --server /opt/App.jar conf.py", "App.jar"),
        ("sh -c 'exec java -jar /srv/App.jar'", "App.jar"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_prefers_a_jar_to_a_script() {
    about(&[
        ("launcher run.sh App.jar", "App.jar"),
        ("java -jar App.jar && node after.js", "App.jar"),
        ("java -jar /opt/app && node after.js", "app"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_finds_the_main_class() {
    about(&[
        ("java -Xmx1g -cp a:b com.acme.Main", "com.acme.Main"),
        ("java --module-path mods -m app/com.acme.Main", "com.acme.Main"),
        ("java @opts -classpath /x/lib.jar com.acme.Main run.py", "com.acme.Main"),
        ("java -version", "java"),
        ("java -jar", "java"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_finds_scripts_by_extension() {
    about(&[
        ("python /opt/server.py", "server.py"),
        ("node server.js", "server.js"),
        ("./worker.mjs", "worker.mjs"),
        ("/opt/x/app.cjs --port 80", "app.cjs"),
        ("foo bar/main.ts", "main.ts"),
        ("x.rb", "x.rb"),
        ("x.pl", "x.pl"),
        ("x.php", "x.php"),
        ("x.lua", "x.lua"),
        ("bash start.sh", "start.sh"),
        ("pm2-runtime app.js", "app.js"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_falls_back_to_the_program() {
    about(&[
        ("caddy run", "caddy"),
        ("/usr/sbin/nginx -g 'daemon off;'", "nginx"),
        ("npm start", "npm"),
        ("redis-server /etc/redis.conf", "redis-server"),
        ("/opt/my\\ app/the\\ server", "the server"),
        ("'/opt/my app/server' --x", "server"),
        ("sleep 60", "sleep"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_takes_no_configuration_for_the_subject() {
    about(&[
        ("gunicorn -c gunicorn.conf.py app:app", "gunicorn"),
        ("webpack serve --config webpack.config.js", "webpack"),
        ("bundle exec puma -C config/puma.rb", "puma"),
        ("myd --script=/x/y.js", "myd"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_knows_the_flags_of_node() {
    about(&[
        ("node --max-old-space-size=4096 server.js", "server.js"),
        ("node --max-old-space-size 4096 server.js", "server.js"),
        ("node -r dotenv/config server/server.js", "server.js"),
        ("node --import tsx --inspect=0.0.0.0:1 src/main.ts", "main.ts"),
        ("/usr/bin/node18 bin/www", "www"),
        ("node --stack-size 2000 server.js", "server.js"),
        ("node inspect app.js", "app.js"),
        ("node -e 'require(\"x.js\")'", "node"),
        ("node .", "node"),
        ("node", "node"),
        ("node --env-file .env -- app", "app"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_knows_the_flags_of_python() {
    about(&[
        ("python -u -m gunicorn app:app", "gunicorn"),
        ("python3 -m http.server", "http.server"),
        ("python3.11 -um celery -A proj worker", "celery"),
        ("python -mflask run", "flask"),
        ("python -X dev -W ignore manage.py runserver", "manage.py"),
        ("/venv/bin/python3 /opt/daemon --conf x.py", "daemon"),
        ("python -c 'import x'", "python"),
        ("python -", "python"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_knows_other_interpreters() {
    about(&[
        ("ruby -I lib app.rb", "app.rb"),
        ("ruby -rbundler/setup -w bin/server", "server"),
        ("perl -w x.pl", "x.pl"),
        ("perl -Mstrict -Ilib x", "x"),
        ("perl -we 'print 1' y.pl", "perl"),
        ("php -S localhost:80 router.php", "router.php"),
        ("php -S localhost:80 -t public", "php"),
        ("php -f run.php", "run.php"),
        ("php -d a=b artisan serve", "artisan"),
        ("lua -l x -e 'y=1' z.lua", "z.lua"),
        ("deno run -A --config deno.json main.ts", "main.ts"),
        ("deno task start", "deno"),
        ("bun run dev", "bun"),
        ("bun server.ts", "server.ts"),
        ("dotnet exec /app/Api.dll", "Api.dll"),
        ("dotnet run", "dotnet"),
        ("Rscript --vanilla model.R", "model.R"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_looks_through_env() {
    about(&[
        ("env PORT=80 node server.js", "server.js"),
        ("env -i -u HOME A=B -C /srv caddy run", "caddy"),
        ("/usr/bin/env -S node --x y.js", "y.js"),
        ("env -S 'A=b python3 -u' x.py", "x.py"),
        ("env -iS'caddy run'", "caddy"),
        ("env --split-string='caddy run'", "caddy"),
        ("env - caddy", "caddy"),
        ("env -uSHELL caddy", "caddy"),
        ("A=1 B='2 3' caddy run", "caddy"),
        ("env", "env"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_looks_through_wrappers() {
    about(&[
        ("nohup caddy run", "caddy"),
        ("nice -n 5 caddy run", "caddy"),
        ("nice -5 caddy", "caddy"),
        ("ionice -c2 -n 7 caddy", "caddy"),
        ("setsid -w caddy", "caddy"),
        ("stdbuf -oL -e 0 caddy", "caddy"),
        ("timeout 5 caddy", "caddy"),
        ("timeout -s KILL -k 1 5m caddy", "caddy"),
        ("timeout -- 5 caddy", "caddy"),
        ("exec -a x caddy", "caddy"),
        ("sudo -u x caddy", "caddy"),
        ("sudo -nEu x -- A=b caddy", "caddy"),
        ("chrt -f 99 caddy", "caddy"),
        ("taskset -c 0-3 caddy", "caddy"),
        ("time -p caddy", "caddy"),
        ("gosu app:app caddy", "caddy"),
        ("flock -n /run/x.lock caddy", "caddy"),
        ("runuser -u web -- caddy", "caddy"),
        ("runuser -u web caddy", "caddy"),
        ("tini -g -- caddy", "caddy"),
        ("npx -y serve -l 80", "serve"),
        ("npm exec -- serve", "serve"),
        ("uv run main.py", "main.py"),
        ("sudo nice -n 5 env A=b nohup setsid node x.js", "x.js"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_looks_into_lines_for_a_shell() {
    about(&[
        ("sh -c 'node server.js'", "server.js"),
        ("bash -lc \"cd /srv; exec caddy run\"", "caddy"),
        ("/bin/sh -ec 'sh -c \"exec python3 -m http.server\"'", "http.server"),
        ("bash -eo pipefail -c 'caddy run | tee x.log'", "caddy"),
        ("su - web -c 'caddy run'", "caddy"),
        ("su -c 'caddy run' web", "caddy"),
        ("flock /run/x.lock -c 'caddy run'", "caddy"),
        ("eval 'caddy run'", "caddy"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_follows_the_arguments_of_a_line() {
    about(&[
        ("sh -c 'exec \"$@\"' name node x.js", "x.js"),
        ("sh -c '\"$0\" \"$@\"' caddy run", "caddy"),
        ("sh -c '$RUN'", "$RUN"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_is_never_a_bare_shell_beside_anything_else() {
    about(&[
        ("bash -x /srv/run", "run"),
        ("bash; caddy run", "caddy"),
        ("caddy run | sh", "caddy"),
        ("sh -c 'caddy run' sh", "caddy"),
        ("zsh ./start", "start"),
        ("bash --rcfile x -i", "bash"),
        ("-bash", "bash"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_picks_the_main_command_of_a_line() {
    about(&[
        ("cd /srv && node server.js", "server.js"),
        ("node migrate.js && node server.js", "server.js"),
        ("make && ./server", "server"),
        ("./server | ./shipper", "server"),
        ("./server || ./other", "server"),
        ("sh -c 'sleep 9 & wait'", "sleep"),
        ("mkdir -p /run/x; caddy run", "caddy"),
        ("source ./env.sh && caddy run", "caddy"),
        ("while true; do caddy run; sleep 1; done", "caddy"),
        ("if test -f x; then caddy run; fi", "caddy"),
        ("(cd /srv; caddy run) >log 2>&1 &", "caddy"),
        ("caddy run || exit 1", "caddy"),
        ("for f in a.js b.js; do caddy run; done", "caddy"),
        ("\"$(dirname \"$0\")/bin/server\" x", "server"),
        ("$JAVA_HOME/bin/java -jar x.jar", "x.jar"),
        ("caddy run > out.sh", "caddy"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_is_a_base_name() {
    about(&[("/", "/"), ("/opt/app/", "app"), ("python /opt/app/", "app"), ("///x///", "x")]);
}

#[test]
fn extract_search_pattern_from_command_is_empty_only_for_an_empty_command() {
    about(&[("", ""), (" \t\n", ""), ("''", "''"), ("&&", "&&"), ("A=b", "A=b"), ("# x", "#")]);
}

#[test]
fn extract_search_pattern_from_command_tolerates_unclosed_quotes() {
    about(&[
        ("node 'server.js", "server.js"),
        ("node \"/x/server.js", "server.js"),
        ("sh -c 'node server.js", "server.js"),
        ("node server.js\\", "server.js"),
        ("node server.js $(", "server.js"),
    ]);
}

#[test]
fn extract_search_pattern_from_command_takes_other_scripts_of_the_world() {
    about(&[
        ("python /опт/сервер.py", "сервер.py"),
        ("'/日本/サーバー' 走る", "サーバー"),
        ("env -é ü", "ü"),
        ("perl -é x", "x"),
        ("bash -é x", "x"),
    ]);
}

#[test]
fn split_words_follow_the_same_rule_as_a_line() {
    assert_eq!(pattern_of_argv(&["nice", "-n", "5", "node", "/x/my server.js"]), "my server.js");
    assert_eq!(pattern_of_argv(&["/bin/sh", "-c", "cd /srv && node server.js"]), "server.js");
    assert_eq!(pattern_of_argv(&["/opt/a;b/run it"]), "run it");
    assert_eq!(pattern_of_argv(&[] as &[&str]), "");
    assert_eq!(pattern_of_argv(&[""]), "");
}

#[test]
fn default_names_lose_the_extension() {
    let cases: [(&[&str], &str); 6] = [
        (&["node", "server/server.js"], "server"),
        (&["java", "-jar", "App.jar"], "App"),
        (&["python3", "-m", "http.server"], "http.server"),
        (&["caddy", "run"], "caddy"),
        (&["./app.min.js"], "app.min"),
        (&["/bin/sh", "-c", "cd /srv && ./start.sh"], "start"),
    ];
    for (argv, name) in cases {
        assert_eq!(default_name(argv), name);
    }
}

#[test]
fn default_names_are_valid_whatever_the_program_is_called() {
    let cases = [
        ("all.sh", "service-all"),
        ("8080", "service-8080"),
        (".hidden", "hidden"),
        ("--", "service"),
        ("a,b c", "a-b-c"),
        ("", "service"),
        ("/", "service"),
        ("...", "service"),
        ("\u{3164}", "service"),
    ];
    for (program, name) in cases {
        assert_eq!(default_name(&[program]), name, "{program:?}");
    }
    for long in ["x", "9", "日", "\u{1F600}"] {
        assert_valid_name(&default_name(&[long.repeat(300)]));
    }
}

#[test]
fn mentions_never_matches_a_part_of_a_name() {
    let cmdline = ["/usr/bin/node", "/srv/myapp.js", "--file=/x/other.js", ""];
    assert!(mentions(&cmdline, "myapp.js"));
    assert!(mentions(&cmdline, "node"));
    for pattern in ["app.js", "myapp", "myapp.jsx", "", "srv", "/srv/myapp.js", "Node"] {
        assert!(!mentions(&cmdline, pattern), "{pattern}");
    }
    assert!(!mentions(&[] as &[&str], "node"));
}

#[test]
fn a_command_mentions_its_own_pattern() {
    let commands: [&[&str]; 4] = [
        &["java", "-jar", "/opt/App.jar"],
        &["nice", "node", "server/server.js"],
        &["python3", "-m", "http.server"],
        &["/usr/bin/caddy", "run"],
    ];
    for argv in commands {
        assert!(mentions(argv, &pattern_of_argv(argv)), "{argv:?}");
    }
}

#[test]
fn mark_remover_is_found_behind_wrappers_and_in_a_line_and_nowhere_else() {
    let cases: [(&[&str], _); 12] = [
        (&["/usr/bin/su", "-", "web", "-c", "./run"], Some("su")),
        (&["env", "-i", "A=1", "nice", "-n", "5", "nohup", "sudo", "-u", "x", "y"], Some("sudo")),
        (&["setpriv", "--reuid=x", "runuser", "-u", "x", "--", "y"], Some("runuser")),
        (&["sh", "-c", "cd /srv && exec doas -u web ./run"], Some("doas")),
        (&["bash", "-ec", "sh -c 'A=1 pkexec x'"], Some("pkexec")),
        (&["timeout", "5", "machinectl", "shell"], Some("machinectl")),
        (&["login", "-f", "web"], Some("login")),
        (&["node", "su"], None),
        (&["sh", "su"], None),
        (&["sh", "-c", "echo sudo"], None),
        (&["setpriv", "--reuid", "su", "./run"], None),
        (&[], None),
    ];
    for (argv, expected) in cases {
        assert_eq!(mark_remover(argv), expected, "{argv:?}");
    }
}
