//! What people write to mean some services: an id, a name, a glob, `all`, the pid of a process of
//! theirs, or a list.
//!
//! Pure text: which services exist is the caller's to know.
use regex_lite::Regex;
use std::collections::HashSet;

/// The longest target, in bytes: what an argument of exec may have. Each item is looked for among
/// all services.
pub const TARGET_BYTES_MAX: usize = 128 << 10;

/// What makes an item a glob.
const GLOB_SIGNS: [char; 3] = ['*', '?', '['];

/// What a command is asked to act on: an id, a name, a glob, `all`, or a comma list of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
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
    /// Between slashes, which no name has.
    Regex,
}

impl Selector {
    /// Reads `1`, `web`, `api-*`, `all` or `1,web`. Blanks around an item do not count.
    pub fn parse(text: &str) -> Result<Selector, String> {
        if text.trim().is_empty() {
            return Err("the target is empty: want an id, a name, a glob or all".to_owned());
        }
        if text.len() > TARGET_BYTES_MAX {
            let most = TARGET_BYTES_MAX >> 10;
            return Err(format!("the target is over {most} KB (use several, or a glob)"));
        }
        let mut parts = Vec::new();
        let mut seen = HashSet::new();
        if let Some(pattern) = pattern_of(text) {
            Regex::new(pattern).map_err(|e| format!("bad target {text:?}: {e}"))?;
            return Ok(Selector { parts: vec![Part { text: text.to_owned(), kind: Kind::Regex }] });
        }
        for item in text.split(',').map(str::trim) {
            if item.is_empty() {
                return Err(format!("bad target {text:?}: an item of the list is empty"));
            }
            if seen.insert(item) {
                parts.push(Part::of(item));
            }
        }
        Ok(Selector { parts })
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

    /// Whether `text` is a list or has a glob in it.
    pub fn has_signs(text: &str) -> bool {
        text.contains(',') || text.contains(GLOB_SIGNS)
    }

    /// The items of the list in order, so that one that matched nothing can be named.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// What is between the slashes of `/api-[0-9]/`. It may hold commas.
fn pattern_of(text: &str) -> Option<&str> {
    text.strip_prefix('/')?.strip_suffix('/').filter(|pattern| !pattern.is_empty())
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

    /// The process that `pid:4242` means, if no service is called so.
    pub fn pid(&self) -> Option<i32> {
        self.text.strip_prefix("pid:")?.parse().ok()
    }

    /// Whether it is `all`, which is no mistake even if there is no service.
    pub fn is_all(&self) -> bool {
        self.kind == Kind::All
    }

    /// The ids of the services that are meant, of which each has a name, that of its group, if it
    /// is of one, and its namespace, if it has one. What is exactly a name means that service and
    /// no other, though it may be a glob as well; the name of a group means all of it, and then
    /// that of a namespace.
    pub fn choose<'a>(
        &self,
        services: impl Iterator<Item = (u32, &'a str, &'a str, &'a str)>,
    ) -> Vec<u32> {
        let mut chosen = Vec::new();
        let regex = pattern_of(&self.text).and_then(|pattern| Regex::new(pattern).ok());
        let mut others = Vec::new();
        for (id, name, group, namespace) in services {
            let is_of_group = self.text == group;
            if self.text == name && !is_of_group {
                return vec![id];
            }
            let is_meant = is_of_group
                || match self.kind {
                    Kind::All => true,
                    Kind::Id(wanted) => wanted == id,
                    Kind::Name => false,
                    Kind::Glob => glob_matches(&self.text, name),
                    Kind::Regex => regex.as_ref().is_some_and(|regex| regex.is_match(name)),
                };
            if is_meant {
                chosen.push(id);
            } else if self.kind == Kind::Name && self.text == namespace {
                others.push(id);
            }
        }
        if chosen.is_empty() { others } else { chosen }
    }
}

/// `*` any characters, `?` one, `[a-c]` one of, `[!a-c]` one not of, `\` takes the next as it is.
/// A bracket that is never closed is an ordinary character.
pub fn glob_matches(pattern: &str, name: &str) -> bool {
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
