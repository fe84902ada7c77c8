//! Names of services, and the names of files that are made from them.
//!
//! A name that passed [`check_name`] can be told from an id, from `all`, from an option and from
//! a list.
use super::columns::{columns, is_unseen};
use std::fmt::Write as _;

/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// The longest result of [`file_name_of`] for a valid name: leaves 25 bytes of the 255 that a
/// file name may have for suffixes such as `-error.log`.
pub const STEM_BYTES_MAX: usize = 230;

/// Says what is wrong with a name for a service, if anything is.
pub fn check_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    let wrong = if name.is_empty() {
        "is empty".to_owned()
    } else if length > NAME_CHARS_MAX {
        format!("has {length} characters (at most {NAME_CHARS_MAX})")
    } else if let Some(c) = name.chars().find(|c| is_unseen(*c)) {
        format!("has a character that does not print (U+{:04X})", u32::from(c))
    } else if name.chars().next().is_some_and(|c| columns(c) == 0) {
        "begins with a mark that combines with what is before it".to_owned()
    } else if name.contains('/') {
        "has a slash in it".to_owned()
    } else if name.contains(',') {
        "has a comma in it, which separates targets".to_owned()
    } else if name == "all" {
        "stands for every service".to_owned()
    } else if name.bytes().all(|b| b.is_ascii_digit()) {
        "is only digits, as ids are".to_owned()
    } else if name.starts_with('-') {
        "begins with a dash, as options do".to_owned()
    } else if name.starts_with('.') {
        "begins with a dot".to_owned()
    } else if name.starts_with(' ') || name.ends_with(' ') {
        "begins or ends with a blank".to_owned()
    } else {
        return Ok(());
    };
    // Of a name that is far too long the beginning says which it was.
    let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
    Err(format!("bad name {shown:?}: it {wrong}"))
}

/// A file name for a service: injective, so that two services never share a file, with nothing
/// in it but `A-Z a-z 0-9 . _ @ + - %`, and at most [`STEM_BYTES_MAX`] long for a valid name.
///
/// Other bytes become `%XX`. Where that would be too long (64 characters of 4 bytes would need
/// 768) it is `%u` and the code points in 6-bit digits, which is short enough and still exact: a
/// hash would be shorter, but could make two services write to one file.
pub fn file_name_of(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (i, &byte) in name.as_bytes().iter().enumerate() {
        // A leading dot would hide the file, or be a directory's own name.
        let plain =
            byte.is_ascii_alphanumeric() || (b"._@+-".contains(&byte) && (byte, i) != (b'.', 0));
        if plain {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    match out.len() {
        // No escape is a lone percent sign, so this is nobody else's name.
        0 => "%".to_owned(),
        1..=STEM_BYTES_MAX => out,
        _ => packed(name),
    }
}

/// Two code points are 42 bits, which are 7 digits of 6: 64 characters make 226 bytes. A last
/// odd one takes 4 digits, so the length says how many there were. Never a valid escape, as `u`
/// is no hexadecimal digit.
fn packed(name: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    let mut out = String::from("%u");
    let mut chars = name.chars();
    while let Some(first) = chars.next() {
        let (bits, count) = match chars.next() {
            Some(second) => (u64::from(u32::from(first)) << 21 | u64::from(u32::from(second)), 7),
            None => (u64::from(u32::from(first)), 4),
        };
        for digit in (0..count).rev() {
            let index = (bits >> (6 * digit)) & 63;
            out.push(char::from(DIGITS[index as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
