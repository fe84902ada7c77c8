//! Of `run::prefix`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn a_line_is_taken_when_its_end_has_come_or_it_is_long_or_the_last() {
    assert_eq!(next_line(b"ab\ncd", false), Some((3, &b"ab"[..])));
    assert_eq!(next_line(b"\n", false), Some((1, &b""[..])));
    assert_eq!(next_line(b"cd", false), None);
    assert_eq!(next_line(b"cd", true), Some((2, &b"cd"[..])));
    assert_eq!(next_line(b"", true), None);
    let long = vec![b'x'; LINE_BYTES_MAX + 1];
    assert_eq!(next_line(&long[1..], false), None);
    assert_eq!(next_line(&long, false).map(|l| l.0), Some(LINE_BYTES_MAX));
    let mut full = vec![b'x'; LINE_BYTES_MAX];
    full.push(b'\n');
    assert_eq!(next_line(&full, false).map(|l| l.1.len()), Some(LINE_BYTES_MAX));
}

#[test]
fn a_cut_is_not_within_a_character() {
    let text = "é".repeat(LINE_BYTES_MAX);
    let (cut, line) = next_line(&text.as_bytes()[1..], false).unwrap();
    assert_eq!(cut, LINE_BYTES_MAX - 1, "the window begins within a character");
    assert!(std::str::from_utf8(&line[1..]).is_ok());
}

#[test]
fn each_prefix_is_as_documented() {
    let label = Label { name: "web".to_owned(), width: 5, stream: "stderr" };
    let shown = |prefix| {
        let mut out = Vec::new();
        put_line(&mut out, prefix, &label, "T", b"a\"b");
        String::from_utf8(out).unwrap()
    };
    assert_eq!(shown(Prefix::None), "a\"b\n");
    assert_eq!(shown(Prefix::Name), "web   | a\"b\n");
    assert_eq!(shown(Prefix::Time), "T web   | a\"b\n");
    let json: serde_json::Value = serde_json::from_str(&shown(Prefix::Json)).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"time":"T","service":"web","stream":"stderr","line":"a\"b"})
    );
}
