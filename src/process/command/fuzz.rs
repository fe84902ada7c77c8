//! Texts that nobody would write, by a seed: the same in every run.
use super::*;

/// xorshift64: the same texts in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

const NASTY: &[&str] = &[
    "'",
    "\"",
    "\\",
    "$",
    "`",
    "$(",
    "${",
    ")",
    "}",
    "|",
    "||",
    "&&",
    ";",
    "\n",
    "<",
    ">&-",
    "#",
    " ",
    " ",
    " ",
    " -",
    "--",
    "=",
    "/",
    ".",
    ",",
    "\0",
    "\u{1b}",
    "é",
    "日本",
    "\u{1F600}",
    "\u{202e}",
    "\u{3164}",
    "sh -c ",
    "env ",
    "-S",
    "-c ",
    "sudo -u ",
    "node ",
    "python -m",
    "java ",
    "-jar ",
    ".jar",
    "x.js",
    "bash",
    "perl -",
    "eval ",
    "exec ",
    "timeout 5 ",
    "su ",
    "A=b",
    "all",
    "42",
    "npx ",
    "$@",
];

#[test]
fn extract_search_pattern_from_command_never_panics() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for _ in 0..40_000 {
        let length = dice.below(14);
        let text: String = (0..length).map(|_| NASTY[dice.below(NASTY.len())]).collect();
        let pattern = extract_search_pattern_from_command(&text);
        assert_eq!(pattern.is_empty(), text.trim().is_empty(), "{text:?}");
        assert!(pattern == "/" || !pattern.contains('/'), "{text:?} gave {pattern:?}");

        let words: Vec<&str> = text.split(' ').collect();
        let pattern = pattern_of_argv(&words);
        assert_eq!(pattern.is_empty(), words.iter().all(|word| word.is_empty()), "{words:?}");
        assert_valid_name(&default_name(&words));
    }
}

#[test]
fn extract_search_pattern_from_command_bounds_its_depth() {
    let wrappers = "nice ".repeat(200_000) + "caddy";
    assert_eq!(extract_search_pattern_from_command(&wrappers), "caddy");
    for opening in ["sh -c ", "env -S ", "eval ", "$(", "${", "\"$(", "(", "`", "'", "\"", "{ "] {
        assert!(!extract_search_pattern_from_command(&opening.repeat(20_000)).is_empty());
    }
}

/// The rules for names, said once more: this module may not ask the one that has them.
#[track_caller]
pub(super) fn assert_valid_name(name: &str) {
    let length = name.chars().count();
    assert!((1..=64).contains(&length), "{name:?}");
    assert!(!name.contains(['/', ',', ' ', '\u{202e}', '\u{3164}']), "{name:?}");
    assert!(!name.chars().any(char::is_control), "{name:?}");
    assert!(name != "all" && !name.starts_with(['-', '.']), "{name:?}");
    assert!(!name.bytes().all(|b| b.is_ascii_digit()), "{name:?}");
}
