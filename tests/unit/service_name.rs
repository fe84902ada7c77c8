//! Of `opm::service::name`.
use opm::service::name::*;
use std::collections::HashMap;

#[test]
fn good_names_pass() {
    let longest = "\u{1F600}".repeat(64);
    for name in [
        "web",
        "api-1",
        "a b",
        "grüße",
        "日本",
        "\u{e01}\u{e35}\u{e48}",
        "1a",
        "a.b_c@d+e",
        "a*",
        "All",
        "%41",
        &longest,
    ] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
}

#[test]
fn each_violation_of_a_name_is_one_line_of_its_own() {
    let longer = "x".repeat(65);
    let bad = [
        ("", "empty"),
        (&longer, "65 characters"),
        ("a\nb", "U+000A"),
        ("a\u{7f}", "U+007F"),
        ("a\u{202e}b", "U+202E"),
        ("a\u{a0}b", "U+00A0"),
        ("web\u{fe0e}", "U+FE0E"),
        ("\u{17b4}web", "U+17B4"),
        ("we\u{1d17a}b", "U+1D17A"),
        ("web\u{e0101}", "U+E0101"),
        ("\u{302}web", "combines"),
        ("a/b", "slash"),
        ("a,b", "comma"),
        ("all", "every service"),
        ("42", "digits"),
        ("-a", "dash"),
        (".a", "dot"),
        (" a", "blank"),
        ("a ", "blank"),
    ];
    for (name, word) in bad {
        let error = check_name(name).expect_err(name);
        assert!(error.contains(word) && !error.contains('\n'), "{name:?}: {error}");
    }
}

#[test]
fn plain_names_are_their_own_file_names() {
    assert_eq!(file_name_of("api-1.b_c@d+E"), "api-1.b_c@d+E");
    assert_eq!(file_name_of("a b%"), "a%20b%25");
    assert_eq!(file_name_of("é"), "%C3%A9");
    assert_eq!(file_name_of("../x"), "%2E.%2Fx");
    assert_eq!(file_name_of("."), "%2E");
}

#[test]
fn every_file_name_is_safe_and_short_enough() {
    for filler in ["\u{1F600}", "\u{10FFFD}", "日", "é", " ", "%", "x", "."] {
        for length in 1..=64 {
            let file = file_name_of(&filler.repeat(length));
            assert!(file.len() <= STEM_BYTES_MAX, "{filler} {length}");
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"._@+-%".contains(&b);
            assert!(file.bytes().all(safe) && !file.starts_with('.'), "{file}");
        }
    }
    assert!(STEM_BYTES_MAX + "-error.log".len() <= 255);
}

#[test]
fn different_names_have_different_files() {
    let mut seen: HashMap<String, String> = HashMap::new();
    let pieces =
        ["", "%", "%20", " ", "%u", "a", "A", "é", "e\u{301}", "\u{1F600}", "\u{1F601}", "日"];
    for long in ["", &"\u{1F600}".repeat(61), &"日".repeat(61), &"%".repeat(61)] {
        for a in pieces {
            for b in pieces {
                let name = format!("{a}{long}{b}");
                if let Some(other) = seen.insert(file_name_of(&name), name.clone()) {
                    assert_eq!(other, name);
                }
            }
        }
    }
    assert!(seen.len() > 300);
    // Where 20 bits for a code point would be one too few.
    let last = |c: char| file_name_of(&format!("{}{c}\u{100041}", "日".repeat(62)));
    assert_ne!(last('\u{10000}'), last('\u{10001}'));
}
