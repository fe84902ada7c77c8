//! Of `cli::why`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn a_port_is_taken_from_lines_that_say_that_it_is_in_use() {
    for (line, expected) in [
        ("Error: listen EADDRINUSE: address already in use :::3000", vec![3000]),
        ("bind() to 0.0.0.0:80 failed (98: Address already in use)", vec![80]),
        ("listening socket *:6379: bind: Address already in use", vec![6379]),
        ("Connection in use: ('127.0.0.1', 8000)", vec![8000]),
        ("could not bind port 5432: Address already in use", vec![5432]),
        ("OSError: [Errno 98] Address already in use", vec![7]),
        ("2026/01/02 03:22:05 [emerg] bind() to [::]:80: address already in use", vec![80]),
        ("03:22 2026-01-02T03:22:25.5Z address already in use on localhost:81.", vec![81]),
        ("listening on 0.0.0.0:80", vec![]),
    ] {
        let found: Vec<u16> = ports(&[line.to_owned()], Some(7)).into_iter().collect();
        assert_eq!(found, expected, "{line}");
    }
}
