//! Of `opm::sys::guarded`.
use opm::sys::Errno;
use opm::sys::guarded::*;

#[test]
fn what_answers_is_read_whole_and_what_is_missing_says_so() {
    let own = std::fs::read("/proc/self/environ").unwrap();
    let pid = std::process::id();
    assert_eq!(read(&format!("/proc/{pid}/environ")), Ok(own));
    assert_eq!(read("/proc/0/environ"), Err(Errno::NOENT));
}
