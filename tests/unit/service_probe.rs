//! What tells that a service is ready or well: how it is written, and what answers mean.
use opm::service::probe::*;

#[test]
fn signs_are_read_as_they_are_written_and_in_the_forms_that_people_use() {
    for (text, shown) in [
        ("exec", "exec"),
        ("fd:3", "fd:3"),
        ("tcp:80", "tcp:localhost:80"),
        ("tcp:[::1]:80", "tcp:[::1]:80"),
        ("http:3000/up?a=b", "http://localhost:3000/up?a=b"),
        ("http://10.0.0.1", "http://10.0.0.1:80/"),
        ("http:http://[::1]/x", "http://[::1]:80/x"),
        ("cmd:curl -f x:1", "cmd:curl -f x:1"),
    ] {
        assert_eq!(Sign::parse(text).expect(text).to_string(), shown);
        assert_eq!(Sign::parse(shown), Sign::parse(text));
    }
    for text in [
        "",
        "fd:2",
        "fd:98",
        "tcp:",
        "tcp:0",
        "tcp:70000",
        "tcp:host:80",
        "cmd: ",
        "https://x",
        "http:host/",
        "http:80/a b",
        "tcp:localhost",
        "tcp:+80",
    ] {
        assert!(Sign::parse(text).is_err(), "{text}");
    }
    assert!(Health::parse("exec").is_err() && Health::parse("notify").is_ok());
}

#[test]
fn an_answer_is_its_first_line() {
    let of = |text: &str| read_answer(text.as_bytes(), false);
    assert_eq!(of("HTTP/1.1 204 No"), None);
    assert_eq!(of("HTTP/1.1 204 No Content\r\n"), Some(Ok(())));
    assert_eq!(of("HTTP/1.0 503 Busy\r\n\r\n"), Some(Err("503 Busy".to_owned())));
    assert!(read_answer(b"", true).is_some_and(|answer| answer.is_err()));
    assert!(of("SSH-2.0\n").is_some_and(|answer| answer.is_err()));
}
