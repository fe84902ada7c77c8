//! Of `opm::process::command`.
use opm::process::command::*;

/// Commands and what they are about, by what has to be understood for it.
const ABOUT: &str = r#"
[a jar, before any script]
java -jar App.jar => App.jar
/usr/bin/java -Xmx1g -Dx=y.jar -javaagent:/a/agent.jar -jar /opt/app/App.JAR z.py => App.JAR
java -cp lib.jar -jar App.war => App.war
java -jar -Xmx1g App.jar x => App.jar
./launch --server /opt/App.jar conf.py => App.jar
sh -c 'exec java -jar /srv/App.jar' => App.jar
launcher run.sh App.jar => App.jar
java -jar App.jar && node after.js => App.jar
java -jar /opt/app && node after.js => app
[a main class]
java -Xmx1g -cp a:b com.acme.Main => com.acme.Main
java --module-path mods -m app/com.acme.Main => com.acme.Main
java @opts -classpath /x/lib.jar com.acme.Main run.py => com.acme.Main
java -version => java
java -jar => java
[a script by its extension]
python /opt/server.py => server.py
node server.js => server.js
./worker.mjs => worker.mjs
/opt/x/app.cjs --port 80 => app.cjs
foo bar/main.ts => main.ts
x.rb => x.rb
x.pl => x.pl
x.php => x.php
x.lua => x.lua
bash start.sh => start.sh
pm2-runtime app.js => app.js
Rscript --vanilla model.R => model.R
gunicorn -c gunicorn.conf.py app:app => gunicorn
webpack serve --config webpack.config.js => webpack
bundle exec puma -C config/puma.rb => puma
myd --script=/x/y.js => myd
[else the program]
caddy run => caddy
/usr/sbin/nginx -g 'daemon off;' => nginx
npm start => npm
redis-server /etc/redis.conf => redis-server
/opt/my\ app/the\ server => the server
'/opt/my app/server' --x => server
sleep 60 => sleep
[node]
node --max-old-space-size=4096 server.js => server.js
node --max-old-space-size 4096 server.js => server.js
node -r dotenv/config server/server.js => server.js
node --import tsx --inspect=0.0.0.0:1 src/main.ts => main.ts
/usr/bin/node18 bin/www => www
node --stack-size 2000 server.js => server.js
node inspect app.js => app.js
node -e 'require("x.js")' => node
node . => node
node => node
node --env-file .env -- app => app
deno run -A --config deno.json main.ts => main.ts
deno task start => deno
bun run dev => bun
bun server.ts => server.ts
[python]
python -u -m gunicorn app:app => gunicorn
python3 -m http.server => http.server
python3.11 -um celery -A proj worker => celery
python -mflask run => flask
python -X dev -W ignore manage.py runserver => manage.py
/venv/bin/python3 /opt/daemon --conf x.py => daemon
python -c 'import x' => python
python - => python
[other interpreters]
ruby -I lib app.rb => app.rb
ruby -rbundler/setup -w bin/server => server
perl -w x.pl => x.pl
perl -Mstrict -Ilib x => x
perl -we 'print 1' y.pl => perl
php -S localhost:80 router.php => router.php
php -S localhost:80 -t public => php
php -f run.php => run.php
php -d a=b artisan serve => artisan
lua -l x -e 'y=1' z.lua => z.lua
dotnet exec /app/Api.dll => Api.dll
dotnet run => dotnet
[env]
env PORT=80 node server.js => server.js
env -i -u HOME A=B -C /srv caddy run => caddy
/usr/bin/env -S node --x y.js => y.js
env -S 'A=b python3 -u' x.py => x.py
env -iS'caddy run' => caddy
env --split-string='caddy run' => caddy
env - caddy => caddy
env -uSHELL caddy => caddy
A=1 B='2 3' caddy run => caddy
env => env
[other wrappers]
nohup caddy run => caddy
nice -n 5 caddy run => caddy
nice -5 caddy => caddy
ionice -c2 -n 7 caddy => caddy
setsid -w caddy => caddy
stdbuf -oL -e 0 caddy => caddy
timeout 5 caddy => caddy
timeout -s KILL -k 1 5m caddy => caddy
timeout -- 5 caddy => caddy
exec -a x caddy => caddy
sudo -u x caddy => caddy
sudo -nEu x -- A=b caddy => caddy
chrt -f 99 caddy => caddy
taskset -c 0-3 caddy => caddy
time -p caddy => caddy
gosu app:app caddy => caddy
flock -n /run/x.lock caddy => caddy
runuser -u web -- caddy => caddy
runuser -u web caddy => caddy
tini -g -- caddy => caddy
npx -y serve -l 80 => serve
npm exec -- serve => serve
uv run main.py => main.py
sudo nice -n 5 env A=b nohup setsid node x.js => x.js
[lines for a shell, and what is passed to them]
sh -c 'node server.js' => server.js
bash -lc "cd /srv; exec caddy run" => caddy
/bin/sh -ec 'sh -c "exec python3 -m http.server"' => http.server
bash -eo pipefail -c 'caddy run | tee x.log' => caddy
su - web -c 'caddy run' => caddy
su -c 'caddy run' web => caddy
flock /run/x.lock -c 'caddy run' => caddy
eval 'caddy run' => caddy
sh -c 'exec "$@"' name node x.js => x.js
sh -c '"$0" "$@"' caddy run => caddy
sh -c '$RUN' => $RUN
[never a bare shell beside anything else]
bash -x /srv/run => run
bash; caddy run => caddy
caddy run | sh => caddy
sh -c 'caddy run' sh => caddy
zsh ./start => start
bash --rcfile x -i => bash
-bash => bash
[the main command of a line]
cd /srv && node server.js => server.js
node migrate.js && node server.js => server.js
make && ./server => server
./server | ./shipper => server
./server || ./other => server
sh -c 'sleep 9 & wait' => sleep
mkdir -p /run/x; caddy run => caddy
source ./env.sh && caddy run => caddy
while true; do caddy run; sleep 1; done => caddy
if test -f x; then caddy run; fi => caddy
(cd /srv; caddy run) >log 2>&1 & => caddy
caddy run || exit 1 => caddy
for f in a.js b.js; do caddy run; done => caddy
"$(dirname "$0")/bin/server" x => server
$JAVA_HOME/bin/java -jar x.jar => x.jar
caddy run > out.sh => caddy
[its base name, empty only if the command is]
/ => /
/opt/app/ => app
python /opt/app/ => app
///x/// => x
'' => ''
&& => &&
A=b => A=b
# x => #
[quotes that are never closed, and other scripts of the world]
node 'server.js => server.js
node "/x/server.js => server.js
sh -c 'node server.js => server.js
node server.js\ => server.js
node server.js $( => server.js
python /опт/сервер.py => сервер.py
'/日本/サーバー' 走る => サーバー
env -é ü => ü
perl -é x => x
bash -é x => x
"#;

#[test]
fn extract_search_pattern_from_command_finds_what_a_command_is_about() {
    let cases = ABOUT.lines().filter_map(|line| line.split_once(" => "));
    for (command, expected) in cases.chain([("", ""), (" \t\n", "")]) {
        assert_eq!(extract_search_pattern_from_command(command), expected, "{command}");
    }
}

#[test]
fn words_that_are_split_already_follow_the_same_rule_as_a_line() {
    assert_eq!(pattern_of_argv(&["nice", "-n", "5", "node", "/x/my server.js"]), "my server.js");
    assert_eq!(pattern_of_argv(&["/bin/sh", "-c", "cd /srv && node server.js"]), "server.js");
    assert_eq!(pattern_of_argv(&["/opt/a;b/run it"]), "run it");
    assert_eq!(pattern_of_argv(&[] as &[&str]), "");
    assert_eq!(pattern_of_argv(&[""]), "");
}

#[test]
fn default_names_lose_the_extension_and_are_valid_whatever_the_program_is_called() {
    let cases: &[(&[&str], &str)] = &[
        (&["node", "server/server.js"], "server"),
        (&["java", "-jar", "App.jar"], "App"),
        (&["python3", "-m", "http.server"], "http.server"),
        (&["caddy", "run"], "caddy"),
        (&["./app.min.js"], "app.min"),
        (&["/bin/sh", "-c", "cd /srv && ./start.sh"], "start"),
        (&["/bin/sh", "-c", "exit 0"], "sh"),
        (&["bash", "-c", "trap : TERM; wait"], "bash"),
        (&["sh", "-c", "while :; do sleep 1; done"], "sleep"),
        (&["all.sh"], "service-all"),
        (&["8080"], "service-8080"),
        (&[".hidden"], "hidden"),
        (&["--"], "service"),
        (&["a,b c"], "a-b-c"),
        (&[""], "service"),
        (&["/"], "service"),
        (&["..."], "service"),
        (&["\u{3164}"], "service"),
    ];
    for (argv, name) in cases {
        assert_eq!(default_name(argv), *name, "{argv:?}");
    }
    for long in ["x", "9", "日", "\u{1F600}"] {
        assert_valid_name(&default_name(&[long.repeat(300)]));
    }
}

/// The rules for names, said once more: this module may not ask the one that has them.
#[track_caller]
fn assert_valid_name(name: &str) {
    let length = name.chars().count();
    assert!((1..=64).contains(&length), "{name:?}");
    assert!(!name.contains(['/', ',', ' ', '\u{202e}', '\u{3164}']), "{name:?}");
    assert!(!name.chars().any(char::is_control), "{name:?}");
    assert!(name != "all" && !name.starts_with(['-', '.']), "{name:?}");
    assert!(!name.bytes().all(|b| b.is_ascii_digit()), "{name:?}");
}

#[test]
fn mark_remover_is_found_behind_wrappers_and_in_a_line_and_nowhere_else() {
    let cases: [(&[&str], _); 14] = [
        (&["/usr/bin/su", "-", "web", "-c", "./run"], Some("su")),
        (&["env", "-i", "A=1", "nice", "-n", "5", "nohup", "sudo", "-u", "x", "y"], Some("sudo")),
        (&["env", "-S", "nice sudo", "x"], Some("sudo")),
        (&["setpriv", "--reuid=x", "runuser", "-u", "x", "--", "y"], Some("runuser")),
        (&["sh", "-c", "cd /srv && exec doas -u web ./run"], Some("doas")),
        (&["sh", "-c", "exec \"$@\"", "x", "sudo", "y"], Some("sudo")),
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

/// Pieces of texts that nobody would write.
const NASTY: &[&str] = &[
    "'", "\"", "\\", "$", "`", "$(", "${", ")", "}", "|", "||", "&&", ";", "\n", "<", ">&-", "#",
    " ", " ", " ", " -", "--", "=", "/", ".", ",", "\0", "\u{1b}", "é", "日本", "😀", "\u{202e}",
    "\u{3164}", "sh -c ", "env ", "-S", "-c ", "sudo ", "-u ", "node ", "python ", "-m", "java ",
    "-jar ", ".jar", "x.js", "bash", "perl -", "eval ", "exec ", "timeout ", "5 ", "su ", "A=b",
    "all", "42", "npx ", "$@",
];

#[test]
fn extract_search_pattern_from_command_never_panics() {
    // xorshift64: the same texts in every run.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % bound
    };
    for _ in 0..40_000 {
        let length = below(14);
        let text: String = (0..length).map(|_| NASTY[below(NASTY.len())]).collect();
        let pattern = extract_search_pattern_from_command(&text);
        assert_eq!(pattern.is_empty(), text.trim().is_empty(), "{text:?}");
        assert!(pattern == "/" || !pattern.contains('/'), "{text:?} gave {pattern:?}");

        let words: Vec<&str> = text.split(' ').collect();
        let pattern = pattern_of_argv(&words);
        assert_eq!(pattern.is_empty(), words.iter().all(|word| word.is_empty()), "{words:?}");
        assert_valid_name(&default_name(&words));
    }
}

#[test]
fn extract_search_pattern_from_command_bounds_its_depth() {
    let wrappers = "nice ".repeat(200_000) + "caddy";
    assert_eq!(extract_search_pattern_from_command(&wrappers), "caddy");
    for opening in ["sh -c ", "env -S ", "eval ", "$(", "${", "\"$(", "(", "`", "'", "\"", "{ "] {
        assert!(!extract_search_pattern_from_command(&opening.repeat(20_000)).is_empty());
    }
}
