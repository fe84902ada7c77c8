//! Of `cli::pm2`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn options_of_pm2s_are_ours_until_the_programs_own() {
    let line = |text: &str| {
        let words = text.split(' ').map(OsString::from).collect();
        let words = translated(true, words);
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    for (theirs, ours) in [
        ("start a.js -x --kill-timeout 3000 -- -f", "start a.js --stop-timeout=3000ms -- -f"),
        ("start a.js --min-uptime=5s -p x.pid", "start a.js --min-uptime=5s"),
        ("start a -l all -o out -e=x --error err", "start a --log-out=out -e=x --log-error=err"),
        (
            "start a -k 9 -a --disable-logs --log-type json --parallel 2",
            "start a --stop-timeout=9ms --update-env --no-logs --log-format=json",
        ),
        ("start a -l o.log -f", "start a --log-out=o.log --log-error=o.log --force"),
        ("startOrReload eco.json --env x", "reload eco.json --env x"),
        ("restart a --exp-backoff-restart-delay 100", "restart a --exp-backoff=100ms"),
        ("start a --exp-backoff-restart-delay=100ms", "start a --exp-backoff=100ms"),
        ("sendSignal SIGHUP api", "signal api SIGHUP"),
        ("startup systemd -u x --hp /home/x", "daemon setup"),
        ("startup systemd --print", "daemon setup --print"),
        ("start a.js --merge-logs -i 2", "start a.js -i 2"),
        ("logs api --nostream --lines 5", "logs api --nostream --lines 5"),
        ("log api", "logs api --follow"),
        ("logs -h", "logs -h"),
        ("stop -f", "stop -f"),
    ] {
        assert_eq!(line(theirs), ours);
    }
}

#[test]
fn what_stays_in_the_foreground_is_run() {
    for (line, stays) in [
        ("pm2-runtime a.js", true),
        ("/usr/bin/pm2-docker a.js", true),
        ("pm2 start a.js --no-daemon", true),
        ("pm2 start a.js -- --no-daemon", false),
        ("pm2 restart a.js --no-daemon", false),
        ("opm start a.js --no-daemon", false),
    ] {
        let (program, words) = line.split_once(' ').unwrap();
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        assert_eq!(is_runtime(program, &words), stays, "{line}");
    }
}
