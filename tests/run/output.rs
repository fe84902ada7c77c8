//! What services write, and what they read.
use crate::rig::{As, BOTH, Scratch};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

const TWO: &str = r#"
    {"name": "web", "restart": "never",
     "command": ["sh", "-c", "echo out; echo err >&2; printf part; exit 0"]},
    {"name": "worker", "command": ["sh", "-c", "echo two; cat"], "restart": "never"}"#;

fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("opm: ")).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn lines_of_several_bear_their_names_and_go_where_they_went() {
    for how in BOTH {
        let scratch = Scratch::new();
        assert_eq!(scratch.run(how, &[&scratch.file(TWO)]).end(), 0);
        let out = scratch.read("out");
        assert_eq!(lines(&out), ["web    | out", "web    | part", "worker | two"]);
        assert_eq!(lines(&scratch.read("err")), ["web    | err"]);
    }
}

#[test]
fn prefixes_are_as_asked() {
    let text = |prefix: &str| {
        let scratch = Scratch::new();
        let file = scratch.file(TWO);
        assert_eq!(scratch.run(As::First, &["--prefix", prefix, &file]).end(), 0);
        scratch.read("out")
    };
    assert_eq!(lines(&text("none")), ["out", "part", "two"]);
    let time = text("time");
    let (at, line) =
        time.lines().find(|line| line.contains("out")).unwrap().split_once(' ').unwrap();
    assert!(at.starts_with("20") && at.ends_with('Z'), "{time}");
    assert_eq!(line, "web    | out");
    for line in text("json").lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["stream"], "stdout");
        assert!(["web", "worker"].contains(&object["service"].as_str().unwrap()));
    }
}

#[test]
fn a_single_service_has_our_stdin_and_writes_as_it_likes() {
    for how in BOTH {
        let scratch = Scratch::new();
        let file = scratch.file(r#"{"name": "cat", "command": ["cat"], "restart": "never"}"#);
        let mut command = scratch.command(how, &[&file]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut run = scratch.start(how, command);
        let mut stdin = run.child.stdin.take().unwrap();
        stdin.write_all(b"no newline").unwrap();
        drop(stdin);
        let mut out = String::new();
        run.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(out, "no newline");
        assert_eq!(run.end(), 0);
    }
}

#[test]
fn a_command_is_run_as_given() {
    let scratch = Scratch::new();
    let mut run =
        scratch.run(As::First, &["--", "sh", "-c", "echo \"$0 $1\"; exec sleep 1000", "a b", "c"]);
    scratch.expect("out", "a b c\n");
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn closed_streams_harm_nothing() {
    let scratch = Scratch::new();
    let file = scratch.file(&TWO.replace("exit 0", "exit 4"));
    let script = format!("exec \"$0\" run {file} <&- >&- 2>&-");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script, crate::rig::OPM]);
    let status = command.env("OPM_HOME", scratch.path("home")).status().unwrap();
    assert_eq!(status.code(), Some(4));
}

#[test]
fn a_reader_that_has_gone_ends_no_service() {
    let scratch = Scratch::new();
    let file = scratch.file(
        r#"{"name": "a", "command": ["sh", "-c", "while echo x; do sleep 0.01; done"]},
           {"name": "b", "command": ["sleep", "1000"]}"#,
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = scratch.command(As::First, &[&file]);
    command.stdout(writer);
    let mut run = scratch.start(As::First, command);
    drop(reader);
    let before = run.online(2);
    let later = Instant::now() + Duration::from_millis(300);
    let after = run.when("time to go by", |_| Instant::now() > later);
    assert_eq!(before[0]["pid"], after[0]["pid"]);
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn a_reader_that_stops_reading_hangs_nothing() {
    for how in BOTH {
        let scratch = Scratch::new();
        let file = scratch.file(
            r#"{"name": "yes", "command": ["yes"]},
               {"name": "errs", "command": ["sh", "-c", "exec yes >&2"]}"#,
        );
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = scratch.command(how, &[&file]);
        command.stderr(writer.try_clone().unwrap()).stdout(writer);
        let mut run = scratch.start(how, command);
        let rows = run.online(2);
        // The services wait in their writes by now, or soon.
        let cpu = |row: &serde_json::Value| row["cpu_percent"].as_f64();
        let idle = |list: &[serde_json::Value]| list.iter().all(|row| cpu(row) == Some(0.0));
        run.when("everything to be full", idle);
        assert_eq!(run.beside(&["restart", "yes"]).2, 0);
        let again = run.online(2);
        assert_ne!(rows[0]["pid"], again[0]["pid"]);
        let began = Instant::now();
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(reader);
    }
}

#[test]
fn a_hundred_megabytes_arrive_whole() {
    const LINES: u64 = 250_000;
    let scratch = Scratch::new();
    let write = format!("seq -f '%0198.0f' {LINES}");
    let services = ["a", "b"].map(|name| {
        format!(r#"{{"name": "{name}", "command": ["sh", "-c", "{write}"], "restart": "never"}}"#)
    });
    let file = scratch.file(&services.join(", "));
    let mut command = scratch.command(As::First, &[&file]);
    command.stdout(Stdio::piped());
    let mut run = scratch.start(As::First, command);
    let began = Instant::now();
    let out = BufReader::with_capacity(1 << 16, run.child.stdout.take().unwrap());
    let mut next = [1u64; 2];
    let mut bytes = 0;
    for line in out.lines() {
        let line = line.unwrap();
        let (name, number) = line.split_once(" | ").unwrap();
        let at = usize::from(name == "b");
        assert_eq!(number.len(), 198);
        assert_eq!(number.parse::<u64>().unwrap(), next[at], "{name}: in order, none missing");
        next[at] += 1;
        bytes += line.len() + 1;
    }
    assert_eq!(next, [LINES + 1; 2]);
    println!("{bytes} bytes in {:?}", began.elapsed());
    assert_eq!(run.end(), 0);
}

#[test]
fn a_crash_loses_no_output() {
    const LINES: u32 = 40_000;
    let scratch = Scratch::new();
    let file = scratch.file(&format!(
        r#"{{"name": "a", "command": ["sh", "-c", "exec seq {LINES}"], "restart": "never"}},
           {{"name": "b", "command": ["sleep", "1000"]}}"#
    ));
    let mut command = scratch.command(As::First, &[&file]);
    command.stdout(Stdio::piped());
    let mut run = scratch.start(As::First, command);
    let mut out = BufReader::new(run.child.stdout.take().unwrap());
    let mut numbers = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the end after {}", numbers.len());
        if let Some(number) = line.trim_end().strip_prefix("a | ") {
            numbers.push(number.parse::<u32>().unwrap_or(0));
        }
        if numbers.len() == 500 {
            // The pipe is full, and opm is in the middle of a batch.
            run.signal(libc::SIGSEGV);
            run.when("adoption", |list| list.iter().all(|row| row["adopted"] == true));
        }
        if line.trim_end() == format!("a | {LINES}") {
            break;
        }
    }
    let missing = (1..=LINES).find(|number| !numbers.contains(number));
    assert_eq!(missing, None);
    // What one write takes, at most, is said twice.
    let twice = numbers.len() - LINES as usize;
    assert!(twice * "123\n".len() <= 4096, "{twice} lines twice");
    run.signal(libc::SIGTERM);
    drop(out);
    assert_eq!(run.end(), 0);
}
