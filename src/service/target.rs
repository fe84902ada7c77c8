//! Names of services, and what people write to mean some of them.
//!
//! Pure text: which services exist is the caller's to know. A name that passed [`check_name`]
//! can be told from an id, from `all`, from an option and from a list.
use super::columns::{columns, is_unseen};
use std::collections::HashSet;
use std::fmt::Write as _;

/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// The longest result of [`file_name_of`] for a valid name: leaves 25 bytes of the 255 that a
/// file name may have for suffixes such as `-error.log`.
pub const STEM_BYTES_MAX: usize = 230;

/// The longest target, in bytes: what an argument of exec may have. Each item is looked for among
/// all services.
const TARGET_BYTES_MAX: usize = 128 << 10;

/// What makes an item a glob.
const GLOB_SIGNS: [char; 3] = ['*', '?', '['];

/// What a command is asked to act on: an id, a name, a glob, `all`, or a comma list of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    parts: Vec<Part>,
}

/// One item of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    All,
    Id(u32),
    Name,
    Glob,
}

impl Target {
    /// Reads `1`, `web`, `api-*`, `all` or `1,web`. Blanks around an item do not count.
    pub fn parse(text: &str) -> Result<Target, String> {
        if text.trim().is_empty() {
            return Err("the target is empty: want an id, a name, a glob or all".to_owned());
        }
        if text.len() > TARGET_BYTES_MAX {
            let most = TARGET_BYTES_MAX >> 10;
            return Err(format!("the target is over {most} KB (use several, or a glob)"));
        }
        let mut parts = Vec::new();
        let mut seen = HashSet::new();
        for item in text.split(',').map(str::trim) {
            if item.is_empty() {
                return Err(format!("bad target {text:?}: an item of the list is empty"));
            }
            if seen.insert(item) {
                parts.push(Part::of(item));
            }
        }
        Ok(Target { parts })
    }

    /// A target that is no glob for others, and means the service of this name.
    pub fn exactly(name: &str) -> String {
        let mut text = String::with_capacity(name.len());
        for c in name.chars() {
            if GLOB_SIGNS.contains(&c) || c == '\\' && name.contains(GLOB_SIGNS) {
                text.push('\\');
            }
            text.push(c);
        }
        text
    }

    /// The items of the list in order, so that one that matched nothing can be named.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl Part {
    fn of(item: &str) -> Part {
        let digits = item.bytes().all(|b| b.is_ascii_digit());
        let kind = match item.parse() {
            // Digits past the largest id are no error: there is simply no such service.
            Ok(id) if digits => Kind::Id(id),
            _ if item == "all" => Kind::All,
            _ if item.contains(GLOB_SIGNS) => Kind::Glob,
            _ => Kind::Name,
        };
        Part { text: item.to_owned(), kind }
    }

    /// What was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is `all`, which is no mistake even if there is no service.
    pub fn is_all(&self) -> bool {
        self.kind == Kind::All
    }

    /// The ids of the services that are meant. What is exactly a name means that service and no
    /// other, though it may be a glob as well.
    pub fn choose<'a>(&self, services: impl Iterator<Item = (u32, &'a str)>) -> Vec<u32> {
        let mut chosen = Vec::new();
        for (id, name) in services {
            if self.text == name {
                return vec![id];
            }
            let is_meant = match self.kind {
                Kind::All => true,
                Kind::Id(wanted) => wanted == id,
                Kind::Name => false,
                Kind::Glob => glob_matches(&self.text, name),
            };
            if is_meant {
                chosen.push(id);
            }
        }
        chosen
    }
}

/// `*` any characters, `?` one, `[a-c]` one of, `[!a-c]` one not of, `\` takes the next as it is.
/// A bracket that is never closed is an ordinary character.
fn glob_matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Only the last star needs to be tried again, so time is bounded by the product of lengths.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(next) = one_matches(&pattern, p, name[n]) {
            p = next;
            n += 1;
        } else if let Some((star_p, star_n)) = star {
            star = Some((star_p, star_n + 1));
            p = star_p + 1;
            n = star_n + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Where the pattern goes on if its item at `p` matches `c`.
fn one_matches(pattern: &[char], p: usize, c: char) -> Option<usize> {
    match (*pattern.get(p)?, pattern.get(p + 1)) {
        ('?', _) => Some(p + 1),
        ('[', _) => match bracket(pattern, p, c) {
            Some((end, hit)) => hit.then_some(end),
            None => (c == '[').then_some(p + 1),
        },
        ('\\', Some(&escaped)) => (escaped == c).then_some(p + 2),
        (plain, _) => (plain == c).then_some(p + 1),
    }
}

/// The index after the bracket that opens at `p`, and whether `c` is in it.
fn bracket(pattern: &[char], p: usize, c: char) -> Option<(usize, bool)> {
    let mut i = p + 1;
    let negated = matches!(pattern.get(i), Some('!' | '^'));
    i += usize::from(negated);
    let first = i;
    let mut hit = false;
    loop {
        let low = *pattern.get(i)?;
        // A closing bracket that comes first is one of the set.
        if low == ']' && i > first {
            return Some((i + 1, hit != negated));
        }
        let high = match (pattern.get(i + 1), pattern.get(i + 2)) {
            (Some('-'), Some(&high)) if high != ']' => {
                i += 2;
                high
            }
            _ => low,
        };
        hit |= (low..=high).contains(&c);
        i += 1;
    }
}

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

    fn target(text: &str) -> Target {
        Target::parse(text).expect(text)
    }

    /// Whether the target means this service, where there is no other.
    fn means(text: &str, id: u32, name: &str) -> bool {
        target(text).parts().iter().any(|part| !part.choose([(id, name)].into_iter()).is_empty())
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
        let list = target(list);
        let texts: Vec<&str> = list.parts().iter().map(Part::text).collect();
        assert_eq!(texts, ["3", "web", "api-*"]);
        assert!(list.parts()[0].choose([(9, "web")].into_iter()).is_empty());
    }

    #[test]
    fn all_matches_everything() {
        assert!(means("all", 7, "x") && means("web,all", 7, "x"));
        assert!(target("all").parts()[0].is_all());
        assert!(!means("allx", 0, "x"));
    }

    #[test]
    fn empty_targets_and_items_are_refused() {
        for text in ["", " ", ",", "a,", ",a", "a,,b"] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_target_longer_than_an_argument_can_be_is_refused() {
        let list = "a,".repeat(TARGET_BYTES_MAX / 2 - 1) + "a";
        assert_eq!(target(&list).parts().len(), 1);
        let error = Target::parse(&(list + ",bb")).expect_err("too long");
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
        let services = || (0..).zip(names);
        for (id, name) in services() {
            for text in [name.to_owned(), Target::exactly(name)] {
                assert_eq!(target(&text).parts()[0].choose(services()), [id], "{text}");
            }
        }
        assert_eq!(target("[p-q]*").parts()[0].choose(services()), [0, 1, 3, 4, 5, 7]);
        assert_eq!(Target::exactly("plain"), "plain");
    }

    #[test]
    fn a_glob_of_many_stars_ends_soon() {
        // Exponential if every star were tried again: this would not end in a lifetime.
        let glob = "*a".repeat(30) + "b";
        assert!(!glob_matches(&glob, &"a".repeat(64)));
    }

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
