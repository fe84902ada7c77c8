//! Of `opm::process::stat`.
use opm::process::stat::*;

const TAIL: &str = " S 7 42 42 0 -1 4194560 1 2 3 4 50 60 5 6 20 0 9 0 123456 999424 345 \
    18446744073709551615 1 1 0 0 0 0 0 16781312 134235651 0 0 0 17 1 0 0 0 0 0 1 2 3 4 \
    5 6 7 256\n";

fn stat_of(name: &[u8]) -> Vec<u8> {
    let mut text = b"42 (".to_vec();
    text.extend_from_slice(name);
    text.push(b')');
    text.extend_from_slice(TAIL.as_bytes());
    text
}

fn expected() -> Stat {
    Stat {
        pid: 42,
        state: b'S',
        ppid: 7,
        pgid: 42,
        sid: 42,
        execed: true,
        utime: 50,
        stime: 60,
        num_threads: 9,
        start_time: 123_456,
        rss_pages: 345,
        exit_code: 256,
    }
}

/// The text with something else in one place.
fn with(old: &str, new: &str) -> Option<Stat> {
    let text = String::from_utf8(stat_of(b"node")).expect("ascii");
    assert!(text.contains(old));
    Stat::parse(text.replace(old, new).as_bytes())
}

#[test]
fn stat_fields_are_where_proc_5_says() {
    assert_eq!(Stat::parse(&stat_of(b"node")), Some(expected()));
    // A fork that never exec'd.
    assert_eq!(with(" 4194560 ", " 4194624 "), Some(Stat { execed: false, ..expected() }));
    assert_eq!(with(" 345 ", " -3 "), Some(Stat { rss_pages: 0, ..expected() }));
}

#[test]
fn no_process_name_can_forge_stat() {
    let names: [&[u8]; 9] = [
        b"",
        b" ",
        b"a b",
        b") R 1 1 1",
        b"((",
        b"))) (",
        b"a\nb) Z 1\n",
        b"\xff\xfe\x80",
        b"42 (x) S 7",
    ];
    for name in names {
        assert_eq!(Stat::parse(&stat_of(name)), Some(expected()), "{name:?}");
    }
}

#[test]
fn a_cut_stat_is_none_at_every_length() {
    let text = stat_of(b"node");
    let last_field = text.len() - "256\n".len();
    for length in 0..=last_field {
        assert_eq!(Stat::parse(&text[..length]), None, "{length}");
    }
}

#[test]
fn broken_stat_is_none() {
    let broken = [
        ("42 (", "x ("),
        ("42 (", "("),
        (" S 7", " SS 7"),
        (" S 7", " S seven"),
        (" S 7", " S +7"),
        (" 123456 ", " -1 "),
        (" 123456 ", " 99999999999999999999 "),
    ];
    for (old, new) in broken {
        assert_eq!(with(old, new), None, "{new}");
    }
    for text in [")42 (", ")("] {
        assert_eq!(Stat::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn the_stat_of_a_real_zombie_parses() {
    // As Linux 6.18 printed it for a child that had called exit(3).
    let text = "7617 (python3) Z 7576 7572 2522 0 -1 4227148 229 0 0 0 0 0 0 0 20 0 1 0 \
        101482 0 0 18446744073709551615 0 0 0 0 0 0 0 16781312 2 1 0 0 17 0 0 0 0 0 0 0 0 0 0 \
        0 0 0 768\n";
    let stat = Stat::parse(text.as_bytes()).expect("stat");
    assert_eq!((stat.pid, stat.state, stat.ppid, stat.pgid), (7617, b'Z', 7576, 7572));
    assert_eq!((stat.sid, stat.num_threads, stat.start_time), (2522, 1, 101_482));
    assert_eq!((stat.rss_pages, stat.exit_code), (0, 3 << 8));
}

#[test]
fn children_are_appended_and_what_is_no_whole_pid_is_left_out_and_said() {
    let texts: [(&[u8], &[i32], bool); 6] = [
        (b"12 7 4194304 ", &[12, 7, 4_194_304], true),
        (b"2 \n", &[2], true),
        (b"", &[], true),
        // The last one may be cut off.
        (b"12 34", &[12], false),
        (b"12", &[], false),
        (b"1 \xff\xfe 2 ", &[1, 2], false),
    ];
    let bad = ["1 x 2 ", "1 -5 2 ", "1 0 2 ", "1 99999999999 2 ", "1 +3 2 ", "1 \0 2 "];
    let bad = bad.iter().map(|text| (text.as_bytes(), &[1, 2][..], false));
    for (text, pids, is_whole) in texts.into_iter().chain(bad) {
        let mut found = vec![99];
        assert_eq!(parse_children(text, &mut found), is_whole, "{text:?}");
        assert_eq!(found, [&[99], pids].concat(), "{text:?}");
    }
}

#[test]
fn the_locks_limit_is_found_by_its_name() {
    let limits = "\
        Limit                     Soft Limit           Hard Limit           Units     \n\
        Max cpu time              unlimited            unlimited            seconds   \n\
        Max file locks            1234567890123        unlimited            locks     \n\
        Max pending signals       1                    2                    signals   \n";
    assert_eq!(parse_locks_limit(limits.as_bytes()), Some((1_234_567_890_123, u64::MAX)));
    let broken = [
        "",
        "Max file locks",
        "Max file locks   12",
        "Max file locks   12\n  13 locks",
        "Max file locks x 1",
        "Max file locks  -1  1 locks",
        "xMax file locks 1 1 locks",
        "Max file lockss 1 1",
        "Max file locks 18446744073709551616 1 locks",
    ];
    for text in broken {
        assert_eq!(parse_locks_limit(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn uids_are_found_by_their_name() {
    let text = b"Name:\tx\nUid:\t1000\t0\t7\t0\nGid:\t5\t5\t5\t5\n";
    assert_eq!(parse_uids(text), Some([1000, 0, 7]));
    assert_eq!(parse_uids(b"Name:\tx\nUid:\t1000\t0\n"), None);
    assert_eq!(parse_uids(b""), None);
}

#[test]
fn an_environment_value_needs_the_whole_name() {
    let environ = b"AOPM_ID=0\0OPM_IDS=1\0OPM_ID=2\0OPM_ID=3\0OPM_ID\0EMPTY=\0RAW=\xff=\n";
    assert_eq!(environ_value(environ, "OPM_ID"), Some(b"2".as_slice()));
    assert_eq!(environ_value(environ, "EMPTY"), Some(b"".as_slice()));
    assert_eq!(environ_value(environ, "RAW"), Some(b"\xff=\n".as_slice()));
    assert_eq!(environ_value(environ, "OPM_I"), None);
    assert_eq!(environ_value(b"", "OPM_ID"), None);
}

#[test]
fn arguments_end_in_nul_each() {
    assert_eq!(parse_cmdline(b"node\0server.js\0"), ["node", "server.js"]);
    assert_eq!(parse_cmdline(b"a\0\0b c\n\0\0"), ["a", "", "b c\n", ""]);
    assert_eq!(parse_cmdline(b"\0"), [""]);
    assert_eq!(parse_cmdline(b"nginx: master process"), ["nginx: master process"]);
    assert_eq!(parse_cmdline(b"\xff\xc3\xa9\0"), ["\u{fffd}é"]);
    assert!(parse_cmdline(b"").is_empty());
}
