//! What people look at, played in a pseudo-terminal that `script` makes.
use crate::namespace::isolated;
use crate::rig::Rig;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Somebody at a terminal of 80x24, in which a shell runs.
struct Person {
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl Person {
    /// The line may use `$OPM`.
    fn new(rig: &Rig, line: &str) -> Self {
        let opm = rig.command(&[]);
        let mut script = Command::new("script");
        script.args(["-qefc", line, "/dev/null"]).current_dir(&rig.dir);
        script.envs(opm.get_envs().filter_map(|(key, value)| Some((key, value?))));
        script.env_remove("OPM_MARK").env("OPM", opm.get_program()).env("TERM", "xterm");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = script.spawn().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut out, seen) = (child.stdout.take().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = out.read(&mut bytes)
                && n > 0
            {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { child, screen }
    }

    fn types(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` was shown since the last call; gives all that was.
    fn sees(&self, rig: &Rig, text: &str) -> String {
        rig.until(&format!("{text:?} on the screen"), || {
            let mut screen = self.screen.lock().unwrap();
            screen.contains(text).then(|| std::mem::take(&mut *screen))
        })
    }
}

/// Says whether the terminal is afterwards as it was before.
const AROUND: &str = "tty > tty; stty -g > before; \
    (sh -c 'echo $$ > pid; exec \"$OPM\" top'; echo end=$?); \
    stty -g > after; cmp before after && echo terminal as before; read line";

#[test]
fn top_shows_what_is_true_does_what_is_typed_and_leaves_the_terminal_as_it_was() {
    isolated(here!(), |rig| {
        rig.ok(&["start", "--name", "a", "--", "sh", "-c", "echo Hark; exec sleep 1000"]);
        let web = rig.start("web", "sleep");
        let mut person = Person::new(rig, AROUND);
        let shown = person.sees(rig, "q quit");
        assert!(shown.contains("\x1b[?1049h") && shown.contains("2 services, 2 online"), "{shown}");
        person.types("l");
        person.sees(rig, "Hark");
        person.types("l\x1b[B");
        person.types("r");
        person.sees(rig, "web: online");
        assert_ne!(rig.row("web").pid, Some(web));
        person.types("jx");
        person.sees(rig, "web: stopped");
        rig.until_status("web", "stopped");
        person.types("/we");
        person.sees(rig, "1 services, 0 online");
        person.types("\x1b");
        person.sees(rig, "2 services");
        // Another size: everything is drawn anew, and no line is longer than it is wide.
        let tty = std::fs::read_to_string(rig.dir.join("tty")).unwrap();
        let stty = ["-F", tty.trim(), "cols", "40", "rows", "10"];
        assert!(Command::new("stty").args(stty).status().unwrap().success());
        let shown = person.sees(rig, "\x1b[10;1H\x1b[2m");
        let last = shown.rsplit("\x1b[2J").next().unwrap();
        assert!(shown.contains("\x1b[2J") && !last.contains("\x1b[11;1H"), "{shown}");
        // Without a daemon it goes on, with the next one.
        let file = rig.home.join("opm.pid");
        let before = std::fs::read_to_string(&file).unwrap();
        rig.kill_daemon();
        let is_another = |pid: &String| *pid != before && !pid.is_empty();
        rig.until("another daemon", || std::fs::read_to_string(&file).ok().filter(is_another));
        person.types("/a");
        person.sees(rig, "/a_");
        person.types("\rq");
        let shown = person.sees(rig, "terminal as before");
        assert!(shown.contains("\x1b[?1049l") && shown.contains("end=0"), "{shown}");
        person.types("\n");
        assert!(person.child.wait().unwrap().success());
    });
}

#[test]
fn top_that_is_ended_by_a_signal_leaves_the_terminal_as_it_was() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        let mut person = Person::new(rig, AROUND);
        person.sees(rig, "1 services, 1 online");
        let pid = std::fs::read_to_string(rig.dir.join("pid")).unwrap();
        rig.kill(pid.trim().parse().unwrap(), Signal::TERM);
        let shown = person.sees(rig, "terminal as before");
        assert!(shown.contains("\x1b[?1049l") && shown.contains("end=0"), "{shown}");
        person.types("\n");
        assert!(person.child.wait().unwrap().success());
    });
}

#[test]
fn ls_that_watches_shows_what_changes_until_a_key() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        let mut person = Person::new(rig, "\"$OPM\" ls --watch; echo end=$?; read line");
        person.sees(rig, "online");
        rig.ok(&["stop", "web"]);
        person.sees(rig, "stopped");
        person.types("q");
        person.sees(rig, "end=0");
        person.types("\n");
        assert!(person.child.wait().unwrap().success());
    });
}

#[test]
fn info_of_an_ordinary_service_is_one_screen_and_ends_with_what_to_do() {
    isolated(here!(), |rig| {
        let script = "seq 1 50; seq 51 99 >&2; exec sleep 1000";
        rig.ok(&["start", "--name", "web", "--", "sh", "-c", script]);
        let text = rig.until("both logs", || {
            Some(rig.ok(&["info", "web"])).filter(|text| text.contains("  50\n"))
        });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("name ") && lines[1].contains("online, ready"), "{text}");
        assert!(text.contains("last of error\n  97\n  98\n  99\n"), "{text}");
        assert!(lines.len() <= 24 && lines[lines.len() - 1].contains("opm restart web"), "{text}");
        // In a terminal no line is wider than that.
        let mut person = Person::new(rig, "\"$OPM\" info web; read line");
        let shown = person.sees(rig, "opm restart web");
        assert!(shown.lines().count() <= 24 && shown.contains("\x1b[32monline"), "{shown}");
        person.types("\n");
        person.child.wait().unwrap();
    });
}

#[test]
fn metrics_are_served_by_a_service_of_opm_itself() {
    isolated(here!(), |rig| {
        let web = rig.start("web", "sleep");
        let opm = rig.command(&[]).get_program().to_str().unwrap().to_owned();
        rig.ok(&["start", "--name", "m", "--", &opm, "metrics", "--listen", "127.0.0.1:0"]);
        let log = rig.home.join("logs/m-out.log");
        let address = rig.until("its address", || {
            let text = std::fs::read_to_string(&log).ok()?;
            text.lines().next()?.strip_prefix("metrics: listening on ").map(str::to_owned)
        });
        let ask = || {
            let mut stream = std::net::TcpStream::connect(&address).unwrap();
            let request = "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let text = ask();
        for name in ["web", "m"] {
            assert!(text.contains(&format!("\nopm_service_up{{service=\"{name}\"}}")), "{text}");
        }
        rig.kill(web, Signal::KILL);
        rig.until("a restart in the numbers", || {
            let line = "\nopm_service_restarts_total{service=\"web\"} 1\n";
            ask().contains(line).then_some(())
        });
        rig.kill_daemon();
        assert!(ask().contains("\nopm_daemon_up 0\n"), "it starts no daemon");
    });
}
