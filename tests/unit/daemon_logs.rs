//! Rotations, step by step, the names of archives, and lines as they are shown.
use opm::daemon::logs::form::{Form, Label, next_line, next_lines, put_line};
use opm::daemon::logs::pace::{Beat, Next, Pace};
use opm::daemon::logs::rotation::Rotation;
use opm::service::time::TimeFormat;
use opm::sys::archives::{self, extent, path_of};
use std::io::Write;
use std::path::{Path, PathBuf};

struct Scratch(PathBuf);

impl Scratch {
    fn new(place: &str, name: &str) -> Self {
        let path = Path::new(place).join(format!("opm-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("web-out.log")
    }

    fn write(&self, text: &str) {
        let mut options = std::fs::File::options();
        let mut file = options.append(true).create(true).open(self.log()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// All that counts, end to end.
    fn stream(&self) -> Vec<u8> {
        let Ok(live) = std::fs::File::open(self.log()) else { return Vec::new() };
        let mut all = Vec::new();
        for archive in archives::list(&self.0, Some("web-out.log")) {
            let (begin, end) = extent(&live).unwrap();
            if archive.has_moved(begin, end) {
                all.extend(std::fs::read(archive.path).unwrap());
            }
        }
        let (begin, _) = extent(&live).unwrap();
        all.extend(&std::fs::read(self.log()).unwrap()[usize::try_from(begin).unwrap()..]);
        all
    }
}

impl Scratch {
    /// Bytes that are the log's no more.
    fn rotated(&self) -> usize {
        let log = std::fs::File::open(self.log());
        let left = log.map_or(0, |log| extent(&log).map_or(0, |(begin, end)| end - begin));
        self.stream().len() - usize::try_from(left).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Where files can be collapsed, as a rule, and where they can't.
const PLACES: [&str; 2] = ["/tmp", "/dev/shm"];

#[test]
fn whoever_dies_between_two_steps_loses_and_doubles_nothing() {
    for place in PLACES {
        // A line that is the same again and again tells nothing of where a copy belongs.
        for line in ["y\n", "7 the quick brown fox\n"] {
            let scratch = Scratch::new(place, "steps");
            let mut expected = String::new();
            for steps in [0, 1, 2, 3, 4, 5, 3, 9] {
                let fresh: String = (0..2_300_000 / line.len())
                    .map(|n| if line == "y\n" { line.to_owned() } else { format!("{n}{line}") })
                    .collect();
                scratch.write(&fresh);
                expected.push_str(&fresh);
                let rotation = Rotation::begin(&scratch.log(), 2 << 20).unwrap();
                let mut rotation = rotation.expect("it is large enough");
                for _ in 0..steps {
                    if rotation.step().unwrap() {
                        break;
                    }
                    assert!(scratch.stream() == expected.as_bytes(), "{place} {steps}");
                }
                scratch.write("late\n");
                expected.push_str("late\n");
                assert!(scratch.stream() == expected.as_bytes(), "{place} {steps}");
            }
            let archives = archives::list(&scratch.0, None);
            assert!(archives.len() > 2 && archives.iter().all(|one| one.begin.is_none()));
        }
    }
}

/// In the environment of a process that rotates this log, and is killed over it.
const VICTIM: &str = "OPM_TEST_ROTATES";
/// What a rotation calls, and what takes up what one has left.
const CALLS: [&str; 6] =
    ["copy_file_range", "fallocate", "/^rename", "/^unlink", "getdents64", "lseek"];
/// Of each call so many times at most.
const TIMES_MAX: u32 = 9;

/// In a process of its own that is killed as it makes this call for the nth time. False: it came
/// to the end.
fn is_killed_at(log: &Path, call: &str, nth: u32) -> bool {
    let mut victim = std::process::Command::new("strace");
    victim.args(["-f", "-qqq", "-o", "/dev/null", "-e"]);
    victim.arg(format!("inject={call}:signal=KILL:when={nth}"));
    victim.arg(std::env::current_exe().unwrap());
    victim.args(["--exact", "daemon_logs::whoever_dies_at_any_call_loses_and_doubles_nothing"]);
    let output = victim.env(VICTIM, log).output().expect("strace is there");
    !output.status.success()
}

#[test]
fn whoever_dies_at_any_call_loses_and_doubles_nothing() {
    if let Some(log) = std::env::var_os(VICTIM) {
        let rotation = Rotation::begin(Path::new(&log), 1 << 20).unwrap();
        let mut rotation = rotation.expect("it is large enough");
        while !rotation.step().unwrap() {}
        return;
    }
    for place in PLACES {
        let scratch = Scratch::new(place, "calls");
        let (mut expected, mut line, mut kills) = (String::new(), 0, 0);
        for call in CALLS {
            for nth in 1..=TIMES_MAX {
                while expected.len() < scratch.rotated() + (5 << 18) {
                    let more: String = (line..line + 10_000).map(|n| format!("{n}\n")).collect();
                    scratch.write(&more);
                    (expected, line) = (expected + &more, line + 10_000);
                }
                let is_killed = is_killed_at(&scratch.log(), call, nth);
                assert!(scratch.stream() == expected.as_bytes(), "{place}: {call} {nth}");
                if !is_killed {
                    break;
                }
                kills += 1;
            }
        }
        assert!(kills > 12, "{place}: {kills}");
    }
}

#[test]
fn a_log_that_somebody_else_cuts_meanwhile_loses_no_more_than_that() {
    let scratch = Scratch::new("/dev/shm", "cut");
    scratch.write(&"x".repeat(3 << 20));
    let mut rotation = Rotation::begin(&scratch.log(), 2 << 20).unwrap().unwrap();
    assert_eq!(rotation.step(), Ok(false));
    std::fs::File::create(scratch.log()).unwrap();
    scratch.write("new\n");
    while !rotation.step().unwrap() {}
    assert_eq!(scratch.stream(), [&vec![b'x'; 1 << 20][..], b"new\n"].concat());
}

#[test]
fn what_has_no_room_is_dropped_and_counted() {
    let scratch = Scratch::new("/dev/shm", "drop");
    scratch.write(&"x".repeat((1 << 20) + 5));
    let mut rotation = Rotation::begin(&scratch.log(), 1 << 20).unwrap().unwrap();
    rotation.drop_head().unwrap();
    while !rotation.step().unwrap() {}
    let text = String::from_utf8(scratch.stream()).unwrap();
    assert_eq!(text, "\nopm: 1048576 bytes were here, and no room to keep them\nxxxxx");
}

#[test]
fn an_archive_is_told_by_its_name() {
    let parse = |name: &str| {
        let archive = archives::Archive::parse(Path::new("/l").join(name))?;
        Some((archive.log.clone(), archive.number, archive.begin, archive.is_compressed()))
    };
    let is = |log: &str, number, begin, how| Some((log.to_owned(), number, begin, how));
    assert_eq!(parse("a-out.log.000012"), is("a-out.log", 12, None, None));
    assert_eq!(parse("a.log.1000000.zst"), is("a.log", 1_000_000, None, Some("zst")));
    assert_eq!(parse("a.log.000003.gz"), is("a.log", 3, None, Some("gz")));
    assert_eq!(parse("a.log.000003.at-4096"), is("a.log", 3, Some(4_096), None));
    for name in ["a.log", "a.log.1", "a.log.1.gz", "a.log.00001x", "000001", "a.000001.at-x"] {
        assert_eq!(parse(name), None, "{name}");
    }
    let path = path_of(Path::new("/l/a.log"), 7);
    assert_eq!(path, Path::new("/l/a.log.000007"));
    assert_eq!(archives::Archive::parse(path).unwrap().number, 7);
}

const LINE_BYTES_MAX: usize = 16 << 10;

#[test]
fn a_line_is_taken_when_its_end_has_come_or_it_is_long_or_the_last() {
    assert_eq!(next_line(b"ab\ncd", false), Some((3, &b"ab"[..])));
    assert_eq!(next_line(b"\n", false), Some((1, &b""[..])));
    assert_eq!(next_line(b"cd", false), None);
    assert_eq!(next_line(b"cd", true), Some((2, &b"cd"[..])));
    assert_eq!(next_line(b"", true), None);
    let long = vec![b'x'; LINE_BYTES_MAX + 1];
    assert_eq!(next_line(&long[1..], false), None);
    assert_eq!(next_line(&long, false).map(|l| l.0), Some(LINE_BYTES_MAX));
    let mut full = vec![b'x'; LINE_BYTES_MAX];
    full.push(b'\n');
    assert_eq!(next_line(&full, false).map(|l| l.1.len()), Some(LINE_BYTES_MAX));
}

#[test]
fn lines_that_stay_as_they_are_are_taken_together() {
    assert_eq!(next_lines(b"ab\n\ncd\nef", false, 99), Some((7, &b"ab\n\ncd"[..])));
    assert_eq!(next_lines(b"ab\ncd\n", false, 5), Some((3, &b"ab"[..])));
    // Longer than what is asked for, and then as one alone.
    assert_eq!(next_lines(b"abcd\ne\n", false, 3), Some((5, &b"abcd"[..])));
    assert_eq!(next_lines(b"ef", false, 99), None);
    assert_eq!(next_lines(b"ef", true, 99), Some((2, &b"ef"[..])));
    // One that is cut is not taken with what follows.
    let long = [vec![b'x'; LINE_BYTES_MAX + 1], b"\ny\n".to_vec()].concat();
    assert_eq!(next_lines(&long, false, usize::MAX).map(|l| l.0), Some(LINE_BYTES_MAX));
}

/// How often in a row it says the same.
fn run_of(mut next: impl FnMut() -> Next) -> (Next, usize) {
    let first = next();
    (first, 1 + (0..).take_while(|_| next() == first).count())
}

#[test]
fn only_who_writes_line_by_line_without_a_rest_is_looked_at_by_the_clock() {
    let (mut pace, mut beat, mut now) = (Pace::default(), Beat::default(), 1_000_000);
    let mut found = |pace: &mut Pace, beat: &mut Beat, bytes, us| {
        now += us;
        pace.found(bytes, now, beat)
    };
    for _ in 0..1_000 {
        assert_eq!(found(&mut pace, &mut beat, 100, 1_000), Next::Look, "a line each ms");
        assert_eq!(found(&mut pace, &mut beat, 65_536, 1), Next::Look, "by whole FIFOs");
    }
    assert_eq!(run_of(|| found(&mut pace, &mut beat, 100, 5)), (Next::Look, 7));
    pace.by_clock = true;
    assert_eq!(found(&mut pace, &mut beat, 100, 500), Next::Tick);
    // The clock is the slower the less there is, within bounds.
    let pauses: Vec<u32> = (0..5).map(|_| beat.pause()).collect();
    assert_eq!(pauses, [128, 256, 512, 512, 512]);
    for (bytes, pause, next) in [
        (20_000, 512, Next::Tick),
        (60_000, 256, Next::Look),
        (60_000, 128, Next::Look),
        (60_000, 64, Next::Look),
    ] {
        assert_eq!(found(&mut pace, &mut beat, bytes, 500), next);
        assert_eq!(beat.pause(), pause);
    }
    // Too fast for the clock, and not tried again soon.
    assert_eq!(found(&mut pace, &mut beat, 60_000, 500), Next::Write);
    pace.by_clock = false;
    let (next, times) = run_of(|| found(&mut pace, &mut beat, 100, 5));
    assert!(next == Next::Look && times > 1_000, "{times}");
}

#[test]
fn a_cut_is_not_within_a_character() {
    let text = "é".repeat(LINE_BYTES_MAX);
    let (cut, line) = next_line(&text.as_bytes()[1..], false).unwrap();
    assert_eq!(cut, LINE_BYTES_MAX - 1, "the window begins within a character");
    assert!(std::str::from_utf8(&line[1..]).is_ok());
}

#[test]
fn each_form_is_as_documented() {
    let label = Label { name: "web".to_owned(), width: 5, stream: "stderr" };
    let shown = |time: bool, named, json| {
        let mut out = Vec::new();
        let form = Form { time: None, named, json };
        put_line(&mut out, &form, &label, time.then_some("T"), b"a\"b\xff");
        String::from_utf8_lossy(&out).into_owned()
    };
    assert_eq!(shown(false, false, false), "a\"b\u{fffd}\n");
    assert_eq!(shown(false, true, false), "web   | a\"b\u{fffd}\n");
    assert_eq!(shown(true, true, false), "T web   | a\"b\u{fffd}\n");
    let json =
        "{\"time\":\"T\",\"service\":\"web\",\"stream\":\"stderr\",\"line\":\"a\\\"b\u{fffd}\"}\n";
    assert_eq!(shown(true, false, true), json);
}

#[test]
fn a_time_is_written_by_the_tokens_that_users_of_pm2_know() {
    let at = 1_795_340_442_123_456;
    for (format, text) in [
        ("", "2026-11-22T09:40:42.123456Z"),
        ("YYYY-MM-DD HH:mm:ss.SSS Z", "2026-11-22 09:40:42.123 +00:00"),
        ("YY/MM/DD [at] HH:mm ZZ", "26/11/22 at 09:40 +0000"),
        ("é SSSSSS", "é 123456"),
    ] {
        assert_eq!(TimeFormat::parse(format).unwrap().text(at), text, "{format}");
    }
    for wrong in ["app.js", "x", "YYYY\n"] {
        assert!(TimeFormat::parse(wrong).unwrap_err().contains("is no time format"), "{wrong}");
    }
}
