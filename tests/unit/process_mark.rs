//! Of `opm::process::mark`.
use opm::process::mark::*;

#[test]
fn a_nested_opm_can_always_lower_its_limit() {
    let mut inherited = u64::MAX;
    let mut depth = 0;
    while let Some(daemon) = LimitMark::of_daemon(inherited, 0xdead_beef) {
        let mark = daemon.of_incarnation(u64::MAX);
        assert!(daemon.value() < inherited && mark.value() < daemon.value());
        let before = LimitMark::before_daemon(mark.value());
        inherited = before.map_or(mark.value(), LimitMark::value);
        assert!(inherited <= mark.value());
        depth += 1;
    }
    assert!(depth > 300, "{depth}");
    assert_eq!(LimitMark::before_daemon(u64::MAX), None);
}

#[test]
fn a_daemon_that_finds_its_own_mark_keeps_it() {
    let own = LimitMark::of_daemon(u64::MAX, 77).unwrap();
    assert_eq!(LimitMark::of_daemon(own.value(), 77), Some(own));
    // From inside its own service, as often as it may be: two levels each, and many of them.
    let mut inherited = u64::MAX;
    for _ in 0..10_000 {
        let daemon = LimitMark::of_daemon(inherited, 77).unwrap();
        let service = daemon.of_incarnation(5).value();
        inherited = LimitMark::before_daemon(service).unwrap().value();
    }
}

#[test]
fn a_lost_home_is_known_by_its_path() {
    let key = LimitMark::home_key(0x0123_4567_89ab_cdef, "/srv/a");
    let daemon = LimitMark::of_daemon(u64::MAX, key).unwrap();
    let value = daemon.of_incarnation(3).value();
    let home = LimitMark::lost_home((value, value), "/srv/a").unwrap();
    assert_eq!(LimitMark::lost_home((value, value), "/srv/b"), None);
    assert_eq!(LimitMark::lost_home((daemon.value(), daemon.value()), "/srv/a"), None);
    assert_eq!(LimitMark::daemons_home((daemon.value(), daemon.value())), Some(home));
    assert_eq!(LimitMark::daemons_home((value, value)), None);
    let again = LimitMark::key_of_lost(99, home);
    assert_eq!(LimitMark::generation_of((value, value), again), Some(3));
}

#[test]
fn a_limit_names_the_generation_of_its_own_home_only() {
    let key = 0x0123_4567_89ab_cdef;
    let daemon = LimitMark::of_daemon(u64::MAX, key).unwrap();
    let value = daemon.of_incarnation(77).value();
    assert_eq!(LimitMark::generation_of((value, value), key), Some(77));
    assert_eq!(LimitMark::generation_of((value, value), key + 1), None);
    assert_eq!(LimitMark::generation_of((value - 1, value), key), None);
    assert_eq!(LimitMark::generation_of((daemon.value(), daemon.value()), key), None);
    assert_eq!(LimitMark::generation_of((u64::MAX, u64::MAX), u64::MAX), None);
}

#[test]
fn the_environment_mark_reads_back() {
    let mark = EnvMark { home_key: 9, id: 3, generation: 12, pid: 4711 };
    assert_eq!(EnvMark::parse(mark.value().as_bytes()), Some(mark));
    assert!(mark.value().ends_with(".0000004711"));
    assert_eq!(EnvMark::parse(b"x.1.2.3"), None);
    assert_eq!(EnvMark::parse(b"1.1.2.3.4"), None);
    let last = EnvMark { generation: u64::MAX, ..mark };
    assert_eq!(EnvMark::parse(last.value().as_bytes()), None);
}
