//! Of `opm::sys::output_of`.
use opm::sys::Errno;
use opm::sys::output_of::*;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_it_says_is_heard_if_it_ends_well() {
    let ask = |line| output_of("/bin/sh", &["sh", "-c", line], LONG).unwrap();
    assert_eq!(ask("echo yes; echo no >&2"), Some("yes\n".to_owned()));
    assert_eq!(ask("read line || echo none"), Some("none\n".to_owned()));
    assert_eq!(ask("echo yes; exit 1"), None);
    assert_eq!(ask("kill -9 $$"), None);
}

#[test]
fn what_does_not_end_is_killed_and_reaped() {
    let brief = Duration::from_millis(20);
    let began = Instant::now();
    assert_eq!(output_of("/bin/sleep", &["sleep", "600"], brief), Ok(None));
    assert!(began.elapsed() < LONG);
}

#[test]
fn a_file_that_is_no_program_is_an_error() {
    assert_eq!(output_of("/etc/passwd", &["x"], LONG), Err(Errno::ACCESS));
    assert_eq!(output_of("/nowhere/opm", &["x"], LONG), Err(Errno::NOENT));
}
