//! `metrics`: numbers of the daemon and of each service in OpenMetrics text, once or by HTTP.
//!
//! Asks a daemon that is there and starts none; that there is none is a number, too.
use super::client::Need;
use super::output::{Done, failed, print, reason, warn, write};
use super::request::{Call, ask};
use crate::wire::{Health, Request, Row, Status, code};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Longest head of an HTTP request, and how long each read and write of it may take.
const HEAD_BYTES_MAX: usize = 8 << 10;
const PEER_TIME_MAX: Duration = Duration::from_secs(2);
/// What Prometheus asks for first, and what anything else understands.
const OPEN_METRICS: &str = "application/openmetrics-text";
const PLAIN: &str = "text/plain";

/// The gauges of a service: name, help, value.
type Gauge = (&'static str, &'static str, fn(&Row) -> Option<f64>);
const GAUGES: &[Gauge] = &[
    ("up", "Whether it is online.", |row| Some(f64::from(row.status == Status::Online))),
    ("ready", "Whether it does its work.", |row| Some(f64::from(row.ready))),
    ("failed", "Whether it is errored.", |row| Some(f64::from(row.status == Status::Errored))),
    ("processes", "Processes of its whole tree.", |row| row.processes.map(f64::from)),
    ("memory_bytes", "Memory of its whole tree.", |row| row.memory_bytes.map(|n| n as f64)),
    ("cpu_ratio", "Processors in use, since somebody last asked.", |row| {
        row.cpu_percent.map(|percent| percent / 100.0)
    }),
    ("uptime_seconds", "Since it was started.", |row| row.uptime_ms.map(|ms| ms as f64 / 1000.0)),
];

pub(super) fn metrics(call: &Call) -> Done {
    let Some(address) = call.matches.get_one::<String>("listen") else {
        return write(text(call, true).as_bytes()).map(|()| code::DONE);
    };
    let wrong = failed(format!("metrics: {address}"));
    let listener = TcpListener::bind(address).map_err(&wrong)?;
    let at = listener.local_addr().map_err(&wrong)?;
    print(&format!("metrics: listening on {at}"))?;
    loop {
        let (stream, _) = listener.accept().map_err(&wrong)?;
        // Whoever asks badly hurts nobody else.
        answer(call, stream).unwrap_or_else(|e| warn(&format!("metrics: {}", reason(e))));
    }
}

/// `open`: in OpenMetrics, else as before it: a counter's family has its whole name, and no end.
fn text(call: &Call, open: bool) -> String {
    let health: Option<Health> = ask(&call.client, Need::Running, &Request::Health).ok().flatten();
    let list = Request::List { usage: true };
    let rows: Vec<Row> = ask(&call.client, Need::Running, &list).ok().flatten().unwrap_or_default();
    let mut text = String::new();
    daemon(&mut text, health.as_ref());
    for (name, help, value) in GAUGES {
        family(&mut text, &format!("opm_service_{name}"), "gauge", help);
        for (row, value) in rows.iter().filter_map(|row| Some((row, value(row)?))) {
            text.push_str(&format!("opm_service_{name}{{{}}} {value}\n", labels(row)));
        }
    }
    let counter = if open { "opm_service_restarts" } else { "opm_service_restarts_total" };
    family(&mut text, counter, "counter", "Restarts, by itself and asked for, since its reset.");
    for row in &rows {
        let line = format!("opm_service_restarts_total{{{}}} {}\n", labels(row), row.restarts);
        text.push_str(&line);
    }
    text + if open { "# EOF\n" } else { "" }
}

fn daemon(text: &mut String, health: Option<&Health>) {
    let gauges: [(&str, &str, Option<f64>); 4] = [
        ("up", "Whether there is one.", Some(f64::from(health.is_some()))),
        ("uptime_seconds", "Since it began.", health.map(|it| it.uptime_ms as f64 / 1000.0)),
        ("memory_bytes", "Its own memory.", health.map(|it| it.memory_bytes as f64)),
        ("services", "Services on record.", health.map(|it| it.services as f64)),
    ];
    for (name, help, value) in gauges {
        family(text, &format!("opm_daemon_{name}"), "gauge", help);
        text.extend(value.map(|value| format!("opm_daemon_{name} {value}\n")));
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    text.push_str(&format!("# TYPE {name} {kind}\n"));
    let units = ["bytes", "seconds", "ratio"];
    let unit = units.into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
    text.extend(unit.map(|unit| format!("# UNIT {name} {unit}\n")));
    text.push_str(&format!("# HELP {name} {help}\n"));
}

fn labels(row: &Row) -> String {
    let name = row.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("service=\"{name}\"")
}

/// One request of HTTP and its answer; the connection is closed.
fn answer(call: &Call, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PEER_TIME_MAX))?;
    stream.set_write_timeout(Some(PEER_TIME_MAX))?;
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            n => head.extend_from_slice(&bytes[..n]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target.split('?').next().unwrap_or("");
    let open = head.contains(OPEN_METRICS);
    let (status, body) = match (method, path) {
        ("GET" | "HEAD", "/" | "/metrics") => ("200 OK", text(call, open)),
        ("GET" | "HEAD", _) => ("404 Not Found", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET /metrics\n".to_owned()),
    };
    let kind = match (open, status) {
        (true, "200 OK") => format!("{OPEN_METRICS}; version=1.0.0; charset=utf-8"),
        _ => format!("{PLAIN}; version=0.0.4; charset=utf-8"),
    };
    let length = body.len();
    let mut reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    if method != "HEAD" {
        reply.push_str(&body);
    }
    stream.write_all(reply.as_bytes())
}
