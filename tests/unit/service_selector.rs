//! Of `opm::service::selector`.
use opm::service::selector::*;

fn selector(text: &str) -> Selector {
    Selector::parse(text).expect(text)
}

/// Whether the target means this service, where there is no other.
fn means(text: &str, id: u32, name: &str) -> bool {
    selector(text)
        .parts()
        .iter()
        .any(|part| !part.choose([(id, name, "", "")].into_iter()).is_empty())
}

#[test]
fn an_id_matches_only_that_id() {
    assert!(means("1", 1, "web"));
    assert!(!means("1", 11, "1x"));
    assert!(means("01", 1, "web"));
}

#[test]
fn a_name_matches_only_the_whole_name() {
    assert!(means("web", 0, "web"));
    for other in ["web2", "we", "Web", "aweb"] {
        assert!(!means("web", 0, other), "{other}");
    }
}

#[test]
fn a_list_matches_any_of_its_parts_and_keeps_their_order() {
    let list = "3, web,api-*,web";
    assert!(means(list, 3, "x") && means(list, 9, "web") && means(list, 8, "api-1"));
    assert!(!means(list, 4, "x"));
    let list = selector(list);
    let texts: Vec<&str> = list.parts().iter().map(Part::text).collect();
    assert_eq!(texts, ["3", "web", "api-*"]);
    assert!(list.parts()[0].choose([(9, "web", "", "")].into_iter()).is_empty());
}

#[test]
fn all_matches_everything() {
    assert!(means("all", 7, "x") && means("web,all", 7, "x"));
    assert!(selector("all").parts()[0].is_all());
    assert!(!means("allx", 0, "x"));
}

#[test]
fn a_pid_is_one_unless_a_service_is_called_so() {
    let pids = |text| selector(text).parts().iter().map(Part::pid).collect::<Vec<_>>();
    assert_eq!(pids("web,pid:42,pid:x,pid:"), [None, Some(42), None, None]);
    assert!(means("pid:42", 0, "pid:42") && !means("pid:42", 42, "web"));
}

#[test]
fn empty_targets_and_items_are_refused() {
    for text in ["", " ", ",", "a,", ",a", "a,,b"] {
        assert!(Selector::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_target_longer_than_an_argument_can_be_is_refused() {
    let list = "a,".repeat(TARGET_BYTES_MAX / 2 - 1) + "a";
    assert_eq!(selector(&list).parts().len(), 1);
    let error = Selector::parse(&(list + ",bb")).expect_err("too long");
    assert!(error.contains("128 KB"), "{error}");
}

#[test]
fn digits_past_the_largest_id_match_nothing() {
    assert!(!means("99999999999999999999", u32::MAX, "web"));
    assert!(means("4294967295", u32::MAX, "web"));
}

#[test]
fn globs_match_as_a_shell_does() {
    let hits = [
        ("api-*", "api-"),
        ("api-*", "api-1"),
        ("*", "x"),
        ("a?c", "aéc"),
        ("w[a-c]b", "wab"),
        ("w[!a-c]b", "wxb"),
        ("w[^a]b", "wxb"),
        ("[]a]x", "]x"),
        ("[a-]x", "-x"),
        ("*-*-*", "a-b-c"),
        ("a[", "a["),
        ("a[b", "a[b"),
        ("[x]", "[x]"),
        ("a\\*", "a*"),
        ("*a*b", "aXbab"),
        ("x**", "x"),
    ];
    for (glob, name) in hits {
        assert!(means(glob, 0, name), "{glob} {name}");
    }
    let misses = [
        ("api-*", "xapi-1"),
        ("a?c", "ac"),
        ("w[a-c]b", "wdb"),
        ("w[!a-c]b", "wab"),
        ("a[b", "ab"),
        ("a\\*", "abc"),
        ("*a", "ab"),
        ("?", "ab"),
        ("[z-a]", "b"),
    ];
    for (glob, name) in misses {
        assert!(!means(glob, 0, name), "{glob} {name}");
    }
}

#[test]
fn what_is_exactly_a_name_means_no_other_service() {
    let names = ["q", "qr", "[qr]", "q*", "q?", "q\\[", "a\\b", "plain"];
    let services = || (0..).zip(names).map(|(id, name)| (id, name, "", ""));
    for (id, name, ..) in services() {
        for text in [name.to_owned(), Selector::exactly(name)] {
            assert_eq!(selector(&text).parts()[0].choose(services()), [id], "{text}");
        }
    }
    assert_eq!(selector("[p-q]*").parts()[0].choose(services()), [0, 1, 3, 4, 5, 7]);
    assert_eq!(Selector::exactly("plain"), "plain");
}

#[test]
fn a_glob_of_many_stars_ends_soon() {
    // Exponential if every star were tried again: this would not end in a lifetime.
    let glob = "*a".repeat(30) + "b";
    assert!(!glob_matches(&glob, &"a".repeat(64)));
}

#[test]
fn the_name_of_a_group_or_of_a_namespace_means_all_of_it() {
    let services = || {
        let all = [
            (0, "web", "web", "blue"),
            (1, "web-1", "web", "blue"),
            (2, "api", "", "blue"),
            (3, "job", "", "api"),
        ];
        all.into_iter()
    };
    for (text, ids) in [
        ("web", &[0, 1][..]),
        ("web-1", &[1]),
        // A name comes before a namespace.
        ("api", &[2]),
        ("blue", &[0, 1, 2]),
        ("b*", &[]),
        ("w*", &[0, 1]),
    ] {
        assert_eq!(selector(text).parts()[0].choose(services()), ids, "{text}");
    }
}
