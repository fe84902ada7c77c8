//! Memory, and who died of it.
use opm::sys::memory::{is_death, proportional};

#[test]
fn only_the_kernels_own_word_on_this_process_and_this_time_is_its_death() {
    let text = "Out of memory: Killed process 77 (node) total-vm:1kB";
    let record = |level, at: u64| format!("{level},1234,{at}000000,-;{text}\n");
    assert!(is_death(&record(3, 100), 77, 100));
    assert!(is_death(&record(6, 100).replace("Out of m", "Memory cgroup out of m"), 77, 40));
    assert!(!is_death(&record(3, 99), 77, 100), "old");
    assert!(!is_death(&record(11, 100), 77, 100), "a user's");
    assert!(!is_death(&record(3, 100), 7, 100), "another's");
    assert!(!is_death(text, 77, 0) && !is_death("", 77, 0));
}

#[test]
fn what_a_process_has_is_counted() {
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(proportional(own).unwrap() > 100 << 10);
    assert_eq!(proportional(i32::MAX), None);
}
