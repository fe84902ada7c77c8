//! Of `service::columns`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn the_bounds_of_the_table_rise() {
    assert!(UNSEEN.is_sorted_by(|a, b| a < b) && UNSEEN.len().is_multiple_of(2));
}

#[test]
fn characters_are_as_wide_as_terminals_make_them() {
    let cases = [
        ("a\u{e9}\u{416}\u{5d0}\u{915}\u{93f}\u{2500}", 1),
        ("\u{301}\u{e35}\u{e48}\u{94d}\u{20dd}\u{1d167}\u{200d}\u{11a8}", 0),
        ("\u{1fae0}\u{1f600}\u{65e5}\u{ac00}\u{ff21}\u{20000}\u{231a}", 2),
    ];
    for (text, width) in cases {
        assert!(text.chars().all(|c| columns(c) == width), "{text}");
    }
}
