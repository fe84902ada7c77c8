//! Of `cli::output`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn what_is_shown_is_one_line_without_control_characters_and_numbers_of_errors() {
    assert_eq!(escape("a\nb\u{1b}[31m\u{85}é"), "a\\nb\\u{1b}[31m\\u{85}é");
    assert_eq!(reason(Errno::NOENT), "No such file or directory");
}
