//! Of `sys::child`: compiled with the library, for it uses what is private there.
use super::*;
use crate::process::stat::Stat;

#[test]
fn the_start_time_is_read_as_the_daemon_reads_it() {
    let own = std::fs::read("/proc/self/stat").unwrap();
    let odd = String::from_utf8_lossy(&own).replacen('(', "(a ) 22 (", 1).into_bytes();
    for text in [&own, &odd] {
        assert_eq!(Some(start_time(text)), Stat::parse(text).map(|stat| stat.start_time));
    }
    assert_eq!((start_time(b""), start_time(b"1 (a")), (0, 0));
}
