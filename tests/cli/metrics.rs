//! `opm metrics`: what OpenMetrics asks of a text, and what promtool says of it.
use crate::answers::answer;
use crate::fake::{Scratch, end_of};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Panics at what the text format of OpenMetrics 1.0 doesn't allow.
fn check(text: &str) {
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    let mut families = BTreeSet::new();
    let (mut family, mut kind, mut series) = (String::new(), String::new(), BTreeSet::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let [what, name, value] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            match what {
                "TYPE" => {
                    assert!(families.insert(name.to_owned()), "twice: {line}");
                    (family, kind) = (name.to_owned(), value.to_owned());
                    assert!(["gauge", "counter"].contains(&value), "{line}");
                }
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                "HELP" => assert!(!value.is_empty(), "{line}"),
                _ => panic!("{line}"),
            }
            assert_eq!(name, family, "{line}");
            continue;
        }
        let (of, value) = line.rsplit_once(' ').unwrap();
        let name = of.split('{').next().unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        assert_eq!(name, format!("{family}{suffix}"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.insert(of.to_owned()), "twice: {line}");
        if let Some(labels) = of.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|it| it.strip_suffix('}')).unwrap();
            assert!(labels.starts_with("service=\"") && labels.ends_with('"'), "{line}");
        }
    }
}

#[test]
fn metrics_are_open_metrics_with_and_without_a_daemon() {
    let scratch = Scratch::new();
    let text = scratch.run(&["metrics"]).out;
    check(&text);
    assert!(text.contains("\nopm_daemon_up 0\n") && !scratch.home().exists());
    let _requests = scratch.daemon(answer);
    let text = scratch.run(&["metrics"]).out;
    check(&text);
    for line in [
        "opm_daemon_up 1",
        "opm_service_up{service=\"web\"} 1",
        "opm_service_failed{service=\"日本\"} 1",
        "opm_service_restarts_total{service=\"web\"} 3",
        "opm_service_memory_bytes{service=\"web\"} 52428800",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}

#[test]
fn metrics_over_http_are_what_the_asker_understands() {
    let scratch = Scratch::new();
    let _requests = scratch.daemon(answer);
    let mut child = scratch.command(&["metrics", "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit_once(' ').unwrap().1.to_owned();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())) || body.is_empty());
        (head.to_owned(), body.to_owned())
    };
    // One that says nothing holds up nobody for long.
    let silent = TcpStream::connect(&address).unwrap();
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\n";
    let (head, body) = ask(&format!("{get}Accept: application/openmetrics-text\r\n\r\n"));
    drop(silent);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text"));
    check(&body);
    let (head, body) = ask(&format!("{get}\r\n"));
    assert!(head.contains("text/plain; version=0.0.4") && !body.contains("# EOF"));
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.stdout(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(ask("GET /other HTTP/1.0\r\n\r\n").0.starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 405 "));
    assert_eq!(ask("HEAD /metrics HTTP/1.1\r\n\r\n").1, "");
    let taken = scratch.run(&["metrics", "--listen", &address]);
    assert_eq!(taken.err, format!("opm: metrics: {address}: Address already in use\n"));
    child.kill().unwrap();
    end_of(&mut child);
}
